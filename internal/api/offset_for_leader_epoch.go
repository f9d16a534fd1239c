package api

import (
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
)

// awaitEpoch is how long a client that knows a newer leader epoch than this broker is kept waiting for it: a follower of
// the old leader learns of an election milliseconds before or after the new one does, and franz-go rests for a second
// when it was the earlier one.
const awaitEpoch = 100 * time.Millisecond

// OffsetForLeaderEpoch (key 23), versions 2-4: the largest epoch not above the asked one and its end
// offset; -1 and -1 when the log knows none (KIP-320).
func serveOffsetForLeaderEpoch(c *Call) server.Reply {
	req := c.Request.(*kmsg.OffsetForLeaderEpochRequest)
	resp := kmsg.NewPtrOffsetForLeaderEpochResponse()
	resp.Version = req.Version
	deadline := time.Now().Add(awaitEpoch) // for all of it
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
			} else {
				var err error
				rp.LeaderEpoch, rp.EndOffset, err = c.epochEnd(mt, p)
				for errors.Is(err, kerr.UnknownLeaderEpoch) && time.Now().Before(deadline) {
					time.Sleep(2 * time.Millisecond)
					rp.LeaderEpoch, rp.EndOffset, err = c.epochEnd(mt, p)
				}
				if err != nil {
					rp.ErrorCode = c.errorCode(err)
				}
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return c.ready(resp)
}

func (c *Call) epochEnd(mt *meta.Topic, p *kmsg.OffsetForLeaderEpochRequestTopicPartition) (int32, int64, error) {
	h, err := c.hosted(mt, p.Partition)
	if err != nil {
		return -1, -1, err
	}
	return h.EpochEnd(p.CurrentLeaderEpoch, p.LeaderEpoch)
}
