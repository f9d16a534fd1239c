package coord

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/milena-mq/milena/internal/meta"
)

// space is where a history lives among the keys of an etcd, own or foreign: below one prefix, so that one
// watch orders them all.
type space string

func (s space) snapshot(r *clientv3.GetResponse) (Snapshot, Revision) {
	out := Snapshot{Changes: make([]meta.Change, len(r.Kvs))}
	for i, kv := range r.Kvs {
		out.Changes[i] = meta.Change{Key: string(kv.Key[len(s):]), Value: kv.Value, Rev: kv.ModRevision}
	}
	return out, Revision(r.Header.Revision)
}

// split cuts the events of one answer, which may span several appends when a tail catches up, at
// the revisions. etcd never cuts one revision in two.
func (s space) split(es []*clientv3.Event) []Batch {
	var out []Batch
	for _, ev := range es {
		c := meta.Change{Key: string(ev.Kv.Key[len(s):]), Value: ev.Kv.Value, Rev: ev.Kv.ModRevision}
		if ev.Type == clientv3.EventTypeDelete {
			c.Value = nil
		}
		if n := len(out); n == 0 || out[n-1].Rev != Revision(c.Rev) {
			out = append(out, Batch{Rev: Revision(c.Rev)})
		}
		b := &out[len(out)-1]
		b.Changes = append(b.Changes, c)
	}
	return out
}

func (s space) ops(cs []meta.Change) []clientv3.Op {
	ops := make([]clientv3.Op, len(cs))
	for i, c := range cs {
		if c.Value == nil {
			ops[i] = clientv3.OpDelete(string(s) + c.Key)
		} else {
			ops[i] = clientv3.OpPut(string(s)+c.Key, string(c.Value))
		}
	}
	return ops
}

// unchanged holds while nobody has taken over since revision rev; 0: while nobody ever has.
func (s space) unchanged(rev Revision) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(string(s)+meta.KeyController), "=", int64(rev))
}

// Every engine on etcd reads and writes in its own way; what is written is the same.
type (
	getFunc    func(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error)
	commitFunc func(ctx context.Context, when clientv3.Cmp, then ...clientv3.Op) (*clientv3.TxnResponse, error)
)

// takeOver raises the controller's epoch under the condition that nobody else has since it was read. The
// revision of that write is the token of the term.
func (s space) takeOver(ctx context.Context, id Identity, get getFunc, commit commitFunc) (*Term, error) {
	key := string(s) + meta.KeyController
	g, err := get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("take the lead: %w", err)
	}
	var was meta.ControllerRecord
	var rev Revision
	if len(g.Kvs) > 0 {
		if was, err = meta.DecodeController(g.Kvs[0].Value); err != nil {
			return nil, fmt.Errorf("take the lead: %w", err)
		}
		rev = Revision(g.Kvs[0].ModRevision)
	}
	c := meta.PutController(id.Record(was.Epoch + 1))
	r, err := commit(ctx, s.unchanged(rev), clientv3.OpPut(key, string(c.Value)))
	if err != nil {
		return nil, fmt.Errorf("take the lead: %w", err)
	}
	if !r.Succeeded {
		return nil, fmt.Errorf("take the lead: %w", ErrFenced)
	}
	return NewTerm(was.Epoch+1, Revision(r.Header.Revision)), nil
}

// confirm takes note of what a majority said of the controller's key, asked at at. It is false when the key
// speaks of a newer term.
func (t *Term) confirm(at time.Time, r *clientv3.GetResponse) bool {
	if len(r.Kvs) == 0 {
		return true // asked before there was a controller
	}
	switch rev := Revision(r.Kvs[0].ModRevision); {
	case rev > t.Token:
		return false
	case rev == t.Token:
		t.Prove(at)
	}
	return true
}

// append writes changes under a term.
func (s space) append(ctx context.Context, t *Term, cs []meta.Change, commit commitFunc) (Revision, error) {
	if err := CheckSize(cs); err != nil {
		return 0, err
	}
	r, err := commit(ctx, s.unchanged(t.Token), s.ops(cs)...)
	if err != nil {
		return 0, fmt.Errorf("append %d changes: %w", len(cs), err)
	}
	if !r.Succeeded {
		t.End()
		return 0, ErrFenced
	}
	return Revision(r.Header.Revision), nil
}

// writeError sorts what etcd says of a write. Anything that is not surely a refusal is unknown: the
// proposal may be in the log already.
func writeError(err error) error {
	err = rpctypes.Error(err)
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		// etcd says so also after it has written: where it notices while applying.
		return fmt.Errorf("%w; %w", ErrFull, ErrUnknown)
	case errors.Is(err, rpctypes.ErrRequestTooLarge), errors.Is(err, rpctypes.ErrTooManyOps):
		return ErrTooLarge
	case errors.Is(err, rpctypes.ErrDuplicateKey):
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}
