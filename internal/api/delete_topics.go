package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
)

// DeleteTopics (key 20), versions 1-6.
//
//	v3  TOPIC_DELETION_DISABLED; before, INVALID_REQUEST
//	v5  the answer has a message (KIP-599)    v6  by name or by id (KIP-516)
//
// The topic is gone from the answer on; its files go after file.delete.delay.ms.
func serveDeleteTopics(c *Call) server.Reply {
	req := c.Request.(*kmsg.DeleteTopicsRequest)
	var wishes []control.GoneTopic
	if req.Version < 6 {
		for _, n := range req.TopicNames {
			wishes = append(wishes, control.GoneTopic{Name: n})
		}
	} else {
		for _, t := range req.Topics {
			w := control.GoneTopic{ID: t.TopicID}
			if t.Topic != nil {
				w.Name = *t.Topic
			}
			wishes = append(wishes, w)
		}
	}
	ctx, cancel := c.admin(req.TimeoutMillis)
	defer cancel()
	resp := kmsg.NewPtrDeleteTopicsResponse()
	for i, r := range c.Controller.DeleteTopics(ctx, wishes) {
		t := kmsg.NewDeleteTopicsResponseTopic()
		t.TopicID = r.ID
		if r.Name != "" || meta.UUID(r.ID).IsZero() {
			name := r.Name
			t.Topic = &name
		}
		if wishes[i].Name == "" && r.Err != nil && req.Version >= 6 {
			t.Topic = nil
		}
		t.ErrorCode, t.ErrorMessage = c.refusedAs(r.Err)
		if is(r.Err, kerr.TopicDeletionDisabled) && req.Version < 3 {
			t.ErrorCode = kerr.InvalidRequest.Code
		}
		resp.Topics = append(resp.Topics, t)
	}
	return c.ready(resp)
}
