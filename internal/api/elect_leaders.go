package api

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
)

// ElectLeaders (key 43), versions 0-2: leadership goes to the first replica of each named partition, or of all.
//
//	v1  unclean elections, and an error of the whole request (KIP-460)
//
// A null list of topics means all partitions; those that need no election are then left out of the answer.
func serveElectLeaders(c *Call) server.Reply {
	req := c.Request.(*kmsg.ElectLeadersRequest)
	resp := kmsg.NewPtrElectLeadersResponse()
	var only []meta.TopicPartition
	if req.Topics != nil {
		only = []meta.TopicPartition{}
		for i := range req.Topics {
			for _, n := range req.Topics[i].Partitions {
				only = append(only, meta.TopicPartition{Topic: req.Topics[i].Topic, Partition: n})
			}
		}
	}
	typ := control.ElectPreferred
	if req.Version >= 1 {
		typ = control.ElectionType(req.ElectionType)
	}
	ctx, cancel := c.admin(req.TimeoutMillis)
	defer cancel()
	results, err := c.Controller.ElectLeaders(ctx, typ, only)
	if err != nil {
		c.errorCode(err) // counted, and logged when nobody foresaw it
		k, _ := errorOf(err)
		return c.ready(refusal(req, k.Code))
	}
	at := map[string]int{}
	for _, r := range results {
		i, ok := at[r.Topic]
		if !ok {
			i = len(resp.Topics)
			at[r.Topic] = i
			t := kmsg.NewElectLeadersResponseTopic()
			t.Topic = r.Topic
			resp.Topics = append(resp.Topics, t)
		}
		p := kmsg.NewElectLeadersResponseTopicPartition()
		p.Partition = r.Partition
		if p.ErrorCode, p.ErrorMessage = c.refusedAs(r.Err); r.Err != nil && errors.Is(r.Err.Code, kerr.ElectionNotNeeded) {
			c.failures.Add(-1) // that it leads already is no failure
		}
		resp.Topics[i].Partitions = append(resp.Topics[i].Partitions, p)
	}
	return c.ready(resp)
}
