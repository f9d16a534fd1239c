package coord

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

const (
	// answerTimeout is how long a member that is asked how to begin looks for its quorum.
	answerTimeout = 300 * time.Millisecond
	// stallTimeout ends a connection of raft that takes nothing for this long.
	stallTimeout = 5 * time.Second
	// maxRaftBody is the largest message of raft that comes as one request. A snapshot has a path of its own.
	maxRaftBody = 64 << 20

	raftPath = "/raft"
)

// door is what the peer address answers before there is a server behind it, and after. Members that start
// together ask each other; a port that is open and silent would cost each of them a second.
type door struct {
	founders string
	list     func(ctx context.Context) ([]bootMember, error) // from a quorum
	watches  atomic.Uint64                                   // the member at which a request is open, see sentinel; 0: none
	mu       struct {
		sync.Mutex
		state   memberState
		handler http.Handler // nil: not there yet
	}
}

func (d *door) set(s memberState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.state = s
}

// open lets etcd's own requests in.
func (d *door) open(h http.Handler) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.handler = h
}

// ServeHTTP implements http.Handler.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	s, h := d.mu.state, d.mu.handler
	d.mu.Unlock()
	switch {
	case r.URL.Path == bootPath:
		d.answer(w, r, s, h != nil)
	case r.URL.Path == alivePath:
		d.holdOn(w, r)
	case r.URL.Path == seesPath:
		d.sees(w, r)
	case h == nil:
		http.Error(w, "the coordination store is starting", http.StatusServiceUnavailable)
	default:
		if r.URL.Path == raftPath {
			r.Body = http.MaxBytesReader(w, r.Body, maxRaftBody)
		}
		h.ServeHTTP(w, r)
	}
}

func (d *door) answer(w http.ResponseWriter, r *http.Request, s memberState, up bool) {
	a := bootAnswer{State: s, Founders: d.founders}
	if s == stateMember {
		a.State = stateBusy
		if up {
			ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
			defer cancel()
			if ms, err := d.list(ctx); err == nil {
				a.State, a.Members = stateMember, ms
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a)
}

// serveHTTP answers at the peer address until Close.
func (e *Etcd) serveHTTP(l net.Listener) {
	e.web = &http.Server{
		Handler: e.door, ReadHeaderTimeout: stallTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 1 << 16,
		ErrorLog: log.New(discard{}, "", 0),
	}
	e.serving.Go(func() { _ = e.web.Serve(stallListener{l}) })
}

// serveGRPC offers the client API: brokers that are not members read the history over it, and members ask
// each other how they are.
func (e *Etcd) serveGRPC(l net.Listener) {
	e.rpc = v3rpc.Server(e.srv, nil, nil,
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: stallTimeout}),
		grpc.ConnectionTimeout(stallTimeout),
	)
	e.serving.Go(func() { _ = e.rpc.Serve(l) })
}

// openDoor lets raft in.
func (e *Etcd) openDoor() { e.door.open(etcdhttp.NewPeerHandler(e.log.logger(), e.srv)) }

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// stallListener gives every write a deadline. Raft's streams are answers that never end: without it a peer
// that is frozen would hold its stream, and with it messages for it, for as long as the kernel likes.
type stallListener struct{ net.Listener }

func (l stallListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return stallConn{c}, nil
}

type stallConn struct{ net.Conn }

func (c stallConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// dialer makes connections from a given source address.
func dialer(local net.IP) *net.Dialer {
	d := &net.Dialer{Timeout: stallTimeout, KeepAlive: 15 * time.Second}
	if local != nil {
		d.LocalAddr = &net.TCPAddr{IP: local}
	}
	return d
}
