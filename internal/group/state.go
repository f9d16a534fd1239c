package group

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
)

// State is a classic group's state under Kafka's name. A removed group is not kept as Dead: it is unknown,
// and every request but a first join is answered as for an unknown group.
type State uint8

// The states of a classic group (kafka.md 5.3).
const (
	Empty State = iota
	PreparingRebalance
	CompletingRebalance
	Stable
)

func (s State) String() string {
	return [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable"}[s]
}

// consumerType is the protocol type whose subscriptions the coordinator reads.
const consumerType = "consumer"

// grp is one group. What survives is stored and offsets; they change only in apply. All else is the
// volatile side of the classic protocol, rebuilt from stored when the machine is loaded.
type grp struct {
	id      string
	stored  *kmsg.GroupMetadataValue // the last group record; nil: only offsets are stored (a simple group)
	offsets map[string]*topicOffsets
	txns    map[int64]struct{} // producers with pending offsets here

	state, previous State
	generation      int32
	protocolType    string // empty: none, as in a simple group
	protocol        string // chosen in the latest generation; empty: none
	leader          string
	sinceMs         int64 // when the state was entered; -1 unknown

	members  map[string]*member
	order    []*member         // in order of arrival: the first leads
	static   map[string]string // instance id to member id
	speakers map[string]int    // members that speak a protocol, by its name
	pending  map[string]*pendingMember
	joining  int // members whose join is parked
	unsynced int // members of this generation that have not sent sync

	// During the initial rebalance: whether somebody came since the delay was last set, how long that
	// delay was and how much may still be added.
	arrived   bool
	initial   bool
	delay     int32
	remaining int32

	subscribed map[string]struct{} // topics of all members in the chosen protocol
	subsKnown  bool                // false: not a consumer group, or a subscription could not be read

	join, sync timer
}

// member is one member of a classic group.
type member struct {
	id                   string
	instance             string
	static               bool
	clientID, clientHost string
	rebalanceMs          int32
	sessionMs            int32
	protocols            []protocol // in the member's order of preference
	assignment           []byte

	joinToken, syncToken Token
	joinReq              *kmsg.JoinGroupRequest // version and sort of answer; nil: not parked
	syncReq              *kmsg.SyncGroupRequest
	fresh                bool // joined for the first time and not yet in a generation
	unsynced             bool
	session              timer
}

type protocol struct {
	name     string
	metadata []byte
}

// pendingMember is a member id that was handed out with MEMBER_ID_REQUIRED and not yet used.
type pendingMember struct {
	id      string
	session timer
}

func newGroup(id string, nowMs int64) *grp {
	g := &grp{id: id, sinceMs: nowMs}
	g.join, g.sync = newTimer(timerJoin, g), newTimer(timerSync, g)
	return g
}

func (g *grp) transition(to State, now det.Instant) {
	g.previous, g.state, g.sinceMs = g.state, to, now.UnixMilli()
}

// rebalanceMs is the largest rebalance timeout of the members.
func (g *grp) rebalanceMs() int32 {
	var longest int32
	for _, mb := range g.order {
		longest = max(longest, mb.rebalanceMs)
	}
	return longest
}

func (g *grp) allJoined() bool { return g.joining == len(g.order) && len(g.pending) == 0 }

// supports says whether somebody with these protocols could join (kafka.md 5.3, protocol fit).
func (g *grp) supports(protocolType string, ps []protocol) bool {
	if g.state == Empty {
		return protocolType != "" && len(ps) > 0
	}
	return g.protocolType == protocolType && slices.ContainsFunc(ps, func(p protocol) bool { return g.common(p.name) })
}

// common says whether every member speaks the protocol.
func (g *grp) common(name string) bool { return g.speakers[name] == len(g.order) }

// speak replaces what a member speaks. It is counted rather than looked up: a hostile member can bring a
// hundred thousand protocols.
func (g *grp) speak(mb *member, ps []protocol) {
	for _, p := range mb.protocols {
		if g.speakers[p.name]--; g.speakers[p.name] == 0 {
			delete(g.speakers, p.name)
		}
	}
	mb.protocols = ps
	for _, p := range ps {
		g.speakers[p.name]++
	}
}

// vote picks the protocol: each member votes for its first choice among the common ones. A tie goes to
// the protocol that the longest-standing voter prefers; Kafka leaves it to the order of a hash map.
func (g *grp) vote() string {
	votes := map[string]int{}
	best := ""
	for _, mb := range g.order {
		for _, p := range mb.protocols {
			if g.common(p.name) {
				votes[p.name]++
				break
			}
		}
	}
	for _, mb := range g.order {
		for _, p := range mb.protocols {
			if votes[p.name] > votes[best] {
				best = p.name
			}
		}
	}
	return best
}

func (g *grp) add(mb *member) {
	if g.members == nil {
		g.members, g.speakers = map[string]*member{}, map[string]int{}
	}
	if g.leader == "" {
		g.leader = mb.id
	}
	g.members[mb.id] = mb
	g.order = append(g.order, mb)
	ps := mb.protocols
	mb.protocols = nil
	g.speak(mb, ps)
	if mb.static {
		if g.static == nil {
			g.static = map[string]string{}
		}
		g.static[mb.instance] = mb.id
	}
	delete(g.pending, mb.id)
}

// check is Kafka's validation of a member's identity: nil, UNKNOWN_MEMBER_ID or FENCED_INSTANCE_ID.
func (g *grp) check(id string, instance *string) *kerr.Error {
	if instance != nil {
		switch holder, ok := g.static[*instance]; {
		case !ok:
			return kerr.UnknownMemberID
		case holder != id:
			return kerr.FencedInstanceID
		}
	}
	if g.members[id] == nil {
		return kerr.UnknownMemberID
	}
	return nil
}

func (mb *member) metadata(protocol string) ([]byte, bool) {
	for i := range mb.protocols {
		if mb.protocols[i].name == protocol {
			return mb.protocols[i].metadata, true
		}
	}
	return nil, false
}

func (mb *member) instanceID() *string {
	if !mb.static {
		return nil
	}
	return kmsg.StringPtr(mb.instance)
}

// recordSize is an upper bound of the group record's value in bytes.
func (g *grp) recordSize() int {
	n := 64 + len(g.protocolType) + len(g.protocol) + len(g.leader)
	for _, mb := range g.order {
		md, _ := mb.metadata(g.protocol)
		n += 64 + len(md) + len(mb.assignment) + len(mb.id) + len(mb.instance) + len(mb.clientID) + len(mb.clientHost)
	}
	return n
}
