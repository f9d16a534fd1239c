package partition

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// TestNothingIsAcknowledgedBeforeTheSync is the durability contract for acks=1 and acks=all.
func TestNothingIsAcknowledgedBeforeTheSync(t *testing.T) {
	for _, acks := range []int16{AcksAll, AcksLeader} {
		t.Run(fmt.Sprint("acks=", acks), func(t *testing.T) {
			w := newWorld(t, memfs.New(), 1).start().run()
			w.apply(newTopic("t", 1, 1)...)
			p := w.get("t", 0)
			entered := w.g.close()
			a := w.append(p, acks, "one")
			if p.Reached(acks, a) {
				t.Error("reached before any sync")
			}
			wt := NewWaiter(1)
			p.Wait(wt, 0, acks, a)
			wt.Arm(time.Minute)
			<-entered // the sync is under way and cannot end
			if ready(wt.Ready()) || p.HW() != 0 {
				t.Errorf("ready %v, high watermark %d while the sync is under way", ready(wt.Ready()), p.HW())
			}
			if got := w.values(p); len(got) != 0 {
				t.Errorf("a consumer sees %v before it is durable", got)
			}
			// An append does not wait for the sync, and is not covered by it.
			b := w.append(p, acks, "two")
			if b.Base != 1 {
				t.Errorf("second append got offset %d", b.Base)
			}
			wt2 := NewWaiter(1)
			p.Wait(wt2, 0, acks, b)
			wt2.Arm(time.Minute)
			w.g.open()
			<-wt.Ready()
			<-wt2.Ready()
			if wt.Err(0) != nil || wt2.Err(0) != nil || p.HW() != 2 {
				t.Errorf("errors %v, %v, high watermark %d", wt.Err(0), wt2.Err(0), p.HW())
			}
			if got := w.values(p); !slices.Equal(got, []string{"one", "two"}) {
				t.Errorf("read %v", got)
			}
		})
	}
}

// TestOneRoundCoversWhatCameBefore: while a sync is under way a hundred partitions get dirty; the next round takes them all.
func TestOneRoundCoversWhatCameBefore(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	w.apply(newTopic("t", 1, 100)...)
	for n := range int32(100) { // the first flush of a new log syncs its folder, too
		w.produce(w.get("t", n), "x")
	}
	entered := w.g.close()
	first := w.append(w.get("t", 0), AcksAll, "y")
	<-entered
	wt := NewWaiter(101)
	w.get("t", 0).Wait(wt, 100, AcksAll, first)
	for n := range int32(100) {
		p := w.get("t", n)
		p.Wait(wt, int(n), AcksAll, w.append(p, AcksAll, "z"))
	}
	wt.Arm(time.Minute)
	w.g.mu.Lock()
	before := w.g.mu.syncs
	w.g.mu.Unlock()
	w.g.open()
	<-wt.Ready()
	for i := range 101 {
		if err := wt.Err(i); err != nil {
			t.Errorf("slot %d: %v", i, err)
		}
	}
	w.g.mu.Lock()
	defer w.g.mu.Unlock()
	if n := w.g.mu.syncs - before; n > 100 {
		t.Errorf("%d syncs for 100 dirty partitions", n)
	}
}

// TestFailedSyncIsNeverAcknowledged: the directory goes offline, its waiters hear KAFKA_STORAGE_ERROR, the other directory goes on.
func TestFailedSyncIsNeverAcknowledged(t *testing.T) {
	w := newWorld(t, memfs.New(), 2).start()
	told := make(chan LeadershipChange, 10)
	w.set.OnLeadership("t", func(c LeadershipChange) { told <- c })
	w.run()
	w.apply(newTopic("t", 1, 2)...)
	<-told
	<-told
	bad, good := w.get("t", 0), w.get("t", 1)
	if bad.dir == good.dir {
		t.Fatal("both partitions in one directory")
	}
	w.produce(bad, "kept")
	w.g.failWith(errDisk, func(name string) bool { return strings.HasPrefix(name, bad.dir.d.Path()) })
	a := w.append(bad, AcksAll, "lost")
	if err := w.await(bad, AcksAll, a); !errors.Is(err, kerr.KafkaStorageError) {
		t.Errorf("acknowledged with %v", err)
	}
	if got := <-w.failed; got != bad.dir.d.Path()+" 1" {
		t.Errorf("told of %q", got)
	}
	if bad.HW() != 1 {
		t.Errorf("high watermark %d", bad.HW())
	}
	if _, err := bad.Append(AppendRequest{Records: records(t, batch.Spec{LeaderEpoch: -1}, "x"), LeaderEpoch: -1, Version: 9}); !errors.Is(err, kerr.KafkaStorageError) && err == nil {
		t.Error("append to a dead disk succeeded")
	}
	if _, err := bad.Read(ReadRequest{Epoch: -1, LastEpoch: -1, Replica: Consumer, MaxBytes: 100}); !errors.Is(err, kerr.KafkaStorageError) {
		t.Errorf("read from a dead disk: %v", err)
	}
	w.set.tellLost() // or the housekeeper was quicker
	if c := <-told; c.Partition != bad || c.Leads {
		t.Errorf("subscriber told %+v", c)
	}
	w.produce(good, "still here")
	// A topic created now goes to the disk that works.
	w.apply(newTopic("u", 2, 3)...)
	for n := range int32(3) {
		if p := w.get("u", n); p.dir != good.dir {
			t.Errorf("partition %d of a new topic lies on the dead disk", n)
		}
		w.produce(w.get("u", n), "v")
	}
	for _, d := range w.set.Dirs() {
		if (d.Err != nil) != (d.Path == bad.dir.d.Path()) {
			t.Errorf("%s: %v", d.Path, d.Err)
		}
	}
}

// TestRestartKeepsWhatWasAcknowledged stops without a clean mark, as a crash of the process does.
func TestRestartKeepsWhatWasAcknowledged(t *testing.T) {
	w := newWorld(t, memfs.New(), 2).start().run()
	w.apply(newTopic("t", 1, 4)...)
	for i := range 20 {
		w.produce(w.get("t", int32(i%4)), fmt.Sprint("v", i))
	}
	s := w.set
	close(s.stop)
	s.wg.Wait()
	for _, d := range s.dirs {
		if err := d.d.Abandon(); err != nil {
			t.Fatal(err)
		}
	}
	w.set = nil
	w.start().run()
	for n := range int32(4) {
		p := w.get("t", n)
		var want []string
		for i := int(n); i < 20; i += 4 {
			want = append(want, fmt.Sprint("v", i))
		}
		if got := w.values(p); !slices.Equal(got, want) {
			t.Errorf("partition %d: %v, want %v", n, got, want)
		}
		if a := w.produce(p, "more"); a.Base != 5 {
			t.Errorf("partition %d goes on at %d", n, a.Base)
		}
	}
}

// TestPageCacheMode: with flush.messages above 1 an append counts as durable, as in Kafka; every n-th record asks for a sync.
func TestPageCacheMode(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	w.apply(append(newTopic("t", 1, 1), topicConfig(t, "t", map[string]string{"flush.messages": "3"}))...)
	p := w.get("t", 0)
	entered := w.g.close()
	for i := range 2 {
		if a := w.append(p, AcksAll, "x"); !p.Reached(AcksAll, a) || !p.Reached(AcksLeader, a) || p.HW() != int64(i+1) {
			t.Errorf("append %d waits; high watermark %d", i, p.HW())
		}
	}
	if p.queued.Load() || len(entered) > 0 {
		t.Error("flushed before flush.messages records")
	}
	w.append(p, AcksAll, "x")
	<-entered
	w.g.open()
	// The topic becomes durable: from now on an append waits.
	w.apply(topicConfig(t, "t", map[string]string{"flush.messages": "1"}))
	entered = w.g.close()
	a := w.append(p, AcksAll, "y")
	if p.Reached(AcksAll, a) {
		t.Error("the changed configuration did not reach the partition")
	}
	<-entered
	w.g.open()
	if err := w.await(p, AcksAll, a); err != nil {
		t.Error(err)
	}
}

// TestFlushByTime: flush.ms asks for a sync of what lies longer than that.
func TestFlushByTime(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	w.apply(append(newTopic("t", 1, 1), topicConfig(t, "t", map[string]string{"flush.messages": "1000", "flush.ms": "500"}))...)
	p := w.get("t", 0)
	w.append(p, AcksAll, "x")
	now := w.clock.UnixMilli()
	w.set.flushDue(now + 499)
	if p.queued.Load() {
		t.Error("too early")
	}
	entered := w.g.close()
	w.set.flushDue(now + 500)
	<-entered
	w.g.open()
}

// TestTimeout: a wait that ends at the deadline answers REQUEST_TIMED_OUT and leaves nothing behind.
func TestTimeout(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	w.apply(newTopic("t", 1, 1)...)
	p := w.get("t", 0)
	w.g.close()
	defer w.g.open()
	for _, d := range []time.Duration{time.Millisecond, 0, -time.Second} {
		wt := NewWaiter(2)
		p.Wait(wt, 0, AcksAll, w.append(p, AcksAll, "x"))
		p.Wait(wt, 1, AcksLeader, w.append(p, AcksLeader, "x"))
		wt.Arm(d)
		<-wt.Ready()
		for i := range 2 {
			if err := wt.Err(i); !errors.Is(err, kerr.RequestTimedOut) {
				t.Errorf("timeout %v, slot %d: %v", d, i, err)
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mu.commit.empty() || !p.mu.disk.empty() {
		t.Error("waits of a client that gave up are still listed")
	}
}

// TestBelowMinISR: with too few replicas acks=all is refused before the write, and acks=1 data stays invisible.
func TestBelowMinISR(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	u := meta.UUID{0: 1, 15: 1}
	w.apply(meta.PutTopic("t", meta.TopicRecord{ID: u, Partitions: 1}), meta.PutPartition(u, 0, led(0, []int32{1, 2}, alone)),
		topicConfig(t, "t", map[string]string{"min.insync.replicas": "2"}))
	p := w.get("t", 0)
	_, err := p.Append(AppendRequest{Records: records(t, batch.Spec{LeaderEpoch: -1}, "x"), Acks: AcksAll, LeaderEpoch: -1, Version: 9})
	if !errors.Is(err, kerr.NotEnoughReplicas) || p.LogEnd() != 0 {
		t.Errorf("%v, log end %d", err, p.LogEnd())
	}
	if err := w.await(p, AcksLeader, w.append(p, AcksLeader, "y")); err != nil {
		t.Error(err)
	}
	if p.HW() != 0 || len(w.values(p)) != 0 {
		t.Errorf("high watermark %d below min.insync.replicas", p.HW())
	}
	w.apply(topicConfig(t, "t", map[string]string{"min.insync.replicas": "1"}))
	if p.HW() != 1 {
		t.Errorf("high watermark %d after min.insync.replicas fell", p.HW())
	}
	// One replica: min(2, 1) is enough.
	w.apply(append(newTopic("one", 2, 1), topicConfig(t, "one", map[string]string{"min.insync.replicas": "2"}))...)
	w.produce(w.get("one", 0), "z")
}

// TestReserve: below the reserve produce is refused, reads and coordinators go on, and it resumes by itself.
func TestReserve(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	w.apply(newTopic("t", 1, 1)...)
	p := w.get("t", 0)
	w.produce(p, "a")
	w.g.mu.Lock()
	w.g.mu.free = 1000
	w.g.mu.Unlock()
	if err := p.dir.d.Checkpoint(); err != nil { // looks at the free space again
		t.Fatal(err)
	}
	_, err := p.Append(AppendRequest{Records: records(t, batch.Spec{LeaderEpoch: -1}, "b"), Acks: AcksAll, LeaderEpoch: -1, Version: 9})
	if err == nil || p.LogEnd() != 1 {
		t.Fatalf("below the reserve: %v, log end %d", err, p.LogEnd())
	}
	if got := w.values(p); !slices.Equal(got, []string{"a"}) {
		t.Errorf("read %v", got)
	}
	c, err := p.Coordinator()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Append(records(t, batch.Spec{LeaderEpoch: -1}, "c")); err != nil {
		t.Errorf("a coordinator could not write: %v", err)
	}
	w.g.mu.Lock()
	w.g.mu.free = 1 << 39
	w.g.mu.Unlock()
	w.produce(p, "d")
}

// TestDuplicate: a batch that came before is answered with its first offset, and waits like the first.
func TestDuplicate(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	w.apply(newTopic("t", 1, 1)...)
	p := w.get("t", 0)
	send := func(seq int32) (Appended, error) {
		b := records(t, batch.Spec{LeaderEpoch: -1, Producer: &batch.ProducerInfo{ID: 7, Epoch: 0, Sequence: seq}}, "x", "y")
		return p.Append(AppendRequest{Records: b, Acks: AcksAll, LeaderEpoch: -1, Version: 9, NowMs: 1_700_000_000_000})
	}
	for seq := int32(0); seq < 12; seq += 2 {
		if a, err := send(seq); err != nil || a.Base != int64(seq) || a.Duplicate {
			t.Fatalf("sequence %d: %+v, %v", seq, a, err)
		}
	}
	for seq := int32(2); seq < 12; seq += 2 {
		a, err := send(seq)
		if err != nil || !a.Duplicate || a.Base != int64(seq) || a.End != int64(seq)+2 {
			t.Errorf("again %d: %+v, %v", seq, a, err)
		}
		if err := w.await(p, AcksAll, a); err != nil {
			t.Error(err)
		}
	}
	if _, err := send(0); !errors.Is(err, kerr.OutOfOrderSequenceNumber) {
		t.Errorf("sixth batch back: %v", err)
	}
	if p.LogEnd() != 12 {
		t.Errorf("log end %d", p.LogEnd())
	}
}
