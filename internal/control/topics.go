package control

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/placement"
)

// MaxPartitionsPerRequest bounds what one request may create, as Kafka's controller does. It is
// checked before anything is allocated for the partitions.
const MaxPartitionsPerRequest = 10_000

// metadataTopic is the name under which Kafka keeps its own metadata; nobody may make a topic of it.
const metadataTopic = "__cluster_metadata"

// NewTopic is a wish for a topic.
type NewTopic struct {
	Name       string
	Partitions int32 // -1: num.partitions (KIP-464)
	Factor     int16 // -1: default.replication.factor
	// Assignment, where it is not empty, gives the replicas of each partition by number; Partitions and
	// Factor are then -1.
	Assignment map[int32][]int32
	Configs    map[string]*string // nil value: refused, as Kafka does
}

// TopicResult is what became of one wish, in the order of the wishes.
type TopicResult struct {
	Name       string
	ID         meta.UUID // zero when refused
	Partitions int32
	Factor     int16
	Configs    map[string]string // the topic's own values
	Err        *Error            // nil: done, or with validateOnly: would be done
}

// CreateTopics plans topics. With validateOnly the plan is empty and no id is given.
func (c *Cluster) CreateTopics(wishes []NewTopic, validateOnly bool) (Plan, []TopicResult) {
	out := make([]TopicResult, len(wishes))
	if err := c.boundTopics(wishes); err != nil {
		for i, w := range wishes {
			out[i] = TopicResult{Name: w.Name, Err: err}
		}
		return Plan{}, out
	}
	seen := make(map[string]int, len(wishes))
	for _, w := range wishes {
		seen[w.Name]++
	}
	var p packer
	var fresh []string
	for i := range wishes {
		w := &wishes[i]
		out[i].Name = w.Name
		if seen[w.Name] > 1 {
			out[i].Err = refuse(kerr.InvalidRequest, "Duplicate topic name.")
			continue
		}
		if out[i].Err = c.checkNew(w.Name, fresh); out[i].Err != nil {
			continue
		}
		head, tail, err := c.newTopic(w, &out[i])
		if err != nil {
			out[i].Err = err
			continue
		}
		fresh = append(fresh, w.Name)
		if validateOnly {
			out[i].ID = meta.UUID{}
			continue
		}
		p.last(head, tail)
	}
	return p.plan, out
}

// boundTopics refuses a request that asks for absurdly many partitions, before one is made.
func (c *Cluster) boundTopics(wishes []NewTopic) *Error {
	total := int64(0)
	for _, w := range wishes {
		switch {
		case len(w.Assignment) > 0:
			total += int64(len(w.Assignment))
		case w.Partitions == -1:
			total += int64(config.NumPartitions.Of(c.Layers()))
		case w.Partitions > 0:
			total += int64(w.Partitions)
		}
	}
	if total > MaxPartitionsPerRequest {
		return refuse(kerr.PolicyViolation, "Excessively large number of partitions per request: %d, at most %d.", total, MaxPartitionsPerRequest)
	}
	return nil
}

func (c *Cluster) checkNew(name string, fresh []string) *Error {
	if err := CheckTopicName(name); err != nil {
		return as(err)
	}
	if name == metadataTopic {
		return refuse(kerr.InvalidRequest, "Creation of internal topic %s is prohibited.", metadataTopic)
	}
	if c.Image.Topic(name) != nil {
		return refuse(kerr.TopicAlreadyExists, "Topic '%s' already exists.", name)
	}
	other, ok := collision(c.Image, name)
	for i := 0; !ok && i < len(fresh); i++ {
		other, ok = fresh[i], collides(fresh[i], name)
	}
	if ok {
		return refuse(kerr.InvalidTopicException, "Topic '%s' collides with existing topic: %s", name, other)
	}
	return nil
}

// as makes any refusal an *Error.
func as(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var ce *config.Error
	if errors.As(err, &ce) {
		return &Error{kerr.InvalidConfig, ce.Error()}
	}
	return &Error{kerr.UnknownServerError, err.Error()}
}

// newTopic spells a topic that passed checkNew: the head makes the tail visible.
func (c *Cluster) newTopic(w *NewTopic, res *TopicResult) (head, tail []meta.Change, err *Error) {
	values, err := c.newConfigs(w.Configs)
	if err != nil {
		return nil, nil, err
	}
	replicas, err := c.newReplicas(w)
	if err != nil {
		return nil, nil, err
	}
	parts := make([]*meta.Partition, len(replicas))
	for n, rs := range replicas {
		if parts[n], err = c.newPartition(n, rs); err != nil {
			return nil, nil, err
		}
	}
	res.ID, res.Partitions, res.Factor, res.Configs = c.NewID(), int32(len(parts)), int16(len(replicas[0])), values
	head = append(head, meta.PutTopic(w.Name, meta.TopicRecord{ID: res.ID, Partitions: res.Partitions, Internal: IsInternal(w.Name)}))
	if len(values) > 0 {
		ch, cerr := meta.PutConfig(meta.Resource{Type: meta.ResourceTopic, Name: w.Name}, values)
		if cerr != nil {
			return nil, nil, as(cerr)
		}
		head = append(head, ch)
	}
	tail = make([]meta.Change, len(parts))
	for n, p := range parts {
		tail[n] = meta.PutPartition(res.ID, int32(n), p)
	}
	return head, tail, nil
}

func (c *Cluster) newConfigs(in map[string]*string) (map[string]string, *Error) {
	values := make(map[string]string, len(in))
	var null []string
	for k, v := range in {
		if v == nil {
			null = append(null, k)
			continue
		}
		values[k] = *v
	}
	if len(null) > 0 {
		sort.Strings(null)
		return nil, refuse(kerr.InvalidConfig, "Null value not supported for topic configs: %s", strings.Join(null, ","))
	}
	if err := config.ValidateSet(config.ResourceTopic, values, c.Layers()); err != nil {
		return nil, as(err)
	}
	return values, nil
}

func (c *Cluster) newReplicas(w *NewTopic) ([][]int32, *Error) {
	if len(w.Assignment) > 0 {
		if w.Factor != -1 {
			return nil, refuse(kerr.InvalidRequest, "A manual partition assignment was specified, but replication factor was not set to -1.")
		}
		if w.Partitions != -1 {
			return nil, refuse(kerr.InvalidRequest, "A manual partition assignment was specified, but numPartitions was not set to -1.")
		}
		return c.manual(w.Assignment, 0)
	}
	n, f := w.Partitions, w.Factor
	if n == -1 {
		n = config.NumPartitions.Of(c.Layers())
	}
	if f == -1 {
		f = int16(min(config.DefaultReplicationFactor.Of(c.Layers()), 1<<15-1))
	}
	if n < 1 {
		return nil, refuse(kerr.InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	}
	if f < 1 {
		return nil, refuse(kerr.InvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	}
	return c.place(0, int(n), int(f))
}

func (c *Cluster) place(first, n, factor int) ([][]int32, *Error) {
	bs := make([]placement.Broker, 0, len(c.Image.Brokers()))
	for _, b := range c.Image.Brokers() {
		if !c.leaving(b.ID) { // a broker that is being emptied would have to give it away again
			bs = append(bs, placement.Broker{ID: b.ID, Rack: b.Rack, Fenced: b.Fenced || b.Draining})
		}
	}
	rs, err := placement.Place(bs, first, n, factor, c.Rand(max(len(bs), 1)))
	if err != nil {
		return nil, refuse(kerr.InvalidReplicationFactor, "Unable to replicate the partition %d time(s): %s", factor, err)
	}
	return rs, nil
}

// manual checks an assignment by hand; factor 0 takes that of the first partition.
func (c *Cluster) manual(as map[int32][]int32, factor int) ([][]int32, *Error) {
	out := make([][]int32, len(as))
	for n := range out {
		rs, ok := as[int32(n)]
		if !ok {
			return nil, refuse(kerr.InvalidReplicaAssignment, "partitions should be a consecutive 0-based integer sequence")
		}
		if err := c.checkReplicas(rs, factor); err != nil {
			return nil, err
		}
		factor, out[n] = len(rs), slices.Clone(rs)
	}
	return out, nil
}

func (c *Cluster) checkReplicas(rs []int32, factor int) *Error {
	if len(rs) == 0 {
		return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes an empty replica list.")
	}
	if factor > 0 && len(rs) != factor {
		return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes a partition with %d replica(s), but this is not consistent with previous partitions, which have %d replica(s).", len(rs), factor)
	}
	if len(rs) > len(c.Image.Brokers()) { // also bounds the search for duplicates below
		for _, r := range rs {
			if c.Image.Broker(r) == nil {
				return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes broker %d, but no such broker is registered.", r)
			}
		}
	}
	seen := make(map[int32]bool, min(len(rs), 64))
	for _, r := range rs {
		if c.Image.Broker(r) == nil {
			return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes broker %d, but no such broker is registered.", r)
		}
		if seen[r] {
			return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes the broker %d more than once.", r)
		}
		seen[r] = true
	}
	return nil
}

// newPartition is the first record of a partition: in sync are the replicas on active brokers, and
// the first of them leads.
func (c *Cluster) newPartition(n int, rs []int32) (*meta.Partition, *Error) {
	var isr []int32
	for _, r := range rs {
		if active(c.Image.Broker(r)) {
			isr = append(isr, r)
		}
	}
	if len(isr) == 0 {
		return nil, refuse(kerr.InvalidReplicaAssignment, "All brokers specified in the manual partition assignment for partition %d are fenced or in controlled shutdown.", n)
	}
	return &meta.Partition{Replicas: rs, ISR: isr, Leader: isr[0]}, nil
}

func active(b *meta.Broker) bool { return b != nil && !b.Fenced && !b.Draining }

// GoneTopic is a wish to delete a topic, by name or by id.
type GoneTopic struct {
	Name string    // "" : by id
	ID   meta.UUID // zero: by name
}

// DeleteTopics plans deletions. The result of a refused id carries no name.
func (c *Cluster) DeleteTopics(wishes []GoneTopic) (Plan, []TopicResult) {
	out := make([]TopicResult, len(wishes))
	var p packer
	gone := make(map[meta.UUID]bool, len(wishes))
	for i, w := range wishes {
		out[i] = TopicResult{Name: w.Name, ID: w.ID}
		t, err := c.find(w)
		if err != nil {
			out[i].Err = err
			continue
		}
		out[i].Name, out[i].ID = t.Name, t.ID
		switch {
		case !config.DeleteTopicEnable.Of(c.Layers()):
			out[i].Err = refuse(kerr.TopicDeletionDisabled, "Topic deletion is disabled (delete.topic.enable=false).")
			continue
		case gone[t.ID]:
			out[i].Err = refuse(kerr.InvalidRequest, "Duplicate topic name.")
			continue
		}
		gone[t.ID] = true
		head := []meta.Change{meta.Delete(meta.TopicKey(t.Name))}
		if r := (meta.Resource{Type: meta.ResourceTopic, Name: t.Name}); c.Image.Config(r) != nil {
			if ch, err := meta.PutConfig(r, nil); err == nil {
				head = append(head, ch)
			}
		}
		tail := make([]meta.Change, len(t.Partitions))
		for n := range t.Partitions {
			tail[n] = meta.Delete(meta.PartitionKey(t.ID, int32(n)))
		}
		p.first(head, tail)
	}
	return p.plan, out
}

func (c *Cluster) find(w GoneTopic) (*meta.Topic, *Error) {
	switch {
	case w.Name != "" && !w.ID.IsZero():
		return nil, refuse(kerr.InvalidRequest, "Topic name and topic ID can not both be specified.")
	case !w.ID.IsZero():
		if t := c.Image.TopicByID(w.ID); t != nil {
			return t, nil
		}
		return nil, refuse(kerr.UnknownTopicID, "This server does not host this topic ID.")
	case w.Name == "":
		return nil, refuse(kerr.InvalidRequest, "Neither topic name nor id were specified.")
	}
	if t := c.Image.Topic(w.Name); t != nil {
		return t, nil
	}
	return nil, refuse(kerr.UnknownTopicOrPartition, "This server does not host this topic-partition.")
}

// MorePartitions is a wish for a topic to grow.
type MorePartitions struct {
	Topic      string
	Count      int32     // partitions in all, not how many more
	Assignment [][]int32 // replicas of the new ones; nil: placed by the controller
}

// CreatePartitions plans growth. A topic never shrinks.
func (c *Cluster) CreatePartitions(wishes []MorePartitions, validateOnly bool) (Plan, []TopicResult) {
	out := make([]TopicResult, len(wishes))
	seen := make(map[string]int, len(wishes))
	total := int64(0)
	for _, w := range wishes {
		seen[w.Topic]++
		if t := c.Image.Topic(w.Topic); t != nil {
			total += max(0, int64(w.Count)-int64(len(t.Partitions)))
		}
	}
	var p packer
	for i, w := range wishes {
		out[i].Name = w.Topic
		switch {
		case seen[w.Topic] > 1:
			out[i].Err = refuse(kerr.InvalidRequest, "Duplicate topic name.")
		case total > MaxPartitionsPerRequest:
			out[i].Err = refuse(kerr.PolicyViolation, "Excessively large number of partitions per request: %d, at most %d.", total, MaxPartitionsPerRequest)
		default:
			head, tail, err := c.grow(w, &out[i])
			if out[i].Err = err; err == nil && !validateOnly {
				p.last(head, tail)
			}
		}
	}
	return p.plan, out
}

func (c *Cluster) grow(w MorePartitions, res *TopicResult) (head, tail []meta.Change, err *Error) {
	t := c.Image.Topic(w.Topic)
	if t == nil {
		return nil, nil, refuse(kerr.UnknownTopicOrPartition, "This server does not host this topic-partition.")
	}
	have := int32(len(t.Partitions))
	switch {
	case w.Count == have:
		return nil, nil, refuse(kerr.InvalidPartitions, "Topic already has %d partition(s).", have)
	case w.Count < have:
		return nil, nil, refuse(kerr.InvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase. "+
			"Partitions can only be added: taking one away would lose its records and move keys to other partitions.", w.Topic, have, w.Count)
	case w.Count > meta.MaxPartitions:
		return nil, nil, refuse(kerr.InvalidPartitions, "A topic has at most %d partitions.", meta.MaxPartitions)
	}
	// What a running reassignment will take away does not count.
	more, factor := int(w.Count-have), len(t.Partitions[0].Replicas)-len(t.Partitions[0].Removing)
	var replicas [][]int32
	if w.Assignment == nil {
		replicas, err = c.place(int(have), more, factor)
	} else if len(w.Assignment) != more {
		err = refuse(kerr.InvalidReplicaAssignment, "Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", more, len(w.Assignment))
	} else {
		by := make(map[int32][]int32, more)
		for n, rs := range w.Assignment {
			by[int32(n)] = rs
		}
		replicas, err = c.manual(by, factor)
	}
	if err != nil {
		return nil, nil, err
	}
	for n, rs := range replicas {
		part, err := c.newPartition(n, rs)
		if err != nil {
			return nil, nil, err
		}
		tail = append(tail, meta.PutPartition(t.ID, have+int32(n), part))
	}
	res.ID, res.Partitions, res.Factor = t.ID, w.Count, int16(factor)
	head = []meta.Change{meta.PutTopic(t.Name, meta.TopicRecord{ID: t.ID, Partitions: w.Count, Internal: t.Internal})}
	return head, tail, nil
}

// Sweep deletes the records that a crash in the middle of a plan left: no topic shows them. A new
// controller does it before anything else.
func (c *Cluster) Sweep() Plan {
	var p packer
	for _, k := range c.Image.Orphans() {
		p.whole([]meta.Change{meta.Delete(k)})
	}
	return p.plan
}

func (r TopicResult) String() string {
	if r.Err != nil {
		return fmt.Sprintf("%s: %s: %s", r.Name, r.Err.Code.Message, r.Err.Message)
	}
	return fmt.Sprintf("%s: %d partitions, factor %d", r.Name, r.Partitions, r.Factor)
}
