package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/server"
)

// UnregisterBroker (key 64), version 0: a broker that will not come back is forgotten. BROKER_ID_NOT_REGISTERED
// for one that is not there; one that still runs registers again.
func serveUnregisterBroker(c *Call) server.Reply {
	req := c.Request.(*kmsg.UnregisterBrokerRequest)
	resp := kmsg.NewPtrUnregisterBrokerResponse()
	ctx, cancel := c.admin(0)
	defer cancel()
	if err := c.Controller.UnregisterBroker(ctx, req.BrokerID); err != nil {
		msg := err.Error()
		resp.ErrorCode, resp.ErrorMessage = c.errorCode(err), &msg
	}
	return c.ready(resp)
}
