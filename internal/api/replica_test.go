package api

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
)

// shared makes a topic of one partition with two replicas in sync, led by the given broker in epoch 3.
func (b *dataBroker) shared(name string, id byte, leader int32) meta.UUID {
	u := meta.UUID{0: id, 15: 2}
	b.apply(meta.PutTopic(name, meta.TopicRecord{ID: u, Partitions: 1}),
		meta.PutPartition(u, 0, &meta.Partition{Replicas: []int32{1, 2}, ISR: []int32{1, 2}, Leader: leader, LeaderEpoch: 3}))
	return u
}

// asReplica makes a fetch that of broker 2.
func asReplica(req *kmsg.FetchRequest) *kmsg.FetchRequest {
	if req.ReplicaID = 2; req.Version >= 15 {
		req.ReplicaID, req.ReplicaState.ID, req.ReplicaState.Epoch = -1, 2, 1
	}
	for i := range req.Topics[0].Partitions {
		req.Topics[0].Partitions[i].LogStartOffset = 0
	}
	return req
}

// TestFollowersFetchIsItsAcknowledgement: on the peer listener the offset that a follower asks for moves the high watermark
// and answers acks=all; on a client listener it moves nothing.
func TestFollowersFetchIsItsAcknowledgement(t *testing.T) {
	b := newDataBroker(t)
	producer, follower, client := b.dial(), b.dialAt(b.peer), b.dial()
	for v := int16(4); v <= 18; v++ {
		name := fmt.Sprintf("t%d", v)
		id := b.shared(name, byte(v), 1)
		p := b.must(name, 0)
		prod := newProduce(9, -1, name, id, map[int32][]byte{0: testBatch(t, batch.Spec{}, "a")})
		producer.send(prod)
		for end := time.Now().Add(10 * time.Second); p.LogEnd() == 0 && time.Now().Before(end); {
		}
		liar := client.do(asReplica(newFetch(v, name, id, map[int32]int64{0: 1}))).(*kmsg.FetchResponse)
		if v >= 7 {
			code(t, "a client as a follower", liar.ErrorCode, kerr.ClusterAuthorizationFailed)
		} else {
			code(t, "a client as a follower", liar.Topics[0].Partitions[0].ErrorCode, kerr.ClusterAuthorizationFailed)
		}
		got := follower.do(asReplica(newFetch(v, name, id, map[int32]int64{0: 0}))).(*kmsg.FetchResponse).Topics[0].Partitions[0]
		if got.ErrorCode != 0 || got.HighWatermark != 0 || fmt.Sprint(values(t, got.RecordBatches)) != "[a]" {
			t.Fatalf("version %d: %+v", v, got)
		}
		if got := client.do(newFetch(v, name, id, map[int32]int64{0: 0})).(*kmsg.FetchResponse).Topics[0].Partitions[0]; len(got.RecordBatches) > 0 || got.HighWatermark != 0 {
			t.Fatalf("version %d: a consumer sees what is not on every disk: %+v", v, got)
		}
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); { // the leader's own disk counts, too
			got = follower.do(asReplica(newFetch(v, name, id, map[int32]int64{0: 1}))).(*kmsg.FetchResponse).Topics[0].Partitions[0]
			if got.HighWatermark == 1 {
				break
			}
		}
		if got.ErrorCode != 0 || got.HighWatermark != 1 || len(got.RecordBatches) > 0 {
			t.Fatalf("version %d: %+v", v, got)
		}
		r, err := producer.receive(prod)
		if err != nil {
			t.Fatal(err)
		}
		code(t, "acks=all", r.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode, nil)
	}
}

// TestFollowerIsWokenByAppends, which the high watermark does not follow before the follower itself has asked again.
func TestFollowerIsWokenByAppends(t *testing.T) {
	b := newDataBroker(t)
	id := b.shared("t", 1, 1)
	producer, follower := b.dial(), b.dialAt(b.peer)
	req := asReplica(newFetch(17, "t", id, map[int32]int64{0: 0}))
	req.MaxWaitMillis = 60_000
	follower.send(req)
	prod := newProduce(9, -1, "t", id, map[int32][]byte{0: testBatch(t, batch.Spec{}, "a")})
	producer.send(prod)
	r, err := follower.receive(req)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.(*kmsg.FetchResponse).Topics[0].Partitions[0]; fmt.Sprint(values(t, got.RecordBatches)) != "[a]" {
		t.Fatalf("%+v", got)
	}
	follower.do(asReplica(newFetch(17, "t", id, map[int32]int64{0: 1})))
	if _, err := producer.receive(prod); err != nil {
		t.Fatal(err)
	}
}

// TestNextFetchOfAFollowerEndsItsLongPoll: with a session a follower may ask anew while it waits, and is answered in order.
func TestNextFetchOfAFollowerEndsItsLongPoll(t *testing.T) {
	b := newDataBroker(t)
	id, other := b.shared("t", 1, 1), b.shared("u", 2, 1)
	follower := b.dialAt(b.peer)
	first := asReplica(newFetch(17, "t", id, map[int32]int64{0: 0}))
	first.SessionEpoch = 0
	sid := follower.do(first).(*kmsg.FetchResponse).SessionID
	if sid == 0 {
		t.Fatal("no session")
	}
	wait := asReplica(newFetch(17, "t", id, map[int32]int64{0: 0}))
	wait.SessionID, wait.SessionEpoch, wait.MaxWaitMillis = sid, 1, 60_000
	follower.send(wait)
	more := asReplica(newFetch(17, "u", other, map[int32]int64{0: 0}))
	more.SessionID, more.SessionEpoch = sid, 2
	follower.send(more)
	r, err := follower.receive(wait)
	if err != nil {
		t.Fatal(err)
	}
	code(t, "the one that was given up", r.(*kmsg.FetchResponse).ErrorCode, kerr.InvalidFetchSessionEpoch)
	if r, err = follower.receive(more); err != nil {
		t.Fatal(err)
	}
	if got := r.(*kmsg.FetchResponse); got.ErrorCode != 0 || len(got.Topics) != 2 || got.Topics[1].TopicID != other { // both were asked for since the last answer
		t.Errorf("%+v", got)
	}
}

// TestFollowersServeConsumers who know how to ask (KIP-392): older ones are sent to the leader.
func TestFollowersServeConsumers(t *testing.T) {
	b := newDataBroker(t, "replica.selector.class", config.RackAwareSelector)
	id := b.shared("t", 1, 2)
	c := b.dial()
	for v := int16(4); v <= 18; v++ {
		got := c.do(newFetch(v, "t", id, map[int32]int64{0: 0})).(*kmsg.FetchResponse).Topics[0].Partitions[0]
		want := kerr.NotLeaderForPartition
		if v >= 11 {
			want = nil
		}
		code(t, fmt.Sprintf("version %d", v), got.ErrorCode, want)
		if v >= 12 {
			req := newFetch(v, "t", id, map[int32]int64{0: 0})
			req.Topics[0].Partitions[0].CurrentLeaderEpoch = 2
			got := c.do(req).(*kmsg.FetchResponse)
			code(t, "an old epoch", got.Topics[0].Partitions[0].ErrorCode, kerr.FencedLeaderEpoch)
			if v >= 16 && (got.Topics[0].Partitions[0].CurrentLeader.LeaderID != 2 || len(got.Brokers) != 1 || got.Brokers[0].Host != "two.example") {
				t.Errorf("version %d: hint %+v", v, got)
			}
		}
	}
	for _, req := range []kmsg.Request{
		func() kmsg.Request {
			r := kmsg.NewPtrListOffsetsRequest()
			r.Version, r.ReplicaID = 7, -1
			r.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "t", Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Timestamp: -1, CurrentLeaderEpoch: -1}}}}
			return r
		}(),
		func() kmsg.Request {
			r := kmsg.NewPtrOffsetForLeaderEpochRequest()
			r.Version = 4
			r.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{{CurrentLeaderEpoch: -1, LeaderEpoch: 3}}}}
			return r
		}(),
		func() kmsg.Request {
			r := kmsg.NewPtrDeleteRecordsRequest()
			r.Version, r.TimeoutMillis = 2, 1000
			r.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "t", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: -1}}}}
			return r
		}(),
		newProduce(13, 1, "t", id, map[int32][]byte{0: testBatch(t, batch.Spec{}, "a")}),
	} {
		var got int16
		switch r := c.do(req).(type) {
		case *kmsg.ListOffsetsResponse:
			got = r.Topics[0].Partitions[0].ErrorCode
		case *kmsg.OffsetForLeaderEpochResponse:
			got = r.Topics[0].Partitions[0].ErrorCode
		case *kmsg.DeleteRecordsResponse:
			got = r.Topics[0].Partitions[0].ErrorCode
		case *kmsg.ProduceResponse:
			if got = r.Topics[0].Partitions[0].ErrorCode; len(r.Brokers) != 1 || r.Topics[0].Partitions[0].CurrentLeader.LeaderID != 2 {
				t.Errorf("produce to a follower: no hint in %+v", r)
			}
		}
		code(t, fmt.Sprintf("%T to a follower", req), got, kerr.NotLeaderForPartition)
	}
}

// TestConsumerIsSentToItsRack: the leader names the replica in the consumer's rack, sends no records and does not wait.
func TestConsumerIsSentToItsRack(t *testing.T) {
	b := newDataBroker(t, "replica.selector.class", config.RackAwareSelector)
	id := b.shared("t", 1, 1)
	producer, follower, c := b.dial(), b.dialAt(b.peer), b.dial()
	prod := newProduce(9, -1, "t", id, map[int32][]byte{0: testBatch(t, batch.Spec{}, "a")})
	producer.send(prod)
	for end := time.Now().Add(10 * time.Second); b.must("t", 0).LogEnd() == 0 && time.Now().Before(end); {
	}
	follower.do(asReplica(newFetch(17, "t", id, map[int32]int64{0: 1})))
	if _, err := producer.receive(prod); err != nil {
		t.Fatal(err)
	}
	for v := int16(11); v <= 18; v++ {
		for rack, want := range map[string]int32{"": -1, "elsewhere": -1, "r": 2} {
			req := newFetch(v, "t", id, map[int32]int64{0: 1})
			if req.Rack = rack; want >= 0 {
				req.MaxWaitMillis = 60_000
			}
			got := c.do(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]
			if got.ErrorCode != 0 || got.PreferredReadReplica != want || got.HighWatermark != 1 {
				t.Errorf("version %d, rack %q: %+v", v, rack, got)
			}
			req = newFetch(v, "t", id, map[int32]int64{0: 0})
			req.Rack = rack
			if got := c.do(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]; (len(got.RecordBatches) == 0) != (want >= 0) {
				t.Errorf("version %d, rack %q: %d bytes", v, rack, len(got.RecordBatches))
			}
		}
	}
}
