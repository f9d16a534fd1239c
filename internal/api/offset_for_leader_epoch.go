package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/server"
)

// OffsetForLeaderEpoch (key 23), versions 2-4: the largest epoch not above the asked one and its end
// offset; -1 and -1 when the log knows none (KIP-320).
func serveOffsetForLeaderEpoch(c *Call) server.Reply {
	req := c.Request.(*kmsg.OffsetForLeaderEpochRequest)
	resp := kmsg.NewPtrOffsetForLeaderEpochResponse()
	resp.Version = req.Version
	for i := range req.Topics {
		t := &req.Topics[i]
		mt := c.Image.Topic(t.Topic)
		rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
		rt.Topic = t.Topic
		for j := range t.Partitions {
			p := &t.Partitions[j]
			rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			rp.Partition, rp.LeaderEpoch, rp.EndOffset = p.Partition, -1, -1
			if mt == nil {
				rp.ErrorCode = kerr.UnknownTopicOrPartition.Code
			} else if h, err := c.hosted(mt, p.Partition); err != nil {
				rp.ErrorCode = c.errorCode(err)
			} else if rp.LeaderEpoch, rp.EndOffset, err = h.EpochEnd(p.CurrentLeaderEpoch, p.LeaderEpoch); err != nil {
				rp.ErrorCode = c.errorCode(err)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return c.ready(resp)
}
