package api

import (
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/wire"
)

// Reply is what a serve function gives back; made by one of Call's methods.
type Reply = server.Reply

// Call is one request. It lives until its answer is written. Byte fields of a Produce request are slices
// of Frame, valid until serve returns or longer with Frame.Retain; those of every other request are the
// request's own.
type Call struct {
	*Env
	Conn    *server.Conn
	Frame   *server.Frame
	Header  wire.Header
	Request kmsg.Request
	Image   *meta.Image // the same for the whole request
	Now     time.Time   // when the request was complete

	api      *API
	row      *Row
	meter    *meter
	end      server.Finisher // of the body, told after this Call
	failures atomic.Int64    // a request served aside may end before it is done
}

// Version is the version of the request and of its answer.
func (c *Call) Version() int16 { return c.Header.Version }

// ready answers now. The version of resp is set here.
func (c *Call) ready(resp kmsg.Response) Reply {
	resp.SetVersion(c.Header.Version)
	return Reply{Encode: func(o *server.Out) error {
		o.Append(resp.AppendTo)
		return nil
	}}
}

// later answers when ready is closed; finish then makes the answer, on the writer goroutine. Whoever
// made ready sees to the deadline. Without an answer (the client left) finish is never called.
func (c *Call) later(ready <-chan struct{}, finish func() kmsg.Response) Reply {
	return Reply{Ready: ready, Encode: func(o *server.Out) error {
		resp := finish()
		resp.SetVersion(c.Header.Version)
		o.Append(resp.AppendTo)
		return nil
	}}
}

// none sends nothing (Produce with acks=0).
func (c *Call) none() Reply { return Reply{Kind: server.None} }

// hangUp closes the connection after the answers before this one; err says why, for the log.
func (c *Call) hangUp(err error) Reply {
	c.failures.Add(1)
	return Reply{Kind: server.HangUp, Err: err}
}

// custom is an answer encoded by hand; Kind, Ready, Encode and Finish are the caller's, the rest is set by the
// dispatcher.
func (c *Call) custom(r Reply) Reply {
	c.end = r.Finish
	return r
}

// Finish implements server.Finisher: the request is over, answered or not.
func (c *Call) Finish(body int64, err error) {
	m := c.meter
	m.count.Inc()
	m.sent.Add(body)
	m.time.Observe(int64(c.Clock().Sub(c.Now)))
	if c.failures.Load() > 0 || err != nil {
		m.failures.Add(max(c.failures.Load(), 1))
	}
	if c.end != nil {
		c.end.Finish(body, err)
	}
}
