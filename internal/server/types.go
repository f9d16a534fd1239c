package server

import (
	"context"
	"io"
	"net"
	"os"
)

// Handler gives requests their meaning.
type Handler interface {
	// Serve handles one request on the reader goroutine of c, in order of arrival. It may block: the
	// connection then reads no further. The frame's bytes are valid until Serve returns, longer if the
	// handler calls Retain. An answer to be waited for is a Reply with Ready set.
	Serve(c *Conn, f *Frame) Reply
	// Closed is told once, when neither goroutine of the connection runs any more.
	Closed(c *Conn)
}

// ReplyKind says what becomes of a request.
type ReplyKind uint8

const (
	// Send: an answer follows in its turn.
	Send ReplyKind = iota
	// None: no bytes at all (Produce with acks=0).
	None
	// HangUp: what is queued before is still answered, then the socket is closed.
	HangUp
)

// Reply is what a Handler gives back. The server writes size and header around the body.
type Reply struct {
	Kind ReplyKind
	// Ready, when not nil, is closed by whoever made it once Encode may run; that party sees to the
	// deadline. The server stops waiting when the connection ends, and then never calls Encode.
	Ready <-chan struct{}
	// Encode writes the body, in the order of the requests. It runs on a goroutine of the connection.
	// An error closes the connection without this answer.
	Encode func(o *Out) error
	// Correlation is the request's id, repeated in the header.
	Correlation int32
	// Tags ends the header with an empty tagged field section (response header v1).
	Tags bool
	// Serial keeps the connection from reading its next request until this answer was encoded.
	Serial bool
	// Finish, when not nil, is called exactly once: after Encode, or when the answer was dropped.
	Finish Finisher
	// Mute is how long the connection reads nothing after this answer (KIP-219: answer first, then
	// throttle), in milliseconds.
	Mute int32
	// Err is why HangUp; it is logged.
	Err error
}

// Finisher hears of the end of a request. body is the length of the encoded answer, 0 when err is set
// or nothing is sent; err says why the answer was dropped.
type Finisher interface {
	Finish(body int64, err error)
}

// File is what Out.File needs of a file; vfs.File has it.
type File interface {
	io.ReaderAt
	SysFile() *os.File
}

// ListenerOptions describes one listener.
type ListenerOptions struct {
	Name string // listener name, e.g. PLAINTEXT
	Peer bool   // for other brokers
	// MaxFrame bounds a frame in bytes; 0 is wire.MaxFrame. PreLogin bounds it until Conn.LoggedIn; 0
	// where the listener asks for no login.
	MaxFrame, PreLogin int32
	Listener           net.Listener

	accepts bool // its goroutine has begun
}

// ID is a number that no other connection of this process has.
func (c *Conn) ID() uint64 { return c.id }

// RemoteHost is the client's address without the port.
func (c *Conn) RemoteHost() string { return c.host }

// RemoteAddr is the client's address as the socket gives it.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Listener is the name of the listener the client came in by.
func (c *Conn) Listener() string { return c.lst.Name }

// Peer says that the listener is for other brokers.
func (c *Conn) Peer() bool { return c.lst.Peer }

// Context ends when the socket does, or when the server drains: whoever waits for the sake of this
// connection need not wait longer.
func (c *Conn) Context() context.Context { return c.ctx }

// Go runs fn on a goroutine of the server's, for a handler that must not keep the reader of this
// connection, because requests behind this one are more urgent. shared tells how long ctx lasts: false
// until the connection ends, true until Shutdown begins, for work whose result others wait for, too. fn
// has to return soon after ctx ends; Shutdown waits for it. A panic in fn ends the connection only.
// Called from Serve.
func (c *Conn) Go(shared bool, fn func(ctx context.Context)) {
	ctx := c.ctx
	if shared {
		ctx = c.srv.ctx
	}
	c.srv.wg.Add(1) // the reader that calls is counted itself, so the counter cannot be at zero here
	go func() {
		defer c.srv.wg.Done()
		defer func() {
			if p := recover(); p != nil {
				c.kill(c.panicked(p))
			}
		}()
		fn(ctx)
	}()
}

// LoggedIn lifts the bound on frames that holds before login. Called by the handler from Serve.
func (c *Conn) LoggedIn() { c.limit = c.lst.MaxFrame }

// Value is the handler's own state of the connection, nil before SetValue. Safe for concurrent use: an
// answer may be encoded while the next request is served.
func (c *Conn) Value() any {
	if p := c.value.Load(); p != nil {
		return *p
	}
	return nil
}

// SetValue keeps the handler's own state of the connection; v must not be changed afterwards.
func (c *Conn) SetValue(v any) { c.value.Store(&v) }
