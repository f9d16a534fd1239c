package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/shard"
)

// DeleteGroups (key 42), versions 0-2 (KIP-229): removes groups without members, their offsets with them.
func serveDeleteGroups(c *Call) server.Reply {
	req := c.Request.(*kmsg.DeleteGroupsRequest)
	asks := make([]shard.Request, len(req.Groups))
	for i, id := range req.Groups {
		asks[i] = shard.Request{Group: id, Event: group.Delete{Group: id}}
	}
	call := c.Groups.Submit(asks...)
	return c.later(call.Ready(), func() kmsg.Response {
		resp := kmsg.NewPtrDeleteGroupsResponse()
		for i, r := range call.Results() {
			g, ok := r.Value.(*kmsg.DeleteGroupsResponseGroup)
			if err := asRefusal(r.Err); err != nil || !ok {
				none := kmsg.NewDeleteGroupsResponseGroup()
				none.Group, none.ErrorCode = req.Groups[i], codeOr(err)
				g = &none
			}
			c.failed(g.ErrorCode)
			resp.Groups = append(resp.Groups, *g)
		}
		return resp
	})
}
