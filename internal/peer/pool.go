package peer

import (
	"context"
	"errors"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Pool keeps one shared connection for each address.
type Pool struct {
	d  *Dialer
	mu struct {
		sync.Mutex
		conns  map[string]*slot
		closed bool
	}
}

// slot is one address; its lock is held while dialling, so that many callers make one connection.
type slot struct {
	sem  chan struct{} // capacity 1
	conn *Conn
}

// NewPool makes an empty pool.
func NewPool(d *Dialer) *Pool {
	p := &Pool{d: d}
	p.mu.conns = make(map[string]*slot)
	return p
}

// Do sends a request to the broker at addr, over the connection that is there or a new one. See Conn.Do.
func (p *Pool) Do(ctx context.Context, addr string, req kmsg.Request) (kmsg.Response, error) {
	c, err := p.Conn(ctx, addr)
	if err != nil {
		return nil, err
	}
	return c.Do(ctx, req)
}

// Conn is the shared connection to addr, made now if there is none that works. An error means that
// nothing was sent: ErrUnsent is in its chain.
func (p *Pool) Conn(ctx context.Context, addr string) (*Conn, error) {
	p.mu.Lock()
	if p.mu.closed {
		p.mu.Unlock()
		return nil, errors.Join(ErrUnsent, ErrClosed)
	}
	s := p.mu.conns[addr]
	if s == nil {
		s = &slot{sem: make(chan struct{}, 1)}
		p.mu.conns[addr] = s
	}
	p.mu.Unlock()
	select {
	case s.sem <- struct{}{}:
	case <-ctx.Done():
		return nil, errors.Join(ErrUnsent, ctx.Err())
	}
	defer func() { <-s.sem }()
	if s.conn != nil && s.conn.Err() == nil {
		return s.conn, nil
	}
	c, err := p.d.Dial(ctx, addr)
	if err != nil {
		return nil, errors.Join(ErrUnsent, err)
	}
	p.mu.Lock()
	closed := p.mu.closed
	if !closed {
		s.conn = c
	}
	p.mu.Unlock()
	if closed {
		_ = c.Close()
		return nil, errors.Join(ErrUnsent, ErrClosed)
	}
	return c, nil
}

// Close ends all connections.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.mu.closed = true
	var conns []*Conn
	for _, s := range p.mu.conns {
		if s.conn != nil {
			conns = append(conns, s.conn)
		}
	}
	p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
	return nil
}
