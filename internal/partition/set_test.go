package partition

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// TestTopicLife: create, delete, create again under the same name: the new topic never shows the old one's records (I19).
func TestTopicLife(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	if _, err := w.set.Get("t", 0); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("before: %v", err)
	}
	w.apply(newTopic("t", 1, 2)...)
	old := w.get("t", 1)
	w.produce(old, "old")
	if _, err := w.set.Get("t", 2); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("partition 2 of 2: %v", err)
	}
	w.apply(dropTopic("t", 1, 2)...)
	if _, err := w.set.GetByID(meta.UUID{0: 1, 15: 1}, 1); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("after the deletion: %v", err)
	}
	if _, err := old.Read(ReadRequest{Epoch: -1, LastEpoch: -1, Replica: Consumer}); !errors.Is(err, kerr.NotLeaderForPartition) {
		t.Errorf("read of a deleted partition: %v", err)
	}
	w.apply(newTopic("t", 2, 2)...)
	p := w.get("t", 1)
	if p.LogEnd() != 0 || p.TopicID() != (meta.UUID{0: 2, 15: 1}) {
		t.Errorf("new topic: log end %d, id %v", p.LogEnd(), p.TopicID())
	}
	// Both in one step, as a delta that skips revisions would bring it.
	w.produce(p, "second")
	w.apply(append(dropTopic("t", 2, 2), newTopic("t", 3, 3)...)...)
	if p := w.get("t", 2); p.LogEnd() != 0 || w.get("t", 1).LogEnd() != 0 {
		t.Error("the third topic of that name has records")
	}
	// Grown.
	u := meta.UUID{0: 3, 15: 1}
	w.apply(meta.PutTopic("t", meta.TopicRecord{ID: u, Partitions: 4}), meta.PutPartition(u, 3, led(0, alone, alone)))
	w.produce(w.get("t", 3), "grown")
}

// TestStrays: what the image does not place here is removed at the start, even when its name is in use again.
func TestStrays(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	w.apply(newTopic("t", 1, 1)...)
	w.apply(newTopic("gone", 2, 1)...)
	w.produce(w.get("t", 0), "old")
	w.stop()
	w.apply(append(dropTopic("t", 1, 1), newTopic("t", 3, 1)...)...)
	w.apply(dropTopic("gone", 2, 1)...)
	w.start().run()
	if p := w.get("t", 0); p.LogEnd() != 0 {
		t.Errorf("a topic created while the broker was down has %d records", p.LogEnd())
	}
	entries, err := w.g.ReadDir(w.names[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "gone-") && !strings.HasSuffix(e.Name(), "-delete") {
			t.Errorf("stray %s is still there", e.Name())
		}
	}
}

// TestMissingDiskHidesNothing: a partition whose disk is not there at the start answers KAFKA_STORAGE_ERROR; an empty one in
// its place would look like data loss.
func TestMissingDiskHidesNothing(t *testing.T) {
	w := newWorld(t, memfs.New(), 2).start().run()
	w.apply(newTopic("t", 1, 4)...)
	for n := range int32(4) {
		w.produce(w.get("t", n), "x")
	}
	on := map[int32]bool{}
	for n := range int32(4) {
		on[n] = w.get("t", n).dir.d.Path() == w.names[0]
	}
	w.stop()
	w.startOn(w.names[:1], w.names[1:])
	w.run()
	lost := 0
	for n, here := range on {
		p, err := w.set.Get("t", n)
		if here {
			if err != nil || p.LogEnd() != 1 {
				t.Errorf("partition %d: %v", n, err)
			}
			continue
		}
		lost++
		if !errors.Is(err, kerr.KafkaStorageError) {
			t.Errorf("partition %d of the missing disk: %v", n, err)
		}
	}
	if lost != 2 {
		t.Errorf("%d of 4 partitions on the missing disk: partitions are not spread by count", lost)
	}
	w.apply(newTopic("u", 2, 1)...)
	w.produce(w.get("u", 0), "new topics go on")
	w.stop()
	w.start().run()
	for n := range on {
		if got := w.values(w.get("t", n)); !slices.Equal(got, []string{"x"}) {
			t.Errorf("partition %d after the disk came back: %v", n, got)
		}
	}
}

// TestEpochs: clients with an old or a future leader epoch are told so, and a new epoch ends all that waits.
func TestEpochs(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	u := meta.UUID{0: 1, 15: 1}
	w.apply(meta.PutTopic("t", meta.TopicRecord{ID: u, Partitions: 1}), meta.PutPartition(u, 0, led(3, alone, alone)))
	p := w.get("t", 0)
	w.produce(p, "a")
	for _, c := range []struct {
		epoch int32
		want  error
	}{{-1, nil}, {3, nil}, {2, kerr.FencedLeaderEpoch}, {4, kerr.UnknownLeaderEpoch}} {
		_, err := p.Read(ReadRequest{Epoch: c.epoch, LastEpoch: -1, Replica: Consumer})
		_, err2 := p.OffsetFor(OffsetQuery{Timestamp: Latest, Epoch: c.epoch, Replica: Consumer})
		_, _, err3 := p.EpochEnd(c.epoch, 3)
		for _, e := range []error{err, err2, err3} {
			if !errors.Is(e, c.want) {
				t.Errorf("epoch %d: %v, want %v", c.epoch, e, c.want)
			}
		}
	}
	r, err := p.Read(ReadRequest{Offset: 1, LastEpoch: -1, Epoch: -1, Replica: Consumer})
	if err != nil {
		t.Fatal(err)
	}
	poll := NewLongPoll(1, 1)
	poll.Watch(p, false, &r)
	poll.Arm(time.Hour)
	entered := w.g.close()
	wt := NewWaiter(2)
	a := w.append(p, AcksAll, "b")
	<-entered
	p.Wait(wt, 0, AcksAll, a)
	c, err := p.Coordinator()
	if err != nil {
		t.Fatal(err)
	}
	committed := make(chan error, 1)
	c.OnCommitted(a.End, func(err error) { committed <- err })
	w.g.open() // the new epoch's entry is synced, too
	done := make(chan struct{})
	go func() { defer close(done); w.apply(meta.PutPartition(u, 0, led(5, alone, alone))) }()
	<-done
	p.Wait(wt, 1, AcksAll, a) // its epoch is over
	wt.Arm(time.Hour)
	<-wt.Ready()
	<-poll.Ready()
	poll.Close()
	if err := wt.Err(1); !errors.Is(err, kerr.NotLeaderForPartition) {
		t.Errorf("wait of an old epoch: %v", err)
	}
	for _, err := range []error{wt.Err(0), <-committed} {
		if err != nil && !errors.Is(err, kerr.NotLeaderForPartition) {
			t.Errorf("wait across the epochs: %v", err)
		}
	}
	if _, _, err := c.Append(records(t, batch.Spec{LeaderEpoch: -1}, "c")); !errors.Is(err, kerr.FencedLeaderEpoch) {
		t.Errorf("append of a coordinator of an old epoch: %v", err)
	}
	if e, end, err := p.EpochEnd(5, 3); e != 3 || end != 2 || err != nil {
		t.Errorf("epoch 3 ends at %d (%d), %v", end, e, err)
	}
	if e, end, err := p.EpochEnd(5, 5); e != 5 || end != 2 || err != nil {
		t.Errorf("epoch 5 without a record ends at %d (%d), %v", end, e, err)
	}
	// A reader whose last record is of an epoch that ended earlier diverges.
	r, err = p.Read(ReadRequest{Offset: 9, Epoch: 5, LastEpoch: 3, Replica: Consumer})
	if err != nil || !r.Diverging || r.DivergingEpoch != 3 || r.DivergingEnd != 2 {
		t.Errorf("diverging: %+v, %v", r, err)
	}
	// Another broker leads.
	w.apply(meta.PutPartition(u, 0, &meta.Partition{Replicas: []int32{1, 2}, ISR: []int32{1, 2}, Leader: 2, LeaderEpoch: 6}))
	if _, err := p.Read(ReadRequest{Epoch: -1, LastEpoch: -1, Replica: Consumer}); !errors.Is(err, kerr.NotLeaderForPartition) {
		t.Errorf("read from a follower: %v", err)
	}
}

// TestLeadershipIsTold: a coordinator's subscription hears of each change once, in order, after it happened.
func TestLeadershipIsTold(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start()
	var got []string
	w.set.OnLeadership("__consumer_offsets", func(c LeadershipChange) {
		if _, err := c.Partition.Coordinator(); (err == nil) != c.Leads {
			t.Errorf("%+v: coordinator: %v", c, err)
		}
		got = append(got, fmt.Sprintf("%d@%d %v", c.Partition.TopicPartition().Partition, c.Epoch, c.Leads))
	})
	w.run()
	w.apply(newTopic("other", 2, 2)...)
	w.apply(newTopic("__consumer_offsets", 1, 2)...)
	u := meta.UUID{0: 1, 15: 1}
	w.apply(meta.PutPartition(u, 1, led(1, alone, alone)))
	w.apply(meta.PutPartition(u, 1, &meta.Partition{Replicas: []int32{1, 2}, ISR: alone, Leader: 2, LeaderEpoch: 2}))
	w.apply(dropTopic("__consumer_offsets", 1, 2)...)
	want := []string{"0@0 true", "1@0 true", "1@1 true", "1@2 false", "0@0 false", "1@2 false"}
	if !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
}

// TestCoordinatorLog: what a coordinator appends is committed once it is durable, and replay gives it back.
func TestCoordinatorLog(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	cs := append(newTopic("__consumer_offsets", 1, 1), topicConfig(t, "__consumer_offsets", map[string]string{"cleanup.policy": "compact", "segment.bytes": "1048576"}))
	w.apply(cs...)
	p := w.get("__consumer_offsets", 0)
	c, err := p.Coordinator()
	if err != nil {
		t.Fatal(err)
	}
	entered := w.g.close()
	base, end, err := c.Append(records(t, batch.Spec{LeaderEpoch: -1}, "a", "b"))
	if err != nil || base != 0 || end != 2 {
		t.Fatal(base, end, err)
	}
	calls := make(chan error, 2)
	c.OnCommitted(end, func(err error) { calls <- err })
	<-entered
	if len(calls) > 0 {
		t.Error("committed before it is durable")
	}
	w.g.open()
	if err := <-calls; err != nil {
		t.Error(err)
	}
	c.OnCommitted(end, func(err error) { calls <- err })
	if err := <-calls; err != nil {
		t.Error(err)
	}
	big := strings.Repeat("x", 300<<10)
	for range 20 { // several segments and reads
		if _, end, err = c.Append(records(t, batch.Spec{LeaderEpoch: -1}, big)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(p.log.RaiseStart(1, 0), w.set.SyncStarts()); err != nil { // the log start may lie inside a batch
		t.Fatal(err)
	}
	next := int64(0)
	if err := c.Replay(func(b batch.Batch) error {
		if b.BaseOffset() != next {
			t.Errorf("batch %d, expected %d", b.BaseOffset(), next)
		}
		next = b.NextOffset()
		return nil
	}); err != nil || next != end {
		t.Errorf("replayed to %d of %d: %v", next, end, err)
	}
	stop := errors.New("stop")
	if err := c.Replay(func(batch.Batch) error { return stop }); err != stop {
		t.Errorf("the replay's own error: %v", err)
	}
}

// TestOffsets: the bounds of kafka.md 3.9, from the client's side.
func TestOffsets(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	w.apply(newTopic("t", 1, 1)...)
	p := w.get("t", 0)
	ask := func(ts int64) Offset {
		o, err := p.OffsetFor(OffsetQuery{Timestamp: ts, Epoch: -1, Replica: Consumer})
		if err != nil {
			t.Errorf("timestamp %d: %v", ts, err)
		}
		return o
	}
	none := Offset{-1, -1, -1}
	if o := ask(MaxTimestamp); o != none {
		t.Errorf("empty log: %+v", o)
	}
	if o := ask(Latest); o != (Offset{0, -1, 0}) {
		t.Errorf("latest of nothing: %+v", o)
	}
	stamped := func(ts ...int64) batch.Batch {
		b := batch.NewBuilder(batch.Spec{LeaderEpoch: -1})
		for _, x := range ts {
			if err := b.Add(batch.Record{Timestamp: x, Value: []byte("v")}); err != nil {
				t.Fatal(err)
			}
		}
		out, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, b := range []batch.Batch{stamped(100, 300), stamped(200), stamped(500, 400)} {
		a, err := p.Append(AppendRequest{Records: b, Acks: AcksAll, LeaderEpoch: -1, Version: 9, NowMs: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.await(p, AcksAll, a); err != nil {
			t.Fatal(err)
		}
	}
	for ts, want := range map[int64]Offset{
		Latest: {5, -1, 0}, Earliest: {0, -1, 0}, EarliestLocal: {0, -1, 0}, LatestTiered: none, EarliestPendingUpload: none,
		MaxTimestamp: {3, 500, 0}, 0: {0, 100, 0}, 101: {1, 300, 0}, 300: {1, 300, 0}, 301: {3, 500, 0}, 501: none,
	} {
		if o := ask(ts); o != want {
			t.Errorf("timestamp %d: %+v, want %+v", ts, o, want)
		}
	}
	if _, err := p.OffsetFor(OffsetQuery{Timestamp: -7, Epoch: -1, Replica: Consumer}); !errors.Is(err, kerr.UnsupportedVersion) {
		t.Errorf("timestamp -7: %v", err)
	}
	for at, want := range map[int64]error{-1: kerr.OffsetOutOfRange, 0: nil, 5: nil, 6: kerr.OffsetOutOfRange} {
		r, err := p.Read(ReadRequest{Offset: at, MaxBytes: 1 << 20, Epoch: -1, LastEpoch: -1, Replica: Consumer})
		r.Slice.Release()
		if !errors.Is(err, want) {
			t.Errorf("read at %d: %v, want %v", at, err, want)
		}
	}
	// Between the high watermark and the log end: empty, not an error (trap 6).
	entered := w.g.close()
	a := w.append(p, AcksAll, "invisible")
	<-entered
	r, err := p.Read(ReadRequest{Offset: 5, MaxBytes: 1 << 20, AtLeastOne: true, Epoch: -1, LastEpoch: -1, Replica: Consumer})
	if err != nil || r.Slice.Len != 0 || r.HW != 5 {
		t.Errorf("above the high watermark: %d bytes, hw %d, %v", r.Slice.Len, r.HW, err)
	}
	if o := ask(Latest); o.Offset != 5 {
		t.Errorf("latest while a record is not durable: %+v", o)
	}
	w.g.open()
	if err := w.await(p, AcksAll, a); err != nil {
		t.Fatal(err)
	}
	// DeleteRecords.
	for _, c := range []struct {
		offset, low int64
		want        error
	}{{7, -1, kerr.OffsetOutOfRange}, {-2, -1, kerr.OffsetOutOfRange}, {2, 2, nil}, {1, 2, nil}, {-1, 6, nil}} {
		low, err := p.DeleteRecords(c.offset, 1000)
		if low != c.low || !errors.Is(err, c.want) {
			t.Errorf("delete to %d: %d, %v; want %d, %v", c.offset, low, err, c.low, c.want)
		}
	}
	if err := w.set.SyncStarts(); err != nil {
		t.Error(err)
	}
	if o := ask(Earliest); o.Offset != 6 {
		t.Errorf("earliest after the deletion: %+v", o)
	}
	w.apply(topicConfig(t, "t", map[string]string{"cleanup.policy": "compact"}))
	if _, err := p.DeleteRecords(6, 1000); !errors.Is(err, kerr.PolicyViolation) {
		t.Errorf("compacted topic: %v", err)
	}
	if _, err := p.Append(AppendRequest{Records: stamped(100), LeaderEpoch: -1, Version: 9, NowMs: 1000}); !errors.Is(err, kerr.InvalidRecord) {
		t.Errorf("record without key in a compacted topic: %v", err)
	}
}

// TestLongPollWakesWhenMinBytesAreThere and not before, over partitions of its own.
func TestLongPollWakesWhenMinBytesAreThere(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	w.apply(newTopic("t", 1, 3)...)
	size := int64(len(records(t, batch.Spec{LeaderEpoch: -1}, "0123456789")))
	watch := func(missing int64) *LongPoll {
		l := NewLongPoll(3, missing)
		for n := range int32(3) {
			p := w.get("t", n)
			r, err := p.Read(ReadRequest{Offset: p.HW(), MaxBytes: 1 << 20, Epoch: -1, LastEpoch: -1, Replica: Consumer})
			if err != nil {
				t.Fatal(err)
			}
			l.Watch(p, n == 1, &r)
		}
		return l
	}
	l := watch(3 * size)
	l.Arm(time.Hour)
	for n := range int32(3) {
		if ready(l.Ready()) {
			t.Fatalf("ready after %d of 3 batches", n)
		}
		w.produce(w.get("t", n), "0123456789")
	}
	<-l.Ready()
	l.Close()
	// Bytes that came between the read and the watch count.
	p := w.get("t", 0)
	r, err := p.Read(ReadRequest{Offset: p.HW(), Epoch: -1, LastEpoch: -1, Replica: Consumer})
	if err != nil {
		t.Fatal(err)
	}
	w.produce(p, "0123456789")
	l = NewLongPoll(1, size)
	l.Watch(p, false, &r)
	<-l.Ready()
	l.Close()
	// The deadline.
	l = watch(1)
	l.Arm(time.Millisecond)
	<-l.Ready()
	l.Close()
	// The deletion of one partition's topic, and the end of the set.
	l = watch(1)
	l.Arm(time.Hour)
	w.apply(dropTopic("t", 1, 3)...)
	<-l.Ready()
	l.Close()
	for n := range int32(3) {
		if p.mu.polls.first != nil {
			t.Errorf("partition %d still lists a poll", n)
		}
	}
}

// TestManyAtOnce runs producers, readers, polls, configuration and deletions against each other, for the race detector.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t, memfs.New(), 2).start().run()
	w.apply(newTopic("t", 1, 4)...)
	var wg sync.WaitGroup
	for n := range int32(4) {
		p := w.get("t", n)
		wg.Go(func() {
			for i := range 50 {
				a, err := p.Append(AppendRequest{Records: records(t, batch.Spec{LeaderEpoch: -1}, fmt.Sprint(i)), Acks: AcksAll, LeaderEpoch: -1, Version: 9, NowMs: 1_700_000_000_000})
				if err != nil {
					if !errors.Is(err, kerr.NotLeaderForPartition) {
						t.Errorf("append: %v", err)
					}
					return
				}
				if err := w.await(p, AcksAll, a); err != nil && !errors.Is(err, kerr.NotLeaderForPartition) {
					t.Errorf("wait: %v", err)
				}
			}
		})
		wg.Go(func() {
			for at := int64(0); at < 50; {
				r, err := p.Read(ReadRequest{Offset: at, MaxBytes: 1 << 20, AtLeastOne: true, Epoch: -1, LastEpoch: -1, Replica: Consumer})
				if err != nil {
					return
				}
				l := NewLongPoll(1, 1)
				if r.Slice.Len > 0 {
					at = r.Slice.Next
					r.Slice.Release()
					continue
				}
				l.Watch(p, n%2 == 0, &r)
				l.Arm(time.Second)
				<-l.Ready()
				l.Close()
			}
		})
	}
	w.apply(topicConfig(t, "t", map[string]string{"retention.ms": "1000"}))
	w.apply(newTopic("u", 2, 5)...)
	w.set.Housekeep(w.clock.UnixMilli())
	w.set.checkpoint()
	w.apply(dropTopic("u", 2, 5)...)
	w.set.Dirs()
	w.apply(dropTopic("t", 1, 4)...)
	wg.Wait()
}

// TestConfigurationIsLive: a changed topic key, and a changed default of the broker, reach partitions that exist.
func TestConfigurationIsLive(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	w.apply(append(newTopic("own", 1, 1), topicConfig(t, "own", map[string]string{"max.message.bytes": "300"}))...)
	w.apply(newTopic("plain", 2, 1)...)
	limit := func(topic string) int { return w.get(topic, 0).Config().Rules.MaxBytes }
	if limit("own") != 300 || limit("plain") != 1048588 {
		t.Errorf("limits %d, %d", limit("own"), limit("plain"))
	}
	c, err := meta.PutConfig(meta.Resource{Type: meta.ResourceBroker}, map[string]string{"message.max.bytes": "400", "log.retention.ms": "777"})
	if err != nil {
		t.Fatal(err)
	}
	w.apply(c)
	if limit("own") != 300 || limit("plain") != 400 || w.get("own", 0).log.Config().RetentionMs != 777 {
		t.Errorf("limits %d, %d, retention %d after the broker's default changed", limit("own"), limit("plain"), w.get("own", 0).log.Config().RetentionMs)
	}
	w.apply(topicConfig(t, "own", nil))
	if limit("own") != 400 {
		t.Errorf("limit %d after the topic's value was removed", limit("own"))
	}
	_, err = w.get("own", 0).Append(AppendRequest{Records: records(t, batch.Spec{LeaderEpoch: -1}, strings.Repeat("x", 500)), LeaderEpoch: -1, Version: 9})
	if !errors.Is(err, kerr.MessageTooLarge) {
		t.Errorf("500 bytes: %v", err)
	}
}

// TestLastStableOffset: a reader of committed records stops at the first open transaction, is woken when it ends, and is told of
// the aborted ones in its range. The batches come past the checks for clients, which take no transactions yet.
func TestLastStableOffset(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	w.apply(newTopic("t", 1, 1)...)
	p := w.get("t", 0)
	write := func(b batch.Batch) Appended {
		t.Helper()
		a, err := p.Append(AppendRequest{Records: b, Acks: AcksAll, LeaderEpoch: -1, Version: 13, Coordinator: true, NowMs: w.clock.UnixMilli()})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.await(p, AcksAll, a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	read := func(at int64, committed bool) ReadResult {
		t.Helper()
		r, err := p.Read(ReadRequest{Offset: at, MaxBytes: 1 << 20, AtLeastOne: true, Committed: committed, Epoch: -1, LastEpoch: -1, Replica: Consumer})
		if err != nil {
			t.Fatal(err)
		}
		r.Slice.Release()
		return r
	}
	w.produce(p, "plain")
	write(records(t, batch.Spec{LeaderEpoch: -1, Transactional: true, Producer: &batch.ProducerInfo{ID: 5, Epoch: 1}}, "a", "b"))
	w.produce(p, "after")
	if r := read(0, true); r.LSO != 1 || r.HW != 4 || r.Slice.Next != 1 || len(r.Aborted) != 0 {
		t.Errorf("open transaction: %+v", r)
	}
	if r := read(0, false); r.Slice.Next != 4 || r.LSO != 1 {
		t.Errorf("uncommitted reader: %+v", r)
	}
	if o, err := p.OffsetFor(OffsetQuery{Timestamp: Latest, Committed: true, Epoch: -1, Replica: Consumer}); err != nil || o.Offset != 1 {
		t.Errorf("latest committed: %+v, %v", o, err)
	}
	r := read(1, true)
	poll := NewLongPoll(1, 1)
	poll.Watch(p, true, &r)
	poll.Arm(time.Hour)
	w.produce(p, "more")
	if ready(poll.Ready()) {
		t.Error("woken by records behind an open transaction")
	}
	write(batch.BuildMarker(5, 1, batch.Marker{Type: batch.Abort, CoordinatorEpoch: 1, TimestampMs: w.clock.UnixMilli()}))
	<-poll.Ready()
	poll.Close()
	if r := read(0, true); r.LSO != 6 || r.Slice.Next != 6 || len(r.Aborted) != 1 || r.Aborted[0].ProducerID != 5 || r.Aborted[0].FirstOffset != 1 {
		t.Errorf("after the abort: %+v", r)
	}
	if r := read(5, true); len(r.Aborted) != 1 {
		t.Errorf("a reader past the data, at the marker: %+v", r.Aborted)
	}
}
