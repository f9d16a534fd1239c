package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/server"
)

// DeleteRecords (key 21), versions 0-2 (kafka.md 3.10). The low watermark is the smallest log start of the live
// replicas; with one replica it is reached at once, so that the request's timeout has nothing to wait for.
func serveDeleteRecords(c *Call) server.Reply {
	req := c.Request.(*kmsg.DeleteRecordsRequest)
	resp := kmsg.NewPtrDeleteRecordsResponse()
	resp.Version = req.Version
	raised := false
	for i := range req.Topics {
		t := &req.Topics[i]
		rt := kmsg.NewDeleteRecordsResponseTopic()
		rt.Topic = t.Topic
		for j := range t.Partitions {
			p := &t.Partitions[j]
			rp := kmsg.NewDeleteRecordsResponseTopicPartition()
			low, err := c.deleteRecords(t.Topic, p.Partition, p.Offset)
			rp.Partition, rp.LowWatermark, rp.ErrorCode = p.Partition, low, c.errorCode(err)
			if err != nil {
				rp.LowWatermark = -1
			}
			raised = raised || err == nil
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	if raised {
		c.syncStarts(resp)
	}
	return c.ready(resp)
}

// syncStarts makes the new starts durable; without that nothing was deleted for sure.
func (c *Call) syncStarts(resp *kmsg.DeleteRecordsResponse) {
	err := c.Partitions.SyncStarts()
	if err == nil {
		return
	}
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			if p := &resp.Topics[i].Partitions[j]; p.ErrorCode == 0 {
				p.ErrorCode, p.LowWatermark = c.errorCode(err), -1
			}
		}
	}
}

func (c *Call) deleteRecords(topic string, n int32, offset int64) (int64, error) {
	mt := c.Image.Topic(topic)
	if mt == nil {
		return -1, kerr.UnknownTopicOrPartition
	}
	if mt.Internal {
		return -1, kerr.InvalidTopicException
	}
	p, err := c.hosted(mt, n)
	if err != nil {
		return -1, err
	}
	return p.DeleteRecords(offset, c.Now.UnixMilli())
}
