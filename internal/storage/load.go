package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
)

// Load opens every log of the directory and recovers what a crash left: nothing past a log's recovery point is
// trusted, it is read again and cut at the first bad batch, and what is kept is synced before Load returns. Logs that
// are damaged below their recovery point are not served: see Quarantined. run may load several at once; now is in
// milliseconds; cfg is asked for each log's configuration and may be called from several goroutines.
func (d *Dir) Load(run Runner, now int64, cfg func(meta.TopicPartition, meta.UUID) LogConfig) ([]*Log, error) {
	d.markMu.Lock()
	defer d.markMu.Unlock()
	// The mark of a clean shutdown holds for one start only: the first write makes it a lie.
	if err := d.fs.Remove(filepath.Join(d.path, fileClean)); err == nil {
		err = d.fs.SyncDir(d.path)
		if err != nil {
			return nil, d.goOffline("remove clean mark", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, d.goOffline("remove clean mark", err)
	}
	cp, err := d.readCheckpoints()
	if err != nil {
		return nil, d.goOffline("read checkpoints", err)
	}
	list, err := d.fs.ReadDir(d.path)
	if err != nil {
		return nil, d.goOffline("list", err)
	}
	var found []folder
	for _, e := range list {
		if !e.IsDir() {
			if strings.HasSuffix(e.Name(), extTemp) {
				_ = d.fs.Remove(filepath.Join(d.path, e.Name())) // half of a checkpoint; the whole one stands
			}
			continue
		}
		if strings.HasSuffix(e.Name(), dirDelete) {
			d.mu.trash = append(d.mu.trash, trash{filepath.Join(d.path, e.Name()), now, true})
			continue
		}
		if tp, ok := parseDirName(e.Name()); ok {
			found = append(found, folder{tp: tp, name: e.Name()})
		} else if tp, ok := parseFutureName(e.Name()); ok {
			found = append(found, folder{tp: tp, name: e.Name(), future: true})
		}
	}
	if found, err = d.dropTwins(found); err != nil {
		return nil, d.goOffline("remove future logs", err)
	}
	logs, errs := make([]*Log, len(found)), make([]error, len(found))
	run.run(len(found), func(i int) { logs[i], errs[i] = d.loadLog(found[i], now, cp, cfg) })
	if err := d.dropBadFutures(found, logs, errs); err != nil {
		return nil, d.goOffline("remove future logs", err)
	}
	return d.admit(found, logs, errs, cp, run)
}

// folder is one log's folder as Load finds it.
type folder struct {
	tp     meta.TopicPartition
	name   string
	future bool
}

// dropTwins removes future logs of partitions that have a log, or another future log, in this directory: the lines of the checkpoints
// would speak of both. None is ever made; somebody copied folders about.
func (d *Dir) dropTwins(found []folder) ([]folder, error) {
	n := map[meta.TopicPartition]int{}
	for _, f := range found {
		n[f.tp]++
	}
	removed := false
	kept := found[:0]
	for _, f := range found {
		if f.future && n[f.tp] > 1 {
			if err := d.fs.RemoveAll(filepath.Join(d.path, f.name)); err != nil {
				return nil, err
			}
			removed = true
			continue
		}
		kept = append(kept, f)
	}
	if removed {
		return kept, d.fs.SyncDir(d.path)
	}
	return kept, nil
}

// dropBadFutures removes future logs that are damaged: the log they copy is whole, and the copy is made again.
func (d *Dir) dropBadFutures(found []folder, logs []*Log, errs []error) error {
	for i, f := range found {
		if !f.future || !errors.Is(errs[i], ErrCorrupt) {
			continue
		}
		logs[i], errs[i] = nil, nil
		if err := errors.Join(d.fs.RemoveAll(filepath.Join(d.path, f.name)), d.fs.SyncDir(d.path)); err != nil {
			return err
		}
	}
	return nil
}

// checkpoints is what the directory's offset files said.
type checkpoints struct{ recovery, start, hw map[meta.TopicPartition]int64 }

// readCheckpoints reads the three offset files. An unreadable recovery file costs time (everything is read again), an unreadable
// high watermark file nothing that matters; without the log starts deleted records could come back, so that one is an error.
func (d *Dir) readCheckpoints() (cp checkpoints, err error) {
	if cp.start, err = readOffsets(d.fs, filepath.Join(d.path, fileLogStart)); err != nil {
		return cp, err
	}
	if cp.recovery, err = readOffsets(d.fs, filepath.Join(d.path, fileRecovery)); err != nil && !isData(err) {
		return cp, err
	}
	if cp.hw, err = readOffsets(d.fs, filepath.Join(d.path, fileHW)); err != nil && !isData(err) {
		return cp, err
	}
	return cp, nil
}

// admit takes the loaded logs into the directory and makes what was kept durable.
func (d *Dir) admit(found []folder, logs []*Log, errs []error, cp checkpoints, run Runner) ([]*Log, error) {
	var out, futures []*Log
	d.kept = map[string]map[meta.TopicPartition]int64{}
	d.mu.Lock()
	for i, l := range logs {
		err := errs[i]
		switch {
		case errors.Is(err, ErrCorrupt):
			tp := found[i].tp
			q := Quarantined{tp, filepath.Join(d.path, found[i].name), err}
			d.mu.quarantined = append(d.mu.quarantined, q)
			for name, m := range map[string]map[meta.TopicPartition]int64{fileRecovery: cp.recovery, fileLogStart: cp.start, fileHW: cp.hw} {
				if o, ok := m[tp]; ok {
					if d.kept[name] == nil {
						d.kept[name] = map[meta.TopicPartition]int64{}
					}
					d.kept[name][tp] = o
				}
			}
		case err != nil:
			d.mu.Unlock()
			return nil, d.goOffline("load "+found[i].tp.String(), err)
		case l == nil:
		case found[i].future:
			d.mu.futures[l.tp] = l
			futures = append(futures, l)
		default:
			d.mu.logs[l.tp] = l
			out = append(out, l)
		}
	}
	all := append(slices.Clone(out), futures...)
	// A line without a log belongs to one that was deleted just before a crash. Its name may be used again.
	for _, m := range []map[meta.TopicPartition]int64{cp.recovery, cp.start} {
		for tp := range m {
			if d.mu.logs[tp] == nil && d.mu.futures[tp] == nil {
				d.mu.ghosts[tp] = true // also of a quarantined log, whose name Create refuses anyway
			}
		}
	}
	d.mu.Unlock()
	var unsynced []*Log
	for _, l := range all {
		if l.mu.recovered {
			unsynced = append(unsynced, l)
		}
	}
	for i, err := range d.SyncMany(unsynced, run) {
		if err != nil {
			return nil, fmt.Errorf("sync recovered %s: %w", unsynced[i].tp, err)
		}
	}
	for _, l := range all {
		l.mu.Lock()
		l.flushed.Store(l.end.Load())
		l.mu.Unlock()
	}
	return out, nil
}

// loadLog opens one log; nil and no error for a folder that holds nothing.
func (d *Dir) loadLog(at folder, now int64, cp checkpoints, cfg func(meta.TopicPartition, meta.UUID) LogConfig) (*Log, error) {
	tp, path := at.tp, filepath.Join(d.path, at.name)
	topic, known, err := readPartitionMetadata(d.fs, filepath.Join(path, filePartition))
	if err != nil {
		return nil, err
	}
	if at.future && !known {
		// Begun just before a crash; without the topic's id nobody can tell what it is a copy of. It is made again.
		return nil, errors.Join(d.fs.RemoveAll(path), d.fs.SyncDir(d.path))
	}
	mark, marked := cp.recovery[tp]
	if !known && (!marked || mark == 0) {
		if empty, err := d.noRecords(path); err != nil || empty {
			if err != nil {
				return nil, err
			}
			// Partition.metadata is synced before the first record is: a folder without it was never acknowledged.
			return nil, errors.Join(d.fs.RemoveAll(path), d.fs.SyncDir(d.path))
		}
	}
	l := newLog(d, tp, topic, path, cfg(tp, topic))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.mark = mark
	l.start.Store(cp.start[tp])
	l.hw.Store(cp.hw[tp])
	if l.mu.epochs, err = readEpochs(d.fs, l.epochsPath()); errors.Is(err, errCheckpoint) {
		// The list can be made again from the batches, by reading all of them.
		l.mu.epochs, l.mu.epochsDirty, l.mu.mark, err = nil, true, 0, nil
	}
	l.mu.epochsFile = l.mu.epochs != nil || l.mu.epochsDirty
	if err == nil {
		err = l.recoverLocked(now)
	}
	if err != nil {
		d.closeFilesLocked(l)
		return nil, fmt.Errorf("load %s: %w", tp, err)
	}
	return l, nil
}

// noRecords tells whether the folder's segments hold no byte.
func (d *Dir) noRecords(path string) (bool, error) {
	list, err := d.fs.ReadDir(path)
	if err != nil {
		return false, err
	}
	for _, e := range list {
		if _, ext, ok := parseSegName(e.Name()); ok && strings.HasPrefix(ext, extLog) {
			st, err := e.Info()
			if err != nil {
				return false, err
			}
			if st.Size() > 0 {
				return false, nil
			}
		}
	}
	return true, nil
}

// recoverLocked builds the log from its folder.
func (l *Log) recoverLocked(now int64) error {
	if err := l.tidyLocked(); err != nil {
		return err
	}
	if err := l.listLocked(now); err != nil {
		return err
	}
	start := l.start.Load()
	if err := l.dropRootlessLocked(start); err != nil {
		return err
	}
	if len(l.mu.segs) == 0 {
		if l.mu.mark > start {
			return corrupt("no segment, but records up to %d were durable", l.mu.mark)
		}
		return l.beginEmptyLocked(start, now)
	}
	// Without a recovery point nothing says that this log was ever synced: a kill before its first flush leaves records in
	// the page cache and a folder that a power cut takes away with all that is acknowledged from now on.
	l.mu.newborn = l.mu.mark == 0
	// Nor that its names are on disk: an empty segment made by a roll may wait for its first record since before a kill.
	l.mu.dirDirty = true
	first := l.mu.segs[0].base
	start = max(start, first)
	l.start.Store(start)
	if err := l.rereadLocked(now); err != nil {
		return err
	}
	end := l.end.Load()
	if end < start {
		// A full truncation was cut short: the log start is written before anything is removed.
		if l.mu.mark > 0 {
			return corrupt("log start %d lies past the log end %d", start, end)
		}
		l.mu.epochs, l.mu.epochsDirty = nil, true
		if err := l.restartLocked(start); err != nil {
			return err
		}
		l.mu.recovered = true
		return l.writeEpochsLocked()
	}
	if end < l.mu.mark {
		return corrupt("log ends at %d, but records up to %d were durable", end, l.mu.mark)
	}
	l.hw.Store(min(max(l.hw.Load(), start), end))
	if e, changed := l.mu.epochs.truncateStart(start); changed {
		l.mu.epochs, l.mu.epochsDirty = e, true
	}
	return l.settleEpochsLocked()
}

// settleEpochsLocked writes the epoch list when the file names epochs that the log no longer has. Entries that the file lacks
// can wait for the next checkpoint, since they came from batches that the next recovery would read again: a thousand logs
// would otherwise pay for a thousand syncs before the first is served.
func (l *Log) settleEpochsLocked() error {
	if !l.mu.epochsDirty {
		return nil
	}
	old, err := readEpochs(l.dir.fs, l.epochsPath())
	if err != nil && !errors.Is(err, errCheckpoint) {
		return err
	}
	for _, e := range old {
		if !slices.Contains(l.mu.epochs, e) {
			return l.exceptFull(l.writeEpochsLocked())
		}
	}
	return nil
}

// dropRootlessLocked removes the segments of a log whose first ones are missing and were never durable: in a crash names may be
// lost in any order, and a log that began with what is left would have a start that nobody asked for.
func (l *Log) dropRootlessLocked(start int64) error {
	if len(l.mu.segs) == 0 || l.mu.segs[0].base <= max(start, l.mu.mark) {
		return nil
	}
	if l.mu.mark > start {
		return corrupt("the first segment begins at %d, but records from %d to %d were durable", l.mu.segs[0].base, start, l.mu.mark)
	}
	return l.dropLocked(0)
}

// exceptFull leaves out that the disk is full. What recovery writes beside the segments can be made again from them (a
// snapshot written by half fails its checksum), and a full disk must not keep a broker from starting: who else would delete?
func (l *Log) exceptFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		l.dir.full.Store(true)
		return nil
	}
	return err
}

// beginEmptyLocked starts a log without any record. At offset 0 no file is made before the first append.
func (l *Log) beginEmptyLocked(start, now int64) error {
	s := newSegment(start, now)
	s.lazy, s.known, s.checked = true, true, true
	l.mu.segs = []*segment{s}
	l.end.Store(start)
	l.hw.Store(start)
	l.mu.newborn = start == 0
	if e, changed := l.mu.epochs.truncateEnd(start + 1); changed {
		l.mu.epochs, l.mu.epochsDirty = e, true
	}
	if err := l.dropSnapshotsLocked(start); err != nil {
		return err
	}
	if start == 0 {
		return nil
	}
	l.mu.recovered = true
	return l.openActiveLocked(s)
}

// tidyLocked removes what earlier work left behind and finishes what was begun (kafka.md 3.11, steps 1 and 2).
func (l *Log) tidyLocked() error {
	if err := l.finishSwapsLocked(); err != nil {
		return err
	}
	list, err := l.dir.fs.ReadDir(l.mu.path)
	if err != nil {
		return err
	}
	bases := map[int64]bool{}
	for _, e := range list {
		if o, ext, ok := parseSegName(e.Name()); ok && ext == extLog {
			bases[o] = true
		}
	}
	for _, e := range list {
		name := e.Name()
		o, ext, ok := parseSegName(name)
		orphan := ok && (ext == extIndex || ext == extTime || ext == extTxn) && !bases[o]
		if orphan || strings.HasSuffix(name, extDeleted) || strings.HasSuffix(name, extTemp) {
			if err := l.dir.fs.Remove(filepath.Join(l.mu.path, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// listLocked makes the list of segments from the names and sizes of the files.
func (l *Log) listLocked(now int64) error {
	list, err := l.dir.fs.ReadDir(l.mu.path)
	if err != nil {
		return err
	}
	sizes := map[string]int64{}
	for _, e := range list {
		o, ext, ok := parseSegName(e.Name())
		if !ok || (ext != extLog && ext != extIndex && ext != extTime && ext != extTxn) {
			continue
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		sizes[e.Name()] = st.Size()
		if ext == extLog {
			s := newSegment(o, min(now, st.ModTime().UnixMilli()))
			s.size = st.Size()
			l.mu.segs = append(l.mu.segs, s)
		}
	}
	slices.SortFunc(l.mu.segs, func(a, b *segment) int {
		if a.base < b.base {
			return -1
		}
		return 1
	})
	for _, s := range l.mu.segs {
		s.index.n = int32(sizes[segName(s.base, extIndex)] / offsetEntry)
		s.times.n = int32(sizes[segName(s.base, extTime)] / timeEntry)
		if _, ok := sizes[segName(s.base, extTxn)]; !ok {
			s.txn = -1
		}
		l.mu.size += s.size
	}
	return nil
}

// rereadLocked trusts the log up to its recovery point and reads everything after it again, cutting at the first bad batch.
func (l *Log) rereadLocked(now int64) error {
	from := max(l.mu.mark, l.mu.segs[0].base)
	i := len(l.mu.segs) - 1
	for i > 0 && l.mu.segs[i].base > from {
		i--
	}
	s := l.mu.segs[i]
	f, err := l.fileLocked(s)
	if err != nil {
		return err
	}
	n, err := l.loadTailLocked(s, f, from, -1)
	if err != nil {
		err = errors.Join(err, f.release())
		if isData(err) && !errors.Is(err, ErrCorrupt) {
			err = corrupt("segment %d: %w", s.base, err)
		}
		return err
	}
	l.adoptLocked(i, n, f)
	if err := l.deriveEpochsLocked(from); err != nil {
		return err
	}
	end := n.base
	if from > n.base {
		if end, err = l.lastOffset(n, f, from, s.size); err != nil {
			return err
		}
	}
	fileSize := s.size
	after := l.mu.segs[i+1:]
	if end < from || (fileSize == n.size && len(after) == 0) {
		l.end.Store(end)
		return l.settleLocked(from, end)
	}
	l.mu.recovered = true
	l.mu.segs = l.mu.segs[:i+1]
	l.end.Store(end)
	if err := l.cutEpochsLocked(from); err != nil {
		return err
	}
	return l.rereadFromLocked(n, f, fileSize, after, from)
}

// deriveEpochsLocked makes the list of leader epochs below the recovery point from the batches when there is no file of it: a light
// stop left the first one out.
func (l *Log) deriveEpochsLocked(upTo int64) error {
	if l.mu.epochsFile || l.mu.segs[0].base > 0 || (len(l.mu.segs) > 1 && l.mu.segs[1].base < upTo) {
		return nil
	}
	s := l.mu.segs[0]
	f, err := l.fileLocked(s)
	if err != nil {
		return err
	}
	defer func() { _ = f.release() }()
	w := newWalker(f, 0, s.size)
	defer w.close()
	for {
		h, n, err := w.header()
		if errors.Is(err, io.EOF) || (err == nil && h.BaseOffset() >= upTo) {
			return nil
		}
		if err != nil {
			return corrupt("segment %d, position %d: %w", s.base, w.pos, err)
		}
		if e, changed := l.mu.epochs.assign(h.LeaderEpoch(), h.BaseOffset()); changed {
			l.mu.epochs, l.mu.epochsDirty = e, true
		}
		w.pos += n
	}
}

// adoptLocked puts the rebuilt segment n, with its open file, in the place of segment i. The reference of the caller stays the caller's.
func (l *Log) adoptLocked(i int, n *segment, f *file) {
	l.closeFile(l.mu.segs[i])
	n.f = f
	l.mu.segs[i] = n
}

// lastOffset is the offset after the last batch below position n.size, or upTo, where the walk that found n.size
// aimed, when more batches follow there: the offsets in between were then compacted away or skipped by the leader.
func (l *Log) lastOffset(n *segment, f *file, upTo, fileSize int64) (int64, error) {
	if n.size < fileSize {
		return upTo, nil
	}
	if n.size == 0 {
		return n.base, nil
	}
	_, b, ok, err := n.index.search(l.dir.fs, l.segPath(n.base, extIndex), func(_, b int64) bool { return b < n.size })
	if err != nil {
		return 0, err
	}
	pos := int64(0)
	if ok {
		pos = b
	}
	w := newWalker(f, pos, n.size)
	defer w.close()
	end := n.base
	for w.pos < n.size {
		h, size, err := w.header()
		if err != nil {
			return 0, corrupt("segment %d, position %d: %w", n.base, w.pos, err)
		}
		end = h.NextOffset()
		w.pos += size
	}
	return end, nil
}

// settleLocked finishes a log of which nothing had to be read again.
func (l *Log) settleLocked(from, end int64) error {
	if end < from {
		return nil // the caller decides: cut short by a truncation, or damaged
	}
	if e, changed := l.mu.epochs.truncateEnd(end + 1); changed {
		l.mu.epochs, l.mu.epochsDirty = e, true
	}
	return l.loadProducersLocked(from, end)
}

// cutEpochsLocked drops entries past the recovery point; the batches read again bring them back.
func (l *Log) cutEpochsLocked(from int64) error {
	e, changed := l.mu.epochs.truncateEnd(from)
	if changed {
		l.mu.epochsDirty = true
	}
	l.mu.epochs = slices.Clone(e)
	return nil
}

// rereadFromLocked reads segment n from its present size to fileSize, then the segments after it.
func (l *Log) rereadFromLocked(n *segment, f *file, fileSize int64, after []*segment, from int64) error {
	synced := l.mu.epochs
	if all, err := readEpochs(l.dir.fs, l.epochsPath()); err == nil {
		synced = all
	}
	if err := l.loadProducersLocked(from, l.end.Load()); err != nil {
		return err
	}
	for {
		whole, err := l.rereadSegmentLocked(n, f, fileSize)
		if err != nil {
			return err
		}
		if !whole || len(after) == 0 || after[0].base != l.end.Load() || n.size == 0 {
			break
		}
		// A snapshot at the new base, as the roll would have made: the old one was removed because nothing vouches for it.
		n.addTime()
		if err := l.exceptFull(l.writeIndexesLocked(n)); err != nil {
			return err
		}
		next := after[0]
		after = after[1:]
		if err := l.exceptFull(writeFile(l.dir.fs, l.segPath(next.base, extSnapshot), l.mu.producers.Snapshot(nil), false)); err != nil {
			return err
		}
		if f, err = l.fileLocked(next); err != nil {
			return err
		}
		fileSize = next.size
		if n, err = l.loadTailLocked(next, f, next.base, 0); err != nil {
			return errors.Join(err, f.release())
		}
		l.closeFile(next)
		n.f = f
		l.mu.segs = append(l.mu.segs, n)
	}
	l.mu.rolled = true
	for j := len(after) - 1; j >= 0; j-- {
		l.closeFile(after[j])
		l.mu.size -= after[j].size
		if err := l.removeFiles(after[j].base); err != nil {
			return err
		}
	}
	// An epoch that was assigned durably and has no record yet.
	end := l.end.Load()
	for _, e := range synced {
		if last, _ := l.mu.epochs.latest(); e.start == end && e.epoch > last.epoch {
			l.mu.epochs, l.mu.epochsDirty = append(l.mu.epochs, e), true
		}
	}
	l.mu.dirDirty = true
	return nil
}

// rereadSegmentLocked checks every batch from n.size on, and cuts the file behind the last good one. whole: nothing was cut.
func (l *Log) rereadSegmentLocked(n *segment, f *file, fileSize int64) (whole bool, err error) {
	last, _ := l.mu.epochs.latest()
	epoch := last.epoch
	interval := int64(l.mu.cfg.IndexIntervalBytes)
	start := n.size
	_, err = scanBatches(f, n.size, fileSize, func(b batch.Batch, pos int64) error {
		if err := checkBatch(b, n.base, l.end.Load()); err != nil {
			return err
		}
		if b.LeaderEpoch() < epoch {
			return fmt.Errorf("epoch %d after %d: %w", b.LeaderEpoch(), epoch, ErrOrder)
		}
		epoch = b.LeaderEpoch()
		n.note(pos, int64(len(b)), b.LastOffset(), b.MaxTimestamp(), interval)
		n.size = pos + int64(len(b))
		l.end.Store(b.NextOffset())
		if e, changed := l.mu.epochs.assign(epoch, b.BaseOffset()); changed {
			l.mu.epochs, l.mu.epochsDirty = e, true
		}
		if b.HasProducer() {
			if txn, done := l.mu.producers.Update(b); done && txn.Aborted {
				return l.addAbortedLocked(n, txn)
			}
		}
		return nil
	})
	if err != nil && !isData(err) {
		return false, err
	}
	n.written, n.dirty = n.size, true
	l.mu.sinceMark += n.size - start
	l.mu.size -= fileSize - n.size
	if n.size < fileSize {
		return false, f.Truncate(n.size)
	}
	return true, nil
}
