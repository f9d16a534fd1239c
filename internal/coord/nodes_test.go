package coord_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/peer"
	"github.com/milena-mq/milena/internal/vfs"
)

// wire is a listener that can be cut like a cable: what is open closes, and what comes is closed at once.
type wire struct {
	net.Listener
	mu    sync.Mutex
	cut   bool
	deaf  net.IP // to whom it does not listen
	shut  int    // connections that were closed at once
	conns map[net.Conn]struct{}
}

func (w *wire) Accept() (net.Conn, error) {
	for {
		c, err := w.Listener.Accept()
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		cut := w.cut || w.deaf != nil && from(c).Equal(w.deaf)
		if !cut {
			w.conns[c] = struct{}{}
		} else {
			w.shut++
		}
		w.mu.Unlock()
		if !cut {
			return c, nil
		}
		_ = c.Close()
	}
}

func (w *wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for c := range w.conns {
		_ = c.Close()
	}
	clear(w.conns)
}

// Refuse cuts one other member off.
func (w *wire) Refuse(ip net.IP) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = ip
	for c := range w.conns {
		if from(c).Equal(ip) {
			_ = c.Close()
			delete(w.conns, c)
		}
	}
}

// Shut is how many connections were closed at once.
func (w *wire) Shut() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shut
}

func from(c net.Conn) net.IP { return c.RemoteAddr().(*net.TCPAddr).IP }

func (w *wire) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = false
}

// node is one member with its port.
type node struct {
	*coord.Etcd
	id   int32
	addr string
	dir  string
	wire *wire
	mux  *peer.Muxer
	opts coord.EtcdOptions
}

// listen opens the port of a member; addr "" takes a free one.
func (n *node) listen(t testing.TB) {
	t.Helper()
	a := n.addr
	if a == "" {
		a = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", a)
	if err != nil {
		t.Fatal(err)
	}
	n.addr = l.Addr().String()
	n.wire = &wire{Listener: l, conns: make(map[net.Conn]struct{})}
	n.mux = peer.Mux(n.wire)
}

// open starts the member on its directory.
func (n *node) open(cluster []coord.Peer, change ...func(*coord.EtcdOptions)) error {
	n.opts = coord.EtcdOptions{
		Dir: n.dir, FS: vfs.OS, NoSync: true, Tick: 30 * time.Millisecond, Identity: coord.Identity{NodeID: n.id, Peer: n.addr},
		Cluster: cluster, HTTP: n.mux.HTTP(), GRPC: n.mux.GRPC(),
	}
	for _, c := range change {
		c(&n.opts)
	}
	s, err := coord.OpenEtcd(n.opts)
	if err == nil {
		n.Etcd = s
	}
	return err
}

// down ends the member and its port.
func (n *node) down(t testing.TB, end func() error) {
	t.Helper()
	n.wire.Cut() // a process that is gone takes its connections with it, and its port
	_ = n.wire.Listener.Close()
	if err := end(); err != nil {
		t.Errorf("end of member %d: %v", n.id, err)
	}
	_ = n.mux.Close()
	n.Etcd = nil
}

// prepare opens the ports of n members, so that their addresses are known.
func prepare(t testing.TB, n int) (nodes []*node, peers []coord.Peer) {
	t.Helper()
	for i := range n {
		m := &node{id: int32(i + 1), dir: filepath.Join(t.TempDir(), "coord")}
		m.listen(t)
		nodes = append(nodes, m)
		peers = append(peers, coord.Peer{Node: m.id, Addr: m.addr})
	}
	t.Cleanup(func() {
		for _, m := range nodes {
			if m.Etcd != nil {
				_ = m.Close()
			}
			_ = m.mux.Close()
		}
	})
	return nodes, peers
}

// together starts members at the same time.
func together(t testing.TB, nodes []*node, peers []coord.Peer, change ...func(*coord.EtcdOptions)) {
	t.Helper()
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = n.open(peers, change...) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func cluster(t testing.TB, n int, change ...func(*coord.EtcdOptions)) []*node {
	t.Helper()
	nodes, peers := prepare(t, n)
	together(t, nodes, peers, change...)
	return nodes
}

// lead returns the member that took the lead first, and its term.
func lead(t testing.TB, ctx context.Context, nodes ...*node) (*node, *coord.Term) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		n    *node
		term *coord.Term
		err  error
	}
	ch := make(chan result, len(nodes))
	for _, n := range nodes {
		go func(s *coord.Etcd) {
			for {
				term, err := s.Lead(ctx)
				if err == nil || ctx.Err() != nil || errors.Is(err, coord.ErrClosed) {
					ch <- result{n, term, err}
					return
				}
			}
		}(n.Etcd)
	}
	var first *result
	for range nodes {
		r := <-ch
		if r.err == nil && first == nil {
			first = &r
		} else if r.term != nil {
			r.term.End()
		}
		cancel()
	}
	cancel()
	if first == nil {
		t.Fatal("nobody leads")
	}
	return first.n, first.term
}

func but(nodes []*node, out *node) []*node {
	var rest []*node
	for _, n := range nodes {
		if n != out && n.Etcd != nil {
			rest = append(rest, n)
		}
	}
	return rest
}

func bound(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func mustAppend(t testing.TB, ctx context.Context, s coord.Store, term *coord.Term, k, v string) coord.Revision {
	t.Helper()
	rev, err := s.Append(ctx, term, []meta.Change{{Key: k, Value: []byte(v)}})
	if err != nil {
		t.Fatalf("append %s: %v", k, err)
	}
	return rev
}

func value(t testing.TB, ctx context.Context, s coord.Store, k string) string {
	t.Helper()
	snap, _, err := s.Load(ctx)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	for _, c := range snap.Changes {
		if c.Key == k {
			return string(c.Value)
		}
	}
	return ""
}

// write appends a value of the key k under the term that there is, or a new one: a machine that is busy may
// change leaders at any time. It returns who leads, and the term.
func write(t testing.TB, ctx context.Context, n *node, term *coord.Term, nodes []*node, v string) (*node, *coord.Term) {
	t.Helper()
	for {
		_, err := n.Append(ctx, term, []meta.Change{{Key: "k", Value: []byte(v)}})
		if err == nil {
			return n, term
		}
		if ctx.Err() != nil {
			t.Fatalf("append %s: %v", v, err)
		}
		n, term = lead(t, ctx, but(nodes, nil)...)
	}
}
