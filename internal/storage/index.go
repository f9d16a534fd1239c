package storage

import (
	"encoding/binary"
	"errors"
	"io/fs"

	"github.com/milena-mq/milena/internal/vfs"
)

// Entry sizes of the two sparse indexes (kafka.md 3.4, docs/format/index.md).
const (
	offsetEntry = 8  // offset relative to the base int32, position int32
	timeEntry   = 12 // timestamp int64, offset relative to the base int32

	// indexTail is how many bytes of new entries are held in memory before they are written out. It
	// keeps an idle log small and an append free of index writes for about 2 MiB of data.
	indexTail = 4 << 10
)

// sparse is one sparse index: entries in its file, and a tail that is not yet there. No descriptor is
// kept: readers that follow the tail never need it, so one open and close per cold lookup is cheaper
// than two descriptors for each segment.
type sparse struct {
	width int32
	n     int32  // entries in the file
	tail  []byte // entries not yet in the file
	dirty bool   // the file has entries that were not synced
	last  int64  // time index: last timestamp, -1 none
}

func (x *sparse) len() int32 { return x.n + int32(len(x.tail))/x.width }

// add appends an entry made by put.
func (x *sparse) add(a uint64, b uint32) {
	if x.width == offsetEntry {
		x.tail = binary.BigEndian.AppendUint32(x.tail, uint32(a))
	} else {
		x.tail = binary.BigEndian.AppendUint64(x.tail, a)
	}
	x.tail = binary.BigEndian.AppendUint32(x.tail, b)
}

// write moves the tail into the file.
func (x *sparse) write(fsys vfs.FS, name string) error {
	if len(x.tail) == 0 {
		return nil
	}
	f, err := fsys.OpenFile(name, vfs.ReadWrite|vfs.Create, filePerm)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(x.tail, int64(x.n)*int64(x.width))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	x.n += int32(len(x.tail)) / x.width
	x.tail = nil
	x.dirty = true
	return nil
}

// entries gives access to the entries of an index while a lookup lasts.
type entries struct {
	x   *sparse
	f   vfs.File
	buf [timeEntry]byte
}

// open opens the file only when the answer may lie there.
func (x *sparse) open(fsys vfs.FS, name string) (*entries, error) {
	e := &entries{x: x}
	if x.n == 0 {
		return e, nil
	}
	f, err := fsys.OpenFile(name, vfs.ReadOnly, 0)
	if err != nil {
		return nil, err
	}
	e.f = f
	return e, nil
}

func (e *entries) close() {
	if e.f != nil {
		_ = e.f.Close() // opened for reading: nothing is lost
	}
}

// at is entry i: the first and second number.
func (e *entries) at(i int32) (a int64, b int64, err error) {
	w := e.x.width
	p := e.buf[:w]
	if i >= e.x.n {
		p = e.x.tail[(i-e.x.n)*w:][:w]
	} else if _, err := e.f.ReadAt(p, int64(i)*int64(w)); err != nil {
		return 0, 0, err
	}
	if w == offsetEntry {
		return int64(binary.BigEndian.Uint32(p)), int64(binary.BigEndian.Uint32(p[4:])), nil
	}
	return int64(binary.BigEndian.Uint64(p)), int64(binary.BigEndian.Uint32(p[8:])), nil
}

// search finds the last entry for which ok answers true, entries being true first and false later.
func (x *sparse) search(fsys vfs.FS, name string, ok func(a, b int64) bool) (a, b int64, found bool, err error) {
	lo, hi := int32(0), x.len()
	if hi == 0 {
		return 0, 0, false, nil
	}
	// The tail is in memory and holds the newest entries: try it before opening the file.
	e := &entries{x: x}
	if len(x.tail) > 0 {
		if ta, tb, _ := e.at(x.n); ok(ta, tb) {
			lo = x.n
		} else {
			hi = x.n
		}
	}
	if hi > x.n && lo == x.n {
		return e.bisect(lo, hi, ok)
	}
	if e, err = x.open(fsys, name); err != nil {
		return 0, 0, false, err
	}
	defer e.close()
	return e.bisect(lo, hi, ok)
}

func (e *entries) bisect(lo, hi int32, ok func(a, b int64) bool) (a, b int64, found bool, err error) {
	for lo < hi {
		mid := lo + (hi-lo)/2
		ma, mb, err := e.at(mid)
		if err != nil {
			return 0, 0, false, err
		}
		if ok(ma, mb) {
			a, b, found, lo = ma, mb, true, mid+1
		} else {
			hi = mid
		}
	}
	return a, b, found, nil
}

// readIndex reads an index file's sane prefix: whole entries, strictly growing, as long as keep accepts them. An entry of zeros
// ends it (files preallocated by Kafka, or a tail lost in a crash). whole says that there was nothing else in the
// file but entries that keep refuses; false means that the file is missing or damaged.
func readIndex(fsys vfs.FS, name string, width int32, keep func(a, b int64) bool) (n int32, a, b int64, whole bool, err error) {
	raw, err := vfs.ReadFile(fsys, name, 1<<31)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, 0, false, nil
	}
	if err != nil {
		return 0, 0, 0, false, err
	}
	whole = len(raw)%int(width) == 0
	x := sparse{width: width, tail: raw[:len(raw)-len(raw)%int(width)]}
	e := entries{x: &x}
	for i := range x.len() {
		na, nb, _ := e.at(i)
		if na == 0 && nb == 0 && i > 0 {
			return n, a, b, false, nil
		}
		if i > 0 && i == n && (na <= a || (width == offsetEntry && nb <= b) || nb < b) {
			return n, a, b, false, nil
		}
		ok := keep(na, nb)
		switch {
		case ok && i > n: // accepted after one that was refused
			return n, a, b, false, nil
		case ok:
			a, b, n = na, nb, i+1
		}
	}
	return n, a, b, whole, nil
}
