package admin

import (
	"context"
	"encoding/base64"
	"fmt"
	"sort"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Topic is one line of a list of topics.
type Topic struct {
	Name       string `json:"name"`
	ID         string `json:"id,omitempty"`
	Partitions int    `json:"partitions"`
	Replicas   int    `json:"replicas"`
	Internal   bool   `json:"internal,omitempty"`
}

// TopicDescription is all about one topic.
type TopicDescription struct {
	Topic
	Overrides []Config    `json:"overrides"` // configuration set on the topic itself
	Parts     []Partition `json:"partition_list"`
}

// Partition is one partition of a described topic. Offsets and size are -1 when they are not known.
type Partition struct {
	Partition int32   `json:"partition"`
	Leader    int32   `json:"leader"` // -1: none
	Epoch     int32   `json:"leader_epoch"`
	Replicas  []int32 `json:"replicas"`
	ISR       []int32 `json:"isr"`
	ELR       []int32 `json:"elr,omitempty"`            // not in sync, but have all that was acknowledged (KIP-966)
	LastELR   []int32 `json:"last_known_elr,omitempty"` // where ISR and ELR are empty: who led last
	Adding    []int32 `json:"adding,omitempty"`         // replicas that a reassignment under way brings
	Removing  []int32 `json:"removing,omitempty"`       // and takes away
	Start     int64   `json:"start_offset"`
	End       int64   `json:"end_offset"`
	Size      int64   `json:"size_bytes"` // on the leader's disk
	Error     string  `json:"error,omitempty"`
}

// NewTopic is a topic to create; Partitions and Replicas of -1 are the broker's defaults.
type NewTopic struct {
	Name       string
	Partitions int32
	Replicas   int16
	Configs    map[string]string
	Validate   bool // only check, create nothing
}

// topicID is Kafka's form of a topic id: 22 characters of URL-safe base64.
func topicID(id kadm.TopicID) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

func topicOf(t kadm.TopicDetail) Topic {
	out := Topic{Name: t.Topic, Partitions: len(t.Partitions), Internal: t.IsInternal}
	if t.ID != (kadm.TopicID{}) {
		out.ID = topicID(t.ID)
	}
	for _, p := range t.Partitions {
		out.Replicas = max(out.Replicas, len(p.Replicas))
	}
	return out
}

// Topics lists topics by name; internal ones too if wanted.
func (c *Client) Topics(ctx context.Context, internal bool) ([]Topic, error) {
	out := []Topic{}
	err := c.with(ctx, "list topics", func(ctx context.Context, adm *kadm.Client) error {
		list := adm.ListTopics
		if internal {
			list = adm.ListTopicsWithInternal
		}
		ts, err := list(ctx)
		for _, t := range ts.Sorted() {
			out = append(out, topicOf(t))
		}
		return err
	})
	return out, err
}

// DescribeTopic collects what the cluster knows about one topic: metadata, offsets, sizes, overrides.
func (c *Client) DescribeTopic(ctx context.Context, name string) (TopicDescription, error) {
	var d TopicDescription
	what := "describe topic " + name
	err := c.with(ctx, what, func(ctx context.Context, adm *kadm.Client) error {
		ts, err := adm.ListTopicsWithInternal(ctx, name)
		if err != nil {
			return err
		}
		t := ts[name]
		if t.Err != nil {
			return t.Err
		}
		d.Topic = topicOf(t)
		// Offsets and sizes are extra: a partition without leader must not hide the rest.
		start, _ := adm.ListStartOffsets(ctx, name)
		end, _ := adm.ListEndOffsets(ctx, name)
		sizes := topicSizes(ctx, adm, t)
		for _, p := range t.Partitions.Sorted() {
			x := Partition{Partition: p.Partition, Leader: p.Leader, Epoch: p.LeaderEpoch, Replicas: p.Replicas, ISR: p.ISR, Start: -1, End: -1, Size: -1}
			if p.Err != nil {
				x.Error = errorName(p.Err)
			}
			if o, ok := start.Lookup(name, p.Partition); ok && o.Err == nil {
				x.Start = o.Offset
			}
			if o, ok := end.Lookup(name, p.Partition); ok && o.Err == nil {
				x.End = o.Offset
			}
			if n, ok := sizes[place{p.Leader, p.Partition}]; ok {
				x.Size = n
			}
			d.Parts = append(d.Parts, x)
		}
		return nil
	})
	if err != nil {
		return d, err
	}
	c.addElections(ctx, name, d.Parts)
	configs, err := c.Configs(ctx, ResourceTopic, name)
	if err != nil {
		return d, err
	}
	d.Overrides = []Config{}
	for _, x := range configs {
		if x.Source == "topic" {
			d.Overrides = append(d.Overrides, x)
		}
	}
	return d, nil
}

// addElections adds what Metadata does not tell. A cluster that does not say it is described without.
func (c *Client) addElections(ctx context.Context, topic string, parts []Partition) {
	ps, _ := c.Partitions(ctx, topic)
	moving, _ := c.Reassignments(ctx)
	for i := range parts {
		x := &parts[i]
		for _, p := range ps {
			if p.Partition == x.Partition {
				x.ELR, x.LastELR = p.ELR, p.LastELR
			}
		}
		for _, r := range moving {
			if r.Topic == topic && r.Partition == x.Partition {
				x.Adding, x.Removing = r.Adding, r.Removing
			}
		}
	}
}

type place struct{ broker, partition int32 }

func topicSizes(ctx context.Context, adm *kadm.Client, t kadm.TopicDetail) map[place]int64 {
	out, name := map[place]int64{}, t.Topic
	var set kadm.TopicsSet
	for p := range t.Partitions {
		set.Add(name, p) // Kafka takes a topic without partitions as none of them
	}
	dirs, err := adm.DescribeAllLogDirs(ctx, set)
	if err != nil && len(dirs) == 0 {
		return out
	}
	dirs.Each(func(d kadm.DescribedLogDir) {
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			if p.Topic == name && !p.IsFuture {
				out[place{p.Broker, p.Partition}] = p.Size
			}
		})
	})
	return out
}

func errorName(err error) string {
	if ke, ok := err.(*kerr.Error); ok {
		return ke.Message
	}
	return err.Error()
}

// CreateTopic creates one topic and says what came out: its id and the numbers the broker chose.
func (c *Client) CreateTopic(ctx context.Context, t NewTopic) (Topic, error) {
	out := Topic{Name: t.Name}
	what := "create topic " + t.Name
	configs := map[string]*string{}
	for k, v := range t.Configs {
		configs[k] = &v
	}
	err := c.with(ctx, what, func(ctx context.Context, adm *kadm.Client) error {
		create := adm.CreateTopics
		if t.Validate {
			create = adm.ValidateCreateTopics
		}
		rs, err := create(ctx, t.Partitions, t.Replicas, configs, t.Name)
		if err != nil {
			return err
		}
		r := rs[t.Name]
		if r.Err != nil {
			return fail(what, r.Err, r.ErrMessage)
		}
		out.Partitions, out.Replicas = int(r.NumPartitions), int(r.ReplicationFactor)
		if r.ID != (kadm.TopicID{}) {
			out.ID = topicID(r.ID)
		}
		return nil
	})
	return out, err
}

// DeleteTopic deletes one topic with its records.
func (c *Client) DeleteTopic(ctx context.Context, name string) error {
	what := "delete topic " + name
	return c.with(ctx, what, func(ctx context.Context, adm *kadm.Client) error {
		rs, err := adm.DeleteTopics(ctx, name)
		if err != nil {
			return err
		}
		return fail(what, rs[name].Err, rs[name].ErrMessage)
	})
}

// SetPartitions raises the number of partitions to total.
func (c *Client) SetPartitions(ctx context.Context, name string, total int) error {
	what := "set partitions of topic " + name + " to " + strconv.Itoa(total)
	return c.with(ctx, what, func(ctx context.Context, adm *kadm.Client) error {
		rs, err := adm.UpdatePartitions(ctx, total, name)
		if err != nil {
			return err
		}
		return fail(what, rs[name].Err, rs[name].ErrMessage)
	})
}

// AddPartitions adds n partitions and returns how many there are now.
func (c *Client) AddPartitions(ctx context.Context, name string, n int) (int, error) {
	total := 0
	err := c.with(ctx, "add partitions to topic "+name, func(ctx context.Context, adm *kadm.Client) error {
		ts, err := adm.ListTopicsWithInternal(ctx, name)
		if err != nil {
			return err
		}
		if err := ts[name].Err; err != nil {
			return err
		}
		total = len(ts[name].Partitions) + n
		return nil
	})
	if err != nil {
		return 0, err
	}
	return total, c.SetPartitions(ctx, name, total)
}

// TopicNames lists names for completion, internal ones last.
func (c *Client) TopicNames(ctx context.Context) ([]string, error) {
	ts, err := c.Topics(ctx, true)
	sort.SliceStable(ts, func(i, j int) bool { return !ts[i].Internal && ts[j].Internal })
	var out []string
	for _, t := range ts {
		out = append(out, t.Name)
	}
	return out, err
}

// Position says where in a partition: an offset, the start, the end, a distance from the end, or the
// first record at or after a time.
type Position struct {
	Kind  PositionKind
	Value int64 // offset, distance or milliseconds since 1970
}

// PositionKind is the kind of a Position.
type PositionKind int8

// The kinds of positions.
const (
	AtStart     PositionKind = iota
	AtEnd                    // after the last record
	AtStableEnd              // before the first open transaction
	AtOffset                 // Value
	BeforeEnd                // Value records before the end, per partition
	AtTime                   // Value, in ms
	ShiftBy                  // Value records from where a group is; for ResetOffsets only
)

// Offsets resolves a position in every partition of a topic. Offsets are kept within what the log has.
func (c *Client) Offsets(ctx context.Context, topic string, at Position) (map[int32]int64, error) {
	out := map[int32]int64{}
	err := c.with(ctx, "list offsets of topic "+topic, func(ctx context.Context, adm *kadm.Client) error {
		start, err := adm.ListStartOffsets(ctx, topic)
		if err == nil {
			err = start.Error()
		}
		if err != nil {
			return err
		}
		list := adm.ListEndOffsets
		if at.Kind == AtStableEnd {
			list = adm.ListCommittedOffsets
		}
		end, err := list(ctx, topic)
		if err == nil {
			err = end.Error()
		}
		if err != nil {
			return err
		}
		var timed kadm.ListedOffsets
		if at.Kind == AtTime {
			if timed, err = adm.ListOffsetsAfterMilli(ctx, at.Value, topic); err != nil {
				return err
			}
			if err := timed.Error(); err != nil {
				return err
			}
		}
		for p, s := range start[topic] {
			lo, hi := s.Offset, end[topic][p].Offset
			var o int64
			switch at.Kind {
			case AtStart:
				o = lo
			case AtEnd, AtStableEnd:
				o = hi
			case AtOffset:
				o = at.Value
			case BeforeEnd:
				o = hi - at.Value
			case AtTime:
				if o = timed[topic][p].Offset; o < 0 {
					o = hi // nothing is that young
				}
			default:
				return fmt.Errorf("position of kind %d has no meaning without a group", at.Kind)
			}
			out[p] = min(max(o, lo), hi)
		}
		return nil
	})
	return out, err
}
