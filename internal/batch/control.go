package batch

import (
	"encoding/binary"
	"fmt"
)

// ControlType is the type of a control record.
type ControlType int16

// The control records a partition may hold; other types belong to Kafka's own metadata log.
const (
	Abort  ControlType = 0
	Commit ControlType = 1
)

// Marker is a transaction marker: one control record that ends a producer's transaction in a partition.
type Marker struct {
	Type             ControlType
	CoordinatorEpoch int32
	TimestampMs      int64
}

// BuildMarker makes the control batch of a marker.
func BuildMarker(producerID int64, producerEpoch int16, m Marker) Batch {
	b := NewBuilder(Spec{Control: true, Transactional: true, Producer: &ProducerInfo{ID: producerID, Epoch: producerEpoch, Sequence: -1}})
	var key [4]byte // version 0, type
	binary.BigEndian.PutUint16(key[2:], uint16(m.Type))
	var val [6]byte // version 0, coordinator epoch
	binary.BigEndian.PutUint32(val[2:], uint32(m.CoordinatorEpoch))
	_ = b.Add(Record{Timestamp: m.TimestampMs, Key: key[:], Value: val[:]}) // cannot fail without a size limit
	out, _ := b.Build()
	return out
}

// Marker reads the transaction marker of a control batch. ok is false for an emptied control batch and for control
// records that are not transaction markers; the error wraps ErrRecord when the record is malformed.
func (b Batch) Marker() (m Marker, ok bool, err error) {
	if !b.IsControl() || b.Count() == 0 {
		return m, false, nil
	}
	first := true
	err = b.Each(Limits{MaxBytes: 1 << 20}, func(r Record) error {
		if !first {
			return nil
		}
		first = false
		if len(r.Key) < 4 {
			return fmt.Errorf("%w: control key of %d bytes", ErrRecord, len(r.Key))
		}
		m.Type = ControlType(binary.BigEndian.Uint16(r.Key[2:]))
		if m.Type != Abort && m.Type != Commit {
			return nil
		}
		if len(r.Value) < 6 {
			return fmt.Errorf("%w: marker value of %d bytes", ErrRecord, len(r.Value))
		}
		m.CoordinatorEpoch = int32(binary.BigEndian.Uint32(r.Value[2:]))
		m.TimestampMs = r.Timestamp
		ok = true
		return nil
	})
	return m, ok && err == nil, err
}
