package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/server"
)

// JoinGroup (key 11), versions 0-9. The answer comes when the join phase ends, which can take as long as the
// members' largest rebalance timeout.
//
//	v1  rebalance timeout; v0 uses the session timeout
//	v4  MEMBER_ID_REQUIRED for dynamic members without an id (KIP-394)
//	v5  static members (KIP-345)        v7  protocol type in the answer (KIP-559)
//	v8  a reason, which is not kept (KIP-800)
//	v9  SkipAssignment for a static leader that comes back (KIP-814)
func serveJoinGroup(c *Call) server.Reply {
	req := c.Request.(*kmsg.JoinGroupRequest)
	ev := group.Join{Request: req, ClientID: c.Header.ClientID, ClientHost: "/" + c.Conn.RemoteHost(), NewID: c.Groups.NewID()}
	return c.toGroup(req.Group, ev, func(err *kerr.Error) kmsg.Response {
		resp := kmsg.NewPtrJoinGroupResponse()
		resp.ErrorCode, resp.Generation, resp.MemberID = err.Code, -1, req.MemberID
		if req.Version < 7 {
			resp.Protocol = kmsg.StringPtr("") // not nullable before v7
		}
		return resp
	})
}
