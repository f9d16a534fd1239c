package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/server"
)

// OffsetCommit (key 8), versions 2-10.
//
//	v2-4 an own retention time, honoured as in Kafka   v5 none (KIP-211)   v6 leader epochs (KIP-320)
//	v7   static members (KIP-345)   v9 an unknown group is GROUP_ID_NOT_FOUND (KIP-848)
//	v10  topics by id (KIP-848)
//
// Whatever the version, the id of the topic is stored with the offset, so that a topic made again under the
// same name does not inherit it.
func serveOffsetCommit(c *Call) server.Reply {
	req := c.Request.(*kmsg.OffsetCommitRequest)
	resp := kmsg.NewPtrOffsetCommitResponse()
	ask := *req
	ask.Topics = make([]kmsg.OffsetCommitRequestTopic, 0, len(req.Topics))
	for i := range req.Topics {
		t := &req.Topics[i]
		rt := kmsg.NewOffsetCommitResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		rt.Partitions = make([]kmsg.OffsetCommitResponseTopicPartition, len(t.Partitions))
		resp.Topics = append(resp.Topics, rt)
		mt, unknown := c.Image.Topic(t.Topic), kerr.UnknownTopicOrPartition
		if req.Version >= 10 {
			mt, unknown = c.Image.TopicByID(t.TopicID), kerr.UnknownTopicID
		}
		good := t.Partitions[:0:0]
		for j := range t.Partitions {
			p := &rt.Partitions[j]
			p.Partition = t.Partitions[j].Partition
			switch {
			case mt == nil:
				p.ErrorCode = c.failed(unknown.Code)
			case p.Partition < 0 || int(p.Partition) >= len(mt.Partitions):
				p.ErrorCode = c.failed(kerr.UnknownTopicOrPartition.Code)
			default:
				good = append(good, t.Partitions[j])
			}
		}
		if len(good) > 0 {
			ask.Topics = append(ask.Topics, kmsg.OffsetCommitRequestTopic{Topic: mt.Name, TopicID: mt.ID, Partitions: good})
		}
	}
	if len(ask.Topics) == 0 {
		return c.ready(resp)
	}
	call := c.Groups.Submit(groupRequest(req.Group, group.Commit{Request: &ask})...)
	return c.later(call.Ready(), func() kmsg.Response {
		r := call.Results()[0]
		answer, ok := r.Value.(*kmsg.OffsetCommitResponse)
		err := asRefusal(r.Err)
		if err == nil && !ok {
			err = kerr.UnknownServerError
		}
		c.mergeCommit(resp, answer, err)
		return resp
	})
}

// mergeCommit fills in what the coordinator said of the partitions that were passed on to it, which come in
// the order of the request; err, when not nil, is its answer for all of them.
func (c *Call) mergeCommit(resp, answer *kmsg.OffsetCommitResponse, err *kerr.Error) {
	at, in := 0, 0
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			p := &resp.Topics[i].Partitions[j]
			if p.ErrorCode != 0 {
				continue
			}
			if err != nil {
				p.ErrorCode = c.failed(err.Code)
				continue
			}
			for in == len(answer.Topics[at].Partitions) {
				at, in = at+1, 0
			}
			p.ErrorCode = c.failed(answer.Topics[at].Partitions[in].ErrorCode)
			in++
		}
	}
}
