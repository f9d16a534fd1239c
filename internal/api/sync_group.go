package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/server"
)

// SyncGroup (key 14), versions 0-5. A follower's answer comes when the leader has handed in the assignment and
// that is committed. Assignments are passed as they are, byte for byte.
//
//	v3  static members (KIP-345)   v5  protocol type and name, checked against the group's (KIP-559)
func serveSyncGroup(c *Call) server.Reply {
	req := c.Request.(*kmsg.SyncGroupRequest)
	return c.toGroup(req.Group, group.Sync{Request: req}, func(err *kerr.Error) kmsg.Response {
		resp := kmsg.NewPtrSyncGroupResponse()
		resp.ErrorCode, resp.MemberAssignment = err.Code, []byte{}
		return resp
	})
}
