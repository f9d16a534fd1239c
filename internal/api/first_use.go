package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/control"
)

// firstUse makes topics that are needed and not there, with the settings of their first use, here or by the
// broker that leads. c.Image shows them afterwards. The result has an entry for every topic that could not
// be made; one that somebody else has made meanwhile is there and counts as made.
func (c *Call) firstUse(ctx context.Context, names []string) map[string]*control.Error {
	if !c.leads() && c.Forward != nil {
		return c.firstUseElsewhere(ctx, names)
	}
	refused := map[string]*control.Error{}
	for _, r := range c.Controller.AutoCreate(ctx, names) {
		if r.Err != nil {
			refused[r.Name] = r.Err
		}
	}
	c.Image = c.Controller.Image()
	return refused
}

// firstUseElsewhere asks the controller with an ordinary CreateTopics that leaves all settings to it.
func (c *Call) firstUseElsewhere(ctx context.Context, names []string) map[string]*control.Error {
	refused := map[string]*control.Error{}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version = 7
	req.TimeoutMillis = int32(adminTimeout.Milliseconds())
	for _, n := range names {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = n, -1, -1
		req.Topics = append(req.Topics, t)
	}
	r, err := c.Forward(ctx, req)
	resp, ok := r.(*kmsg.CreateTopicsResponse)
	if err != nil || !ok {
		code := forwardError(err)
		for _, n := range names {
			refused[n] = &control.Error{Code: code, Message: "the controller did not answer"}
		}
		return refused
	}
	for i := range resp.Topics {
		t := &resp.Topics[i]
		switch k := kerr.TypedErrorForCode(t.ErrorCode); {
		case k == nil:
		case k.Code == kerr.TopicAlreadyExists.Code:
			t.ErrorCode = 0 // the wait below is for it, too
		default:
			e := &control.Error{Code: k, Message: k.Description}
			if t.ErrorMessage != nil {
				e.Message = *t.ErrorMessage
			}
			refused[t.Topic] = e
		}
	}
	if c.Controller != nil {
		ctx, cancel := context.WithTimeout(ctx, catchUpWait)
		defer cancel()
		c.Image = c.Controller.AwaitImage(ctx, createdShows(resp))
	}
	return refused
}
