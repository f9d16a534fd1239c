package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/server"
)

// CreatePartitions (key 37), versions 0-3.
//
//	v3  quotas (KIP-599)
//
// Topics only grow: a count that is not above the present one is INVALID_PARTITIONS. One request adds
// at most control.MaxPartitionsPerRequest partitions.
func serveCreatePartitions(c *Call) server.Reply {
	req := c.Request.(*kmsg.CreatePartitionsRequest)
	wishes := make([]control.MorePartitions, len(req.Topics))
	for i, t := range req.Topics {
		wishes[i] = control.MorePartitions{Topic: t.Topic, Count: t.Count}
		if t.Assignment != nil {
			wishes[i].Assignment = make([][]int32, len(t.Assignment))
			for j, a := range t.Assignment {
				wishes[i].Assignment[j] = a.Replicas
			}
		}
	}
	ctx, cancel := c.admin(req.TimeoutMillis)
	defer cancel()
	resp := kmsg.NewPtrCreatePartitionsResponse()
	answered := make(map[string]bool, len(wishes))
	for _, r := range c.Controller.CreatePartitions(ctx, wishes, req.ValidateOnly) {
		if answered[r.Name] {
			continue
		}
		answered[r.Name] = true
		t := kmsg.NewCreatePartitionsResponseTopic()
		t.Topic = r.Name
		t.ErrorCode, t.ErrorMessage = c.refusedAs(r.Err)
		resp.Topics = append(resp.Topics, t)
	}
	return c.ready(resp)
}
