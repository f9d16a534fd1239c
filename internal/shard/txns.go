package shard

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/txn"
)

// TxnsTopic is the topic that keeps transactional ids.
const TxnsTopic = "__transaction_state"

// TxnOptions is what Txns needs. FreshID and Markers are required; zero values of the others as in Options.
type TxnOptions struct {
	Config        txn.Config // Epoch and Version are filled in
	CommitTimeout time.Duration
	MaxBatchBytes int
	Clock         func() time.Time
	Log           *slog.Logger
	// FreshID gives a producer id that nobody has; false: none is at hand, one will be soon. It does not block.
	FreshID func() (int64, bool)
	// Markers takes over markers whose decision is committed. It does not block. partition is that of TxnsTopic; load
	// names the machine, and rises with every one that is loaded on this broker.
	Markers func(partition int32, load uint64, ms []txn.Marker)
	// Forget, when not nil, says that markers of the partition that came with this load, or an earlier one, and are not
	// written are void: the coordinator is gone, or loads again and hands them over anew. It does not block.
	Forget func(partition int32, load uint64)
}

// Txns is the transaction coordinators of this broker, one for each partition of TxnsTopic that it leads. It is
// safe for concurrent use.
type Txns struct {
	fleet
	o       TxnOptions
	so      Options
	version atomic.Int32 // finalised transaction version
	loads   atomic.Uint64
}

// NewTxns makes the coordinators of a broker that leads nothing yet.
func NewTxns(o TxnOptions) *Txns {
	so := Options{CommitTimeout: o.CommitTimeout, MaxBatchBytes: o.MaxBatchBytes, Clock: o.Clock, Log: o.Log}
	so.defaults()
	return &Txns{o: o, so: so}
}

// Lead starts the coordinator of a partition of TxnsTopic, as Groups.Lead does.
func (t *Txns) Lead(partition int32, log Log) {
	k := &kind{name: "transaction coordinator", topic: TxnsTopic}
	var load atomic.Uint64
	k.make = func(epoch int32) machine {
		load.Store(t.loads.Add(1))
		cfg := t.o.Config
		cfg.Epoch = epoch
		cfg.Version = t.Version()
		return &txnMachine{m: txn.New(cfg), fresh: t.o.FreshID}
	}
	k.then = func(what []any) {
		ms := make([]txn.Marker, len(what))
		for i, x := range what {
			ms[i], _ = x.(txn.Marker)
		}
		t.o.Markers(partition, load.Load(), ms)
	}
	if t.o.Forget != nil {
		k.forget = func() { t.o.Forget(partition, load.Load()) }
	}
	t.lead(newShard(partition, log, t.so, k))
}

// Apply follows the metadata: how many partitions TxnsTopic has, and the finalised transaction version.
func (t *Txns) Apply(im *meta.Image) {
	t.follow(im, TxnsTopic)
	v := im.Features()[control.FeatureTransactions]
	if t.version.Swap(int32(v)) != int32(v) {
		t.tellAll(version(v))
	}
}

// Version is the finalised transaction version.
func (t *Txns) Version() int16 { return int16(t.version.Load()) }

// TxnRequest is one event for the coordinator of a transactional id.
type TxnRequest struct {
	TxnID string
	Event txn.Event
}

// Submit hands requests to the coordinators of their ids; NOT_COORDINATOR where that is not here. What events refer to
// must stay unchanged until the Call is ready.
func (t *Txns) Submit(reqs ...TxnRequest) *Call {
	c := newCall(len(reqs))
	for i := range reqs {
		t.shardOf(reqs[i].TxnID).submitOr(item{w: waiter{c, i}, ev: reqs[i].Event})
	}
	return c
}

// Tell hands an event over for which nobody waits, to the coordinator of one partition of TxnsTopic; it is dropped
// where that is not here any more: the next coordinator writes the markers again.
func (t *Txns) Tell(partition int32, ev txn.Event) {
	if s := t.at(partition); s != nil {
		s.submit(item{ev: ev})
	}
}

// List asks every coordinator of this broker; each result holds []kmsg.ListTransactionsResponseTransactionState.
func (t *Txns) List(ev txn.List) *Call { return t.askAll(ev) }

// Close stops every coordinator once what it has taken is appended and committed, or ctx ends.
func (t *Txns) Close(ctx context.Context) error { return t.close(ctx, "flush transactions") }
