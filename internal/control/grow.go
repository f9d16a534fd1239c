package control

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
)

// GrowInternal plans that the topics of coordinators get the replicas that their configuration asks for, as far as
// there are brokers: one that was made when there was a single broker holds everybody's offsets, and would go with
// it. Replicas are only added. atOnce bounds the partitions that are on the way at the same time; more says that some
// are left, or on the way. The first replica of what grows is the one that is first in the fewest, so that
// coordinators spread over the brokers.
func (c *Cluster) GrowInternal(atOnce int) (plan Plan, more bool) {
	var room []*meta.Broker
	for _, b := range c.Image.Brokers() {
		if active(b) && !c.leaving(b.ID) {
			room = append(room, b)
		}
	}
	for _, name := range []string{OffsetsTopic, TransactionTopic, ShareTopic} {
		t := c.Image.Topic(name)
		if t == nil || !t.Internal {
			continue
		}
		want := int(min(number(c.Layers(), internalKeys[name].prefix+".replication.factor"), int64(len(room))))
		wishes, rest := c.growTopic(t, room, want, atOnce)
		atOnce -= len(wishes) + underWay(t)
		more = more || rest || len(wishes) > 0 || underWay(t) > 0
		p, _ := c.Reassign(wishes, true) // what is refused now is tried again
		plan.Steps = append(plan.Steps, p.Steps...)
		if ch, ok := c.raiseMinISR(t); ok {
			plan.Steps = append(plan.Steps, ch)
		}
	}
	return plan, more
}

// underWay counts the partitions of a topic that are being reassigned.
func underWay(t *meta.Topic) int {
	n := 0
	for _, p := range t.Partitions {
		if len(p.Adding) > 0 || len(p.Removing) > 0 {
			n++
		}
	}
	return n
}

func (c *Cluster) growTopic(t *meta.Topic, room []*meta.Broker, want, atOnce int) (wishes []Reassignment, rest bool) {
	count, first := map[int32]int{}, map[int32]int{}
	for _, p := range t.Partitions {
		first[p.Replicas[0]]++
		for _, r := range p.Replicas {
			count[r]++
		}
	}
	atOnce -= underWay(t)
	for n, p := range t.Partitions {
		switch {
		case len(p.Adding) > 0 || len(p.Removing) > 0 || len(p.Replicas) >= want:
			continue
		case p.Leader == meta.NoLeader:
			rest = true // nobody to copy from
			continue
		case len(wishes) >= atOnce:
			return wishes, true
		}
		target := slices.Clone(p.Replicas)
		for len(target) < want {
			id, ok := roomiest(c.Image, room, target, count)
			if !ok {
				break
			}
			target = append(target, id)
			count[id]++
		}
		at := 0
		for i, id := range target {
			if first[id] < first[target[at]] {
				at = i
			}
		}
		first[target[0]]--
		first[target[at]]++
		target[0], target[at] = target[at], target[0]
		wishes = append(wishes, Reassignment{Topic: t.Name, Partition: int32(n), Target: target})
	}
	return wishes, rest
}

// roomiest is the broker for one more replica: another rack, then the fewest replicas of the topic.
func roomiest(im *meta.Image, room []*meta.Broker, has []int32, count map[int32]int) (int32, bool) {
	crowd := func(b *meta.Broker) int {
		n := 0
		for _, id := range has {
			if o := im.Broker(id); o != nil && b.Rack != "" && o.Rack == b.Rack {
				n++
			}
		}
		return n
	}
	var best *meta.Broker
	for _, b := range room {
		if slices.Contains(has, b.ID) {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(crowd(b), crowd(best)), cmp.Compare(count[b.ID], count[best.ID])) < 0 {
			best = b
		}
	}
	if best == nil {
		return 0, false
	}
	return best.ID, true
}

// raiseMinISR lets a topic that was made with fewer brokers have the min.insync.replicas that its configuration asks
// for, once every partition has more replicas than that: before, one broker less would stop it.
func (c *Cluster) raiseMinISR(t *meta.Topic) ([]meta.Change, bool) {
	keys := internalKeys[t.Name]
	if !keys.minISR {
		return nil, false
	}
	want := number(c.Layers(), keys.prefix+".min.isr")
	for _, p := range t.Partitions {
		if int64(len(p.Replicas)) <= want || len(p.Adding) > 0 || int64(len(p.ISR)) < want {
			return nil, false
		}
	}
	r := meta.Resource{Type: meta.ResourceTopic, Name: t.Name}
	have := c.Image.Config(r)
	if have["min.insync.replicas"] != "1" || want <= 1 {
		return nil, false // not ours: somebody has chosen another value
	}
	values := map[string]string{}
	for k, v := range have {
		values[k] = v
	}
	values["min.insync.replicas"] = fmt.Sprint(want)
	ch, err := meta.PutConfig(r, values)
	if err != nil {
		return nil, false
	}
	return append(c.forgetELR(r, values), ch), true
}

// Leaving lists the registered brokers that are being emptied: cordoned.log.dirs is * for them (KIP-1066), which also
// keeps new replicas away.
func (c *Cluster) Leaving() []int32 {
	var out []int32
	for _, b := range c.Image.Brokers() {
		if c.leaving(b.ID) {
			out = append(out, b.ID)
		}
	}
	return out
}

func (c *Cluster) leaving(id int32) bool {
	v := c.Image.Config(meta.Resource{Type: meta.ResourceBroker, Name: fmt.Sprint(id)})[config.CordonedLogDirs.Name]
	return v == "*"
}

// Calm says that nothing moves and nothing is under-replicated: the time for the balancer's next step.
func (c *Cluster) Calm() bool {
	for _, t := range c.Image.Topics() {
		for _, p := range t.Partitions {
			if len(p.Adding) > 0 || len(p.Removing) > 0 || p.Leader == meta.NoLeader || len(p.ISR) < len(p.Replicas) {
				return false
			}
		}
	}
	return true
}

// Wishes are the first relocations of a plan as reassignments: at most moves whose data moves, and any number of
// those that only change the order, up to ElectionsPerPass.
func (c *Cluster) Wishes(plan []Relocation, moves int) []Reassignment {
	var out []Reassignment
	for _, r := range plan {
		if data := !subset(r.To, r.From); data {
			if moves <= 0 {
				continue
			}
			moves--
		}
		if out = append(out, Reassignment{Topic: r.Topic, Partition: r.Partition, Target: r.To}); len(out) == ElectionsPerPass {
			break
		}
	}
	return out
}
