// Package coordtest owns the contract of coord.Store as tests: every engine runs the same suite.
//
// It never knows which engine it tests.
//
// Tests run it, on their own goroutine.
//
// Invariants: those of package coord.
//
// Read Run.
package coordtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/meta"
)

// patience bounds each wait; nothing here waits when the engine keeps its promises.
const patience = 20 * time.Second

func put(k, v string) meta.Change { return meta.Change{Key: k, Value: []byte(v)} }

// Run holds an engine to the contract. open gives a store with an empty history.
func Run(t *testing.T, open func(t *testing.T) coord.Store) {
	for _, c := range []struct {
		name string
		fn   func(*testing.T, context.Context, coord.Store)
	}{
		{"an empty history loads as empty", empty},
		{"a tail sees each append whole and in order", order},
		{"a tail can begin anywhere in the past", past},
		{"load shows the newest values with their revisions", load},
		{"a newer term fences the older one", fence},
		{"a refused append changes nothing", refuse},
		{"an append past the limits is refused", large},
		{"a tail ends with its context", cancelled},
		{"close ends tails and terms", closes},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			c.fn(t, ctx, s)
		})
	}
}

func lead(t *testing.T, ctx context.Context, s coord.Store) *coord.Term {
	t.Helper()
	term, err := s.Lead(ctx)
	if err != nil {
		t.Fatalf("lead: %v", err)
	}
	return term
}

func app(t *testing.T, ctx context.Context, s coord.Store, term *coord.Term, cs ...meta.Change) coord.Revision {
	t.Helper()
	r, err := s.Append(ctx, term, cs)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return r
}

func next(t *testing.T, ctx context.Context, ch <-chan coord.Batch) coord.Batch {
	t.Helper()
	select {
	case b, ok := <-ch:
		if !ok {
			t.Fatal("tail ended")
		}
		return b
	case <-ctx.Done():
		t.Fatal("tail gave nothing")
	}
	return coord.Batch{}
}

func ended(t *testing.T, ctx context.Context, ch <-chan coord.Batch) {
	t.Helper()
	for {
		select {
		case _, ok := <-ch:
			if !ok {
				return
			}
		case <-ctx.Done():
			t.Fatal("tail did not end")
		}
	}
}

func empty(t *testing.T, ctx context.Context, s coord.Store) {
	snap, _, err := s.Load(ctx)
	if err != nil || len(snap.Changes) != 0 {
		t.Fatalf("load: %d keys, %v", len(snap.Changes), err)
	}
}

func order(t *testing.T, ctx context.Context, s coord.Store) {
	_, rev, err := s.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ch, err := s.Tail(ctx, rev)
	if err != nil {
		t.Fatal(err)
	}
	term := lead(t, ctx, s)
	b := next(t, ctx, ch)
	if b.Rev != term.Token || len(b.Changes) != 1 || b.Changes[0].Key != meta.KeyController {
		t.Fatalf("taking the lead shows as %+v, token %d", b, term.Token)
	}
	r, err := meta.DecodeController(b.Changes[0].Value)
	if err != nil || r.Epoch != term.Epoch {
		t.Fatalf("controller record %+v, %v; term %d", r, err, term.Epoch)
	}
	last := b.Rev
	for i := range 20 {
		cs := []meta.Change{put("a", fmt.Sprint(i)), put(fmt.Sprintf("k%d", i), "v")}
		if i > 0 {
			cs = append(cs, meta.Delete(fmt.Sprintf("k%d", i-1)))
		}
		rev := app(t, ctx, s, term, cs...)
		b := next(t, ctx, ch)
		if b.Rev != rev || rev <= last || len(b.Changes) != len(cs) {
			t.Fatalf("append %d at %d shows as %+v after %d", i, rev, b, last)
		}
		last = rev
		got := map[string]meta.Change{}
		for _, c := range b.Changes {
			if c.Rev != int64(rev) {
				t.Errorf("change of %q has revision %d, want %d", c.Key, c.Rev, rev)
			}
			got[c.Key] = c
		}
		for _, c := range cs {
			g, ok := got[c.Key]
			if !ok || (g.Value == nil) != (c.Value == nil) || string(g.Value) != string(c.Value) {
				t.Errorf("change %+v shows as %+v", c, g)
			}
		}
	}
}

func past(t *testing.T, ctx context.Context, s coord.Store) {
	term := lead(t, ctx, s)
	var revs []coord.Revision
	for i := range 10 {
		revs = append(revs, app(t, ctx, s, term, put("k", fmt.Sprint(i))))
	}
	ch, err := s.Tail(ctx, revs[4])
	if err != nil {
		t.Fatal(err)
	}
	for i := 5; i < 10; i++ {
		if b := next(t, ctx, ch); b.Rev != revs[i] || string(b.Changes[0].Value) != fmt.Sprint(i) {
			t.Fatalf("batch %d: %+v", i, b)
		}
	}
}

func load(t *testing.T, ctx context.Context, s coord.Store) {
	term := lead(t, ctx, s)
	r1 := app(t, ctx, s, term, put("x", "1"), put("y", "1"), put("z", "1"))
	r2 := app(t, ctx, s, term, put("y", "2"), meta.Delete("z"))
	snap, rev, err := s.Load(ctx)
	if err != nil || rev != r2 {
		t.Fatalf("load at %d: %v; want %d", rev, err, r2)
	}
	want := []meta.Change{
		{Key: meta.KeyController, Rev: int64(term.Token)},
		{Key: "x", Value: []byte("1"), Rev: int64(r1)}, {Key: "y", Value: []byte("2"), Rev: int64(r2)},
	}
	if len(snap.Changes) != len(want) {
		t.Fatalf("load: %+v", snap.Changes)
	}
	for i, w := range want {
		g := snap.Changes[i]
		if g.Key != w.Key || g.Rev != w.Rev || w.Value != nil && string(g.Value) != string(w.Value) {
			t.Errorf("key %d: %+v, want %+v", i, g, w)
		}
	}
}

func fence(t *testing.T, ctx context.Context, s coord.Store) {
	one := lead(t, ctx, s)
	app(t, ctx, s, one, put("k", "one"))
	two := lead(t, ctx, s)
	if two.Epoch != one.Epoch+1 || two.Token <= one.Token {
		t.Fatalf("terms %+v then %+v", one, two)
	}
	if _, err := s.Append(ctx, one, []meta.Change{put("k", "late")}); !errors.Is(err, coord.ErrFenced) {
		t.Fatalf("append under the old term: %v", err)
	}
	if !one.Ended() || two.Ended() {
		t.Fatalf("ended: old %v, new %v", one.Ended(), two.Ended())
	}
	app(t, ctx, s, two, put("l", "two"))
	snap, _, err := s.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range snap.Changes {
		if c.Key == "k" && string(c.Value) != "one" {
			t.Errorf("the fenced write shows: %q", c.Value)
		}
	}
}

func refuse(t *testing.T, ctx context.Context, s coord.Store) {
	one := lead(t, ctx, s)
	two := lead(t, ctx, s)
	_, before, err := s.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(ctx, one, []meta.Change{put("k", "v")}); err == nil {
		t.Fatal("append under an old term went through")
	}
	snap, after, err := s.Load(ctx)
	if err != nil || after != before || len(snap.Changes) != 1 {
		t.Fatalf("revision %d after %d, %d keys, %v", after, before, len(snap.Changes), err)
	}
	app(t, ctx, s, two, put("k", "v"))
}

func large(t *testing.T, ctx context.Context, s coord.Store) {
	term := lead(t, ctx, s)
	many := make([]meta.Change, coord.MaxChanges+1)
	for i := range many {
		many[i] = put(fmt.Sprintf("k%d", i), "v")
	}
	if _, err := s.Append(ctx, term, many); !errors.Is(err, coord.ErrTooLarge) {
		t.Errorf("%d changes: %v", len(many), err)
	}
	if _, err := s.Append(ctx, term, []meta.Change{{Key: "k", Value: make([]byte, coord.MaxBytes)}}); !errors.Is(err, coord.ErrTooLarge) {
		t.Errorf("%d bytes: %v", coord.MaxBytes, err)
	}
	for i := range many[1:] {
		many[i].Value = make([]byte, 2800)
	}
	app(t, ctx, s, term, many[:coord.MaxChanges]...) // the largest that is promised
}

func cancelled(t *testing.T, ctx context.Context, s coord.Store) {
	c, cancel := context.WithCancel(ctx)
	ch, err := s.Tail(c, 0)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	ended(t, ctx, ch)
}

func closes(t *testing.T, ctx context.Context, s coord.Store) {
	term := lead(t, ctx, s)
	ch, err := s.Tail(ctx, term.Token)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ended(t, ctx, ch)
	if _, err := s.Append(ctx, term, []meta.Change{put("k", "v")}); err == nil {
		t.Error("append after close went through")
	}
	if _, _, err := s.Load(ctx); err == nil {
		t.Error("load after close went through")
	}
	if _, err := s.Tail(ctx, 0); err == nil {
		t.Error("tail after close went through")
	}
}
