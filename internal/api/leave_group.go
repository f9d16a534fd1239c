package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/server"
)

// LeaveGroup (key 13), versions 0-5.
//
//	v3  several members, static ones by instance id alone (KIP-345)   v5  a reason, which is not kept (KIP-800)
func serveLeaveGroup(c *Call) server.Reply {
	req := c.Request.(*kmsg.LeaveGroupRequest)
	return c.toGroup(req.Group, group.Leave{Request: req}, func(err *kerr.Error) kmsg.Response {
		resp := kmsg.NewPtrLeaveGroupResponse()
		resp.ErrorCode = err.Code
		return resp
	})
}
