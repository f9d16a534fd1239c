package meta

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// MaxPartitions bounds the partitions of one topic: a record that claims more is corrupt, and is
// refused before anything is allocated for it.
const MaxPartitions = 1 << 20

// applying is one Apply under way.
type applying struct {
	im      *Image
	next    *Image
	rev     int64
	delta   *Delta
	topics  *editor[string, *Topic]
	byID    *editor[UUID, *Topic]
	configs *editor[Resource, map[string]string]
	pending *editor[UUID, map[int32]*Partition]
	brokers bool // next.brokers is our own copy

	records map[UUID]topicChange          // topic keys written or deleted, by topic id
	parts   map[UUID]map[int32]*Partition // partition keys written (or, nil, deleted)
}

// topicChange is what happened to a topic's key: rec nil means deleted.
type topicChange struct {
	name string
	rec  *TopicRecord
}

// Apply makes the image after one atomic batch of changes, and says what differs. The order of the
// changes inside the batch does not matter. A change that restates what the image already shows is
// not in the delta. rev is the revision of the batch. On an error (a record that this binary cannot
// read, or a topic whose partitions are missing) nothing is applied.
func (im *Image) Apply(cs []Change, rev int64) (*Image, *Delta, error) {
	a := &applying{
		im: im, rev: rev,
		next: &Image{
			rev: rev, cluster: im.cluster, ctl: im.ctl, pids: im.pids, brokers: im.brokers,
			topics: im.topics, byID: im.byID, configs: im.configs, pending: im.pending, nparts: im.nparts,
		},
		delta:   &Delta{From: im.rev, To: rev},
		topics:  edit(im.topics, hashString),
		byID:    edit(im.byID, hashUUID),
		configs: edit(im.configs, hashResource),
		pending: edit(im.pending, hashUUID),
	}
	for _, c := range cs {
		if err := a.change(c); err != nil {
			return nil, nil, fmt.Errorf("apply revision %d: %w", rev, err)
		}
	}
	if err := a.settleTopics(); err != nil {
		return nil, nil, fmt.Errorf("apply revision %d: %w", rev, err)
	}
	a.next.topics, a.next.byID = a.topics.t, a.byID.t
	a.next.configs, a.next.pending = a.configs.t, a.pending.t
	if len(a.delta.Topics) == 0 {
		// The sorted list survives a change that touches no topic, or every config change would
		// make the next full Metadata sort ten thousand names again.
		a.next.sorted.Store(im.sorted.Load())
	}
	return a.next, a.delta, nil
}

func (a *applying) change(c Change) error {
	k, err := parseKey(c.Key)
	if err != nil {
		return err
	}
	switch k.kind {
	case kindCluster, kindController, kindProducerIDs:
		return a.changeSingle(k.kind, c)
	case kindBroker:
		return a.changeBroker(k.broker, c)
	case kindTopic:
		return a.changeTopic(k.topic, c)
	case kindPartition:
		return a.changePartition(k.id, k.n, c)
	case kindConfig:
		return a.changeConfig(k.resource, c)
	}
	return fmt.Errorf("key %q: kind %d", c.Key, k.kind)
}

func (a *applying) changeSingle(kind keyKind, c Change) error {
	if c.Value == nil && kind != kindProducerIDs {
		return fmt.Errorf("key %q: deleted, but a cluster cannot be without it", c.Key)
	}
	switch kind {
	case kindCluster:
		r, err := DecodeCluster(c.Value)
		if err != nil {
			return err
		}
		if r.ID != a.next.cluster.ID || r.Format != a.next.cluster.Format || !maps.Equal(r.Features, a.next.cluster.Features) {
			a.next.cluster, a.delta.Features = r, true
		}
	case kindController:
		r, err := DecodeController(c.Value)
		if err != nil {
			return err
		}
		if r != a.next.ctl {
			a.next.ctl, a.delta.Controller = r, true
		}
	case kindProducerIDs:
		var r ProducerIDRecord
		if c.Value != nil {
			if err := decode(c.Key, c.Value, &r); err != nil {
				return err
			}
		}
		a.next.pids = r
	}
	return nil
}

func (a *applying) changeBroker(id int32, c Change) error {
	var b *Broker
	if c.Value != nil {
		b = new(Broker)
		if err := decode(c.Key, c.Value, b); err != nil {
			return err
		}
		if b.ID != id {
			return fmt.Errorf("key %q: holds broker %d", c.Key, b.ID)
		}
		if b.Epoch == 0 {
			if b.Epoch = c.Rev; b.Epoch == 0 {
				b.Epoch = a.rev
			}
		}
	}
	i, found := slices.BinarySearchFunc(a.next.brokers, id, func(b *Broker, id int32) int { return cmp.Compare(b.ID, id) })
	var old *Broker
	if found {
		old = a.next.brokers[i]
	}
	if b == nil && old == nil || b != nil && old != nil && equalBroker(b, old) {
		return nil
	}
	if !a.brokers {
		a.next.brokers, a.brokers = slices.Clone(a.next.brokers), true
	}
	switch {
	case b == nil:
		a.next.brokers = slices.Delete(a.next.brokers, i, i+1)
	case found:
		a.next.brokers[i] = b
	default:
		a.next.brokers = slices.Insert(a.next.brokers, i, b)
	}
	if a.delta.Brokers == nil {
		a.delta.Brokers = make(map[int32]BrokerDelta)
	}
	if d, ok := a.delta.Brokers[id]; ok {
		old = d.Old
	}
	a.delta.Brokers[id] = BrokerDelta{Old: old, New: b}
	return nil
}

func (a *applying) changeConfig(r Resource, c Change) error {
	var m map[string]string
	if c.Value != nil {
		if err := decode(c.Key, c.Value, &m); err != nil {
			return err
		}
	}
	old, _ := a.configs.get(r)
	if maps.Equal(old, m) {
		return nil
	}
	if len(m) == 0 {
		a.configs.del(r)
	} else {
		a.configs.set(r, m)
	}
	if a.delta.Configs == nil {
		a.delta.Configs = make(map[Resource]struct{})
	}
	a.delta.Configs[r] = struct{}{}
	return nil
}

func (a *applying) changeTopic(name string, c Change) error {
	if a.records == nil {
		a.records = make(map[UUID]topicChange)
	}
	old, _ := a.topics.get(name)
	if c.Value == nil {
		if old != nil {
			a.records[old.ID] = topicChange{name: name}
		}
		return nil
	}
	var r TopicRecord
	if err := decode(c.Key, c.Value, &r); err != nil {
		return err
	}
	if r.ID.IsZero() || r.Partitions < 1 || r.Partitions > MaxPartitions {
		return fmt.Errorf("key %q: topic id %v with %d partitions", c.Key, r.ID, r.Partitions)
	}
	if old != nil && old.ID != r.ID {
		a.records[old.ID] = topicChange{name: name} // replaced by another topic of the same name
	}
	if t, ok := a.byID.get(r.ID); ok && t.Name != name {
		return fmt.Errorf("key %q: topic id %v belongs to %q", c.Key, r.ID, t.Name)
	}
	if t, ok := a.records[r.ID]; ok && t.name != name {
		return fmt.Errorf("key %q: topic id %v belongs to %q", c.Key, r.ID, t.name)
	}
	a.records[r.ID] = topicChange{name: name, rec: &r}
	return nil
}

func (a *applying) changePartition(id UUID, n int32, c Change) error {
	var p *Partition
	if c.Value != nil {
		p = new(Partition)
		if err := decode(c.Key, c.Value, p); err != nil {
			return err
		}
		if err := p.check(); err != nil {
			return fmt.Errorf("key %q: %w", c.Key, err)
		}
	}
	if n >= MaxPartitions {
		return fmt.Errorf("key %q: more than %d partitions", c.Key, MaxPartitions)
	}
	if a.parts == nil {
		a.parts = make(map[UUID]map[int32]*Partition)
	}
	m := a.parts[id]
	if m == nil {
		m = make(map[int32]*Partition)
		a.parts[id] = m
	}
	m[n] = p
	return nil
}

// settleTopics brings topic keys and partition keys together, once all changes of the batch are
// known: a topic becomes visible only with every one of its partitions.
func (a *applying) settleTopics() error {
	ids := make(map[UUID]struct{}, len(a.records)+len(a.parts))
	for id := range a.records {
		ids[id] = struct{}{}
	}
	for id := range a.parts {
		ids[id] = struct{}{}
	}
	// Deletions first: a name that moves to another id must be free before it is taken.
	for id := range ids {
		if r, ok := a.records[id]; ok && r.rec == nil {
			if err := a.settle(id); err != nil {
				return err
			}
			delete(ids, id)
		}
	}
	for id := range ids {
		if err := a.settle(id); err != nil {
			return err
		}
	}
	return nil
}

func (a *applying) settle(id UUID) error {
	old, _ := a.byID.get(id)
	ch, touched := a.records[id]
	if !touched && old != nil {
		ch = topicChange{name: old.Name, rec: &TopicRecord{ID: id, Partitions: int32(len(old.Partitions)), Internal: old.Internal}}
	}
	hidden, _ := a.pending.get(id)
	if ch.rec == nil {
		a.hide(id, ch.name, old, hidden)
		return nil
	}
	next := &Topic{Name: ch.name, ID: id, Internal: ch.rec.Internal, Partitions: make([]*Partition, ch.rec.Partitions)}
	var before []*Partition
	if old != nil {
		before = old.Partitions
	}
	rest := maps.Clone(hidden) // nil stays nil
	take := func(n int32, p *Partition) {
		if n < ch.rec.Partitions {
			next.Partitions[n] = p
			return
		}
		if rest == nil {
			rest = make(map[int32]*Partition)
		}
		rest[n] = p
	}
	for n, p := range before {
		take(int32(n), p)
	}
	for n, p := range hidden {
		if n < ch.rec.Partitions {
			delete(rest, n)
			next.Partitions[n] = p
		}
	}
	for n, p := range a.parts[id] {
		if p == nil {
			delete(rest, n)
		}
		if p != nil || n < ch.rec.Partitions {
			take(n, p)
		}
	}
	a.setPending(id, rest, hidden)
	return a.show(old, next)
}

// show puts a topic into the image when it differs from what is there.
func (a *applying) show(old, next *Topic) error {
	var changed []int32
	for n, p := range next.Partitions {
		if p == nil {
			return fmt.Errorf("topic %q: partition %d has no record", next.Name, n)
		}
		if old != nil && n < len(old.Partitions) {
			if o := old.Partitions[n]; o == p || equalPartition(o, p) {
				next.Partitions[n] = o
				continue
			}
		}
		changed = append(changed, int32(n))
	}
	if old != nil && changed == nil && len(old.Partitions) == len(next.Partitions) && old.Internal == next.Internal {
		return nil
	}
	a.topics.set(next.Name, next)
	a.byID.set(next.ID, next)
	a.next.nparts += len(next.Partitions)
	if old != nil {
		a.next.nparts -= len(old.Partitions)
	}
	a.topicDelta(next.ID, TopicDelta{Old: old, New: next, Partitions: changed})
	return nil
}

// hide takes a topic out of the image; partition records that remain are kept aside.
func (a *applying) hide(id UUID, name string, old *Topic, hidden map[int32]*Partition) {
	rest := maps.Clone(hidden)
	if rest == nil {
		rest = make(map[int32]*Partition)
	}
	if old != nil {
		for n, p := range old.Partitions {
			rest[int32(n)] = p
		}
	}
	for n, p := range a.parts[id] {
		if p == nil {
			delete(rest, n)
		} else {
			rest[n] = p
		}
	}
	a.setPending(id, rest, hidden)
	if old == nil {
		return
	}
	if t, ok := a.topics.get(name); ok && t.ID == id {
		a.topics.del(name)
	}
	a.byID.del(id)
	a.next.nparts -= len(old.Partitions)
	a.topicDelta(id, TopicDelta{Old: old})
}

func (a *applying) setPending(id UUID, rest, was map[int32]*Partition) {
	if len(rest) > 0 {
		a.pending.set(id, rest)
	} else if len(was) > 0 {
		a.pending.del(id)
	}
}

func (a *applying) topicDelta(id UUID, d TopicDelta) {
	if a.delta.Topics == nil {
		a.delta.Topics = make(map[UUID]TopicDelta)
	}
	a.delta.Topics[id] = d
}

// check refuses a partition record that no controller writes.
func (p *Partition) check() error {
	if len(p.Replicas) == 0 {
		return fmt.Errorf("partition without replicas")
	}
	if len(p.Dirs) != 0 && len(p.Dirs) != len(p.Replicas) {
		return fmt.Errorf("%d directories for %d replicas", len(p.Dirs), len(p.Replicas))
	}
	if p.Leader != NoLeader && !slices.Contains(p.Replicas, p.Leader) {
		return fmt.Errorf("leader %d is no replica", p.Leader)
	}
	if p.LeaderEpoch < 0 || p.PartitionEpoch < 0 {
		return fmt.Errorf("negative epoch")
	}
	return nil
}

func equalPartition(a, b *Partition) bool {
	return a.Leader == b.Leader && a.LeaderEpoch == b.LeaderEpoch && a.PartitionEpoch == b.PartitionEpoch && a.Recovery == b.Recovery &&
		slices.Equal(a.Replicas, b.Replicas) && slices.Equal(a.ISR, b.ISR) && slices.Equal(a.Adding, b.Adding) &&
		slices.Equal(a.Removing, b.Removing) && slices.Equal(a.Dirs, b.Dirs) && slices.Equal(a.ELR, b.ELR) && slices.Equal(a.LastKnownELR, b.LastKnownELR)
}

func equalBroker(a, b *Broker) bool {
	return a.ID == b.ID && a.Incarnation == b.Incarnation && a.Epoch == b.Epoch && a.Rack == b.Rack && a.Fenced == b.Fenced &&
		a.Draining == b.Draining && slices.Equal(a.Endpoints, b.Endpoints) && slices.Equal(a.Dirs, b.Dirs)
}
