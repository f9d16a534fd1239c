package shard

import (
	"context"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/meta"
)

// Log is a partition of an internal topic as its coordinator sees it: an append-only log of which this
// broker is the leader. D's p.Coordinator() provides it.
type Log interface {
	// Append adds one batch: in the log, not yet committed. It does not block on a sync.
	Append(b batch.Batch) (base, end int64, err error)
	// OnCommitted calls fn once, when the high watermark has reached end, or with an error when the
	// leadership under which the log was handed out is gone. fn is quick and does not call back.
	OnCommitted(end int64, fn func(error))
	// Replay passes every batch from log start to log end, in order.
	Replay(fn func(batch.Batch) error) error
	// Epoch is the leader epoch under which the log was handed out.
	Epoch() int32
}

// GroupsTopic is the topic that keeps groups and offsets.
const GroupsTopic = "__consumer_offsets"

// Pending is an answer on its way.
type Pending struct{}

// Ready is closed when the answer is there. It always comes: an answer, a refusal, or the loss of the
// partition.
func (p *Pending) Ready() <-chan struct{} { return nil }

// Result is the machine's answer (see the events of package group for its type) or a *kerr.Error. Only
// after Ready.
func (p *Pending) Result() (any, error) { return nil, nil }

// Groups is the group coordinators of this broker.
type Groups struct{}

// Lead starts the coordinator of a partition of GroupsTopic that this broker has begun to lead. It loads in
// its own goroutine; until that is done requests get COORDINATOR_LOAD_IN_PROGRESS.
func (g *Groups) Lead(partition int32, log Log) {}

// Lose stops it: everybody who waits is answered NOT_COORDINATOR at once.
func (g *Groups) Lose(partition int32) {}

// Apply follows the metadata: offsets of deleted topics are forgotten. Called in order, each delta once.
func (g *Groups) Apply(im *meta.Image, d *meta.Delta) {}

// Submit hands an event to the coordinator of the group.
func (g *Groups) Submit(groupID string, ev group.Event) *Pending { return nil }

// Close stops every coordinator after what it has accepted is appended and committed, or ctx ends.
func (g *Groups) Close(ctx context.Context) error { return nil }
