package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/vfs"
)

// cleanBuffer is how much a cleaned segment collects before it is written.
const cleanBuffer = 1 << 20

// cleaned is a segment being written under .cleaned names.
type cleaned struct {
	fs       vfs.FS
	path     string
	interval int64
	seg      *segment
	f        vfs.File
	buf      []byte
	markers  map[int64]bool // offsets of the transaction markers that stayed
	kept     bool           // the files belong to the log now
}

func (c *cleaned) name(ext string) string {
	return filepath.Join(c.path, segName(c.seg.base, ext)) + extCleaned
}

// create begins a cleaned segment.
func (p *pass) create(base int64) (*cleaned, error) {
	l := p.job.log
	c := &cleaned{fs: l.dir.fs, path: l.path(), interval: int64(p.job.cfg.IndexIntervalBytes), seg: newSegment(base, 0), markers: map[int64]bool{}}
	f, err := c.fs.OpenFile(c.name(extLog), vfs.ReadWrite|vfs.Create|vfs.Trunc, filePerm)
	if err != nil {
		return nil, p.failed(err)
	}
	c.f = f
	return c, nil
}

// failed sorts a failed write of a .cleaned file. Nothing that counts was touched, but a disk that fails here is not to be trusted.
func (p *pass) failed(err error) error {
	l := p.job.log
	if l.gone() {
		return ErrClosed // the folder was renamed under the cleaning
	}
	return l.dir.fail("clean "+l.tp.String(), err)
}

func (p *pass) add(c *cleaned, b batch.Batch) error {
	err := c.add(b)
	if err == nil || errors.Is(err, errSegmentFull) {
		return err
	}
	return p.failed(err)
}

var errSegmentFull = errors.New("cleaned segment exceeds 2 GiB")

func (c *cleaned) add(b batch.Batch) error {
	if c.seg.size+int64(len(b)) > math.MaxInt32 {
		return errSegmentFull
	}
	if b.IsControl() && b.Count() > 0 {
		c.markers[b.BaseOffset()] = true
	}
	c.seg.note(c.seg.size, int64(len(b)), b.LastOffset(), b.MaxTimestamp(), c.interval)
	c.seg.size += int64(len(b))
	c.buf = append(c.buf, b...)
	if len(c.buf) >= cleanBuffer {
		return c.flush()
	}
	return nil
}

func (c *cleaned) flush() error {
	at := c.seg.size - int64(len(c.buf))
	n, err := c.f.WriteAt(c.buf, at)
	if err == nil && n < len(c.buf) {
		err = fmt.Errorf("wrote %d of %d bytes", n, len(c.buf))
	}
	c.f.StartWriteback(at, int64(n))
	c.buf = c.buf[:0]
	return err
}

// finish completes and syncs all files of the segment. The abort index is written even when it is empty: its place must not be
// taken by one left over from an earlier attempt.
func (c *cleaned) finish(aborted []AbortedTxn) error {
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.f.Sync(); err != nil {
		return err
	}
	err := c.f.Close()
	c.f = nil
	if err != nil {
		return err
	}
	c.seg.addTime()
	for ext, x := range map[string]*sparse{extIndex: &c.seg.index, extTime: &c.seg.times} {
		if err := writeSynced(c.fs, c.name(ext), x.tail); err != nil {
			return err
		}
		x.n, x.tail = x.len(), nil
	}
	var raw []byte
	for _, t := range aborted {
		raw = append(raw, 0, 0)
		for _, v := range []int64{t.ProducerID, t.FirstOffset, t.LastOffset, t.LastStable} {
			raw = binary.BigEndian.AppendUint64(raw, uint64(v))
		}
	}
	if err := writeSynced(c.fs, c.name(extTxn), raw); err != nil {
		return err
	}
	return c.fs.SyncDir(c.path)
}

// discard removes the .cleaned files unless they became the log's.
func (c *cleaned) discard() {
	if c.f != nil {
		_ = c.f.Close() // the file is about to be unlinked
	}
	if c.kept {
		return
	}
	for _, ext := range swapExts {
		if err := c.fs.Remove(c.name(ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return // left for the next start
		}
	}
}

// abortedIn lists the aborted transactions of the sources whose markers are still in the new segment.
func (p *pass) abortedIn(group []source, c *cleaned) ([]AbortedTxn, error) {
	var out []AbortedTxn
	for _, s := range group {
		list, err := readAborted(c.fs, filepath.Join(c.path, segName(s.base, extTxn)))
		if err != nil {
			return nil, err
		}
		for _, t := range list {
			if c.markers[t.LastOffset] {
				out = append(out, t)
			}
		}
	}
	return out, nil
}

// swap puts the cleaned segment in the place of its sources, on disk and in memory, if they are all still there. The log's lock is
// held over a few renames and three syncs of the folder: readers find positions under that lock, and may not meet half a swap.
func (p *pass) swap(group []source, c *cleaned) error {
	l := p.job.log
	// Checkpoint and retention know files by name; markMu keeps them away.
	l.dir.markMu.Lock()
	defer l.dir.markMu.Unlock()
	var gone []*file
	defer func() { // without the log's lock: the last close of an unlinked GiB takes a quarter of a second
		for _, f := range gone {
			_ = f.release() // only read from
		}
	}()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return err
	}
	at := -1
	for i, s := range l.mu.segs {
		if s == group[0].seg {
			at = i
		}
	}
	if at < 0 || at+len(group) >= len(l.mu.segs) || l.mu.path != c.path {
		return errMoved
	}
	var old []int64
	for i, s := range group {
		if l.mu.segs[at+i] != s.seg || s.seg.dirty {
			return errMoved // truncated, or not yet synced
		}
		old = append(old, s.base)
		c.seg.created = max(c.seg.created, s.seg.created)
	}
	if err := l.publishSwapLocked(group[0].base); err != nil {
		return l.dir.fail("clean "+l.tp.String(), err)
	}
	c.kept = true
	if err := l.installSwapLocked(group[0].base, old); err != nil {
		// Half of the old segments may be gone: only a start, which finishes the swap, knows this log again.
		return l.dir.goOffline("clean "+l.tp.String(), err)
	}
	for _, s := range group {
		l.mu.size -= s.size
		if s.seg.f != nil {
			gone = append(gone, s.seg.f)
			s.seg.f = nil
			l.dir.sealedOpen.Add(-1)
		}
	}
	c.seg.known, c.seg.checked = true, true
	l.mu.size += c.seg.size
	segs := append([]*segment(nil), l.mu.segs[:at]...)
	segs = append(segs, c.seg)
	l.mu.segs = append(segs, l.mu.segs[at+len(group):]...)
	l.mu.hints = [2]hint{} // they hold positions in files that are gone
	return nil
}
