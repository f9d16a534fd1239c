package coord_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/coord/coordtest"
	"github.com/milena-mq/milena/internal/meta"
)

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
	nodes := cluster(t, 3, func(o *coord.EtcdOptions) { o.QuotaBytes, o.Tick = 9<<20, 0 })
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
	for i := range 40 {
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
	nodes[0].Stand() // or the first election takes as long
	const trials = 4 // a machine that is busy may split the votes, and then it takes the timeout after all
	for trial := range trials {
		old, term := lead(t, ctx, nodes...)
		began := time.Now()
		old.down(t, old.Crash)
		_, next := lead(t, ctx, but(nodes, old)...)
		took := time.Since(began)
		if next.Epoch != term.Epoch+1 {
			t.Errorf("term %d after %d", next.Epoch, term.Epoch)
		}
		if took < ticks*tick {
			return
		}
		t.Logf("trial %d: %v", trial, took)
		old.listen(t)
		if err := old.open(nil); err != nil {
			t.Fatal(err)
		}
	}
	t.Errorf("never in less than the election timeout of %v", ticks*tick)
}

// A member that cannot reach the leader while others can does not stand for election: they would depose each
// other for as long as the cable between them is cut.
func TestAPairThatIsCutKeepsItsLeader(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes, peers := prepare(t, 3)
	said := &lines{}
	together(t, nodes, peers, func(o *coord.EtcdOptions) {
		o.Tick, o.ElectionTicks = 0, 40 // whoever stands does so because of what it saw
		o.Local, o.Log = net.IPv4(127, 0, 0, byte(10+o.Identity.NodeID)), slog.New(said)
	})
	nodes[0].Stand()
	l, term := lead(t, ctx, nodes...)
	other := but(nodes, l)[0]
	for { // a member that has just started watches nobody yet
		if ctx.Err() != nil {
			t.Fatal("nobody watches the leader")
		}
		if seesLeader(other, l) && seesLeader(but(nodes, l)[1], l) {
			break
		}
	}
	said.mu.Lock()
	was := len(said.got)
	said.mu.Unlock()
	l.wire.Refuse(net.IPv4(127, 0, 0, byte(10+other.id)))
	other.wire.Refuse(net.IPv4(127, 0, 0, byte(10+l.id)))
	for i, w := 0, l.wire; w.Shut() < 20; i++ { // the other tries again and again meanwhile
		l, term = write(t, ctx, l, term, nodes, fmt.Sprint(i))
	}
	said.mu.Lock()
	defer said.mu.Unlock()
	for _, m := range said.got[was:] {
		if strings.Contains(m, "standing for election") {
			t.Error(m)
		}
	}
}

func seesLeader(n, l *node) bool {
	resp, err := http.Get("http://" + n.addr + "/milena/sees?id=" + l.MemberID())
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// A member that was cut off for so long that it gets the whole store instead of what it missed: its tail, open
// all the time, still sees every change once and in order.
func TestATailSurvivesASnapshot(t *testing.T) {
	t.Parallel()
	ctx := bound(t)
	nodes := cluster(t, 3, func(o *coord.EtcdOptions) { o.Tick = 0 })
	l, term := lead(t, ctx, nodes...)
	f := but(nodes, l)[0]
	tail, err := f.Tail(ctx, term.Token)
	if err != nil {
		t.Fatal(err)
	}
	first := mustAppend(t, ctx, l, term, "k", "before")
	if b := <-tail; b.Rev != first {
		t.Fatalf("tail: %+v", b)
	}
	f.Isolate()
	for _, n := range but(nodes, f) {
		n.CutFrom(f.Etcd)
	}
	const n = 700 // more than the log keeps for those who are behind
	for i := range n {
		mustAppend(t, ctx, l, term, fmt.Sprint("k", i%7), fmt.Sprint(i))
	}
	f.Rejoin()
	for _, n := range but(nodes, f) {
		n.MendTo(f.Etcd)
	}
	last := first
	for i := range n {
		select {
		case b, ok := <-tail:
			if !ok {
				t.Fatalf("the tail ended after %d changes", i)
			}
			if b.Rev <= last || len(b.Changes) != 1 || string(b.Changes[0].Value) != fmt.Sprint(i) {
				t.Fatalf("change %d shows as %+v after revision %d", i, b, last)
			}
			last = b.Rev
		case <-ctx.Done():
			t.Fatalf("the tail stands still after %d changes", i)
		}
	}
	if !f.HadSnapshot() {
		t.Error("the member caught up by its log: the test does not test what it should")
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
