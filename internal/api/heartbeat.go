package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/server"
)

// Heartbeat (key 12), versions 0-4.
//
//	v3  static members (KIP-345)
//
// While the coordinator loads the answer is success, as in Kafka: sessions begin anew after the load, and an
// error would only make the member look for another coordinator.
func serveHeartbeat(c *Call) server.Reply {
	req := c.Request.(*kmsg.HeartbeatRequest)
	return c.toGroup(req.Group, group.Heartbeat{Request: req}, func(err *kerr.Error) kmsg.Response {
		resp := kmsg.NewPtrHeartbeatResponse()
		if err != kerr.CoordinatorLoadInProgress {
			resp.ErrorCode = err.Code
		}
		return resp
	})
}
