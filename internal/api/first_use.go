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
//
// The wait is bounded more tightly than an administrator's: the client asked for something else, too, for example
// where the leaders of other topics are, and while there is no controller it must not wait for that.
func (c *Call) firstUse(names []string) map[string]*control.Error {
	ctx, cancel := context.WithTimeout(c.Conn.Context(), createWait)
	defer cancel()
	if !c.leads() && c.Forward != nil {
		refused, err := c.firstUseElsewhere(ctx, names)
		if err == nil {
			return refused
		}
		if !c.leads() {
			c.Image = c.Controller.Image() // somebody may have made them
			return c.unmade(names, forwardError(err))
		}
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

// unmade refuses the topics that the image does not show.
func (c *Call) unmade(names []string, code *kerr.Error) map[string]*control.Error {
	refused := map[string]*control.Error{}
	for _, n := range names {
		if c.Image.Topic(n) == nil {
			refused[n] = &control.Error{Code: code, Message: "the controller has not answered"}
		}
	}
	return refused
}

// firstUseElsewhere asks the controller with an ordinary CreateTopics that leaves all settings to it.
func (c *Call) firstUseElsewhere(ctx context.Context, names []string) (map[string]*control.Error, error) {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version = 7
	req.TimeoutMillis = int32(createWait.Milliseconds())
	for _, n := range names {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = n, -1, -1
		req.Topics = append(req.Topics, t)
	}
	r, err := c.Forward(ctx, req)
	if err != nil {
		return nil, err
	}
	resp, ok := r.(*kmsg.CreateTopicsResponse)
	if !ok {
		return nil, kerr.UnknownServerError
	}
	refused := map[string]*control.Error{}
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
	ctx, cancel := context.WithTimeout(ctx, catchUpWait)
	defer cancel()
	c.Image = c.Controller.AwaitImage(ctx, createdShows(resp))
	return refused, nil
}
