package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// recordMeta is what validation needs of one record.
type recordMeta struct {
	tsDelta  int64
	offDelta int32
	hasKey   bool
}

// varint reads one zig-zag varint of at most 10 bytes; n is 0 when it is malformed or cut short.
func varint(p []byte) (v int64, n int) {
	if len(p) > 0 && p[0] < 0x80 { // nearly every field of a small record
		u := uint64(p[0])
		return int64(u>>1) ^ -int64(u&1), 1
	}
	u, n := binary.Uvarint(p)
	if n <= 0 {
		return 0, 0
	}
	return int64(u>>1) ^ -int64(u&1), n
}

// varint32 is varint for the fields that Kafka reads as int32, in at most 5 bytes.
func varint32(p []byte) (v int64, n int) {
	v, n = varint(p)
	if n > 5 || v != int64(int32(v)) {
		return 0, 0
	}
	return v, n
}

// uvarint reads one varint of at most five bytes that fits in 32 bits, as all lengths and deltas but the timestamp's; next is
// the position after it, -1 when it is malformed or cut short. One and two bytes, nearly all there are, cost no loop.
func uvarint(p []byte, at int) (u uint32, next int) {
	if uint(at)+1 < uint(len(p)) {
		b := p[at]
		if b < 0x80 {
			return uint32(b), at + 1
		}
		if c := p[at+1]; c < 0x80 {
			return uint32(b&0x7f) | uint32(c)<<7, at + 2
		}
	}
	return uvarintSlow(p, at)
}

func uvarintSlow(p []byte, at int) (u uint32, next int) {
	if at > len(p) {
		return 0, -1
	}
	v, n := binary.Uvarint(p[at:])
	if n <= 0 || n > 5 || v > 1<<32-1 {
		return 0, -1
	}
	return uint32(v), at + n
}

func zigzag(u uint32) int { return int(int32(u>>1) ^ -int32(u&1)) }

// scanBody reads one record body (after its length) without keeping anything; false when it does not follow the format or
// does not end exactly at the end of p.
func scanBody(p []byte) (m recordMeta, ok bool) {
	if len(p) < 6 {
		return m, false
	}
	at := 1 // attributes, unused
	if b := p[1]; b < 0x80 {
		m.tsDelta, at = int64(b>>1)^-int64(b&1), 2
	} else {
		ts, n := varint(p[1:])
		if n == 0 {
			return m, false
		}
		m.tsDelta = ts
		at += n
	}
	u, at := uvarint(p, at)
	if at < 0 {
		return m, false
	}
	m.offDelta = int32(zigzag(u))
	u, at = uvarint(p, at)
	k := zigzag(u)
	if at < 0 || k < -1 || k > len(p)-at {
		return m, false
	}
	m.hasKey = k >= 0
	u, at = uvarint(p, at+max(k, 0))
	v := zigzag(u)
	if at < 0 || v < -1 || v > len(p)-at {
		return m, false
	}
	at += max(v, 0)
	if at == len(p)-1 && p[at] == 0 { // no headers, the common end
		return m, true
	}
	u, at = uvarint(p, at)
	h := zigzag(u)
	if at < 0 || h < 0 || h > (len(p)-at)/2 {
		return m, false
	}
	for ; h > 0; h-- {
		u, at = uvarint(p, at)
		k := zigzag(u)
		if at < 0 || k < 0 || k > len(p)-at {
			return m, false
		}
		u, at = uvarint(p, at+k)
		v := zigzag(u)
		if at < 0 || v < -1 || v > len(p)-at {
			return m, false
		}
		at += max(v, 0)
	}
	return m, at == len(p)
}

// parseBody reads one record body whose structure scanBody has accepted. Slices alias p.
func parseBody(p []byte, r *Record, base, baseTs int64) {
	at := 1
	next := func() int64 {
		v, n := varint(p[at:])
		at += n
		return v
	}
	bytes := func() []byte {
		n := next()
		if n < 0 {
			return nil
		}
		s := p[at : at+int(n) : at+int(n)]
		at += int(n)
		return s
	}
	r.Timestamp = baseTs + next()
	r.Offset = base + next()
	r.Key = bytes()
	r.Value = bytes()
	r.Headers = r.Headers[:0]
	for h := next(); h > 0; h-- {
		k := bytes()
		r.Headers = append(r.Headers, Header{Key: k, Value: bytes()})
	}
}

func badRecord(i int32, why string) error { return fmt.Errorf("%w: record %d: %s", ErrRecord, i, why) }

// scanBytes walks uncompressed records in place and calls fn for each. It fails unless there are exactly count records
// and nothing after them.
func scanBytes(p []byte, count int32, fn func(i int32, m recordMeta)) error {
	at := 0
	for i := int32(0); i < count; i++ {
		u, next := uvarint(p, at)
		n := zigzag(u)
		if next < 0 || n < 0 || n > len(p)-next {
			return badRecord(i, "length exceeds the batch")
		}
		at = next + n
		m, ok := scanBody(p[next:at])
		if !ok {
			return badRecord(i, "fields do not fill its length")
		}
		fn(i, m)
	}
	if at != len(p) {
		return fmt.Errorf("%w: %d bytes after the last of %d records", ErrRecord, len(p)-at, count)
	}
	return nil
}

// stream reads decompressed records through a bounded buffer.
type stream struct {
	r        io.Reader
	buf      []byte
	from, to int
	left     int // decompressed bytes still allowed
	eof      bool
}

var streams = sync.Pool{New: func() any { return &stream{buf: make([]byte, streamBuffer)} }}

func openStream(r io.Reader, limit int) *stream {
	s := streams.Get().(*stream)
	s.r, s.from, s.to, s.left, s.eof = r, 0, 0, limit, false
	return s
}

func (s *stream) close() {
	s.r = nil
	if len(s.buf) > 1<<20 {
		s.buf = make([]byte, streamBuffer) // one giant record must not stay in the pool
	}
	streams.Put(s)
}

// fill makes at least n bytes available if the input has them, growing the buffer only as bytes arrive: a length that
// the input merely claims allocates nothing. It returns how many there are (may be fewer only at the end).
func (s *stream) fill(n int) (int, error) {
	for s.to-s.from < n && !s.eof {
		if s.from > 0 {
			copy(s.buf, s.buf[s.from:s.to])
			s.from, s.to = 0, s.to-s.from
		}
		if s.to == len(s.buf) {
			grown := make([]byte, min(2*len(s.buf), max(n, len(s.buf)+1)))
			copy(grown, s.buf)
			s.buf = grown
		}
		k, err := s.r.Read(s.buf[s.to:])
		s.to += k
		if s.left -= k; s.left < 0 {
			return 0, ErrInflated
		}
		if errors.Is(err, io.EOF) {
			s.eof = true
		} else if err != nil {
			return 0, fmt.Errorf("%w: %v", ErrCodec, err)
		}
	}
	return s.to - s.from, nil
}

// varint reads the next varint of the stream.
func (s *stream) varint(wide bool) (int64, int, error) {
	if _, err := s.fill(10); err != nil {
		return 0, 0, err
	}
	read := varint32
	if wide {
		read = varint
	}
	v, n := read(s.buf[s.from:s.to])
	if n == 0 {
		return 0, 0, ErrRecord
	}
	s.from += n
	return v, n, nil
}

// skip passes over n bytes without holding them.
func (s *stream) skip(n int64) error {
	for n > 0 {
		have, err := s.fill(1)
		if err != nil {
			return err
		}
		if have == 0 {
			return ErrRecord
		}
		k := min(int64(have), n)
		s.from += int(k)
		n -= k
	}
	return nil
}

// scanLong is scanBody for a record that does not fit in the buffer: n bytes are left of it.
func (s *stream) scanLong(n int64) (m recordMeta, err error) {
	field := func(wide bool, lo int64) (v int64) {
		if err != nil {
			return 0
		}
		var k int
		v, k, err = s.varint(wide)
		n -= int64(k)
		if err == nil && (n < 0 || v < lo) {
			err = ErrRecord
		}
		return v
	}
	skip := func(k int64) {
		if k <= 0 || err != nil {
			return
		}
		if n -= k; n < 0 {
			err = ErrRecord
			return
		}
		err = s.skip(k)
	}
	const anyValue = -1 << 63
	skip(1)
	m.tsDelta = field(true, anyValue)
	m.offDelta = int32(field(false, anyValue))
	k := field(false, -1)
	m.hasKey = k >= 0
	skip(k)
	skip(field(false, -1))
	for h := field(false, 0); h > 0 && err == nil; h-- {
		skip(field(false, 0))
		skip(field(false, -1))
	}
	if err == nil && n != 0 {
		err = ErrRecord
	}
	return m, err
}

// scan walks the stream like scanBytes.
func (s *stream) scan(count int32, fn func(i int32, m recordMeta)) error {
	for i := int32(0); i < count; i++ {
		n, _, err := s.varint(false)
		if err != nil || n < 0 {
			return streamErr(i, err)
		}
		var m recordMeta
		if n > streamBuffer {
			m, err = s.scanLong(n)
			if err != nil {
				return streamErr(i, err)
			}
		} else {
			have, err := s.fill(int(n))
			if err != nil || int64(have) < n {
				return streamErr(i, err)
			}
			var ok bool
			if m, ok = scanBody(s.buf[s.from : s.from+int(n)]); !ok {
				return badRecord(i, "fields do not fill its length")
			}
			s.from += int(n)
		}
		fn(i, m)
	}
	return s.end(count)
}

func (s *stream) end(count int32) error {
	have, err := s.fill(1)
	if err == nil && have > 0 {
		err = fmt.Errorf("%w: bytes after the last of %d records", ErrRecord, count)
	}
	return err
}

func streamErr(i int32, err error) error {
	if err == nil || err == ErrRecord { // bare, as this file returns it
		return badRecord(i, "cut short or malformed")
	}
	return err
}

// scan walks all records of b without keeping any. Errors wrap ErrRecord, ErrCodec or ErrInflated.
func (b Batch) scan(limit int, fn func(i int32, m recordMeta)) error {
	if b.Codec() == None {
		return scanBytes(b.Payload(), b.Count(), fn)
	}
	d, err := newDecoder(b.Codec(), b.Payload())
	if err != nil {
		return err
	}
	defer d.Close()
	s := openStream(d, limit)
	defer s.close()
	return s.scan(b.Count(), fn)
}

// Each calls fn for every record in order, decompressing if needed. The record and all it refers to are valid only during
// the call. An error of fn ends it and is returned as it is; other errors wrap ErrRecord, ErrCodec or ErrInflated. Offsets are
// absolute; after compaction they have gaps, and a batch may be empty. Each may be called from within fn.
func (b Batch) Each(lim Limits, fn func(Record) error) error {
	count := b.Count()
	if count == 0 && b.Codec() != None {
		return nil // an emptied batch has no compressed bytes at all
	}
	it := eacher{base: b.BaseOffset(), baseTs: b.BaseTimestamp(), fn: fn, logAppend: b.IsLogAppendTime(), appended: b.MaxTimestamp()}
	if b.Codec() == None {
		return it.bytes(b.Payload(), count)
	}
	d, err := newDecoder(b.Codec(), b.Payload())
	if err != nil {
		return err
	}
	defer d.Close()
	s := openStream(d, lim.max())
	defer s.close()
	return it.stream(s, count)
}

type eacher struct {
	rec          Record
	base, baseTs int64
	appended     int64
	logAppend    bool
	fn           func(Record) error
}

func (it *eacher) body(i int32, p []byte) error {
	if _, ok := scanBody(p); !ok {
		return badRecord(i, "fields do not fill its length")
	}
	parseBody(p, &it.rec, it.base, it.baseTs)
	if it.logAppend {
		it.rec.Timestamp = it.appended
	}
	return it.fn(it.rec)
}

func (it *eacher) bytes(p []byte, count int32) error {
	for i := int32(0); i < count; i++ {
		n, k := varint32(p)
		if k == 0 || n < 0 || n > int64(len(p)-k) {
			return badRecord(i, "length exceeds the batch")
		}
		if err := it.body(i, p[k:k+int(n)]); err != nil {
			return err
		}
		p = p[k+int(n):]
	}
	if len(p) != 0 {
		return fmt.Errorf("%w: %d bytes after the last of %d records", ErrRecord, len(p), count)
	}
	return nil
}

func (it *eacher) stream(s *stream, count int32) error {
	for i := int32(0); i < count; i++ {
		n, _, err := s.varint(false)
		if err != nil || n < 0 {
			return streamErr(i, err)
		}
		if n > int64(s.left)+int64(s.to-s.from) {
			return ErrInflated
		}
		have, err := s.fill(int(n))
		if err != nil || int64(have) < n {
			return streamErr(i, err)
		}
		at := s.from
		s.from += int(n)
		if err := it.body(i, s.buf[at:at+int(n)]); err != nil {
			return err
		}
	}
	return s.end(count)
}
