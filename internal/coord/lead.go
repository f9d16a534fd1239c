package coord

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/milena-mq/milena/internal/meta"
)

const (
	// takeOverTimeout bounds a read and a write: generous, because a disk that needs 100 ms for a sync is
	// slow and not dead, and a controller that gives up too early is none at all.
	takeOverTimeout = 10 * time.Second
	// proveEvery and proveLimit: how often the controller asks a quorum whether it still leads, and how long
	// that may take. A member whose disk hangs goes on believing that it leads while another one does.
	proveEvery = 100 * time.Millisecond
	proveLimit = 300 * time.Millisecond
	// idleLead is how long a member may lead the engine without a term before it gives the lead away: the
	// cluster has no controller meanwhile. More than takeOverTimeout.
	idleLead = 12 * time.Second
	// moveTimeout bounds the handing over to one other member.
	moveTimeout = 400 * time.Millisecond
	// closeMove bounds the handing over when this member stops.
	closeMove = time.Second
	// stewardEvery is how often a member that leads looks after the quorum.
	stewardEvery = 200 * time.Millisecond
)

// Lead implements Store: the broker that leads the embedded engine is the controller.
func (e *Etcd) Lead(ctx context.Context) (*Term, error) {
	if err := e.awaitLeader(ctx, true); err != nil {
		return nil, err
	}
	tctx, cancel := context.WithTimeout(ctx, takeOverTimeout)
	began := time.Now()
	t, err := prefix.takeOver(tctx, e.id, e.get, e.commit)
	late := tctx.Err() != nil && ctx.Err() == nil
	cancel()
	if err != nil {
		if late && e.door != nil {
			// It leads and cannot even write this much: somebody else should try.
			mctx, cancel := context.WithTimeout(ctx, closeMove)
			e.moveLead(mctx)
			cancel()
		}
		return nil, err
	}
	t.Prove(began)
	e.mu.Lock()
	old := e.mu.term
	e.mu.term = t
	e.mu.Unlock()
	if old != nil {
		old.End()
	}
	if !e.attach() {
		t.End()
		return nil, e.closed()
	}
	if e.door == nil {
		go e.watchTerm(t)
	} else {
		go e.proveTerm(t)
	}
	return t, nil
}

// awaitLeader returns when the engine has a leader; with self, when this member leads it.
func (e *Etcd) awaitLeader(ctx context.Context, self bool) error {
	for {
		changed := e.srv.LeaderChangedNotify() // before the look, or a change between the two is missed
		if l := e.srv.Leader(); l != 0 && (!self || l == e.srv.MemberID()) {
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.ctx.Done():
			return e.closed()
		}
	}
}

// watchTerm ends a term when this member no longer leads the engine. It is for a member that is alone.
func (e *Etcd) watchTerm(t *Term) {
	defer e.wg.Done()
	defer t.End()
	for {
		changed := e.srv.LeaderChangedNotify()
		if e.srv.Leader() != e.srv.MemberID() {
			return
		}
		select {
		case <-changed:
		case <-t.Done():
			return
		case <-e.ctx.Done():
			return
		}
	}
}

// proveTerm ends a term when this member no longer leads the engine, or cannot prove that it does.
func (e *Etcd) proveTerm(t *Term) {
	defer e.wg.Done()
	defer t.End()
	tick := time.NewTicker(proveEvery)
	defer tick.Stop()
	for {
		changed := e.srv.LeaderChangedNotify()
		if e.srv.Leader() != e.srv.MemberID() {
			return
		}
		select {
		case <-changed: // looks again
		case <-tick.C:
			ctx, cancel := context.WithTimeout(e.ctx, proveLimit)
			at := time.Now()
			r, err := e.cli.Get(ctx, string(prefix)+meta.KeyController, clientv3.WithKeysOnly())
			cancel()
			switch {
			case err != nil:
				if !t.Ended() && e.ctx.Err() == nil {
					e.log.log.Warn("this broker no longer acts as controller: it cannot hear from a majority of the coordination store in time", "term", t.Epoch, "limit", proveLimit)
				}
				return
			case !t.confirm(at, r):
				return // the lead went to another member and came back between two looks
			}
		case <-t.Done():
			return
		case <-e.ctx.Done():
			return
		}
	}
}

// heard returns when a majority has answered: what this member knows is not older than the call.
func (e *Etcd) heard(ctx context.Context) error {
	_, err := e.srv.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	return err
}

// moveLead gives the lead of the engine to another member with a vote, the first that takes it. It
// returns at once when this member does not lead.
func (e *Etcd) moveLead(ctx context.Context) bool {
	self := e.srv.MemberID()
	for _, m := range e.srv.Cluster().Members() {
		if e.srv.Leader() != self || ctx.Err() != nil {
			break
		}
		if m.ID == self || m.IsLearner {
			continue
		}
		// A member that does not answer would cost the whole time: the engine waits for it.
		addr := urlAddr(m.PeerURLs)
		if s, err := e.others.status(ctx, addr); err != nil || s.GetLeader() != uint64(self) {
			continue
		}
		mctx, cancel := context.WithTimeout(ctx, moveTimeout)
		err := e.srv.MoveLeader(mctx, uint64(self), uint64(m.ID))
		cancel()
		if err == nil {
			return true
		}
	}
	return e.srv.Leader() != self
}

// steward looks after the quorum while this member leads the engine: learners that have caught up get
// their vote, and a member that leads without being controller makes room for one that can.
func (e *Etcd) steward() {
	defer e.wg.Done()
	tick := time.NewTicker(stewardEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-e.ctx.Done():
			return
		}
		if e.srv.Leader() != e.srv.MemberID() {
			e.mu.Lock()
			e.mu.leads = time.Time{}
			e.mu.Unlock()
			continue
		}
		e.promote()
		if e.idle(time.Now()) {
			e.log.log.Warn("this broker leads the coordination store and cannot act as controller: giving the lead away")
			ctx, cancel := context.WithTimeout(e.ctx, closeMove)
			e.moveLead(ctx)
			cancel()
		}
	}
}

// idle says that this member has led for too long without a term.
func (e *Etcd) idle(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.term != nil && !e.mu.term.Ended() || e.mu.leads.IsZero() {
		e.mu.leads = now
		return false
	}
	if now.Sub(e.mu.leads) < idleLead {
		return false
	}
	e.mu.leads = now
	return true
}

// promote gives their vote to learners that have run and caught up. etcd refuses the others, and says so in
// its log, so that only those are tried that are close.
func (e *Etcd) promote() {
	for _, m := range e.srv.Cluster().Members() {
		if !m.IsLearner || len(m.ClientURLs) == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(e.ctx, 5*time.Second)
		s, err := e.others.status(ctx, urlAddr(m.PeerURLs))
		if err == nil && e.srv.CommittedIndex() <= s.GetRaftAppliedIndex()+promoteWithin {
			_, err = e.srv.PromoteMember(ctx, uint64(m.ID))
			if err == nil {
				e.log.log.Info("a broker has become a full member of the coordination store", "broker", memberNode(m.Name), "address", urlAddr(m.PeerURLs))
			}
		}
		cancel()
	}
}

// promoteWithin is how many entries a learner may be behind.
const promoteWithin = 100
