package control

import (
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/meta"
)

// Format is the number of the key and value format that this binary writes.
const Format = 1

// Features is the level at which a new cluster finalizes each feature. A feature is here only once
// the APIs it promises are served (kafka.md trap 2).
func Features() map[string]int16 { return map[string]int16{"metadata.version": 30} }

// Bootstrap is the first change of a cluster; it is empty when the cluster exists. clusterID is what
// the data directories remember, "" when they are new.
func (c *Cluster) Bootstrap(clusterID string) (Plan, error) {
	if have := c.Image.Cluster(); have.ID != "" {
		if have.Format > Format {
			return Plan{}, refuse(kerr.UnsupportedVersion, "the cluster's metadata has format %d, this binary knows %d: it was written by a newer release", have.Format, Format)
		}
		return Plan{}, nil
	}
	if clusterID != "" {
		return Plan{}, refuse(kerr.InconsistentClusterID, "the data directories belong to cluster %s, but the coordination store is empty: its directory is gone or another one", clusterID)
	}
	r := meta.ClusterRecord{ID: c.NewID().String(), Format: Format, Features: Features()}
	return Plan{Steps: [][]meta.Change{{meta.PutCluster(r)}}}, nil
}

// Registration is a broker's word about itself at start.
type Registration struct {
	ID            int32
	Incarnation   meta.UUID // fresh at every process start
	ClusterID     string    // what its data directories say; "" when new
	Endpoints     []meta.Endpoint
	Rack          string
	Dirs          []meta.UUID
	PreviousEpoch int64 // broker epoch in the clean-shutdown mark, -1 when there is none
}

// Register plans a broker's (new) registration: fenced, and leading nothing. What its former
// incarnation led is offline or led by others from here on, under a higher leader epoch; membership
// in an ISR is kept only where nobody else is in it. Its epoch is the revision of the first step.
func (c *Cluster) Register(r Registration) (Plan, error) {
	if r.ID < 0 || r.Incarnation.IsZero() || len(r.Endpoints) == 0 {
		return Plan{}, refuse(kerr.InvalidRequest, "registration of broker %d without incarnation or endpoints", r.ID)
	}
	if r.ClusterID != "" && r.ClusterID != c.Image.ClusterID() {
		return Plan{}, refuse(kerr.InconsistentClusterID, "broker %d belongs to cluster %s, this is cluster %s", r.ID, r.ClusterID, c.Image.ClusterID())
	}
	b := &meta.Broker{ID: r.ID, Incarnation: r.Incarnation, Endpoints: r.Endpoints, Rack: r.Rack, Dirs: r.Dirs, Fenced: true}
	var p packer
	p.whole([]meta.Change{meta.PutBroker(b)})
	p.split(c.leave(r.ID))
	return p.plan, nil
}

// Unfence plans that a broker takes part: it is shown to clients and elected wherever a partition
// has no leader and this broker is in the ISR.
func (c *Cluster) Unfence(id int32, epoch int64) (Plan, error) {
	b, err := c.broker(id, epoch)
	if err != nil || !b.Fenced {
		return Plan{}, err
	}
	nb := *b
	nb.Fenced = false
	var p packer
	p.whole([]meta.Change{meta.PutBroker(&nb)})
	for _, t := range c.Image.Topics() {
		for n, part := range t.Partitions {
			if part.Leader != meta.NoLeader || !slices.Contains(part.ISR, id) {
				continue
			}
			np := *part
			np.Leader = id
			np.LeaderEpoch++
			np.PartitionEpoch++
			p.whole([]meta.Change{meta.PutPartition(t.ID, int32(n), &np)})
		}
	}
	return p.plan, nil
}

// Drain plans a controlled shutdown: the broker is marked, and what it leads moves to other members
// of the ISR where there are any. Where it is the only one it goes on leading until it is fenced.
func (c *Cluster) Drain(id int32, epoch int64) (Plan, error) {
	b, err := c.broker(id, epoch)
	if err != nil || b.Draining {
		return Plan{}, err
	}
	nb := *b
	nb.Draining = true
	var p packer
	p.whole([]meta.Change{meta.PutBroker(&nb)})
	for _, t := range c.Image.Topics() {
		for n, part := range t.Partitions {
			if np := c.without(part, id); np != nil && np.Leader != meta.NoLeader {
				p.whole([]meta.Change{meta.PutPartition(t.ID, int32(n), np)})
			}
		}
	}
	return p.plan, nil
}

// Fence plans that a broker counts as dead.
func (c *Cluster) Fence(id int32, epoch int64) (Plan, error) {
	b, err := c.broker(id, epoch)
	if err != nil || b.Fenced {
		return Plan{}, err
	}
	nb := *b
	nb.Fenced, nb.Draining = true, false
	var p packer
	p.whole([]meta.Change{meta.PutBroker(&nb)})
	p.split(c.leave(id))
	return p.plan, nil
}

// broker finds a registration and compares its epoch: an older incarnation has no say.
func (c *Cluster) broker(id int32, epoch int64) (*meta.Broker, error) {
	b := c.Image.Broker(id)
	if b == nil {
		return nil, refuse(kerr.BrokerIDNotRegistered, "broker %d is not registered", id)
	}
	if b.Epoch != epoch {
		return nil, refuse(kerr.StaleBrokerEpoch, "broker %d has epoch %d, not %d", id, b.Epoch, epoch)
	}
	return b, nil
}

// leave is the partition changes after a broker has gone.
func (c *Cluster) leave(id int32) []meta.Change {
	var cs []meta.Change
	for _, t := range c.Image.Topics() {
		for n, part := range t.Partitions {
			if np := c.without(part, id); np != nil {
				cs = append(cs, meta.PutPartition(t.ID, int32(n), np))
			}
		}
	}
	return cs
}

// without is a partition whose broker id has gone, nil when that changes nothing. The last member
// stays in the ISR of a partition without leader: it alone is known to have all the data.
func (c *Cluster) without(p *meta.Partition, id int32) *meta.Partition {
	if p.Leader != id && !slices.Contains(p.ISR, id) {
		return nil
	}
	np := *p
	if rest := remove(p.ISR, id); len(rest) > 0 {
		np.ISR = rest
	}
	if p.Leader == id {
		np.Leader = c.elect(np.Replicas, np.ISR, id)
		np.LeaderEpoch++
	}
	if np.Leader == p.Leader && len(np.ISR) == len(p.ISR) {
		return nil
	}
	np.PartitionEpoch++
	return &np
}

// elect is the clean election of kafka.md 4.3: the first replica in the order of the assignment that
// is in the ISR, on an active broker other than the one that goes.
func (c *Cluster) elect(replicas, isr []int32, but int32) int32 {
	for _, r := range replicas {
		if r != but && slices.Contains(isr, r) && active(c.Image.Broker(r)) {
			return r
		}
	}
	return meta.NoLeader
}

func remove(s []int32, v int32) []int32 {
	out := make([]int32, 0, len(s))
	for _, x := range s {
		if x != v {
			out = append(out, x)
		}
	}
	return out
}

// ProducerIDBlock is how many producer ids one grant holds (KIP-730).
const ProducerIDBlock = 1000

// AllocateProducerIDs plans a grant to a broker: ids first to first+ProducerIDBlock-1 are its own
// for ever, used or not.
func (c *Cluster) AllocateProducerIDs(id int32, epoch int64) (plan Plan, first int64, err error) {
	if _, err := c.broker(id, epoch); err != nil {
		return Plan{}, 0, err
	}
	first = c.Image.ProducerIDs().Next
	if first > math.MaxInt64-ProducerIDBlock {
		return Plan{}, 0, refuse(kerr.UnknownServerError, "producer ids are used up")
	}
	r := meta.ProducerIDRecord{Next: first + ProducerIDBlock, Broker: id, Epoch: epoch}
	return Plan{Steps: [][]meta.Change{{meta.PutProducerIDs(r)}}}, first, nil
}
