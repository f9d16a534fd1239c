package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// ProducerInfo is the idempotent part of a batch header.
type ProducerInfo struct {
	ID       int64
	Epoch    int16
	Sequence int32 // of the first record; -1 for control batches
}

// Spec is the header of a batch to build. The zero value is a plain uncompressed batch at offset 0, epoch 0.
type Spec struct {
	BaseOffset    int64
	LeaderEpoch   int32
	Codec         Codec // None..Zstd
	Level         int   // Kafka's compression.<codec>.level; 0 is the codec's default
	Transactional bool
	Control       bool
	LogAppendMs   int64         // above 0: a LogAppendTime batch with this time
	Producer      *ProducerInfo // nil: not idempotent
	DeleteHorizon int64         // above 0: stamped into the base timestamp (compaction)
	Span          int32         // above 0: LastOffset is BaseOffset + Span - 1 whatever records are added (compaction)
	MaxBytes      int           // above 0: Add fails with ErrTooLarge once the result cannot stay within it
}

// ErrTooLarge is the answer of Add and Build above Spec.MaxBytes.
var ErrTooLarge = errors.New("record batch exceeds the size limit")

// flushAt is how many uncompressed bytes a builder collects before it hands them to the compressor.
const flushAt = 64 << 10

// Builder makes one batch. It belongs to one goroutine.
type Builder struct {
	spec   Spec
	out    []byte // header and finished bytes
	raw    []byte // records not yet compressed
	enc    *encoder
	count  int32
	last   int64 // offset of the last record
	base   int64 // base timestamp
	max    int64
	err    error
	haveTs bool
}

// NewBuilder starts a batch.
func NewBuilder(s Spec) *Builder {
	b := &Builder{spec: s, out: make([]byte, HeaderSize, 512), last: s.BaseOffset - 1, max: NoTimestamp, base: NoTimestamp}
	if s.DeleteHorizon > 0 {
		b.base, b.haveTs = s.DeleteHorizon, true
	}
	return b
}

// Write takes compressed bytes from the encoder; it makes Builder an io.Writer for it and is of no other use.
func (b *Builder) Write(p []byte) (int, error) {
	b.out = append(b.out, p...)
	return len(p), b.checkSize()
}

func (b *Builder) checkSize() error {
	if n := b.spec.MaxBytes; n > 0 && len(b.out) > n && b.err == nil {
		b.err = ErrTooLarge
	}
	return b.err
}

// Add appends a record at the next offset; r.Offset is ignored. Errors: ErrTooLarge, and ErrRecord past 2^31 records.
func (b *Builder) Add(r Record) error { return b.AddAt(b.last+1, r) }

// AddAt appends a record at an offset above the last one: compaction leaves gaps.
func (b *Builder) AddAt(offset int64, r Record) error {
	if b.err != nil {
		return b.err
	}
	delta := offset - b.spec.BaseOffset
	if offset <= b.last || delta > math.MaxInt32 {
		return fmt.Errorf("%w: offset %d in a batch from %d", ErrRecord, offset, b.spec.BaseOffset)
	}
	if !b.haveTs {
		b.base, b.haveTs = r.Timestamp, true
	}
	b.max = max(b.max, r.Timestamp)
	b.raw = appendRecord(b.raw, r, r.Timestamp-b.base, delta)
	b.count++
	b.last = offset
	if b.spec.Codec == None || len(b.raw) >= flushAt {
		return b.flush()
	}
	return nil
}

func (b *Builder) flush() error {
	defer func() { b.raw = b.raw[:0] }()
	if b.spec.Codec == None {
		_, err := b.Write(b.raw)
		return err
	}
	if b.enc == nil {
		b.enc = newEncoder(b.spec.Codec, b.spec.Level, b)
	}
	if _, err := b.enc.Write(b.raw); err != nil && b.err == nil {
		b.err = err
	}
	return b.err
}

// Len is the number of records added so far, Size the bytes produced so far (compressed bytes may still be pending).
func (b *Builder) Len() int { return int(b.count) }

// Size is a lower bound of the built size while a codec is in use, exact without one.
func (b *Builder) Size() int { return len(b.out) + len(b.raw) }

// Build finishes the batch. The builder must not be used afterwards. The error is ErrTooLarge or nil.
func (b *Builder) Build() (Batch, error) {
	codec := b.spec.Codec
	if b.count == 0 {
		codec = None // an empty batch carries no compressed frame
	} else if codec != None {
		_ = b.flush()
	}
	if b.enc != nil {
		if err := b.enc.Close(); err != nil && b.err == nil {
			b.err = err
		}
		b.enc = nil
	}
	if b.err != nil {
		return nil, b.err
	}
	h := Batch(b.out)
	last := b.last
	if b.spec.Span > 0 {
		last = b.spec.BaseOffset + int64(b.spec.Span) - 1
	}
	attrs := uint16(codec)
	set := func(on bool, bit uint16) {
		if on {
			attrs |= bit
		}
	}
	set(b.spec.LogAppendMs > 0, attrLogAppend)
	set(b.spec.Transactional, attrTransaction)
	set(b.spec.Control, attrControl)
	set(b.spec.DeleteHorizon > 0, attrDeleteHorizn)
	if b.spec.LogAppendMs > 0 {
		b.max = b.spec.LogAppendMs
	}
	p := ProducerInfo{ID: NoProducer, Epoch: -1, Sequence: -1}
	if b.spec.Producer != nil {
		p = *b.spec.Producer
	}
	be := binary.BigEndian
	be.PutUint64(h[posBaseOffset:], uint64(b.spec.BaseOffset))
	be.PutUint32(h[posLength:], uint32(len(h)-LogOverhead))
	be.PutUint32(h[posLeaderEpoch:], uint32(b.spec.LeaderEpoch))
	h[posMagic] = Magic
	be.PutUint16(h[posAttributes:], attrs)
	be.PutUint32(h[posLastOffsetDelta:], uint32(last-b.spec.BaseOffset))
	be.PutUint64(h[posBaseTimestamp:], uint64(b.base))
	be.PutUint64(h[posMaxTimestamp:], uint64(b.max))
	be.PutUint64(h[posProducerID:], uint64(p.ID))
	be.PutUint16(h[posProducerEpoch:], uint16(p.Epoch))
	be.PutUint32(h[posBaseSequence:], uint32(p.Sequence))
	be.PutUint32(h[posCount:], uint32(b.count))
	h.Seal()
	return h, nil
}

func varintLen(v int64) int {
	u := uint64(v<<1) ^ uint64(v>>63)
	n := 1
	for ; u >= 0x80; u >>= 7 {
		n++
	}
	return n
}

func bytesLen(p []byte) int {
	if p == nil {
		return 1
	}
	return varintLen(int64(len(p))) + len(p)
}

func appendBytes(dst, p []byte) []byte {
	if p == nil {
		return append(dst, 1) // -1
	}
	return append(binary.AppendVarint(dst, int64(len(p))), p...)
}

func appendRecord(dst []byte, r Record, tsDelta, offDelta int64) []byte {
	n := 1 + varintLen(tsDelta) + varintLen(offDelta) + bytesLen(r.Key) + bytesLen(r.Value) + varintLen(int64(len(r.Headers)))
	for _, h := range r.Headers {
		n += varintLen(int64(len(h.Key))) + len(h.Key) + bytesLen(h.Value)
	}
	dst = slices.Grow(dst, n+binary.MaxVarintLen32)
	dst = binary.AppendVarint(dst, int64(n))
	dst = append(dst, 0)
	dst = binary.AppendVarint(dst, tsDelta)
	dst = binary.AppendVarint(dst, offDelta)
	dst = appendBytes(dst, r.Key)
	dst = appendBytes(dst, r.Value)
	dst = binary.AppendVarint(dst, int64(len(r.Headers)))
	for _, h := range r.Headers {
		dst = binary.AppendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendBytes(dst, h.Value)
	}
	return dst
}
