package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/milena-mq/milena/internal/coord"
)

// compactSoon starts a snapshot when the log is long, and after a take-over a look at what earlier terms
// left. It runs beside the appends, one at a time.
func (s *Store) compactSoon(t *coord.Term, ctl int32, h *head) {
	var from coord.Revision
	size := 0
	if h.Snap != nil {
		from, size = h.Snap.Rev, h.Snap.Bytes
	}
	due := h.Rev-from >= coord.Revision(s.o.tune.entries) || h.Bytes >= s.o.tune.bytes+int64(size)
	if !due && h.Rev != t.Token {
		return
	}
	s.mu.Lock()
	busy := s.mu.busy || s.mu.closed || time.Now().Before(s.mu.rest)
	if !busy {
		s.mu.busy = true
		s.wg.Add(1)
	}
	s.mu.Unlock()
	if busy {
		return
	}
	go func() {
		defer s.wg.Done()
		ctx, cancel := context.WithCancel(s.ctx)
		defer cancel()
		err := s.tidy(ctx, t, ctl, due)
		if err != nil && !errors.Is(err, coord.ErrFenced) && s.ctx.Err() == nil {
			s.log.Warn("coordination store: snapshot or removal of old entries did not complete; it is tried again later", "err", err)
		}
		s.mu.Lock()
		s.mu.busy = false
		if err != nil {
			s.mu.rest = time.Now().Add(rest)
		}
		s.mu.Unlock()
	}()
}

func (s *Store) tidy(ctx context.Context, t *coord.Term, ctl int32, snapshot bool) error {
	if snapshot {
		if err := s.compact(ctx, t, ctl); err != nil {
			return err
		}
	}
	return s.sweep(ctx, t, ctl)
}

// compact writes a snapshot and makes the head name it. Entries since the snapshot before stay for tails
// that are behind; older ones are no longer promised.
func (s *Store) compact(ctx context.Context, t *coord.Term, ctl int32) error {
	cs, at, err := s.load(ctx)
	if err != nil {
		return err
	}
	if len(cs) == 0 {
		return nil
	}
	r, err := s.write(ctx, t, ctl, at.Rev, 's', encodeChanges(cs, true))
	if err != nil {
		return err
	}
	release, err := s.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	ctl, was, err := s.current(ctx, t)
	if err != nil {
		return err
	}
	h := *was
	h.Snap = &snapRef{at.Rev, r}
	if was.Snap != nil {
		h.First = was.Snap.Rev
	}
	h.Bytes -= at.Bytes
	a, err := s.multi(ctx, s.fence(ctl), &zk.SetDataRequest{Path: s.path(nodeHead), Data: h.encode(), Version: was.version})
	if err = s.judge(t, a, err); err != nil {
		return err
	}
	h.version = a.results[1].Stat.Version
	s.remember(t, &h)
	return nil
}

// sweep removes what nobody needs: entries that are no longer promised, pieces of old snapshots, and what
// attempts that failed have left. All of it under the fence: a controller that was replaced must not remove
// what its successor has just made.
func (s *Store) sweep(ctx context.Context, t *coord.Term, ctl int32) error {
	// The head first: whatever appears after it is newer than it.
	h, err := s.readHead(ctx)
	if err != nil {
		return err
	}
	list := func(node string) ([]string, error) {
		return insist(ctx, s, func() ([]string, error) {
			names, _, err := s.cli.Children(s.path(node))
			return names, err
		})
	}
	entries, err := list(nodeLog)
	if err != nil {
		return err
	}
	pieces, err := list(nodePieces)
	if err != nil {
		return err
	}
	var doomed []string
	for _, n := range entries {
		if r, ok := parseName(n); ok && r <= h.First {
			doomed = append(doomed, s.path(nodeLog)+"/"+n)
		}
	}
	needed, err := s.needed(ctx, h, pieces)
	if err != nil {
		return err
	}
	ours := fmt.Sprintf("%08x", uint32(ctl))
	for _, n := range pieces {
		id, rev, term, ok := parsePiece(n)
		// A piece of our own term above the head is of an append that is under way.
		if !ok || needed[id] || term == ours && rev > h.Rev {
			continue
		}
		doomed = append(doomed, s.path(nodePieces)+"/"+n)
	}
	return s.remove(ctx, t, ctl, doomed)
}

// parsePiece takes a piece's name apart: the payload's name, its revision and its term.
func parsePiece(name string) (id string, rev coord.Revision, term string, ok bool) {
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return "", 0, "", false
	}
	id = name[:i]
	parts := strings.Split(id, "-")
	if len(parts) != 3 {
		return "", 0, "", false
	}
	rev, ok = parseName(parts[0])
	return id, rev, parts[1], ok
}

// needed are the payloads in pieces that the head or an entry names.
func (s *Store) needed(ctx context.Context, h *head, pieces []string) (map[string]bool, error) {
	out := map[string]bool{}
	if h.Snap != nil {
		out[h.Snap.ID] = true
	}
	asked := map[coord.Revision]bool{}
	for _, n := range pieces {
		_, rev, _, ok := parsePiece(n)
		if !ok || asked[rev] || rev <= h.First || rev > h.Rev {
			continue
		}
		asked[rev] = true
		b, err := s.node(ctx, s.path(nodeLog)+"/"+entryName(rev))
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if _, r, err := decodeEntry(b); err == nil && r != nil {
			out[r.ID] = true
		}
	}
	return out, nil
}

// remove deletes nodes, many in one multi. One that is gone already makes all others of its multi stay: then
// that multi is done again node by node.
func (s *Store) remove(ctx context.Context, t *coord.Term, ctl int32, paths []string) error {
	const most = 100
	for size := most; len(paths) > 0; {
		n := min(len(paths), size)
		ops := []any{s.fence(ctl)}
		for _, p := range paths[:n] {
			ops = append(ops, &zk.DeleteRequest{Path: p, Version: -1})
		}
		a, err := s.multi(ctx, ops...)
		switch {
		case errors.Is(err, zk.ErrNoNode) && n > 1:
			size = 1
			continue
		case err == nil, errors.Is(err, zk.ErrNoNode):
		case a.failed == 0 && errors.Is(err, zk.ErrBadVersion):
			t.End()
			return coord.ErrFenced
		default:
			return err
		}
		paths = paths[n:]
	}
	return nil
}
