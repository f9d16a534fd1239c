package group

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
)

func commitOf(group string, partitions int) *kmsg.OffsetCommitRequest {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Version, r.Group, r.Generation = 9, group, -1
	t := kmsg.OffsetCommitRequestTopic{Topic: "orders", TopicID: testID(1)}
	for i := range partitions {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition = int32(i)
		t.Partitions = append(t.Partitions, p)
	}
	r.Topics = []kmsg.OffsetCommitRequestTopic{t}
	return r
}

// BenchmarkCommit is OffsetCommit through the machine alone.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 12, 100} {
		b.Run(fmt.Sprintf("partitions=%d", n), func(b *testing.B) {
			m := New(DefaultConfig())
			req := commitOf("g", n)
			b.ReportAllocs()
			for i := range b.N {
				req.Topics[0].Partitions[0].Offset = int64(i)
				m.Step(det.Milli(int64(i)), In{Token: 1, Event: Commit{req}})
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "offsets/s")
		})
	}
}

// BenchmarkHeartbeat is what a member costs every three seconds.
func BenchmarkHeartbeat(b *testing.B) {
	p := newPlayer(DefaultConfig())
	stable(p, "g", 100)
	r := kmsg.NewPtrHeartbeatRequest()
	r.Version, r.Group, r.MemberID, r.Generation = 4, "g", p.m.groups["g"].order[50].id, 1
	b.ReportAllocs()
	for i := range b.N {
		p.m.Step(p.now.Add(ms(int32(i%1000))), In{Token: 1, Event: Heartbeat{r}})
	}
}

// stable makes a group of n members in the Stable state.
func stable(p *player, group string, n int) {
	for i := range n {
		r := kmsg.NewPtrJoinGroupRequest()
		r.Version, r.Group, r.SessionTimeoutMillis, r.RebalanceTimeoutMillis, r.ProtocolType = 3, group, 45000, 300000, "consumer"
		r.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: subscribe("orders")}}
		p.m.Step(p.now, In{Token: 1, Event: Join{Request: r, ClientID: "client", ClientHost: "/10.0.0.1", NewID: fmt.Sprintf("0b5c4e2a-7d3f-4c1b-9e8a-%012d", i)}})
	}
	p.now = p.now.Add(ms(300_000))
	for at := p.m.Wake(); at <= p.now && p.m.groups[group].state != CompletingRebalance; at = p.m.Wake() {
		p.m.Step(at, In{Event: Tick{}})
	}
	s := kmsg.NewPtrSyncGroupRequest()
	g := p.m.groups[group]
	s.Version, s.Group, s.MemberID, s.Generation = 4, group, g.leader, g.generation
	for _, mb := range g.order {
		s.GroupAssignment = append(s.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: mb.id, MemberAssignment: make([]byte, 40)})
	}
	p.m.Step(p.m.now, In{Token: 1, Event: Sync{s}})
}

// BenchmarkMemory measures what a group without members, a member and an offset keep, in bytes.
func BenchmarkMemory(b *testing.B) {
	measure := func(n int, make func(*player)) float64 {
		p := newPlayer(DefaultConfig())
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		make(p)
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(p)
		return float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
	}
	for range b.N {
		b.ReportMetric(measure(10000, func(p *player) {
			for i := range 10000 {
				p.m.Step(p.now, In{Token: 1, Event: Commit{commitOf(fmt.Sprintf("group-%05d", i), 1)}})
			}
		}), "B/group-with-one-offset")
		b.ReportMetric(measure(100000, func(p *player) {
			for i := range 100 {
				p.m.Step(p.now, In{Token: 1, Event: Commit{commitOf(fmt.Sprintf("group-%05d", i), 1000)}})
			}
		}), "B/offset")
		b.ReportMetric(measure(2000, func(p *player) { stable(p, "g", 2000) }), "B/member")
	}
}
