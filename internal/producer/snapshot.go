package producer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The file of kafka.md 3.7: version int16, CRC-32C of what follows, count int32, then the entries. Behind them, where Kafka
// looks no more, lie the batches before each producer's newest one: count int32, then id, sequence, offset, delta, timestamp.
const (
	snapshotVersion = 1
	headSize        = 2 + 4 + 4
	entrySize       = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8
	olderSize       = 8 + 4 + 8 + 4 + 8
)

// ErrSnapshot means that a snapshot file cannot be trusted: the caller deletes it and takes the next older one.
var ErrSnapshot = errors.New("producer snapshot is corrupt")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Snapshot appends the table in Kafka's file format to dst, and behind it the older batches of the window, if there are any: a
// producer that waited for several answers when the broker went repeats all of them, and the first one repeated is not its newest.
// Refused as out of order, it would begin a new epoch and send again what is in the log (test/cluster/run chaos).
func (t *Table) Snapshot(dst []byte) []byte {
	be := binary.BigEndian
	start := len(dst)
	dst = be.AppendUint16(dst, snapshotVersion)
	dst = be.AppendUint32(dst, 0)
	dst = be.AppendUint32(dst, uint32(len(t.producers)))
	for _, s := range t.Active() {
		e := t.producers[s.ID]
		delta, ts := int32(0), e.timestamp
		if e.has {
			delta = e.newest.delta
		}
		dst = be.AppendUint64(dst, uint64(s.ID))
		dst = be.AppendUint16(dst, uint16(s.Epoch))
		dst = be.AppendUint32(dst, uint32(s.LastSequence))
		dst = be.AppendUint64(dst, uint64(s.LastOffset))
		dst = be.AppendUint32(dst, uint32(delta))
		dst = be.AppendUint64(dst, uint64(ts))
		dst = be.AppendUint32(dst, uint32(s.CoordinatorEpoch))
		dst = be.AppendUint64(dst, uint64(s.TxnStart))
	}
	dst = t.appendOlder(dst)
	be.PutUint32(dst[start+2:], crc32.Checksum(dst[start+6:], castagnoli))
	return dst
}

func (t *Table) appendOlder(dst []byte) []byte {
	be := binary.BigEndian
	at, n := len(dst), uint32(0)
	dst = be.AppendUint32(dst, 0)
	for _, s := range t.Active() {
		for _, o := range t.producers[s.ID].older {
			dst = be.AppendUint64(dst, uint64(s.ID))
			dst = be.AppendUint32(dst, uint32(o.lastSeq))
			dst = be.AppendUint64(dst, uint64(o.last))
			dst = be.AppendUint32(dst, uint32(o.delta))
			dst = be.AppendUint64(dst, uint64(o.timestamp))
			n++
		}
	}
	if n == 0 {
		return dst[:at]
	}
	be.PutUint32(dst[at:], n)
	return dst
}

// loadOlder takes the older batches in. Each belongs to a producer that has a newest one, and comes before it.
func (t *Table) loadOlder(b []byte) error {
	if len(b) == 0 {
		return nil // none, or Kafka's own file
	}
	be := binary.BigEndian
	if len(b) < 4 || int64(int32(be.Uint32(b)))*olderSize != int64(len(b)-4) || len(b) == 4 {
		return fmt.Errorf("%w: %d bytes behind the entries", ErrSnapshot, len(b))
	}
	for b = b[4:]; len(b) > 0; b = b[olderSize:] {
		id := int64(be.Uint64(b))
		s := sent{lastSeq: int32(be.Uint32(b[8:])), last: int64(be.Uint64(b[12:])), delta: int32(be.Uint32(b[20:])), timestamp: int64(be.Uint64(b[24:]))}
		e := t.producers[id]
		if e == nil || !e.has || len(e.older) == window-1 || s.last < 0 || s.last >= e.newest.last || len(e.older) > 0 && s.last <= e.older[len(e.older)-1].last {
			return fmt.Errorf("%w: an older batch of producer %d up to offset %d", ErrSnapshot, id, s.last)
		}
		e.older = append(e.older, s)
	}
	return nil
}

// Load replaces the table by a snapshot. On an error, which wraps ErrSnapshot, the table is empty.
func (t *Table) Load(b []byte) error {
	t.Reset()
	be := binary.BigEndian
	if len(b) < headSize {
		return fmt.Errorf("%w: %d bytes", ErrSnapshot, len(b))
	}
	if v := be.Uint16(b); v != snapshotVersion {
		return fmt.Errorf("%w: version %d", ErrSnapshot, v)
	}
	if got, want := crc32.Checksum(b[6:], castagnoli), be.Uint32(b[2:]); got != want {
		return fmt.Errorf("%w: checksum %08x, computed %08x", ErrSnapshot, want, got)
	}
	n := int64(int32(be.Uint32(b[6:])))
	if b = b[headSize:]; n < 0 || n*entrySize > int64(len(b)) {
		return fmt.Errorf("%w: %d entries in %d bytes", ErrSnapshot, n, len(b))
	}
	older := b[n*entrySize:]
	b = b[:n*entrySize]
	t.producers = make(map[int64]*entry, n)
	for ; len(b) > 0; b = b[entrySize:] {
		id := int64(be.Uint64(b))
		if id < 0 || t.producers[id] != nil {
			t.Reset()
			return fmt.Errorf("%w: producer id %d", ErrSnapshot, id)
		}
		e := t.entry(id)
		e.epoch = int16(be.Uint16(b[8:]))
		s := sent{lastSeq: int32(be.Uint32(b[10:])), last: int64(be.Uint64(b[14:])), delta: int32(be.Uint32(b[22:])), timestamp: int64(be.Uint64(b[26:]))}
		e.timestamp, e.coord = s.timestamp, int32(be.Uint32(b[34:]))
		if s.last >= 0 {
			e.newest, e.has = s, true
		}
		if first := int64(be.Uint64(b[38:])); first >= 0 {
			e.txnStart = first
			t.begin(id, first)
		}
	}
	if err := t.loadOlder(older); err != nil {
		t.Reset()
		return err
	}
	return nil
}
