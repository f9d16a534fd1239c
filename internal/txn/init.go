package txn

import (
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
)

// init begins or goes on with a transactional id (InitProducerId).
func (m *Machine) init(tok Token, ev Init) {
	req := ev.Request
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.Version, resp.ProducerID, resp.ProducerEpoch = req.Version, noID, noEpoch
	refuse := func(e *kerr.Error) {
		resp.ErrorCode = e.Code
		m.answer(tok, resp)
	}
	name := ""
	if req.TransactionalID != nil {
		name = *req.TransactionalID
	}
	timeout := time.Duration(req.TransactionTimeoutMillis) * time.Millisecond
	expectID, expectEpoch := noID, noEpoch
	if req.Version >= 3 {
		expectID, expectEpoch = req.ProducerID, req.ProducerEpoch
	}
	switch {
	case name == "" || len(name) > maxName || (expectID == noID) != (expectEpoch == noEpoch):
		refuse(kerr.InvalidRequest)
		return
	case timeout <= 0 || timeout > m.cfg.MaxTimeout:
		refuse(kerr.InvalidTransactionTimeout)
		return
	}
	t := m.ids[name]
	if t == nil {
		// Whoever comes with an id of before the expiry is taken in as new (KIP-360).
		t = &id{name: strings.Clone(name), producer: noID, epoch: noEpoch, last: noEpoch, previous: noID, next: noID, startMs: -1, due: det.Never, queued: det.Never}
	}
	if expectID != noID && t.epoch != noEpoch && expectID != t.producer && (expectID != t.previous || expectEpoch < lastEpoch) {
		refuse(kerr.ProducerFenced)
		return
	}
	switch {
	case t.state.prepared():
		resp.ErrorCode = kerr.ConcurrentTransactions.Code
		m.park(tok, t.name, resp)
		return
	case t.state == Ongoing && expectID != noID && expectEpoch != t.epoch && expectEpoch != t.last:
		refuse(kerr.ProducerFenced) // it was fenced before; it must not abort its successor's transaction
		return
	case t.state == Ongoing:
		// The transaction of the one before is aborted under a raised epoch, which is given to nobody; whoever
		// asks again gets the next one.
		m.abort(t)
		resp.ErrorCode = kerr.ConcurrentTransactions.Code
		m.park(tok, t.name, resp)
		return
	}
	if e := m.raise(t, expectID, expectEpoch, ev.FreshID); e != nil {
		refuse(e)
		return
	}
	t.timeoutMs, t.state, t.startMs, t.version = req.TransactionTimeoutMillis, Empty, -1, 0
	m.ids[t.name] = t
	m.emit(t)
	resp.ProducerID, resp.ProducerEpoch = t.producer, t.epoch
	m.answer(tok, resp)
}

// raise gives an id without a transaction its next epoch, or its next producer id.
func (m *Machine) raise(t *id, expectID int64, expectEpoch int16, fresh int64) *kerr.Error {
	knows := expectID != noID
	switch {
	case t.epoch == noEpoch:
		if fresh == noID {
			return kerr.CoordinatorLoadInProgress
		}
		m.out.FreshUsed = true
		t.producer, t.epoch = fresh, 0
	case knows && expectID == t.previous && expectID != t.producer:
		// Asks again for the change of producer id whose answer was lost. Once the new id has raised its epoch, or
		// when somebody else had the change, it is another producer, and must not get that one's epoch.
		if t.epoch != 0 || expectEpoch != t.last {
			return kerr.ProducerFenced
		}
	case t.exhausted() && (!knows || expectEpoch == t.epoch || t.epoch > lastEpoch && expectEpoch == t.last):
		// Also for the one that was fenced by 32767: nobody gets that epoch.
		if fresh == noID {
			return kerr.CoordinatorLoadInProgress
		}
		m.out.FreshUsed = true
		t.previous, t.last = t.producer, noEpoch
		if knows {
			t.last = expectEpoch
		}
		t.producer, t.epoch = fresh, 0
	case !knows:
		t.epoch, t.last = t.epoch+1, noEpoch
	case expectEpoch == t.epoch:
		t.epoch, t.last = t.epoch+1, t.epoch
	case expectEpoch == t.last && t.last != noEpoch:
		// Asks again for the raise whose answer was lost.
	default:
		return kerr.ProducerFenced
	}
	return nil
}

// NeedsID says that an event, as things stand, takes a producer id. The caller reserves one only then: an id that is
// not taken is lost.
func (m *Machine) NeedsID(ev Event) bool {
	switch ev := ev.(type) {
	case Init:
		if ev.Request.TransactionalID == nil {
			return false
		}
		t := m.ids[*ev.Request.TransactionalID]
		return t == nil || t.state.resting() && t.exhausted()
	case End:
		t := m.ids[ev.Request.TransactionalID]
		return ev.Request.Version >= 5 && t != nil && !t.state.prepared() && t.exhausted()
	}
	return false
}

// WithID is the event with a producer id that is reserved for it.
func WithID(ev Event, id int64) Event {
	switch ev := ev.(type) {
	case Init:
		ev.FreshID = id
		return ev
	case End:
		ev.FreshID = id
		return ev
	}
	return ev
}
