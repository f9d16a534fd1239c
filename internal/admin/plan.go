package admin

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Plan is moves that make a cluster even, or empty a broker. Nothing of it has happened yet.
type Plan struct {
	Moves  []Move `json:"moves"` // by topic and partition
	Bytes  int64  `json:"bytes"` // to be copied in all
	Stuck  []Move `json:"stuck"` // what should move and has nowhere to go; To is empty
	Copies int    `json:"copies"`
	Leads  int    `json:"leaders"` // partitions that get another preferred leader
}

// PlanOptions says what a plan is for.
type PlanOptions struct {
	Topics  []string // only these; nil: all, internal ones too
	Leaving []int32  // brokers to be emptied
	Only    bool     // only what leaves those brokers, no further balancing
	Onto    []int32  // only these brokers may hold the topics; nil: all
	Moves   int      // most partitions whose data moves; 0: no limit
}

// view is the cluster as the metadata and the log directories show it.
type view struct {
	status Status
	parts  []PartitionState
	moving []Reassignment
	sizes  map[replica]int64
}

// replica is one copy of a partition.
type replica struct {
	topic     string
	partition int32
	broker    int32
}

func (c *Client) look(ctx context.Context, topics []string) (view, error) {
	var v view
	if err := c.brokers(ctx, &v.status); err != nil {
		return v, err
	}
	var err error
	if v.parts, err = c.Partitions(ctx, topics...); err != nil {
		return v, err
	}
	if v.moving, err = c.Reassignments(ctx); err != nil {
		return v, err
	}
	v.sizes = c.sizes(ctx)
	return v, nil
}

// sizes are the bytes of every replica that answers in time; a broker that is down has none.
func (c *Client) sizes(ctx context.Context) map[replica]int64 {
	out := map[replica]int64{}
	adm, err := c.connect(ctx)
	if err != nil {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, extraTime)
	defer cancel()
	dirs, _ := adm.DescribeAllLogDirs(ctx, nil) // what answered counts
	for _, b := range dirs {
		for _, d := range b {
			for _, t := range d.Topics {
				for _, p := range t {
					if !p.IsFuture {
						out[replica{p.Topic, p.Partition, p.Broker}] = p.Size
					}
				}
			}
		}
	}
	return out
}

// bytes is the size of one replica of a partition: the largest there is, since a follower may lack some.
func (v *view) bytes(topic string, partition int32, replicas []int32) int64 {
	var n int64
	for _, id := range replicas {
		n = max(n, v.sizes[replica{topic, partition, id}])
	}
	return n
}

// image spells what was seen as the cluster image that package control plans on.
func (v *view) image() (*meta.Image, error) {
	var cs []meta.Change
	for i := range v.status.Brokers {
		b := &v.status.Brokers[i]
		cs = append(cs, meta.PutBroker(&meta.Broker{ID: b.ID, Epoch: 1, Rack: b.Rack, Fenced: b.Fenced,
			Endpoints: []meta.Endpoint{{Listener: "PLAINTEXT", Host: b.Host, Port: b.Port, Protocol: "PLAINTEXT"}}}))
	}
	moving := map[meta.TopicPartition]Reassignment{}
	for _, r := range v.moving {
		moving[meta.TopicPartition{Topic: r.Topic, Partition: r.Partition}] = r
	}
	ids, counts := map[string]meta.UUID{}, map[string]int32{}
	for i := range v.parts {
		p := &v.parts[i]
		if len(p.Replicas) == 0 {
			return nil, fmt.Errorf("plan: %s-%d has no replicas", p.Topic, p.Partition)
		}
		if _, ok := ids[p.Topic]; !ok {
			// The id only ties records together here; a number serves where the cluster tells none.
			id := meta.UUID(p.topicID)
			if id.IsZero() {
				binary.BigEndian.PutUint64(id[8:], uint64(len(ids)+1))
			}
			ids[p.Topic] = id
		}
		r := moving[meta.TopicPartition{Topic: p.Topic, Partition: p.Partition}]
		cs = append(cs, meta.PutPartition(ids[p.Topic], counts[p.Topic], &meta.Partition{
			Replicas: p.Replicas, Adding: r.Adding, Removing: r.Removing, ISR: p.ISR, ELR: p.ELR, Leader: p.Leader, LeaderEpoch: p.Epoch,
		}))
		if p.Partition != counts[p.Topic] {
			return nil, fmt.Errorf("plan: the cluster lists %s-%d where %s-%d should be", p.Topic, p.Partition, p.Topic, counts[p.Topic])
		}
		counts[p.Topic]++
	}
	for t, id := range ids {
		cs = append(cs, meta.PutTopic(t, meta.TopicRecord{ID: id, Partitions: counts[t]}))
	}
	im, _, err := meta.Empty().Apply(cs, 1)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return im, nil
}

// Plan looks at the cluster and plans moves; the same rules as the balancer inside the brokers.
func (c *Client) Plan(ctx context.Context, o PlanOptions) (Plan, error) {
	v, err := c.look(ctx, o.Topics)
	if err != nil {
		return Plan{}, err
	}
	leaving := slices.Clone(o.Leaving)
	for _, id := range append(slices.Clone(o.Leaving), o.Onto...) {
		if v.status.broker(id) == nil {
			return Plan{}, fmt.Errorf("no broker %d is registered: there are %s", id, v.status.names())
		}
	}
	for i := range v.status.Brokers {
		if id := v.status.Brokers[i].ID; len(o.Onto) > 0 && !slices.Contains(o.Onto, id) {
			leaving = append(leaving, id)
		}
	}
	im, err := v.image()
	if err != nil {
		return Plan{}, err
	}
	cl := &control.Cluster{Image: im}
	plan := Plan{Moves: []Move{}, Stuck: []Move{}}
	to := map[meta.TopicPartition][]int32{}
	for _, r := range cl.Balance(control.Balancing{Leaving: leaving, Moves: o.Moves, Bytes: func(tp meta.TopicPartition) int64 {
		return v.bytes(tp.Topic, tp.Partition, im.Partition(tp.Topic, tp.Partition).Replicas)
	}}) {
		to[r.TopicPartition] = r.To
		frees := slices.ContainsFunc(r.From, func(id int32) bool { return slices.Contains(leaving, id) && !slices.Contains(r.To, id) })
		if o.Only && !frees {
			continue
		}
		plan.add(Move{Topic: r.Topic, Partition: r.Partition, From: r.From, To: r.To, Bytes: r.Bytes, Reason: r.Reason})
	}
	for i := range v.parts {
		p := &v.parts[i]
		after, ok := to[meta.TopicPartition{Topic: p.Topic, Partition: p.Partition}]
		if !ok {
			after = p.Replicas
		}
		if o.Moves == 0 && touches(after, leaving) && !v.isMoving(p) {
			plan.Stuck = append(plan.Stuck, Move{Topic: p.Topic, Partition: p.Partition, From: p.Replicas})
		}
	}
	return plan, nil
}

func (v *view) isMoving(p *PartitionState) bool {
	return slices.ContainsFunc(v.moving, func(r Reassignment) bool { return r.Topic == p.Topic && r.Partition == p.Partition })
}

func (p *Plan) add(m Move) {
	p.Moves = append(p.Moves, m)
	p.Bytes += m.Bytes
	p.Copies += len(m.Copies())
	if m.Leads() {
		p.Leads++
	}
}

func touches(list, some []int32) bool {
	return slices.ContainsFunc(list, func(id int32) bool { return slices.Contains(some, id) })
}

func (s *Status) names() string {
	var out []string
	for i := range s.Brokers {
		out = append(out, strconv.Itoa(int(s.Brokers[i].ID)))
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

// PlanFactor plans that all partitions of a topic have n replicas. What goes is the last in the list,
// replicas that are out of sync first; what comes is on the broker with the fewest, in a rack of its own as
// long as there are some.
func (c *Client) PlanFactor(ctx context.Context, topic string, n int) (Plan, error) {
	v, err := c.look(ctx, nil) // all topics: who has the fewest is asked of the whole cluster
	if err != nil {
		return Plan{}, err
	}
	held, rack := map[int32]int{}, map[int32]string{}
	var up []int32
	for i := range v.status.Brokers {
		if b := &v.status.Brokers[i]; !b.Fenced {
			up, rack[b.ID] = append(up, b.ID), b.Rack
		}
	}
	found := false
	for i := range v.parts {
		found = found || v.parts[i].Topic == topic
		for _, id := range v.parts[i].Replicas {
			held[id]++
		}
	}
	switch {
	case !found:
		return Plan{}, fail("topic "+topic, kerr.UnknownTopicOrPartition, "there is none of that name")
	case n < 1:
		return Plan{}, errors.New("want at least 1 replica")
	case n > len(up):
		return Plan{}, fmt.Errorf("%d replicas need %d brokers that are up: there are %d", n, n, len(up))
	}
	plan := Plan{Moves: []Move{}, Stuck: []Move{}}
	for i := range v.parts {
		p := &v.parts[i]
		if p.Topic != topic || len(p.Replicas) == n || v.isMoving(p) {
			continue
		}
		m := Move{Topic: topic, Partition: p.Partition, From: p.Replicas, To: slices.Clone(p.Replicas), Reason: fmt.Sprintf("%d replicas instead of %d", n, len(p.Replicas))}
		for len(m.To) > n {
			gone := lastBut(m.To, p.ISR)
			held[m.To[gone]]--
			m.To = slices.Delete(m.To, gone, gone+1)
		}
		for len(m.To) < n {
			id := emptiest(up, m.To, held, rack)
			held[id]++
			m.To = append(m.To, id)
		}
		m.Bytes = int64(len(m.Copies())) * v.bytes(topic, p.Partition, p.Replicas)
		plan.add(m)
	}
	return plan, nil
}

// lastBut is the index of the last replica that is not in sync, or else of the last one.
func lastBut(list, isr []int32) int {
	for i := len(list) - 1; i >= 0; i-- {
		if !slices.Contains(isr, list[i]) {
			return i
		}
	}
	return len(list) - 1
}

// emptiest is the best broker that does not hold a partition yet. There is one: the caller has counted.
func emptiest(up, has []int32, held map[int32]int, rack map[int32]string) int32 {
	crowd := func(id int32) int {
		n := 0
		for _, r := range has {
			if rack[id] != "" && rack[r] == rack[id] {
				n++
			}
		}
		return n
	}
	var free []int32
	for _, id := range up {
		if !slices.Contains(has, id) {
			free = append(free, id)
		}
	}
	return slices.MinFunc(free, func(a, b int32) int {
		return cmp.Or(cmp.Compare(crowd(a), crowd(b)), cmp.Compare(held[a], held[b]), cmp.Compare(a, b))
	})
}

// PlanWishes turns moves that somebody wants (topic, partition and To) into a plan: it adds where the
// replicas are and what has to be copied, and leaves out what is as wished.
func (c *Client) PlanWishes(ctx context.Context, wishes []Move) (Plan, error) {
	plan := Plan{Moves: []Move{}, Stuck: []Move{}}
	names, seen := map[string]bool{}, map[partition]bool{}
	for _, w := range wishes {
		names[w.Topic] = true
		if at := (partition{w.Topic, w.Partition}); seen[at] {
			return plan, fmt.Errorf("%s-%d is named twice", w.Topic, w.Partition)
		} else {
			seen[at] = true
		}
	}
	v, err := c.look(ctx, sortedKeys(names))
	if err != nil {
		return plan, err
	}
	parts := map[partition]*PartitionState{}
	for i := range v.parts {
		p := &v.parts[i]
		parts[partition{p.Topic, p.Partition}] = p
	}
	for _, w := range wishes {
		p := parts[partition{w.Topic, w.Partition}]
		if p == nil {
			return plan, fmt.Errorf("topic %s has no partition %d", w.Topic, w.Partition)
		}
		for _, id := range w.To {
			if v.status.broker(id) == nil {
				return plan, fmt.Errorf("%s-%d: no broker %d is registered: there are %s", w.Topic, w.Partition, id, v.status.names())
			}
		}
		if slices.Equal(p.Replicas, w.To) && !v.isMoving(p) {
			continue
		}
		m := Move{Topic: w.Topic, Partition: w.Partition, From: p.Replicas, To: w.To, Reason: "asked for"}
		m.Bytes = int64(len(m.Copies())) * v.bytes(p.Topic, p.Partition, p.Replicas)
		plan.add(m)
	}
	slices.SortFunc(plan.Moves, func(a, b Move) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return plan, nil
}
