package zookeeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/coord/coordtest"
	"github.com/milena-mq/milena/internal/meta"
)

func TestContract(t *testing.T) {
	coordtest.Run(t, func(t *testing.T) coord.Store {
		s, _ := newEnsemble().open(t, 1)
		return s
	})
}

// TestContractWithSmallPieces is the contract where nearly every append is cut into pieces and nearly every one
// brings a snapshot.
func TestContractWithSmallPieces(t *testing.T) {
	coordtest.Run(t, func(t *testing.T) coord.Store {
		s, _ := newEnsemble().open(t, 1, tuned(limits{entries: 100, bytes: 1 << 30, inline: 8, piece: 200 << 10, look: time.Second}))
		return s
	})
}

func tuned(l limits) func(*Options) { return func(o *Options) { o.tune = l } }

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func put(k, v string) meta.Change { return meta.Change{Key: k, Value: []byte(v)} }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func lead(t *testing.T, ctx context.Context, s *Store) *coord.Term {
	t.Helper()
	term, err := s.Lead(ctx)
	must(t, err)
	return term
}

func app(t *testing.T, ctx context.Context, s *Store, term *coord.Term, cs ...meta.Change) coord.Revision {
	t.Helper()
	r, err := s.Append(ctx, term, cs)
	must(t, err)
	return r
}

func loaded(t *testing.T, ctx context.Context, s *Store) (map[string]string, coord.Revision) {
	t.Helper()
	snap, rev, err := s.Load(ctx)
	must(t, err)
	out := map[string]string{}
	for _, c := range snap.Changes {
		out[c.Key] = string(c.Value)
	}
	return out, rev
}

func over(t *testing.T, ctx context.Context, term *coord.Term) {
	t.Helper()
	select {
	case <-term.Done():
	case <-ctx.Done():
		t.Fatal("the term did not end")
	}
}

// idle waits until no snapshot and no sweep is under way.
func idle(t *testing.T, ctx context.Context, s *Store) {
	t.Helper()
	for ctx.Err() == nil {
		s.mu.Lock()
		busy := s.mu.busy
		s.mu.Unlock()
		if !busy {
			return
		}
		lookAgain(time.Millisecond)
	}
	t.Fatal("the snapshot does not end")
}

// A controller says up to when it was certainly the only one; one that was replaced learns it without a write.
func TestTermsAreProven(t *testing.T) {
	ctx, e := bounded(t), newEnsemble()
	s, _ := e.open(t, 1)
	before := time.Now()
	term := lead(t, ctx, s)
	for !term.Proven().After(before) {
		if ctx.Err() != nil {
			t.Fatal("never proven")
		}
		lookAgain(time.Millisecond)
	}
	e.mu.Lock()
	e.nodes["/a/b/ctl"].version++ // another controller; the watch does not fire
	e.mu.Unlock()
	over(t, ctx, term)
}

// A broker that takes the lead while the other one's session is alive would take turns with it for ever.
func TestOneCandidateAfterTheOther(t *testing.T) {
	ctx, e := bounded(t), newEnsemble()
	a, ac := e.open(t, 1)
	b, _ := e.open(t, 2)
	one := lead(t, ctx, a)
	app(t, ctx, a, one, put("k", "1"))
	got := make(chan *coord.Term, 1)
	go func() {
		term, err := b.Lead(ctx)
		if err != nil {
			t.Error(err)
		}
		got <- term
	}()
	for len(e.below(nodeElect)) < 2 {
		lookAgain(time.Millisecond)
	}
	select {
	case <-got:
		t.Fatal("two lead")
	default:
	}
	ac.expire()
	over(t, ctx, one)
	two := <-got
	if two.Epoch != one.Epoch+1 || two.Token <= one.Token {
		t.Fatalf("terms %+v, %+v", one, two)
	}
	if _, err := a.Append(ctx, one, []meta.Change{put("k", "late")}); !errors.Is(err, coord.ErrFenced) {
		t.Fatalf("append of the first: %v", err)
	}
	app(t, ctx, b, two, put("l", "2"))
	if m, _ := loaded(t, ctx, a); m["k"] != "1" || m["l"] != "2" {
		t.Fatalf("loaded %v", m)
	}
	// The second gives up: the first, waiting in line again, follows.
	go two.End()
	three := lead(t, ctx, a)
	if three.Epoch != 3 {
		t.Fatalf("third term %+v", three)
	}
}

// A controller that was killed is replaced long before its session ends; one that only does not answer is not.
func TestKilledControllerIsNotWaitedFor(t *testing.T) {
	ctx, e := bounded(t), newEnsemble()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	a, _ := e.open(t, 1, func(o *Options) { o.Identity.Peer = l.Addr().String() })
	one := lead(t, ctx, a)
	b, _ := e.open(t, 2)
	short, cancel := context.WithTimeout(ctx, 5*knockEvery)
	defer cancel()
	if _, err := b.Lead(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("two lead: %v", err)
	}
	l.Close() // the session goes on
	two := lead(t, ctx, b)
	over(t, ctx, one)
	if two.Epoch != 2 {
		t.Fatalf("second term %+v", two)
	}
	// Killed and back at once: its address answers, but for another process. Neither that one nor a third waits for
	// the session of the first.
	l2, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l2.Close()
	at := func(o *Options) { o.Identity.Peer = l2.Addr().String() }
	for range 2 {
		two.End()
		old, _ := e.open(t, 3, at)
		three := lead(t, ctx, old)
		again, _ := e.open(t, 3, at)
		if four := lead(t, ctx, again); four.Epoch != three.Epoch+1 {
			t.Fatalf("after %+v: %+v", three, four)
		} else {
			two = four
		}
	}
}

// The write of a controller that does not know yet that it was replaced must not be done, although its
// connection works: the fence is the version of a node, not the session.
func TestFenceIsNotTheSession(t *testing.T) {
	ctx, e := bounded(t), newEnsemble()
	a, ac := e.open(t, 1)
	b, _ := e.open(t, 2)
	one := lead(t, ctx, a)
	held := make(chan struct{})
	ac.fault = func(ops []any) (bool, error) {
		if _, ok := ops[0].(*zk.CheckVersionRequest); ok && len(ops) == 3 {
			<-held // the multi of an append is under way all the time that follows
		}
		return true, nil
	}
	done := make(chan error, 1)
	go func() {
		_, err := a.Append(ctx, one, []meta.Change{put("k", "late")})
		done <- err
	}()
	e.mu.Lock()
	e.endLocked(ac) // its candidacy is gone, and it was not told
	e.mu.Unlock()
	two := lead(t, ctx, b)
	app(t, ctx, b, two, put("k", "2"))
	close(held)
	if err := <-done; !errors.Is(err, coord.ErrFenced) {
		t.Fatalf("late append: %v", err)
	}
	over(t, ctx, one)
	if m, _ := loaded(t, ctx, b); m["k"] != "2" {
		t.Fatalf("loaded %v", m)
	}
}

// An answer that is lost leaves the outcome open, whether or not the write was done; nothing is written
// twice, and what is written next lies on top of what is really there.
func TestLostAnswers(t *testing.T) {
	for _, apply := range []bool{false, true} {
		ctx, e := bounded(t), newEnsemble()
		s, c := e.open(t, 1)
		term := lead(t, ctx, s)
		idle(t, ctx, s)
		n := 0
		c.fault = func([]any) (bool, error) {
			if n++; n == 1 {
				return apply, zk.ErrConnectionClosed
			}
			return true, nil
		}
		if _, err := s.Append(ctx, term, []meta.Change{put("k", "1")}); !errors.Is(err, coord.ErrUnknown) {
			t.Fatalf("apply %v: %v", apply, err)
		}
		if n != 1 {
			t.Fatalf("apply %v: sent %d times", apply, n)
		}
		m, rev := loaded(t, ctx, s)
		if _, ok := m["k"]; ok != apply {
			t.Fatalf("apply %v: loaded %v", apply, m)
		}
		if r := app(t, ctx, s, term, put("l", "2")); r != rev+1 {
			t.Fatalf("apply %v: revision %d after %d", apply, r, rev)
		}
		m, _ = loaded(t, ctx, s)
		if m["l"] != "2" || (m["k"] == "1") != apply {
			t.Fatalf("apply %v: loaded %v", apply, m)
		}
	}
}

// A write whose answer was lost may reach the ensemble after the next one was planned. Both must not be
// done: the second was made by somebody who did not see the first.
func TestLateWriteEndsTheTerm(t *testing.T) {
	ctx, e := bounded(t), newEnsemble()
	s, c := e.open(t, 1)
	term := lead(t, ctx, s)
	idle(t, ctx, s)
	var late []any
	c.fault = func(ops []any) (bool, error) {
		if late == nil {
			late = ops
			return false, zk.ErrConnectionClosed
		}
		c.fault = nil
		if _, err := c.Multi(late...); err != nil {
			t.Errorf("the late write: %v", err)
		}
		return true, nil
	}
	if _, err := s.Append(ctx, term, []meta.Change{put("k", "1")}); !errors.Is(err, coord.ErrUnknown) {
		t.Fatal(err)
	}
	if _, err := s.Append(ctx, term, []meta.Change{put("k", "2")}); !errors.Is(err, coord.ErrFenced) {
		t.Fatalf("the write after it: %v", err)
	}
	over(t, ctx, term)
	if m, rev := loaded(t, ctx, s); m["k"] != "1" || rev != 2 {
		t.Fatalf("loaded %v at %d", m, rev)
	}
	lead(t, ctx, s)
}

// A context that ends is no answer.
func TestDeadlineIsUnknown(t *testing.T) {
	ctx, e := bounded(t), newEnsemble()
	s, c := e.open(t, 1)
	term := lead(t, ctx, s)
	idle(t, ctx, s)
	held, asked := make(chan struct{}), make(chan struct{})
	c.fault = func([]any) (bool, error) {
		close(asked)
		<-held
		return true, nil
	}
	short, cancel := context.WithCancel(ctx)
	go func() {
		<-asked
		cancel()
	}()
	if _, err := s.Append(short, term, []meta.Change{put("k", "1")}); !errors.Is(err, coord.ErrUnknown) || !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	close(held)
	if _, err := s.Append(short, term, []meta.Change{put("k", "1")}); err == nil || errors.Is(err, coord.ErrUnknown) {
		t.Fatalf("an append that was never sent: %v", err)
	}
}

// A short loss of the connection keeps the term; one as long as a session ends it, although nobody says so.
func TestConnectionLoss(t *testing.T) {
	ctx, e := bounded(t), newEnsemble()
	s, c := e.open(t, 1, func(o *Options) { o.Session = 150 * time.Millisecond })
	term := lead(t, ctx, s)
	idle(t, ctx, s)
	c.cut()
	c.mend()
	app(t, ctx, s, term, put("k", "1"))
	if term.Ended() {
		t.Fatal("the term ended with a short loss")
	}
	c.cut()
	over(t, ctx, term)
	c.mend()
	if two := lead(t, ctx, s); two.Epoch != 2 {
		t.Fatalf("after the loss: %+v", two)
	}
	if n := e.below(nodeElect); len(n) != 1 {
		t.Fatalf("candidates %v", n)
	}
}

// A candidacy whose making had no answer must not stand in the line for ever.
func TestUnknownCandidacyIsFound(t *testing.T) {
	ctx, e := bounded(t), newEnsemble()
	s, c := e.open(t, 1)
	lost := &lossy{fakeClient: c}
	s.cli = lost
	one := lead(t, ctx, s)
	if lost.n != 1 {
		t.Fatalf("made %d times", lost.n)
	}
	if n := e.below(nodeElect); len(n) != 1 {
		t.Fatalf("candidates %v", n)
	}
	one.End()
	if two := lead(t, ctx, s); two.Epoch <= one.Epoch {
		t.Fatalf("second term %+v", two)
	}
}

// lossy loses the first answer about a candidacy.
type lossy struct {
	*fakeClient
	n int
}

func (l *lossy) Create(path string, data []byte, flags int32, acl []zk.ACL) (string, error) {
	p, err := l.fakeClient.Create(path, data, flags, acl)
	if flags != 0 {
		if l.n++; l.n == 1 {
			return "", zk.ErrConnectionClosed
		}
	}
	return p, err
}

// The history in memory of an ensemble must not grow for ever, and whoever reads it while it is cut must
// see every change or be told to load again.
func TestCompaction(t *testing.T) {
	ctx, e := bounded(t), newEnsemble()
	small := tuned(limits{entries: 20, bytes: 1 << 30, inline: 60, piece: 50, look: 50 * time.Millisecond})
	s, _ := e.open(t, 1, small)
	b, _ := e.open(t, 2, small)
	live, err := b.Tail(ctx, 0)
	must(t, err)
	term := lead(t, ctx, s)
	want := map[string]string{}
	for i := range 200 {
		k, v := fmt.Sprintf("k%d", i%17), strings.Repeat("v", i%90)+fmt.Sprint(i)
		r := app(t, ctx, s, term, put(k, v), meta.Delete(fmt.Sprintf("k%d", (i+5)%17)))
		want[k] = v
		delete(want, fmt.Sprintf("k%d", (i+5)%17))
		for { // the live tail sees all of it
			batch := <-live
			if batch.Rev == r {
				if string(batch.Changes[0].Value) != v {
					t.Fatalf("batch %d: %+v", i, batch)
				}
				break
			}
			if batch.Rev > r || batch.Rev == 0 {
				t.Fatalf("after %d came %+v", r, batch)
			}
		}
		if i%25 == 0 {
			if m, rev := loaded(t, ctx, b); rev != r || m[k] != v {
				t.Fatalf("loaded at %d: %v", rev, m)
			}
		}
	}
	idle(t, ctx, s)
	m, rev := loaded(t, ctx, b)
	delete(m, meta.KeyController)
	if rev != 201 || fmt.Sprint(m) != fmt.Sprint(want) {
		t.Fatalf("loaded at %d: %v, want %v", rev, m, want)
	}
	if n := len(e.below(nodeLog)); n > 120 {
		t.Errorf("%d entries are left", n)
	}
	if e.below(nodeLog)[0] == entryName(1) {
		t.Error("nothing was removed")
	}
	old, err := b.Tail(ctx, 0)
	must(t, err)
	if batch, ok := <-old; ok {
		t.Fatalf("a tail from before the snapshots gave %+v", batch)
	}
	h, err := b.readHead(ctx)
	must(t, err)
	late, err := b.Tail(ctx, h.First)
	must(t, err)
	for r := h.First + 1; r <= h.Rev; r++ {
		if batch := <-late; batch.Rev != r {
			t.Fatalf("tail from %d: %+v, want %d", h.First, batch, r)
		}
	}
}

// Every multi of a few appends with snapshots gets lost once, before or after it was done; a new term cleans
// up. What is there at the end is what the answers said, and nothing lies about.
func TestFaultSweep(t *testing.T) {
	for n := 1; ; n++ {
		for _, apply := range []bool{false, true} {
			if sweepOnce(t, n, apply) {
				return
			}
		}
	}
}

// sweepOnce loses the n-th multi; done: there were fewer.
func sweepOnce(t *testing.T, n int, apply bool) (done bool) {
	ctx, e := bounded(t), newEnsemble()
	small := tuned(limits{entries: 4, bytes: 1 << 30, inline: 60, piece: 50, look: 50 * time.Millisecond})
	s, c := e.open(t, 1, small)
	var seen atomic.Int64
	c.fault = func([]any) (bool, error) {
		if seen.Add(1) == int64(n) {
			return apply, zk.ErrConnectionClosed
		}
		return true, nil
	}
	var term *coord.Term
	said := map[string]string{} // what an answer confirmed
	open := map[string]bool{}   // what had none
	for i := range 10 {
		if term == nil || term.Ended() {
			term = lead(t, ctx, s)
			idle(t, ctx, s)
		}
		k, v := fmt.Sprintf("k%d", i), strings.Repeat("v", 20*(i%6))
		_, err := s.Append(ctx, term, []meta.Change{put(k, v)})
		idle(t, ctx, s)
		switch {
		case err == nil:
			said[k] = v
		case errors.Is(err, coord.ErrUnknown):
			open[k] = true
			term.End()
		}
	}
	done = seen.Swap(1<<40) < int64(n)
	term = lead(t, ctx, s)
	idle(t, ctx, s)
	s.mu.Lock()
	s.mu.rest = time.Time{} // the snapshot that was lost is not waited for
	s.mu.Unlock()
	for i := range 5 {
		app(t, ctx, s, term, put("end", fmt.Sprint(i)))
		idle(t, ctx, s)
	}
	m, _ := loaded(t, ctx, s)
	for k, v := range said {
		if m[k] != v {
			t.Fatalf("multi %d, apply %v: %s is %q, want %q", n, apply, k, m[k], v)
		}
	}
	for k := range m {
		if _, ok := said[k]; !ok && !open[k] && k != "end" && k != meta.KeyController {
			t.Fatalf("multi %d, apply %v: %s was refused and is there", n, apply, k)
		}
	}
	h, err := s.readHead(ctx)
	must(t, err)
	pieces := e.below(nodePieces)
	needed, err := s.needed(ctx, h, pieces)
	must(t, err)
	for _, p := range pieces {
		if id, _, _, ok := parsePiece(p); !ok || !needed[id] {
			t.Fatalf("multi %d, apply %v: piece %s is left, head %s", n, apply, p, h.encode())
		}
	}
	return done
}

// The codec's input is whatever somebody has written into the ensemble.
func FuzzDecode(f *testing.F) {
	f.Add(head{Rev: 7, First: 2, Snap: &snapRef{Rev: 3, ref: ref{ID: "x", N: 1, Bytes: 5}}}.encode())
	f.Add(encodeInline(encodeChanges([]meta.Change{put("a", "b"), meta.Delete("c")}, false)))
	f.Add(encodeDistant(ref{ID: "x", N: 2, Bytes: 9}))
	f.Add(encodeChanges([]meta.Change{{Key: "a", Value: []byte{}, Rev: 3}}, true))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeHead(b, 0); err == nil && (h.First > h.Rev || h.First < 0) {
			t.Errorf("head %+v", h)
		}
		if p, r, err := decodeEntry(b); err == nil && p == nil && r == nil {
			t.Error("an entry of nothing")
		}
		for _, revs := range []bool{false, true} {
			cs, err := decodeChanges(b, revs, 1)
			if err != nil {
				continue
			}
			again, err := decodeChanges(encodeChanges(cs, revs), revs, 1)
			if err != nil || len(again) != len(cs) {
				t.Fatalf("%v: %v, then %v, %v", revs, cs, again, err)
			}
			for i := range cs {
				if cs[i].Key != again[i].Key || !bytes.Equal(cs[i].Value, again[i].Value) || (cs[i].Value == nil) != (again[i].Value == nil) || cs[i].Rev != again[i].Rev {
					t.Fatalf("%+v, then %+v", cs[i], again[i])
				}
			}
		}
	})
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	e := newEnsemble()
	_, _ = e.open(t, 1)
	e.nodes["/a/b/head"].data = []byte(`{"format":2,"rev":1}`)
	dial := func(s *Store) (client, error) {
		s.saw(zk.StateHasSession)
		return &fakeClient{e: e, s: s, id: 99}, nil
	}
	if _, err := Open(Options{Servers: []string{"h:1"}, Path: "a/b/", dial: dial}); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("another format: %v", err)
	}
	down := func(s *Store) (client, error) { return &fakeClient{e: e, s: s, down: true}, nil }
	_, err := Open(Options{Servers: []string{"h:1", "i:2"}, Path: "/x", Patience: time.Millisecond, dial: down})
	if want := "open coordination store zookeeper://h:1,i:2/x: no server answered within 1ms"; err == nil || err.Error() != want {
		t.Errorf("nobody there: %v", err)
	}
	if _, err := Open(Options{}); err == nil {
		t.Error("no servers: opened")
	}
}

// lookAgain is the rest between two looks at something that nobody announces, always within a bound that the caller keeps.
func lookAgain(d time.Duration) { <-time.After(d) }
