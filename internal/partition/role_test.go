package partition

import (
	"testing"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// TestOnlyTheRegisteredProcessLeads: an image from before this process registered may name this broker as leader of an
// epoch whose records a power cut took; leading it again would give their offsets to others.
func TestOnlyTheRegisteredProcessLeads(t *testing.T) {
	w := newWorld(t, memfs.New(), 1)
	old, own := meta.UUID{1}, meta.UUID{2}
	broker := func(inc meta.UUID, fenced bool) meta.Change {
		return meta.PutBroker(&meta.Broker{ID: 1, Incarnation: inc, Epoch: 5, Fenced: fenced})
	}
	w.apply(append(newTopic("t", 1, 1), broker(old, false))...)
	w.incarnation = own
	w.start().run()
	p := w.get("t", 0)
	leads := func(want bool, when string) {
		t.Helper()
		if _, ok := p.Leader(); ok != want {
			t.Errorf("%s: leads %v, want %v", when, ok, want)
		}
	}
	leads(false, "registered as another process")
	w.apply(broker(own, true))
	leads(false, "registered and fenced, with the old epochs still there")
	w.apply(broker(own, false))
	leads(true, "unfenced")
	w.produce(p, "a")
	w.apply(broker(own, true))
	leads(false, "fenced")
	w.apply(broker(meta.UUID{3}, false))
	leads(false, "replaced by another process")
}

// TestFollowerRoleEnds: from the moment the image says so, nothing of the old leader is appended.
func TestFollowerRoleEnds(t *testing.T) {
	w := newWorld(t, memfs.New(), 1)
	w.apply(newTopic("t", 1, 1)...)
	w.start().run()
	p := w.get("t", 0)
	w.produce(p, "a")
	id := meta.UUID{0: 1, 15: 1}
	follow := func(epoch, leader int32) {
		w.apply(meta.PutPartition(id, 0, &meta.Partition{Replicas: []int32{1, 2, 3}, ISR: []int32{1, 2, 3}, Leader: leader, LeaderEpoch: epoch, PartitionEpoch: epoch}))
	}
	follow(1, 2)
	f := p.Follower()
	n := f.Begin()
	if n.Step != Ask || n.Offset != 1 || n.LastEpoch != 0 {
		t.Fatalf("%+v", n)
	}
	b := records(t, batchSpec, "b")
	b.SetBaseOffset(1)
	b.SetLeaderEpoch(1)
	n, err := f.Take(Answer{HW: 1, Records: b})
	if err != nil || n.Step != Sync {
		t.Fatalf("%+v %v", n, err)
	}
	w.set.Sync([]*Follower{f})
	if n = f.Synced(); n.Step != Ask || n.Offset != 2 || n.LastEpoch != 1 {
		t.Fatalf("%+v", n)
	}
	follow(2, 3)
	b.SetBaseOffset(2)
	if n, err := f.Take(Answer{HW: 2, Records: b}); n.Step != Over || err != nil || p.LogEnd() != 2 {
		t.Fatalf("%+v %v, log end %d", n, err, p.LogEnd())
	}
	f = p.Follower()
	f.Begin()
	// What a broken leader may send: garbage, a wrong offset, a flipped bit, a later epoch. It is an error, and nothing of it is kept.
	for what, edit := range map[string]func([]byte) []byte{
		"garbage":     func([]byte) []byte { return make([]byte, 100) },
		"cut short":   func(b []byte) []byte { return b[:len(b)-1] },
		"flipped bit": func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"old offset":  func(b []byte) []byte { b[7] = 0; return b },
		"later epoch": func(b []byte) []byte { b[15] = 9; return b },
	} {
		x := append([]byte(nil), b...)
		n, err := f.Take(Answer{HW: 3, Records: edit(x)})
		if err == nil || n.Step != Later || p.LogEnd() != 2 {
			t.Errorf("%s: %+v %v, log end %d", what, n, err, p.LogEnd())
		}
	}
	w.apply(dropTopic("t", 1, 1)...)
	if n := f.Begin(); n.Step != Over {
		t.Errorf("deleted: %+v", n)
	}
}

// FuzzLeadersAnswer: whatever a leader sends, a follower keeps whole batches that continue its log, or says that something
// is wrong. It never panics, and never acknowledges what it does not have.
func FuzzLeadersAnswer(f *testing.F) {
	good := records(f, batchSpec, "a", "b")
	good.SetLeaderEpoch(1)
	f.Add([]byte(good), int64(2), int64(0), int16(0), int32(-1), int64(-1))
	f.Add(append(append([]byte{}, good...), good...), int64(1)<<62, int64(1)<<62, int16(0), int32(7), int64(3))
	f.Add([]byte{}, int64(-1), int64(-5), int16(1), int32(0), int64(0))
	f.Add([]byte{}, int64(-1), int64(9), int16(74), int32(0), int64(0))
	f.Add([]byte(good[:40]), int64(0), int64(0), int16(-7), int32(0), int64(0))
	f.Fuzz(func(t *testing.T, raw []byte, hw, start int64, code int16, divEpoch int32, divEnd int64) {
		w := newWorld(t, memfs.New(), 1)
		id := meta.UUID{0: 1, 15: 1}
		w.apply(meta.PutTopic("t", meta.TopicRecord{ID: id, Partitions: 1}), meta.PutPartition(id, 0, &meta.Partition{Replicas: []int32{1, 2}, ISR: []int32{1, 2}, Leader: 2, LeaderEpoch: 1}))
		w.start()
		w.set.Apply(w.im, nil)
		defer w.stop()
		p := w.get("t", 0)
		fo := p.Follower()
		n := fo.Begin()
		for _, a := range []Answer{
			{Code: code, HW: hw, LogStart: start, Records: raw, Diverging: divEnd >= 0, DivEpoch: divEpoch, DivEnd: divEnd},
			{HW: hw, LogStart: start, Records: raw},
			{Code: code, Known: true, LogStart: start, LogEnd: hw},
		} {
			n, _ = fo.Take(a)
			for n.Step == Sync {
				w.set.Sync([]*Follower{fo})
				n = fo.Synced()
			}
			if n.Step == Ask && n.Offset != p.LogEnd() {
				t.Fatalf("asks at %d, the log ends at %d", n.Offset, p.LogEnd())
			}
			if n.Step == Ask && n.Offset >= hw && p.log.Flushed() < n.Offset {
				t.Fatalf("acknowledges %d of %d on disk", n.Offset, p.log.Flushed())
			}
			if p.HW() > p.LogEnd() || p.HW() > p.log.Flushed() {
				t.Fatalf("high watermark %d, flushed %d, end %d", p.HW(), p.log.Flushed(), p.LogEnd())
			}
		}
	})
}
