package txn

import (
	"slices"
	"strings"
	"time"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
)

// State is where a transactional id stands, with Kafka's numbers.
type State int8

// The states. PrepareEpochFence (7) is never written and not needed here: an id is fenced and its transaction
// aborted in one step.
const (
	Empty State = iota
	Ongoing
	PrepareCommit
	PrepareAbort
	CompleteCommit
	CompleteAbort
	Dead
)

var stateNames = [...]string{"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead"}

func (s State) String() string { return stateNames[s] }

// StateNames are the names by which ListTransactions filters (KIP-664).
func StateNames() []string { return append(slices.Clone(stateNames[:]), "PrepareEpochFence") }

// prepared: decided, and markers are being written.
func (s State) prepared() bool { return s == PrepareCommit || s == PrepareAbort }

// resting: no transaction is open.
func (s State) resting() bool { return s == Empty || s == CompleteCommit || s == CompleteAbort }

const (
	noID    int64 = -1
	noEpoch int16 = -1
	// maxName is the longest transactional id, in bytes: the key of __transaction_state has a length of 16 bits.
	maxName = 1<<15 - 1
	// lastEpoch is the highest epoch a producer gets; the one above it is kept for fencing that producer.
	lastEpoch int16 = 1<<15 - 2
)

// id is one transactional id.
type id struct {
	name      string
	producer  int64
	epoch     int16
	last      int16 // epoch before the last raise, for a client that asks again; noEpoch: none
	previous  int64 // producer id before the last change of it; noID: none
	next      int64 // producer id that Complete goes on with, where the epochs are used up; noID: the same
	state     State
	version   int16 // transaction version of the client that opened the transaction
	timeoutMs int32
	startMs   int64 // of the open transaction, -1 for none
	updateMs  int64
	parts     []meta.TopicPartition // in the transaction; in a prepared one those without their marker. Sorted
	due       det.Instant           // Never: no timer
	queued    det.Instant           // its entry in the heap that counts; Never: none
}

func compareParts(a, b meta.TopicPartition) int {
	if c := strings.Compare(a.Topic, b.Topic); c != 0 {
		return c
	}
	return int(a.Partition) - int(b.Partition)
}

func (t *id) has(p meta.TopicPartition) bool {
	_, ok := slices.BinarySearchFunc(t.parts, p, compareParts)
	return ok
}

// exhausted: no epoch is left that a producer may get.
func (t *id) exhausted() bool { return t.epoch >= lastEpoch }

// arm sets the one timer of an id: an open transaction times out, an idle id expires.
func (m *Machine) arm(t *id) {
	switch {
	case t.state == Ongoing:
		m.timers.set(t, det.Milli(t.startMs).Add(time.Duration(t.timeoutMs)*time.Millisecond))
	case t.state.resting():
		m.timers.set(t, det.Milli(t.updateMs).Add(m.cfg.IDExpiration))
	default:
		t.due = det.Never // markers are written for ever
	}
}

// due is a timer that fired.
func (m *Machine) due(t *id) {
	switch {
	case m.ids[t.name] != t:
	case t.state == Ongoing:
		// Its producer is gone or stuck. The epoch is raised with the abort, so that it cannot go on.
		m.abort(t)
	case t.state.resting():
		m.expire(t)
	}
}
