package coord

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/milena-mq/milena/internal/meta"
)

// Revision numbers the appends of a history; it grows with every one and is never used twice.
type Revision int64

// Batch is the changes of one append.
type Batch struct {
	Rev     Revision
	Changes []meta.Change // Rev filled in
}

// Snapshot is every key at one revision, in key order.
type Snapshot struct {
	Changes []meta.Change // puts only; Rev is that of the last write of each key
}

// Store is the cluster's metadata: one history of keyed changes, one writer at a time.
type Store interface {
	// Load reads everything, at one revision.
	Load(ctx context.Context) (Snapshot, Revision, error)
	// Tail delivers every change after from, in order, one Batch per append. The channel closes when
	// ctx ends, when the store closes, or when the history before from was compacted away: load again.
	Tail(ctx context.Context, from Revision) (<-chan Batch, error)
	// Lead returns when this broker may write. It raises the controller's epoch in meta.KeyController,
	// which is itself a change that every Tail sees.
	Lead(ctx context.Context) (*Term, error)
	// Append writes the changes atomically. ErrFenced: a newer term exists, nothing was written, and
	// the term has ended. ErrUnknown: the answer did not come in time; it may or may not be written.
	Append(ctx context.Context, t *Term, cs []meta.Change) (Revision, error)
	// Close stops the store and every Tail.
	Close() error
}

// The errors of a Store. Unless ErrUnknown is in its chain, an error of Append means that nothing was
// written. ErrFull may come with ErrUnknown.
var (
	ErrFenced   = errors.New("coordination store: another controller has taken over")
	ErrUnknown  = errors.New("coordination store: no answer in time, the write may or may not have happened")
	ErrFull     = errors.New("coordination store: space quota used up, metadata cannot change until it is compacted and defragmented")
	ErrTooLarge = errors.New("coordination store: change too large for one append")
	ErrClosed   = errors.New("coordination store: closed")
)

// Limits of one append.
const (
	MaxChanges = 1000    // changes
	MaxBytes   = 3 << 20 // keys and values together
)

// Term is the right to write. It ends when a newer term exists, when the store closes or when its
// holder ends it.
type Term struct {
	Epoch int32    // the controller epoch, +1 with every term
	Token Revision // revision of the write that began it: every Append compares it
	done  chan struct{}
	once  sync.Once

	proven atomic.Pointer[time.Time]
}

// Prove is for implementations of Store: at was before a question that a majority has answered, so no newer
// term existed at it.
func (t *Term) Prove(at time.Time) { t.proven.Store(&at) }

// Proven is the latest moment at which no newer term existed for certain; zero where the engine does not say.
func (t *Term) Proven() time.Time {
	if at := t.proven.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// NewTerm is for implementations of Store.
func NewTerm(epoch int32, token Revision) *Term {
	return &Term{Epoch: epoch, Token: token, done: make(chan struct{})}
}

// Done is closed when the term has ended.
func (t *Term) Done() <-chan struct{} { return t.done }

// End gives the term up: its holder saw something that makes its picture of the store doubtful.
func (t *Term) End() { t.once.Do(func() { close(t.done) }) }

// Ended says whether the term is over.
func (t *Term) Ended() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// Identity is who takes the lead: it is written into the controller record.
type Identity struct {
	NodeID      int32
	Incarnation meta.UUID
	Peer        string // advertised peer address, host:port; "" for none
}

// Record is what a take-over writes into meta.KeyController. It is for implementations of Store.
func (i Identity) Record(epoch int32) meta.ControllerRecord {
	return meta.ControllerRecord{Epoch: epoch, Broker: i.NodeID, Incarnation: i.Incarnation, Peer: i.Peer}
}

// CheckSize refuses what no append takes. It is for implementations of Store.
func CheckSize(cs []meta.Change) error {
	n := 0
	for _, c := range cs {
		n += len(c.Key) + len(c.Value)
	}
	if len(cs) > MaxChanges || n > MaxBytes {
		return ErrTooLarge
	}
	return nil
}
