package partition

import (
	"fmt"
	"testing"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// TestEveryFileOperationFailsOnce lets the n-th file operation fail, for every n, while topics are created, written, deleted and
// checkpointed. Whatever was acknowledged is there after a restart on what the disk holds, no wait is lost, no file stays open.
func TestEveryFileOperationFailsOnce(t *testing.T) {
	for n := 1; ; n++ {
		if !sweepOnce(t, n) {
			if n < 40 {
				t.Errorf("the workload ended after %d operations: it no longer tests much", n)
			}
			return
		}
		if t.Failed() {
			t.Fatalf("at operation %d", n)
		}
	}
}

// sweepOnce runs the workload with operation n of it failing; false when it has fewer operations.
func sweepOnce(t *testing.T, n int) bool {
	disk := memfs.New()
	faults := errfs.New(disk)
	w := newWorld(t, faults, 1).start()
	w.set.Apply(w.im, nil)
	before := faults.Ops()
	faults.Add(errfs.Rule{Ops: errfs.Any, From: n, Err: errfs.ErrInjected})
	known := sweepLoad(w)
	hit := faults.Ops()-before >= n
	faults.Clear()
	for _, d := range w.set.dirs { // as a crash of the process would
		if err := d.d.Abandon(); err != nil {
			t.Error(err)
		}
	}
	if l := faults.Leaked(); len(l) > 0 {
		t.Errorf("files left open: %v", l)
	}
	w2 := newWorld(t, disk, 1)
	w2.im, w2.rev = w.im, w.rev
	w2.start()
	w2.set.Apply(w2.im, nil)
	got := map[acked]string{}
	for p := range int32(2) {
		h, err := w2.set.Get("t", p)
		if err != nil {
			t.Errorf("after the restart: %v", err)
			return hit
		}
		for i, v := range w2.values(h) {
			got[acked{p, h.LogStart() + int64(i)}] = v
		}
	}
	for k, v := range known {
		if got[k] != v {
			t.Errorf("partition %d offset %d: acknowledged %q, found %q", k.n, k.offset, v, got[k])
		}
	}
	_ = w2.set.Close(1)
	return hit
}

// sweepLoad is the workload; flush rounds run in line, so that operations come in the same order each time. It returns what was
// acknowledged and not deleted.
func sweepLoad(w *world) map[acked]string {
	var buf roundBuffers
	known := map[acked]string{}
	w.apply(append(newTopic("t", 1, 2), topicConfig(w.t, "t", map[string]string{"internal.segment.bytes": "400"}))...)
	w.apply(newTopic("gone", 2, 1)...)
	for i := range 12 {
		n := int32(i % 2)
		p, err := w.set.Get("t", n)
		if err != nil {
			continue // its log could not be created
		}
		val := fmt.Sprint("value ", i)
		a, err := p.Append(AppendRequest{Records: records(w.t, batch.Spec{LeaderEpoch: -1}, val), Acks: AcksAll, LeaderEpoch: -1, Version: 9, NowMs: w.clock.UnixMilli()})
		if err != nil {
			continue
		}
		wt := NewWaiter(1)
		p.Wait(wt, 0, AcksAll, a)
		p.dir.flusher.round(&buf)
		wt.Arm(0)
		<-wt.Ready()
		if wt.Err(0) == nil {
			known[acked{n, a.Base}] = val
		}
		switch i {
		case 4:
			w.set.checkpoint()
		case 6:
			w.apply(dropTopic("gone", 2, 1)...)
		case 8:
			if _, err := p.DeleteRecords(1, w.clock.UnixMilli()); err == nil {
				_ = w.set.SyncStarts()
			}
			delete(known, acked{n, 0}) // it is deleted, or may be
			w.set.Housekeep(w.clock.UnixMilli())
		}
	}
	return known
}
