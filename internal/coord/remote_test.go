package coord_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/coord/coordtest"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/peer"
)

func remote(t testing.TB, change func(*coord.RemoteOptions), endpoints ...string) *coord.Remote {
	t.Helper()
	o := coord.RemoteOptions{Endpoints: endpoints, Identity: coord.Identity{NodeID: 7}}
	if change != nil {
		change(&o)
	}
	s, err := coord.OpenRemote(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if j, ok := s.(*coord.Joiner); ok {
		return j.Remote
	}
	if _, ok := s.(coord.Quorum); ok {
		t.Error("the members of an external etcd pass for brokers")
	}
	return s.(*coord.Remote)
}

// quick is for a member that is alone and has nobody to be patient with.
func quick(o *coord.EtcdOptions) { o.Tick = 5 * time.Millisecond }

// joiner reads over gRPC what the member writes.
type joiner struct {
	coord.Store // the member
	r           *coord.Remote
}

func (s joiner) Load(ctx context.Context) (coord.Snapshot, coord.Revision, error) {
	return s.r.Load(ctx)
}
func (s joiner) Tail(ctx context.Context, from coord.Revision) (<-chan coord.Batch, error) {
	return s.r.Tail(ctx, from)
}
func (s joiner) Close() error { return errors.Join(s.r.Close(), s.Store.Close()) }

func TestContractOfAJoiner(t *testing.T) {
	t.Parallel()
	coordtest.Run(t, func(t *testing.T) coord.Store {
		n := cluster(t, 1, quick)[0]
		return joiner{n.Etcd, remote(t, nil, n.addr)}
	})
}

func TestContractOfAnExternalEtcd(t *testing.T) {
	t.Parallel()
	n := cluster(t, 1)[0]
	i := 0
	coordtest.Run(t, func(t *testing.T) coord.Store {
		i++ // a cluster of its own for each: they share the server
		return remote(t, func(o *coord.RemoteOptions) { o.Elect, o.Name = true, fmt.Sprint("c", i) }, n.addr)
	})
}

func TestAJoinerNeverLeads(t *testing.T) {
	t.Parallel()
	n := cluster(t, 1)[0]
	r := remote(t, nil, n.addr)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Lead(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("lead: %v", err)
	}
	if _, err := r.Append(bound(t), coord.NewTerm(1, 1), []meta.Change{{Key: "k", Value: []byte("v")}}); !errors.Is(err, coord.ErrFenced) {
		t.Errorf("append: %v", err)
	}
}

// The joiner knows one address; the others it learns, and when its member goes it follows another one from
// where it was.
func TestAJoinerChangesItsMember(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes := cluster(t, 3)
	l, term := lead(t, ctx, nodes...)
	seed := but(nodes, l)[0]
	r := remote(t, nil, seed.addr)
	for len(r.Endpoints()) != 3 {
		if mustLoad(t, ctx, r); ctx.Err() != nil {
			t.Fatalf("endpoints: %v", r.Endpoints())
		}
	}
	tail, err := r.Tail(ctx, term.Token)
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for i := range 40 {
		if i == 20 {
			seed.down(t, seed.Crash)
		}
		l, term = write(t, ctx, l, term, nodes, fmt.Sprint(i))
		want = append(want, fmt.Sprint(i))
	}
	began := time.Now()
	for len(got) < len(want) {
		select {
		case b, ok := <-tail:
			if !ok {
				t.Fatal("the tail ended")
			}
			for _, c := range b.Changes {
				if v := string(c.Value); c.Key == "k" && (len(got) == 0 || got[len(got)-1] != v) {
					got = append(got, v) // one that was written twice, because its answer did not come, counts once
				}
			}
		case <-ctx.Done():
			t.Fatalf("the tail stands still at %v", got)
		}
	}
	t.Logf("another member after %v at most", time.Since(began))
	if !slices.Equal(got, want) {
		t.Errorf("tail: %v", got)
	}
	ms, err := (&coord.Joiner{Remote: r}).Members(ctx)
	if err != nil || len(ms) != 3 {
		t.Fatalf("members: %+v, %v", ms, err)
	}
	for _, m := range ms {
		if (m.Err == "") == (m.Node == seed.id) {
			t.Errorf("member %+v; %d is down", m, seed.id)
		}
		if m.Leader != (m.Node == l.id) {
			t.Errorf("member %+v; %d leads", m, l.id)
		}
	}
}

// A member without its majority goes on answering the network, and knows nothing new: the joiner leaves it.
func TestAJoinerLeavesAMemberThatIsCutOff(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes := cluster(t, 3)
	l, term := lead(t, ctx, nodes...)
	seed := but(nodes, l)[0]
	r := remote(t, nil, seed.addr)
	tail, err := r.Tail(ctx, term.Token)
	if err != nil {
		t.Fatal(err)
	}
	seed.Isolate()
	for _, n := range but(nodes, seed) {
		n.CutFrom(seed.Etcd)
	}
	began := time.Now()
	rev := mustAppend(t, ctx, l, term, "k", "v")
	select {
	case b := <-tail:
		if b.Rev != rev {
			t.Errorf("tail: %+v", b)
		}
		t.Logf("seen after %v", time.Since(began))
	case <-ctx.Done():
		t.Fatal("the joiner stays with a member that hears nothing")
	}
	if got := value(t, ctx, r, "k"); got != "v" {
		t.Errorf("load: %q", got)
	}
}

func TestAJoinerWaitsForAMajority(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes := cluster(t, 3)
	l, term := lead(t, ctx, nodes...)
	r := remote(t, nil, nodes[0].addr)
	tail, err := r.Tail(ctx, term.Token)
	if err != nil {
		t.Fatal(err)
	}
	rest := but(nodes, l)
	for _, n := range rest {
		n.down(t, n.Crash)
	}
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if _, _, err := r.Load(short); err == nil {
		t.Error("load without a majority")
	}
	for _, n := range rest {
		n.listen(t)
		if err := n.open(nil); err != nil {
			t.Fatal(err)
		}
	}
	n, next := lead(t, ctx, nodes...)
	mustAppend(t, ctx, n, next, "k", "v")
	for {
		select {
		case b, ok := <-tail:
			if !ok {
				t.Fatal("the tail ended for want of a majority")
			}
			if b.Changes[0].Key == "k" {
				return
			}
		case <-ctx.Done():
			t.Fatal("the tail does not go on")
		}
	}
}

func TestAJoinersTailOfCompactedHistoryEnds(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	n := cluster(t, 1)[0]
	_, term := lead(t, ctx, n)
	for i := range 10 {
		mustAppend(t, ctx, n, term, "k", fmt.Sprint(i))
	}
	if err := n.Compact(); err != nil {
		t.Fatal(err)
	}
	tail, err := remote(t, nil, n.addr).Tail(ctx, term.Token)
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

func TestNobodyAtTheAddress(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	began := time.Now()
	_, err = coord.OpenRemote(coord.RemoteOptions{Endpoints: []string{addr}, Open: 1200 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "\n") {
		t.Errorf("open: %v", err)
	}
	t.Log(err)
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}

func elector(name string, node int32) func(*coord.RemoteOptions) {
	return func(o *coord.RemoteOptions) {
		o.Elect, o.Name, o.Identity = true, name, coord.Identity{NodeID: node}
	}
}

// Of two brokers at an external etcd one leads; when it closes the other does at once, when it vanishes the
// other does when the lease has run out, and the first is fenced.
func TestExternalElection(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	n := cluster(t, 1)[0]
	a := remote(t, elector("x", 1), n.addr)
	b := remote(t, elector("x", 2), n.addr)
	other := remote(t, elector("y", 3), n.addr)
	ta, err := a.Lead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, ctx, a, ta, "k", "a")
	for was := ta.Proven(); !ta.Proven().After(was); mustLoad(t, ctx, a) { // the watchdog asks again and again
		if ta.Ended() || ctx.Err() != nil {
			t.Fatal("the term ended, or is never proven again")
		}
	}
	if _, err := other.Lead(ctx); err != nil { // another cluster's affair
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	if _, err := b.Lead(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("two lead: %v", err)
	}
	cancel()
	if ta.Ended() {
		t.Fatal("a candidate ended the term")
	}
	began := time.Now()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if !ta.Ended() {
		t.Error("a term outlives its store")
	}
	tb, err := b.Lead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("close to new term: %v", time.Since(began))
	if tb.Epoch != ta.Epoch+1 {
		t.Errorf("term %d after %d", tb.Epoch, ta.Epoch)
	}
	c := remote(t, elector("x", 1), n.addr)
	began = time.Now()
	b.Vanish()
	tc, err := c.Lead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("vanished to new term: %v", time.Since(began))
	mustAppend(t, ctx, c, tc, "k", "c")
	if _, err := b.Append(ctx, tb, []meta.Change{{Key: "k", Value: []byte("stale")}}); !errors.Is(err, coord.ErrFenced) {
		t.Errorf("append of the one that vanished: %v", err)
	}
	if got := value(t, ctx, c, "k"); got != "c" {
		t.Errorf("value %q", got)
	}
}

func TestExternalEtcdGoneEndsTheTerm(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	n := cluster(t, 1)[0]
	r := remote(t, elector("", 1), n.addr)
	term, err := r.Lead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	n.down(t, n.Crash)
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := r.Append(short, term, []meta.Change{{Key: "k", Value: []byte("v")}}); !errors.Is(err, coord.ErrUnknown) {
		t.Errorf("append: %v", err)
	}
	select {
	case <-term.Done():
	case <-ctx.Done():
		t.Fatal("the term outlives the store")
	}
}

// An etcd as it comes takes 128 operations and 1.5 MiB at once: too little for a topic of 1000 partitions.
func TestExternalEtcdWithLowLimitsIsRefused(t *testing.T) {
	t.Parallel()
	n := &node{id: 1, dir: t.TempDir()}
	n.listen(t)
	defer n.mux.Close()
	if err := n.open(nil, coord.LowLimits(128, 4<<20)); err != nil {
		t.Fatal(err)
	}
	_, err := coord.OpenRemote(coord.RemoteOptions{Endpoints: []string{n.addr}, Elect: true})
	if err == nil || !strings.Contains(err.Error(), "--max-txn-ops=") {
		t.Errorf("128 operations: %v", err)
	}
	n.down(t, n.Close)
	n.listen(t)
	if err := n.open(nil, coord.LowLimits(2000, 3<<19)); err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	_, err = coord.OpenRemote(coord.RemoteOptions{Endpoints: []string{n.addr}, Elect: true})
	if err == nil || !strings.Contains(err.Error(), "--max-request-bytes=") || strings.Contains(err.Error(), "\n") {
		t.Errorf("1.5 MiB: %v", err)
	}
}

// An external etcd that is full of history is cleaned up by whoever writes; one that is full says so.
func TestAFullExternalEtcd(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	n := cluster(t, 1, func(o *coord.EtcdOptions) { o.QuotaBytes = 9 << 20 })[0]
	r := remote(t, elector("", 1), n.addr)
	term, err := r.Lead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 1<<18)
	for i := range 80 { // twice the quota and more
		if _, err := r.Append(ctx, term, []meta.Change{{Key: "k", Value: big}}); err != nil {
			t.Fatalf("append %d: %v", i, err)
		}
	}
	for i := 0; err == nil && i < 1000; i++ { // etcd counts what is written every 100 ms only
		_, err = r.Append(ctx, term, []meta.Change{{Key: fmt.Sprint("k", i), Value: big}})
	}
	if !errors.Is(err, coord.ErrFull) {
		t.Fatalf("a full store answers %v", err)
	}
	if snap, _, err := r.Load(ctx); err != nil || len(snap.Changes) < 10 {
		t.Errorf("a full store cannot be read: %d keys, %v", len(snap.Changes), err)
	}
}

// A controller whose process is gone is replaced before its lease has run out; one that lives is let be.
func TestExternalControllerWhoseProcessIsGone(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	const timeout = 2 * time.Second // of elections at the store: a lease lasts one and a half of it
	n := cluster(t, 1, func(o *coord.EtcdOptions) { o.Tick, o.ElectionTicks = timeout/40, 40 })[0]
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := peer.Mux(l)
	a := remote(t, func(o *coord.RemoteOptions) { elector("", 1)(o); o.Identity.Peer = port.Addr().String() }, n.addr)
	b := remote(t, elector("", 2), n.addr)
	ta, err := a.Lead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := b.Lead(short); !errors.Is(err, context.DeadlineExceeded) || ta.Ended() {
		t.Errorf("a controller that lives was replaced: %v", err)
	}
	a.Vanish()
	_ = port.Close()
	began := time.Now()
	tb, err := b.Lead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took >= timeout || tb.Epoch != ta.Epoch+1 {
		t.Errorf("term %d after %v", tb.Epoch, took)
	}
}
