package control

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/meta"
)

// Reassignment is a wish to give a partition other replicas (KIP-455).
type Reassignment struct {
	Topic     string
	Partition int32
	Target    []int32 // nil: the running reassignment is cancelled
}

// Reassign plans reassignments; one error, or nil, for each wish. A new wish takes the place of a
// running one: what that was adding and is no longer wanted goes at once.
func (c *Cluster) Reassign(wishes []Reassignment, otherFactor bool) (Plan, []*Error) {
	errs := make([]*Error, len(wishes))
	m, err := c.moves()
	if err != nil {
		for i := range errs {
			errs[i] = as(err)
		}
		return Plan{}, errs
	}
	seen := make(map[meta.TopicPartition]int, len(wishes))
	for _, w := range wishes {
		seen[meta.TopicPartition{Topic: w.Topic, Partition: w.Partition}]++
	}
	var p packer
	for i, w := range wishes {
		if seen[meta.TopicPartition{Topic: w.Topic, Partition: w.Partition}] > 1 {
			errs[i] = refuse(kerr.InvalidRequest, "Each partition must appear at most once.")
			continue
		}
		old := c.Image.Partition(w.Topic, w.Partition)
		if old == nil {
			errs[i] = refuse(kerr.UnknownTopicOrPartition, "This server does not host this topic-partition.")
			continue
		}
		np, rerr := m.reassign(w, old, otherFactor)
		if errs[i] = rerr; np != nil {
			p.whole([]meta.Change{meta.PutPartition(c.Image.Topic(w.Topic).ID, w.Partition, np)})
		}
	}
	return p.plan, errs
}

func (m *moves) reassign(w Reassignment, old *meta.Partition, otherFactor bool) (*meta.Partition, *Error) {
	// What was there before the running reassignment, if any.
	before := slices.DeleteFunc(slices.Clone(old.Replicas), func(id int32) bool { return slices.Contains(old.Adding, id) })
	target := w.Target
	if target == nil {
		if len(old.Adding) == 0 && len(old.Removing) == 0 {
			return nil, refuse(kerr.NoReassignmentInProgress, "No partition reassignment is in progress.")
		}
		target = before
	} else {
		if err := m.c.checkReplicas(target, 0); err != nil {
			return nil, err
		}
		if !otherFactor && len(target) != len(before) {
			return nil, refuse(kerr.InvalidReplicationFactor, "The replication factor is changed from %d to %d.", len(before), len(target))
		}
	}
	replicas := slices.Clone(target)
	var adding, removing []int32
	for _, id := range target {
		if !slices.Contains(before, id) {
			adding = append(adding, id)
		}
	}
	for _, id := range before {
		if !slices.Contains(target, id) {
			removing, replicas = append(removing, id), append(replicas, id)
		}
	}
	isr := slices.DeleteFunc(slices.Clone(old.ISR), func(id int32) bool { return !slices.Contains(replicas, id) })
	// All that were in sync, and all that may be elected without loss, were being added and would go:
	// what is left may lack records.
	kept := slices.ContainsFunc(old.ELR, func(id int32) bool { return slices.Contains(replicas, id) })
	if len(isr) == 0 && len(old.ISR) > 0 && !kept && !m.of(w.Topic).unclean {
		return nil, refuse(kerr.InvalidReplicaAssignment, "None of the replicas that would be left is in sync, and unclean.leader.election.enable is false.")
	}
	np := m.next(w.Topic, old, isr, wantLeader, func(p *meta.Partition) { assign(p, replicas, adding, removing) })
	if np != nil && len(np.ISR) == 0 && !m.elr {
		// Without ELR an ISR is never empty: nobody could ever be elected again.
		return nil, refuse(kerr.InvalidReplicaAssignment, "None of the replicas that would be left is in sync or active.")
	}
	return np, nil
}

// assign sets replicas; each that stays keeps its directory.
func assign(p *meta.Partition, replicas, adding, removing []int32) {
	if len(p.Dirs) > 0 {
		dirs := make([]meta.UUID, len(replicas))
		for i, id := range replicas {
			if k := slices.Index(p.Replicas, id); k >= 0 && k < len(p.Dirs) {
				dirs[i] = p.Dirs[k]
			}
		}
		p.Dirs = dirs
	}
	p.Replicas, p.Adding, p.Removing = replicas, adding, removing
}

// finish ends a reassignment as soon as the ISR allows it (kafka.md 4.4).
func finish(p *meta.Partition) {
	if len(p.Adding) == 0 && len(p.Removing) == 0 {
		return
	}
	target := slices.DeleteFunc(slices.Clone(p.Replicas), func(id int32) bool { return slices.Contains(p.Removing, id) })
	if len(target) == 0 || !subset(p.Adding, p.ISR) {
		return
	}
	if len(target) < len(p.Replicas)-len(p.Adding) && !subset(target, p.ISR) {
		return
	}
	isr := slices.DeleteFunc(slices.Clone(p.ISR), func(id int32) bool { return !slices.Contains(target, id) })
	if len(isr) == 0 {
		return
	}
	assign(p, target, nil, nil)
	p.ISR = isr
}

// Moving is one running reassignment.
type Moving struct {
	Topic                      string
	Partition                  int32
	Replicas, Adding, Removing []int32 // shared, read only
}

// Reassigning lists running reassignments, of the given partitions or (nil) of all, by topic and
// number. What does not exist or does not move is left out.
func (c *Cluster) Reassigning(only []meta.TopicPartition) []Moving {
	var out []Moving
	add := func(topic string, n int32, p *meta.Partition) {
		if len(p.Adding) > 0 || len(p.Removing) > 0 {
			out = append(out, Moving{topic, n, p.Replicas, p.Adding, p.Removing})
		}
	}
	if only == nil {
		for _, t := range c.Image.Topics() {
			for n, p := range t.Partitions {
				add(t.Name, int32(n), p)
			}
		}
		return out
	}
	for _, tp := range only {
		if p := c.Image.Partition(tp.Topic, tp.Partition); p != nil {
			add(tp.Topic, tp.Partition, p)
		}
	}
	return out
}
