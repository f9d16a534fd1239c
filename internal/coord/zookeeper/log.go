package zookeeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/meta"
)

// errMoved says that a node is not there: it was removed by a compaction, or this server lags behind the
// one that showed us the head.
var errMoved = errors.New("entry or piece is not there")

// sync makes the server that we are connected to catch up with the ensemble: without it a read may be of a
// moment ago.
func (s *Store) sync(ctx context.Context) error {
	_, err := insist(ctx, s, func() (string, error) { return s.cli.Sync(s.path(nodeHead)) })
	return err
}

// readHead reads the newest head.
func (s *Store) readHead(ctx context.Context) (*head, error) {
	if err := s.sync(ctx); err != nil {
		return nil, err
	}
	return insist(ctx, s, func() (*head, error) {
		b, st, err := s.cli.Get(s.path(nodeHead))
		if err != nil {
			return nil, err
		}
		return decodeHead(b, st.Version)
	})
}

func (s *Store) node(ctx context.Context, path string) ([]byte, error) {
	b, err := insist(ctx, s, func() ([]byte, error) {
		b, _, err := s.cli.Get(path)
		return b, err
	})
	if errors.Is(err, zk.ErrNoNode) {
		return nil, fmt.Errorf("%s: %w", path, errMoved)
	}
	return b, err
}

// several calls read for 0..n-1, some at the same time, and use for each result in order.
func several[T any](ctx context.Context, s *Store, n int, read func(context.Context, int) (T, error), use func(int, T) error) error {
	type result struct {
		v   T
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var pending []chan result
	for next, i := 0, 0; i < n; i++ {
		for ; next < n && next < i+window; next++ {
			if !s.attach() {
				return coord.ErrClosed
			}
			ch := make(chan result, 1)
			pending = append(pending, ch)
			go func(at int) {
				defer s.wg.Done()
				v, err := read(ctx, at)
				ch <- result{v, err}
			}(next)
		}
		r := <-pending[0]
		pending = pending[1:]
		if r.err != nil {
			return r.err
		}
		if err := use(i, r.v); err != nil {
			return err
		}
	}
	return nil
}

// payload reads what a reference names.
func (s *Store) payload(ctx context.Context, r ref) ([]byte, error) {
	b := make([]byte, 0, min(r.Bytes, 4<<20)) // not what the reference claims: it may be damaged
	err := several(ctx, s, r.N, func(ctx context.Context, i int) ([]byte, error) {
		return s.node(ctx, s.path(nodePieces)+"/"+r.piece(i))
	}, func(_ int, p []byte) error {
		if b = append(b, p...); len(b) > r.Bytes {
			return fmt.Errorf("pieces of %s: %w: longer than %d bytes", r.ID, errDamaged, r.Bytes)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(b) != r.Bytes || crc32.Checksum(b, castagnoli) != r.CRC {
		return nil, fmt.Errorf("pieces of %s: %w: checksum", r.ID, errDamaged)
	}
	return b, nil
}

// entry reads one append.
func (s *Store) entry(ctx context.Context, rev coord.Revision) (coord.Batch, error) {
	b, err := s.node(ctx, s.path(nodeLog)+"/"+entryName(rev))
	if err != nil {
		return coord.Batch{}, err
	}
	p, r, err := decodeEntry(b)
	if err == nil && r != nil {
		p, err = s.payload(ctx, *r)
	}
	if err != nil {
		return coord.Batch{}, fmt.Errorf("entry %d: %w", rev, err)
	}
	cs, err := decodeChanges(p, false, rev)
	if err != nil {
		return coord.Batch{}, fmt.Errorf("entry %d: %w", rev, err)
	}
	return coord.Batch{Rev: rev, Changes: cs}, nil
}

// entries calls use for each entry in (from, to].
func (s *Store) entries(ctx context.Context, from, to coord.Revision, use func(coord.Batch) error) error {
	return several(ctx, s, int(to-from), func(ctx context.Context, i int) (coord.Batch, error) {
		return s.entry(ctx, from+1+coord.Revision(i))
	}, func(_ int, b coord.Batch) error { return use(b) })
}

// Load implements coord.Store: the snapshot and the entries after it.
func (s *Store) Load(ctx context.Context) (coord.Snapshot, coord.Revision, error) {
	cs, h, err := s.load(ctx)
	if err != nil {
		return coord.Snapshot{}, 0, fmt.Errorf("load coordination store: %w", err)
	}
	return coord.Snapshot{Changes: cs}, h.Rev, nil
}

func (s *Store) load(ctx context.Context) ([]meta.Change, *head, error) {
	for try := 0; ; try++ {
		h, err := s.readHead(ctx)
		if err != nil {
			return nil, nil, err
		}
		cs, err := s.at(ctx, h)
		if err == nil {
			return cs, h, nil
		}
		// A compaction takes nodes away while we read them; the newest head says so by then. If it happens
		// again and again it is damage.
		if !errors.Is(err, errMoved) || try == 3 {
			return nil, nil, err
		}
	}
}

// at is every key as the head has it, in key order.
func (s *Store) at(ctx context.Context, h *head) ([]meta.Change, error) {
	state := map[string]meta.Change{}
	var from coord.Revision
	if h.Snap != nil {
		from = h.Snap.Rev
		b, err := s.payload(ctx, h.Snap.ref)
		if err != nil {
			return nil, err
		}
		cs, err := decodeChanges(b, true, 0)
		if err != nil {
			return nil, fmt.Errorf("snapshot %s: %w", h.Snap.ID, err)
		}
		for _, c := range cs {
			state[c.Key] = c
		}
	}
	err := s.entries(ctx, from, h.Rev, func(b coord.Batch) error {
		for _, c := range b.Changes {
			if c.Value == nil {
				delete(state, c.Key)
			} else {
				state[c.Key] = c
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make([]meta.Change, 0, len(state))
	for _, c := range state {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b meta.Change) int { return cmp.Compare(a.Key, b.Key) })
	return out, nil
}

// Tail implements coord.Store.
func (s *Store) Tail(ctx context.Context, from coord.Revision) (<-chan coord.Batch, error) {
	if !s.attach() {
		return nil, coord.ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	ch := make(chan coord.Batch)
	go func() {
		defer s.wg.Done()
		defer close(ch)
		defer cancel()
		defer stop()
		if err := s.tail(ctx, from, ch); err != nil && ctx.Err() == nil {
			s.log.Warn("coordination store: reading the history ended, it will be loaded again", "err", err)
		}
	}()
	return ch, nil
}

// watched is a head and the event of its next change.
type watched struct {
	head *head
	next <-chan zk.Event
}

func (s *Store) watchHead(ctx context.Context) (watched, error) {
	return insist(ctx, s, func() (watched, error) {
		b, st, next, err := s.cli.GetW(s.path(nodeHead))
		if err != nil {
			return watched{}, err
		}
		h, err := decodeHead(b, st.Version)
		return watched{h, next}, err
	})
}

// tail delivers until ctx ends; nil: what comes after from is removed.
func (s *Store) tail(ctx context.Context, from coord.Revision, ch chan<- coord.Batch) error {
	missing := 0
	for {
		w, err := s.watchHead(ctx)
		if err != nil {
			return err
		}
		if from < w.head.First {
			return nil
		}
		err = s.entries(ctx, from, max(from, w.head.Rev), func(b coord.Batch) error {
			select {
			case ch <- b:
				from, missing = b.Rev, 0
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		switch {
		case err == nil:
			if err := s.await(ctx, w.next); err != nil {
				return err
			}
		case errors.Is(err, errMoved) && missing < 3:
			// Removed since we saw the head, or a new session is with a server that lags behind.
			missing++
			if err := s.sync(ctx); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// await waits for a watch. It also returns after a while without an event: a look costs one small read,
// and the library's bookkeeping of watches over many connections is not ours to prove.
func (s *Store) await(ctx context.Context, ev <-chan zk.Event) error {
	t := time.NewTimer(s.o.tune.look)
	defer t.Stop()
	select {
	case <-ev:
		return nil
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return coord.ErrClosed
	}
}
