package control

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
)

// Format is the number of the key and value format that this binary writes.
const Format = 1

// Features is the level at which a new cluster finalizes each feature. A feature is here only once
// the APIs it promises are served (kafka.md trap 2).
func Features() map[string]int16 {
	return map[string]int16{metadataVersion: 30, FeatureELR: 1, FeatureTransactions: 2}
}

// metadataVersion is what clients and tools read as the release of Kafka.
const metadataVersion = "metadata.version"

// FeatureTransactions is the feature by which transactions follow KIP-890: 0 and 1 as before it, 2 with a new epoch
// at every end.
const FeatureTransactions = "transaction.version"

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
	// Leaders acknowledge by min.insync.replicas and the controller judges by it who is eligible. Written down it is
	// the same for all, however differently they were started (KIP-966 does so, too).
	key := config.MinInsyncReplicas.Name
	min, err := meta.PutConfig(meta.Resource{Type: meta.ResourceBroker}, map[string]string{key: fmt.Sprint(config.MinInsyncReplicas.Of(c.Layers()))})
	if err != nil {
		return Plan{}, err
	}
	return Plan{Steps: [][]meta.Change{{meta.PutCluster(r), min}}}, nil
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
	// Features are the levels that the broker's binary supports; a level that is finalized and not named here is one it
	// does not know. nil: not compared (this binary speaks of itself).
	Features []FeatureRange
	// Intact: recovery found every log whole below its durable mark. What was synced before an unclean end is there.
	Intact bool
}

// FeatureRange is the levels of one feature that a binary supports.
type FeatureRange struct {
	Name     string
	Min, Max int16
}

// FeatureFormat is the name under which a broker tells which formats of the metadata it can read. It is no feature
// that clients see.
const FeatureFormat = "milena.format"

// FeatureIntact is the name under which a registration carries Registration.Intact.
const FeatureIntact = "milena.intact"

// Supported is what this binary supports.
func Supported() []FeatureRange {
	out := []FeatureRange{{FeatureFormat, 1, Format}, {FeatureELR, 0, 1}, {FeatureTransactions, 0, 2}}
	for name, level := range Features() {
		if name != FeatureELR && name != FeatureTransactions {
			out = append(out, FeatureRange{name, 1, level})
		}
	}
	slices.SortFunc(out, func(a, b FeatureRange) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// checkFeatures refuses a binary that does not know what this cluster already uses: it would take records for
// something else, or promise clients what it cannot do.
func (c *Cluster) checkFeatures(r Registration) *Error {
	if r.Features == nil {
		return nil
	}
	of := func(name string) (f FeatureRange) {
		for _, f = range r.Features {
			if f.Name == name {
				return f
			}
		}
		return FeatureRange{Name: name}
	}
	have := c.Image.Cluster()
	if f := of(FeatureFormat); have.Format < int(f.Min) || have.Format > int(f.Max) {
		return refuse(kerr.UnsupportedVersion, "broker %d reads formats %d to %d of the metadata, this cluster uses %d", r.ID, f.Min, f.Max, have.Format)
	}
	names := slices.Sorted(maps.Keys(have.Features))
	for _, name := range names {
		if f, level := of(name), have.Features[name]; level > 0 && (level < f.Min || level > f.Max) {
			return refuse(kerr.UnsupportedVersion, "broker %d supports levels %d to %d of %s, this cluster uses %d: its binary is too old, or too new", r.ID, f.Min, f.Max, name, level)
		}
	}
	return nil
}

// Register plans a broker's (new) registration: fenced, and leading nothing. What its former
// incarnation led is offline or led by others from here on, under a higher leader epoch; membership
// in an ISR is kept only where nobody else is in it. Its epoch is the revision of the last step: a crash before that
// leaves the old registration, and whoever asks again is judged as before.
// A former incarnation that left no clean mark of its own epoch may have lost what it had not synced: with ELR it is
// no longer eligible (KIP-966), unless its logs are intact and records are synced before they count (flush.messages=1).
// One whose only log directory is another now has lost everything: it stays in no ISR, not even as the last member,
// since an empty log would be elected in the place of the records. (A directory of several may only be offline: its
// replicas are not elected, and dropped when they are begun anew in another one, see AssignDirs.)
func (c *Cluster) Register(r Registration) (Plan, error) {
	if r.ID < 0 || r.Incarnation.IsZero() || len(r.Endpoints) == 0 {
		return Plan{}, refuse(kerr.InvalidRequest, "registration of broker %d without incarnation or endpoints", r.ID)
	}
	if r.ClusterID != "" && r.ClusterID != c.Image.ClusterID() {
		return Plan{}, refuse(kerr.InconsistentClusterID, "broker %d belongs to cluster %s, this is cluster %s", r.ID, r.ClusterID, c.Image.ClusterID())
	}
	if err := c.checkFeatures(r); err != nil {
		return Plan{}, err
	}
	b := &meta.Broker{ID: r.ID, Incarnation: r.Incarnation, Endpoints: r.Endpoints, Rack: r.Rack, Dirs: r.Dirs, Fenced: true}
	ch := meta.PutBroker(b)
	m, err := c.moves(ch)
	if err != nil {
		return Plan{}, err
	}
	old := c.Image.Broker(r.ID)
	if old == nil || old.Epoch != r.PreviousEpoch && old.Incarnation != r.Incarnation {
		m.unclean, m.intact = map[int32]bool{r.ID: true}, r.Intact
	}
	if old != nil && len(old.Dirs) == 1 && len(r.Dirs) > 0 && !slices.Contains(r.Dirs, old.Dirs[0]) {
		m.replaced, m.single = r.ID, true
	}
	var p packer
	p.leave(m, []int32{r.ID}, ch)
	return p.plan, nil
}

// Unfence plans that a broker takes part: it is shown to clients and elected wherever a partition
// has no leader and this broker may lead it.
func (c *Cluster) Unfence(id int32, epoch int64) (Plan, error) {
	b, err := c.broker(id, epoch)
	if err != nil || !b.Fenced {
		return Plan{}, err
	}
	nb := *b
	nb.Fenced = false
	ch := meta.PutBroker(&nb)
	m, err := c.moves(ch)
	if err != nil {
		return Plan{}, err
	}
	var p packer
	p.whole([]meta.Change{ch})
	for _, t := range c.Image.Topics() {
		for n, part := range t.Partitions {
			if part.Leader != meta.NoLeader || !slices.Contains(part.Replicas, id) {
				continue
			}
			if np := m.next(t.Name, part, part.ISR, wantLeader, nil); np != nil {
				p.whole([]meta.Change{meta.PutPartition(t.ID, int32(n), np)})
			}
		}
	}
	return p.plan, nil
}

// Drain plans a controlled shutdown: the broker is marked, and what it leads moves to other members
// of the ISR where there are any. Where it is the only one it goes on leading until it is fenced, even
// if an unclean election is allowed: nothing has failed yet. Asked again it plans what can move by now;
// an empty plan says that nothing can.
func (c *Cluster) Drain(id int32, epoch int64) (Plan, error) {
	b, err := c.broker(id, epoch)
	if err != nil {
		return Plan{}, err
	}
	nb := *b
	nb.Draining = true
	ch := meta.PutBroker(&nb)
	m, err := c.moves(ch)
	if err != nil {
		return Plan{}, err
	}
	var p packer
	if !b.Draining {
		p.whole([]meta.Change{ch})
	}
	for _, t := range c.Image.Topics() {
		for n, part := range t.Partitions {
			np := m.without(t.Name, part, id)
			if np != nil && (slices.Contains(part.ISR, np.Leader) || slices.Contains(part.ELR, np.Leader)) {
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
	return c.FenceAll([]int32{id})
}

// FenceAll plans that brokers count as dead at the same moment, those that are registered and not fenced yet. One
// after the other would be another thing: the last of them would be left in the ISRs alone, although none of them
// saw more than the others, and the partitions would wait for just that one to come back.
func (c *Cluster) FenceAll(ids []int32) (Plan, error) {
	var brokers []meta.Change
	var gone []int32
	for _, id := range ids {
		b := c.Image.Broker(id)
		if b == nil || b.Fenced {
			continue
		}
		nb := *b
		nb.Fenced, nb.Draining = true, false
		brokers, gone = append(brokers, meta.PutBroker(&nb)), append(gone, id)
	}
	if len(gone) == 0 {
		return Plan{}, nil
	}
	m, err := c.moves(brokers...)
	if err != nil {
		return Plan{}, err
	}
	var p packer
	p.leave(m, gone, brokers...)
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

// leave adds the partition changes after brokers have gone, and last their own records: a plan that is broken off is
// made again, because they still look alive. Those partitions come first that get another leader, in a step of their
// own where there are many: nobody can write to them until it is through.
func (p *packer) leave(m *moves, gone []int32, brokers ...meta.Change) {
	var first, rest []meta.Change
	for _, t := range m.c.Image.Topics() {
		for n, part := range t.Partitions {
			np := m.without(t.Name, part, gone...)
			switch {
			case np == nil:
			case np.Leader != part.Leader:
				first = append(first, meta.PutPartition(t.ID, int32(n), np))
			default:
				rest = append(rest, meta.PutPartition(t.ID, int32(n), np))
			}
		}
	}
	p.split(first)
	if len(first) > 0 && len(rest) >= ownStep {
		p.plan.Steps, p.bytes = append(p.plan.Steps, nil), 0
	}
	p.split(rest)
	p.whole(brokers)
}

// ownStep is how many changes that hurry nobody are worth a step of their own: each costs a round through the store.
const ownStep = 100

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
