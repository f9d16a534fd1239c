package storage

import (
	"errors"
	"fmt"
)

// RaiseStart asks for the log start to be moved up to offset (DeleteRecords, retention, a follower told by its leader); lower is a no-op.
// ErrOutOfRange above the log end. Start answers the new one when it is durable: after CheckpointStarts, Checkpoint or Housekeep,
// which write the starts of all logs at once. Whole segments below it go at the next Housekeep.
func (l *Log) RaiseStart(offset, _ int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return err
	}
	return l.askStartLocked(offset)
}

func (l *Log) askStartLocked(offset int64) error {
	if offset > l.end.Load() {
		return fmt.Errorf("raise start of %s to %d: %w, log end is %d", l.tp, offset, ErrOutOfRange, l.end.Load())
	}
	was := l.want.Load()
	if offset <= max(l.start.Load(), was) {
		return nil
	}
	l.want.Store(offset)
	if was == 0 {
		l.dir.startsDue.Add(1)
	}
	l.dir.startsDirty.Store(true) // after want: who finds it set must find the offset too
	return nil
}

// StartAsked is the log start as it will be when what was asked for is durable.
func (l *Log) StartAsked() int64 { return max(l.start.Load(), l.want.Load()) }

// dropWantLocked forgets a start that was asked for: the log was deleted, or cut below it.
func (l *Log) dropWantLocked() {
	if l.want.Swap(0) != 0 {
		l.dir.startsDue.Add(-1)
	}
}

// showStartLocked lets readers see a log start that is durable now.
func (l *Log) showStartLocked(offset int64) {
	// Visible before it counts as no longer due: CheckpointStarts returns at once when none is.
	defer func() {
		if l.want.Load() <= offset {
			l.dropWantLocked()
		}
	}()
	if offset <= l.start.Load() {
		return
	}
	l.start.Store(offset)
	if l.hw.Load() < offset {
		l.hw.Store(offset)
		l.dir.hwDirty.Store(true)
	}
	if e, changed := l.mu.epochs.truncateStart(offset); changed {
		l.mu.epochs, l.mu.epochsDirty = e, true
	}
}

// CheckpointStarts makes the log starts durable that RaiseStart has asked for, then visible. DeleteRecords is acknowledged after it. One
// file is written for all logs; without a start to be raised it costs one atomic read.
func (d *Dir) CheckpointStarts() error {
	if d.startsDue.Load() == 0 {
		return d.Offline()
	}
	d.markMu.Lock()
	defer d.markMu.Unlock()
	return d.raiseStarts()
}

// raise is a log start on its way to the disk.
type raise struct {
	l  *Log
	to int64
}

// raiseStarts writes the starts that were asked for, and shows them afterwards. The other order lets a client see a log start that a
// crash takes back (I20). Called with markMu, and with no syncMu: it may have to flush.
func (d *Dir) raiseStarts() error {
	if !d.startsDirty.Swap(false) {
		return d.Offline()
	}
	var due []raise
	for _, l := range d.all() {
		to := l.want.Load()
		if to == 0 {
			continue
		}
		// With flush.messages above 1 records below the new start may not be on disk. A log start above what a power cut leaves of
		// the log would look like damage.
		if to > l.Flushed() {
			if err := l.Flush(); err != nil && !errors.Is(err, ErrClosed) {
				d.startsDirty.Store(true)
				return err
			}
		}
		due = append(due, raise{l, to})
	}
	if err := d.writeStarts(due...); err != nil {
		return err
	}
	for _, r := range due {
		r.l.mu.Lock()
		r.l.showStartLocked(r.to)
		r.l.mu.Unlock()
	}
	return nil
}

// writeStarts writes the log starts above 0, those of due as they will be. A start at the first segment's base keeps its line: the
// renames that took the segments before it away may not be on disk, and after a power cut only the line says that they are gone.
func (d *Dir) writeStarts(due ...raise) error {
	to := make(map[*Log]int64, len(due))
	for _, r := range due {
		to[r.l] = r.to
	}
	return d.writeOffsets(fileLogStart, func(l *Log) (int64, bool) {
		s := max(l.start.Load(), to[l])
		return s, s > 0
	})
}
