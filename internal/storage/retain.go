package storage

import (
	"errors"
	"io/fs"
)

// Housekeep applies retention by time and size, takes away segments below the log start, unlinks what was deleted
// file.delete.delay.ms ago, expires producers and closes unused files. hw bounds what may be deleted: nothing at or past the
// high watermark goes. now is in milliseconds. Call it every second or every few minutes, as the unlink delay and
// log.retention.check.interval.ms ask; it is cheap when there is nothing to do.
func (d *Dir) Housekeep(now int64, hw func(*Log) int64) error {
	if err := d.Offline(); err != nil {
		return err
	}
	if err := d.emptyTrash(now); err != nil {
		return err
	}
	// Checkpoint syncs files by name, and must not find them gone.
	d.markMu.Lock()
	defer d.markMu.Unlock()
	var errs []error
	for _, l := range d.served() {
		errs = append(errs, l.retain(now, hw(l)))
	}
	// Starts first, durably: after a crash deleted records must not come back because their files did.
	if err := errors.Join(append(errs, d.raiseStarts())...); err != nil {
		return err
	}
	for _, l := range d.all() {
		if err := l.sweep(now); err != nil {
			return err
		}
	}
	d.full.Store(true)
	return nil
}

// retain raises the log start past the segments whose time or size is over.
func (l *Log) retain(now, hw int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed != nil {
		return nil
	}
	c := l.mu.cfg
	if c.ProducerExpiryMs > 0 {
		l.mu.producers.Expire(now, c.ProducerExpiryMs)
	}
	n, size := 0, l.mu.size
	for i, s := range l.mu.segs {
		end := l.segmentEndLocked(i)
		if end > hw || s.size == 0 {
			break
		}
		gone := end <= l.start.Load()
		if !gone && c.Delete && c.RetentionMs >= 0 {
			if err := l.knowLocked(i); err != nil {
				return l.tolerate(err)
			}
			age := s.maxTs
			if age < 0 {
				age = s.created
			}
			gone = now-age > c.RetentionMs
		}
		if !gone && c.Delete && c.RetentionBytes >= 0 {
			gone = size-s.size >= c.RetentionBytes
		}
		if !gone {
			break
		}
		size -= s.size
		n = i + 1
	}
	if n == 0 {
		return nil
	}
	if n == len(l.mu.segs) {
		if err := l.rollLocked(l.end.Load(), now); err != nil {
			return l.tolerate(err)
		}
	}
	return l.askStartLocked(l.segmentEndLocked(n - 1))
}

// tolerate lets housekeeping go on with the other logs when one is damaged or the disk is full: deleting helps there.
func (l *Log) tolerate(err error) error {
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrReserve) {
		return nil
	}
	return l.dir.fail("housekeeping of "+l.tp.String(), err)
}

// sweep renames the files of segments wholly below the log start to .deleted and closes files nobody used since the last pass.
func (l *Log) sweep(now int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed != nil {
		return nil
	}
	start := l.start.Load()
	n := 0
	for n < len(l.mu.segs)-1 && l.mu.segs[n+1].base <= start {
		n++
	}
	var gone []trash
	for _, s := range l.mu.segs[:n] {
		l.closeFile(s)
		for _, ext := range []string{extLog, extIndex, extTime, extTxn, extSnapshot} {
			name := l.segPath(s.base, ext)
			err := l.dir.fs.Rename(name, name+extDeleted)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return l.dir.fail("delete segment of "+l.tp.String(), err)
			}
			gone = append(gone, trash{name + extDeleted, now + l.mu.cfg.FileDeleteDelayMs, false})
		}
		l.mu.size -= s.size
	}
	if n > 0 {
		l.mu.segs = append([]*segment(nil), l.mu.segs[n:]...)
		l.mu.dirDirty = true
		l.dir.mu.Lock()
		l.dir.mu.trash = append(l.dir.mu.trash, gone...)
		l.dir.mu.Unlock()
	}
	for i, s := range l.mu.segs {
		if !s.used && !s.dirty && i < len(l.mu.segs)-1 {
			l.closeFile(s)
		}
		s.used = false
	}
	return nil
}

// emptyTrash unlinks what is due. A folder renamed meanwhile (its topic was deleted) takes its .deleted files along.
func (d *Dir) emptyTrash(now int64) error {
	d.mu.Lock()
	var due, later []trash
	for _, t := range d.mu.trash {
		if t.due <= now {
			due = append(due, t)
		} else {
			later = append(later, t)
		}
	}
	d.mu.trash = later
	d.mu.Unlock()
	for _, t := range due {
		var err error
		if t.tree {
			err = d.fs.RemoveAll(t.path)
		} else {
			err = d.fs.Remove(t.path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return d.fail("unlink "+t.path, err)
		}
	}
	return nil
}
