package shard

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/meta"
)

// Log is a partition of an internal topic as its coordinator sees it: an append-only log of which this
// broker is the leader. *partition.Coordinator is one.
type Log interface {
	// Append adds one batch: in the log, not yet committed. It does not wait for a sync and does not keep b.
	Append(b batch.Batch) (base, end int64, err error)
	// AppendMarker adds a transaction marker, checked by the rules of the transaction version.
	AppendMarker(b batch.Batch, txnVersion int16) (base, end int64, err error)
	// Admit says whether a producer may write for its transaction: it is open here, or guard proves that the
	// coordinator knows of it and no marker has come since. An *kerr.Error refuses.
	Admit(producerID int64, epoch int16, guard any) error
	// OnCommitted calls fn once, when the high watermark has reached end, or with an error when the
	// leadership under which the log was handed out is gone. fn does not block.
	OnCommitted(end int64, fn func(error))
	// Replay passes every batch from log start to log end, in order. A batch is valid during the call.
	Replay(fn func(batch.Batch) error) error
	// Epoch is the leader epoch under which the log was handed out.
	Epoch() int32
}

// GroupsTopic is the topic that keeps groups and offsets.
const GroupsTopic = "__consumer_offsets"

// inboxLimit bounds the requests that wait for one partition's machine. Beyond it a request is told that
// the coordinator is loading, which every client takes as "again, here, later".
const inboxLimit = 16384

// Options is what Groups needs. Zero values of Clock, NewID, Log, CommitTimeout and MaxBatchBytes mean the
// real clock, random UUIDs, slog.Default, 5 s and 1 MB.
type Options struct {
	Config        group.Config
	CommitTimeout time.Duration // offsets.commit.timeout.ms: longest wait for what was appended to be committed
	MaxBatchBytes int           // the internal topic's max.message.bytes
	Clock         func() time.Time
	NewID         func() string
	Log           *slog.Logger
}

// Groups is the group coordinators of this broker, one for each partition of GroupsTopic that it leads. It is
// safe for concurrent use.
type Groups struct {
	fleet
	o    Options
	kind kind
}

// NewGroups makes the coordinators of a broker that leads nothing yet.
func NewGroups(o Options) *Groups {
	o.defaults()
	g := &Groups{o: o}
	g.kind = kind{name: "group coordinator", topic: GroupsTopic, make: func(int32) machine { return &groupMachine{group.New(o.Config)} }}
	return g
}

func (o *Options) defaults() {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.NewID == nil {
		o.NewID = randomUUID
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.CommitTimeout <= 0 {
		o.CommitTimeout = 5 * time.Second
	}
	if o.MaxBatchBytes <= 0 {
		o.MaxBatchBytes = 1048588
	}
	// A group record has to fit one batch with its header and key.
	if fits := o.MaxBatchBytes - batch.HeaderSize - 64<<10; o.Config.MaxRecordBytes <= 0 || o.Config.MaxRecordBytes > fits {
		o.Config.MaxRecordBytes = fits
	}
}

func randomUUID() string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // cannot fail: crypto/rand ends the process when the system has no randomness
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// NewID is a fresh UUID for a member id.
func (g *Groups) NewID() string { return g.o.NewID() }

// Lead starts the coordinator of a partition of GroupsTopic that this broker has begun to lead, replacing
// that of an earlier epoch. It returns at once; the log is replayed on the coordinator's own goroutine, and
// requests get COORDINATOR_LOAD_IN_PROGRESS until that is done.
func (g *Groups) Lead(partition int32, log Log) { g.lead(newShard(partition, log, g.o, &g.kind)) }

// Apply follows the metadata: how many partitions GroupsTopic has, and which topics are gone, whose offsets
// are forgotten. Called in order, each delta once; a nil delta means that only im is known.
func (g *Groups) Apply(im *meta.Image, d *meta.Delta) {
	var gone []group.DeletedTopic
	if d != nil {
		for _, id := range d.TopicIDs() {
			if td := d.Topics[id]; td.New == nil && td.Old != nil {
				gone = append(gone, group.DeletedTopic{Name: td.Old.Name, ID: id})
			}
		}
	}
	g.follow(im, GroupsTopic)
	if len(gone) > 0 {
		g.tellAll(group.TopicsDeleted{Topics: gone})
	}
}

// Submit hands requests to the coordinators of their groups. The events and what they refer to must stay
// unchanged until the Call is ready.
func (g *Groups) Submit(reqs ...Request) *Call {
	c := newCall(len(reqs))
	for i := range reqs {
		g.shardOf(reqs[i].Group).submitOr(item{w: waiter{c, i}, ev: reqs[i].Event, admit: reqs[i].Admit})
	}
	return c
}

// WriteMarker writes the end of a transaction into a partition of GroupsTopic, in the order of its own records. The
// one result has no value; its error is NOT_COORDINATOR where this broker does not lead, or says that the marker is late.
func (g *Groups) WriteMarker(partition int32, b batch.Batch, txnVersion int16) *Call {
	c := newCall(1)
	g.at(partition).submitOr(item{w: waiter{c, 0}, ev: markerEvent{b, txnVersion}})
	return c
}

// List asks every coordinator of this broker for its groups; each result holds
// []kmsg.ListGroupsResponseGroup.
func (g *Groups) List(ev group.List) *Call { return g.askAll(ev) }

// Close stops every coordinator once what it has taken is appended and committed, or ctx ends, and waits for
// their goroutines. Parked joins and syncs are answered NOT_COORDINATOR: the members go on elsewhere.
func (g *Groups) Close(ctx context.Context) error { return g.close(ctx, "flush groups") }
