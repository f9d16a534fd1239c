package history

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// ValueSize is the smallest value in bytes: magic, writer, sequence, checksum.
const ValueSize = 4 + 4 + 8 + 4

var (
	valueMagic = [4]byte{'m', 'h', 'v', '1'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// id is one value of the history: writer and sequence plus one, so that zero says "nothing".
type id uint64

// maxWriters and maxSeq are what an id has room for.
const (
	maxWriters = 1 << 20
	maxSeq     = 1<<44 - 2
)

func newID(writer uint32, seq uint64) id { return id(uint64(writer)<<44 | (seq + 1)) }

func (v id) writer() uint32 { return uint32(v >> 44) }
func (v id) seq() uint64    { return uint64(v)&(1<<44-1) - 1 }

func (v id) String() string {
	if v == 0 {
		return "nothing"
	}
	return fmt.Sprintf("writer %d seq %d", v.writer(), v.seq())
}

// encodeValue writes a value that proves itself: a reader sees whose it is, which one, and that no byte
// changed. The filling depends on both, so that two values never share their bytes.
func encodeValue(writer uint32, seq uint64, size int) []byte {
	size = max(size, ValueSize)
	b := make([]byte, size)
	copy(b, valueMagic[:])
	binary.BigEndian.PutUint32(b[4:], writer)
	binary.BigEndian.PutUint64(b[8:], seq)
	x := uint64(writer)<<32 ^ seq | 1
	for i := 16; i < size-4; i++ {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	binary.BigEndian.PutUint32(b[size-4:], crc32.Checksum(b[:size-4], castagnoli))
	return b
}

// decodeValue is strict: whatever encodeValue did not write is an error.
func decodeValue(b []byte) (id, error) {
	if len(b) < ValueSize || [4]byte(b[:4]) != valueMagic {
		return 0, fmt.Errorf("%d bytes that no writer sent", len(b))
	}
	if crc32.Checksum(b[:len(b)-4], castagnoli) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return 0, fmt.Errorf("%d bytes with a wrong checksum", len(b))
	}
	w, s := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:])
	if w >= maxWriters || s > maxSeq {
		return 0, fmt.Errorf("writer %d seq %d: no such writer", w, s)
	}
	return newID(w, s), nil
}
