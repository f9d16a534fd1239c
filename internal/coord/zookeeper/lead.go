package zookeeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/meta"
)

// Lead implements coord.Store. Candidates stand in a line of ephemeral nodes; the first one raises the
// controller's epoch. The line only keeps two of them from taking turns all the time: what fences is the
// version of the controller's node.
func (s *Store) Lead(ctx context.Context) (*coord.Term, error) {
	s.leading(1)
	t, err := s.lead(ctx)
	s.leading(-1)
	if err != nil {
		s.stepBack(nil)
		return nil, fmt.Errorf("take the lead: %w", err)
	}
	return t, nil
}

func (s *Store) leading(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.leading += n
}

func (s *Store) lead(ctx context.Context) (*coord.Term, error) {
	for {
		t, err := s.tryLead(ctx)
		switch {
		case err == nil && t != nil:
			return t, nil
		case err == nil:
			continue // something changed: look again
		case ctx.Err() != nil || s.ctx.Err() != nil || !passing(err) && !errors.Is(err, errAgain) && !errors.Is(err, coord.ErrUnknown):
			if s.ctx.Err() != nil {
				err = coord.ErrClosed
			}
			return nil, err
		}
		// A take-over whose outcome is unknown may be tried again: if it was written, the epoch rises once
		// more, and no term was built on the first.
		if err := s.pause(ctx); err != nil {
			return nil, err
		}
	}
}

// errAgain says that somebody else was quicker or that our candidacy is gone.
var errAgain = errors.New("the line of candidates has changed")

func (s *Store) tryLead(ctx context.Context) (*coord.Term, error) {
	node, err := s.stand(ctx)
	if err != nil {
		return nil, err
	}
	ahead, err := s.ahead(ctx, node)
	if err != nil {
		return nil, err
	}
	if len(ahead) > 0 {
		if take, err := s.turnComes(ctx, node, ahead); err != nil || !take {
			return nil, err
		}
	}
	return s.takeOver(ctx, node)
}

// stand makes our candidacy unless there is one. A candidacy whose making had no answer is found by its
// name, or it would stand before us and never act.
func (s *Store) stand(ctx context.Context) (string, error) {
	s.mu.Lock()
	node, prefix := s.mu.node, s.prefixLocked()
	s.mu.Unlock()
	if node != "" {
		return node, nil
	}
	names, err := s.candidates(ctx)
	if err != nil {
		return "", err
	}
	for _, n := range names {
		if strings.HasPrefix(n, prefix) {
			node = n
		}
	}
	if node == "" {
		made, err := ask(ctx, s, func() (string, error) {
			return s.cli.Create(s.path(nodeElect)+"/"+prefix, s.introduction(), zk.FlagEphemeral|zk.FlagSequence, acl)
		})
		if err != nil {
			return "", err
		}
		node = made[strings.LastIndexByte(made, '/')+1:]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if prefix != s.prefixLocked() {
		return "", errAgain // the session has expired meanwhile
	}
	s.mu.node = node
	return node, nil
}

// prefixLocked begins the name of the current candidacy: this store's, and which one of its. A new one
// never takes an old one, that is being given up, for itself.
func (s *Store) prefixLocked() string { return fmt.Sprintf("%s.%d-", s.nonce, s.mu.stands) }

// leaveLocked ends the current candidacy, as far as this store is concerned.
func (s *Store) leaveLocked() {
	s.mu.node = ""
	s.mu.stands++
}

// candidates are the names in the line, first come first.
func (s *Store) candidates(ctx context.Context) ([]string, error) {
	if err := s.sync(ctx); err != nil {
		return nil, err
	}
	return s.list(ctx)
}

// list is the same as the server that we are connected to knows it.
func (s *Store) list(ctx context.Context) ([]string, error) {
	names, err := ask(ctx, s, func() ([]string, error) {
		names, _, err := s.cli.Children(s.path(nodeElect))
		return names, err
	})
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { _, ok := place(n); return !ok })
	slices.SortFunc(names, func(a, b string) int {
		x, _ := place(a)
		y, _ := place(b)
		return cmp.Compare(x, y)
	})
	return names, nil
}

// place is the number that the ensemble has put behind the name.
func place(name string) (int32, bool) {
	i := strings.IndexByte(name, '-')
	if i < 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(name[i+1:], 10, 32)
	return int32(n), err == nil
}

// ahead are those who stand before us, first come first.
func (s *Store) ahead(ctx context.Context, node string) ([]string, error) {
	names, err := s.candidates(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.Index(names, node)
	if i < 0 {
		s.forget(node)
		return nil, errAgain
	}
	return names[:i], nil
}

// forget notes that a candidacy does not exist any more.
func (s *Store) forget(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.node == node {
		s.leaveLocked()
	}
}

// takeOver raises the epoch: one multi that wants our candidacy to be there, the controller's node and the
// head as we read them, and makes the entry that every Tail sees.
func (s *Store) takeOver(ctx context.Context, node string) (*coord.Term, error) {
	release, err := s.hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	was, err := s.readHead(ctx)
	if err != nil {
		return nil, err
	}
	type ctl struct {
		record  meta.ControllerRecord
		version int32
	}
	c, err := ask(ctx, s, func() (ctl, error) {
		b, st, err := s.cli.Get(s.path(nodeCtl))
		if err != nil || len(b) == 0 {
			return ctl{version: version(st)}, err
		}
		r, err := meta.DecodeController(b)
		return ctl{r, version(st)}, err
	})
	if err != nil {
		return nil, err
	}
	change := meta.PutController(s.o.Identity.Record(c.record.Epoch + 1))
	payload := encodeChanges([]meta.Change{change}, false)
	h := *was
	h.Rev++
	h.Bytes += int64(len(payload))
	r, err := s.multi(ctx, &zk.CheckVersionRequest{Path: s.path(nodeElect) + "/" + node},
		&zk.SetDataRequest{Path: s.path(nodeCtl), Data: change.Value, Version: c.version},
		&zk.SetDataRequest{Path: s.path(nodeHead), Data: h.encode(), Version: was.version},
		&zk.CreateRequest{Path: s.path(nodeLog) + "/" + entryName(h.Rev), Data: encodeInline(payload), Acl: acl})
	switch {
	case err == nil:
	case r.failed == 0 && errors.Is(err, zk.ErrNoNode):
		s.forget(node)
		return nil, errAgain
	case errors.Is(err, zk.ErrBadVersion) || errors.Is(err, zk.ErrNodeExists):
		return nil, errAgain
	default:
		return nil, err
	}
	h.version = r.results[2].Stat.Version
	return s.reign(node, coord.NewTerm(c.record.Epoch+1, h.Rev), r.results[1].Stat.Version, &h)
}

func version(st *zk.Stat) int32 {
	if st == nil {
		return 0
	}
	return st.Version
}

// reign begins a term, unless the candidacy has ended meanwhile: with an earlier term of this store, or with
// the session.
func (s *Store) reign(node string, t *coord.Term, ctl int32, h *head) (*coord.Term, error) {
	s.mu.Lock()
	if s.mu.node != node {
		s.mu.Unlock()
		return nil, errAgain
	}
	old := s.mu.term
	s.mu.term, s.mu.ctl, s.mu.head = t, ctl, h
	s.mu.Unlock()
	if old != nil {
		old.End()
	}
	if !s.attach() {
		t.End()
		return nil, coord.ErrClosed
	}
	go s.watchTerm(t, ctl)
	s.compactSoon(t, ctl, h)
	return t, nil
}

// watchTerm ends a term when the session is lost, when the ensemble has not been heard of for as long as
// a session lasts, and when another controller has written its record. Safety needs none of it; it is so
// that a controller that lost the lead stops believing in it.
func (s *Store) watchTerm(t *coord.Term, ctl int32) {
	defer s.wg.Done()
	defer t.End()
	if s.termLasts(t, ctl) {
		return
	}
	s.stepBack(t)
}

// termLasts waits for the end of a term; it says whether the candidacy is to be kept, which is so when this
// store itself is taking over from itself: the record's new version is then its own.
func (s *Store) termLasts(t *coord.Term, ctl int32) (keep bool) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	moved := make(chan struct{})
	if !s.attach() {
		return false
	}
	go func() {
		defer s.wg.Done()
		s.proveTerm(ctx, t, ctl)
	}()
	if !s.attach() {
		return false
	}
	go func() {
		defer s.wg.Done()
		defer close(moved)
		s.followCtl(ctx, ctl)
	}()
	for {
		s.mu.Lock()
		change, since, node := s.mu.change, s.mu.since, s.mu.node
		if s.mu.term != t {
			node = "" // a newer term of this store
		}
		s.mu.Unlock()
		if node == "" {
			return false
		}
		left := s.o.Session
		if !since.IsZero() {
			if left = time.Until(since.Add(s.o.Session)); left <= 0 {
				return false
			}
		}
		timer := time.NewTimer(left)
		select {
		case <-change:
		case <-timer.C:
		case <-moved:
			timer.Stop()
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.mu.leading > 0
		case <-t.Done():
			timer.Stop()
			return false
		case <-s.ctx.Done():
			timer.Stop()
			return false
		}
		timer.Stop()
	}
}

// proveTerm asks the ensemble again and again whether the term is the newest. The question is a multi that only
// checks: a read may be answered by a server that is cut off from the others, this one a majority has to agree to.
func (s *Store) proveTerm(ctx context.Context, t *coord.Term, ctl int32) {
	tick := time.NewTicker(prove)
	defer tick.Stop()
	for {
		at := time.Now()
		_, err := s.multi(ctx, s.fence(ctl))
		switch {
		case err == nil:
			t.Prove(at)
		case errors.Is(err, zk.ErrBadVersion):
			t.End()
			return
		}
		select {
		case <-tick.C:
		case <-t.Done():
			return
		case <-ctx.Done():
			return
		}
	}
}

// followCtl returns when the controller's node has another version than ours, or when ctx ends.
func (s *Store) followCtl(ctx context.Context, ours int32) {
	type seen struct {
		version int32
		next    <-chan zk.Event
	}
	for {
		v, err := insist(ctx, s, func() (seen, error) {
			_, st, next, err := s.cli.GetW(s.path(nodeCtl))
			return seen{version(st), next}, err
		})
		if err != nil || v.version > ours {
			return
		}
		if s.await(ctx, v.next) != nil {
			return
		}
	}
}

// stepBack gives the candidacy up, so that the next in line may lead; with a term, only if no newer term of
// this store uses it. It is removed in the background, for as long as its session lives.
func (s *Store) stepBack(t *coord.Term) {
	s.mu.Lock()
	if t != nil && s.mu.term != t || t == nil && s.mu.term != nil && !s.mu.term.Ended() {
		s.mu.Unlock()
		return
	}
	prefix := s.prefixLocked()
	s.leaveLocked()
	s.mu.Unlock()
	if !s.attach() {
		return
	}
	go func() {
		defer s.wg.Done()
		for s.ctx.Err() == nil {
			// By its name: the one whose making had no answer may be there too.
			names, err := s.candidates(s.ctx)
			for _, n := range names {
				if err == nil && strings.HasPrefix(n, prefix) {
					_, err = ask(s.ctx, s, func() (struct{}, error) {
						return struct{}{}, s.cli.Delete(s.path(nodeElect)+"/"+n, -1)
					})
				}
			}
			if err == nil || !passing(err) || s.pause(s.ctx) != nil {
				return
			}
		}
	}()
}
