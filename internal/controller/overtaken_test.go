package controller_test

import (
	"context"
	"sync"
	"testing"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/coord/memstore"
	"github.com/milena-mq/milena/internal/meta"
)

// deaf is a store that leads once and does not notice that another controller has taken over: the engine's lead
// went away and came back between two of its looks.
type deaf struct {
	coord.Store
	once sync.Once
}

func (d *deaf) Lead(ctx context.Context) (*coord.Term, error) {
	var t *coord.Term
	var err error
	d.once.Do(func() {
		if t, err = d.Store.Lead(ctx); err == nil {
			t = coord.NewTerm(t.Epoch, t.Token) // nobody ends this one
		}
	})
	if t == nil && err == nil {
		<-ctx.Done()
		err = ctx.Err()
	}
	return t, err
}

// A controller whose own image shows a later one must not go on answering from a picture that stands still.
func TestOvertakenControllerStops(t *testing.T) {
	h := memstore.New()
	c := start(t, &deaf{Store: mem(t, h, 1)})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	for !c.Leads() {
		if wait(ctx) != nil {
			t.Fatal("it never led")
		}
	}
	other := h.Node(coord.Identity{NodeID: 2, Incarnation: meta.UUID{2}})
	defer other.Close()
	if _, err := other.Lead(ctx); err != nil {
		t.Fatal(err)
	}
	for c.Leads() {
		if wait(ctx) != nil {
			t.Fatal("it goes on")
		}
	}
}
