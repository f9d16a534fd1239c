package txn

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/meta"
)

// add puts partitions into a transaction, or looks whether they are in it.
func (m *Machine) add(tok Token, ev Add) {
	codes := make([]int16, len(ev.Partitions))
	all := func(e *kerr.Error) []int16 {
		for i := range codes {
			codes[i] = e.Code
		}
		return codes
	}
	t := m.ids[ev.TxnID]
	switch {
	case t == nil || t.producer != ev.ProducerID:
		m.answer(tok, all(kerr.InvalidProducerIDMapping))
		return
	case t.epoch != ev.Epoch && !(t.state.prepared() && t.version >= 2 && t.epoch == ev.Epoch+1):
		m.answer(tok, all(kerr.ProducerFenced))
		return
	case t.state.prepared():
		// Also for the producer of the transaction that is ending: what it sends with the old epoch is late.
		m.park(tok, t.name, all(kerr.ConcurrentTransactions))
		return
	}
	missing := ev.Partitions[:0:0]
	for i, p := range ev.Partitions {
		if t.state == Ongoing && t.has(p) {
			continue
		}
		missing = append(missing, p)
		codes[i] = kerr.TransactionAbortable.Code
	}
	if ev.Verify {
		m.answer(tok, codes)
		return
	}
	clear(codes)
	if len(missing) > 0 {
		if t.state != Ongoing {
			t.parts, t.startMs = nil, m.now.UnixMilli()
			t.version = 0
			if ev.V2 {
				t.version = 2
			}
		}
		t.parts = merge(t.parts, missing)
		t.state = Ongoing
		m.emit(t)
	}
	m.answer(tok, codes)
}

// merge adds partitions to a sorted list; topic names are kept once.
func merge(have, more []meta.TopicPartition) []meta.TopicPartition {
	out := slices.Clone(have)
	for _, p := range more {
		if i, ok := slices.BinarySearchFunc(out, p, compareParts); !ok {
			out = slices.Insert(out, i, p)
		}
	}
	return out
}

// end commits or aborts on behalf of the producer (EndTxn).
func (m *Machine) end(tok Token, ev End) {
	req := ev.Request
	resp := req.ResponseKind().(*kmsg.EndTxnResponse)
	resp.Version, resp.ProducerID, resp.ProducerEpoch = req.Version, noID, noEpoch
	v2 := req.Version >= 5
	t := m.ids[req.TransactionalID]
	e, retry := m.judge(t, req, v2)
	switch {
	case e == kerr.ConcurrentTransactions:
		resp.ErrorCode = e.Code
		m.park(tok, t.name, resp)
		return
	case e != nil:
		resp.ErrorCode = e.Code
		m.answer(tok, resp)
		return
	case !retry:
		if v2 && t.exhausted() {
			if ev.FreshID == noID {
				resp.ErrorCode = kerr.CoordinatorLoadInProgress.Code
				m.answer(tok, resp)
				return
			}
			m.out.FreshUsed, t.next = true, ev.FreshID
		}
		version := int16(0)
		if v2 {
			version = 2
		}
		m.prepare(t, req.Commit, version, v2)
	}
	if v2 {
		resp.ProducerID, resp.ProducerEpoch = t.producer, t.epoch
		if t.next != noID {
			resp.ProducerID, resp.ProducerEpoch = t.next, 0
		}
	}
	m.answer(tok, resp)
}

// judge says whether an EndTxn is refused, and whether it repeats one that has been carried out.
func (m *Machine) judge(t *id, req *kmsg.EndTxnRequest, v2 bool) (e *kerr.Error, retry bool) {
	if t == nil {
		return kerr.InvalidProducerIDMapping, false
	}
	same := t.producer == req.ProducerID
	// Its answer was lost: the client still has the epoch, or the producer id, from before the end.
	// An epoch above the last one that producers get is no answer to anybody: it fenced this one.
	fence := t.epoch > lastEpoch && t.next == noID
	// Nor is one that a client of version 1 ended: the raise was then by InitProducerId, for another producer.
	again := v2 && t.version >= 2 && t.state != Empty && t.state != Ongoing && !fence &&
		(same && int32(req.ProducerEpoch)+1 == int32(t.epoch) || t.previous == req.ProducerID && req.ProducerEpoch == lastEpoch && t.epoch == 0)
	switch {
	case !same && !again:
		return kerr.InvalidProducerIDMapping, false
	case !again && req.ProducerEpoch != t.epoch:
		return kerr.ProducerFenced, false
	}
	switch t.state {
	case Ongoing:
		return nil, false
	case PrepareCommit, PrepareAbort:
		// With the raised epoch it is the end of the next transaction, which has to wait for the end of this one.
		if req.Commit != (t.state == PrepareCommit) && (!v2 || again) {
			return kerr.InvalidTxnState, false
		}
		return kerr.ConcurrentTransactions, false
	case CompleteCommit, CompleteAbort:
		if !v2 || again {
			if req.Commit != (t.state == CompleteCommit) {
				return kerr.InvalidTxnState, false
			}
			return nil, true
		}
	}
	// Nothing is open. From version 2 on an abort is accepted and raises the epoch: the client cannot know whether a
	// Produce of its own has opened the transaction.
	if v2 && !req.Commit {
		return nil, false
	}
	return kerr.InvalidTxnState, false
}

// abort ends a transaction that its producer did not end. The epoch is raised, which fences that producer; from
// version 2 on twice, because one step is what its own EndTxn would do, and a producer that sends that too late
// would take the raise for its own.
func (m *Machine) abort(t *id) {
	if t.version >= 2 && t.epoch < lastEpoch {
		t.epoch++
	}
	m.prepare(t, false, t.version, true)
}

// prepare is the decision: from the record on the outcome is certain. raise: markers carry the next epoch.
func (m *Machine) prepare(t *id, commit bool, version int16, raise bool) {
	t.version = version
	if t.state != Ongoing {
		t.parts, t.startMs = nil, m.now.UnixMilli()
	}
	if raise && t.epoch <= lastEpoch { // 32767 at most, also for a record that claims a producer has it
		t.last = t.epoch
		t.epoch++
	}
	t.state = PrepareAbort
	if commit {
		t.state = PrepareCommit
	}
	m.emit(t)
	if len(t.parts) == 0 {
		m.complete(t)
		return
	}
	m.mark(t)
}

// mark asks for the markers that are missing.
func (m *Machine) mark(t *id) {
	m.out.Markers = append(m.out.Markers, Marker{
		TxnID: t.name, ProducerID: t.producer, Epoch: t.epoch, CoordinatorEpoch: m.cfg.Epoch,
		Commit: t.state == PrepareCommit, Version: t.version, Partitions: slices.Clone(t.parts),
	})
}

// written takes markers in that stand.
func (m *Machine) written(ev Written) {
	t := m.ids[ev.TxnID]
	if t == nil || !t.state.prepared() || t.producer != ev.ProducerID || t.epoch != ev.Epoch {
		return // of an earlier end, told twice
	}
	left := slices.Clone(t.parts)
	for _, p := range ev.Partitions {
		if i, ok := slices.BinarySearchFunc(left, p, compareParts); ok {
			left = slices.Delete(left, i, i+1)
		}
	}
	// Not a record: who loads this id later writes all its markers again.
	t.parts = left
	if len(left) == 0 {
		m.complete(t)
	}
}

// fenced gives markers up: another coordinator has loaded this id, and its markers count.
func (m *Machine) fenced(ev Fenced) {
	if t := m.ids[ev.TxnID]; t != nil && t.state.prepared() && t.producer == ev.ProducerID && t.epoch == ev.Epoch {
		m.out.Completed = append(m.out.Completed, t.name) // whoever waits is told to ask again
	}
}

// complete is the end: every marker stands.
func (m *Machine) complete(t *id) {
	commit := t.state == PrepareCommit
	t.state = CompleteAbort
	if commit {
		t.state = CompleteCommit
	}
	t.parts = nil
	if t.next != noID {
		// last stays what the producer had: it asks with that for the new id, should the answer be lost.
		t.previous, t.producer, t.epoch, t.next = t.producer, t.next, 0, noID
	}
	m.emit(t)
	m.out.Completed = append(m.out.Completed, t.name)
}
