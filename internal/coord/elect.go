package coord

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/milena-mq/milena/internal/meta"
)

// With an external etcd the controller is whoever holds a key under a lease. That is only who may try: what
// keeps two of them from writing is the token that every write compares, as with every other engine.

const (
	// leaseTTL is seconds; etcd raises it to one and a half of its election timeout, 2 s as it comes.
	leaseTTL     = 1
	leaseEvery   = 300 * time.Millisecond
	resignLimit  = time.Second
	campaignLook = time.Second // besides watching: a watch may be late
	compactEvery = 5 * time.Minute
)

// election is this broker's part in it.
type election struct {
	mu struct {
		sync.Mutex
		lease   clientv3.LeaseID // 0: none
		until   time.Time        // when it may have run out at the store, counted from before it was asked for
		ttl     time.Duration
		term    *Term
		guarded bool
		won     bool      // the key was taken under lease
		idle    time.Time // since when the key is held without a term
		freed   time.Time
		revoked time.Time // last time another broker's lease was given back for it
	}
}

func (r *Remote) electKey() string { return strings.TrimSuffix(string(r.space), "/") + ".lead" }

// Lead implements Store. In a store that lives in other brokers it waits for ctx: whoever leads that store
// is the controller, and this broker is no member.
func (r *Remote) Lead(ctx context.Context) (*Term, error) {
	if !r.o.Elect {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-r.ctx.Done():
			return nil, ErrClosed
		}
	}
	if err := r.campaign(ctx); err != nil {
		return nil, err
	}
	tctx, cancel := context.WithTimeout(ctx, takeOverTimeout)
	defer cancel()
	began := time.Now()
	t, err := r.space.takeOver(tctx, r.o.Identity, r.get, r.commit)
	if err != nil {
		return nil, err
	}
	t.Prove(began)
	r.elect.mu.Lock()
	old := r.elect.mu.term
	r.elect.mu.term = t
	r.elect.mu.Unlock()
	if old != nil {
		old.End()
	}
	if r.ctx.Err() != nil {
		t.End()
		return nil, ErrClosed
	}
	return t, nil
}

func (r *Remote) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	var g *clientv3.GetResponse
	err := r.read(ctx, func(ctx context.Context, c *clientv3.Client) (err error) {
		g, err = c.Get(ctx, key, opts...)
		return err
	})
	return g, err
}

// commit writes under a condition, once: when the endpoint is left meanwhile nobody knows what became of it.
func (r *Remote) commit(ctx context.Context, when clientv3.Cmp, then ...clientv3.Op) (*clientv3.TxnResponse, error) {
	for attempt := 0; ; attempt++ {
		l, moved := r.current()
		lctx, stop := until(ctx, moved, r.ctx.Done())
		x, err := l.cli.Txn(lctx).If(when).Then(then...).Commit()
		stop()
		if err == nil {
			return x, nil
		}
		if err = writeError(err); !errors.Is(err, ErrFull) || attempt == 2 {
			return nil, err
		}
		if room, rerr := r.reclaim(ctx); rerr != nil {
			return nil, fmt.Errorf("%w; reclaim space: %w", err, rerr)
		} else if !room {
			return nil, err
		}
	}
}

// Append implements Store.
func (r *Remote) Append(ctx context.Context, t *Term, cs []meta.Change) (Revision, error) {
	switch {
	case r.ctx.Err() != nil:
		return 0, ErrClosed
	case !r.o.Elect:
		return 0, ErrFenced // nobody here holds a term
	}
	return r.space.append(ctx, t, cs, r.commit)
}

// campaign returns when this broker holds the key.
func (r *Remote) campaign(ctx context.Context) error {
	for {
		lease, err := r.ensureLease(ctx)
		if err == nil {
			var h holder
			if h, err = r.tryKey(ctx, lease); h.lease == lease {
				return nil
			}
			if err == nil {
				err = r.awaitVacancy(ctx, h)
			}
		}
		if err != nil && (ctx.Err() != nil || r.ctx.Err() != nil) {
			if r.ctx.Err() != nil {
				return ErrClosed
			}
			return ctx.Err()
		}
		if err != nil && !wait(ctx, tailAgain) {
			return ctx.Err()
		}
	}
}

// ensureLease is the lease of this broker, a new one when there is none that surely holds.
func (r *Remote) ensureLease(ctx context.Context) (clientv3.LeaseID, error) {
	r.elect.mu.Lock()
	id, until := r.elect.mu.lease, r.elect.mu.until
	r.elect.mu.Unlock()
	asked := time.Now()
	if id != 0 && asked.Before(until) {
		return id, nil
	}
	lctx, cancel := context.WithTimeout(ctx, resignLimit)
	defer cancel()
	l, _ := r.current()
	g, err := l.cli.Grant(lctx, leaseTTL)
	if err != nil {
		return 0, err
	}
	r.elect.mu.Lock()
	defer r.elect.mu.Unlock()
	r.elect.mu.lease, r.elect.mu.ttl = g.ID, time.Duration(g.TTL)*time.Second
	r.elect.mu.until = asked.Add(r.elect.mu.ttl)
	if !r.elect.mu.guarded && r.attach() {
		r.elect.mu.guarded = true
		go r.guard()
	}
	return g.ID, nil
}

// holder is who has the key, as of a revision.
type holder struct {
	lease clientv3.LeaseID
	addr  string // its peer address
	rev   int64
}

// tryKey takes the key when it is free, and says who has it then.
func (r *Remote) tryKey(ctx context.Context, lease clientv3.LeaseID) (holder, error) {
	key := r.electKey()
	lctx, cancel := context.WithTimeout(ctx, resignLimit)
	defer cancel()
	l, _ := r.current()
	x, err := l.cli.Txn(lctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, r.o.Identity.Peer, clientv3.WithLease(lease))).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		if errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
			r.dropLease(lease)
		}
		if errors.Is(rpctypes.Error(err), rpctypes.ErrNoSpace) {
			_, _ = r.reclaim(ctx)
		}
		return holder{}, err
	}
	h := holder{lease: lease, rev: x.Header.Revision}
	if !x.Succeeded {
		h.lease = 0
		if kvs := x.Responses[0].GetResponseRange().GetKvs(); len(kvs) > 0 {
			h.lease, h.addr = clientv3.LeaseID(kvs[0].Lease), string(kvs[0].Value)
		}
	}
	r.elect.mu.Lock()
	r.elect.mu.won = h.lease == lease
	r.elect.mu.Unlock()
	return h, nil
}

// awaitVacancy returns when the key may be free: its holder resigned, its process is gone or its lease ran out.
func (r *Remote) awaitVacancy(ctx context.Context, h holder) error {
	l, moved := r.current()
	lctx, stop := until(ctx, moved, r.ctx.Done())
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.watchHolder(lctx, l, h)
	}()
	defer func() { stop(); <-done }()
	rev := h.rev
	for lctx.Err() == nil {
		wctx, cancel := context.WithTimeout(lctx, campaignLook)
		free, next := r.vacant(wctx, l, rev)
		cancel()
		if free {
			return nil
		}
		rev = next
	}
	return ctx.Err() // nil where only the endpoint was left
}

// vacant watches the key from rev on. It is free, or may be, when it was deleted, when the watch fails and
// when it is not there at the end; otherwise next is where to go on.
func (r *Remote) vacant(ctx context.Context, l *link, rev int64) (free bool, next int64) {
	for x := range l.cli.Watch(clientv3.WithRequireLeader(ctx), r.electKey(), clientv3.WithRev(rev+1)) {
		if x.Err() != nil {
			return true, rev
		}
		for _, ev := range x.Events {
			if ev.Type == clientv3.EventTypeDelete {
				return true, rev
			}
		}
		rev = max(rev, x.Header.Revision)
	}
	gctx, cancel := context.WithTimeout(r.ctx, watchLimit)
	defer cancel()
	g, err := l.cli.Get(gctx, r.electKey(), clientv3.WithKeysOnly())
	return err == nil && len(g.Kvs) == 0, rev
}

// watchHolder looks at the process that has the key: a lease takes seconds to run out, and a port that
// refuses connections says at once that nobody is there. The lease is then given back in its name. Were
// it alive after all, its writes would still be refused only once somebody else has taken over. See sentinel.
func (r *Remote) watchHolder(ctx context.Context, l *link, h holder) {
	if h.addr == "" || h.lease == 0 || h.addr == r.o.Identity.Peer {
		return
	}
	d := dialer(r.o.Local)
	refused := 0
	for ctx.Err() == nil {
		c, err := d.DialContext(ctx, "tcp", h.addr)
		switch {
		case err == nil:
			refused = 0
			// It is not spoken on: the other side ends it after a few seconds, or when its process ends.
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			_, _ = c.Read(make([]byte, 1))
			stop()
			_ = c.Close()
		case errors.Is(err, syscall.ECONNREFUSED):
			if refused++; refused >= refusals && r.elect.mayRevoke(time.Now()) {
				rctx, cancel := context.WithTimeout(ctx, resignLimit)
				_, err := l.cli.Revoke(rctx, h.lease)
				cancel()
				if err == nil {
					r.log.log.Info("the controller's process is gone: its place is free", "address", h.addr)
				}
				return
			}
		default:
			refused = 0
			wait(ctx, campaignLook)
		}
		wait(ctx, refusalEvery)
	}
}

func (r *Remote) dropLease(id clientv3.LeaseID) {
	r.elect.mu.Lock()
	defer r.elect.mu.Unlock()
	if r.elect.mu.lease == id {
		r.elect.mu.lease, r.elect.mu.won = 0, false
	}
}

// guard keeps the lease alive and ends the term when that fails, or when no majority has answered for the
// time a lease lasts. It also throws old revisions away, which nobody else does for us there.
func (r *Remote) guard() {
	defer r.wg.Done()
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	compacted := time.Now()
	for {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			r.elect.end()
			return
		}
		r.renew()
		if time.Since(compacted) > compactEvery && r.elect.holds() {
			compacted = time.Now()
			r.compactOld(r.ctx)
		}
	}
}

// renew asks for more time, and gives up what was not granted.
func (r *Remote) renew() {
	r.elect.mu.Lock()
	id, until, ttl := r.elect.mu.lease, r.elect.mu.until, r.elect.mu.ttl
	r.elect.mu.Unlock()
	if id == 0 {
		r.elect.end()
		return
	}
	asked := time.Now()
	ctx, cancel := context.WithTimeout(r.ctx, min(ttl/2, resignLimit))
	l, _ := r.current()
	_, err := l.cli.KeepAliveOnce(ctx, id)
	cancel()
	switch {
	case err == nil:
		r.elect.mu.Lock()
		if r.elect.mu.lease == id {
			r.elect.mu.until = asked.Add(ttl)
		}
		r.elect.mu.Unlock()
	case errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) || !time.Now().Before(until):
		r.dropLease(id)
		if r.elect.end() {
			r.log.log.Warn("this broker no longer acts as controller: its lease at the coordination store has run out")
		}
	}
	if r.elect.unused(time.Now()) {
		r.log.log.Warn("this broker was elected controller and does not act as one: resigning")
		r.revoke()
	}
}

// confirm passes on what a majority said of the controller's key.
func (e *election) confirm(at time.Time, g *clientv3.GetResponse) {
	e.mu.Lock()
	t := e.mu.term
	e.mu.Unlock()
	if t != nil && !t.Ended() && !t.confirm(at, g) {
		t.End()
	}
}

// mayRevoke is true once in standAgain: two brokers that live and cannot reach each other must not take the
// place from each other all the time.
func (e *election) mayRevoke(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now.Sub(e.mu.revoked) < standAgain {
		return false
	}
	e.mu.revoked = now
	return true
}

// end ends the term that is there; false when there was none.
func (e *election) end() bool {
	e.mu.Lock()
	t := e.mu.term
	e.mu.Unlock()
	if t == nil || t.Ended() {
		return false
	}
	t.End()
	return true
}

// holds says that this broker has a term.
func (e *election) holds() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mu.term != nil && !e.mu.term.Ended()
}

// unused says that the key has been held for too long without a term.
func (e *election) unused(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.term != nil && !e.mu.term.Ended() || !e.mu.won || e.mu.idle.IsZero() {
		e.mu.idle = now
		return false
	}
	if now.Sub(e.mu.idle) < idleLead {
		return false
	}
	e.mu.idle = time.Time{}
	return true
}

// revoke gives the lease back, and with it the key: the next broker has it at once.
func (r *Remote) revoke() {
	r.elect.mu.Lock()
	id := r.elect.mu.lease
	r.elect.mu.lease, r.elect.mu.won = 0, false
	r.elect.mu.Unlock()
	if id == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, resignLimit)
	defer cancel()
	l, _ := r.current()
	_, _ = l.cli.Revoke(ctx, id) // or it runs out by itself
}

// resign is the end of this broker's part in the election.
func (r *Remote) resign() {
	r.elect.end()
	r.revoke()
}

// compactOld throws revisions away that no tail should need any more.
func (r *Remote) compactOld(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, takeOverTimeout)
	defer cancel()
	l, _ := r.current()
	g, err := l.cli.Get(ctx, r.electKey(), clientv3.WithKeysOnly())
	if err != nil || g.Header.Revision <= compactKeep {
		return
	}
	if _, err = l.cli.Compact(ctx, g.Header.Revision-compactKeep); err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrCompacted) {
		r.log.log.Warn("old revisions of the coordination store could not be thrown away", "error", err)
	}
}

// reclaim makes room in a store that is full: old revisions go, every member gives their space back, and the
// alarm that refuses writes is lifted. Once in reclaimAgain at most unless it helped.
func (r *Remote) reclaim(ctx context.Context) (room bool, err error) {
	r.elect.mu.Lock()
	now := time.Now()
	soon := now.Sub(r.elect.mu.freed) < reclaimAgain
	if !soon {
		r.elect.mu.freed = now
	}
	r.elect.mu.Unlock()
	l, _ := r.current()
	if !soon {
		r.log.log.Warn("coordination store is full: throwing old revisions away")
		before, err := l.cli.Status(ctx, r.scheme()+l.addr)
		if err != nil {
			return false, err
		}
		if _, err = l.cli.Compact(ctx, before.Header.Revision, clientv3.WithCompactPhysical()); err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrCompacted) {
			return false, err
		}
		for _, a := range r.Endpoints() {
			r.mu.Lock()
			x := r.mu.links[a]
			r.mu.Unlock()
			if x == nil {
				continue
			}
			if _, err := x.cli.Defragment(ctx, r.scheme()+a); err != nil {
				r.log.log.Warn("a member of the coordination store did not give space back", "member", a, "error", err)
			}
		}
		if after, err := l.cli.Status(ctx, r.scheme()+l.addr); err == nil && after.DbSize < before.DbSize/2 {
			// It was worth its price, and will be again when as much has been written.
			r.elect.mu.Lock()
			r.elect.mu.freed = time.Time{}
			r.elect.mu.Unlock()
		}
	}
	_, err = l.cli.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	return err == nil, err
}

// probeLimits refuses an etcd whose limits are below what one append needs. Neither question changes
// anything or reaches its log: both are refused, or answered, before that.
func (r *Remote) probeLimits(ctx context.Context) error {
	ops := make([]clientv3.Op, MaxChanges)
	for i := range ops {
		ops[i] = clientv3.OpGet(string(r.space)+"limit/"+strconv.Itoa(i), clientv3.WithSerializable(), clientv3.WithCountOnly())
	}
	err := r.read(ctx, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Txn(ctx).Then(ops...).Commit()
		return err
	})
	if errors.Is(rpctypes.Error(err), rpctypes.ErrTooManyOps) {
		return fmt.Errorf("it takes fewer than %d changes at once: start etcd with --max-txn-ops=%d or more", MaxChanges, MaxChanges+24)
	}
	if err != nil {
		return err
	}
	large := string(r.space) + strings.Repeat("x", MaxBytes+grpcSpare)
	err = r.read(ctx, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Get(ctx, large, clientv3.WithSerializable(), clientv3.WithCountOnly())
		return err
	})
	if status.Code(err) == codes.ResourceExhausted || errors.Is(rpctypes.Error(err), rpctypes.ErrRequestTooLarge) {
		return fmt.Errorf("it takes fewer than %d bytes at once: start etcd with --max-request-bytes=%d or more", MaxBytes, MaxBytes+1<<20)
	}
	return err
}

// grpcSpare is what etcd accepts over its limit before it counts.
const grpcSpare = 512 << 10

// unavailable says that the endpoint could not be reached or ended the call.
func unavailable(err error) bool {
	c := status.Code(err)
	return c == codes.Unavailable || c == codes.Canceled || c == codes.DeadlineExceeded
}
