package storage

import (
	"crypto/sha256"
	"encoding/binary"
)

// keyMap maps hashes of keys to the newest offset seen. Its memory is fixed when it is made. 128 bits of SHA-256 stand for a
// key: an accidental match would drop a live record, and keys are chosen by strangers, so the hash must resist being steered.
type keyMap struct {
	slots []keySlot
	n     int
	limit int // entries at which it is full: 0.9 of the slots, so that probing stays short
}

type keySlot struct {
	hi, lo uint64
	next   int64 // offset + 1; 0 is an empty slot
}

const keySlotBytes = 24

// newKeyMap makes room for want entries, within a number of bytes.
func newKeyMap(bytes int64, want int64) *keyMap {
	slots := max(min(bytes/keySlotBytes, want+want/8+16), 16)
	return &keyMap{slots: make([]keySlot, slots), limit: int(slots * 9 / 10)}
}

// room tells whether n more keys fit.
func (m *keyMap) room(n int) bool { return m.n+n <= m.limit }

func keyHash(key []byte) (hi, lo uint64) {
	h := sha256.Sum256(key)
	return binary.BigEndian.Uint64(h[:]), binary.BigEndian.Uint64(h[8:])
}

func (m *keyMap) slot(hi, lo uint64) *keySlot {
	for i := hi % uint64(len(m.slots)); ; i++ {
		if i == uint64(len(m.slots)) {
			i = 0
		}
		s := &m.slots[i]
		if s.next == 0 || s.hi == hi && s.lo == lo {
			return s
		}
	}
}

// put notes an offset of a key; offsets come rising. The caller has checked room.
func (m *keyMap) put(key []byte, offset int64) {
	hi, lo := keyHash(key)
	s := m.slot(hi, lo)
	if s.next == 0 {
		m.n++
		s.hi, s.lo = hi, lo
	}
	s.next = offset + 1
}

// newest is the largest offset noted for a key, -1 when none.
func (m *keyMap) newest(key []byte) int64 { return m.slot(keyHash(key)).next - 1 }
