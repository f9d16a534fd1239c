package storage

import (
	"cmp"
	"slices"

	"github.com/milena-mq/milena/internal/batch"
)

// txnFilter follows a log in offset order and tells which batches belong to aborted transactions, and which markers have no data
// left before them.
type txnFilter struct {
	aborted []AbortedTxn         // by first offset, those not yet reached
	open    map[int64]AbortedTxn // by producer: reached, marker not seen
	seen    map[int64]bool       // producers with transactional data since their last marker
}

func newTxnFilter(aborted []AbortedTxn) *txnFilter {
	list := slices.Clone(aborted)
	slices.SortFunc(list, func(a, b AbortedTxn) int { return cmp.Compare(a.FirstOffset, b.FirstOffset) })
	return &txnFilter{aborted: list, open: map[int64]AbortedTxn{}, seen: map[int64]bool{}}
}

func (t *txnFilter) reach(offset int64) {
	for len(t.aborted) > 0 && t.aborted[0].FirstOffset <= offset {
		t.open[t.aborted[0].ProducerID] = t.aborted[0]
		t.aborted = t.aborted[1:]
	}
}

// data notes a data batch and tells whether its transaction was aborted.
func (t *txnFilter) data(b batch.Batch) bool {
	if !b.IsTransactional() {
		return false
	}
	t.reach(b.LastOffset())
	t.seen[b.ProducerID()] = true
	_, ok := t.open[b.ProducerID()]
	return ok
}

// control notes a control batch and tells whether it may go: no batch of its transaction was met. Control records that are no
// transaction markers stay.
func (t *txnFilter) control(b batch.Batch) (discardable bool, err error) {
	t.reach(b.LastOffset())
	m, ok, err := b.Marker()
	if err != nil {
		return false, err
	}
	if !ok {
		return b.Count() == 0, nil
	}
	discardable = !t.seen[b.ProducerID()]
	delete(t.seen, b.ProducerID())
	if m.Type == batch.Abort {
		delete(t.open, b.ProducerID())
	}
	return discardable, nil
}
