package shard

import (
	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/txn"
)

// txnMachine is package txn's machine as a shard runs it.
type txnMachine struct {
	m     *txn.Machine
	at    int64
	fresh func() (int64, bool) // a producer id that nobody has
}

func (t *txnMachine) replay(_ batch.Batch, r batch.Record) error { return t.m.Replay(r.Key, r.Value) }

func (t *txnMachine) marker(int64, batch.Batch, batch.Marker) {} // nobody's transaction reaches into this topic

func (t *txnMachine) setNext(offset int64) { t.at = max(t.at, offset) }
func (t *txnMachine) next() int64          { return t.at }
func (t *txnMachine) wake() det.Instant    { return t.m.Wake() }

func (t *txnMachine) loaded(now det.Instant, e *effects) { t.out(t.m.Loaded(now), e) }

func (t *txnMachine) step(now det.Instant, token uint64, ev any, e *effects) {
	if v, ok := ev.(version); ok {
		t.m.SetVersion(int16(v))
		return
	}
	event, ok := ev.(txn.Event)
	if !ok {
		event = txn.Tick{}
	}
	// An id is taken only when it is needed: most transactions need none.
	if t.m.NeedsID(event) {
		if id, ok := t.fresh(); ok {
			event = txn.WithID(event, id)
		}
	}
	t.out(t.m.Step(now, txn.In{Token: txn.Token(token), Event: event}), e)
}

func (t *txnMachine) out(o txn.Out, e *effects) {
	for _, r := range o.Records {
		e.records = append(e.records, record{key: r.Key, value: r.Value, producer: noProducer})
	}
	for _, a := range o.Answers {
		x := answer{token: uint64(a.Token), response: a.Response}
		if a.Parked {
			x.parked = a.TxnID
		}
		e.answers = append(e.answers, x)
	}
	for _, m := range o.Markers {
		e.then = append(e.then, m)
	}
	e.done = append(e.done, o.Completed...)
	t.at += int64(len(o.Records))
}

// version is the finalised transaction.version, told to every machine.
type version int16
