package coord_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/vfs"
)

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
	lost := nodes[2]
	lost.down(t, lost.Crash)
	if err := os.RemoveAll(lost.dir); err != nil {
		t.Fatal(err)
	}
	lost.listen(t)
	if err := lost.open(peers); !errors.Is(err, coord.ErrWiped) || !strings.Contains(err.Error(), "milena ") {
		t.Fatalf("a member without its data: %v", err)
	}
	write(t, ctx, one, term, nodes, "w")
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
