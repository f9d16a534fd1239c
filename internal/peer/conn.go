package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/wire"
)

// Errors of a Conn.
var (
	ErrClosed = errors.New("peer: connection closed")
	// ErrUnsent is in the chain of an error of Do when no byte of the request has left: the other side
	// cannot have carried it out.
	ErrUnsent = errors.New("peer: not sent")
)

// Dialer opens connections to other brokers.
type Dialer struct {
	TLS *tls.Config // nil: in the clear
	// Local is the source address of connections, nil for the system's choice. Brokers use the host of
	// their own peer listener: who listens can then tell them apart by address.
	Local    net.IP
	ClientID string        // in request headers
	Timeout  time.Duration // of dialling, TLS handshake included; 0: 10 s
}

// defaultDial is the dial timeout where none is given.
const defaultDial = 10 * time.Second

// Dial connects to the peer address of a broker, host:port.
func (d *Dialer) Dial(ctx context.Context, addr string) (*Conn, error) {
	timeout := d.Timeout
	if timeout <= 0 {
		timeout = defaultDial
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	nd := net.Dialer{KeepAlive: 15 * time.Second}
	if d.Local != nil {
		nd.LocalAddr = &net.TCPAddr{IP: d.Local}
	}
	nc, err := nd.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to broker at %s: %w", addr, err)
	}
	if d.TLS != nil {
		c := d.TLS
		if c.ServerName == "" {
			c = c.Clone()
			c.ServerName, _, _ = net.SplitHostPort(addr)
		}
		tc := tls.Client(nc, c)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("connect to broker at %s: %w", addr, err), nc.Close())
		}
		nc = tc
	}
	return NewConn(nc, d.ClientID), nil
}

// call is one request that waits for its answer.
type call struct {
	req  kmsg.Request  // until it is sent: from then on its owner may change it, also when the answer is not here yet
	into kmsg.Response // of the version that was asked for; nil: given up
	buf  []byte        // where the answer may be read into; only the reader touches it until done
	resp kmsg.Response // set before done is closed
	err  error
	done chan struct{}
}

func newCall(req kmsg.Request, buf []byte) *call {
	into := req.ResponseKind()
	into.SetVersion(req.GetVersion())
	return &call{req: req, into: into, buf: buf, done: make(chan struct{})}
}

// Conn is one connection to another broker. Requests are pipelined: many may be under way, and Kafka
// answers in order.
type Conn struct {
	nc       net.Conn
	r        *bufio.Reader // of nc; large reads go past its buffer
	clientID *string
	done     chan struct{}

	write struct { // held while a request is written, so that requests are not mixed
		sync.Mutex
		buf []byte
	}
	mu struct {
		sync.Mutex
		next  int32
		calls map[int32]*call
		err   error
	}
}

// NewConn begins to speak Kafka on an open connection.
func NewConn(nc net.Conn, clientID string) *Conn {
	c := &Conn{nc: nc, r: bufio.NewReader(nc), clientID: &clientID, done: make(chan struct{})}
	c.mu.calls = make(map[int32]*call)
	go c.read()
	return c
}

// Done is closed when the connection has ended; Err then says why.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection ended, nil before.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.err
}

// Addr is the other side.
func (c *Conn) Addr() net.Addr { return c.nc.RemoteAddr() }

// Close ends the connection; what waits for an answer fails. It returns when nothing of it runs.
func (c *Conn) Close() error {
	c.end(ErrClosed)
	<-c.done
	return nil
}

// end closes the socket, which ends the reader, which fails the calls.
func (c *Conn) end(err error) {
	c.mu.Lock()
	first := c.mu.err == nil
	if first {
		c.mu.err = err
	}
	c.mu.Unlock()
	if first {
		_ = c.nc.Close()
	}
}

// Do sends a request, in the version it carries, and waits for the answer. When ctx ends first the
// answer is thrown away when it comes, and the connection goes on. An error other than ErrUnsent leaves
// open whether the request was carried out.
func (c *Conn) Do(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	resp, _, err := c.Exchange(ctx, req, nil)
	return resp, err
}

// Exchange is Do with a buffer for the answer, used where it is large enough; the buffer that was used
// comes back, and byte fields of the answer are slices of it. buf must not be touched during the call,
// nor after an error.
func (c *Conn) Exchange(ctx context.Context, req kmsg.Request, buf []byte) (kmsg.Response, []byte, error) {
	ca := newCall(req, buf)
	id, err := c.send(ctx, ca)
	if err != nil {
		return nil, nil, err
	}
	select {
	case <-ca.done:
		return ca.resp, ca.buf, ca.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	_, waits := c.mu.calls[id]
	if waits {
		// The reader must still know its shape, but may not use a buffer that the caller has back.
		c.mu.calls[id] = &call{done: make(chan struct{})}
	}
	c.mu.Unlock()
	if !waits && buf != nil {
		// The answer is being read into the caller's buffer. Whoever stopped in the middle of an answer
		// may never go on, so the connection ends.
		c.end(fmt.Errorf("peer: answer not read in time: %w", ctx.Err()))
		<-ca.done
	}
	return nil, nil, ctx.Err()
}

// Call is a request under way that Start has sent.
type Call struct {
	ca *call
}

// Start sends a request as Exchange does and returns when it is on its way, so that whoever starts several
// knows their order. buf, where the answer is read into, must not be touched before Done is closed. There is
// no way to give up but to close the connection, which ends every Call.
func (c *Conn) Start(ctx context.Context, req kmsg.Request, buf []byte) (*Call, error) {
	ca := newCall(req, buf)
	if _, err := c.send(ctx, ca); err != nil {
		return nil, err
	}
	return &Call{ca}, nil
}

// Done is closed when the answer is here or the connection has ended.
func (x *Call) Done() <-chan struct{} { return x.ca.done }

// Answer is what came, to be called after Done: see Exchange for the buffer.
func (x *Call) Answer() (kmsg.Response, []byte, error) { return x.ca.resp, x.ca.buf, x.ca.err }

func (c *Conn) send(ctx context.Context, ca *call) (int32, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnsent, err)
	}
	c.write.Lock()
	defer c.write.Unlock()
	c.mu.Lock()
	if err := c.mu.err; err != nil {
		c.mu.Unlock()
		return 0, fmt.Errorf("%w: %w", ErrUnsent, err)
	}
	c.mu.next++
	id := c.mu.next
	c.mu.calls[id] = ca
	c.mu.Unlock()
	c.write.buf = appendRequest(c.write.buf[:0], ca.req, id, c.clientID)
	// A peer that reads nothing must not hold its callers for ever.
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(defaultDial)
	}
	_ = c.nc.SetWriteDeadline(deadline)
	if n, err := c.nc.Write(c.write.buf); err != nil {
		c.end(fmt.Errorf("peer: write: %w", err)) // half a frame may be out: nothing can follow it
		c.mu.Lock()
		delete(c.mu.calls, id)
		c.mu.Unlock()
		if n == 0 {
			return 0, fmt.Errorf("%w: %w", ErrUnsent, err)
		}
		return 0, fmt.Errorf("peer: write: %w", err)
	}
	if cap(c.write.buf) > keepBuffer {
		c.write.buf = nil
	}
	return id, nil
}

// keepBuffer is the largest write buffer that is kept between requests.
const keepBuffer = 1 << 20

// appendRequest is a whole frame.
func appendRequest(dst []byte, req kmsg.Request, id int32, clientID *string) []byte {
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(req.Key()))
	dst = binary.BigEndian.AppendUint16(dst, uint16(req.GetVersion()))
	dst = binary.BigEndian.AppendUint32(dst, uint32(id))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(*clientID)))
	dst = append(dst, *clientID...)
	if req.IsFlexible() {
		dst = append(dst, 0) // no tagged fields
	}
	dst = req.AppendTo(dst)
	binary.BigEndian.PutUint32(dst, uint32(len(dst)-4))
	return dst
}

// read takes answers in until the connection ends, and then fails what still waits.
func (c *Conn) read() {
	defer close(c.done)
	c.end(c.readAll())
	c.mu.Lock()
	calls, err := c.mu.calls, c.mu.err
	c.mu.calls = make(map[int32]*call) // send adds no more: err is set
	c.mu.Unlock()
	for _, ca := range calls {
		ca.err = err
		close(ca.done)
	}
}

func (c *Conn) readAll() error {
	var head [4]byte
	for {
		if _, err := io.ReadFull(c.r, head[:]); err != nil {
			return fmt.Errorf("peer: read: %w", err)
		}
		n := int64(int32(binary.BigEndian.Uint32(head[:]))) - 4
		if n < 0 || n > wire.MaxFrame {
			return fmt.Errorf("peer: answer of %d bytes", n+4)
		}
		if _, err := io.ReadFull(c.r, head[:]); err != nil {
			return fmt.Errorf("peer: read: %w", err)
		}
		id := int32(binary.BigEndian.Uint32(head[:]))
		c.mu.Lock()
		ca := c.mu.calls[id]
		delete(c.mu.calls, id)
		c.mu.Unlock()
		if ca == nil {
			return fmt.Errorf("peer: answer to no request: %d", id)
		}
		if ca.into == nil { // given up meanwhile
			if _, err := io.CopyN(io.Discard, c.r, n); err != nil {
				return fmt.Errorf("peer: read: %w", err)
			}
			continue
		}
		ca.err = c.readAnswer(ca, int(n))
		close(ca.done)
		if ca.err != nil {
			return ca.err
		}
	}
}

// readAnswer reads n bytes and decodes them.
func (c *Conn) readAnswer(ca *call, n int) error {
	if cap(ca.buf) < n {
		ca.buf = make([]byte, n)
	}
	ca.buf = ca.buf[:n]
	if _, err := io.ReadFull(c.r, ca.buf); err != nil {
		return fmt.Errorf("peer: read: %w", err)
	}
	resp := ca.into
	body := ca.buf
	if resp.IsFlexible() && resp.Key() != wire.KeyApiVersions {
		if len(body) == 0 || body[0] != 0 {
			return errors.New("peer: answer with tagged fields in its header")
		}
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		return fmt.Errorf("peer: answer to %s: %w", wire.Name(resp.Key()), err)
	}
	ca.resp = resp
	return nil
}
