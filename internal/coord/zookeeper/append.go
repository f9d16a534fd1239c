package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/go-zookeeper/zk"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/meta"
)

// refused are the answers that surely mean that a multi changed nothing. Whatever is not here leaves the
// outcome open: the request may be in the leader's hands already.
var refused = []error{
	zk.ErrNoNode, zk.ErrBadVersion, zk.ErrNodeExists, zk.ErrNoAuth, zk.ErrNoChildrenForEphemerals, zk.ErrNotEmpty, zk.ErrInvalidACL,
	zk.ErrBadArguments, zk.ErrSessionMoved,
	zk.ErrInvalidPath, zk.ErrInvalidFlags,
}

// tx is the answer to a multi.
type tx struct {
	results []zk.MultiResponse
	failed  int // the operation that failed, -1: none
}

// multi writes all operations or none. An error without coord.ErrUnknown means none; failed says which
// operation was refused, where the server says so.
func (s *Store) multi(ctx context.Context, ops ...any) (tx, error) {
	for {
		if err := ctx.Err(); err != nil {
			return tx{failed: -1}, err
		}
		if s.ctx.Err() != nil {
			return tx{failed: -1}, coord.ErrClosed
		}
		a, err := s.once(ctx, ops)
		switch {
		case err == nil:
			return a, nil
		case errors.Is(err, zk.ErrNoServer):
			// No server could be reached, so it was never sent: it waits for one as long as the caller does.
			if err := s.pause(ctx); err != nil {
				return a, err
			}
			continue
		}
		for _, r := range refused {
			if errors.Is(err, r) {
				return a, err
			}
		}
		return a, fmt.Errorf("%w: %w", coord.ErrUnknown, err)
	}
}

// once sends a multi and tells what the server, or the library, says.
func (s *Store) once(ctx context.Context, ops []any) (tx, error) {
	type answer struct {
		tx
		err error
	}
	a, err := ask(ctx, s, func() (answer, error) {
		r, err := s.cli.Multi(ops...)
		t := tx{results: r, failed: -1}
		for i := range r {
			if r[i].Error != nil {
				t.failed = i
				break
			}
		}
		return answer{t, err}, nil
	})
	if err != nil {
		return tx{failed: -1}, err
	}
	return a.tx, a.err
}

// fence is the operation that makes a multi fail once another term has begun.
func (s *Store) fence(ctl int32) any {
	return &zk.CheckVersionRequest{Path: s.path(nodeCtl), Version: ctl}
}

// hold waits for the right to write under the term, and gives it back with the returned function.
func (s *Store) hold(ctx context.Context) (func(), error) {
	select {
	case <-s.turn:
		return func() { s.turn <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.ctx.Done():
		return nil, coord.ErrClosed
	}
}

// current is the fence of t and the head to write on; coord.ErrFenced: t is over.
func (s *Store) current(ctx context.Context, t *coord.Term) (ctl int32, h *head, err error) {
	s.mu.Lock()
	ctl, h = s.mu.ctl, s.mu.head
	own := s.mu.term == t
	s.mu.Unlock()
	if !own || t.Ended() {
		t.End()
		return 0, nil, coord.ErrFenced
	}
	if h == nil {
		// An earlier write had no answer. If it comes through after this read, it moves the head, and the
		// next write is refused for the head's version: never two entries where one was meant.
		if h, err = s.readHead(ctx); err != nil {
			return 0, nil, err
		}
	}
	return ctl, h, nil
}

// remember notes the head that a write left; nil: unknown.
func (s *Store) remember(t *coord.Term, h *head) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.term == t {
		s.mu.head = h
	}
}

// Append implements coord.Store: one multi that checks the controller's node, moves the head from the
// version we know and makes the entry.
func (s *Store) Append(ctx context.Context, t *coord.Term, cs []meta.Change) (coord.Revision, error) {
	if err := coord.CheckSize(cs); err != nil {
		return 0, err
	}
	release, err := s.hold(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	ctl, was, err := s.current(ctx, t)
	if err != nil {
		return 0, err
	}
	payload := encodeChanges(cs, false)
	h := *was
	h.Rev++
	h.Bytes += int64(len(payload))
	data, err := s.entryData(ctx, t, ctl, h.Rev, payload)
	if err != nil {
		return 0, fmt.Errorf("append %d changes: %w", len(cs), err)
	}
	r, err := s.multi(ctx, s.fence(ctl),
		&zk.SetDataRequest{Path: s.path(nodeHead), Data: h.encode(), Version: was.version},
		&zk.CreateRequest{Path: s.path(nodeLog) + "/" + entryName(h.Rev), Data: data, Acl: acl})
	if err = s.judge(t, r, err); err != nil {
		return 0, fmt.Errorf("append %d changes: %w", len(cs), err)
	}
	h.version = r.results[1].Stat.Version
	s.remember(t, &h)
	s.compactSoon(t, ctl, &h)
	return h.Rev, nil
}

// judge sorts the answer to a write on the head. Another version of the controller's node is another term.
// Another version of the head is a write of ours that had no answer and came through late: then our
// picture is not what is there, and the term has to end as well.
func (s *Store) judge(t *coord.Term, r tx, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, coord.ErrUnknown):
		s.remember(t, nil)
	case errors.Is(err, zk.ErrBadVersion) || errors.Is(err, zk.ErrNodeExists):
		t.End()
		s.remember(t, nil)
		if r.failed > 0 {
			return fmt.Errorf("%w, or an earlier write of this one came through late", coord.ErrFenced)
		}
		return coord.ErrFenced
	}
	return err
}

// entryData is what the entry's node holds. A large payload is written before the entry, in pieces that
// nobody sees until the entry names them: the ensemble takes no packet above 1 MiB, so the multi itself
// cannot hold it. What a failed attempt leaves is removed by sweep.
func (s *Store) entryData(ctx context.Context, t *coord.Term, ctl int32, rev coord.Revision, payload []byte) ([]byte, error) {
	if len(payload) <= s.o.tune.inline {
		return encodeInline(payload), nil
	}
	r, err := s.write(ctx, t, ctl, rev, 'e', payload)
	if err != nil {
		return nil, err
	}
	return encodeDistant(r), nil
}

// write makes the pieces of a payload, each under the fence. Their names begin with the revision and the
// term, so that sweep can tell what is still needed; the number makes a second attempt another one. An
// error is never unknown: nothing names these pieces yet.
func (s *Store) write(ctx context.Context, t *coord.Term, ctl int32, rev coord.Revision, kind byte, payload []byte) (ref, error) {
	s.mu.Lock()
	s.mu.tries++
	r := ref{ID: fmt.Sprintf("%s-%08x-%c%d", entryName(rev), uint32(ctl), kind, s.mu.tries), Bytes: len(payload), CRC: crc32.Checksum(payload, castagnoli)}
	s.mu.Unlock()
	for _, p := range cut(payload, s.o.tune.piece) {
		a, err := s.multi(ctx, s.fence(ctl), &zk.CreateRequest{Path: s.path(nodePieces) + "/" + r.piece(r.N), Data: p, Acl: acl})
		switch {
		case err == nil:
		case a.failed == 0 && errors.Is(err, zk.ErrBadVersion):
			t.End()
			return ref{}, coord.ErrFenced
		default:
			return ref{}, fmt.Errorf("write piece: %w", known{err})
		}
		r.N++
	}
	return r, nil
}

// known is an error whose outcome is open, of a write that nobody can see.
type known struct{ err error }

func (k known) Error() string { return k.err.Error() }
