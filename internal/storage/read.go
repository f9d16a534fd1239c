package storage

import (
	"errors"
	"fmt"
	"io"
	"math"
	"sort"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/vfs"
)

// Slice is a range of whole batches in one segment file. The holder must Release it once; until then the
// file stays open, even when its segment is deleted.
type Slice struct {
	File vfs.File // nil when there is nothing to read
	Pos  int64    // position in the file
	Len  int64    // bytes
	Next int64    // the offset to ask for next
	f    *file
}

// Release gives the file back. The zero Slice may be released.
func (s Slice) Release() {
	if s.f != nil {
		_ = s.f.release() // a descriptor used for reading; a failed close loses nothing
	}
}

// Bytes appends the bytes of the slice to dst.
func (s Slice) Bytes(dst []byte) ([]byte, error) {
	if s.Len == 0 {
		return dst, nil
	}
	n := len(dst)
	dst = append(dst, make([]byte, s.Len)...)
	m, err := s.File.ReadAt(dst[n:], s.Pos)
	if int64(m) == s.Len {
		return dst, nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return dst[:n], err
}

// Read finds the batches from the one that holds offset from, at most maxBytes of them and only below bound
// (high watermark, last stable offset or log end). With atLeastOne the first batch is included whatever its size.
// ErrOutOfRange when from is outside [Start, End]; an empty slice when nothing lies between from and bound.
func (l *Log) Read(from int64, maxBytes int, bound int64, atLeastOne bool) (Slice, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed != nil {
		return Slice{}, l.mu.closed
	}
	end := l.end.Load()
	if from < l.start.Load() || from > end {
		return Slice{}, fmt.Errorf("read %s at %d: %w [%d, %d]", l.tp, from, ErrOutOfRange, l.start.Load(), end)
	}
	bound = min(bound, end)
	segs := l.mu.segs
	i := max(0, sort.Search(len(segs), func(i int) bool { return segs[i].base > from })-1)
	for ; i < len(segs) && from < bound; i++ {
		s := segs[i]
		if s.size == 0 || s.base >= bound {
			continue
		}
		out, err := l.readSegmentLocked(i, from, maxBytes, bound, atLeastOne)
		if err != nil {
			return Slice{}, fmt.Errorf("read %s at %d: %w", l.tp, from, err)
		}
		if out.Len > 0 || out.Next == from {
			return out, nil
		}
	}
	return Slice{Next: from}, nil
}

// readSegmentLocked answers Len 0 and Next -1 when the segment ends before from (the records there were compacted away).
func (l *Log) readSegmentLocked(i int, from int64, maxBytes int, bound int64, atLeastOne bool) (Slice, error) {
	s := l.mu.segs[i]
	f, err := l.fileLocked(s)
	if err != nil {
		return Slice{}, err
	}
	out, err := l.rangeLocked(i, f, from, maxBytes, bound, atLeastOne)
	if err != nil && isData(err) {
		// Either the index points into the middle of a batch, then it is built anew, or the log is damaged.
		if err = l.rebuildIndexesLocked(s, f); err == nil {
			out, err = l.rangeLocked(i, f, from, maxBytes, bound, atLeastOne)
		}
	}
	if err != nil && isData(err) {
		err = corrupt("segment %d: %w", s.base, err)
	}
	if err != nil || out.Len == 0 {
		return out, errors.Join(err, f.release())
	}
	out.File, out.f = f.File, f
	if out.Next > 0 {
		l.mu.hint = 1 - l.mu.hint
		l.mu.hints[l.mu.hint] = hint{s.base, out.Next, out.Pos + out.Len}
	}
	return out, nil
}

// rangeLocked finds the positions of a read in one segment.
func (l *Log) rangeLocked(i int, f *file, from int64, maxBytes int, bound int64, atLeastOne bool) (Slice, error) {
	s := l.mu.segs[i]
	pos, first, size, err := l.locateLocked(i, f, from)
	if err != nil {
		return Slice{}, err
	}
	if pos >= s.size {
		return Slice{Next: -1}, nil
	}
	if first >= bound {
		return Slice{Next: from}, nil
	}
	limit := s.size
	next := l.segmentEndLocked(i)
	if bound < next {
		var start int64
		if limit, start, _, err = l.locateLocked(i, f, bound); err != nil {
			return Slice{}, err
		}
		next = bound
		if limit < s.size && start < bound {
			next = start // the bound lies inside a batch: that batch is left out
		}
	}
	if limit-pos > int64(maxBytes) {
		if size > int64(maxBytes) {
			if !atLeastOne || pos+size > limit {
				return Slice{Next: from}, nil
			}
			maxBytes = int(size)
		}
		if limit, next, err = l.cutLocked(s, f, pos, pos+int64(maxBytes), limit); err != nil {
			return Slice{}, err
		}
	}
	if limit <= pos {
		return Slice{Next: from}, nil
	}
	return Slice{Pos: pos, Len: limit - pos, Next: next}, nil
}

// segmentEndLocked is the offset after a segment.
func (l *Log) segmentEndLocked(i int) int64 {
	if i == len(l.mu.segs)-1 {
		return l.end.Load()
	}
	return l.mu.segs[i+1].base
}

// locateLocked finds the first batch whose last offset is at or above target: its position, first offset
// and size. At the end of the segment it answers the segment's size.
func (l *Log) locateLocked(i int, f *file, target int64) (pos, first, size int64, err error) {
	s := l.mu.segs[i]
	if target >= l.segmentEndLocked(i) {
		return s.size, target, 0, nil
	}
	if pos, err = l.floorLocked(i, target); err != nil {
		return 0, 0, 0, err
	}
	w := newWalker(f, pos, s.size)
	defer w.close()
	before := int64(-1)
	for {
		h, n, err := w.header()
		if errors.Is(err, io.EOF) {
			return s.size, target, 0, nil
		}
		if err != nil {
			return 0, 0, 0, err
		}
		if h.BaseOffset() > target && before >= 0 {
			// A hole: compaction leaves them, and so does a damaged offset delta. The checksum tells which.
			if err := verifyAt(f, before, w.pos); err != nil {
				return 0, 0, 0, err
			}
		}
		if w.pos == pos && pos > 0 && h.BaseOffset() > target {
			return 0, 0, 0, fmt.Errorf("index says position %d for offset %d, the batch there begins at %d", pos, target, h.BaseOffset())
		}
		if h.LastOffset() >= l.segmentEndLocked(i) {
			return 0, 0, 0, fmt.Errorf("batch at position %d ends at offset %d, the segment at %d", w.pos, h.LastOffset(), l.segmentEndLocked(i))
		}
		if h.LastOffset() >= target {
			return w.pos, h.BaseOffset(), n, nil
		}
		before = w.pos
		w.pos += n
	}
}

// verifyAt checks the checksum of the batch between two positions.
func verifyAt(f io.ReaderAt, pos, end int64) error {
	_, err := scanBatches(f, pos, end, func(b batch.Batch, _ int64) error { return b.VerifyCRC() })
	return err
}

// floorLocked is a position at or before the batch that holds target, as near as memory and index know.
func (l *Log) floorLocked(i int, target int64) (int64, error) {
	s := l.mu.segs[i]
	best := mark{s.base, 0}
	if i == len(l.mu.segs)-1 {
		m := l.mu.marks
		if j := sort.Search(len(m), func(j int) bool { return m[j].off > target }); j > 0 {
			return m[j-1].pos, nil
		}
	}
	for _, h := range l.mu.hints {
		if h.base == s.base && h.off == target && h.pos < s.size {
			return h.pos, nil
		}
	}
	_, b, ok, err := s.index.search(l.dir.fs, l.segPath(s.base, extIndex), func(a, _ int64) bool { return s.base+a <= target })
	if err != nil {
		return 0, err
	}
	if ok && b < s.size {
		best.pos = b
	}
	return best.pos, nil
}

// cutLocked finds the last batch end at or below upper, walking from the nearest known batch start; lo is a batch start.
func (l *Log) cutLocked(s *segment, f *file, lo, upper, limit int64) (pos, next int64, err error) {
	_, b, ok, err := s.index.search(l.dir.fs, l.segPath(s.base, extIndex), func(_, b int64) bool { return b <= upper })
	if err != nil {
		return 0, 0, err
	}
	if ok && b > lo {
		lo = b
	}
	w := newWalker(f, lo, limit)
	defer w.close()
	next = -1
	for {
		h, n, err := w.header()
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		if err == nil && next < 0 {
			next = h.BaseOffset() // where the walk began: everything before it fits
		}
		if err != nil || w.pos+n > upper {
			return w.pos, next, nil
		}
		next = h.NextOffset()
		w.pos += n
	}
}

// LookupTime finds the first record whose timestamp is at or above ts and whose offset is below bound.
func (l *Log) LookupTime(ts, bound int64) (offset, timestamp int64, epoch int32, ok bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.mu.segs {
		if err := l.knowLocked(i); err != nil {
			return 0, 0, 0, false, err
		}
		if s.maxTs < ts || s.size == 0 {
			continue
		}
		off, t, e, found, err := l.timeInSegmentLocked(i, ts, bound, false)
		if err != nil || found {
			return off, t, e, found, err
		}
	}
	return 0, 0, 0, false, nil
}

// MaxTimestamp is the record with the largest timestamp below bound, the earliest of equals (ListOffsets -3).
func (l *Log) MaxTimestamp(bound int64) (offset, timestamp int64, epoch int32, ok bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	best, max := -1, int64(-1)
	for i, s := range l.mu.segs {
		if err := l.knowLocked(i); err != nil {
			return 0, 0, 0, false, err
		}
		if s.maxTs > max && s.base < bound {
			best, max = i, s.maxTs
		}
	}
	if best < 0 {
		return 0, 0, 0, false, nil
	}
	return l.timeInSegmentLocked(best, max, bound, true)
}

// timeInSegmentLocked walks from the time index's floor to the first batch that reaches ts, then its records.
func (l *Log) timeInSegmentLocked(i int, ts, bound int64, exact bool) (offset, timestamp int64, epoch int32, ok bool, err error) {
	s := l.mu.segs[i]
	f, err := l.fileLocked(s)
	if err != nil {
		return 0, 0, 0, false, err
	}
	defer func() { err = errors.Join(err, f.release()) }()
	from := max(s.base, l.start.Load())
	// The entry's offset belongs to a batch whose timestamp is below ts, so the answer lies after it.
	_, b, found, err := s.times.search(l.dir.fs, l.segPath(s.base, extTime), func(a, _ int64) bool { return a < ts })
	if err != nil {
		return 0, 0, 0, false, err
	}
	if found {
		from = max(from, s.base+b)
	}
	pos, _, _, err := l.locateLocked(i, f, from)
	if err != nil {
		return 0, 0, 0, false, err
	}
	w := newWalker(f, pos, s.size)
	defer w.close()
	var buf []byte
	for {
		h, n, err := w.header()
		if errors.Is(err, io.EOF) {
			return 0, 0, 0, false, nil
		}
		if err != nil {
			return 0, 0, 0, false, corrupt("segment %d: %w", s.base, err)
		}
		if h.BaseOffset() >= bound {
			return 0, 0, 0, false, nil
		}
		if h.MaxTimestamp() >= ts && h.LastOffset() >= l.start.Load() {
			if buf, err = w.full(n, buf); err != nil {
				return 0, 0, 0, false, err
			}
			if offset, timestamp, ok, err = recordAt(buf, ts, l.start.Load(), bound); err != nil || ok {
				return offset, timestamp, batch.Batch(buf).LeaderEpoch(), ok, err
			}
		}
		w.pos += n
	}
}

var errFound = errors.New("found")

// recordAt is the first record of a batch with a timestamp at or above ts in [start, bound).
func recordAt(b batch.Batch, ts, start, bound int64) (offset, timestamp int64, ok bool, err error) {
	if b.IsLogAppendTime() {
		offset = max(b.BaseOffset(), start)
		return offset, b.MaxTimestamp(), offset < bound, nil
	}
	err = b.Each(batch.Limits{}, func(r batch.Record) error {
		if r.Timestamp >= ts && r.Offset >= start && r.Offset < bound {
			offset, timestamp, ok = r.Offset, r.Timestamp, true
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return offset, timestamp, ok, err
}

// fileLocked is a segment's file with a reference for the caller. Files of closed segments stay open
// until housekeeping finds them unused; past the directory's limit they belong to the caller alone.
func (l *Log) fileLocked(s *segment) (*file, error) {
	s.used = true
	if s.f != nil {
		return s.f.retain(), nil
	}
	if s.lazy {
		return nil, fmt.Errorf("segment %d: %w", s.base, ErrOutOfRange)
	}
	raw, err := l.dir.fs.OpenFile(l.segPath(s.base, extLog), vfs.ReadWrite, filePerm)
	if err != nil {
		return nil, err
	}
	f := newFile(raw)
	if s != l.activeLocked() {
		if l.dir.sealedOpen.Add(1) > int64(l.dir.maxOpen) {
			l.dir.sealedOpen.Add(-1)
			return f, nil
		}
		s.counted = true
	}
	s.f = f
	return f.retain(), nil
}

// knowLocked reads the largest timestamp of a closed segment when it is first needed: its last time index entry.
func (l *Log) knowLocked(i int) error {
	s := l.mu.segs[i]
	if s.known {
		return nil
	}
	n, a, b, whole, err := readIndex(l.dir.fs, l.segPath(s.base, extTime), timeEntry, func(a, b int64) bool { return a >= 0 })
	if err != nil {
		return err
	}
	f, err := l.fileLocked(s)
	if err != nil {
		return err
	}
	defer func() { _ = f.release() }()
	if whole && n == s.times.n && n > 0 {
		// Retention deletes by this number, so it is compared with the batch it comes from.
		if pos, _, size, err := l.locateLocked(i, f, s.base+b); err == nil && size > 0 {
			w := newWalker(f, pos, s.size)
			defer w.close()
			if h, _, err := w.header(); err == nil && h.MaxTimestamp() == a {
				s.known, s.maxTs, s.maxTsOff, s.times.last = true, a, s.base+b, a
				return nil
			}
		}
	}
	return l.rebuildIndexesLocked(s, f)
}

// rebuildIndexesLocked builds both indexes of a segment again from its bytes, checking every checksum.
func (l *Log) rebuildIndexesLocked(s *segment, f *file) error {
	n := newSegment(s.base, s.created)
	if err := l.scanInto(n, f, s.size); err != nil {
		return err
	}
	for _, ext := range []string{extIndex, extTime} {
		if err := writeFile(l.dir.fs, l.segPath(s.base, ext), nil, false); err != nil {
			return l.dir.fail("rebuild index of "+l.tp.String(), err)
		}
	}
	n.addTime()
	s.index, s.times = n.index, n.times
	if err := l.writeIndexesLocked(s); err != nil {
		return l.dir.fail("rebuild index of "+l.tp.String(), err)
	}
	s.maxTs, s.maxTsOff, s.firstTs = n.maxTs, n.maxTsOff, n.firstTs
	s.known, s.checked = true, true
	return nil
}

// scanInto walks size bytes of a segment file, checking each batch, and notes them in n.
func (l *Log) scanInto(n *segment, f io.ReaderAt, size int64) error {
	next := n.base
	interval := int64(l.mu.cfg.IndexIntervalBytes)
	at, err := scanBatches(f, 0, size, func(b batch.Batch, pos int64) error {
		if err := checkBatch(b, n.base, next); err != nil {
			return err
		}
		n.note(pos, int64(len(b)), b.LastOffset(), b.MaxTimestamp(), interval)
		next = b.NextOffset()
		return nil
	})
	if err != nil && isData(err) {
		return corrupt("segment %d, position %d: %w", n.base, at, err)
	}
	return err
}

// checkBatch is what recovery demands of a batch by itself: checksum, and an offset at or after next that its segment can index.
func checkBatch(b batch.Batch, base, next int64) error {
	if err := b.VerifyCRC(); err != nil {
		return err
	}
	if b.BaseOffset() < next || b.LastOffset()-base > math.MaxInt32 {
		return fmt.Errorf("batch of offsets %d to %d where %d is next: %w", b.BaseOffset(), b.LastOffset(), next, ErrOrder)
	}
	return nil
}

// scanBatches calls fn with every whole batch between two positions, reading large pieces. It stops at the first bytes
// that are no batch, or at an error of fn, and answers the position of the first batch not accepted.
func scanBatches(f io.ReaderAt, from, to int64, fn func(b batch.Batch, pos int64) error) (int64, error) {
	buf := make([]byte, min(to-from, 1<<20))
	for pos := from; pos < to; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), to-pos)], pos)
		if n == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				err = batch.ErrShort
			}
			return pos, err
		}
		rest := buf[:n]
		for len(rest) > 0 {
			b, r, err := batch.Next(rest)
			if errors.Is(err, batch.ErrShort) {
				break
			}
			if err == nil && (b.BaseOffset() < 0 || b.LastOffsetDelta() < 0 || b.BaseOffset() > math.MaxInt64-math.MaxInt32) {
				err = fmt.Errorf("batch has offsets %d +%d: %w", b.BaseOffset(), b.LastOffsetDelta(), ErrOrder)
			}
			if err == nil {
				err = fn(b, pos)
			}
			if err != nil {
				return pos, err
			}
			pos += int64(len(b))
			rest = r
		}
		if len(rest) < n {
			continue // progress: read on from the first batch that was cut by the buffer
		}
		want := int64(len(rest)) + 1
		if len(rest) >= batch.PeekSizeBytes {
			if size, err := batch.PeekSize(rest); err == nil {
				want = int64(size)
			}
		}
		if want > to-pos || want <= int64(len(buf)) {
			return pos, batch.ErrShort
		}
		buf = make([]byte, want) // a batch larger than the buffer; the file has at least that many bytes left
	}
	return to, nil
}
