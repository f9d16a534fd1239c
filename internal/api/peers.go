package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/server"
)

// AlterPartition (56), BrokerRegistration (62), BrokerHeartbeat (63), AllocateProducerIds (67) and
// AssignReplicasToDirs (73): what brokers tell the controller, in Kafka's own messages and on the peer
// listener only. Package controller answers; a broker that does not lead says NOT_CONTROLLER, but notes
// heartbeats all the same, so that it knows who lives when it takes over.
//
//	56  v2 topic ids (KIP-841), v3 broker epochs of the members (KIP-903)
//	62  v2 log directories (KIP-858), v3 the epoch of the clean shutdown (KIP-966), v4 cordoned directories
//	63  v1 offline directories (KIP-858), v2 cordoned directories

// servePeer hands one message to the controller. A heartbeat is noted on the reader at once; everything
// else may take as long as the store does, and must not hold up the heartbeats behind it: a broker with a
// busy connection would count as dead.
func servePeer(c *Call) server.Reply {
	if _, beat := c.Request.(*kmsg.BrokerHeartbeatRequest); beat {
		return c.peerAnswer(c.Controller.Handle(c.Conn.Context(), c.Conn.ID(), c.Request))
	}
	return c.aside(func(context.Context) server.Reply {
		ctx, cancel := c.admin(0)
		defer cancel()
		return c.peerAnswer(c.Controller.Handle(ctx, c.Conn.ID(), c.Request))
	})
}

func (c *Call) peerAnswer(resp kmsg.Response) server.Reply {
	if resp == nil {
		return c.notController()
	}
	return c.ready(resp)
}

// notController is the answer of a broker that does not lead to a request that only the controller serves.
func (c *Call) notController() server.Reply {
	return c.refused(kerr.NotController)
}

// refused answers everything that was asked with one code.
func (c *Call) refused(err *kerr.Error) server.Reply {
	resp := refusal(c.Request, c.failed(err.Code))
	if resp == nil {
		return c.hangUp(err)
	}
	return c.ready(resp)
}

// asideAfter serves once ready is closed, on a goroutine of its own where that is not now. serve may itself wait.
func (c *Call) asideAfter(ready <-chan struct{}, serve func() server.Reply) server.Reply {
	return c.aside(func(ctx context.Context) server.Reply {
		select {
		case <-ready:
		case <-ctx.Done():
			return server.Reply{Err: ctx.Err()}
		}
		r := serve()
		if r.Ready != nil {
			select {
			case <-r.Ready:
			case <-ctx.Done():
				return server.Reply{Err: ctx.Err()}
			}
		}
		return r
	})
}

// aside runs serve on a goroutine of its own and answers when it has returned. The connection reads on.
func (c *Call) aside(serve func(context.Context) server.Reply) server.Reply {
	done := make(chan struct{})
	var r server.Reply
	c.Conn.Go(false, func(ctx context.Context) {
		defer close(done)
		r = serve(ctx)
	})
	return server.Reply{Ready: done, Encode: func(o *server.Out) error {
		if r.Encode == nil {
			return r.Err // serve panicked, or hung up
		}
		return r.Encode(o)
	}}
}
