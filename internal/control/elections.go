package control

import (
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
)

// ElectionsPerPass is the most elections of one sweep; the rest comes with the next (kafka.md 4.3).
const ElectionsPerPass = 1000

// SweepPreferred plans that leadership goes to the first replica wherever that one is in sync and
// active. more says that the pass was full.
func (c *Cluster) SweepPreferred() (plan Plan, more bool, err error) {
	return c.sweep(wantPreferred, func(p *meta.Partition) bool {
		return p.Leader != p.Replicas[0] && slices.Contains(p.ISR, p.Replicas[0])
	})
}

// SweepOffline plans leaders for partitions that have none: by the rules of the moment, so it finds
// what a changed unclean.leader.election.enable or a missed event has made possible.
func (c *Cluster) SweepOffline() (plan Plan, more bool, err error) {
	return c.sweep(wantLeader, func(p *meta.Partition) bool { return p.Leader == meta.NoLeader })
}

// SweepFull plans that leadership leaves replicas whose disk has no room for records, wherever another one in sync has. It comes back
// with SweepPreferred.
func (c *Cluster) SweepFull() (plan Plan, more bool, err error) {
	return c.sweep(wantRoom, func(p *meta.Partition) bool { return p.Leader != meta.NoLeader && c.full(p, p.Leader) })
}

func (c *Cluster) sweep(w want, due func(*meta.Partition) bool) (Plan, bool, error) {
	m, err := c.moves()
	if err != nil {
		return Plan{}, false, err
	}
	var p packer
	for _, t := range c.Image.Topics() {
		for n, part := range t.Partitions {
			if !due(part) {
				continue
			}
			np := m.next(t.Name, part, part.ISR, w, nil)
			if np == nil || np.Leader == part.Leader {
				continue
			}
			if p.plan.Len() == ElectionsPerPass {
				return p.plan, true, nil
			}
			p.whole([]meta.Change{meta.PutPartition(t.ID, int32(n), np)})
		}
	}
	return p.plan, false, nil
}

// ElectionType is the type of an ElectLeaders request.
type ElectionType int8

// The types of KIP-460.
const (
	ElectPreferred ElectionType = 0
	ElectUnclean   ElectionType = 1
)

// Election is the outcome for one partition; Err nil: it has another leader now.
type Election struct {
	meta.TopicPartition
	Err *Error
}

// ElectLeaders plans elections by request. only nil means all partitions; then those that need no
// election are left out of the answer, as Kafka does.
func (c *Cluster) ElectLeaders(typ ElectionType, only []meta.TopicPartition) (Plan, []Election, error) {
	if typ != ElectPreferred && typ != ElectUnclean {
		return Plan{}, nil, refuse(kerr.InvalidRequest, "There is no election type %d.", typ)
	}
	m, err := c.moves()
	if err != nil {
		return Plan{}, nil, err
	}
	var p packer
	var out []Election
	done := make(map[meta.TopicPartition]bool, len(only))
	one := func(tp meta.TopicPartition, all bool) {
		if done[tp] {
			return // named twice: one election, one answer
		}
		done[tp] = true
		np, eerr := m.electBy(typ, tp)
		if all && eerr != nil && eerr.Code == kerr.ElectionNotNeeded {
			return
		}
		if np != nil {
			p.whole([]meta.Change{meta.PutPartition(c.Image.Topic(tp.Topic).ID, tp.Partition, np)})
		}
		out = append(out, Election{tp, eerr})
	}
	if only != nil {
		for _, tp := range only {
			one(tp, false)
		}
		return p.plan, out, nil
	}
	for _, t := range c.Image.Topics() {
		for n := range t.Partitions {
			one(meta.TopicPartition{Topic: t.Name, Partition: int32(n)}, true)
		}
	}
	return p.plan, out, nil
}

func (m *moves) electBy(typ ElectionType, tp meta.TopicPartition) (*meta.Partition, *Error) {
	old := m.c.Image.Partition(tp.Topic, tp.Partition)
	w := wantPreferred
	switch {
	case old == nil:
		return nil, refuse(kerr.UnknownTopicOrPartition, "This server does not host this topic-partition.")
	case typ == ElectPreferred && old.Leader == old.Replicas[0], typ == ElectUnclean && old.Leader != meta.NoLeader:
		return nil, refuse(kerr.ElectionNotNeeded, "Leader election not needed for topic partition.")
	case typ == ElectUnclean:
		w = wantUnclean
	}
	np := m.next(tp.Topic, old, old.ISR, w, nil)
	switch {
	case typ == ElectPreferred && (np == nil || np.Leader != old.Replicas[0]):
		return nil, refuse(kerr.PreferredLeaderNotAvailable, "The preferred leader %d is not in sync or not active.", old.Replicas[0])
	case typ == ElectUnclean && (np == nil || np.Leader == meta.NoLeader):
		return nil, refuse(kerr.EligibleLeadersNotAvailable, "No replica is active.")
	}
	return np, nil
}

// LoseDirs plans that log directories of a broker are gone for good (KIP-112, KIP-858): its replicas
// there leave the ISR and others lead. A broker without any directory left is fenced. Directories it
// does not have are passed over.
func (c *Cluster) LoseDirs(id int32, epoch int64, lost []meta.UUID) (Plan, error) {
	b, err := c.broker(id, epoch)
	if err != nil {
		return Plan{}, err
	}
	nb := *b
	nb.Dirs = slices.DeleteFunc(slices.Clone(b.Dirs), func(d meta.UUID) bool { return slices.Contains(lost, d) })
	switch {
	case len(nb.Dirs) == len(b.Dirs):
		return Plan{}, nil
	case len(nb.Dirs) == 0:
		return c.Fence(id, epoch)
	}
	ch := meta.PutBroker(&nb)
	m, err := c.moves(ch)
	if err != nil {
		return Plan{}, err
	}
	var p packer
	for _, t := range c.Image.Topics() {
		for n, part := range t.Partitions {
			if i := slices.Index(part.Replicas, id); i < 0 || i >= len(part.Dirs) || !slices.Contains(lost, part.Dirs[i]) {
				continue
			}
			if np := m.without(t.Name, part, id); np != nil {
				p.whole([]meta.Change{meta.PutPartition(t.ID, int32(n), np)})
			}
		}
	}
	p.whole([]meta.Change{ch}) // last: a plan that is broken off is made again
	return p.plan, nil
}

// Unregister plans that a broker is forgotten. It leaves every ISR first, fenced, so that a crash in
// the middle leaves a dead broker that can be unregistered again. Assignments still name it until they
// are reassigned; where it is the only one in sync, its id stays in the ISR.
func (c *Cluster) Unregister(id int32) (Plan, error) {
	b := c.Image.Broker(id)
	if b == nil {
		return Plan{}, refuse(kerr.BrokerIDNotRegistered, "Broker ID %d is not currently registered", id)
	}
	plan, err := c.Fence(id, b.Epoch)
	if err != nil {
		return Plan{}, err
	}
	last := []meta.Change{meta.Delete(meta.BrokerKey(id))}
	r := meta.Resource{Type: meta.ResourceBroker, Name: fmt.Sprint(id)}
	if values := c.Image.Config(r); values[config.CordonedLogDirs.Name] != "" {
		// It was emptied for this; another broker that takes the id later is not to be avoided.
		values = maps.Clone(values)
		delete(values, config.CordonedLogDirs.Name)
		ch, err := meta.PutConfig(r, values)
		if err != nil {
			return Plan{}, err
		}
		last = append(last, ch)
	}
	plan.Steps = append(plan.Steps, last)
	return plan, nil
}
