package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/vfs"
)

// Truncate removes everything from offset to on, durably: a batch that holds to is removed whole, and End is then its
// first offset. At End only leader epochs that begin there, without a record, are taken away; above, nothing. Below Start it is TruncateFully(to). Only the replication machine may call it.
func (l *Log) Truncate(to int64) error {
	l.dir.markMu.Lock()
	defer l.dir.markMu.Unlock()
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return err
	}
	if to >= l.end.Load() {
		return l.dropEmptyEpochsLocked(to)
	}
	if to < l.want.Load() {
		l.dropWantLocked() // only an unclean election cuts below a start that the high watermark had passed
	}
	if to < l.start.Load() {
		return l.dir.fail("truncate "+l.tp.String(), l.truncateFullyLocked(to))
	}
	return l.dir.fail("truncate "+l.tp.String(), l.truncateLocked(to))
}

// dropEmptyEpochsLocked forgets, durably, the epochs that begin at or after to, which is at or past the log end: none of them wrote a
// record. A replica that led such an epoch and follows now would otherwise name it as its latest for ever; a leader that has never
// heard of it answers each time that the logs part at the log end, nothing is cut there, and the replica never fetches again.
func (l *Log) dropEmptyEpochsLocked(to int64) error {
	e, changed := l.mu.epochs.truncateEnd(max(to, l.end.Load()))
	if !changed {
		return nil
	}
	old, dirty := l.mu.epochs, l.mu.epochsDirty
	l.mu.epochs, l.mu.epochsDirty = e, true
	if err := l.writeEpochsLocked(); err != nil {
		l.mu.epochs, l.mu.epochsDirty = old, dirty // a full disk: tried again, it must still find something to do
		return l.dir.fail("truncate "+l.tp.String(), err)
	}
	return nil
}

func (l *Log) truncateLocked(to int64) error {
	i := len(l.mu.segs) - 1
	for i > 0 && l.mu.segs[i].base > to {
		i--
	}
	s := l.mu.segs[i]
	f, err := l.fileLocked(s)
	if err != nil {
		return err
	}
	defer func() { _ = f.release() }()
	pos, first, _, err := l.locateLocked(i, f, to)
	if err != nil {
		return err
	}
	to = min(to, first)
	// The recovery point on disk comes down first: a point above the log's end would look like lost data.
	if err := l.lowerMarkLocked(to); err != nil {
		return err
	}
	if err := l.cutAtLocked(i, f, to, pos); err != nil {
		// Files and memory may disagree from here on, even if it was only a full disk.
		return l.dir.goOffline("truncate "+l.tp.String(), err)
	}
	return nil
}

// cutAtLocked cuts segment i at position pos, which is where offset to begins, and takes everything after it away.
func (l *Log) cutAtLocked(i int, f *file, to, pos int64) error {
	s := l.mu.segs[i]
	// Newest first, each made durable before the next: a crash in between must not leave a hole.
	if err := l.dropLocked(i + 1); err != nil {
		return err
	}
	if err := f.Truncate(pos); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	l.mu.size -= s.size - pos
	s.size = pos
	n, err := l.loadTailLocked(s, f, to, pos)
	if err != nil {
		return err
	}
	l.closeFile(s)
	n.f = f.retain()
	l.mu.segs[i] = n
	l.end.Store(to)
	l.cut.Store(min(l.cut.Load(), to))
	l.flushed.Store(min(l.flushed.Load(), to))
	l.hw.Store(min(l.hw.Load(), to))
	l.dir.hwDirty.Store(true)
	l.mu.marks, l.mu.hints = nil, [2]hint{}
	if e, changed := l.mu.epochs.truncateEnd(to); changed {
		l.mu.epochs, l.mu.epochsDirty = e, true
	}
	if err := l.writeEpochsLocked(); err != nil {
		return err
	}
	return l.loadProducersLocked(to, to)
}

// lowerMarkLocked brings the durable recovery point down to at most to.
func (l *Log) lowerMarkLocked(to int64) error {
	if l.mu.mark <= to {
		return nil
	}
	l.mu.mark = to
	l.mu.Unlock() // writeMarks reads every log's mark; syncMu and markMu keep this one from changing
	err := l.dir.writeMarks()
	l.mu.Lock()
	return err
}

// dropLocked removes the segments from index i on, newest first.
func (l *Log) dropLocked(i int) error {
	for j := len(l.mu.segs) - 1; j >= i; j-- {
		s := l.mu.segs[j]
		l.closeFile(s)
		if err := l.removeFiles(s.base); err != nil {
			return err
		}
		l.mu.size -= s.size
		l.mu.segs = l.mu.segs[:j]
	}
	return nil
}

// removeFiles unlinks the files of a segment, the log first, and syncs the folder.
func (l *Log) removeFiles(base int64) error {
	for _, ext := range []string{extLog, extIndex, extTime, extTxn, extSnapshot} {
		if err := l.dir.fs.Remove(l.segPath(base, ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return l.dir.fs.SyncDir(l.mu.path)
}

// TruncateFully drops all records and starts again, empty, at offset start.
func (l *Log) TruncateFully(start int64) error {
	l.dir.markMu.Lock()
	defer l.dir.markMu.Unlock()
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return err
	}
	return l.dir.fail("truncate "+l.tp.String(), l.truncateFullyLocked(start))
}

func (l *Log) truncateFullyLocked(start int64) error {
	// Recovery point 0 beside a log start past the end says "being dropped"; any other pair like that is damage.
	if err := l.lowerMarkLocked(0); err != nil {
		return err
	}
	// The new log start is durable before anything is removed: a log whose end is below its start is dropped at the
	// next start, so a crash in the middle ends in the same state.
	l.dropWantLocked()
	l.start.Store(start)
	l.mu.Unlock()
	err := l.dir.writeStarts()
	l.mu.Lock()
	if err != nil {
		return err
	}
	l.mu.epochs, l.mu.epochsDirty = nil, true
	l.mu.producers.Reset()
	if err := errors.Join(l.restartLocked(start), l.writeEpochsLocked()); err != nil {
		return l.dir.goOffline("truncate "+l.tp.String(), err)
	}
	l.flushed.Store(start)
	l.hw.Store(start)
	l.dir.hwDirty.Store(true)
	return nil
}

// rebaseLocked lets an empty log begin at base, below its log start (see followsLocked).
func (l *Log) rebaseLocked(base int64) error {
	if err := l.restartLocked(base); err != nil {
		return l.dir.goOffline("restart "+l.tp.String(), err)
	}
	return nil
}

// restartLocked removes every segment and begins a new one at base.
func (l *Log) restartLocked(base int64) error {
	created := l.activeLocked().created
	if err := l.dropLocked(0); err != nil {
		return err
	}
	if err := l.dropSnapshotsLocked(0); err != nil {
		return err
	}
	s := newSegment(base, created)
	s.lazy, s.known, s.checked = true, true, true
	l.mu.segs = append(l.mu.segs[:0], s)
	l.mu.marks, l.mu.hints, l.mu.size = nil, [2]hint{}, 0
	l.mu.snap = -1
	l.end.Store(base)
	l.cut.Store(0)
	if err := l.openActiveLocked(s); err != nil {
		return err
	}
	return l.dir.fs.SyncDir(l.mu.path)
}

// dropSnapshotsLocked removes producer snapshots above an offset.
func (l *Log) dropSnapshotsLocked(above int64) error {
	_, err := l.keepSnapshotsLocked(above)
	return err
}

// keepSnapshotsLocked does the same and lists those that stay, oldest first.
func (l *Log) keepSnapshotsLocked(above int64) ([]int64, error) {
	snaps, err := l.snapshots()
	if err != nil {
		return nil, err
	}
	var kept []int64
	for _, o := range snaps {
		if o <= above {
			kept = append(kept, o)
		} else {
			if err := l.dir.fs.Remove(l.segPath(o, extSnapshot)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	return kept, nil
}

// snapshots lists the offsets of the snapshot files, oldest first.
func (l *Log) snapshots() ([]int64, error) {
	list, err := l.dir.fs.ReadDir(l.mu.path)
	if err != nil {
		return nil, err
	}
	var out []int64
	for _, e := range list {
		if o, ext, ok := parseSegName(e.Name()); ok && ext == extSnapshot {
			out = append(out, o)
		}
	}
	return out, nil
}

// loadProducersLocked builds the producers' table as of offset end: the newest good snapshot not above trusted, then the batches
// after it. Snapshots above trusted are removed: nothing says that they belong to the bytes that are there now.
func (l *Log) loadProducersLocked(trusted, end int64) error {
	snaps, err := l.keepSnapshotsLocked(trusted)
	if err != nil {
		return err
	}
	l.mu.snap, l.mu.sinceMark = -1, 0
	from := int64(-1)
	for i := len(snaps) - 1; i >= 0 && from < 0; i-- {
		raw, err := vfs.ReadFile(l.dir.fs, l.segPath(snaps[i], extSnapshot), 1<<30)
		if err != nil {
			return err
		}
		if l.mu.producers.Load(raw) == nil {
			from = snaps[i]
			if !l.isBaseLocked(from) {
				l.mu.snap = from
			}
			break
		}
		if err := l.dir.fs.Remove(l.segPath(snaps[i], extSnapshot)); err != nil {
			return err
		}
	}
	if base := l.mu.segs[0].base; from < base {
		// Also when there is a snapshot, but older than the first record that is left: what a producer wrote between the two
		// is gone, and one that goes on where it stopped would be refused for ever. A producer not known may go on anywhere.
		l.mu.producers.Reset()
		from = base
	}
	if from < end {
		if err := l.replayLocked(from, end); err != nil {
			return err
		}
	}
	l.mu.producers.Replicated(l.hw.Load())
	return nil
}

func (l *Log) isBaseLocked(o int64) bool {
	for _, s := range l.mu.segs {
		if s.base == o {
			return true
		}
	}
	return false
}

// replayLocked feeds the batches in [from, end) to the producers' table. It reads headers; only markers are read whole.
func (l *Log) replayLocked(from, end int64) error {
	for i, s := range l.mu.segs {
		if s.size == 0 || l.segmentEndLocked(i) <= from || s.base >= end {
			continue
		}
		f, err := l.fileLocked(s)
		if err != nil {
			return err
		}
		err = l.replaySegmentLocked(i, f, max(from, s.base), end)
		if err = errors.Join(err, f.release()); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) replaySegmentLocked(i int, f *file, from, end int64) error {
	s := l.mu.segs[i]
	pos, _, _, err := l.locateLocked(i, f, from)
	if err != nil {
		return err
	}
	w := newWalker(f, pos, s.size)
	defer w.close()
	// No snapshot has these bytes. When they are many, the next checkpoint or clean stop makes one.
	defer func() { l.mu.sinceMark += w.pos - pos }()
	var buf []byte
	for {
		h, n, err := w.header()
		if errors.Is(err, io.EOF) || (err == nil && h.BaseOffset() >= end) {
			return nil
		}
		if err == nil && h.IsControl() {
			buf, err = w.full(n, buf)
			h = batch.Batch(buf)
		}
		if err != nil {
			if isData(err) {
				return corrupt("segment %d, position %d: %w", s.base, w.pos, err)
			}
			return err
		}
		if h.HasProducer() {
			l.mu.producers.Update(h)
		}
		w.pos += n
	}
}

// loadTailLocked makes a segment from its files as of offset upTo, whose position is pos when known (-1: found here). Index
// entries at or past upTo are cut off; what the indexes do not cover is read again, headers only.
func (l *Log) loadTailLocked(old *segment, f io.ReaderAt, upTo, pos int64) (*segment, error) {
	n := newSegment(old.base, old.created)
	n.known, n.checked = true, true
	n.size = old.size
	iname, tname := l.segPath(n.base, extIndex), l.segPath(n.base, extTime)
	in, _, ib, whole, err := readIndex(l.dir.fs, iname, offsetEntry, func(a, b int64) bool { return n.base+a < upTo && b < old.size })
	if err != nil {
		return nil, err
	}
	tn, ta, tb, twhole, err := readIndex(l.dir.fs, tname, timeEntry, func(a, b int64) bool { return a >= 0 && n.base+b < upTo })
	if err != nil {
		return nil, err
	}
	start := int64(0)
	if whole && twhole && in > 0 {
		n.index.n, n.times.n = in, tn
		start = ib
		if tn > 0 {
			n.maxTs, n.maxTsOff, n.times.last = ta, n.base+tb, ta
		}
	}
	end, err := l.walkTail(n, f, start, upTo)
	if err != nil && start > 0 && isData(err) {
		// The index pointed somewhere impossible: start over from the beginning of the segment.
		n.index, n.times = sparse{width: offsetEntry}, sparse{width: timeEntry, last: -1}
		n.maxTs, n.maxTsOff, n.sinceIndex, start = -1, n.base, 0, 0
		end, err = l.walkTail(n, f, 0, upTo)
	}
	if err != nil {
		return nil, err
	}
	if pos >= 0 && end != pos {
		return nil, corrupt("segment %d: offset %d is at position %d, not %d", n.base, upTo, end, pos)
	}
	n.size, n.written = end, end
	if start > 0 {
		if err := firstTimestamp(n, f); err != nil {
			return nil, err
		}
	}
	return n, l.cutIndexes(n, upTo)
}

// walkTail notes the batches from position at to offset upTo and answers the position of upTo.
func (l *Log) walkTail(n *segment, f io.ReaderAt, at, upTo int64) (int64, error) {
	w := newWalker(f, at, n.size)
	defer w.close()
	for next := n.base; ; {
		if next >= upTo {
			return w.pos, nil // what follows is not trusted and may be no batch at all
		}
		h, size, err := w.header()
		if errors.Is(err, io.EOF) || (err == nil && h.BaseOffset() >= upTo) {
			return w.pos, nil
		}
		if err == nil && h.BaseOffset() < next {
			err = fmt.Errorf("batch at position %d has offset %d where %d is next", w.pos, h.BaseOffset(), next)
		}
		if err == nil && h.NextOffset() > upTo {
			err = fmt.Errorf("offset %d lies inside the batch at position %d", upTo, w.pos)
		}
		if err != nil {
			return w.pos, err
		}
		n.note(w.pos, size, h.LastOffset(), h.MaxTimestamp(), int64(l.mu.cfg.IndexIntervalBytes))
		next = h.NextOffset()
		w.pos += size
	}
}

func firstTimestamp(n *segment, f io.ReaderAt) error {
	w := newWalker(f, 0, n.size)
	defer w.close()
	h, _, err := w.header()
	if err == nil {
		n.firstTs = h.MaxTimestamp()
	}
	return err
}

// cutIndexes cuts the index files to the entries that count, so that nothing stale can follow new ones.
func (l *Log) cutIndexes(n *segment, upTo int64) error {
	for _, x := range []struct {
		name string
		s    *sparse
	}{{l.segPath(n.base, extIndex), &n.index}, {l.segPath(n.base, extTime), &n.times}} {
		st, err := l.dir.fs.Stat(x.name)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && st.Size() == int64(x.s.n)*int64(x.s.width)) {
			continue
		}
		if err != nil {
			return err
		}
		f, err := l.dir.fs.OpenFile(x.name, vfs.ReadWrite, filePerm)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Truncate(int64(x.s.n)*int64(x.s.width)), f.Close()); err != nil {
			return err
		}
		x.s.dirty = true
	}
	// A .txnindex entry past the cut names a marker that is gone.
	return l.cutTxnIndex(n, upTo)
}

func (l *Log) cutTxnIndex(n *segment, upTo int64) error {
	name := l.segPath(n.base, extTxn)
	list, err := readAborted(l.dir.fs, name)
	if err != nil {
		return err
	}
	st, err := l.dir.fs.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		n.txn = -1
		return nil
	}
	if err != nil {
		return err
	}
	keep := 0
	for keep < len(list) && list[keep].LastOffset < upTo {
		keep++
	}
	n.txn = 1
	if st.Size() == int64(keep*txnEntry) {
		return nil
	}
	f, err := l.dir.fs.OpenFile(name, vfs.ReadWrite, filePerm)
	if err != nil {
		return err
	}
	n.txnDirty = true
	return errors.Join(f.Truncate(int64(keep*txnEntry)), f.Close())
}
