package producer

import (
	"cmp"
	"slices"

	"github.com/milena-mq/milena/internal/batch"
)

// Txn is one transaction as the partition saw it.
type Txn struct {
	ProducerID  int64
	FirstOffset int64
	LastOffset  int64 // of the marker; -1 while open
	// LastStable is the last stable offset of the log once this transaction is complete, for the abort index entry.
	LastStable int64
	Aborted    bool
}

func byFirst(x Txn, first int64) int { return cmp.Compare(x.FirstOffset, first) }

// begin keeps the list sorted; offsets only grow, so this is an append but for a loaded snapshot.
func (t *Table) begin(id, first int64) {
	i, _ := slices.BinarySearchFunc(t.open, first, byFirst)
	t.open = slices.Insert(t.open, i, Txn{ProducerID: id, FirstOffset: first, LastOffset: -1})
}

// mark takes in a control batch. A marker without an open transaction only raises the epochs; an emptied control batch means that
// compaction removed the whole transaction.
func (t *Table) mark(b batch.Batch) (Txn, bool) {
	m, ok, err := b.Marker()
	if err != nil || !ok {
		return Txn{}, false
	}
	e := t.entry(b.ProducerID())
	if e.epoch != b.ProducerEpoch() {
		e.forget()
		e.epoch = b.ProducerEpoch()
	}
	e.coord, e.timestamp = m.CoordinatorEpoch, m.TimestampMs
	if e.txnStart == noTxn {
		return Txn{}, false
	}
	done := Txn{ProducerID: b.ProducerID(), FirstOffset: e.txnStart, LastOffset: b.LastOffset(), Aborted: m.Type == batch.Abort}
	e.txnStart = noTxn
	if i, ok := slices.BinarySearchFunc(t.open, done.FirstOffset, byFirst); ok {
		t.open = slices.Delete(t.open, i, i+1)
	}
	done.LastStable = done.LastOffset + 1
	if len(t.open) > 0 {
		done.LastStable = min(done.LastStable, t.open[0].FirstOffset)
	}
	i, _ := slices.BinarySearchFunc(t.done, done.FirstOffset, byFirst)
	t.done = slices.Insert(t.done, i, done)
	return done, true
}

// FirstUnstable is the first offset of the earliest transaction that is open, or whose marker has not been replicated (see
// Replicated): nothing from there on is shown to read_committed consumers. The caller raises it to the log start.
func (t *Table) FirstUnstable() (int64, bool) {
	switch {
	case len(t.open) == 0 && len(t.done) == 0:
		return 0, false
	case len(t.open) == 0:
		return t.done[0].FirstOffset, true
	case len(t.done) == 0:
		return t.open[0].FirstOffset, true
	}
	return min(t.open[0].FirstOffset, t.done[0].FirstOffset), true
}

// Replicated tells the high watermark: transactions whose marker lies below it are settled. Before that a marker might still be
// lost with its leader, so FirstUnstable keeps to it. The log start counts too: what lies below it is gone.
func (t *Table) Replicated(hw int64) {
	if len(t.done) > 0 {
		t.done = slices.DeleteFunc(t.done, func(x Txn) bool { return x.LastOffset < hw })
	}
}
