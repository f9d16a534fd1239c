package memstore

import (
	"context"
	"errors"
	"testing"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/coord/coordtest"
	"github.com/milena-mq/milena/internal/meta"
)

func TestContract(t *testing.T) {
	coordtest.Run(t, func(*testing.T) coord.Store { return New().Node(coord.Identity{NodeID: 1}) })
}

func TestLostAnswerAndCompaction(t *testing.T) {
	ctx := context.Background()
	h := New()
	a, b := h.Node(coord.Identity{NodeID: 1}), h.Node(coord.Identity{NodeID: 2})
	defer a.Close()
	defer b.Close()
	one, err := a.Lead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	h.Fail(coord.ErrUnknown, true)
	if _, err := a.Append(ctx, one, []meta.Change{{Key: "k", Value: []byte("v")}}); !errors.Is(err, coord.ErrUnknown) {
		t.Fatalf("append: %v", err)
	}
	snap, rev, err := b.Load(ctx)
	if err != nil || len(snap.Changes) != 2 || rev != one.Token+1 {
		t.Fatalf("the write whose answer was lost does not show: %+v at %d, %v", snap, rev, err)
	}
	two, err := b.Lead(ctx)
	if err != nil || !one.Ended() || two.Epoch != 2 {
		t.Fatalf("second broker: %+v, %v, first ended %v", two, err, one.Ended())
	}
	h.Compact()
	ch, err := a.Tail(ctx, one.Token)
	if err != nil {
		t.Fatal(err)
	}
	if batch, ok := <-ch; ok {
		t.Fatalf("a tail from before the compaction gave %+v", batch)
	}
}
