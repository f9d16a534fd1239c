package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/shard"
)

// toGroup hands one event to the coordinator of a group and answers when its answer is committed. refused
// makes the answer where there is no coordinator here, or it is still loading, or it is lost meanwhile.
func (c *Call) toGroup(id string, ev group.Event, refused func(*kerr.Error) kmsg.Response) server.Reply {
	call := c.Groups.Submit(shard.Request{Group: id, Event: ev})
	return c.later(call.Ready(), func() kmsg.Response {
		r := call.Results()[0]
		if err := asRefusal(r.Err); err != nil {
			c.failed(err.Code)
			return refused(err)
		}
		resp, ok := r.Value.(kmsg.Response)
		if !ok {
			return refused(kerr.UnknownServerError)
		}
		return resp
	})
}

// asRefusal is the Kafka error of a shard's refusal, nil for none.
func asRefusal(err error) *kerr.Error {
	k, _ := errorOf(err)
	return k
}

func groupRequest(id string, ev group.Event) []shard.Request {
	return []shard.Request{{Group: id, Event: ev}}
}

// codeOr is err's code; an answer of the wrong type without an error is a bug of ours.
func codeOr(err *kerr.Error) int16 {
	if err == nil {
		return kerr.UnknownServerError.Code
	}
	return err.Code
}
