package storage

import (
	"fmt"
	"strings"
	"testing"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// A process is killed at every operation, the next one goes on with what the page cache holds, and then the power fails: what the
// second one served must be there, although half of it was written and never synced by the first.
func TestKilledAtEveryOperationThenAPowerCutLosesNothing(t *testing.T) {
	total := storyOps(t)
	for n := 1; n <= total+1; n++ {
		for _, keep := range []int{0, 50} {
			m := memfs.New()
			e := errfs.New(m)
			e.PowerOffAt(n)
			s := newStory()
			_ = s.run(e)
			if s.d != nil {
				_ = s.d.Abandon()
			}
			if err := goOnAndCrash(m, keep, uint64(n)); err != nil {
				tr := e.Trace()
				t.Fatalf("killed at operation %d of %d, %d%% kept: %v\n%s", n, total, keep, err, strings.Join(tr[max(0, n-12):min(n, len(tr))], "\n"))
			}
		}
	}
}

// goOnAndCrash is the life of the second process and a look at what a power cut leaves of it.
func goOnAndCrash(m *memfs.FS, keep int, seed uint64) error {
	type state struct {
		start, end int64
		topic      meta.UUID
	}
	d, logs, err := tryOpen(m)
	if err != nil {
		return err
	}
	id, want := d.ID(), map[meta.TopicPartition]state{}
	for _, l := range logs {
		epoch, _, _ := l.LatestEpoch()
		if _, err := l.Append(makeBatch(1, "second life", 1, -1, -1), max(epoch, 0), 0); err != nil {
			return err
		}
		if err := l.Flush(); err != nil {
			return err
		}
		want[l.tp] = state{l.Start(), l.Flushed(), l.topic}
	}
	survivor := m.Crash(keep, det.NewRand(seed))
	_ = d.Abandon()
	d, logs, err = tryOpen(survivor)
	if err != nil {
		return err
	}
	defer func() { _ = d.Abandon() }()
	if q := d.Quarantined(); len(q) > 0 {
		return q[0].Err
	}
	if d.ID() != id {
		return fmt.Errorf("directory %s became %s", id, d.ID())
	}
	if len(logs) != len(want) {
		return fmt.Errorf("%d logs of %d", len(logs), len(want))
	}
	for _, l := range logs {
		w := want[l.tp]
		if l.topic != w.topic || l.Start() < w.start || l.End() < w.end {
			return fmt.Errorf("%s of %s is [%d, %d], was [%d, %d] of %s", l.tp, l.topic, l.Start(), l.End(), w.start, w.end, w.topic)
		}
		if _, err := readAll(l, l.End(), 700); err != nil {
			return fmt.Errorf("%s: %w", l.tp, err)
		}
	}
	return nil
}
