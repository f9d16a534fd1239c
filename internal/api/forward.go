package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/server"
)

// Forwarding. A client may send any request to any broker; one that only the controller can serve goes to
// it over the peer address as it is, in the client's version, and the answer comes back unchanged (KIP-590
// wraps the request in an Envelope for the client's principal, which comes with security). A request that
// arrived on the peer listener is never forwarded again: two brokers that each believe that the other one
// leads would send it round in circles. It is answered NOT_CONTROLLER, and whoever sent it looks again.

// routed serves the request where it has to be served.
func (c *Call) routed() server.Reply {
	switch {
	case c.row.Route != Controller:
		return c.row.serve(c)
	case c.Conn.Peer() && !c.leads():
		return c.notController()
	case c.Conn.Peer():
		// On the reader it would keep the heartbeats of the broker that forwarded it from being heard.
		return c.aside(func(context.Context) server.Reply { return c.row.serve(c) })
	case c.leads():
		return c.row.serve(c)
	case c.Forward == nil:
		return c.notController()
	}
	return c.forwarded()
}

// forwarded has the controller answer.
func (c *Call) forwarded() server.Reply {
	ms := int32(0)
	if t, ok := c.Request.(kmsg.TimeoutRequest); ok {
		ms = t.Timeout()
	}
	ctx, cancel := c.admin(ms)
	defer cancel()
	resp, err := c.Forward(ctx, c.Request)
	switch {
	case err == nil && resp.Key() == c.Request.Key():
		c.catchUp(ctx, resp)
		return c.ready(resp)
	case c.leads():
		return c.row.serve(c) // the lead came here meanwhile
	}
	return c.refused(forwardError(err))
}

// forwardError is the code for an answer that never came: that of the error, where it has one (package member
// tells what was not carried out from what may have been). All of them make a client ask again.
func forwardError(err error) *kerr.Error {
	if k, known := errorOf(err); known && k != nil {
		return k
	}
	return kerr.NotController
}
