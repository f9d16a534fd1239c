package storage

import (
	"fmt"
	"strings"
	"testing"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/vfs"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// lives is a log that is stopped cleanly after a few records, several times; each life knows what the one before must have left.
type lives struct {
	*story
	l      *Log
	epochs epochs // as they must be once the log has reached an offset
}

// life opens, checks, writes n batches in an epoch and stops cleanly.
func (s *lives) life(fsys vfs.FS, epoch int32, n int, before func() error) error {
	d, logs, err := tryOpen(fsys)
	s.d = d
	if err != nil {
		return err
	}
	if len(logs) == 0 {
		if s.l, err = s.create(0, 1); err != nil {
			return err
		}
	} else {
		s.l = logs[0]
		if err := s.check(s.l); err != nil {
			return err
		}
	}
	c := smallConfig()
	c.SegmentBytes = 2000
	s.l.SetConfig(c)
	s.epochs, _ = s.epochs.assign(epoch, s.l.End())
	for range n {
		if err := s.append(s.l, epoch, true); err != nil {
			return err
		}
	}
	if err := s.flush(s.l); err != nil {
		return err
	}
	s.l.SetHW(s.l.End())
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	return s.d.Close(1)
}

// check compares epochs and producers.
func (s *lives) check(l *Log) error {
	e := s.logs[l.tp]
	if l.End() < e.acked {
		return fmt.Errorf("[%d, %d], acknowledged %d", l.Start(), l.End(), e.acked)
	}
	want, _ := s.epochs.truncateEnd(l.End() + 1)
	if got := fmt.Sprint(l.mu.epochs); got != fmt.Sprint(want) && l.End() >= e.acked {
		if shorter, _ := s.epochs.truncateEnd(l.End()); got != fmt.Sprint(shorter) {
			return fmt.Errorf("epochs %s, want %v, log end %d", got, want, l.End())
		}
	}
	return nil
}

func (s *lives) run(fsys vfs.FS) (err error) {
	for i, f := range []func() error{
		func() error { return s.life(fsys, 1, 3, nil) },
		func() error { return s.life(fsys, 2, 2, nil) },
		func() error { return s.life(fsys, 4, 3, func() error { return s.d.Checkpoint() }) },
		func() error { return s.life(fsys, 5, 8, nil) }, // rolls
		func() error { return s.life(fsys, 7, 2, func() error { return s.d.checkpoint(true) }) },
		func() error { return s.life(fsys, 7, 2, nil) },
	} {
		if err = f(); err != nil {
			return fmt.Errorf("life %d: %w", i+1, err)
		}
	}
	return nil
}

// What a clean stop leaves out can be made again, in the next life and after a power cut at any operation of any life.
func TestLightStopsLoseNothing(t *testing.T) {
	e := errfs.New(memfs.New())
	s := &lives{story: newStory()}
	if err := s.run(e); err != nil {
		t.Fatal(err)
	}
	var snapshots int
	for _, op := range e.Trace()[:len(e.Trace())/3] {
		snapshots += b2i(strings.HasPrefix(op, "write") && strings.HasSuffix(op, extSnapshot))
	}
	if snapshots > 0 {
		t.Fatalf("%d snapshots, although the log was small", snapshots)
	}
	for n := 1; n <= e.Ops()+1; n++ {
		for _, keep := range []int{0, 50, 100} {
			m := memfs.New()
			e := errfs.New(m)
			e.PowerOffAt(n)
			s := &lives{story: newStory()}
			_ = s.run(e)
			// A look at the epochs first: check goes on to append.
			survivor := m.Crash(keep, det.NewRand(uint64(n)))
			d, logs, err := tryOpen(survivor)
			if err == nil && len(logs) > 0 && s.logs[logs[0].tp].acked > 0 {
				err = s.check(logs[0])
			}
			_ = d.Abandon()
			if err == nil {
				err = s.story.check(survivor, false)
			}
			if err != nil {
				tr := e.Trace()
				t.Fatalf("cut at %d, %d%% kept: %v\n%s", n, keep, err, strings.Join(tr[max(0, n-12):min(n, len(tr))], "\n"))
			}
		}
	}
}
