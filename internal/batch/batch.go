package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// Field positions in the fixed header (kafka.md 3.1). Everything is big-endian.
const (
	posBaseOffset      = 0
	posLength          = 8
	posLeaderEpoch     = 12
	posMagic           = 16
	posCRC             = 17
	posAttributes      = 21 // the checksum covers from here to the end
	posLastOffsetDelta = 23
	posBaseTimestamp   = 27
	posMaxTimestamp    = 35
	posProducerID      = 43
	posProducerEpoch   = 51
	posBaseSequence    = 53
	posCount           = 57

	// HeaderSize is the length of the fixed header, which is never compressed.
	HeaderSize = 61
	// LogOverhead is the length of base offset and length, the bytes that the length field does not count.
	LogOverhead = 12
	// PeekSizeBytes is how many leading bytes PeekSize needs.
	PeekSizeBytes = posMagic + 1
	// Magic is the only record format served.
	Magic = 2
)

// Attribute bits.
const (
	codecMask        = 0x07
	attrLogAppend    = 1 << 3
	attrTransaction  = 1 << 4
	attrControl      = 1 << 5
	attrDeleteHorizn = 1 << 6
)

// NoTimestamp is the timestamp of a record that has none; NoProducer the producer id of a batch that is not idempotent.
const (
	NoTimestamp = int64(-1)
	NoProducer  = int64(-1)
)

var (
	// ErrShort means the bytes end before the batch does: in a file the tail of a torn write, in a request a lie.
	ErrShort = errors.New("record batch is cut short")
	// ErrLength means that the length field cannot belong to a batch.
	ErrLength = errors.New("record batch length is out of range")
	// ErrMagic means a record format other than version 2.
	ErrMagic = errors.New("record batch format version is not 2")
	// ErrCRC means that the checksum does not match the bytes.
	ErrCRC = errors.New("record batch checksum does not match")
	// ErrRecord means that the records inside do not follow the format or contradict the header.
	ErrRecord = errors.New("malformed record")
	// ErrInflated means that the decompressed records exceed the bound.
	ErrInflated = errors.New("decompressed records exceed the bound")
	// ErrCodec means an unknown codec or compressed bytes that do not decompress.
	ErrCodec = errors.New("compressed records cannot be read")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Batch is exactly one record batch. The header methods need only the first HeaderSize bytes, so a reader of files may
// use them on a header alone; VerifyCRC, Payload, Each and Seal need all of it. Methods index without checking: a Batch comes from
// Next, Build or bytes whose length the caller has checked.
type Batch []byte

// PeekSize returns the whole length in bytes of the batch whose first PeekSizeBytes are given. It checks that length and
// magic are sane: ErrShort, ErrLength or ErrMagic.
func PeekSize(b []byte) (int, error) {
	if len(b) < PeekSizeBytes {
		return 0, ErrShort
	}
	n := int32(binary.BigEndian.Uint32(b[posLength:]))
	if m := b[posMagic]; m != Magic {
		return 0, fmt.Errorf("%w: %d", ErrMagic, m)
	}
	if n < HeaderSize-LogOverhead || n > math.MaxInt32-LogOverhead {
		return 0, fmt.Errorf("%w: %d", ErrLength, n)
	}
	return LogOverhead + int(n), nil
}

// Next splits the first batch off b. It checks the frame only (length and magic), not the checksum. Errors are ErrShort,
// ErrLength and ErrMagic; on ErrShort rest is b, so that a caller can count what is left over.
func Next(b []byte) (first Batch, rest []byte, err error) {
	n, err := PeekSize(b)
	if err != nil {
		return nil, b, err
	}
	if n > len(b) {
		return nil, b, ErrShort
	}
	return Batch(b[:n:n]), b[n:], nil
}

func (b Batch) i64(at int) int64 { return int64(binary.BigEndian.Uint64(b[at:])) }
func (b Batch) i32(at int) int32 { return int32(binary.BigEndian.Uint32(b[at:])) }
func (b Batch) i16(at int) int16 { return int16(binary.BigEndian.Uint16(b[at:])) }

// Size is the whole length in bytes that the header claims; for a Batch from Next or Build it equals len(b).
func (b Batch) Size() int { return LogOverhead + int(b.i32(posLength)) }

// BaseOffset is the offset of the first record as first written.
func (b Batch) BaseOffset() int64 { return b.i64(posBaseOffset) }

// LastOffset is the offset of the last record as first written; compaction may have removed that record.
func (b Batch) LastOffset() int64 { return b.BaseOffset() + int64(b.LastOffsetDelta()) }

// NextOffset is LastOffset + 1.
func (b Batch) NextOffset() int64 { return b.LastOffset() + 1 }

// LeaderEpoch is the epoch of the leader that appended the batch, -1 from a client.
func (b Batch) LeaderEpoch() int32 { return b.i32(posLeaderEpoch) }

// CRC is the stored checksum: CRC-32C from the attributes to the end.
func (b Batch) CRC() uint32 { return binary.BigEndian.Uint32(b[posCRC:]) }

// Attributes is the raw bit field.
func (b Batch) Attributes() int16 { return b.i16(posAttributes) }

// Codec is how the records are compressed.
func (b Batch) Codec() Codec { return Codec(b[posAttributes+1] & codecMask) }

// IsLogAppendTime tells whether MaxTimestamp stands for every record.
func (b Batch) IsLogAppendTime() bool { return b[posAttributes+1]&attrLogAppend != 0 }

// IsTransactional tells whether the batch is part of a transaction (markers too).
func (b Batch) IsTransactional() bool { return b[posAttributes+1]&attrTransaction != 0 }

// IsControl tells whether the batch holds control records, which clients skip.
func (b Batch) IsControl() bool { return b[posAttributes+1]&attrControl != 0 }

// DeleteHorizon is the time in milliseconds after which compaction may drop the tombstones of this batch; false if none
// has been stamped.
func (b Batch) DeleteHorizon() (int64, bool) {
	if b[posAttributes+1]&attrDeleteHorizn == 0 {
		return 0, false
	}
	return b.BaseTimestamp(), true
}

// LastOffsetDelta is LastOffset - BaseOffset.
func (b Batch) LastOffsetDelta() int32 { return b.i32(posLastOffsetDelta) }

// BaseTimestamp is what the timestamp deltas of the records add to, in milliseconds.
func (b Batch) BaseTimestamp() int64 { return b.i64(posBaseTimestamp) }

// MaxTimestamp is the largest timestamp of a record, or the append time, in milliseconds; -1 when no record has one.
func (b Batch) MaxTimestamp() int64 { return b.i64(posMaxTimestamp) }

// ProducerID is -1 when the producer is not idempotent.
func (b Batch) ProducerID() int64 { return b.i64(posProducerID) }

// ProducerEpoch is -1 when the producer is not idempotent.
func (b Batch) ProducerEpoch() int16 { return b.i16(posProducerEpoch) }

// BaseSequence is the sequence number of the first record, -1 when there is none (control batches, plain producers).
func (b Batch) BaseSequence() int32 { return b.i32(posBaseSequence) }

// LastSequence is the sequence number of the last record: BaseSequence + LastOffsetDelta, wrapping from the largest int32
// to 0; -1 when BaseSequence is.
func (b Batch) LastSequence() int32 {
	s := b.BaseSequence()
	if s < 0 {
		return -1
	}
	return AddSequence(s, b.LastOffsetDelta())
}

// Count is the number of records; 0 is possible after compaction.
func (b Batch) Count() int32 { return b.i32(posCount) }

// HasProducer tells whether the batch is idempotent or transactional.
func (b Batch) HasProducer() bool { return b.ProducerID() >= 0 }

// Payload is the record bytes after the header, compressed if Codec says so.
func (b Batch) Payload() []byte { return b[HeaderSize:] }

// SetBaseOffset writes the offset the leader assigned. It lies outside the checksum.
func (b Batch) SetBaseOffset(o int64) { binary.BigEndian.PutUint64(b[posBaseOffset:], uint64(o)) }

// SetLeaderEpoch writes the leader's epoch. It lies outside the checksum.
func (b Batch) SetLeaderEpoch(e int32) { binary.BigEndian.PutUint32(b[posLeaderEpoch:], uint32(e)) }

// VerifyCRC returns ErrCRC (with both values) unless the stored checksum matches the bytes.
func (b Batch) VerifyCRC() error {
	if got, want := crc32.Checksum(b[posAttributes:], castagnoli), b.CRC(); got != want {
		return fmt.Errorf("%w: stored %08x, computed %08x", ErrCRC, want, got)
	}
	return nil
}

// Seal computes and stores the checksum, after a change inside its range.
func (b Batch) Seal() {
	binary.BigEndian.PutUint32(b[posCRC:], crc32.Checksum(b[posAttributes:], castagnoli))
}

// setTimestamp writes the largest timestamp and the type bit; Seal must follow.
func (b Batch) setTimestamp(maxMs int64, logAppend bool) {
	binary.BigEndian.PutUint64(b[posMaxTimestamp:], uint64(maxMs))
	if logAppend {
		b[posAttributes+1] |= attrLogAppend
	} else {
		b[posAttributes+1] &^= attrLogAppend
	}
}

// AddSequence adds n to a sequence number, wrapping from the largest int32 to 0 as Kafka does.
func AddSequence(s, n int32) int32 {
	v := int64(s) + int64(n)
	if v > math.MaxInt32 {
		v -= math.MaxInt32 + 1
	}
	return int32(v)
}

// SubSequence subtracts n from a sequence number, wrapping from 0 to the largest int32.
func SubSequence(s, n int32) int32 {
	v := int64(s) - int64(n)
	if v < 0 {
		v += math.MaxInt32 + 1
	}
	return int32(v)
}
