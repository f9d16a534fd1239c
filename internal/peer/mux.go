package peer

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// openTime is how long a connection may take to say what it is, TLS handshake included. Every protocol
	// of this port begins with the side that dialled.
	openTime = 5 * time.Second
	// maxOpening bounds the connections that have not said yet what they are. Past it the oldest of them is
	// closed, because whoever fills the port with silence must not keep those out who speak at once.
	maxOpening = 256
)

// Muxer shares one port between the three protocols that brokers speak with each other. The first byte
// tells: 0x00 to 0x06 is the length of a Kafka frame, "PR" the preface of HTTP/2 and so of gRPC, any other
// capital letter a request of HTTP/1. Everything else is closed without a word.
type Muxer struct {
	l                 net.Listener
	ctx               context.Context
	cancel            context.CancelFunc
	wg                sync.WaitGroup
	kafka, http, grpc *branch
	openTime          time.Duration
	maxOpening        int

	mu struct {
		sync.Mutex
		opening *list.List // of net.Conn, the oldest first
		closed  bool
	}
}

// Mux begins to accept from l, which it owns from now on. When l is a TLS listener the handshakes are made
// here, off the accept loop and within the time that a connection has to say what it is.
func Mux(l net.Listener) *Muxer { return mux(l, openTime, maxOpening) }

func mux(l net.Listener, openTime time.Duration, maxOpening int) *Muxer {
	m := &Muxer{l: l, openTime: openTime, maxOpening: maxOpening}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.kafka, m.http, m.grpc = newBranch(m), newBranch(m), newBranch(m)
	m.mu.opening = list.New()
	m.wg.Add(1)
	go m.accept()
	return m
}

// Kafka gives the connections that speak Kafka's protocol.
func (m *Muxer) Kafka() net.Listener { return m.kafka }

// HTTP gives the connections that speak HTTP/1: the store's raft traffic.
func (m *Muxer) HTTP() net.Listener { return m.http }

// GRPC gives the connections that speak HTTP/2: the store's client API.
func (m *Muxer) GRPC() net.Listener { return m.grpc }

// Addr is the address of the port.
func (m *Muxer) Addr() net.Addr { return m.l.Addr() }

// Close stops accepting, ends the three listeners and closes what has not been handed over. Connections
// that were handed over belong to whoever accepted them.
func (m *Muxer) Close() error {
	m.mu.Lock()
	m.mu.closed = true
	var open []net.Conn
	for e := m.mu.opening.Front(); e != nil; e = e.Next() {
		open = append(open, e.Value.(net.Conn))
	}
	m.mu.Unlock()
	m.cancel()
	err := m.l.Close()
	for _, c := range open {
		_ = c.Close()
	}
	m.wg.Wait()
	return err
}

// acceptAgain is the pause after an error of accept that may pass, such as too many open files.
const acceptAgain = 50 * time.Millisecond

func (m *Muxer) accept() {
	defer m.wg.Done()
	defer m.cancel() // a port that is gone ends its listeners
	for {
		c, err := m.l.Accept()
		switch {
		case err == nil:
			if e := m.enter(c); e != nil {
				m.wg.Add(1)
				go m.route(c, e)
			}
		case m.ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default:
			t := time.NewTimer(acceptAgain)
			select {
			case <-t.C:
			case <-m.ctx.Done():
				t.Stop()
				return
			}
		}
	}
}

// enter counts a connection in; nil when the port is closing.
func (m *Muxer) enter(c net.Conn) *list.Element {
	m.mu.Lock()
	if m.mu.closed {
		m.mu.Unlock()
		_ = c.Close()
		return nil
	}
	var oldest net.Conn
	if m.mu.opening.Len() >= m.maxOpening {
		oldest = m.mu.opening.Remove(m.mu.opening.Front()).(net.Conn)
	}
	e := m.mu.opening.PushBack(c)
	m.mu.Unlock()
	if oldest != nil {
		_ = abort(oldest)
	}
	return e
}

// leave counts a connection out. Removing an element twice does nothing.
func (m *Muxer) leave(e *list.Element) {
	m.mu.Lock()
	m.mu.opening.Remove(e)
	m.mu.Unlock()
}

// route finds out what a connection speaks and hands it over.
func (m *Muxer) route(c net.Conn, e *list.Element) {
	defer m.wg.Done()
	defer m.leave(e)
	deadline := time.Now().Add(m.openTime)
	b, c, err := m.sniff(c, deadline)
	if err != nil || b == nil {
		_ = abort(c)
		return
	}
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	select {
	case b.conns <- c:
	case <-b.done:
		_ = abort(c)
	case <-m.ctx.Done():
		_ = abort(c)
	case <-t.C: // nobody accepts this protocol here
		_ = abort(c)
	}
}

// abort closes a connection that was never used; TLS must not wait for its goodbye to be written.
func abort(c net.Conn) error {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn().Close()
	}
	return c.Close()
}

// sniff gives the branch of a connection, nil for none, and the connection with nothing taken from it.
func (m *Muxer) sniff(c net.Conn, deadline time.Time) (*branch, net.Conn, error) {
	if err := c.SetDeadline(deadline); err != nil {
		return nil, c, err
	}
	if t, ok := c.(*tls.Conn); ok {
		if err := t.HandshakeContext(m.ctx); err != nil {
			return nil, c, err
		}
	}
	head, c, err := peek(c, 1)
	if err != nil {
		return nil, c, err
	}
	b := m.http
	switch first := head[0]; {
	case first <= 6:
		b = m.kafka
	case first == 'P': // PRI of HTTP/2, or POST, PUT, PATCH
		if head, c, err = peek(c, 2); err != nil {
			return nil, c, err
		}
		if head[1] == 'R' {
			b = m.grpc
		}
	case first < 'A' || first > 'Z':
		return nil, c, nil
	}
	return b, c, c.SetDeadline(time.Time{})
}

// peek looks at the first n bytes, 1 or 2. A TCP connection is left as it is, because the server hands
// files to it; any other one comes back wrapped.
func peek(c net.Conn, n int) ([]byte, net.Conn, error) {
	var head [2]byte
	if t := asTCP(c); t != nil {
		return head[:n], c, peekTCP(t, head[:n])
	}
	w, ok := c.(*headConn)
	if !ok {
		w = &headConn{Conn: c}
	}
	for len(w.head) < n {
		k, err := io.ReadFull(w.Conn, head[:n-len(w.head)])
		w.head = append(w.head, head[:k]...)
		if err != nil {
			return nil, w, err
		}
	}
	return w.head[:n], w, nil
}

// headConn is a connection whose first bytes were read already.
type headConn struct {
	net.Conn
	head []byte
}

func (c *headConn) Read(b []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(b, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// NetConn is the connection below, for those who look for TLS.
func (c *headConn) NetConn() net.Conn { return c.Conn }

// branch is one protocol's share of the port.
type branch struct {
	m     *Muxer
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newBranch(m *Muxer) *branch {
	return &branch{m: m, conns: make(chan net.Conn), done: make(chan struct{})}
}

// Accept implements net.Listener.
func (b *branch) Accept() (net.Conn, error) {
	select {
	case <-b.done: // first: a closed listener must not win a connection by chance
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.done:
	case <-b.m.ctx.Done():
	}
	return nil, net.ErrClosed
}

// Close implements net.Listener: only this protocol ends, the port goes on.
func (b *branch) Close() error {
	b.once.Do(func() { close(b.done) })
	return nil
}

// Addr implements net.Listener.
func (b *branch) Addr() net.Addr { return b.m.l.Addr() }
