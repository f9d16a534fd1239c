package api

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/storage"
)

// flat is a sink that writes everything into one buffer.
type flat struct {
	b        []byte
	released int
}

func (f *flat) Append(fn func([]byte) []byte) { f.b = fn(f.b) }

func (f *flat) File(src server.File, pos, n int64, release func()) {
	p := make([]byte, n)
	if m, err := src.ReadAt(p, pos); int64(m) != n && err != nil && err != io.EOF {
		panic(err)
	}
	f.b = append(f.b, p...)
	f.released++
	release()
}

// fetchCases are answers with everything that an answer can have.
func fetchCases(t testing.TB) map[string]func() fetchAnswer {
	log := newTestLog(t)
	slice := func() storage.Slice {
		s, err := log.Read(0, 1<<20, log.End(), true)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	id := meta.UUID{1, 2, 3, 15: 9}
	return map[string]func() fetchAnswer{
		"empty": func() fetchAnswer { return fetchAnswer{} },
		"error": func() fetchAnswer { return fetchAnswer{code: 70} },
		"session": func() fetchAnswer {
			return fetchAnswer{session: 77, topics: []fetchedTopic{{name: "a", id: id, parts: []fetchedPartition{failedFetch(3, 1)}}}}
		},
		"records": func() fetchAnswer {
			p := fetchedPartition{partition: 1, hw: 10, lso: 9, start: 2, leaderID: -1, leaderEpoch: -1, preferred: -1, records: slice()}
			q := fetchedPartition{partition: 2, hw: 10, lso: 9, start: 2, leaderID: -1, leaderEpoch: -1, preferred: -1, committed: true, records: slice(),
				aborted: []storage.AbortedTxn{{ProducerID: 5, FirstOffset: 3}, {ProducerID: 6, FirstOffset: 4}}}
			r := fetchedPartition{partition: 3, hw: 10, lso: 10, leaderID: -1, leaderEpoch: -1, preferred: -1, committed: true}
			return fetchAnswer{topics: []fetchedTopic{{name: "orders", id: id, parts: []fetchedPartition{p, q, r}}, {name: "other", parts: []fetchedPartition{p2(slice())}}}}
		},
		"moved": func() fetchAnswer {
			p := failedFetch(0, 6)
			p.leaderID, p.leaderEpoch = 2, 7
			q := failedFetch(1, 0)
			q.diverging, q.divergingEpoch, q.divergingEnd = true, 4, 99
			near := failedFetch(2, 0)
			near.preferred = 3
			return fetchAnswer{topics: []fetchedTopic{{name: "t", id: id, parts: []fetchedPartition{p, q, near}}},
				brokers: []leaderEndpoint{{id: 2, host: "b.example", port: 9092}, {id: 3, host: "c.example", port: 9093, rack: "r1"}}}
		},
	}
}

func p2(s storage.Slice) fetchedPartition {
	return fetchedPartition{partition: 300, hw: 1, lso: 1, leaderID: -1, leaderEpoch: -1, preferred: -1, records: s}
}

// TestFetchAnswerIsKmsgs compares the hand-written bytes with kmsg's, for every version served.
func TestFetchAnswerIsKmsgs(t *testing.T) {
	for name, make := range fetchCases(t) {
		for v := int16(4); v <= 18; v++ {
			t.Run(fmt.Sprintf("%s/v%d", name, v), func(t *testing.T) {
				a := make()
				a.version = v
				want := asKmsg(t, &a)
				slices := 0
				for _, tp := range a.topics {
					for _, p := range tp.parts {
						if p.records.Len > 0 {
							slices++
						}
					}
				}
				var got flat
				a.encode(&got)
				if !bytes.Equal(got.b, want) {
					t.Errorf("got\n%x\nwant\n%x", got.b, want)
				}
				if got.released != slices {
					t.Errorf("released %d of %d slices", got.released, slices)
				}
				back := kmsg.NewPtrFetchResponse()
				back.Version = v
				if err := back.ReadFrom(got.b); err != nil {
					t.Errorf("kmsg cannot read it: %v", err)
				}
			})
		}
	}
}

func asKmsg(t *testing.T, a *fetchAnswer) []byte {
	r := kmsg.NewPtrFetchResponse()
	r.Version = a.version
	if a.version >= 7 {
		r.ErrorCode, r.SessionID = a.code, a.session
	}
	for _, at := range a.topics {
		kt := kmsg.NewFetchResponseTopic()
		kt.Topic, kt.TopicID = at.name, at.id
		for _, ap := range at.parts {
			kp := kmsg.NewFetchResponseTopicPartition()
			kp.Partition, kp.ErrorCode, kp.HighWatermark, kp.LastStableOffset, kp.LogStartOffset = ap.partition, ap.code, ap.hw, ap.lso, ap.start
			kp.PreferredReadReplica = ap.preferred
			if ap.diverging {
				kp.DivergingEpoch.Epoch, kp.DivergingEpoch.EndOffset = ap.divergingEpoch, ap.divergingEnd
			}
			kp.CurrentLeader.LeaderID, kp.CurrentLeader.LeaderEpoch = ap.leaderID, ap.leaderEpoch
			if ap.committed {
				kp.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
			}
			for _, x := range ap.aborted {
				k := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
				k.ProducerID, k.FirstOffset = x.ProducerID, x.FirstOffset
				kp.AbortedTransactions = append(kp.AbortedTransactions, k)
			}
			kp.RecordBatches = []byte{}
			if ap.records.Len > 0 {
				b, err := ap.records.Bytes(nil)
				if err != nil {
					t.Fatal(err)
				}
				kp.RecordBatches = b
			}
			kt.Partitions = append(kt.Partitions, kp)
		}
		r.Topics = append(r.Topics, kt)
	}
	for _, b := range a.brokers {
		if a.version < 16 {
			break
		}
		k := kmsg.NewFetchResponseBroker()
		k.NodeID, k.Host, k.Port = b.id, b.host, b.port
		if b.rack != "" {
			k.Rack = &b.rack
		}
		r.Brokers = append(r.Brokers, k)
	}
	return r.AppendTo(nil)
}
