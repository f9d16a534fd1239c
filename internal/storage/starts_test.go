package storage

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// startsStory raises log starts in every way there is, and stops at the first error.
func startsStory(e *errfs.FS) (logs []*Log, d *Dir, err error) {
	if d, _, err = tryOpen(e); err != nil {
		return nil, nil, err
	}
	step := func(f func() error) {
		if err == nil {
			err = f()
		}
	}
	for p := range int32(3) {
		step(func() error {
			c := smallConfig()
			if p == 2 {
				c.RetentionBytes = 700
			}
			l, err := d.Create(tp("t", p), topicID(byte(p)), c, 0)
			if err == nil {
				logs = append(logs, l)
			}
			return err
		})
	}
	for i := range 14 {
		for p := range logs {
			step(func() error { _, err := logs[p].Append(makeBatch(1, fmt.Sprint(i), 1, -1, -1), 0, 1); return err })
		}
	}
	// The last log is not flushed: its start may be raised to what only the page cache holds (flush.messages above 1).
	for p := range logs[:min(len(logs), 2)] {
		step(logs[p].Flush)
	}
	step(func() error { return logs[0].RaiseStart(3, 0) })
	step(func() error { return logs[1].RaiseStart(5, 0) })
	step(d.CheckpointStarts)
	step(func() error { return logs[0].RaiseStart(6, 0) })
	step(d.Checkpoint)
	for p := range logs {
		step(func() error { logs[p].SetHW(logs[p].End()); return nil })
	}
	step(func() error { return logs[1].RaiseStart(11, 0) })
	step(func() error { return d.Housekeep(5, (*Log).HW) })
	step(func() error { return logs[2].RaiseStart(14, 0) })
	step(d.CheckpointStarts)
	return logs, d, err
}

// A log start that anybody has seen is still there after a kill or a power cut at any operation (I20): records that a client was told
// to be deleted never come back.
func TestLogStartIsDurableBeforeItIsSeen(t *testing.T) {
	e := errfs.New(memfs.New())
	logs, _, err := startsStory(e)
	if err != nil {
		t.Fatal(err)
	}
	if logs[0].Start() != 6 || logs[1].Start() != 11 || logs[2].Start() != 14 {
		t.Fatal(logs[0].Start(), logs[1].Start(), logs[2].Start())
	}
	total := e.Ops()
	for n := 1; n <= total+1; n++ {
		for _, keep := range []int{0, 50, 100} {
			m := memfs.New()
			e := errfs.New(m)
			e.PowerOffAt(n)
			logs, _, _ := startsStory(e)
			seen := map[meta.TopicPartition]int64{}
			for _, l := range logs {
				seen[l.tp] = l.Start()
			}
			fail := func(err error) {
				t.Helper()
				tr := e.Trace()
				t.Fatalf("cut at %d of %d, %d%% kept: %v\n%s", n, total, keep, err, strings.Join(tr[max(0, n-8):min(n, len(tr))], "\n"))
			}
			d, back, err := tryOpen(m.Crash(keep, det.NewRand(uint64(n))))
			if err != nil {
				fail(err)
			}
			if q := d.Quarantined(); len(q) > 0 {
				fail(q[0].Err)
			}
			for _, l := range back {
				if l.Start() < seen[l.tp] || l.End() < l.Start() {
					fail(fmt.Errorf("%s: [%d, %d], start was seen at %d", l.tp, l.Start(), l.End(), seen[l.tp]))
				}
				delete(seen, l.tp)
			}
			for tp, o := range seen {
				if o > 0 {
					fail(fmt.Errorf("%s is gone, its start was seen at %d", tp, o))
				}
			}
			_ = d.Abandon()
		}
	}
}

func TestLogStartThatIsNotDurableIsNotShown(t *testing.T) {
	mem := memfs.New()
	e := errfs.New(mem)
	d, _ := openTest(t, e)
	l, err := d.Create(tp("a", 0), topicID(1), smallConfig(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 10 {
		mustAppend(t, l, 1, fmt.Sprint(n), 1)
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	ops := e.Ops()
	if err := d.CheckpointStarts(); err != nil || e.Ops() != ops {
		t.Fatalf("%v, %d operations although no start was raised", err, e.Ops()-ops)
	}
	var during int64
	e.Add(errfs.Rule{Ops: errfs.SyncDir, Suffix: testDir, Do: func() { during = l.Start() }})
	if err := l.RaiseStart(4, 0); err != nil || l.Start() != 0 {
		t.Fatal(err, l.Start())
	}
	if err := errors.Join(l.RaiseStart(2, 0), d.CheckpointStarts()); err != nil || during != 0 || l.Start() != 4 {
		t.Fatalf("%v, start %d before the folder was synced, %d after", err, during, l.Start())
	}
	// Cut below a start that is not durable yet, the log keeps the one it had.
	if err := errors.Join(l.RaiseStart(9, 0), l.Truncate(6), d.CheckpointStarts()); err != nil || l.Start() != 4 || l.End() != 6 {
		t.Fatalf("%v [%d, %d]", err, l.Start(), l.End())
	}
	// Deleted, it owes nothing to those that wait.
	if err := errors.Join(l.RaiseStart(5, 0), d.Delete(l, 1)); err != nil || d.startsDue.Load() != 0 {
		t.Fatal(err, d.startsDue.Load())
	}
}
