package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/vfs"
)

// Endings of the files of a segment (kafka.md 3.4).
const (
	extLog      = ".log"
	extIndex    = ".index"
	extTime     = ".timeindex"
	extTxn      = ".txnindex"
	extSnapshot = ".snapshot"

	extDeleted = ".deleted"
	extCleaned = ".cleaned"
	extSwap    = ".swap"
	extTemp    = ".tmp"

	dirDelete = "-delete"
	dirFuture = "-future"
	dirStray  = "-stray"
)

const filePerm, dirPerm fs.FileMode = 0o644, 0o755

// segName is the name of a file of the segment that begins at base: 20 digits and the ending.
func segName(base int64, ext string) string {
	var b [40]byte
	s := strconv.AppendInt(b[:0], base, 10)
	return strings.Repeat("0", max(0, 20-len(s))) + string(s) + ext
}

// parseSegName reads the offset in front of the first dot; ext is the rest.
func parseSegName(name string) (base int64, ext string, ok bool) {
	i := strings.IndexByte(name, '.')
	if i != 20 {
		return 0, "", false
	}
	for _, c := range name[:i] {
		if c < '0' || c > '9' {
			return 0, "", false
		}
	}
	base, err := strconv.ParseInt(name[:i], 10, 64)
	return base, name[i:], err == nil
}

// file is an open segment file shared by its segment and the slices that readers hold; the last one
// to release it closes it, so that a descriptor is never reused under a sendfile.
type file struct {
	vfs.File
	refs atomic.Int32
}

func newFile(f vfs.File) *file {
	s := &file{File: f}
	s.refs.Store(1)
	return s
}

// retain may be called only by who knows that somebody else holds a reference now.
func (f *file) retain() *file { f.refs.Add(1); return f }

func (f *file) release() error {
	if f.refs.Add(-1) == 0 {
		return f.Close()
	}
	return nil
}

const walkChunk = 8 << 10

var walkBufs = sync.Pool{New: func() any { return new([walkChunk]byte) }}

// walker steps through the batch headers of a segment file without reading the records.
type walker struct {
	f        io.ReaderAt
	pos, end int64
	buf      *[walkChunk]byte
	at       int64 // file position of buf[0]
	n        int   // valid bytes in buf
}

func newWalker(f io.ReaderAt, pos, end int64) *walker {
	return &walker{f: f, pos: pos, end: end, buf: walkBufs.Get().(*[walkChunk]byte)}
}

func (w *walker) close() { walkBufs.Put(w.buf); w.buf = nil }

// header is the header of the batch at w.pos and the batch's whole length. io.EOF exactly at the end;
// errors of package batch when the bytes are no batch. The header is valid until the next call.
func (w *walker) header() (batch.Batch, int64, error) {
	left := w.end - w.pos
	if left == 0 {
		return nil, 0, io.EOF
	}
	if left < batch.HeaderSize {
		return nil, 0, batch.ErrShort
	}
	if w.pos < w.at || w.pos+batch.HeaderSize > w.at+int64(w.n) {
		w.at = w.pos
		n, err := w.f.ReadAt(w.buf[:min(walkChunk, left)], w.pos)
		w.n = n
		if n < batch.HeaderSize {
			if err == nil || errors.Is(err, io.EOF) {
				err = batch.ErrShort
			}
			return nil, 0, err
		}
	}
	h := batch.Batch(w.buf[w.pos-w.at:][:batch.HeaderSize])
	size, err := batch.PeekSize(h)
	if err != nil {
		return nil, 0, err
	}
	if int64(size) > left {
		return nil, 0, batch.ErrShort
	}
	if h.BaseOffset() < 0 || h.LastOffsetDelta() < 0 || h.BaseOffset() > math.MaxInt64-math.MaxInt32 {
		return nil, 0, fmt.Errorf("batch at position %d has offsets %d +%d", w.pos, h.BaseOffset(), h.LastOffsetDelta())
	}
	return h, int64(size), nil
}

// full reads the whole batch at w.pos into buf, growing it, after header has accepted it.
func (w *walker) full(size int64, buf []byte) ([]byte, error) {
	if int64(cap(buf)) < size {
		buf = make([]byte, size+size/4)
	}
	buf = buf[:size]
	n, err := w.f.ReadAt(buf, w.pos)
	if int64(n) < size {
		if err == nil || errors.Is(err, io.EOF) {
			err = batch.ErrShort
		}
		return buf, err
	}
	return buf, nil
}

// isData tells damage in the bytes from a disk that does not answer.
func isData(err error) bool {
	var pe *fs.PathError
	return !errors.As(err, &pe)
}
