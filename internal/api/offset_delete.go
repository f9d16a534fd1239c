package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/server"
)

// OffsetDelete (key 47), version 0 (KIP-496): forgets offsets of topics that no member subscribes to. A topic or
// partition that does not exist is UNKNOWN_TOPIC_OR_PARTITION, as in Kafka; its offsets went with it.
func serveOffsetDelete(c *Call) server.Reply {
	req := c.Request.(*kmsg.OffsetDeleteRequest)
	ask := *req
	ask.Topics = nil
	var unknown []kmsg.OffsetDeleteResponseTopic
	for i := range req.Topics {
		t := &req.Topics[i]
		known := t.Partitions[:0:0]
		bad := kmsg.NewOffsetDeleteResponseTopic()
		bad.Topic = t.Topic
		for _, p := range t.Partitions {
			if c.Image.Partition(t.Topic, p.Partition) != nil {
				known = append(known, p)
				continue
			}
			r := kmsg.NewOffsetDeleteResponseTopicPartition()
			r.Partition, r.ErrorCode = p.Partition, c.failed(kerr.UnknownTopicOrPartition.Code)
			bad.Partitions = append(bad.Partitions, r)
		}
		if len(bad.Partitions) > 0 {
			unknown = append(unknown, bad)
		}
		if len(known) > 0 {
			ask.Topics = append(ask.Topics, kmsg.OffsetDeleteRequestTopic{Topic: t.Topic, Partitions: known})
		}
	}
	reply := c.Groups.Submit(groupRequest(req.Group, group.DeleteOffsets{Request: &ask})...)
	return c.later(reply.Ready(), func() kmsg.Response {
		r := reply.Results()[0]
		resp, ok := r.Value.(*kmsg.OffsetDeleteResponse)
		if err := asRefusal(r.Err); err != nil || !ok {
			resp = kmsg.NewPtrOffsetDeleteResponse()
			resp.ErrorCode = c.failed(codeOr(err))
		}
		if resp.ErrorCode == 0 {
			resp.Topics = append(resp.Topics, unknown...)
		}
		return resp
	})
}
