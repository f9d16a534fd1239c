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
	"github.com/milena-mq/milena/internal/partition"
)

func (b *dataBroker) must(topic string, n int32) *partition.Partition {
	b.t.Helper()
	p, err := b.set.Get(topic, n)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

func (c *client) produce(topic string, id meta.UUID, n int32, vals ...string) {
	c.t.Helper()
	for _, v := range vals {
		r := c.do(newProduce(9, -1, topic, id, map[int32][]byte{n: testBatch(c.t, batch.Spec{}, v)})).(*kmsg.ProduceResponse)
		if code := r.Topics[0].Partitions[0].ErrorCode; code != 0 {
			c.t.Fatal(kerr.ErrorForCode(code))
		}
	}
}

// TestFetchErrors: the errors of a partition, in the words of the version.
func TestFetchErrors(t *testing.T) {
	b := newDataBroker(t)
	id := b.topic("t", 1, 2)
	moved := meta.UUID{0: 3, 15: 1}
	b.apply(meta.PutTopic("moved", meta.TopicRecord{ID: moved, Partitions: 1}),
		meta.PutPartition(moved, 0, &meta.Partition{Replicas: []int32{2}, ISR: []int32{2}, Leader: 2, LeaderEpoch: 9}))
	c := b.dial()
	c.produce("t", id, 0, "a", "b")
	for v := int16(4); v <= 18; v++ {
		unknown := kerr.UnknownTopicOrPartition.Code
		if v >= 13 {
			unknown = kerr.UnknownTopicID.Code
		}
		one := func(topic string, id meta.UUID, n int32, at int64, edit func(*kmsg.FetchRequestTopicPartition)) (kmsg.FetchResponseTopicPartition, *kmsg.FetchResponse) {
			req := newFetch(v, topic, id, map[int32]int64{n: at})
			req.MaxWaitMillis = 60_000 // an error must not wait
			if edit != nil {
				edit(&req.Topics[0].Partitions[0])
			}
			r := c.do(req).(*kmsg.FetchResponse)
			return r.Topics[0].Partitions[0], r
		}
		for name, x := range map[string]struct {
			topic string
			id    meta.UUID
			n     int32
			at    int64
			want  int16
		}{
			"unknown topic": {"nope", meta.UUID{9}, 0, 0, unknown}, "unknown partition": {"t", id, 9, 0, kerr.UnknownTopicOrPartition.Code},
			"above the end": {"t", id, 0, 3, kerr.OffsetOutOfRange.Code}, "negative": {"t", id, 0, -1, kerr.OffsetOutOfRange.Code},
			"another leader": {"moved", moved, 0, 0, kerr.NotLeaderForPartition.Code},
		} {
			p, r := one(x.topic, x.id, x.n, x.at, nil)
			if p.ErrorCode != x.want || p.HighWatermark != -1 || len(p.RecordBatches) > 0 {
				t.Errorf("version %d, %s: %+v", v, name, p)
			}
			if hint := v >= 16 && name == "another leader"; hint != (p.CurrentLeader.LeaderID == 2 && p.CurrentLeader.LeaderEpoch == 9 && len(r.Brokers) == 1) {
				t.Errorf("version %d, %s: leader %+v, brokers %+v", v, name, p.CurrentLeader, r.Brokers)
			}
		}
		if v < 9 {
			continue
		}
		for epoch, want := range map[int32]int16{2: kerr.FencedLeaderEpoch.Code, 4: kerr.UnknownLeaderEpoch.Code} {
			if p, _ := one("t", id, 0, 0, func(p *kmsg.FetchRequestTopicPartition) { p.CurrentLeaderEpoch = epoch }); p.ErrorCode != want {
				t.Errorf("version %d, epoch %d: %+v", v, epoch, p)
			}
		}
	}
}

// TestDivergingEpoch: a client that read records which this log does not have is told where to look (KIP-595).
func TestDivergingEpoch(t *testing.T) {
	b := newDataBroker(t)
	id := b.topic("t", 1, 1)
	c := b.dial()
	c.produce("t", id, 0, "a", "b")
	b.apply(meta.PutPartition(id, 0, &meta.Partition{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1, LeaderEpoch: 5}))
	c.produce("t", id, 0, "c")
	for v := int16(12); v <= 18; v++ {
		req := newFetch(v, "t", id, map[int32]int64{0: 3})
		req.MaxWaitMillis = 60_000
		req.Topics[0].Partitions[0].LastFetchedEpoch = 3
		p := c.do(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]
		if p.ErrorCode != 0 || p.DivergingEpoch.Epoch != 3 || p.DivergingEpoch.EndOffset != 2 || len(p.RecordBatches) > 0 {
			t.Errorf("version %d: %+v", v, p)
		}
	}
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	for v := int16(2); v <= 4; v++ {
		req.Version = v
		req.Topics = nil
		rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
		rt.Topic = "t"
		for _, e := range []int32{3, 4, 5, 6, 0} {
			p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
			p.LeaderEpoch = e
			rt.Partitions = append(rt.Partitions, p)
		}
		rt.Partitions[4].CurrentLeaderEpoch = 2
		req.Topics = append(req.Topics, rt)
		ps := c.do(req).(*kmsg.OffsetForLeaderEpochResponse).Topics[0].Partitions
		for i, want := range [][3]int64{{0, 3, 2}, {0, 3, 2}, {0, 5, 3}, {0, -1, -1}, {int64(kerr.FencedLeaderEpoch.Code), -1, -1}} {
			if got := [3]int64{int64(ps[i].ErrorCode), int64(ps[i].LeaderEpoch), ps[i].EndOffset}; got != want {
				t.Errorf("version %d, question %d: %v, want %v", v, i, got, want)
			}
		}
	}
}

// TestFetchSizes: limits are soft, the first batch is whole, later ones stay within (trap 15).
func TestFetchSizes(t *testing.T) {
	b := newDataBroker(t)
	id := b.topic("t", 1, 2)
	c := b.dial()
	big := string(make([]byte, 10_000))
	for n := range int32(2) {
		c.produce("t", id, n, big, big, big)
	}
	count := func(max, part int32) (out []int) {
		req := newFetch(11, "t", id, map[int32]int64{0: 0, 1: 0})
		req.MaxBytes = max
		for i := range req.Topics[0].Partitions {
			req.Topics[0].Partitions[i].PartitionMaxBytes = part
		}
		for _, p := range c.do(req).(*kmsg.FetchResponse).Topics[0].Partitions {
			out = append(out, len(values(t, p.RecordBatches)))
		}
		return out
	}
	for _, x := range []struct {
		max, part int32
		want      []int
	}{{1 << 20, 1 << 20, []int{3, 3}}, {1, 1 << 20, []int{1, 0}}, {1 << 20, 1, []int{1, 0}}, {1 << 20, 21_000, []int{2, 2}}, {35_000, 1 << 20, []int{3, 0}}, {45_000, 21_000, []int{2, 2}}, {0, 0, []int{1, 0}}, {-1, -5, []int{1, 0}}} {
		if got := count(x.max, x.part); !slices.Equal(got, x.want) {
			t.Errorf("max %d, per partition %d: %v, want %v", x.max, x.part, got, x.want)
		}
	}
}

// TestLongPoll: a fetch waits for min bytes, and answers in its turn.
func TestLongPoll(t *testing.T) {
	b := newDataBroker(t)
	id := b.topic("t", 1, 2)
	writer, reader := b.dial(), b.dial()
	req := newFetch(12, "t", id, map[int32]int64{0: 0, 1: 0})
	req.MaxWaitMillis = 60_000
	reader.send(req)
	next := kmsg.NewPtrListOffsetsRequest() // waits behind the long poll, whatever it would answer
	next.Version = 7
	reader.send(next)
	writer.produce("t", id, 1, "x")
	r, err := reader.receive(req)
	if err != nil {
		t.Fatal(err)
	}
	if got := values(t, r.(*kmsg.FetchResponse).Topics[0].Partitions[1].RecordBatches); !slices.Equal(got, []string{"x"}) {
		t.Errorf("read %v", got)
	}
	if _, err := reader.receive(next); err != nil {
		t.Error(err)
	}
	// The deadline: an empty answer.
	req = newFetch(12, "t", id, map[int32]int64{0: 0, 1: 1})
	req.MaxWaitMillis = 20
	start := time.Now()
	p := reader.do(req).(*kmsg.FetchResponse).Topics[0].Partitions
	if len(p[0].RecordBatches)+len(p[1].RecordBatches) > 0 || time.Since(start) < 20*time.Millisecond {
		t.Errorf("after %v: %+v", time.Since(start), p)
	}
	// Nothing asked for, nothing to wait for.
	req = newFetch(12, "t", id, nil)
	req.MaxWaitMillis = 60_000
	reader.do(req)
	// A topic deleted while a fetch waits.
	req = newFetch(12, "t", id, map[int32]int64{0: 0})
	req.MaxWaitMillis = 60_000
	reader.send(req)
	b.apply(meta.Delete(meta.TopicKey("t")), meta.Delete(meta.PartitionKey(id, 0)), meta.Delete(meta.PartitionKey(id, 1)))
	if r, err = reader.receive(req); err != nil {
		t.Fatal(err)
	}
	if code := r.(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode; code != kerr.NotLeaderForPartition.Code && code != kerr.UnknownTopicOrPartition.Code {
		t.Errorf("topic deleted under a long poll: code %d", code)
	}
}

// TestFetchSession: an incremental fetch names what changed only, and so does its answer (KIP-227).
func TestFetchSession(t *testing.T) {
	b := newDataBroker(t)
	id := b.topic("t", 1, 3)
	c := b.dial()
	for _, v := range []int16{7, 12, 13, 18} {
		base := b.must("t", 0).LogEnd()
		c.produce("t", id, 0, "a")
		req := newFetch(v, "t", id, map[int32]int64{0: base, 1: b.must("t", 1).LogEnd(), 2: b.must("t", 2).LogEnd()})
		req.SessionID, req.SessionEpoch = 0, 0
		r := c.do(req).(*kmsg.FetchResponse)
		if r.SessionID == 0 || len(r.Topics[0].Partitions) != 3 {
			t.Fatalf("version %d: session %d, %+v", v, r.SessionID, r.Topics)
		}
		inc := newFetch(v, "t", id, map[int32]int64{0: base + 1})
		inc.SessionID, inc.SessionEpoch = r.SessionID, 1
		if r := c.do(inc).(*kmsg.FetchResponse); len(r.Topics) != 0 || r.SessionID != inc.SessionID || r.ErrorCode != 0 {
			t.Errorf("version %d: nothing changed, answer %+v", v, r)
		}
		c.produce("t", id, 2, "b")
		inc = newFetch(v, "t", id, nil)
		inc.SessionID, inc.SessionEpoch = r.SessionID, 2
		if r := c.do(inc).(*kmsg.FetchResponse); len(r.Topics) != 1 || len(r.Topics[0].Partitions) != 1 || r.Topics[0].Partitions[0].Partition != 2 {
			t.Errorf("version %d: one partition changed, answer %+v", v, r.Topics)
		}
		inc.SessionEpoch = 7
		if r := c.do(inc).(*kmsg.FetchResponse); r.ErrorCode != kerr.InvalidFetchSessionEpoch.Code || len(r.Topics) != 0 {
			t.Errorf("version %d: wrong epoch: %+v", v, r)
		}
		inc.SessionID = 12345
		if r := c.do(inc).(*kmsg.FetchResponse); r.ErrorCode != kerr.FetchSessionIDNotFound.Code {
			t.Errorf("version %d: unknown session: %+v", v, r)
		}
	}
}

// TestListOffsetsVersions: sentinels belong to versions.
func TestListOffsetsVersions(t *testing.T) {
	b := newDataBroker(t)
	id := b.topic("t", 1, 1)
	c := b.dial()
	c.produce("t", id, 0, "a", "b")
	since := map[int64]int16{-1: 1, -2: 1, -3: 7, -4: 8, -5: 9, -6: 11, -7: 100}
	for v := int16(1); v <= 11; v++ {
		for ts, from := range since {
			req := kmsg.NewPtrListOffsetsRequest()
			req.Version = v
			rt := kmsg.NewListOffsetsRequestTopic()
			rt.Topic = "t"
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Timestamp = ts
			other := rp
			other.Partition = 5
			rt.Partitions = append(rt.Partitions, rp, other)
			req.Topics = append(req.Topics, rt)
			ps := c.do(req).(*kmsg.ListOffsetsResponse).Topics[0].Partitions
			p := ps[0]
			if v < from {
				if p.ErrorCode != kerr.UnsupportedVersion.Code {
					t.Errorf("version %d, timestamp %d: %+v", v, ts, p)
				}
				continue
			}
			want := map[int64]int64{-1: 2, -2: 0, -4: 0, -5: -1, -6: -1}
			if w, ok := want[ts]; ok && (p.Offset != w || p.ErrorCode != 0) || ts == -3 && (p.Timestamp <= 0 || p.ErrorCode != 0) {
				t.Errorf("version %d, timestamp %d: %+v", v, ts, p)
			}
			if ps[1].ErrorCode != kerr.UnknownTopicOrPartition.Code || ps[1].Offset != -1 {
				t.Errorf("version %d, unknown partition: %+v", v, ps[1])
			}
			req.Topics[0].Partitions[1].Partition = 0
			if code := c.do(req).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].ErrorCode; code != kerr.InvalidRequest.Code {
				t.Errorf("version %d, a partition named twice: %d", v, code)
			}
		}
	}
}

// TestDeleteRecordsAndLogDirs covers the two that operators use.
func TestDeleteRecordsAndLogDirs(t *testing.T) {
	b := newDataBroker(t)
	id := b.topic("t", 1, 1)
	b.topic("__consumer_offsets", 2, 1)
	c := b.dial()
	for v := int16(0); v <= 2; v++ {
		c.produce("t", id, 0, "a", "b")
		end := b.must("t", 0).LogEnd()
		req := kmsg.NewPtrDeleteRecordsRequest()
		req.Version, req.TimeoutMillis = v, 1000
		for _, name := range []string{"t", "nope", "__consumer_offsets"} {
			rt := kmsg.NewDeleteRecordsRequestTopic()
			rt.Topic = name
			rp := kmsg.NewDeleteRecordsRequestTopicPartition()
			rp.Offset = end - 1
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
		}
		r := c.do(req).(*kmsg.DeleteRecordsResponse)
		for i, want := range []string{fmt.Sprint(end-1, " 0"), "-1 3", "-1 17"} {
			p := r.Topics[i].Partitions[0]
			if got := fmt.Sprint(p.LowWatermark, " ", p.ErrorCode); got != want {
				t.Errorf("version %d, topic %s: %s, want %s", v, r.Topics[i].Topic, got, want)
			}
		}
	}
	for v := int16(1); v <= 5; v++ {
		req := kmsg.NewPtrDescribeLogDirsRequest()
		req.Version = v
		r := c.do(req).(*kmsg.DescribeLogDirsResponse)
		d := r.Dirs[0]
		if len(r.Dirs) != 1 || d.ErrorCode != 0 || len(d.Topics) != 2 || d.Topics[1].Topic != "t" || d.Topics[1].Partitions[0].Size == 0 {
			t.Errorf("version %d: %+v", v, r)
		}
		if v >= 4 && (d.TotalBytes <= 0 || d.UsableBytes <= 0) {
			t.Errorf("version %d: %d of %d bytes", v, d.UsableBytes, d.TotalBytes)
		}
		rt := kmsg.NewDescribeLogDirsRequestTopic()
		rt.Topic, rt.Partitions = "t", []int32{0, 9}
		req.Topics = append(req.Topics, rt)
		if d := c.do(req).(*kmsg.DescribeLogDirsResponse).Dirs[0]; len(d.Topics) != 1 || len(d.Topics[0].Partitions) != 1 {
			t.Errorf("version %d, filtered: %+v", v, d)
		}
	}
}
