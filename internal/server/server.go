package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/milena-mq/milena/internal/metric"
	"github.com/milena-mq/milena/internal/wire"
)

// Options of a Server. Zero values take the defaults named.
type Options struct {
	Handler        Handler
	Listeners      []ListenerOptions
	Log            *slog.Logger
	Metrics        *metric.Catalog
	MemoryBudget   int64         // bytes of requests in flight in all connections; 0: 256 MiB (queued.max.request.bytes)
	MaxPipeline    int           // answers owed to one connection; 0: 64
	MaxIdle        time.Duration // connections.max.idle.ms; 0: 10 minutes; negative: never
	FrameStall     time.Duration // a frame that makes no progress for so long ends its connection; 0: 30 s
	Grace          time.Duration // what is owed to a client that closed, or on shutdown, is waited for so long; 0: 1 s
	MaxConnections int           // max.connections; further clients wait in the backlog; 0: no limit
	MaxPerIP       int           // max.connections.per.ip; further clients are closed at once; 0: no limit
	MaxRate        int           // max.connection.creation.rate per second; 0: no limit
	Sweep          time.Duration // how often idle connections are looked for; 0: 1 s
}

func (o *Options) defaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metric.New()
	}
	if o.MemoryBudget <= 0 {
		o.MemoryBudget = 256 << 20
	}
	if o.MaxPipeline <= 0 {
		o.MaxPipeline = 64
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.MaxIdle, 10*time.Minute)
	def(&o.FrameStall, 30*time.Second)
	def(&o.Grace, time.Second)
	def(&o.Sweep, time.Second)
}

// peerBudget is the memory of other brokers' requests: a quarter of the clients', and at least two of the largest.
func (o *Options) peerBudget() int64 {
	n := o.MemoryBudget / 4
	for i := range o.Listeners {
		if l := &o.Listeners[i]; l.Peer {
			frame := int64(l.MaxFrame)
			if frame <= 0 {
				frame = wire.MaxFrame
			}
			n = max(n, 2*frame)
		}
	}
	return max(n, 1)
}

// Server owns listeners and connections.
type Server struct {
	o        Options
	budget   *budget // of clients' requests
	peers    *budget // of other brokers': clients must not keep a heartbeat from being read
	m        meters
	coarse   atomic.Int64 // Unix nanoseconds, as of the last sweep
	nextID   atomic.Uint64
	stopping chan struct{}
	ctx      context.Context // ends when Shutdown begins
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	mu       struct {
		sync.Mutex
		conns   map[*Conn]struct{}
		perIP   map[string]int
		started bool
		stopped bool
	}
	room sync.Cond // a connection ended
}

type meters struct {
	accepted, bytesIn, bytesOut, panics, budgetWaits                          *metric.Counter
	malformed, idle, refusedIP, closedByClient, closedByBroker, closedOnFault *metric.Counter
}

// New makes a server; Start opens its doors.
func New(o Options) *Server {
	o.defaults()
	s := &Server{o: o, budget: newBudget(o.MemoryBudget), peers: newBudget(o.peerBudget()), stopping: make(chan struct{})}
	s.mu.conns = map[*Conn]struct{}{}
	s.mu.perIP = map[string]int{}
	s.room.L = &s.mu
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.coarse.Store(time.Now().UnixNano())
	m := o.Metrics
	closed := func(reason string) *metric.Counter {
		return m.Counter("milena_server_connections_closed_total", "Connections closed, by reason.", "reason", reason)
	}
	s.m = meters{
		accepted:       m.Counter("milena_server_connections_accepted_total", "Connections accepted."),
		bytesIn:        m.Counter("milena_server_received_bytes_total", "Bytes read from clients."),
		bytesOut:       m.Counter("milena_server_sent_bytes_total", "Bytes written to clients."),
		panics:         m.Counter("milena_server_panics_total", "Panics while serving a connection; must stay 0."),
		budgetWaits:    m.Counter("milena_server_memory_waits_total", "Times a connection waited for memory before it read a request."),
		malformed:      closed("malformed"),
		idle:           closed("idle"),
		refusedIP:      closed("per_ip_limit"),
		closedByClient: closed("client"),
		closedByBroker: closed("broker"),
		closedOnFault:  closed("fault"),
	}
	m.GaugeFunc("milena_server_connections", "Open connections.", func() float64 { return float64(s.Connections()) })
	m.GaugeFunc("milena_server_request_memory_bytes", "Memory held by requests in flight.", func() float64 { return float64(s.budget.used.Load() + s.peers.used.Load()) })
	return s
}

// Connections is the number of open connections.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.conns)
}

// Start accepts on every listener. It returns at once.
func (s *Server) Start() { s.start(false) }

// StartPeers accepts on the listeners for other brokers only, before Start: a broker that is not
// registered yet serves no client, but its peers may need it for their own registration.
func (s *Server) StartPeers() { s.start(true) }

func (s *Server) start(peers bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.stopped {
		return
	}
	if !s.mu.started {
		s.mu.started = true
		s.wg.Add(1)
		go s.sweep()
	}
	for i := range s.o.Listeners {
		l := &s.o.Listeners[i]
		if l.accepts || peers && !l.Peer {
			continue
		}
		l.accepts = true
		if l.MaxFrame <= 0 {
			l.MaxFrame = wire.MaxFrame
		}
		s.wg.Add(1)
		go s.accept(l)
	}
}

// Listen opens a TCP listener. congestion, when not empty, is the congestion control that its
// connections use (measured: bbr halves loopback fetch against cubic); a system that refuses it keeps
// its default.
func Listen(ctx context.Context, addr, congestion string) (net.Listener, error) {
	var lc net.ListenConfig
	if congestion != "" {
		lc.Control = func(_, _ string, rc syscall.RawConn) error {
			_ = congestionControl(rc, congestion)
			return nil
		}
	}
	return lc.Listen(ctx, "tcp", addr)
}

// accept is the goroutine of one listener.
func (s *Server) accept(l *ListenerOptions) {
	defer s.wg.Done()
	var tokens, backoff = float64(s.o.MaxRate), time.Duration(0)
	refilled := time.Now()
	for s.waitRoom(l) {
		nc, err := l.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// No file descriptor left, or a client that was gone before we looked: try again, not at once.
			backoff = min(max(2*backoff, 5*time.Millisecond), time.Second)
			s.o.Log.Warn("accept", "listener", l.Name, "error", err, "again_in", backoff)
			if !s.pause(backoff) {
				return
			}
			continue
		}
		backoff = 0
		if s.o.MaxRate > 0 && !l.Peer {
			now := time.Now()
			tokens = min(tokens+now.Sub(refilled).Seconds()*float64(s.o.MaxRate), float64(s.o.MaxRate))
			refilled = now
			if tokens--; tokens < 0 && !s.pause(time.Duration(-tokens/float64(s.o.MaxRate)*float64(time.Second))) {
				_ = nc.Close()
				return
			}
		}
		s.admit(l, nc)
	}
}

// pause waits unless the server stops.
func (s *Server) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.stopping:
		return false
	}
}

// waitRoom waits until one more connection is allowed; false when the server stops. The limits are for
// clients: a broker that its peers cannot reach because clients took every place would count as dead.
func (s *Server) waitRoom(l *ListenerOptions) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.o.MaxConnections > 0 && !l.Peer && len(s.mu.conns) >= s.o.MaxConnections && !s.mu.stopped {
		s.room.Wait()
	}
	return !s.mu.stopped
}

// admit starts a connection.
func (s *Server) admit(l *ListenerOptions, nc net.Conn) {
	host, _, err := net.SplitHostPort(nc.RemoteAddr().String())
	if err != nil {
		host = nc.RemoteAddr().String()
	}
	c := &Conn{id: s.nextID.Add(1), srv: s, lst: l, budget: s.budget, nc: nc, host: host, limit: l.MaxFrame, dead: make(chan struct{}), last: -1}
	if l.PreLogin > 0 {
		c.limit = min(l.PreLogin, l.MaxFrame)
	}
	if l.Peer {
		c.budget = s.peers
	}
	c.moved.L = &c.mu
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if tc, ok := nc.(*net.TCPConn); ok {
		c.raw, _ = tc.SyscallConn()
	}
	c.touch()
	s.mu.Lock()
	full := s.o.MaxPerIP > 0 && !l.Peer && s.mu.perIP[host] >= s.o.MaxPerIP
	if s.mu.stopped || full {
		s.mu.Unlock()
		c.cancel()
		_ = nc.Close()
		if full {
			s.m.refusedIP.Inc()
		}
		return
	}
	s.mu.conns[c] = struct{}{}
	s.mu.perIP[host]++
	s.wg.Add(1)
	s.mu.Unlock()
	s.m.accepted.Inc()
	go c.run()
}

// forget is the end of a connection's place in the lists.
func (s *Server) forget(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.conns, c)
	if s.mu.perIP[c.host]--; s.mu.perIP[c.host] <= 0 {
		delete(s.mu.perIP, c.host)
	}
	s.room.Broadcast()
}

var (
	errIdle  = errors.New("idle for too long")
	errStall = errors.New("a frame or an answer made no progress")
)

// closed counts why a connection ended, and logs what an operator may want to know.
func (s *Server) closed(c *Conn, why error) {
	switch {
	case errors.Is(why, wire.ErrMalformed), errors.Is(why, errTooBusy):
		s.m.malformed.Inc()
		s.o.Log.Info("connection closed: bad request", "client", c.nc.RemoteAddr().String(), "listener", c.lst.Name, "error", why)
	case errors.Is(why, errIdle), errors.Is(why, errStall):
		s.m.idle.Inc()
	case errors.Is(why, errDrained), errors.Is(why, errHangUp):
		s.m.closedByBroker.Inc()
	case errors.Is(why, errPanic):
		s.m.closedOnFault.Inc()
	case why == nil, errors.Is(why, io.EOF):
		s.m.closedByClient.Inc()
	default:
		s.m.closedByClient.Inc()
		s.o.Log.Debug("connection ended", "client", c.nc.RemoteAddr().String(), "error", why)
	}
}

// sweep looks after clients that say nothing, and keeps the coarse clock.
func (s *Server) sweep() {
	defer s.wg.Done()
	t := time.NewTicker(s.o.Sweep)
	defer t.Stop()
	for {
		select {
		case <-s.stopping:
			return
		case now := <-t.C:
			s.coarse.Store(now.UnixNano())
			s.sweepAt(now.UnixNano())
		}
	}
}

func (s *Server) sweepAt(now int64) {
	type sentence struct {
		c   *Conn
		why error
	}
	var out []sentence
	s.mu.Lock()
	for c := range s.mu.conns {
		if why := c.overdue(now); why != nil {
			out = append(out, sentence{c, why})
		}
	}
	s.mu.Unlock()
	for _, x := range out {
		x.c.kill(x.why)
	}
}

// overdue says why the connection should end, nil when it should not.
func (c *Conn) overdue(now int64) error {
	idle, stall := int64(c.srv.o.MaxIdle), int64(c.srv.o.FrameStall)
	if c.lst.Peer {
		idle = 0 // a broker keeps its connections for the next election, and the system tells when its host is gone
	}
	quiet := now - c.progress.Load()
	if w := c.writeStart.Load(); w != 0 {
		// The client does not read. Progress is seen between the pieces of an answer only.
		patience := idle
		if c.lst.Peer {
			patience = stall
		}
		if patience > 0 && now-w > patience && quiet > patience {
			return errStall
		}
		return nil
	}
	if b := c.frameStart.Load(); b != 0 {
		if quiet > stall || idle > 0 && now-b > idle {
			return errStall
		}
		return nil
	}
	if idle > 0 && quiet > idle && !c.serving.Load() && !c.owes() {
		return errIdle
	}
	return nil
}

// Shutdown closes the listeners, lets every connection finish the answers it owes within Grace, closes
// all sockets and joins every goroutine. When ctx ends first, sockets are closed at once.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.mu.stopped {
		s.mu.Unlock()
		return nil
	}
	s.mu.stopped = true
	close(s.stopping)
	s.cancel()
	conns := make([]*Conn, 0, len(s.mu.conns))
	for c := range s.mu.conns {
		conns = append(conns, c)
	}
	s.room.Broadcast()
	s.mu.Unlock()
	for i := range s.o.Listeners {
		_ = s.o.Listeners[i].Listener.Close()
	}
	for _, c := range conns {
		c.drain()
	}
	joined := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(joined)
	}()
	// A handler that blocks in Serve holds its reader; Grace for those too, then the socket goes.
	t := time.NewTimer(2 * s.o.Grace)
	defer t.Stop()
	var err error
	select {
	case <-joined:
		return nil
	case <-t.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	for _, c := range conns {
		c.kill(errDrained)
	}
	select {
	case <-joined:
		return nil
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}
