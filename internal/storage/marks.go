package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync/atomic"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs"
)

// markBytes: a log's recovery point moves once this much is new. Less than that is cheaper to read again after a
// crash than to index and checkpoint every few seconds; 1,000 such logs are 256 MiB.
const markBytes = 256 << 10

// pending is one log's part in a checkpoint.
type pending struct {
	l    *Log
	end  int64
	snap int64
	old  int64 // snapshot file that becomes superfluous, -1 none
	sync []string
}

// Checkpoint writes recovery points, log starts and high watermarks, each file only when something in it changed. Call
// it every few seconds: recovery re-reads only what lies past the recovery points.
func (d *Dir) Checkpoint() error { return d.checkpoint(false) }

// checkpoint with all moves every recovery point to its log's end, whatever it costs.
func (d *Dir) checkpoint(all bool) error { return d.checkpointAs(all, false) }

// checkpointAs with stop spares the files that recovery can do without.
func (d *Dir) checkpointAs(all, stop bool) error {
	if err := d.Offline(); err != nil {
		return err
	}
	d.markMu.Lock()
	defer d.markMu.Unlock()
	// Look at the free space now and then even when little is written; that the reserve is reached, and that there is room
	// again, is told when nobody tries to write, too.
	d.full.Store(true)
	_ = d.Writable(0)
	if err := d.raiseStarts(); err != nil {
		return err
	}
	var ps []pending
	var ls []light
	var full error
	for _, l := range d.all() {
		if stop {
			if x, ok := l.lightMark(); ok {
				ls = append(ls, x)
				continue
			}
		}
		p, ok, err := l.prepareMark(all)
		if err != nil {
			if !errors.Is(err, ErrReserve) {
				return err
			}
			full = err // this log keeps its mark; those prepared before it must still be synced
		}
		if ok {
			ps = append(ps, p)
		}
	}
	if err := d.finishMarks(ps, ls); err != nil {
		return err
	}
	if full != nil {
		return full
	}
	if d.hwDirty.Swap(false) {
		return d.writeOffsets(fileHW, func(l *Log) (int64, bool) { return l.hw.Load(), true })
	}
	return nil
}

// light is one log's part in the checkpoint of a clean stop that needs no file of its own.
type light struct {
	l   *Log
	end int64 // the recovery point; the one it has when it may not move
}

// lightMark tells whether a log can be stopped without a file being written for it: what recovery needs beside the batches is on disk
// as of some 100 KiB ago, and it makes the rest again from their headers. Ten thousand logs that were all written to would otherwise
// take a clean stop thirty thousand new files.
func (l *Log) lightMark() (light, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := l.end.Load()
	if l.mu.closed != nil || (l.mu.newborn && end == 0) {
		return light{l, l.mu.mark}, true
	}
	if l.mu.sinceMark >= markBytes || l.mu.rolled {
		return light{}, false
	}
	for _, s := range l.mu.segs {
		// Entries that may not be on disk must not come to lie below the recovery point, where they are believed.
		if s.index.dirty || s.times.dirty || s.txnDirty {
			return light{}, false
		}
	}
	if l.mu.epochsDirty && (l.mu.epochsFile || !l.derivableLocked()) {
		// The list cannot be made again below the recovery point. Where that is, it stays: the batches after it are read
		// again, as after a crash, and a list that only differs in what they say is corrected by them.
		return light{l, l.mu.mark}, true
	}
	return light{l, end}, true
}

// derivableLocked tells whether the headers of the batches say everything about the leader epochs: nothing was ever deleted or
// compacted away, and the newest epoch has a record.
func (l *Log) derivableLocked() bool {
	last, _ := l.mu.epochs.latest()
	return len(l.mu.segs) == 1 && l.mu.segs[0].base == 0 && last.start < l.end.Load()
}

// finishMarks makes durable what was prepared, then the recovery points that rely on it. Called with markMu.
func (d *Dir) finishMarks(ps []pending, ls []light) error {
	if len(ps) > 0 {
		if err := d.syncPending(ps); err != nil {
			return err
		}
	}
	moved := len(ps) > 0
	var dirty []*Log
	for _, x := range ls {
		if x.l.Dirty() {
			dirty = append(dirty, x.l)
		}
	}
	if len(dirty) > 0 {
		if err := liveErrors(d.SyncMany(dirty, nil)); err != nil {
			return err
		}
	}
	for _, x := range ls {
		x.l.mu.Lock()
		moved = moved || x.l.mu.mark != x.end
		x.l.mu.mark = x.end
		x.l.mu.Unlock()
	}
	if !moved {
		return nil
	}
	for _, p := range ps {
		p.l.mu.Lock()
		p.l.mu.mark, p.l.mu.sinceMark = p.end, 0
		p.l.mu.snap = p.snap
		p.l.mu.Unlock()
	}
	if err := d.writeMarks(); err != nil {
		return err
	}
	for _, p := range ps {
		if p.old >= 0 && p.old != p.snap {
			// Left behind it would only be an older starting point.
			_ = d.fs.Remove(filepath.Join(p.l.path(), segName(p.old, extSnapshot)))
		}
	}
	return nil
}

func (l *Log) path() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.path
}

// prepareMark writes, without syncing, what recovery needs at the present log end: index entries, epoch list, producers.
func (l *Log) prepareMark(all bool) (pending, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := l.end.Load()
	due := l.mu.sinceMark >= markBytes || l.mu.rolled || all
	if l.mu.closed != nil || !due || (end == l.mu.mark && !l.mu.epochsDirty && !l.mu.newborn) {
		return pending{}, false, nil
	}
	if l.mu.newborn && end == 0 {
		// Nothing was ever written: who asked for the log makes it again if a crash takes it. Ten thousand
		// empty partitions would otherwise cost a clean stop as many syncs.
		return pending{}, false, nil
	}
	p := pending{l: l, end: end, old: l.mu.snap, snap: end}
	op := "checkpoint " + l.tp.String()
	for i := len(l.mu.segs) - 1; i >= 0; i-- {
		s := l.mu.segs[i]
		s.addTimeIf(s.size > 0)
		if err := l.writeIndexesLocked(s); err != nil {
			return p, false, l.dir.fail(op, err)
		}
		if s.index.dirty {
			p.sync = append(p.sync, l.segPath(s.base, extIndex))
		}
		if s.times.dirty {
			p.sync = append(p.sync, l.segPath(s.base, extTime))
		}
		if s.txn == 1 && s.txnDirty {
			p.sync = append(p.sync, l.segPath(s.base, extTxn))
		}
		if s.base <= l.mu.mark {
			break
		}
		if snap := l.segPath(s.base, extSnapshot); s.base < end {
			p.sync = append(p.sync, snap)
		}
	}
	first := l.mu.epochsDirty && !l.mu.epochsFile
	if first {
		// The first list of a log replaces nothing, so it needs no sync of its own: until the recovery point moves, which waits
		// for the sync of this checkpoint, a torn one only means that the log is read again.
		if err := writeFile(l.dir.fs, l.epochsPath(), l.mu.epochs.encode(), false); err != nil {
			return p, false, l.dir.fail(op, err)
		}
		p.sync = append(p.sync, l.epochsPath())
		l.mu.epochsDirty, l.mu.epochsFile = false, true
	}
	if err := l.writeEpochsLocked(); err != nil {
		return p, false, l.dir.fail(op, err)
	}
	snap := l.segPath(end, extSnapshot)
	if err := writeFile(l.dir.fs, snap, l.mu.producers.Snapshot(nil), false); err != nil {
		l.mu.epochsDirty = l.mu.epochsDirty || first // written above, and nobody syncs it now
		return p, false, l.dir.fail(op, err)
	}
	p.sync = append(p.sync, snap)
	for _, s := range l.mu.segs {
		// Cleared only now, when the caller will sync them: after a full disk stopped us halfway they are still due.
		s.index.dirty, s.times.dirty, s.txnDirty = false, false, false
		if s.base == end {
			p.snap = -1 // belongs to that segment and stays with it
		}
	}
	l.mu.dirDirty, l.mu.rolled = true, false
	return p, true, nil
}

// addTimeIf adds the last time entry of a segment that has batches.
func (s *segment) addTimeIf(ok bool) {
	if ok {
		s.addTime()
	}
}

// syncPending makes the prepared files and the logs themselves durable.
func (d *Dir) syncPending(ps []pending) error {
	logs := make([]*Log, len(ps))
	for i, p := range ps {
		logs[i] = p.l
	}
	errs := make([]error, len(ps))
	if d.syncFSAbove >= 0 && len(ps) > d.syncFSAbove && d.volume != nil && !d.noSyncFS.Load() {
		d.syncVolume(logs, errs)
		if !d.noSyncFS.Load() {
			return liveErrors(errs)
		}
	}
	for i, p := range ps {
		for _, name := range p.sync {
			f, err := d.fs.OpenFile(name, vfs.ReadWrite, filePerm)
			if err == nil {
				err = errors.Join(f.Sync(), f.Close())
			}
			if errors.Is(err, fs.ErrNotExist) {
				continue // a segment that did not begin with a roll has no snapshot
			}
			if err != nil {
				if p.l.gone() {
					break
				}
				return d.goOffline("sync "+name, err)
			}
		}
		errs[i] = p.l.Flush()
	}
	return liveErrors(errs)
}

func (l *Log) gone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.closed != nil
}

// liveErrors leaves out logs that were deleted meanwhile.
func liveErrors(errs []error) error {
	for _, err := range errs {
		if err != nil && !errors.Is(err, ErrClosed) {
			return err
		}
	}
	return nil
}

// writeMarks writes the recovery points. Called with markMu.
func (d *Dir) writeMarks() error {
	return d.writeOffsets(fileRecovery, func(l *Log) (int64, bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.mu.mark, true
	})
}

func (d *Dir) writeOffsets(name string, of func(*Log) (int64, bool)) error {
	logs := d.all()
	type line struct {
		tp meta.TopicPartition
		o  int64
	}
	lines := make([]line, 0, len(logs))
	for _, l := range logs {
		if o, ok := of(l); ok {
			lines = append(lines, line{l.tp, o})
		}
	}
	for tp, o := range d.kept[name] {
		lines = append(lines, line{tp, o})
	}
	raw := encodeOffsets(len(lines), func(yield func(meta.TopicPartition, int64)) {
		for _, x := range lines {
			yield(x.tp, x.o)
		}
	})
	err := writeAtomic(d.fs, filepath.Join(d.path, name), raw)
	if err != nil {
		dirtyAgain(name, &d.hwDirty, &d.startsDirty)
	}
	return d.fail("write "+name, err)
}

func dirtyAgain(name string, hw, starts *atomic.Bool) {
	switch name {
	case fileHW:
		hw.Store(true)
	case fileLogStart:
		starts.Store(true)
	}
}

// Close makes everything durable, writes the checkpoints and the clean-shutdown mark with the broker's epoch, and gives up the lock.
func (d *Dir) Close(brokerEpoch int64) error {
	err := d.checkpointAs(true, true)
	if err == nil {
		text := fmt.Sprintf(`{"version":0,"brokerEpoch":%d}`, brokerEpoch)
		err = d.fail("write clean mark", writeAtomic(d.fs, filepath.Join(d.path, fileClean), []byte(text)))
	}
	return errors.Join(err, d.Abandon())
}

// Abandon closes all files and gives up the lock without making anything durable: the next start recovers as after a crash.
func (d *Dir) Abandon() error {
	d.mu.Lock()
	if d.mu.closed {
		d.mu.Unlock()
		return nil
	}
	d.mu.closed = true
	d.mu.Unlock()
	for _, l := range d.all() {
		l.mu.Lock()
		if l.mu.closed == nil {
			l.mu.closed = fmt.Errorf("%s: %w", l.tp, ErrClosed)
		}
		d.closeFilesLocked(l)
		l.mu.Unlock()
	}
	return d.release()
}
