package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Bounds of what decoding may allocate.
const (
	costFactor = 24       // bytes of memory per byte received; honest requests stay under 12
	costSlack  = 64 << 10 // small requests are not judged
	tagCost    = 336      // a map of one entry, as kmsg keeps an unknown tag
	tagNext    = 48       // each further entry of the same map
)

// ErrTooDense is wrapped when a body would need far more memory than it has bytes: arrays of empty
// elements or heaps of unknown tags, which no client sends.
var ErrTooDense = fmt.Errorf("%w: needs too much memory for its size", ErrMalformed)

// Decode reads a body of a known version. Byte fields of the request (records of a Produce) are slices
// of body, strings are copies. The memory it takes, apart from body itself, is at most Cost's answer.
func Decode(h Header, body []byte) (kmsg.Request, error) {
	req := kmsg.RequestForKey(h.Key)
	if req == nil || !h.KnownVersion {
		return nil, fmt.Errorf("%w: api key %d version %d", ErrMalformed, h.Key, h.Version)
	}
	req.SetVersion(h.Version)
	if err := req.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("%w: body of %s version %d: %v", ErrMalformed, Name(h.Key), h.Version, err)
	}
	return req, nil
}

// Cost walks over a body without allocating and returns an upper bound of the bytes that Decode will
// allocate. A body that ends too early, and one whose bound is out of proportion to its length, is an
// error: kmsg trusts an array length as soon as the smallest elements would fit, so that without this
// walk a frame of 100 MiB could ask for several GiB.
func Cost(h Header, body []byte) (int64, error) {
	s := schemaFor(h.Key)
	if s == nil {
		return 0, fmt.Errorf("%w: no schema for api key %d", ErrMalformed, h.Key)
	}
	limit := costFactor*int64(len(body)) + costSlack
	w := walker{src: body, version: h.Version, flexible: h.Flexible, left: limit, tags: -1}
	w.readStruct(s)
	switch {
	case w.left < 0:
		return 0, fmt.Errorf("%w: %s version %d, %d bytes", ErrTooDense, Name(h.Key), h.Version, len(body))
	case w.bad:
		return 0, fmt.Errorf("%w: body of %s version %d", ErrMalformed, Name(h.Key), h.Version)
	}
	return limit - w.left + s.size, nil
}

// walker steps over a body. bad is sticky and empties src, so that every loop ends.
type walker struct {
	src      []byte
	version  int16
	flexible bool
	bad      bool
	left     int64 // memory that may still be asked for
	tags     int   // tagged fields that may still come, -1 for no limit besides memory
}

func (w *walker) fail() { w.bad, w.src = true, nil }

func (w *walker) skip(n int) {
	if n < 0 || n > len(w.src) {
		w.fail()
		return
	}
	w.src = w.src[n:]
}

func (w *walker) spend(n int64) {
	if w.left -= n; w.left < 0 {
		w.fail()
	}
}

func (w *walker) uvarint() int {
	if len(w.src) > 0 && w.src[0] < 0x80 {
		v := w.src[0]
		w.src = w.src[1:]
		return int(v)
	}
	v, n := binary.Uvarint(w.src)
	if n <= 0 || n > 5 || v > 1<<32-1 {
		w.fail()
		return 0
	}
	w.src = w.src[n:]
	return int(v)
}

func (w *walker) int16() int {
	if len(w.src) < 2 {
		w.fail()
		return 0
	}
	v := int16(binary.BigEndian.Uint16(w.src))
	w.src = w.src[2:]
	return int(v)
}

func (w *walker) int32() int {
	if len(w.src) < 4 {
		w.fail()
		return 0
	}
	v := int32(binary.BigEndian.Uint32(w.src))
	w.src = w.src[4:]
	return int(v)
}

// length reads the length of bytes or of an array, -1 for null; wide is the non-flexible form of 4 bytes.
func (w *walker) length(wide bool) int {
	switch {
	case w.flexible:
		return w.uvarint() - 1
	case wide:
		return w.int32()
	}
	return w.int16()
}

func (w *walker) readString(nullable bool) {
	n := w.length(false)
	switch {
	case w.bad:
	case n == -1 && nullable:
	case n < 0:
		w.fail()
	default:
		w.skip(n)
		extra := int64(n)
		if extra > 1 {
			extra += 15 // rounding of the allocator
		}
		if nullable {
			extra += 16 // the string header behind the pointer
		}
		w.spend(extra)
	}
}

func (w *walker) readBytes() {
	n := w.length(true)
	if n > 0 {
		w.skip(n) // bytes are slices of the frame: free
	} else if n < -1 {
		w.fail()
	}
}

func (w *walker) readTags() {
	n := w.uvarint()
	for i := 0; i < n && !w.bad; i++ {
		w.uvarint()
		w.skip(w.uvarint())
		if w.tags == 0 {
			w.fail()
		} else if w.tags > 0 {
			w.tags--
			continue
		}
		if i == 0 {
			w.spend(tagCost)
		} else {
			w.spend(tagNext * 2) // a map doubles when it grows
		}
	}
}

func (w *walker) readStruct(s *structure) {
	for i := range s.fields {
		f := &s.fields[i]
		if w.version < f.min || w.version > f.max {
			continue
		}
		if f.array {
			w.readArray(f)
		} else {
			w.readOne(f)
		}
		if w.bad {
			return
		}
	}
	if w.flexible {
		w.readTags()
	}
}

func (w *walker) readArray(f *field) {
	n := w.length(true)
	if n < -1 {
		w.fail()
	}
	if n <= 0 || w.bad {
		return
	}
	// A fixed element size lets a long list of numbers pass in one step.
	if fixed := f.fixed(); fixed > 0 {
		if n > len(w.src)/fixed {
			w.fail()
			return
		}
		w.spend(int64(n)*f.goSize() + 16)
		w.skip(n * fixed)
		return
	}
	if n > len(w.src) {
		w.fail()
		return
	}
	// The allocator rounds up by at most an eighth above 1 KiB.
	w.spend(int64(n)*f.goSize()*9/8 + 32)
	for i := 0; i < n && !w.bad; i++ {
		w.readOne(f)
	}
}

func (w *walker) readOne(f *field) {
	switch f.kind {
	case 's':
		w.readString(false)
	case 'n':
		w.readString(true)
	case 'B':
		w.readBytes()
	case '{':
		w.readStruct(f.inner)
	case '?':
		// A nullable structure: one byte, negative for null (kmsg spells it as int8).
		if len(w.src) == 0 {
			w.fail()
			return
		}
		null := int8(w.src[0]) < 0
		w.skip(1)
		if !null {
			w.spend(f.inner.size)
			w.readStruct(f.inner)
		}
	default:
		w.skip(f.fixed())
	}
}
