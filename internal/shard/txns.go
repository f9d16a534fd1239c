package shard

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

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
	o  TxnOptions
	so Options
	wg sync.WaitGroup
	mu struct {
		sync.RWMutex
		shards  map[int32]*shard
		parts   int32 // partitions of TxnsTopic, 0 while it does not exist
		version int16
		closed  bool
	}
	loads atomic.Uint64
}

// NewTxns makes the coordinators of a broker that leads nothing yet.
func NewTxns(o TxnOptions) *Txns {
	g := NewGroups(Options{CommitTimeout: o.CommitTimeout, MaxBatchBytes: o.MaxBatchBytes, Clock: o.Clock, Log: o.Log})
	t := &Txns{o: o, so: g.o} // the same defaults
	t.mu.shards = map[int32]*shard{}
	return t
}

// Lead starts the coordinator of a partition of TxnsTopic, as Groups.Lead does.
func (t *Txns) Lead(partition int32, log Log) {
	k := &kind{name: "transaction coordinator", topic: TxnsTopic}
	var load atomic.Uint64
	k.make = func(epoch int32) machine {
		load.Store(t.loads.Add(1))
		cfg := t.o.Config
		cfg.Epoch = epoch
		t.mu.RLock()
		cfg.Version = t.mu.version
		t.mu.RUnlock()
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
	s := newShard(partition, log, t.so, k)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.closed {
		return
	}
	if old := t.mu.shards[partition]; old != nil {
		old.stop()
	}
	t.mu.shards[partition] = s
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		s.run()
	}()
}

// Lose stops the coordinator of a partition: whoever waits is answered NOT_COORDINATOR.
func (t *Txns) Lose(partition int32) {
	t.mu.Lock()
	s := t.mu.shards[partition]
	delete(t.mu.shards, partition)
	t.mu.Unlock()
	if s != nil {
		s.stop()
	}
}

// Apply follows the metadata: how many partitions TxnsTopic has, and the finalised transaction version.
func (t *Txns) Apply(im *meta.Image) {
	var parts int32
	if topic := im.Topic(TxnsTopic); topic != nil {
		parts = int32(len(topic.Partitions))
	}
	v := im.Features()[control.FeatureTransactions]
	t.mu.Lock()
	changed := t.mu.version != v
	t.mu.parts, t.mu.version = parts, v
	t.mu.Unlock()
	if !changed {
		return
	}
	for _, s := range t.all() {
		s.submit(item{ev: version(v)})
	}
}

// Version is the finalised transaction version.
func (t *Txns) Version() int16 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.mu.version
}

func (t *Txns) all() []*shard {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]*shard, 0, len(t.mu.shards))
	for _, s := range t.mu.shards {
		out = append(out, s)
	}
	return out
}

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
		w := waiter{c, i}
		s := t.shardOf(reqs[i].TxnID)
		if s == nil {
			w.finish(Result{Err: kerr.NotCoordinator})
			continue
		}
		s.submit(item{w: w, ev: reqs[i].Event})
	}
	return c
}

// Tell hands an event over for which nobody waits, to the coordinator of one partition of TxnsTopic; it is dropped
// where that is not here any more: the next coordinator writes the markers again.
func (t *Txns) Tell(partition int32, ev txn.Event) {
	t.mu.RLock()
	s := t.mu.shards[partition]
	t.mu.RUnlock()
	if s != nil {
		s.submit(item{ev: ev})
	}
}

func (t *Txns) shardOf(id string) *shard {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.mu.parts == 0 {
		return nil
	}
	return t.mu.shards[PartitionFor(id, t.mu.parts)]
}

// List asks every coordinator of this broker; each result holds []kmsg.ListTransactionsResponseTransactionState.
func (t *Txns) List(ev txn.List) *Call {
	all := t.all()
	c := newCall(len(all))
	for i, s := range all {
		s.submit(item{w: waiter{c, i}, ev: ev})
	}
	return c
}

// Close stops every coordinator once what it has taken is appended and committed, or ctx ends.
func (t *Txns) Close(ctx context.Context) error {
	t.mu.Lock()
	t.mu.closed = true
	shards := t.mu.shards
	t.mu.shards = map[int32]*shard{}
	t.mu.Unlock()
	for _, s := range shards {
		s.drain()
	}
	done := make(chan struct{})
	go func() {
		t.wg.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("flush transactions: %w", ctx.Err())
	}
	for _, s := range shards {
		s.stop()
	}
	<-done
	return err
}
