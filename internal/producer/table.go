package producer

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/twmb/franz-go/pkg/kerr"
)

// window is how many batches of a producer are remembered: Kafka's producers keep at most five requests in flight.
const window = 5

// noTxn is the first offset of no transaction.
const noTxn = int64(-1)

// sent is one remembered batch.
type sent struct {
	last      int64 // offset of the last record
	timestamp int64
	lastSeq   int32
	delta     int32 // last offset - first offset
}

func (s sent) firstSeq() int32 { return batch.SubSequence(s.lastSeq, s.delta) }

// entry is one producer. The newest batch is inline, the four before it are allocated only for producers that get there: most of
// 100,000 producers send little.
type entry struct {
	newest    sent
	older     []sent // oldest first
	txnStart  int64  // first offset of the open transaction, noTxn when none
	timestamp int64  // of the newest batch or marker
	coord     int32  // newest coordinator epoch, -1 when no marker was seen
	epoch     int16
	has       bool // newest is set
}

func (e *entry) forget() { e.has, e.older = false, nil }

func (e *entry) add(s sent) {
	if e.has {
		if len(e.older) == window-1 {
			e.older = append(e.older[:0], e.older[1:]...)
		}
		e.older = append(e.older, e.newest)
	}
	e.newest, e.has = s, true
}

func (e *entry) lastSeq() int32 {
	if !e.has {
		return -1
	}
	return e.newest.lastSeq
}

// find returns the remembered batch with exactly these sequences.
func (e *entry) find(first, last int32) (sent, bool) {
	if !e.has {
		return sent{}, false
	}
	if e.newest.lastSeq == last && e.newest.firstSeq() == first {
		return e.newest, true
	}
	for _, s := range e.older {
		if s.lastSeq == last && s.firstSeq() == first {
			return s, true
		}
	}
	return sent{}, false
}

// Table is one partition's producers. The zero value is empty and ready.
type Table struct {
	producers map[int64]*entry
	open      []Txn // open transactions by first offset
	done      []Txn // completed, their marker not yet below the high watermark; by first offset
}

// Verdict is the answer to a batch that is acceptable or was accepted before.
type Verdict struct {
	Duplicate  bool
	BaseOffset int64 // of the original, for a duplicate
	LastOffset int64
	Timestamp  int64 // largest timestamp of the original
}

// State is one producer as DescribeProducers and compaction see it.
type State struct {
	ID               int64
	LastOffset       int64 // of its last data batch, -1 when the last thing it wrote is a marker
	LastTimestamp    int64
	TxnStart         int64 // first offset of the open transaction, -1 when none
	LastSequence     int32 // -1 when none
	CoordinatorEpoch int32 // -1 when no marker was seen
	Epoch            int16
}

// Len is the number of producers known.
func (t *Table) Len() int { return len(t.producers) }

// Check decides whether a batch may be appended; it changes nothing. Errors are kerr codes with the numbers that disagree:
// INVALID_PRODUCER_EPOCH, OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_TXN_STATE, and for markers TRANSACTION_COORDINATOR_FENCED. A
// marker is judged by the rules before transaction version 2; CheckMarker has both. now is not needed today: expiry is Expire's.
func (t *Table) Check(b batch.Batch, now int64) (Verdict, error) {
	if !b.HasProducer() {
		return Verdict{}, nil
	}
	if b.IsControl() {
		return Verdict{}, t.CheckMarker(b, 1)
	}
	e := t.producers[b.ProducerID()]
	if e == nil { // state may have expired or been trimmed, so any sequence is good
		return Verdict{}, nil
	}
	epoch, first, last := b.ProducerEpoch(), b.BaseSequence(), b.LastSequence()
	if first < 0 {
		// The offsets of a transaction, written by a group coordinator: no sequences, no repeats, only the epoch counts.
		if epoch < e.epoch {
			return Verdict{}, fmt.Errorf("%w: producer %d has epoch %d, the partition knows %d", kerr.InvalidProducerEpoch, b.ProducerID(), epoch, e.epoch)
		}
		return Verdict{}, nil
	}
	if epoch == e.epoch {
		if s, ok := e.find(first, last); ok {
			return Verdict{Duplicate: true, BaseOffset: s.last - int64(s.delta), LastOffset: s.last, Timestamp: s.timestamp}, nil
		}
	}
	switch {
	case epoch < e.epoch:
		return Verdict{}, fmt.Errorf("%w: producer %d has epoch %d, the partition knows %d", kerr.InvalidProducerEpoch, b.ProducerID(), epoch, e.epoch)
	case epoch > e.epoch && first != 0:
		return Verdict{}, fmt.Errorf("%w: producer %d starts epoch %d with sequence %d, not 0", kerr.OutOfOrderSequenceNumber, b.ProducerID(), epoch, first)
	case epoch == e.epoch && !follows(e.lastSeq(), first):
		return Verdict{}, fmt.Errorf("%w: producer %d sent sequence %d after %d", kerr.OutOfOrderSequenceNumber, b.ProducerID(), first, e.lastSeq())
	case e.txnStart != noTxn && !b.IsTransactional():
		return Verdict{}, fmt.Errorf("%w: producer %d sent a plain batch while its transaction from offset %d is open", kerr.InvalidTxnState, b.ProducerID(), e.txnStart)
	}
	return Verdict{}, nil
}

func follows(last, next int32) bool {
	return int64(next) == int64(last)+1 || next == 0 && last == math.MaxInt32
}

// CheckMarker decides whether a transaction marker may be appended. From transaction version 2 on its epoch must be above the
// one stored; an equal one passes only when no transaction is open, as a retry (KAFKA-19999).
func (t *Table) CheckMarker(b batch.Batch, txnVersion int16) error {
	m, ok, err := b.Marker()
	if err != nil {
		return errors.Join(kerr.InvalidRecord, err)
	}
	e := t.producers[b.ProducerID()]
	if !ok || e == nil {
		return nil
	}
	epoch := b.ProducerEpoch()
	if m.CoordinatorEpoch < e.coord {
		return fmt.Errorf("%w: marker of coordinator epoch %d, the partition knows %d", kerr.TransactionCoordinatorFenced, m.CoordinatorEpoch, e.coord)
	}
	if epoch < e.epoch || txnVersion >= 2 && epoch == e.epoch && e.txnStart != noTxn {
		return fmt.Errorf("%w: marker of producer %d has epoch %d, the partition knows %d", kerr.InvalidProducerEpoch, b.ProducerID(), epoch, e.epoch)
	}
	return nil
}

// Update takes in a batch that is in the log: after an append, on replay, on a follower. It returns the transaction that the batch
// completed, if any; the log writes its abort index from it. Batches without a producer change nothing.
func (t *Table) Update(b batch.Batch) (Txn, bool) {
	if !b.HasProducer() {
		return Txn{}, false
	}
	if b.IsControl() {
		return t.mark(b)
	}
	e := t.entry(b.ProducerID())
	if e.epoch != b.ProducerEpoch() {
		e.forget()
		e.epoch = b.ProducerEpoch()
	}
	if b.IsTransactional() && e.txnStart == noTxn {
		e.txnStart = b.BaseOffset()
		t.begin(b.ProducerID(), e.txnStart)
	}
	e.timestamp = b.MaxTimestamp()
	if b.BaseSequence() < 0 {
		return Txn{}, false
	}
	e.add(sent{last: b.LastOffset(), timestamp: e.timestamp, lastSeq: b.LastSequence(), delta: b.LastOffsetDelta()})
	return Txn{}, false
}

func (t *Table) entry(id int64) *entry {
	e := t.producers[id]
	if e == nil {
		if t.producers == nil {
			t.producers = make(map[int64]*entry)
		}
		e = &entry{txnStart: noTxn, coord: -1, epoch: -1}
		t.producers[id] = e
	}
	return e
}

// Open says whether the producer has a transaction open here under this epoch.
func (t *Table) Open(id int64, epoch int16) bool {
	e := t.producers[id]
	return e != nil && e.txnStart != noTxn && e.epoch == epoch
}

// Newer says that the partition knows a later epoch of the producer.
func (t *Table) Newer(id int64, epoch int16) bool {
	e := t.producers[id]
	return e != nil && e.epoch > epoch
}

// Expire forgets producers whose newest batch is older than maxAgeMs, unless a transaction of theirs is open.
func (t *Table) Expire(now, maxAgeMs int64) {
	for id, e := range t.producers {
		if e.txnStart == noTxn && now-e.timestamp >= maxAgeMs {
			delete(t.producers, id)
		}
	}
}

// Reset forgets everything, before a snapshot is loaded and the log replayed after truncation.
func (t *Table) Reset() { *t = Table{} }

// Active lists all producers by id.
func (t *Table) Active() []State {
	out := make([]State, 0, len(t.producers))
	for id, e := range t.producers {
		s := State{ID: id, LastOffset: -1, LastTimestamp: e.timestamp, TxnStart: e.txnStart, LastSequence: -1, CoordinatorEpoch: e.coord, Epoch: e.epoch}
		if e.has {
			s.LastOffset, s.LastSequence = e.newest.last, e.newest.lastSeq
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b State) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
