package storage

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/milena-mq/milena/internal/vfs"
)

// syncSet is what one sync of a log has to make durable.
type syncSet struct {
	end     int64
	segs    []*segment
	files   []*file
	names   bool // entries of the log's folder
	newborn bool // the folder's own entry and partition.metadata
	path    string
}

// beginSync notes what is to be synced and marks it clean; a failed sync never needs the marks back, because the
// directory is then offline for ever. The caller holds syncMu. Nothing is synced under the log's lock, so appends go on.
func (l *Log) beginSync() (syncSet, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return syncSet{}, err
	}
	w := syncSet{end: l.end.Load(), path: l.mu.path}
	for i := len(l.mu.segs) - 1; i >= 0; i-- {
		s := l.mu.segs[i]
		if !s.dirty {
			// Segments become dirty in order: older ones than a clean closed one are clean.
			if i < len(l.mu.segs)-1 {
				break
			}
			continue
		}
		if s.f == nil {
			continue
		}
		w.segs = append(w.segs, s)
		w.files = append(w.files, s.f.retain())
		s.dirty = false
	}
	w.names, w.newborn = l.mu.dirDirty, l.mu.newborn
	// The first flush: epochs that have records are found again in the batches, only one that has none needs its entry.
	if last, _ := l.mu.epochs.latest(); w.newborn && w.end > 0 && last.start >= w.end {
		if err := l.flushEpochsLocked(&w); err != nil {
			return w, err
		}
	}
	l.mu.dirDirty, l.mu.newborn = false, false
	return w, nil
}

// flushEpochsLocked writes the epoch list of a log that is flushed for the first time.
func (l *Log) flushEpochsLocked(w *syncSet) error {
	// On a full disk the list stays due for the next checkpoint: its last entry has no record that could be lost with it.
	if err := l.exceptFull(l.writeEpochsLocked()); err != nil {
		w.release()
		return l.dir.goOffline("write leader epochs of "+l.tp.String(), err)
	}
	return nil
}

func (w *syncSet) release() {
	for _, f := range w.files {
		_ = f.release()
	}
	w.files = nil
}

// sync makes the set durable with one call per file: the names after the data, so that a name never
// appears before what it stands for.
func (w *syncSet) sync(d *Dir) error {
	if w.newborn {
		f, err := d.fs.OpenFile(filepath.Join(w.path, filePartition), vfs.ReadWrite, filePerm)
		if err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a folder older than topic ids has none
			return err
		}
	}
	for i := len(w.files) - 1; i >= 0; i-- { // oldest first: what survives a crash is then a prefix
		if err := w.files[i].Sync(); err != nil {
			return err
		}
	}
	if w.names || w.newborn {
		if err := d.fs.SyncDir(w.path); err != nil {
			return err
		}
	}
	if w.newborn {
		return d.fs.SyncDir(d.path)
	}
	return nil
}

// endSync raises Flushed after a successful sync.
func (l *Log) endSync(w syncSet, op string, err error) error {
	w.release()
	if err != nil {
		return l.dir.goOffline(op+" of "+l.tp.String(), err)
	}
	// Another sync may have failed meanwhile and have been told about bytes of this log.
	if err := l.dir.Offline(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if end := min(w.end, l.end.Load()); end > l.flushed.Load() {
		l.flushed.Store(end)
	}
	return nil
}

// Dirty tells whether Flush has something to do.
func (l *Log) Dirty() bool { return l.flushed.Load() < l.end.Load() }

// Flush makes everything appended before the call durable and raises Flushed. After one failure the
// whole directory is offline for ever.
func (l *Log) Flush() error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	w, err := l.beginSync()
	if err != nil {
		return err
	}
	return l.endSync(w, "sync", w.sync(l.dir))
}

// SyncMany makes what was appended to the logs durable: up to SyncFSAbove dirty logs by one fdatasync each, run
// by the caller's runner (4 to 8 at a time are best), above that by one syncfs. It answers one error per log.
// docs/benchmarks.md has the measurements behind the choice.
func (d *Dir) SyncMany(logs []*Log, run Runner) []error {
	errs := make([]error, len(logs))
	dirty := 0
	for _, l := range logs {
		if l.Dirty() {
			dirty++
		}
	}
	if d.syncFSAbove >= 0 && dirty > d.syncFSAbove && d.volume != nil && !d.noSyncFS.Load() {
		if d.syncVolume(logs, errs) {
			return errs
		}
	}
	run.run(len(logs), func(i int) { errs[i] = logs[i].Flush() })
	return errs
}

// syncVolume covers all logs with one syncfs; false when the file system has none.
func (d *Dir) syncVolume(logs []*Log, errs []error) bool {
	sets := make([]syncSet, len(logs))
	// syncMu of many logs is taken one after the other in the order given. Only SyncMany and Checkpoint take
	// several, and d.manyMu admits one of those at a time: two orders cannot meet.
	d.manyMu.Lock()
	defer d.manyMu.Unlock()
	seen := make(map[*Log]bool, len(logs))
	for i, l := range logs {
		if seen[l] {
			continue // named twice: its lock is already held
		}
		seen[l] = true
		l.syncMu.Lock()
		defer l.syncMu.Unlock()
		sets[i], errs[i] = l.beginSync()
	}
	err := d.volume.Sync()
	if errors.Is(err, vfs.ErrUnsupported) {
		d.noSyncFS.Store(true)
		err = nil
		for i := range logs {
			if errs[i] == nil {
				errs[i] = logs[i].endSync(sets[i], "sync", sets[i].sync(d))
			}
		}
		return true
	}
	for i, l := range logs {
		if errs[i] == nil {
			errs[i] = l.endSync(sets[i], "syncfs", err)
		}
	}
	return true
}
