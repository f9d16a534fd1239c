package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

const (
	sendfileFrom = 64 << 10  // measured: below it, pread into a hot buffer and one writev are cheaper
	copyBelow    = 512       // bytes by reference that are cheaper to copy than to name in an iovec
	pieceSize    = 256 << 10 // a file piece without sendfile goes out in pieces of this size
	flushAt      = 256 << 10 // that much memory is written before the next answer is encoded
	flushParts   = 128       // that many parts are
	keepOut      = 64 << 10  // a larger buffer is not kept in the pool
)

// Out collects answers and writes them: small bytes are copied into one buffer, record bytes are named,
// file pieces are handed to the kernel. One goroutine uses it at a time.
type Out struct {
	buf   []byte // every small byte of every answer not written yet
	parts []part
	cut   int // buf[cut:] has no part yet
	mark  int // where the answer being encoded starts in buf
	from  int // its first part
	other int64
	total int64 // bytes of all answers not written yet

	vec, work net.Buffers
	tmp       []*buffer
}

type partKind uint8

const (
	fromBuf partKind = iota
	fromMemory
	fromFile
)

// part is one run of bytes of the output, in order.
type part struct {
	kind     partKind
	off, end int // fromBuf
	p        []byte
	file     File
	pos, n   int64
	release  func()
}

var outs = sync.Pool{New: func() any { return new(Out) }}

// Append lets fn append small bytes to dst, which holds earlier ones that fn must not touch; kmsg's
// AppendTo fits.
func (o *Out) Append(fn func(dst []byte) []byte) { o.buf = fn(o.buf) }

// Bytes appends a copy of p.
func (o *Out) Bytes(p []byte) { o.buf = append(o.buf, p...) }

// Raw sends p by reference; p must not change until release, which may be nil, was called.
func (o *Out) Raw(p []byte, release func()) {
	if len(p) < copyBelow {
		o.buf = append(o.buf, p...)
		if release != nil {
			release()
		}
		return
	}
	o.seal()
	o.parts = append(o.parts, part{kind: fromMemory, p: p, release: release})
	o.other += int64(len(p))
}

// File sends n bytes of f from pos. They must be there: a file that turns out shorter closes the
// connection, because the answer's length was already promised. release, which may be nil, is called
// when the bytes are sent or the connection ended.
func (o *Out) File(f File, pos, n int64, release func()) {
	if n <= 0 {
		if release != nil {
			release()
		}
		return
	}
	o.seal()
	o.parts = append(o.parts, part{kind: fromFile, file: f, pos: pos, n: n, release: release})
	o.other += n
}

// Len is the length of the body so far, in bytes, response header included.
func (o *Out) Len() int64 { return int64(len(o.buf)-o.mark-4) + o.other }

// seal turns the small bytes since the last part into a part.
func (o *Out) seal() {
	if len(o.buf) > o.cut {
		o.parts = append(o.parts, part{kind: fromBuf, off: o.cut, end: len(o.buf)})
		o.cut = len(o.buf)
	}
}

// maxAnswer is what the 4-byte length can say.
const maxAnswer = 1<<31 - 1

// answer encodes one answer behind those already there. On an error nothing of it stays.
func (o *Out) answer(r *Reply) (body int64, err error) {
	// An answer starts with a fresh part, so that a failed one can be taken back by cutting parts.
	o.seal()
	o.from, o.mark, o.other = len(o.parts), len(o.buf), 0
	o.buf = append(o.buf, 0, 0, 0, 0)
	o.buf = binary.BigEndian.AppendUint32(o.buf, uint32(r.Correlation))
	if r.Tags {
		o.buf = append(o.buf, 0)
	}
	head := o.Len()
	if r.Encode != nil {
		err = r.Encode(o)
	}
	size := o.Len()
	if err == nil && size > maxAnswer {
		err = fmt.Errorf("encode answer: %d bytes do not fit a frame", size)
	}
	if err != nil {
		o.undo()
		return 0, err
	}
	binary.BigEndian.PutUint32(o.buf[o.mark:], uint32(size))
	o.total += size + 4
	return size - head, nil
}

// undo takes the answer being encoded back, after an error or a panic: half of one must never be sent.
func (o *Out) undo() {
	o.dropParts(o.from)
	o.buf, o.cut, o.other = o.buf[:o.mark], o.mark, 0
}

func (o *Out) dropParts(from int) {
	for i := from; i < len(o.parts); i++ {
		if r := o.parts[i].release; r != nil {
			r()
		}
		o.parts[i] = part{}
	}
	o.parts = o.parts[:from]
}

// full says that what is collected should be written before more is added.
func (o *Out) full() bool { return len(o.parts) >= flushParts || o.total >= flushAt }

// reset forgets everything, releasing what was referred to.
func (o *Out) reset() {
	o.dropParts(0)
	o.freeTmp()
	clear(o.vec[:cap(o.vec)])
	o.vec, o.work = o.vec[:0], nil
	o.buf, o.cut, o.mark, o.from, o.other, o.total = o.buf[:0], 0, 0, 0, 0, 0
}

func (o *Out) freeTmp() {
	for i, b := range o.tmp {
		putBuffer(b)
		o.tmp[i] = nil
	}
	o.tmp = o.tmp[:0]
}

// recycle returns o, reset, to the pool.
func (o *Out) recycle() {
	o.reset()
	if cap(o.buf) > keepOut {
		o.buf = nil
	}
	outs.Put(o)
}

// errShort is a file that ended before the bytes that were promised from it.
var errShort = errors.New("send file: shorter than promised")

// flush writes everything to the connection. After an error the connection is useless.
func (o *Out) flush(c *Conn) error {
	o.seal()
	if len(o.parts) == 0 {
		return nil
	}
	defer o.reset()
	for i := range o.parts {
		p := &o.parts[i]
		switch p.kind {
		case fromBuf:
			o.vec = append(o.vec, o.buf[p.off:p.end])
		case fromMemory:
			o.vec = append(o.vec, p.p)
		case fromFile:
			if err := o.file(c, p); err != nil {
				return err
			}
		}
	}
	return o.writeVec(c, false)
}

// file sends one file piece, and before it what was collected.
func (o *Out) file(c *Conn, p *part) error {
	if p.n < sendfileFrom {
		b := getBuffer(int(p.n))
		o.tmp = append(o.tmp, b)
		if err := readAt(p.file, b.b[:p.n], p.pos); err != nil {
			return err
		}
		o.vec = append(o.vec, b.b[:p.n])
		return nil
	}
	if c.raw != nil && canSendfile {
		if f := p.file.SysFile(); f != nil {
			// More follows at once: without this the kernel sends the header as a packet of its own.
			if err := o.writeVec(c, true); err != nil {
				return err
			}
			return sendFile(c, f, p.pos, p.n)
		}
	}
	for pos, left := p.pos, p.n; left > 0; {
		n := min(left, pieceSize)
		b := getBuffer(int(n))
		o.tmp = append(o.tmp, b)
		if err := readAt(p.file, b.b[:n], pos); err != nil {
			return err
		}
		o.vec = append(o.vec, b.b[:n])
		if err := o.writeVec(c, false); err != nil {
			return err
		}
		pos, left = pos+n, left-n
	}
	return nil
}

func readAt(f File, b []byte, pos int64) error {
	n, err := f.ReadAt(b, pos)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = errShort
	}
	return err
}

// writeVec writes what is collected in vec; more says that further bytes follow at once.
func (o *Out) writeVec(c *Conn, more bool) error {
	if len(o.vec) == 0 {
		return nil
	}
	var err error
	switch {
	case more && c.raw != nil:
		err = sendMore(c, o.vec)
	case len(o.vec) == 1:
		_, err = c.nc.Write(o.vec[0])
	default:
		o.work = o.vec
		_, err = o.work.WriteTo(c.nc)
	}
	c.touch()
	clear(o.vec)
	o.vec = o.vec[:0]
	o.freeTmp()
	return err
}
