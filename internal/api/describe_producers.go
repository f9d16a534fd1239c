package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/server"
)

// DescribeProducers (key 61), version 0: the producers a partition remembers (KIP-664).
func serveDescribeProducers(c *Call) server.Reply {
	req := c.Request.(*kmsg.DescribeProducersRequest)
	resp := kmsg.NewPtrDescribeProducersResponse()
	resp.Version = req.Version
	for i := range req.Topics {
		t := &req.Topics[i]
		mt := c.Image.Topic(t.Topic)
		rt := kmsg.NewDescribeProducersResponseTopic()
		rt.Topic = t.Topic
		for _, n := range t.Partitions {
			rp := kmsg.NewDescribeProducersResponseTopicPartition()
			rp.Partition = n
			if mt == nil {
				rp.ErrorCode = kerr.UnknownTopicOrPartition.Code
			} else if p, err := c.hosted(mt, n); err != nil {
				rp.ErrorCode = c.errorCode(err)
			} else if states, err := p.Producers(); err != nil {
				rp.ErrorCode = c.errorCode(err)
			} else {
				for _, s := range states {
					a := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
					a.ProducerID, a.ProducerEpoch, a.LastSequence = s.ID, int32(s.Epoch), s.LastSequence
					a.LastTimestamp, a.CoordinatorEpoch, a.CurrentTxnStartOffset = s.LastTimestamp, s.CoordinatorEpoch, s.TxnStart
					rp.ActiveProducers = append(rp.ActiveProducers, a)
				}
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return c.ready(resp)
}
