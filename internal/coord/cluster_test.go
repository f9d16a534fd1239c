package coord_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/coord/coordtest"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/peer"
	"github.com/milena-mq/milena/internal/vfs"
)

// wire is a listener that can be cut like a cable: what is open closes, and what comes is closed at once.
type wire struct {
	net.Listener
	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
}

func (w *wire) Accept() (net.Conn, error) {
	for {
		c, err := w.Listener.Accept()
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		cut := w.cut
		if !cut {
			w.conns[c] = struct{}{}
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

// leaderStore is the member of a cluster that leads it, as the contract's suite wants a store.
type leaderStore struct {
	coord.Store
	t     *testing.T
	nodes []*node
}

func (s *leaderStore) Close() error {
	var errs []error
	for _, n := range s.nodes {
		if n.Etcd != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}

// TestContractOfThree holds three members to the contract: the leader writes, and a follower's tail shows
// the same.
func TestContractOfThree(t *testing.T) {
	t.Parallel()
	var nodes []*node
	var peers []coord.Peer
	began := 0
	coordtest.Run(t, func(t *testing.T) coord.Store {
		// One cluster for all would have a history: the suite wants it empty.
		nodes, peers = prepare(t, 3)
		together(t, nodes, peers)
		began++
		ctx := bound(t)
		var l *node
		for l == nil {
			for _, n := range nodes {
				if n.EngineLeads() {
					l = n
				}
			}
			if ctx.Err() != nil {
				t.Fatal("nobody leads")
			}
			if l == nil {
				if _, _, err := nodes[0].Load(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		f := but(nodes, l)[0]
		return &leaderStore{Store: follower{l.Etcd, f.Etcd}, t: t, nodes: nodes}
	})
	if began == 0 {
		t.Fatal("nothing ran")
	}
}

// follower writes to the leader and follows the history on another member.
type follower struct {
	coord.Store
	f coord.Store
}

func (s follower) Tail(ctx context.Context, from coord.Revision) (<-chan coord.Batch, error) {
	return s.f.Tail(ctx, from)
}
func (s follower) Load(ctx context.Context) (coord.Snapshot, coord.Revision, error) {
	return s.f.Load(ctx)
}

func TestBootOfThree(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes, peers := prepare(t, 3)
	began := time.Now()
	together(t, nodes, peers)
	opened := time.Since(began)
	n, term := lead(t, ctx, nodes...)
	t.Logf("opened in %v, controller after %v", opened, time.Since(began))
	mustAppend(t, ctx, n, term, "k", "v")
	for _, x := range nodes {
		if got := value(t, ctx, x, "k"); got != "v" {
			t.Errorf("member %d has %q", x.id, got)
		}
	}
	ms, err := n.Members(ctx)
	if err != nil || len(ms) != 3 {
		t.Fatalf("members: %+v, %v", ms, err)
	}
	leaders := 0
	for _, m := range ms {
		if m.Err != "" || m.Node < 1 || m.Node > 3 || m.Learner || m.Applied == 0 || m.Term == 0 {
			t.Errorf("member %+v", m)
		}
		if m.Leader {
			leaders++
			if m.Node != n.id {
				t.Errorf("member %d leads, the controller is %d", m.Node, n.id)
			}
		}
	}
	if leaders != 1 {
		t.Errorf("%d leaders", leaders)
	}
}

func TestKilledLeaderIsReplaced(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes := cluster(t, 3)
	old, term := lead(t, ctx, nodes...)
	mustAppend(t, ctx, old, term, "k", "1")
	rest := but(nodes, old)
	tail, err := rest[0].Tail(ctx, term.Token)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	old.down(t, old.Crash)
	n, next := lead(t, ctx, rest...)
	t.Logf("leader gone to new term: %v", time.Since(began))
	if next.Epoch != term.Epoch+1 {
		t.Errorf("term %d after %d", next.Epoch, term.Epoch)
	}
	if !term.Ended() {
		t.Error("the old term goes on after its store has ended")
	}
	rev := mustAppend(t, ctx, n, next, "k", "2")
	for {
		b, ok := <-tail
		if !ok {
			t.Fatal("a tail on a member that lives has ended")
		}
		if b.Rev == rev {
			break
		}
	}
	// It comes back with what it had.
	old.listen(t)
	if err := old.open(nil); err != nil {
		t.Fatal(err)
	}
	if got := value(t, ctx, old, "k"); got != "2" {
		t.Errorf("the member that came back has %q", got)
	}
}

func TestOrderlyEndHandsTheLeadOver(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes := cluster(t, 3)
	old, term := lead(t, ctx, nodes...)
	began := time.Now()
	if err := old.Close(); err != nil { // the port stays open while the lead moves
		t.Error(err)
	}
	closed := time.Since(began)
	old.Etcd = nil
	_, next := lead(t, ctx, but(nodes, old)...)
	took := time.Since(began)
	t.Logf("closed in %v, new term after %v", closed, took)
	if next.Epoch != term.Epoch+1 {
		t.Errorf("term %d after %d", next.Epoch, term.Epoch)
	}
}

func TestLeaderThatIsCutOffStopsAndIsRefused(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes := cluster(t, 3)
	old, term := lead(t, ctx, nodes...)
	mustAppend(t, ctx, old, term, "k", "1")
	tail, err := old.Tail(ctx, term.Token)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	old.Isolate()
	old.wire.Cut()
	n, next := lead(t, ctx, but(nodes, old)...)
	t.Logf("cut off to new term: %v", time.Since(began))
	mustAppend(t, ctx, n, next, "k", "2")
	select {
	case <-term.Done():
		t.Logf("old term ended after %v", time.Since(began))
	case <-ctx.Done():
		t.Fatal("a leader that is cut off goes on as controller")
	}
	// Its writes: not done, and not said to be.
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	if _, err := old.Append(short, term, []meta.Change{{Key: "k", Value: []byte("stale")}}); !errors.Is(err, coord.ErrUnknown) {
		t.Errorf("append without a majority: %v", err)
	}
	if _, _, err := old.Load(short); err == nil {
		t.Error("load without a majority")
	}
	cancel()
	old.Rejoin()
	old.wire.Mend()
	if got := value(t, ctx, old, "k"); got != "2" {
		t.Errorf("after the cut: %q", got)
	}
	if _, err := old.Append(ctx, term, []meta.Change{{Key: "k", Value: []byte("stale")}}); !errors.Is(err, coord.ErrFenced) {
		t.Errorf("append under the old term: %v", err)
	}
	// Its tail waited and goes on.
	var got []string
	for len(got) == 0 || got[len(got)-1] != "2" {
		select {
		case b, ok := <-tail:
			if !ok {
				t.Fatal("a tail ended because of a cut")
			}
			for _, c := range b.Changes {
				if c.Key == "k" {
					got = append(got, string(c.Value))
				}
			}
		case <-ctx.Done():
			t.Fatal("a tail does not go on after a cut")
		}
	}
	if strings.Join(got, " ") != "1 2" {
		t.Errorf("tail: %v", got)
	}
}

func TestWithoutAMajorityNothingIsAnswered(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes := cluster(t, 3)
	l, term := lead(t, ctx, nodes...)
	tail, err := l.Tail(ctx, term.Token)
	if err != nil {
		t.Fatal(err)
	}
	rest := but(nodes, l)
	for _, n := range rest {
		n.down(t, n.Crash)
	}
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if _, err := l.Append(short, term, []meta.Change{{Key: "k", Value: []byte("v")}}); !errors.Is(err, coord.ErrUnknown) {
		t.Errorf("append: %v", err)
	}
	select {
	case <-term.Done():
	case <-ctx.Done():
		t.Fatal("the term goes on")
	}
	select {
	case _, ok := <-tail:
		t.Errorf("tail delivers without a majority (open: %v)", ok)
	default:
	}
	for _, n := range rest {
		n.listen(t)
		if err := n.open(nil); err != nil {
			t.Fatal(err)
		}
	}
	n, next := lead(t, ctx, nodes...)
	mustAppend(t, ctx, n, next, "k", "w")
}

func TestAllRestart(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes, peers := prepare(t, 3)
	together(t, nodes, peers, func(o *coord.EtcdOptions) { o.NoSync = false })
	n, term := lead(t, ctx, nodes...)
	rev := mustAppend(t, ctx, n, term, "k", "v")
	for _, n := range nodes {
		n.down(t, n.Crash)
	}
	for _, n := range nodes {
		n.listen(t)
	}
	began := time.Now()
	together(t, nodes, peers)
	n, next := lead(t, ctx, nodes...)
	t.Logf("restart of all to new term: %v", time.Since(began))
	if next.Epoch <= term.Epoch || next.Token <= rev {
		t.Errorf("term %+v after %+v", next, term)
	}
	if got := value(t, ctx, n, "k"); got != "v" {
		t.Errorf("value %q", got)
	}
}

func TestCompactedHistoryEndsATail(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes := cluster(t, 3)
	n, term := lead(t, ctx, nodes...)
	for i := range 10 {
		mustAppend(t, ctx, n, term, "k", fmt.Sprint(i))
	}
	if err := n.Compact(); err != nil {
		t.Fatal(err)
	}
	tail, err := n.Tail(ctx, term.Token)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case b, ok := <-tail:
		if ok {
			t.Fatalf("compacted history shows %+v", b)
		}
	case <-ctx.Done():
		t.Fatal("a tail of compacted history does not end")
	}
}

// A broker that began alone, with a port, becomes three; then one loses its disk and is replaced.
func TestGrowthAndReplacement(t *testing.T) {
	t.Parallel()
	// etcd wants five seconds of peace before it lets a member in or out
	ctx := bound(t)
	nodes, peers := prepare(t, 3)
	one := nodes[0]
	if err := one.open(nil); err != nil {
		t.Fatal(err)
	}
	_, term := lead(t, ctx, one)
	mustAppend(t, ctx, one, term, "k", "v")
	// Not added yet: refused, and told what to do.
	err := nodes[1].open(peers)
	if !errors.Is(err, coord.ErrNoMember) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("a broker that was not added: %v", err)
	}
	began := time.Now()
	for _, n := range nodes[1:] {
		_ = n.mux.Close()
		n.listen(t)
		peers[n.id-1].Addr = n.addr
		if err := one.Add(ctx, n.id, n.addr); err != nil {
			t.Fatal(err)
		}
		if err := one.Add(ctx, n.id, n.addr); err != nil {
			t.Errorf("the same again: %v", err)
		}
		if err := one.Add(ctx, 9, n.addr); !errors.Is(err, coord.ErrMember) {
			t.Errorf("another broker at the same address: %v", err)
		}
	}
	if err := one.Add(ctx, 9, "127.0.0.1:1"); !errors.Is(err, coord.ErrLearner) {
		t.Errorf("a third at once: %v", err)
	}
	together(t, nodes[1:], peers)
	awaitVoters(t, ctx, one, 3)
	t.Logf("one became three in %v", time.Since(began))
	for _, n := range nodes {
		if got := value(t, ctx, n, "k"); got != "v" {
			t.Errorf("member %d has %q", n.id, got)
		}
	}
	if term.Ended() {
		t.Error("growing ended the term")
	}
	lost := nodes[2]
	lost.down(t, lost.Crash)
	if err := os.RemoveAll(lost.dir); err != nil {
		t.Fatal(err)
	}
	lost.listen(t)
	if err := lost.open(peers); !errors.Is(err, coord.ErrWiped) || !strings.Contains(err.Error(), "milena ") {
		t.Fatalf("a member without its data: %v", err)
	}
	mustAppend(t, ctx, one, term, "k", "w")
	if err := one.Remove(ctx, lost.id); err != nil {
		t.Fatal(err)
	}
	if err := one.Remove(ctx, lost.id); !errors.Is(err, coord.ErrNoMember) {
		t.Errorf("removed twice: %v", err)
	}
	if err := one.Add(ctx, lost.id, lost.addr); err != nil {
		t.Fatal(err)
	}
	_ = lost.mux.Close()
	lost.listen(t)
	if err := lost.open(peers); err != nil {
		t.Fatal(err)
	}
	awaitVoters(t, ctx, one, 3)
	if got := value(t, ctx, lost, "k"); got != "w" {
		t.Errorf("the replaced member has %q", got)
	}
}

func awaitVoters(t testing.TB, ctx context.Context, q coord.Quorum, n int) {
	t.Helper()
	for ctx.Err() == nil {
		ms, err := q.Members(ctx)
		if err != nil {
			t.Fatal(err)
		}
		voters := 0
		for _, m := range ms {
			if !m.Learner && m.Err == "" {
				voters++
			}
		}
		if voters == n {
			return
		}
	}
	t.Fatalf("never %d members with a vote", n)
}

func TestRemovedMemberEndsAndSaysSo(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes := cluster(t, 3)
	l, _ := lead(t, ctx, nodes...)
	out := but(nodes, l)[0]
	if err := l.Remove(ctx, out.id); err != nil {
		t.Fatal(err)
	}
	select {
	case <-out.Done():
	case <-ctx.Done():
		t.Fatal("a removed member goes on")
	}
	if err := out.Err(); !errors.Is(err, coord.ErrClosed) || !strings.Contains(err.Error(), "removed") {
		t.Errorf("error: %v", err)
	}
	if _, _, err := out.Load(ctx); !errors.Is(err, coord.ErrClosed) {
		t.Errorf("load: %v", err)
	}
}

func TestAnAloneBrokerGetsAPeerAddressLater(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes, _ := prepare(t, 1)
	n := nodes[0]
	s := open(t, n.dir)
	term, err := s.Lead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, ctx, s, term, "k", "v")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.open(nil); err != nil {
		t.Fatal(err)
	}
	lead(t, ctx, n)
	for {
		ms, err := n.Members(ctx)
		if err != nil || ctx.Err() != nil {
			t.Fatal(ms, err, ctx.Err())
		}
		if ms[0].Peer == n.addr && ms[0].Node == n.id {
			break
		}
	}
	if got := value(t, ctx, n, "k"); got != "v" {
		t.Errorf("value %q", got)
	}
}

// A store that would begin anew although the data directories belong to a cluster is a cluster that has
// forgotten its topics.
func TestKnownClusterDoesNotBeginAnew(t *testing.T) {
	t.Parallel()
	_, err := coord.OpenEtcd(coord.EtcdOptions{Dir: t.TempDir(), FS: vfs.OS, Known: "abc"})
	if !errors.Is(err, coord.ErrWiped) || !strings.Contains(err.Error(), "abc") {
		t.Fatalf("open: %v", err)
	}
}

func TestMembersThatStartWithDifferentLists(t *testing.T) {
	t.Parallel()
	nodes, peers := prepare(t, 3)
	other := []coord.Peer{peers[0], peers[1], {Node: 4, Addr: "127.0.0.1:1"}}
	ctx, cancel := context.WithTimeout(bound(t), 20*time.Second)
	defer cancel()
	errs := make(chan error, 2)
	go func() { errs <- nodes[0].open(peers, func(o *coord.EtcdOptions) { o.Start = ctx }) }()
	go func() { errs <- nodes[1].open(other, func(o *coord.EtcdOptions) { o.Start = ctx }) }()
	if err := <-errs; err == nil || !strings.Contains(err.Error(), "same list") {
		t.Errorf("error: %v", err)
	}
	cancel()
	<-errs
}

// Whoever waits for brokers that are not there can be stopped, and has said for whom it waits.
func TestWaitForTheOthersEndsWithItsContext(t *testing.T) {
	t.Parallel()
	nodes, peers := prepare(t, 1)
	peers = append(peers, coord.Peer{Node: 2, Addr: "127.0.0.1:1"}, coord.Peer{Node: 3, Addr: "127.0.0.1:2"})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	err := nodes[0].open(peers, func(o *coord.EtcdOptions) { o.Start = ctx })
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2@127.0.0.1:1") {
		t.Fatalf("open: %v", err)
	}
}

func TestHealthyClusterLogsNoWarning(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	l := &lines{}
	nodes := cluster(t, 3, func(o *coord.EtcdOptions) { o.Log = slog.New(l) })
	n, term := lead(t, ctx, nodes...)
	mustAppend(t, ctx, n, term, "k", "v")
	l.mu.Lock() // what is said from here on is about members that stop, and they do
	got := append([]string(nil), l.got...)
	l.mu.Unlock()
	if len(got) == 0 {
		t.Error("nothing at all was logged")
	}
	for _, m := range got {
		if strings.HasPrefix(m, "ERROR") || strings.HasPrefix(m, "WARN") && !busy(m) {
			t.Error(m)
		}
	}
}

// The store of three fills with history and makes room everywhere; it fills with what is alive and says so,
// and then a controller can still take over, and what is deleted makes room again.
func TestAFullStoreOfThree(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes := cluster(t, 3, func(o *coord.EtcdOptions) { o.QuotaBytes, o.Tick = 12<<20, 0 })
	n, term := lead(t, ctx, nodes...)
	big := make([]byte, 1<<18)
	write := func(k string) error {
		for {
			_, err := n.Append(ctx, term, []meta.Change{{Key: k, Value: big}})
			if err == nil || errors.Is(err, coord.ErrFull) || ctx.Err() != nil {
				return err
			}
			n, term = lead(t, ctx, nodes...) // a machine that is busy may change leaders meanwhile
		}
	}
	for i := range 64 {
		if err := write("k"); err != nil {
			t.Fatalf("append %d: %v", i, err)
		}
	}
	var err error
	alive := 0
	for ; alive < 200 && err == nil; alive++ {
		err = write(fmt.Sprintf("k%d", alive))
	}
	if !errors.Is(err, coord.ErrFull) || errors.Is(err, coord.ErrUnknown) {
		t.Fatalf("a full store answers %v after %d", err, alive)
	}
	n.down(t, n.Crash)
	m, next := lead(t, ctx, but(nodes, n)...)
	if _, err := m.Append(ctx, next, []meta.Change{meta.Delete("k0"), meta.Delete("k1")}); err != nil {
		t.Errorf("delete in a full store: %v", err)
	}
	for i := 2; i < alive; i++ {
		if _, err := m.Append(ctx, next, []meta.Change{meta.Delete(fmt.Sprintf("k%d", i))}); err != nil {
			t.Fatalf("delete %d: %v", i, err)
		}
	}
	if _, err := m.Append(ctx, next, []meta.Change{{Key: "k", Value: big}}); err != nil {
		t.Errorf("append after a clean-up: %v", err)
	}
}

// With an election timeout of seconds, the death of a process is still answered in a fraction of one.
func TestAProcessThatIsGoneIsReplacedBeforeTheTimeout(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	const ticks, tick = 80, 40 * time.Millisecond
	nodes := cluster(t, 3, func(o *coord.EtcdOptions) { o.Tick, o.ElectionTicks = tick, ticks })
	old, term := lead(t, ctx, nodes...)
	began := time.Now()
	old.down(t, old.Crash)
	_, next := lead(t, ctx, but(nodes, old)...)
	if took := time.Since(began); took >= ticks*tick || next.Epoch != term.Epoch+1 {
		t.Errorf("term %d after %v; the election timeout is %v", next.Epoch, took, ticks*tick)
	}
}

// busy is a warning that a machine may cause which runs many tests at once.
func busy(m string) bool {
	for _, w := range []string{"too long", "became inactive", "TCP streaming connection", "unhealthy status"} {
		if strings.Contains(m, w) {
			return true
		}
	}
	return false
}

func TestFiveMembersLoseTwo(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes := cluster(t, 5, func(o *coord.EtcdOptions) { o.Tick = 0 })
	for range 2 {
		n, term := lead(t, ctx, but(nodes, nil)...)
		mustAppend(t, ctx, n, term, "k", "v")
		n.down(t, n.Crash)
	}
	n, term := lead(t, ctx, but(nodes, nil)...)
	mustAppend(t, ctx, n, term, "k", "w")
	for _, x := range but(nodes, nil) {
		if got := value(t, ctx, x, "k"); got != "w" {
			t.Errorf("member %d has %q", x.id, got)
		}
	}
}

// The lead of the engine may go and come back between two looks at it: the term in between was another one's.
func TestATermThatWasOvertakenEndsWhoeverLeadsNow(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes := cluster(t, 3)
	n, term := lead(t, ctx, nodes...)
	if at := term.Proven(); at.IsZero() {
		t.Error("a new term is not proven")
	}
	was := term.Proven()
	for !term.Proven().After(was) {
		if ctx.Err() != nil || term.Ended() {
			n, term = lead(t, ctx, nodes...)
			was = term.Proven()
		}
		mustLoad(t, ctx, n)
	}
	// What another controller writes, under the leader's feet.
	if err := n.Overtake(meta.PutController(meta.ControllerRecord{Epoch: term.Epoch + 1, Broker: 9})); err != nil {
		t.Fatal(err)
	}
	select {
	case <-term.Done():
	case <-ctx.Done():
		t.Fatal("an overtaken term goes on")
	}
}

func mustLoad(t testing.TB, ctx context.Context, s coord.Store) {
	t.Helper()
	if _, _, err := s.Load(ctx); err != nil {
		t.Fatal(err)
	}
}

// A broker that moves tells the others its new address by itself.
func TestAMemberMoves(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes, peers := prepare(t, 3)
	together(t, nodes, peers)
	l, term := lead(t, ctx, nodes...)
	moved := but(nodes, l)[0]
	moved.down(t, moved.Crash)
	mustAppend(t, ctx, l, term, "k", "v")
	moved.addr = ""
	moved.listen(t)
	if err := moved.open(peers); err != nil {
		t.Fatal(err)
	}
	for {
		ms, err := l.Members(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(ms, func(m coord.Member) bool { return m.Node == moved.id && m.Peer == moved.addr && m.Err == "" }) {
			break
		}
	}
	if got := value(t, ctx, moved, "k"); got != "v" {
		t.Errorf("value %q", got)
	}
}
