package wire

import (
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The layout of every request, in the order of the wire, in a shorthand of one letter per field:
//
//	b h i l u   one byte, int16, int32, int64 or float64, uuid
//	s n         string, nullable string          B   bytes, nullable or not
//	*x          array of such a field            [ ] array of structures      ?[ ] nullable structure
//	@a+ @a-b    only in versions from a, or from a to b
//
// Every structure of a flexible version ends in tagged fields, which have no letter. Only Cost reads
// this; a test fills kmsg's own requests at every version and demands that the walk ends where the
// encoding ends, so that an error here cannot stay.
var layouts = map[int16]string{
	0:  "n@3+ h i [ s@0-12 u@13+ [ i B ] ]",                                                                                                                        // Produce
	1:  "i@0-14 i i i@3+ b@4+ i@7+ i@7+ [ s@0-12 u@13+ [ i i@9+ l i@12+ l@5+ i ] ] [ s@7-12 u@13+ *i ]@7+ s@11+",                                                   // Fetch
	2:  "i b@2+ [ s [ i i@4+ l i@0-0 ] ] i@10+",                                                                                                                    // ListOffsets
	3:  "[ u@10+ n ] b@4+ b@8-10 b@8+",                                                                                                                             // Metadata
	8:  "s i@1+ s@1+ n@7+ l@2-4 [ s@0-9 u@10+ [ i l l@1-1 i@6+ n ] ]",                                                                                              // OffsetCommit
	9:  "s@0-7 [ s *i ]@0-7 [ s n@9+ i@9+ [ s@8-9 u@10+ *i ] ]@8+ b@7+",                                                                                            // OffsetFetch
	10: "s@0-3 b@1+ *s@4+",                                                                                                                                         // FindCoordinator
	11: "s i i@1+ s n@5+ s [ s B ] n@8+",                                                                                                                           // JoinGroup
	12: "s i s n@3+",                                                                                                                                               // Heartbeat
	13: "s s@0-2 [ s n n@5+ ]@3+",                                                                                                                                  // LeaveGroup
	14: "s i s n@3+ n@5+ n@5+ [ s B ]",                                                                                                                             // SyncGroup
	15: "*s b@3+",                                                                                                                                                  // DescribeGroups
	16: "*s@4+ *s@5+",                                                                                                                                              // ListGroups
	17: "s",                                                                                                                                                        // SASLHandshake
	18: "s@3+ s@3+ n@5+ i@5+",                                                                                                                                      // ApiVersions
	19: "[ s i h [ i *i ] [ s n ] ] i b@1+",                                                                                                                        // CreateTopics
	20: "*s@0-5 [ n u ]@6+ i",                                                                                                                                      // DeleteTopics
	21: "[ s [ i l ] ] i",                                                                                                                                          // DeleteRecords
	22: "n i l@3+ h@3+",                                                                                                                                            // InitProducerID
	23: "i@3+ [ s [ i i@2+ i ] ]",                                                                                                                                  // OffsetForLeaderEpoch
	24: "s@0-3 l@0-3 h@0-3 [ s *i ]@0-3 [ s l h b [ s *i ] ]@4+",                                                                                                   // AddPartitionsToTxn
	25: "s l h s",                                                                                                                                                  // AddOffsetsToTxn
	26: "s l h b",                                                                                                                                                  // EndTxn
	27: "[ l h b [ s *i ] i b@2+ ]",                                                                                                                                // WriteTxnMarkers
	28: "s s l h i@3+ s@3+ n@3+ [ s@0-5 u@6+ [ i l i@2+ n ] ]",                                                                                                     // TxnOffsetCommit
	29: "b n b@1+ n n b b",                                                                                                                                         // DescribeACLs
	30: "[ b s b@1+ s s b b ]",                                                                                                                                     // CreateACLs
	31: "[ b n b@1+ n n b b ]",                                                                                                                                     // DeleteACLs
	32: "[ b s *s ] b@1+ b@3+",                                                                                                                                     // DescribeConfigs
	33: "[ b s [ s n ] ] b",                                                                                                                                        // AlterConfigs
	34: "[ s [ s *i ] ]",                                                                                                                                           // AlterReplicaLogDirs
	35: "[ s *i ]",                                                                                                                                                 // DescribeLogDirs
	36: "B",                                                                                                                                                        // SASLAuthenticate
	37: "[ s i [ *i ] ] i b",                                                                                                                                       // CreatePartitions
	38: "n@3+ n@3+ [ s s ] l",                                                                                                                                      // CreateDelegationToken
	39: "B l",                                                                                                                                                      // RenewDelegationToken
	40: "B l",                                                                                                                                                      // ExpireDelegationToken
	41: "[ s s ]",                                                                                                                                                  // DescribeDelegationToken
	42: "*s",                                                                                                                                                       // DeleteGroups
	43: "b@1+ [ s *i ] i",                                                                                                                                          // ElectLeaders
	44: "[ b s [ s b n ] ] b",                                                                                                                                      // IncrementalAlterConfigs
	45: "i b@1+ [ s [ i *i ] ]",                                                                                                                                    // AlterPartitionAssignments
	46: "i [ s *i ]",                                                                                                                                               // ListPartitionReassignments
	47: "s [ s [ i ] ]",                                                                                                                                            // OffsetDelete
	48: "[ s b n ] b",                                                                                                                                              // DescribeClientQuotas
	49: "[ [ s n ] [ s l b ] ] b",                                                                                                                                  // AlterClientQuotas
	50: "[ s ]",                                                                                                                                                    // DescribeUserSCRAMCredentials
	51: "[ s b ] [ s b i B B ]",                                                                                                                                    // AlterUserSCRAMCredentials
	52: "n i@1+ [ s [ i i i u@1+ u@1+ i l b@2+ ] ]",                                                                                                                // Vote
	53: "n i@1+ [ s [ i u@1+ i i ] ] [ s s h ]@1+",                                                                                                                 // BeginQuorumEpoch
	54: "n [ s [ i i i *i@0-0 [ i u ]@1+ ] ] [ s s h ]@1+",                                                                                                         // EndQuorumEpoch
	55: "[ s [ i ] ]",                                                                                                                                              // DescribeQuorum
	56: "i l [ s@0-1 u@2+ [ i i *i@0-2 [ i l ]@3+ b@1+ i ] ]",                                                                                                      // AlterPartition
	57: "i [ s h b@0-0 b@1+ ] b@1+",                                                                                                                                // UpdateFeatures
	58: "B B B",                                                                                                                                                    // Envelope
	60: "b b@1+ b@2+",                                                                                                                                              // DescribeCluster
	61: "[ s *i ]",                                                                                                                                                 // DescribeProducers
	62: "i s u [ s s h h ] [ s h h ] n b@1+ *u@2+ l@3+",                                                                                                            // BrokerRegistration
	63: "i l l b b",                                                                                                                                                // BrokerHeartbeat
	64: "i",                                                                                                                                                        // UnregisterBroker
	65: "*s",                                                                                                                                                       // DescribeTransactions
	66: "*s *l l@1+ n@2+",                                                                                                                                          // ListTransactions
	67: "i l",                                                                                                                                                      // AllocateProducerIDs
	68: "s s i n n i *s n@1+ n [ u *i ]",                                                                                                                           // ConsumerGroupHeartbeat
	69: "*s b",                                                                                                                                                     // ConsumerGroupDescribe
	70: "i u b [ s s h h ] [ s h h ]",                                                                                                                              // ControllerRegistration
	71: "u",                                                                                                                                                        // GetTelemetrySubscriptions
	72: "u i b b B",                                                                                                                                                // PushTelemetry
	73: "i l [ u [ u [ i ] ] ]",                                                                                                                                    // AssignReplicasToDirs
	74: "*b@1+",                                                                                                                                                    // ListConfigResources
	75: "[ s ] i ?[ s i ]",                                                                                                                                         // DescribeTopicPartitions
	76: "s s i n *s",                                                                                                                                               // ShareGroupHeartbeat
	77: "*s b",                                                                                                                                                     // ShareGroupDescribe
	78: "n n i i i i i@1+ i@1+ b@2+ b@2+ [ u [ i i@0-0 [ l l *b ] ] ] [ u *i ]",                                                                                    // ShareFetch
	79: "n n i b@2+ [ u [ i [ l l *b ] ] ]",                                                                                                                        // ShareAcknowledge
	80: "n i i u [ s s h ] b@1+",                                                                                                                                   // AddRaftVoter
	81: "n i u",                                                                                                                                                    // RemoveRaftVoter
	83: "s [ u [ i i l ] ]",                                                                                                                                        // InitializeShareGroupState
	84: "s [ u [ i i ] ]",                                                                                                                                          // ReadShareGroupState
	85: "s [ u [ i i i l i@1+ [ l l b h ] ] ]",                                                                                                                     // WriteShareGroupState
	86: "s [ u [ i ] ]",                                                                                                                                            // DeleteShareGroupState
	87: "s [ u [ i i ] ]",                                                                                                                                          // ReadShareGroupStateSummary
	88: "s s i i n n i ?[ i [ s *s *s [ s i h [ s s ] ] *s [ s i h [ s s ] ] [ *h *h *h ] ] ] [ s *i ] [ s *i ] [ s *i ] n ?[ s h ] [ s s ] [ s i l ] [ s i l ] b", // StreamsGroupHeartbeat
	89: "*s b b@1+",                                                                                                                                                // StreamsGroupDescribe
	90: "[ s [ s *i ] ]",                                                                                                                                           // DescribeShareGroupOffsets
	91: "s [ s [ i l ] ]",                                                                                                                                          // AlterShareGroupOffsets
	92: "s [ s ]",                                                                                                                                                  // DeleteShareGroupOffsets
}

// structure is one parsed layout.
type structure struct {
	fields []field
	size   int64 // an upper bound of the Go structure's size
}

type field struct {
	kind     byte // b h i l u s n B, '{' for a structure, '?' for a nullable one
	array    bool
	min, max int16
	inner    *structure
}

// fixed is the width on the wire of a field that always has the same, 0 for others.
func (f *field) fixed() int {
	switch f.kind {
	case 'b':
		return 1
	case 'h':
		return 2
	case 'i':
		return 4
	case 'l':
		return 8
	case 'u':
		return 16
	}
	return 0
}

// goSize is an upper bound of what one value takes in Go, what it points to left out.
func (f *field) goSize() int64 {
	switch f.kind {
	case 'u', 's':
		return 16
	case 'B':
		return 24
	case '{':
		return f.inner.size
	}
	return 8
}

// schemas are the parsed layouts.
var schemas = parseLayouts()

func schemaFor(k int16) *structure {
	if k < 0 || k > kmsg.MaxKey {
		return nil
	}
	return schemas[k]
}

func parseLayouts() [kmsg.MaxKey + 1]*structure {
	var out [kmsg.MaxKey + 1]*structure
	for k, text := range layouts {
		toks := strings.Fields(text)
		out[k], _ = parseStruct(toks)
	}
	return out
}

// parseStruct reads fields up to the end or to the closing bracket, whose token is the first of rest.
func parseStruct(toks []string) (s *structure, rest []string) {
	s = &structure{size: 8} // kmsg keeps unknown tags behind one pointer
	for len(toks) > 0 && toks[0][0] != ']' {
		f := field{max: 1<<15 - 1}
		t := toks[0]
		toks = toks[1:]
		switch t {
		case "[", "?[":
			f.kind, f.array = '{', t == "["
			if t == "?[" {
				f.kind = '?'
			}
			f.inner, toks = parseStruct(toks)
			if len(toks) > 0 {
				t, toks = toks[0][1:], toks[1:]
			}
		default:
			if t[0] == '*' {
				f.array, t = true, t[1:]
			}
			f.kind, t = t[0], t[1:]
		}
		f.versions(t)
		if f.array {
			s.size += 24
		} else {
			s.size += f.goSize()
		}
		s.fields = append(s.fields, f)
	}
	return s, toks
}

// versions reads "@a+" or "@a-b".
func (f *field) versions(t string) {
	t = strings.TrimPrefix(t, "@")
	if t == "" {
		return
	}
	lo, hi, ranged := strings.Cut(strings.TrimSuffix(t, "+"), "-")
	n, _ := strconv.ParseInt(lo, 10, 16)
	f.min = int16(n)
	if ranged {
		n, _ = strconv.ParseInt(hi, 10, 16)
		f.max = int16(n)
	}
}
