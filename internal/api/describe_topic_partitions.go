package api

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
)

// DescribeTopicPartitions (key 75), version 0 (KIP-966): topics in order of their names, page by page. A
// page has at most the asked number of partitions, and at most max.request.partition.size.limit; where
// it ends before the last, the answer has the cursor with which to go on. No topic named means all.
func serveDescribeTopicPartitions(c *Call) server.Reply {
	req := c.Request.(*kmsg.DescribeTopicPartitionsRequest)
	resp := kmsg.NewPtrDescribeTopicPartitionsResponse()
	if cur := req.Cursor; cur != nil && cur.Partition < 0 {
		// There is no code for the whole answer: it goes to the topic of the cursor.
		resp.Topics = append(resp.Topics, c.topicPartitionsError(cur.Topic, kerr.InvalidRequest.Code))
		return c.ready(resp)
	}
	left := int(config.MaxRequestPartitionSizeLimit.Of(control.Layers(c.Image, c.Static, c.NodeID)))
	if req.ResponsePartitionLimit > 0 {
		left = min(left, int(req.ResponsePartitionLimit))
	}
	reach := c.reach()
	for _, name := range c.topicPage(req) {
		t := c.Image.Topic(name)
		if t == nil {
			code := kerr.UnknownTopicOrPartition.Code
			if control.CheckTopicName(name) != nil {
				code = kerr.InvalidTopicException.Code
			}
			resp.Topics = append(resp.Topics, c.topicPartitionsError(name, code))
			continue
		}
		from := 0
		if req.Cursor != nil && req.Cursor.Topic == name {
			from = min(int(req.Cursor.Partition), len(t.Partitions))
		}
		if left == 0 {
			resp.NextCursor = nextCursor(name, from)
			return c.ready(resp)
		}
		to := min(len(t.Partitions), from+left)
		left -= to - from
		resp.Topics = append(resp.Topics, topicPartitions(t, from, to, reach))
		if to < len(t.Partitions) {
			resp.NextCursor = nextCursor(name, to)
			return c.ready(resp)
		}
	}
	return c.ready(resp)
}

func nextCursor(topic string, n int) *kmsg.DescribeTopicPartitionsResponseNextCursor {
	cur := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
	cur.Topic, cur.Partition = topic, int32(n)
	return &cur
}

// topicPage is the names of the request from the cursor on, sorted, each once.
func (c *Call) topicPage(req *kmsg.DescribeTopicPartitionsRequest) []string {
	var names []string
	for _, t := range req.Topics {
		names = append(names, t.Topic)
	}
	if len(names) == 0 {
		for _, t := range c.Image.Topics() {
			names = append(names, t.Name)
		}
	} else {
		slices.Sort(names)
		names = slices.Compact(names)
	}
	if req.Cursor != nil {
		i, _ := slices.BinarySearch(names, req.Cursor.Topic)
		names = names[i:]
	}
	return names
}

func (c *Call) topicPartitionsError(name string, code int16) kmsg.DescribeTopicPartitionsResponseTopic {
	t := kmsg.NewDescribeTopicPartitionsResponseTopic()
	t.Topic, t.ErrorCode, t.AuthorizedOperations = &name, c.failed(code), noOperations
	t.IsInternal = control.IsInternal(name)
	return t
}

func topicPartitions(t *meta.Topic, from, to int, reach func(int32) (int16, bool)) kmsg.DescribeTopicPartitionsResponseTopic {
	out := kmsg.NewDescribeTopicPartitionsResponseTopic()
	out.Topic, out.TopicID, out.IsInternal, out.AuthorizedOperations = &t.Name, t.ID, t.Internal, topicOperations
	for n := from; n < to; n++ {
		p := t.Partitions[n]
		s := shown(p, reach)
		rp := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		rp.ErrorCode, rp.Partition, rp.LeaderID, rp.LeaderEpoch = s.code, int32(n), s.leader, p.LeaderEpoch
		rp.Replicas, rp.ISR, rp.OfflineReplicas = p.Replicas, p.ISR, s.offline
		// Empty, never null: the schema allows null, but the Java admin client takes what Kafka sends for granted.
		rp.EligibleLeaderReplicas, rp.LastKnownELR = append([]int32{}, p.ELR...), append([]int32{}, p.LastKnownELR...)
		out.Partitions = append(out.Partitions, rp)
	}
	return out
}
