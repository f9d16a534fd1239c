package shard

import (
	"errors"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/batch"
)

// fakeLog is a Log in memory whose commits the test controls.
type fakeLog struct {
	mu      sync.Mutex
	batches [][]byte
	end, hw int64
	auto    bool // every append is committed at once
	fail    error
	lost    error
	waits   []wait
	loading chan struct{} // when not nil: Replay waits until it is closed
	loads   int
	refuse  error // of AppendMarker
	admit   func(producerID int64, epoch int16, guard any) error
}

type wait struct {
	end int64
	fn  func(error)
}

func (l *fakeLog) Append(b batch.Batch) (base, end int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := errors.Join(l.fail, l.lost); err != nil {
		return 0, 0, err
	}
	c := batch.Batch(append([]byte(nil), b...))
	c.SetBaseOffset(l.end)
	if err := c.VerifyCRC(); err != nil {
		return 0, 0, err
	}
	l.batches = append(l.batches, c)
	base, l.end = l.end, c.NextOffset()
	if l.auto {
		l.hw = l.end
	}
	return base, l.end, nil
}

func (l *fakeLog) OnCommitted(end int64, fn func(error)) {
	l.mu.Lock()
	if l.lost == nil && l.hw < end {
		l.waits = append(l.waits, wait{end, fn})
		l.mu.Unlock()
		return
	}
	err := l.lost
	l.mu.Unlock()
	fn(err)
}

func (l *fakeLog) Replay(fn func(batch.Batch) error) error {
	l.mu.Lock()
	l.loads++
	gate, all := l.loading, l.batches
	l.mu.Unlock()
	if gate != nil {
		<-gate
	}
	for _, b := range all {
		if err := fn(b); err != nil {
			return err
		}
	}
	return nil
}

func (l *fakeLog) Epoch() int32 { return 1 }

// commit raises the high watermark to the log end.
func (l *fakeLog) commit() { l.settle(nil) }

// lose ends the leadership.
func (l *fakeLog) lose() { l.settle(kerr.NotLeaderForPartition) }

func (l *fakeLog) settle(err error) {
	l.mu.Lock()
	l.lost = err
	if err == nil {
		l.hw = l.end
	}
	waits := l.waits
	l.waits = nil
	l.mu.Unlock()
	for _, w := range waits {
		w.fn(err)
	}
}

func (l *fakeLog) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *fakeLog) count() (batches int, records int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.batches), l.end
}

func (l *fakeLog) AppendMarker(b batch.Batch, _ int16) (base, end int64, err error) {
	l.mu.Lock()
	err = l.refuse
	l.mu.Unlock()
	if err != nil {
		return 0, 0, err
	}
	return l.Append(b)
}

func (l *nullLog) AppendMarker(b batch.Batch, _ int16) (base, end int64, err error) {
	return l.Append(b)
}

func (l *fakeLog) Admit(producerID int64, epoch int16, guard any) error {
	if l.admit == nil {
		return nil
	}
	return l.admit(producerID, epoch, guard)
}

func (l *nullLog) Admit(int64, int16, any) error { return nil }
