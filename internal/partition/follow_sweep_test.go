package partition

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// followed is what a follower has told its leader that it has on its disk.
type followed struct {
	start, end int64 // everything in between is there for good
	values     map[int64]string
}

// has says that records up to end are acknowledged.
func (k *followed) has(n Next) {
	if n.Step == Ask {
		k.end = max(k.end, n.Offset)
	}
}

// followStory is a follower's life: it appends and acknowledges, loses its leader, cuts what the next one does not have, falls far
// behind, has to start again, and goes on. It stops where something fails.
func followStory(w *world, k *followed) (ended bool) {
	id := meta.UUID{0: 1, 15: 1}
	topic := []meta.Change{meta.PutTopic("t", meta.TopicRecord{ID: id, Partitions: 1}), topicConfig(w.t, "t", map[string]string{"internal.segment.bytes": "400"})}
	lead := func(leader, epoch int32) *Follower {
		w.apply(append(topic, meta.PutPartition(id, 0, &meta.Partition{Replicas: []int32{1, 2, 3}, ISR: []int32{1, 2, 3}, Leader: leader, LeaderEpoch: epoch, PartitionEpoch: epoch}))...)
		topic = nil
		p, err := w.set.Get("t", 0)
		if err != nil {
			return nil
		}
		return p.Follower()
	}
	var f *Follower
	take := func(a Answer) bool {
		n, err := f.Take(a)
		for n.Step == Sync {
			w.set.Sync([]*Follower{f})
			n = f.Synced()
		}
		if err != nil || n.Step != Ask {
			return false
		}
		if n.Offset >= a.HW { // below the leader's high watermark it acknowledges nothing
			k.has(n)
		}
		return true
	}
	add := func(from, to int64, epoch int32, hw int64) bool {
		for o := from; o < to; o++ {
			v := fmt.Sprintf("%d in %d", o, epoch)
			b := records(w.t, batchSpec, v)
			b.SetBaseOffset(o)
			b.SetLeaderEpoch(epoch)
			k.values[o] = v
			if !take(Answer{HW: max(hw, o), Records: b}) {
				return false
			}
		}
		return true
	}
	begin := func() bool {
		if f == nil {
			return false
		}
		n := f.Begin()
		for n.Step == Sync {
			w.set.Sync([]*Follower{f})
			n = f.Synced()
		}
		return n.Step == Ask
	}
	if f = lead(2, 1); !begin() || !add(0, 12, 1, 0) {
		return false
	}
	if f = lead(3, 4); !begin() {
		return false
	}
	k.end = 7
	if !take(Answer{Diverging: true, DivEpoch: 1, DivEnd: 7}) || !add(7, 10, 4, 0) || !add(10, 16, 4, 40) {
		return false
	}
	w.set.checkpoint()
	k.start, k.end = 60, 60 // from here on the old log may go
	if n, _ := f.Take(Answer{Code: kerr.OffsetOutOfRange.Code}); n.Step != Bound {
		return false
	}
	if !take(Answer{Code: kerr.OffsetOutOfRange.Code, Known: true, LogStart: 60, LogEnd: 70}) {
		return false
	}
	return add(60, 66, 4, 0)
}

// followSweep runs the story with the fault that is set, and looks at what a restart finds on the disk that is left.
func followSweep(t *testing.T, n int, what string, set func(f *errfs.FS, before, n int), left func(*memfs.FS) *memfs.FS) (hit bool) {
	disk := memfs.New()
	faults := errfs.New(disk)
	w := newWorld(t, faults, 1).start()
	w.set.Apply(w.im, nil)
	before := faults.Ops()
	set(faults, before, n)
	k := &followed{values: map[int64]string{}}
	ended := followStory(w, k)
	hit = faults.Ops()-before >= n
	if !hit && !ended {
		t.Fatalf("%s at %d: the story stopped without a fault", what, n)
	}
	rest := left(disk)
	faults.Clear()
	for _, d := range w.set.dirs {
		_ = d.d.Abandon()
	}
	w2 := newWorld(t, rest, 1)
	w2.im, w2.rev = w.im, w.rev
	w2.start()
	w2.set.Apply(w2.im, nil)
	defer func() { _ = w2.set.Close(1) }()
	p, err := w2.set.Get("t", 0)
	if err != nil {
		if k.end > 0 {
			t.Errorf("%s at %d: %v, %d is acknowledged", what, n, err, k.end)
		}
		return hit
	}
	if q := w2.set.dirs[0].d.Quarantined(); len(q) > 0 {
		t.Errorf("%s at %d: damaged: %v", what, n, q)
	}
	if p.LogEnd() < k.end && (k.start == 0 || p.LogStart() == 60) {
		t.Errorf("%s at %d: log [%d, %d], acknowledged up to %d", what, n, p.LogStart(), p.LogEnd(), k.end)
	}
	got := map[int64]string{}
	s, err := p.log.Read(p.LogStart(), 1<<20, p.LogEnd(), true)
	for at := p.LogStart(); err == nil && at < p.LogEnd(); s, err = p.log.Read(at, 1<<20, p.LogEnd(), true) {
		raw, err := s.Bytes(nil)
		s.Release()
		if err != nil {
			t.Fatal(err)
		}
		at = s.Next
		for len(raw) > 0 {
			var b batch.Batch
			if b, raw, err = batch.Next(raw); err != nil {
				t.Fatal(err)
			}
			_ = b.Each(batch.Limits{}, func(r batch.Record) error { got[r.Offset] = string(r.Value); return nil })
		}
		if at >= p.LogEnd() {
			break
		}
	}
	for o := k.start; o < k.end; o++ {
		if o >= p.LogStart() && got[o] != k.values[o] {
			t.Errorf("%s at %d: offset %d holds %q, acknowledged was %q", what, n, o, got[o], k.values[o])
		}
	}
	return hit
}

// TestFollowerAtEveryFault: a follower whose disk fails, or loses its power, at any operation has what it has acknowledged.
func TestFollowerAtEveryFault(t *testing.T) {
	whole := func(f *memfs.FS) *memfs.FS { return f }
	for n := 1; followSweep(t, n, "error", func(f *errfs.FS, _, n int) { f.Add(errfs.Rule{Ops: errfs.Any, From: n, Err: errfs.ErrInjected}) }, whole); n++ {
		if t.Failed() {
			return
		}
	}
	for _, keep := range []int{0, 50, 100} {
		r := det.NewRand(uint64(keep))
		for n := 1; followSweep(t, n, fmt.Sprintf("power cut, %d %% kept", keep), func(f *errfs.FS, before, n int) { f.PowerOffAt(before + n) }, func(f *memfs.FS) *memfs.FS { return f.Crash(keep, r) }); n++ {
			if t.Failed() {
				return
			}
		}
	}
}
