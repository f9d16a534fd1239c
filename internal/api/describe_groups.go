package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/shard"
)

// groupOperations is what everybody may do with a group while there is no access control: READ, DELETE, DESCRIBE,
// DESCRIBE_CONFIGS and ALTER_CONFIGS as bits (KIP-430).
const groupOperations = 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11

// DescribeGroups (key 15), versions 0-6.
//
//	v3  authorised operations (KIP-430)   v4  instance ids (KIP-345)
//	v6  an unknown group is GROUP_ID_NOT_FOUND with a message, before that it is in state Dead (KIP-1043)
func serveDescribeGroups(c *Call) server.Reply {
	req := c.Request.(*kmsg.DescribeGroupsRequest)
	asks := make([]shard.Request, len(req.Groups))
	for i, id := range req.Groups {
		asks[i] = shard.Request{Group: id, Event: group.Describe{Group: id, Version: req.Version}}
	}
	call := c.Groups.Submit(asks...)
	return c.later(call.Ready(), func() kmsg.Response {
		resp := kmsg.NewPtrDescribeGroupsResponse()
		for i, r := range call.Results() {
			g, ok := r.Value.(*kmsg.DescribeGroupsResponseGroup)
			if err := asRefusal(r.Err); err != nil || !ok {
				none := kmsg.NewDescribeGroupsResponseGroup()
				none.Group, none.ErrorCode = req.Groups[i], c.failed(codeOr(err))
				g = &none
			} else if req.IncludeAuthorizedOperations {
				g.AuthorizedOperations = groupOperations
			}
			resp.Groups = append(resp.Groups, *g)
		}
		return resp
	})
}
