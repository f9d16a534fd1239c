package storage

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/producer"
	"github.com/milena-mq/milena/internal/vfs"
)

// writebackBytes: the kernel is asked to start writing each time this much is new, so that a sync never meets a full cache.
const writebackBytes = 4 << 20

// marksKept is how many recent batch boundaries a log remembers: readers of the tail and the high
// watermark nearly always ask for one of them, and then no file is read to find a position.
const marksKept = 32

// Log is one partition's log. It is safe for concurrent use.
type Log struct {
	dir   *Dir
	tp    meta.TopicPartition
	topic meta.UUID

	start, end, flushed, hw atomic.Int64
	// want is the log start that was asked for and is not durable yet, 0 none; written under mu.
	want atomic.Int64
	// cut is the lowest offset from which on the log is another one than the cleaner knows, MaxInt64 none: it was truncated, or
	// made in this process under a name that an older log had.
	cut atomic.Int64

	// syncMu admits one sync at a time. Two syncs of one file at once are wrong, not only wasteful: the
	// kernel reports a failed write-back to one of them, and the other would acknowledge lost data.
	syncMu sync.Mutex

	mu struct {
		sync.Mutex
		path      string
		cfg       LogConfig
		segs      []*segment // by base; the last one is active; never empty
		marks     []mark     // recent batch starts in the active segment, oldest first
		hints     [2]hint    // where the last slices ended
		hint      int
		producers producer.Table
		epochs    epochs
		size      int64
		closed    error

		epochsFile  bool  // there is a file of the list
		epochsDirty bool  // the list in memory is newer than the file
		dirDirty    bool  // names in the folder are not synced
		newborn     bool  // the folder itself is not synced
		mark        int64 // recovery point in the checkpoint on disk
		sinceMark   int64 // bytes appended since then
		rolled      bool  // a segment was closed since then
		recovered   bool  // bytes past the recovery point were kept at load and are to be synced
		snap        int64 // offset of a snapshot file that is no segment base, -1 none
	}
}

type mark struct{ off, pos int64 }

type hint struct {
	base     int64
	off, pos int64
}

// TopicPartition names the partition; TopicID is zero for a folder older than topic ids.
func (l *Log) TopicPartition() meta.TopicPartition { return l.tp }

// TopicID is the id in partition.metadata.
func (l *Log) TopicID() meta.UUID { return l.topic }

// Dir is the log directory that holds the log.
func (l *Log) Dir() *Dir { return l.dir }

// Config is the configuration in force.
func (l *Log) Config() LogConfig {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.cfg
}

// SetConfig changes the configuration; it counts from the next append or housekeeping.
func (l *Log) SetConfig(c LogConfig) {
	l.mu.Lock()
	l.mu.cfg = c
	l.mu.Unlock()
}

// Start is the log start offset, the first that may be read. It is durable and never falls, whatever crash comes.
func (l *Log) Start() int64 { return l.start.Load() }

// End is the offset of the next record.
func (l *Log) End() int64 { return l.end.Load() }

// Flushed: every record below it is on disk.
func (l *Log) Flushed() int64 { return l.flushed.Load() }

// HW is the high watermark that was last set, clamped to [Start, End].
func (l *Log) HW() int64 { return l.hw.Load() }

// SetHW remembers the high watermark for the checkpoint and tells the producers' table.
func (l *Log) SetHW(hw int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	hw = min(max(hw, l.start.Load()), l.end.Load())
	if l.hw.Swap(hw) != hw {
		l.mu.producers.Replicated(hw)
		l.dir.hwDirty.Store(true)
	}
}

// Size is the bytes of all segments.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.size
}

// SegmentInfo describes one segment.
type SegmentInfo struct {
	Base, Size int64
	Active     bool
}

// Segments lists the segments, oldest first.
func (l *Log) Segments() []SegmentInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]SegmentInfo, len(l.mu.segs))
	for i, s := range l.mu.segs {
		out[i] = SegmentInfo{Base: s.base, Size: s.size, Active: i == len(l.mu.segs)-1}
	}
	return out
}

// Producers runs fn on the producers' table under the log's lock.
func (l *Log) Producers(fn func(*producer.Table)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn(&l.mu.producers)
}

func (l *Log) activeLocked() *segment { return l.mu.segs[len(l.mu.segs)-1] }

// usableLocked says why the log takes no writes.
func (l *Log) usableLocked() error {
	if l.mu.closed != nil {
		return l.mu.closed
	}
	return l.dir.Offline()
}

// fail sorts a failed write: a full disk refuses the operation and may be tried again, everything
// else takes the directory offline for ever, because what is on disk is then unknown.
func (d *Dir) fail(op string, err error) error {
	if err == nil || errors.Is(err, ErrOffline) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrReserve) {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		d.full.Store(true)
		d.tellReserve(true, 0)
		return fmt.Errorf("%s: %w: %w", op, ErrReserve, err)
	}
	return d.goOffline(op, err)
}

// Append writes a batch at the log end: it patches base offset and leader epoch in place (both lie outside the
// checksum), and updates producers, indexes and the epoch list. It returns the offset of the first
// record. The record is not durable before Flush. now is in milliseconds.
func (l *Log) Append(b batch.Batch, leaderEpoch int32, now int64) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	base := l.end.Load()
	if last, _ := l.mu.epochs.latest(); leaderEpoch < last.epoch {
		return 0, fmt.Errorf("append to %s: %w: epoch %d after %d", l.tp, ErrOrder, leaderEpoch, last.epoch)
	}
	b.SetBaseOffset(base)
	b.SetLeaderEpoch(leaderEpoch)
	if err := l.appendLocked(b, b, now); err != nil {
		return 0, err
	}
	return base, nil
}

// AppendFollower writes batches as the leader gave them, keeping offsets and epochs (kafka.md 3.8). Batches of
// an epoch above maxEpoch and everything after them are ignored: they come from a leader this replica does not follow yet.
// Batches before one that is refused are in the log. They are written together: a replica that catches up on small batches would
// otherwise spend its time on thousands of writes.
func (l *Log) AppendFollower(b []byte, maxEpoch int32, now int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, refused := l.soundLocked(b, maxEpoch)
	if err := l.appendRunLocked(b[:n], now); err != nil {
		return err
	}
	return refused
}

// soundLocked is the length of the batches that follow the log, and what is wrong with the next one; nil when nothing is: a fetch answer
// may end inside a batch. An empty log may get another base for the first of them.
func (l *Log) soundLocked(b []byte, maxEpoch int32) (n int, refused error) {
	last, _ := l.mu.epochs.latest()
	end, epoch := l.end.Load(), last.epoch
	for n < len(b) {
		first, rest, err := batch.Next(b[n:])
		if errors.Is(err, batch.ErrShort) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if first.LeaderEpoch() > maxEpoch {
			return n, nil
		}
		if err := first.VerifyCRC(); err != nil {
			return n, fmt.Errorf("append to %s: %w", l.tp, err)
		}
		if first.LastOffsetDelta() < 0 || first.BaseOffset() > math.MaxInt64-math.MaxInt32 {
			return n, fmt.Errorf("append to %s: %w: offsets %d +%d", l.tp, ErrOrder, first.BaseOffset(), first.LastOffsetDelta())
		}
		switch base := first.BaseOffset(); {
		case base < end && n == 0 && l.mu.size == 0 && first.LastOffset() >= end:
			// An empty log whose start lies inside the batch begins with that batch: the leader serves whole batches.
			if err := errors.Join(l.usableLocked(), l.rebaseLocked(base)); err != nil {
				return n, err
			}
		case base < end:
			return n, fmt.Errorf("append to %s: %w: offset %d, log end %d", l.tp, ErrOrder, base, end)
		case first.LeaderEpoch() < epoch:
			return n, fmt.Errorf("append to %s: %w: epoch %d after %d", l.tp, ErrOrder, first.LeaderEpoch(), epoch)
		}
		end, epoch = first.NextOffset(), max(epoch, first.LeaderEpoch())
		n = len(b) - len(rest)
	}
	return n, nil
}

// appendRunLocked appends batches that have been found sound, as many with one write as their segment takes.
func (l *Log) appendRunLocked(raw []byte, now int64) error {
	for len(raw) > 0 {
		h, rest, err := batch.Next(raw)
		if err != nil {
			return err
		}
		size := int64(len(raw) - len(rest))
		s, err := l.readyLocked(h, size, now)
		if err != nil {
			return err
		}
		run := raw[:l.fitLocked(s, raw)]
		at := s.size
		if err := l.writeLocked(s, run); err != nil {
			return err
		}
		for {
			if err := l.accountLocked(s, h, at, size); err != nil {
				return err
			}
			at += size
			raw = rest
			if run = run[size:]; len(run) == 0 {
				break
			}
			if h, rest, err = batch.Next(raw); err != nil {
				return err
			}
			if size = int64(len(raw) - len(rest)); l.shouldRollLocked(h, size, now) {
				s.torn = true // its bytes are there, and are cut off by the roll
				break
			}
		}
	}
	return nil
}

// fitLocked is the length of the batches, one at least, that the segment takes before it is full.
func (l *Log) fitLocked(s *segment, raw []byte) int {
	n, room := 0, int64(l.mu.cfg.SegmentBytes)-s.size
	for rest := raw; len(rest) > 0; {
		h, after, err := batch.Next(rest)
		end := len(raw) - len(after)
		if err != nil || n > 0 && (int64(end) > room || h.LastOffset()-s.base > math.MaxInt32) {
			break
		}
		n, rest = end, after
	}
	return n
}

// appendLocked writes raw, one whole batch whose header h is complete.
func (l *Log) appendLocked(raw []byte, h batch.Batch, now int64) error {
	size := int64(len(raw))
	s, err := l.readyLocked(h, size, now)
	if err != nil {
		return err
	}
	pos := s.size
	if err := l.writeLocked(s, raw); err != nil {
		return err
	}
	return l.accountLocked(s, h, pos, size)
}

// readyLocked is the segment, with its file open, that takes the next batch.
func (l *Log) readyLocked(h batch.Batch, size, now int64) (*segment, error) {
	if err := l.usableLocked(); err != nil {
		return nil, err
	}
	if l.shouldRollLocked(h, size, now) {
		if err := l.rollLocked(l.end.Load(), now); err != nil {
			return nil, err
		}
	}
	s := l.activeLocked()
	if s.lazy || s.f == nil {
		return s, l.openActiveLocked(s)
	}
	return s, nil
}

// writeLocked puts bytes at the end of the segment. They count once accountLocked has said so.
func (l *Log) writeLocked(s *segment, raw []byte) error {
	n, err := s.f.WriteAt(raw, s.size)
	if err == nil && n < len(raw) {
		err = fmt.Errorf("wrote %d of %d bytes", n, len(raw))
	}
	if err != nil {
		// s.size is unchanged: on a full disk the torn bytes are overwritten by the next append or cut off by
		// the roll, and after a crash their checksum fails, or they are whole batches that a leader really sent.
		s.torn = true
		return l.dir.fail("append to "+l.tp.String(), err)
	}
	l.dir.written.Add(int64(len(raw)))
	return nil
}

// accountLocked makes a batch that has been written part of the log.
func (l *Log) accountLocked(s *segment, h batch.Batch, pos, size int64) error {
	s.size += size
	l.mu.size += size
	l.mu.sinceMark += size
	s.dirty = true
	s.note(pos, size, h.LastOffset(), h.MaxTimestamp(), int64(l.mu.cfg.IndexIntervalBytes))
	l.remember(mark{h.BaseOffset(), pos})
	l.end.Store(h.NextOffset())
	if e, changed := l.mu.epochs.assign(h.LeaderEpoch(), h.BaseOffset()); changed {
		l.mu.epochs, l.mu.epochsDirty = e, true
	}
	if s.size-s.written >= writebackBytes {
		s.f.StartWriteback(s.written, s.size-s.written)
		s.written = s.size
	}
	// The batch is in the log from here on, whatever fails below.
	if h.HasProducer() {
		if txn, done := l.mu.producers.Update(h); done && txn.Aborted {
			if err := l.addAbortedLocked(s, txn); err != nil {
				return l.dir.goOffline("append to "+l.tp.String(), err)
			}
		}
	}
	if len(s.index.tail) >= indexTail || len(s.times.tail) >= indexTail {
		if err := l.writeIndexesLocked(s); err != nil {
			// The tail stays in memory; a full disk is met again by the next append, other errors are final.
			if err = l.dir.fail("write index of "+l.tp.String(), err); !errors.Is(err, ErrReserve) {
				return err
			}
		}
	}
	return nil
}

// remember keeps the start of a batch of the active segment.
func (l *Log) remember(m mark) {
	if len(l.mu.marks) == marksKept {
		copy(l.mu.marks, l.mu.marks[marksKept/2:])
		l.mu.marks = l.mu.marks[:marksKept/2]
	}
	l.mu.marks = append(l.mu.marks, m)
}

// openActiveLocked opens, and where it is due creates, the file of the active segment.
func (l *Log) openActiveLocked(s *segment) error {
	flag := vfs.ReadWrite
	if s.lazy {
		flag |= vfs.Create | vfs.Trunc // whatever has this name lies past the log end: a roll that was refused
	}
	f, err := l.dir.fs.OpenFile(l.segPath(s.base, extLog), flag, filePerm)
	if err != nil {
		return l.dir.fail("open segment of "+l.tp.String(), err)
	}
	if s.lazy {
		s.lazy = false
		s.dirty = true
		l.mu.dirDirty = true
	}
	s.f = newFile(f)
	if l.mu.cfg.Preallocate && s.size == 0 {
		if err := f.Preallocate(int64(l.mu.cfg.SegmentBytes)); err != nil {
			return l.dir.fail("preallocate segment of "+l.tp.String(), err)
		}
	}
	return nil
}

// shouldRollLocked is kafka.md 3.5.
func (l *Log) shouldRollLocked(h batch.Batch, size, now int64) bool {
	s, c := l.activeLocked(), &l.mu.cfg
	if s.size == 0 {
		return h.LastOffset()-s.base > math.MaxInt32 // a gap on a follower of a compacted log
	}
	if s.size > int64(c.SegmentBytes)-size || h.LastOffset()-s.base > math.MaxInt32 {
		return true
	}
	if s.index.len() >= c.SegmentIndexBytes/offsetEntry || s.times.len() >= c.SegmentIndexBytes/timeEntry-1 {
		return true
	}
	limit := c.SegmentMs
	if c.Compact {
		limit = min(limit, c.MaxCompactionLagMs)
	}
	if c.SegmentJitterMs > 0 {
		limit -= int64(spread(uint64(s.base)^uint64(l.tp.Partition)<<40) % uint64(c.SegmentJitterMs))
	}
	if s.firstTs >= 0 && h.MaxTimestamp() >= 0 {
		return h.MaxTimestamp()-s.firstTs > limit
	}
	return now-s.created > limit
}

// spread turns a number into one that looks random, so that segments of partitions created together roll apart.
func spread(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

// rollLocked closes the active segment and begins a new one at base. The old one's bytes are synced by the
// next flush; nothing in memory changes before every file operation has succeeded, so that on a full disk it can be tried again.
func (l *Log) rollLocked(base, now int64) error {
	s := l.activeLocked()
	s.addTime()
	op := "roll " + l.tp.String()
	if err := l.writeIndexesLocked(s); err != nil {
		return l.dir.fail(op, err)
	}
	if err := writeFile(l.dir.fs, l.segPath(base, extSnapshot), l.mu.producers.Snapshot(nil), false); err != nil {
		return l.dir.fail(op, err)
	}
	if (l.mu.cfg.Preallocate || s.torn) && s.f != nil {
		// Gives the reserved blocks back, and takes away what a full disk left of a batch: at the end of a closed
		// segment recovery would take it for the end of the log, and drop the segments after it.
		if err := s.f.Truncate(s.size); err != nil {
			return l.dir.fail(op, err)
		}
		s.dirty, s.torn = s.dirty || s.torn, false // the cut is synced before anything in the next segment is acknowledged
	}
	n := newSegment(base, now)
	n.lazy, n.known, n.checked = true, true, true
	if err := l.openActiveLocked(n); err != nil {
		return err
	}
	s.known, s.checked = true, true
	l.mu.segs = append(l.mu.segs, n)
	l.mu.rolled = true
	if s.f != nil {
		l.dir.sealedOpen.Add(1)
		s.counted = true
	}
	l.mu.marks = l.mu.marks[:0]
	if l.mu.snap == base {
		l.mu.snap = -1
	}
	return nil
}

// AssignEpoch notes that a leader epoch begins at an offset, durably, even when it never writes a record (KIP-101).
// In a log that has never held a record the entry waits for the first flush: losing it with the empty log loses nothing.
func (l *Log) AssignEpoch(epoch int32, start int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return err
	}
	old, dirty := l.mu.epochs, l.mu.epochsDirty
	e, changed := slices.Clone(old).assign(epoch, start)
	if !changed {
		return nil
	}
	l.mu.epochs, l.mu.epochsDirty = e, true
	if l.mu.newborn {
		return nil
	}
	if err := l.writeEpochsLocked(); err != nil {
		l.mu.epochs, l.mu.epochsDirty = old, dirty // a full disk: tried again, it must not count as done
		return l.dir.fail("write leader epochs of "+l.tp.String(), err)
	}
	return nil
}

func (l *Log) writeEpochsLocked() error {
	if !l.mu.epochsDirty {
		return nil
	}
	if err := writeAtomic(l.dir.fs, filepath.Join(l.mu.path, fileEpochs), l.mu.epochs.encode()); err != nil {
		return err
	}
	l.mu.epochsDirty, l.mu.epochsFile = false, true
	return nil
}

// EpochEnd answers OffsetForLeaderEpoch: the largest known epoch not above the one asked and its end offset; -1, -1 when unknown.
func (l *Log) EpochEnd(epoch int32) (found int32, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.epochs.endOf(epoch, l.end.Load())
}

// LatestEpoch is the newest leader epoch known and where it began; -1 and false when there is none.
func (l *Log) LatestEpoch() (epoch int32, start int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.mu.epochs.latest()
	return e.epoch, e.start, ok
}

// EpochAt is the leader epoch of the record at an offset, -1 when unknown.
func (l *Log) EpochAt(offset int64) int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.epochs.at(offset)
}
