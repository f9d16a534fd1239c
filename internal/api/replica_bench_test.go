package api

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/partition"
)

// BenchmarkFollowersSession is one round of replication as its leader sees it: a follower of many partitions acknowledges
// one batch, waits, and is woken by the next batch in the same partition. All the others stand still.
func BenchmarkFollowersSession(bm *testing.B) {
	for _, n := range []int32{1, 300} {
		bm.Run(map[int32]string{1: "1", 300: "300"}[n], func(bm *testing.B) {
			b := newDataBroker(bm)
			id := meta.UUID{0: 1, 15: 1}
			cs := []meta.Change{meta.PutTopic("t", meta.TopicRecord{ID: id, Partitions: n})}
			all := map[int32]int64{}
			for i := range n {
				cs = append(cs, meta.PutPartition(id, i, &meta.Partition{Replicas: []int32{1, 2}, ISR: []int32{1, 2}, Leader: 1, LeaderEpoch: 3}))
			}
			b.apply(cs...)
			for i := range min(n, 100) {
				all[i] = 0
			}
			follower := b.dialAt(b.peer)
			req := asReplica(newFetch(17, "t", id, all))
			for i := int32(100); i < n; i++ {
				p := req.Topics[0].Partitions[0]
				p.Partition = i
				req.Topics[0].Partitions = append(req.Topics[0].Partitions, p)
			}
			req.SessionEpoch = 0
			first := follower.do(req).(*kmsg.FetchResponse)
			if first.SessionID == 0 {
				bm.Fatal("no session")
			}
			next := asReplica(newFetch(17, "t", id, map[int32]int64{0: 0}))
			next.SessionID, next.SessionEpoch, next.MaxWaitMillis = first.SessionID, 0, 60_000
			p := b.must("t", 0)
			offset, raw := int64(0), testBatch(bm, batch.Spec{}, "a")
			bm.ReportAllocs()
			for bm.Loop() {
				next.SessionEpoch++
				next.Topics[0].Partitions[0].FetchOffset = offset
				follower.send(next)
				if _, err := p.Append(partition.AppendRequest{Records: append([]byte{}, raw...), Acks: 1, LeaderEpoch: -1, Version: 9, NowMs: time.Now().UnixMilli()}); err != nil {
					bm.Fatal(err)
				}
				offset++
				if r, err := follower.receive(next); err != nil || r.(*kmsg.FetchResponse).ErrorCode != 0 {
					bm.Fatal(r, err)
				}
			}
		})
	}
}
