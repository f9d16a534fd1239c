// Package memstore owns the coordination store's contract in memory: one shared history, one Store
// per broker that uses it, and a switch for each thing that can go wrong.
//
// It never touches a disk and forgets everything with its History.
//
// Each Tail has one goroutine, joined by Close. A History is safe for concurrent use.
//
// Invariants: those of package coord, held to by the same conformance suite.
//
// Read memstore.go; there is nothing else.
package memstore

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/meta"
)

// History is what the stores of all brokers share.
type History struct {
	mu struct {
		sync.Mutex
		rev      coord.Revision
		state    map[string]meta.Change
		log      []coord.Batch
		first    coord.Revision // log holds the batches after this revision
		term     *coord.Term
		holder   *Store // of term
		elect    bool
		fail     []failure
		wake     chan struct{} // closed and replaced at each change
		appended int
	}
}

type failure struct {
	err   error
	apply bool
}

// New is an empty history.
func New() *History {
	h := &History{}
	h.mu.state = make(map[string]meta.Change)
	h.mu.wake = make(chan struct{})
	return h
}

// Fail makes the next Append answer err. With apply the changes are written all the same: that is
// how a lost answer looks.
func (h *History) Fail(err error, apply bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.fail = append(h.mu.fail, failure{err, apply})
}

// Appends counts the appends that were written, take-overs included.
func (h *History) Appends() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.appended
}

// Compact forgets all batches up to now, as a store does in the long run: a Tail from before has to
// load again.
func (h *History) Compact() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.log, h.mu.first = nil, h.mu.rev
	h.wakeLocked()
}

// Node is the store as one broker uses it.
func (h *History) Node(id coord.Identity) *Store {
	s := &Store{h: h, id: id}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Store is one broker's view of a History.
type Store struct {
	h      *History
	id     coord.Identity
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	still  chan struct{} // not nil while frozen, closed by Thaw; under the History's lock
}

var _ coord.Store = (*Store)(nil)

// Load implements coord.Store.
func (s *Store) Load(ctx context.Context) (coord.Snapshot, coord.Revision, error) {
	if err := s.alive(ctx); err != nil {
		return coord.Snapshot{}, 0, err
	}
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	cs := make([]meta.Change, 0, len(s.h.mu.state))
	for _, c := range s.h.mu.state {
		cs = append(cs, c)
	}
	slices.SortFunc(cs, func(a, b meta.Change) int { return cmp.Compare(a.Key, b.Key) })
	return coord.Snapshot{Changes: cs}, s.h.mu.rev, nil
}

// Freeze lets this broker's store stand still as a stopped process does, until Thaw: calls wait, nothing is delivered,
// and where the History elects another may take the lead. The holder is not told: it goes on believing.
func (s *Store) Freeze() {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.still = make(chan struct{})
	s.h.wakeLocked()
}

// Thaw lets it go on.
func (s *Store) Thaw() {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	close(s.still)
	s.still = nil
}

// alive waits until the store is not frozen.
func (s *Store) alive(ctx context.Context) error {
	for {
		s.h.mu.Lock()
		still := s.still
		s.h.mu.Unlock()
		switch {
		case s.ctx.Err() != nil:
			return coord.ErrClosed
		case still == nil:
			return ctx.Err()
		}
		select {
		case <-still:
		case <-s.ctx.Done():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Tail implements coord.Store.
func (s *Store) Tail(ctx context.Context, from coord.Revision) (<-chan coord.Batch, error) {
	if err := s.alive(ctx); err != nil {
		return nil, err
	}
	ch := make(chan coord.Batch)
	s.wg.Add(1)
	go s.tail(ctx, from, ch)
	return ch, nil
}

func (s *Store) tail(ctx context.Context, from coord.Revision, ch chan<- coord.Batch) {
	defer s.wg.Done()
	defer close(ch)
	for {
		s.h.mu.Lock()
		if from < s.h.mu.first {
			s.h.mu.Unlock()
			return
		}
		i, _ := slices.BinarySearchFunc(s.h.mu.log, from+1, func(b coord.Batch, r coord.Revision) int { return cmp.Compare(b.Rev, r) })
		todo, wake := s.h.mu.log[i:len(s.h.mu.log):len(s.h.mu.log)], s.h.mu.wake
		s.h.mu.Unlock()
		if len(todo) == 0 {
			select {
			case <-wake:
				continue
			case <-ctx.Done():
				return
			case <-s.ctx.Done():
				return
			}
		}
		for _, b := range todo {
			if s.alive(ctx) != nil {
				return
			}
			select {
			case ch <- b:
				from = b.Rev
			case <-ctx.Done():
				return
			case <-s.ctx.Done():
				return
			}
		}
	}
}

// Elect makes Lead wait as long as another Store holds a term and is not closed, as engines do that elect among
// themselves.
func (h *History) Elect() *History {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.elect = true
	return h
}

// queue waits until nobody else leads, where the History elects, and returns with the History's lock held.
func (s *Store) queue(ctx context.Context) error {
	for {
		s.h.mu.Lock()
		term, holder, wake := s.h.mu.term, s.h.mu.holder, s.h.mu.wake
		if !s.h.mu.elect || term == nil || term.Ended() || holder == s || holder.ctx.Err() != nil || holder.still != nil {
			return nil
		}
		s.h.mu.Unlock()
		select {
		case <-wake:
		case <-term.Done():
		case <-holder.ctx.Done():
		case <-s.ctx.Done():
			return coord.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Lead implements coord.Store. Whoever asks last leads, unless the History elects: it has no opinion on liveness.
func (s *Store) Lead(ctx context.Context) (*coord.Term, error) {
	if err := s.alive(ctx); err != nil {
		return nil, err
	}
	if err := s.queue(ctx); err != nil {
		return nil, err
	}
	defer s.h.mu.Unlock()
	var r meta.ControllerRecord
	if c, ok := s.h.mu.state[meta.KeyController]; ok {
		var err error
		if r, err = meta.DecodeController(c.Value); err != nil {
			return nil, err
		}
	}
	r = s.id.Record(r.Epoch + 1)
	rev := s.h.writeLocked([]meta.Change{meta.PutController(r)})
	if s.h.mu.term != nil && (s.h.mu.holder == nil || s.h.mu.holder.still == nil) {
		s.h.mu.term.End()
	}
	s.h.mu.term, s.h.mu.holder = coord.NewTerm(r.Epoch, rev), s
	return s.h.mu.term, nil
}

// Append implements coord.Store.
func (s *Store) Append(ctx context.Context, t *coord.Term, cs []meta.Change) (coord.Revision, error) {
	if err := s.alive(ctx); err != nil {
		return 0, err
	}
	if err := coord.CheckSize(cs); err != nil {
		return 0, err
	}
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	if s.h.mu.term == nil || s.h.mu.term.Token != t.Token {
		t.End()
		return 0, coord.ErrFenced
	}
	if len(s.h.mu.fail) > 0 {
		f := s.h.mu.fail[0]
		s.h.mu.fail = s.h.mu.fail[1:]
		if f.apply {
			s.h.writeLocked(cs)
		}
		return 0, f.err
	}
	return s.h.writeLocked(cs), nil
}

func (h *History) writeLocked(cs []meta.Change) coord.Revision {
	h.mu.rev++
	h.mu.appended++
	out := make([]meta.Change, len(cs))
	for i, c := range cs {
		c.Rev = int64(h.mu.rev)
		out[i] = c
		if c.Value == nil {
			delete(h.mu.state, c.Key)
		} else {
			h.mu.state[c.Key] = c
		}
	}
	h.mu.log = append(h.mu.log, coord.Batch{Rev: h.mu.rev, Changes: out})
	h.wakeLocked()
	return h.mu.rev
}

func (h *History) wakeLocked() {
	close(h.mu.wake)
	h.mu.wake = make(chan struct{})
}

// Close implements coord.Store: the history stays, this broker's tails end and so does its term.
func (s *Store) Close() error {
	s.cancel()
	s.wg.Wait()
	return nil
}
