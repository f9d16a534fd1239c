package admin

import (
	"context"
	"errors"
	"slices"
	"sort"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// PartitionState is what the cluster has agreed on for one partition.
type PartitionState struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Leader    int32   `json:"leader"` // -1: none
	Epoch     int32   `json:"leader_epoch"`
	Replicas  []int32 `json:"replicas"` // the first one is the preferred leader
	ISR       []int32 `json:"isr"`
	ELR       []int32 `json:"elr,omitempty"`            // not in sync, but have all that was acknowledged (KIP-966)
	LastELR   []int32 `json:"last_known_elr,omitempty"` // where ISR and ELR are empty: who led last
	Offline   []int32 `json:"offline_replicas,omitempty"`
	Internal  bool    `json:"internal,omitempty"`
	MinISR    int     `json:"min_isr"` // min.insync.replicas, at most the number of replicas; 0: not known

	topicID [16]byte
}

// UnderReplicated says that a replica is not in sync.
func (p *PartitionState) UnderReplicated() bool { return len(p.ISR) < len(p.Replicas) }

// Leaderless says that the partition can neither be written nor read.
func (p *PartitionState) Leaderless() bool { return p.Leader < 0 }

// AtMinISR says that one more replica lost stops writes with acks=all. Kafka's tools count it so.
func (p *PartitionState) AtMinISR() bool { return p.MinISR > 0 && len(p.ISR) == p.MinISR }

// UnderMinISR says that writes with acks=all are refused.
func (p *PartitionState) UnderMinISR() bool { return p.MinISR > 0 && len(p.ISR) < p.MinISR }

// Preferred says that the first replica leads, which an even spread of leaders asks for.
func (p *PartitionState) Preferred() bool { return len(p.Replicas) == 0 || p.Leader == p.Replicas[0] }

// pageSize is how many partitions one DescribeTopicPartitions may answer with: Kafka's own limit
// (max.request.partition.size.limit), above which it cuts.
const pageSize = 2000

// Partitions lists the partitions of the named topics, or of all, by topic and number. A named topic that
// does not exist is an error. It asks with DescribeTopicPartitions, which Kafka has since 3.8, because
// Metadata does not tell the eligible leader replicas.
func (c *Client) Partitions(ctx context.Context, topics ...string) ([]PartitionState, error) {
	out := []PartitionState{}
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.ResponsePartitionLimit = pageSize
	topics = slices.Compact(slices.Sorted(slices.Values(topics)))
	for _, t := range topics {
		rt := kmsg.NewDescribeTopicPartitionsRequestTopic()
		rt.Topic = t
		req.Topics = append(req.Topics, rt)
	}
	for {
		resp, err := request[*kmsg.DescribeTopicPartitionsResponse](ctx, c, "describe partitions", req)
		if err != nil {
			return nil, err
		}
		got := len(out)
		for _, t := range resp.Topics {
			name := ""
			if t.Topic != nil {
				name = *t.Topic
			}
			if err := codeError("describe topic "+name, t.ErrorCode, nil); err != nil {
				if len(topics) == 0 && errors.Is(err, kerr.UnknownTopicOrPartition) {
					continue // deleted between two pages
				}
				return nil, err
			}
			for _, p := range t.Partitions {
				out = append(out, PartitionState{
					Topic: name, Partition: p.Partition, Leader: p.LeaderID, Epoch: p.LeaderEpoch, Replicas: some(p.Replicas), ISR: some(p.ISR),
					ELR: p.EligibleLeaderReplicas, LastELR: p.LastKnownELR, Offline: p.OfflineReplicas, Internal: t.IsInternal, topicID: t.TopicID,
				})
			}
		}
		if resp.NextCursor == nil {
			break
		}
		if len(out) == got {
			return nil, errors.New("describe partitions: a page without partitions has a page after it") // a broker that does so would be asked for ever
		}
		at := kmsg.NewDescribeTopicPartitionsRequestCursor()
		at.Topic, at.Partition = resp.NextCursor.Topic, resp.NextCursor.Partition
		req.Cursor = &at
	}
	sort.SliceStable(out, func(i, j int) bool {
		return out[i].Topic < out[j].Topic || out[i].Topic == out[j].Topic && out[i].Partition < out[j].Partition
	})
	return out, nil
}

// some is list, never nil: JSON then says [] and not null.
func some(list []int32) []int32 {
	if list == nil {
		return []int32{}
	}
	return list
}

// PartitionsAndMinISR is Partitions with min.insync.replicas of each topic, where the caller may read it.
func (c *Client) PartitionsAndMinISR(ctx context.Context, topics ...string) ([]PartitionState, error) {
	ps, err := c.Partitions(ctx, topics...)
	if err == nil {
		err = c.addMinISR(ctx, ps)
	}
	return ps, err
}

// addMinISR fills in what each topic asks of its in-sync set. What the caller may not read stays 0.
func (c *Client) addMinISR(ctx context.Context, ps []PartitionState) error {
	var names []string
	for i := range ps {
		if i == 0 || ps[i].Topic != ps[i-1].Topic {
			names = append(names, ps[i].Topic)
		}
	}
	least, err := c.topicValues(ctx, names, "min.insync.replicas")
	if err != nil {
		return err
	}
	for i := range ps {
		if n, err := strconv.Atoi(least[ps[i].Topic]); err == nil {
			ps[i].MinISR = min(n, len(ps[i].Replicas))
		}
	}
	return nil
}

// topicValues reads a few keys of many topics, some hundred topics at a time: the effective value of the
// first key that has one, by topic.
func (c *Client) topicValues(ctx context.Context, topics []string, keys ...string) (map[string]string, error) {
	out := map[string]string{}
	for some := range slices.Chunk(topics, 200) {
		req := kmsg.NewPtrDescribeConfigsRequest()
		for _, n := range some {
			r := kmsg.NewDescribeConfigsRequestResource()
			r.ResourceType, r.ResourceName, r.ConfigNames = ResourceTopic, n, keys
			req.Resources = append(req.Resources, r)
		}
		resp, err := request[*kmsg.DescribeConfigsResponse](ctx, c, "read "+keys[0]+" of topics", req)
		if err != nil {
			return nil, err
		}
		for _, r := range resp.Resources {
			for _, x := range r.Configs {
				if x.Value != nil && *x.Value != "" {
					out[r.ResourceName] = *x.Value
				}
			}
		}
	}
	return out, nil
}
