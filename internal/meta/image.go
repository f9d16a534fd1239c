package meta

import (
	"cmp"
	"maps"
	"slices"
	"sync/atomic"
)

// Change is one key set or deleted.
type Change struct {
	Key   string
	Value []byte // nil: the key is deleted
	Rev   int64  // revision of this write, filled in by the store on the way out; 0: that of the batch
}

// Image is everything the cluster has agreed on, at one revision. It is immutable; a request reads
// one image from start to end.
type Image struct {
	rev     int64
	cluster ClusterRecord
	ctl     ControllerRecord
	pids    ProducerIDRecord
	brokers []*Broker // by id
	topics  table[string, *Topic]
	byID    table[UUID, *Topic]
	configs table[Resource, map[string]string]
	pending table[UUID, map[int32]*Partition] // records outside any visible topic (half-made, half-deleted)
	nparts  int

	sorted atomic.Pointer[[]*Topic] // Topics() computed once
}

// Empty is the image of a history with nothing in it.
func Empty() *Image { return &Image{ctl: ControllerRecord{Broker: -1}} }

// Revision is the store's revision that this image shows.
func (im *Image) Revision() int64 { return im.rev }

// ClusterID is the cluster's id, "" before the first controller has made one.
func (im *Image) ClusterID() string { return im.cluster.ID }

// Controller is who may write: node id (-1 for nobody yet) and its epoch.
func (im *Image) Controller() (id int32, epoch int32) { return im.ctl.Broker, im.ctl.Epoch }

// ControllerRecord is the same with the incarnation.
func (im *Image) ControllerRecord() ControllerRecord { return im.ctl }

// ProducerIDs is the state of the producer-id counter.
func (im *Image) ProducerIDs() ProducerIDRecord { return im.pids }

// Cluster is the cluster record; its map is shared.
func (im *Image) Cluster() ClusterRecord { return im.cluster }

// Features is the finalized level of each feature; shared, read only.
func (im *Image) Features() map[string]int16 { return im.cluster.Features }

// Topic finds a topic by name, nil when there is none.
func (im *Image) Topic(name string) *Topic {
	t, _ := im.topics.get(hashString(name), name)
	return t
}

// TopicByID finds a topic by id, nil when there is none.
func (im *Image) TopicByID(id UUID) *Topic {
	t, _ := im.byID.get(hashUUID(id), id)
	return t
}

// NumTopics counts the topics.
func (im *Image) NumTopics() int { return im.topics.n }

// NumPartitions counts the partitions of all topics.
func (im *Image) NumPartitions() int { return im.nparts }

// Topics lists all topics by name. The slice is shared and computed once per image.
func (im *Image) Topics() []*Topic {
	if p := im.sorted.Load(); p != nil {
		return *p
	}
	ts := make([]*Topic, 0, im.topics.n)
	im.topics.each(func(_ string, t *Topic) { ts = append(ts, t) })
	slices.SortFunc(ts, func(a, b *Topic) int { return cmp.Compare(a.Name, b.Name) })
	im.sorted.Store(&ts)
	return ts
}

// Partition finds one partition, nil when there is none.
func (im *Image) Partition(topic string, n int32) *Partition {
	t := im.Topic(topic)
	if t == nil || n < 0 || int(n) >= len(t.Partitions) {
		return nil
	}
	return t.Partitions[n]
}

// Broker finds a registration, nil when there is none. A fenced broker is found, too.
func (im *Image) Broker(id int32) *Broker {
	i, ok := slices.BinarySearchFunc(im.brokers, id, func(b *Broker, id int32) int { return cmp.Compare(b.ID, id) })
	if !ok {
		return nil
	}
	return im.brokers[i]
}

// Brokers lists all registrations by id, fenced ones included; shared, read only.
func (im *Image) Brokers() []*Broker { return im.brokers }

// Alive lists the brokers that are not fenced: those clients may see (kafka.md trap 32).
func (im *Image) Alive() []*Broker {
	out := make([]*Broker, 0, len(im.brokers))
	for _, b := range im.brokers {
		if !b.Fenced {
			out = append(out, b)
		}
	}
	return out
}

// Config is the dynamic values of a resource, nil when it has none; shared, read only.
func (im *Image) Config(r Resource) map[string]string {
	m, _ := im.configs.get(hashResource(r), r)
	return m
}

// Resources lists the names of the resources of one type that have dynamic values, in order.
func (im *Image) Resources(t ResourceType) []string {
	var out []string
	im.configs.each(func(r Resource, _ map[string]string) {
		if r.Type == t {
			out = append(out, r.Name)
		}
	})
	slices.Sort(out)
	return out
}

// Orphans lists the keys of partition records that belong to no visible topic: what a crash left
// of a topic half created, half grown or half deleted. A new controller deletes them.
func (im *Image) Orphans() []string {
	var out []string
	im.pending.each(func(id UUID, m map[int32]*Partition) {
		for n := range m {
			out = append(out, PartitionKey(id, n))
		}
	})
	slices.Sort(out)
	return out
}

// Changes spells the whole image as the changes that make it out of nothing, in key order. Brokers
// carry their epoch, so the revisions of the single writes are not needed again.
func (im *Image) Changes() []Change {
	var cs []Change
	if im.cluster.ID != "" {
		cs = append(cs, PutCluster(im.cluster))
	}
	if im.ctl.Epoch != 0 {
		cs = append(cs, PutController(im.ctl))
	}
	if im.pids != (ProducerIDRecord{}) {
		cs = append(cs, PutProducerIDs(im.pids))
	}
	for _, b := range im.brokers {
		cs = append(cs, PutBroker(b))
	}
	im.topics.each(func(name string, t *Topic) {
		cs = append(cs, PutTopic(name, TopicRecord{ID: t.ID, Partitions: int32(len(t.Partitions)), Internal: t.Internal}))
		for n, p := range t.Partitions {
			cs = append(cs, PutPartition(t.ID, int32(n), p))
		}
	})
	im.pending.each(func(id UUID, m map[int32]*Partition) {
		for n, p := range m {
			cs = append(cs, PutPartition(id, n, p))
		}
	})
	im.configs.each(func(r Resource, m map[string]string) {
		if c, err := PutConfig(r, m); err == nil {
			cs = append(cs, c)
		}
	})
	slices.SortFunc(cs, func(a, b Change) int { return cmp.Compare(a.Key, b.Key) })
	return cs
}

// Equal says that two images show the same cluster; the revision does not count.
func (im *Image) Equal(o *Image) bool {
	return slices.EqualFunc(im.Changes(), o.Changes(), func(a, b Change) bool {
		return a.Key == b.Key && string(a.Value) == string(b.Value)
	})
}

// Delta is what one Apply changed. Its values are shared and read only.
type Delta struct {
	From, To   int64 // revisions
	Topics     map[UUID]TopicDelta
	Brokers    map[int32]BrokerDelta
	Configs    map[Resource]struct{} // whose dynamic values changed
	Controller bool                  // another broker, or another term of the same one
	Features   bool                  // the cluster record changed
}

// Empty says that nothing a reader can see has changed.
func (d *Delta) Empty() bool {
	return len(d.Topics) == 0 && len(d.Brokers) == 0 && len(d.Configs) == 0 && !d.Controller && !d.Features
}

// TopicIDs lists the changed topics in a fixed order.
func (d *Delta) TopicIDs() []UUID {
	return slices.SortedFunc(maps.Keys(d.Topics), func(a, b UUID) int { return cmp.Compare(string(a[:]), string(b[:])) })
}

// TopicDelta is one topic's change. Old nil: created; New nil: deleted. A name deleted and created
// again in one step is two entries, since the ids differ.
type TopicDelta struct {
	Old, New   *Topic
	Partitions []int32 // numbers whose record is new or differs, ascending; all of them when created
}

// BrokerDelta is one registration's change. Old nil: new; New nil: gone.
type BrokerDelta struct{ Old, New *Broker }

// FindTopic gives the name of a topic that ok likes. Where several qualify it is the first by name.
func (im *Image) FindTopic(ok func(*Topic) bool) (string, bool) {
	found := ""
	im.topics.each(func(name string, t *Topic) {
		if (found == "" || name < found) && ok(t) {
			found = name
		}
	})
	return found, found != ""
}

// Everything is the delta that makes this image out of nothing: what a subscriber that comes late
// is told first.
func (im *Image) Everything() *Delta {
	d := &Delta{To: im.rev, Controller: im.ctl.Epoch != 0, Features: im.cluster.ID != ""}
	for _, t := range im.Topics() {
		if d.Topics == nil {
			d.Topics = make(map[UUID]TopicDelta, im.topics.n)
		}
		ns := make([]int32, len(t.Partitions))
		for n := range ns {
			ns[n] = int32(n)
		}
		d.Topics[t.ID] = TopicDelta{New: t, Partitions: ns}
	}
	for _, b := range im.brokers {
		if d.Brokers == nil {
			d.Brokers = make(map[int32]BrokerDelta)
		}
		d.Brokers[b.ID] = BrokerDelta{New: b}
	}
	im.configs.each(func(r Resource, _ map[string]string) {
		if d.Configs == nil {
			d.Configs = make(map[Resource]struct{})
		}
		d.Configs[r] = struct{}{}
	})
	return d
}

// Replace is the changes that turn this image into a full listing of the store: what is not listed
// is deleted. For Apply after the history was compacted away.
func (im *Image) Replace(all []Change) []Change {
	have := make(map[string]bool, len(all))
	for _, c := range all {
		have[c.Key] = true
	}
	out := slices.Clone(all)
	for _, c := range im.Changes() {
		if !have[c.Key] {
			out = append(out, Delete(c.Key))
		}
	}
	return out
}
