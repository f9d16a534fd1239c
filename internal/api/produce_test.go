package api

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
)

// TestProduceAndFetchEveryVersion writes with every version and acks and reads everything back with every version.
func TestProduceAndFetchEveryVersion(t *testing.T) {
	b := newDataBroker(t)
	id := b.topic("t", 1, 2)
	c := b.dial()
	var want []string
	for v := int16(3); v <= 13; v++ {
		for _, acks := range []int16{0, 1, -1} {
			val := fmt.Sprintf("v%d acks %d", v, acks)
			req := newProduce(v, acks, "t", id, map[int32][]byte{0: testBatch(t, batch.Spec{}, val), 1: testBatch(t, batch.Spec{}, "other")})
			if acks == 0 {
				c.send(req) // no answer: the next one on this connection belongs to the next request
				want = append(want, val)
				continue
			}
			r := c.do(req).(*kmsg.ProduceResponse)
			for n, p := range r.Topics[0].Partitions {
				if p.Partition != int32(n) || p.ErrorCode != 0 || p.BaseOffset != int64(len(want)) || p.LogAppendTime != -1 {
					t.Errorf("version %d acks %d: %+v, want offset %d", v, acks, p, len(want))
				}
			}
			want = append(want, val)
		}
	}
	for v := int16(4); v <= 18; v++ {
		for _, isolation := range []int8{0, 1} {
			req := newFetch(v, "t", id, map[int32]int64{0: 0})
			req.IsolationLevel = isolation
			r := c.do(req).(*kmsg.FetchResponse)
			p := r.Topics[0].Partitions[0]
			if got := values(t, p.RecordBatches); !slices.Equal(got, want) || p.ErrorCode != 0 || p.HighWatermark != int64(len(want)) || p.LastStableOffset != p.HighWatermark {
				t.Errorf("fetch version %d: %v, %+v", v, got, p)
			}
			if (p.AbortedTransactions != nil) != (isolation == 1) {
				t.Errorf("fetch version %d isolation %d: aborted %v", v, isolation, p.AbortedTransactions)
			}
		}
	}
}

// TestProduceErrors walks the rows of kafka.md 3.2 that are the API's own.
func TestProduceErrors(t *testing.T) {
	b := newDataBroker(t)
	id := b.topic("t", 1, 1)
	b.topic("__consumer_offsets", 2, 1)
	moved := meta.UUID{0: 3, 15: 1}
	b.apply(meta.PutTopic("moved", meta.TopicRecord{ID: moved, Partitions: 1}),
		meta.PutPartition(moved, 0, &meta.Partition{Replicas: []int32{2}, ISR: []int32{2}, Leader: 2, LeaderEpoch: 9}))
	c := b.dial()
	one := func(req *kmsg.ProduceRequest) (kmsg.ProduceResponseTopicPartition, *kmsg.ProduceResponse) {
		r := c.do(req).(*kmsg.ProduceResponse)
		return r.Topics[0].Partitions[0], r
	}
	good := func() map[int32][]byte { return map[int32][]byte{0: testBatch(t, batch.Spec{}, "x")} }
	for name, x := range map[string]struct {
		req  *kmsg.ProduceRequest
		want *kerr.Error
	}{
		"acks 2":             {newProduce(9, 2, "t", id, good()), kerr.InvalidRequiredAcks},
		"acks -2":            {newProduce(13, -2, "t", id, good()), kerr.InvalidRequiredAcks},
		"unknown topic":      {newProduce(9, 1, "nope", id, good()), kerr.UnknownTopicOrPartition},
		"unknown id":         {newProduce(13, 1, "t", meta.UUID{9}, good()), kerr.UnknownTopicID},
		"unknown partition":  {newProduce(9, 1, "t", id, map[int32][]byte{7: good()[0]}), kerr.UnknownTopicOrPartition},
		"negative partition": {newProduce(9, 1, "t", id, map[int32][]byte{-1: good()[0]}), kerr.UnknownTopicOrPartition},
		"internal topic":     {newProduce(9, 1, "__consumer_offsets", id, good()), kerr.InvalidTopicException},
		"another leader":     {newProduce(12, 1, "moved", moved, good()), kerr.NotLeaderForPartition},
		"no records":         {newProduce(9, 1, "t", id, map[int32][]byte{0: nil}), kerr.InvalidRecord},
		"rubbish":            {newProduce(9, 1, "t", id, map[int32][]byte{0: []byte("rubbish, and more of it than a header has, which is sixty-one")}), kerr.InvalidRecord},
		"two batches":        {newProduce(9, 1, "t", id, map[int32][]byte{0: append(good()[0], good()[0]...)}), kerr.InvalidRecord},
		"wrong checksum":     {newProduce(9, 1, "t", id, map[int32][]byte{0: flip(good()[0], 62)}), kerr.CorruptMessage},
		"too large":          {newProduce(9, 1, "t", id, map[int32][]byte{0: testBatch(t, batch.Spec{}, string(make([]byte, 2<<20)))}), kerr.MessageTooLarge},
		"transactional":      {newProduce(9, -1, "t", id, map[int32][]byte{0: testBatch(t, batch.Spec{Transactional: true, Producer: &batch.ProducerInfo{ID: 1}}, "x")}), kerr.InvalidTxnState},
		"zstd before it was": {newProduce(6, 1, "t", id, map[int32][]byte{0: testBatch(t, batch.Spec{Codec: batch.Zstd}, "x")}), kerr.UnsupportedCompressionType},
	} {
		p, _ := one(x.req)
		if p.ErrorCode != x.want.Code || p.BaseOffset != -1 {
			t.Errorf("%s: %+v, want %v", name, p, x.want)
		}
	}
	// The new leader is named (KIP-951).
	for v := int16(9); v <= 13; v++ {
		p, r := one(newProduce(v, 1, "moved", moved, good()))
		if v < 10 {
			continue
		}
		if p.CurrentLeader.LeaderID != 2 || p.CurrentLeader.LeaderEpoch != 9 || len(r.Brokers) != 1 || r.Brokers[0].Host != "two.example" || *r.Brokers[0].Rack != "r" {
			t.Errorf("version %d: leader %+v, brokers %+v", v, p.CurrentLeader, r.Brokers)
		}
	}
	// Internal topics are written by the admin client only.
	c.id = adminClient
	if p, _ := one(newProduce(9, 1, "__consumer_offsets", id, good())); p.ErrorCode != 0 {
		t.Errorf("admin client to an internal topic: %+v", p)
	}
	c.id = "test"
	// A bad record is named (KIP-467).
	old := batch.NewBuilder(batch.Spec{LeaderEpoch: -1})
	for _, ts := range []int64{time.Now().UnixMilli(), time.Now().Add(48 * time.Hour).UnixMilli()} {
		if err := old.Add(batch.Record{Timestamp: ts}); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := old.Build()
	if err != nil {
		t.Fatal(err)
	}
	for v := int16(7); v <= 13; v++ {
		p, _ := one(newProduce(v, 1, "t", id, map[int32][]byte{0: raw}))
		if p.ErrorCode != kerr.InvalidTimestamp.Code {
			t.Errorf("version %d: %+v", v, p)
		}
		if v >= 8 && (len(p.ErrorRecords) != 1 || p.ErrorRecords[0].RelativeOffset != 1 || p.ErrorMessage == nil) {
			t.Errorf("version %d: bad records %+v, message %v", v, p.ErrorRecords, p.ErrorMessage)
		}
	}
	if p := b.must("t", 0); p.LogEnd() != 0 {
		t.Errorf("%d records written by refused requests", p.LogEnd())
	}
	// acks=0 has no answer: an error closes the connection.
	b.dial().closed(newProduce(9, 0, "nope", id, good()))
	// Two partitions, one of them refused: the other one is written.
	r := c.do(newProduce(9, -1, "t", id, map[int32][]byte{0: good()[0], 5: good()[0]})).(*kmsg.ProduceResponse)
	if ps := r.Topics[0].Partitions; ps[0].ErrorCode != 0 || ps[0].BaseOffset != 0 || ps[1].ErrorCode != kerr.UnknownTopicOrPartition.Code {
		t.Errorf("mixed: %+v", ps)
	}
}

func flip(b []byte, at int) []byte { b[at] ^= 1; return b }

// TestIdempotentProduce: ids are given out, a batch sent twice is answered with its first offset, gaps are refused.
func TestIdempotentProduce(t *testing.T) {
	b := newDataBroker(t)
	id := b.topic("t", 1, 1)
	c := b.dial()
	seen := map[int64]bool{}
	for v := int16(0); v <= 5; v++ {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version = v
		r := c.do(req).(*kmsg.InitProducerIDResponse)
		if r.ErrorCode != 0 || r.ProducerEpoch != 0 || seen[r.ProducerID] {
			t.Errorf("version %d: %+v", v, r)
		}
		seen[r.ProducerID] = true
		req.TransactionalID = kmsg.StringPtr("tx")
		if r := c.do(req).(*kmsg.InitProducerIDResponse); r.ErrorCode != kerr.CoordinatorNotAvailable.Code || r.ProducerID != -1 {
			t.Errorf("transactional, version %d: %+v", v, r)
		}
		req.TransactionalID = kmsg.StringPtr("")
		if r := c.do(req).(*kmsg.InitProducerIDResponse); r.ErrorCode != kerr.InvalidRequest.Code {
			t.Errorf("empty transactional id, version %d: %+v", v, r)
		}
	}
	send := func(seq int32) kmsg.ProduceResponseTopicPartition {
		raw := testBatch(t, batch.Spec{Producer: &batch.ProducerInfo{ID: 1000, Sequence: seq}}, "x")
		return c.do(newProduce(9, -1, "t", id, map[int32][]byte{0: raw})).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	}
	for seq, want := range []int64{0, 1, 2} {
		if p := send(int32(seq)); p.ErrorCode != 0 || p.BaseOffset != want {
			t.Errorf("sequence %d: %+v", seq, p)
		}
	}
	if p := send(1); p.ErrorCode != 0 || p.BaseOffset != 1 {
		t.Errorf("again: %+v", p)
	}
	if p := send(7); p.ErrorCode != kerr.OutOfOrderSequenceNumber.Code {
		t.Errorf("gap: %+v", p)
	}
	dp := kmsg.NewPtrDescribeProducersRequest()
	dt := kmsg.NewDescribeProducersRequestTopic()
	dt.Topic, dt.Partitions = "t", []int32{0, 4}
	dp.Topics = append(dp.Topics, dt)
	ps := c.do(dp).(*kmsg.DescribeProducersResponse).Topics[0].Partitions
	if len(ps[0].ActiveProducers) != 1 || ps[0].ActiveProducers[0].ProducerID != 1000 || ps[0].ActiveProducers[0].LastSequence != 2 || ps[0].ActiveProducers[0].CurrentTxnStartOffset != -1 {
		t.Errorf("described %+v", ps[0])
	}
	if ps[1].ErrorCode != kerr.UnknownTopicOrPartition.Code {
		t.Errorf("unknown partition described: %+v", ps[1])
	}
}

// TestPipelinedProduceKeepsOrder: many requests in flight are appended in the order of arrival and answered in it.
func TestPipelinedProduceKeepsOrder(t *testing.T) {
	b := newDataBroker(t)
	id := b.topic("t", 1, 1)
	c := b.dial()
	var reqs []*kmsg.ProduceRequest
	for i := range 50 {
		reqs = append(reqs, newProduce(9, -1, "t", id, map[int32][]byte{0: testBatch(t, batch.Spec{}, fmt.Sprint(i))}))
		c.send(reqs[i])
	}
	for i, req := range reqs {
		r, err := c.receive(req)
		if err != nil {
			t.Fatal(err)
		}
		if p := r.(*kmsg.ProduceResponse).Topics[0].Partitions[0]; p.BaseOffset != int64(i) || p.ErrorCode != 0 {
			t.Errorf("request %d: %+v", i, p)
		}
	}
}
