package batch

import "encoding/binary"

// Empty is the batch without its records: base and last offset, producer, epochs, sequences and the largest timestamp stay, so
// that replay still learns of the producer and of the end of the log (kafka.md 3.6).
func (b Batch) Empty() Batch {
	h := append(Batch(nil), b[:HeaderSize]...)
	be := binary.BigEndian
	be.PutUint32(h[posLength:], HeaderSize-LogOverhead)
	h[posAttributes+1] &^= codecMask | attrDeleteHorizn
	be.PutUint64(h[posBaseTimestamp:], uint64(b.MaxTimestamp()))
	be.PutUint32(h[posCount:], 0)
	h.Seal()
	return h
}

// Filter is the batch with only the records that keep accepts, written anew with the same codec (at the given level): offsets,
// the span of the header, sequences, epochs and timestamps stay. horizonMs above 0 stamps a delete horizon; one that is there
// stays. kept is the number of records left; with none the result is nil. Errors are those of Each.
func (b Batch) Filter(level int, horizonMs int64, keep func(Record) bool) (out Batch, kept int, err error) {
	s := Spec{BaseOffset: b.BaseOffset(), LeaderEpoch: b.LeaderEpoch(), Codec: b.Codec(), Level: level, Transactional: b.IsTransactional(),
		Control: b.IsControl(), DeleteHorizon: horizonMs, Span: b.LastOffsetDelta() + 1}
	if h, ok := b.DeleteHorizon(); ok {
		s.DeleteHorizon = h
	}
	if b.IsLogAppendTime() {
		s.LogAppendMs = b.MaxTimestamp()
	}
	if b.ProducerID() != NoProducer {
		s.Producer = &ProducerInfo{ID: b.ProducerID(), Epoch: b.ProducerEpoch(), Sequence: b.BaseSequence()}
	}
	w := NewBuilder(s)
	err = b.Each(Limits{}, func(r Record) error {
		if !keep(r) {
			return nil
		}
		return w.AddAt(r.Offset, r)
	})
	out, err2 := w.Build()
	if err == nil {
		err = err2
	}
	if err != nil || w.Len() == 0 {
		return nil, 0, err
	}
	return out, w.Len(), nil
}
