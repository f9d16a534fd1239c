package coord

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
)

// The death of a process can be seen: its connections close, and its port refuses new ones. Raft does not
// look, it waits until nothing has come for an election timeout. So every member keeps one request open at
// the member that leads, and when that ends, the port refuses, and no other member has such a request open,
// it stands for election at once, in the way that raft has for handing the lead over. This is never unsafe:
// it is an election, with a new term and a majority of votes. It would be a nuisance if the leader were alive
// after all, which is why the others are asked, and why a member does it once in a while only. A leader that
// is frozen, cut off or without power is left to raft's timeout.

const (
	alivePath = "/milena/alive"
	seesPath  = "/milena/sees"
	// refusals in a row, refusalEvery apart, are a dead process and not one that is being replaced.
	refusals     = 3
	refusalEvery = 15 * time.Millisecond
	refusalLimit = 100 * time.Millisecond // of one attempt
	// askTimes is how often another member may say that it still sees the leader, before it is believed: its
	// own connection may end a moment later than ours.
	askTimes = 5
	// standAfter is what a member leaves to each one before it: two that stand at once both lose. It matters
	// only where the first one's log is behind.
	standAfter = 200 * time.Millisecond
	// standAgain is the least time between two elections that this member begins so.
	standAgain = 2 * time.Second
)

// holdOn is the other end of the request that stays open.
func (d *door) holdOn(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusOK)
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	<-r.Context().Done()
}

// sees answers whether this member has a request open at another one.
func (d *door) sees(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.URL.Query().Get("id"), 16, 64)
	if err != nil || id == 0 || d.watches.Load() != id {
		http.Error(w, "no", http.StatusNotFound)
		return
	}
	_, _ = w.Write([]byte("yes"))
}

// sentinel watches the process that leads the engine.
func (e *Etcd) sentinel(o *EtcdOptions) {
	defer e.wg.Done()
	hc := bootClient(o)
	hc.Timeout = 0
	defer hc.CloseIdleConnections()
	var stood time.Time
	for e.ctx.Err() == nil {
		changed := e.srv.LeaderChangedNotify()
		leader := e.srv.Leader()
		m := e.srv.Cluster().Member(leader)
		if leader == 0 || leader == e.srv.MemberID() || m == nil {
			select {
			case <-changed:
			case <-time.After(stewardEvery):
			case <-e.ctx.Done():
			}
			continue
		}
		u := o.peerURL(urlAddr(m.PeerURLs))
		u.Path = alivePath
		e.stayWith(hc, u.String(), leader, changed)
		if l := e.srv.Leader(); e.ctx.Err() != nil || l != leader && l != 0 {
			continue
		}
		if time.Since(stood) > standAgain && e.gone(hc, u.String()) && !e.seen(hc, o, leader) && e.stand(leader) {
			stood = time.Now()
			continue
		}
		wait(e.ctx, refusalEvery*refusals)
	}
}

// stayWith returns when the request at the leader has ended, or another member leads.
func (e *Etcd) stayWith(hc *http.Client, u string, leader types.ID, changed <-chan struct{}) {
	ctx, stop := until(e.ctx, changed, nil)
	defer stop()
	resp, err := get(ctx, hc, u)
	if err != nil {
		return
	}
	e.door.watches.Store(uint64(leader))
	defer e.door.watches.Store(0)
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxBootBytes))
	_ = resp.Body.Close()
}

// get returns when the answer has begun; anything but success is an error.
func get(ctx context.Context, hc *http.Client, u string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	resp, err := hc.Do(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, errors.New(resp.Status)
	}
	return resp, err
}

// gone says that nobody serves an address, several times in a row: the port refuses, or whatever stands in
// front of it ends the connection without a word.
func (e *Etcd) gone(hc *http.Client, u string) bool {
	for i := range refusals {
		if i > 0 && !wait(e.ctx, refusalEvery) {
			return false
		}
		ctx, cancel := context.WithTimeout(e.ctx, refusalLimit)
		resp, err := get(ctx, hc, u)
		if err == nil {
			_ = resp.Body.Close()
		}
		cancel()
		if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return false
		}
	}
	return true
}

// seen says that another member with a vote has a request open at the leader, and keeps saying so.
func (e *Etcd) seen(hc *http.Client, o *EtcdOptions, leader types.ID) bool {
	for i := range askTimes {
		if i > 0 && !wait(e.ctx, refusalEvery) {
			return true
		}
		ctx, cancel := context.WithTimeout(e.ctx, refusalLimit)
		var yes atomic.Bool
		var wg sync.WaitGroup
		for _, m := range e.srv.Cluster().Members() {
			if m.ID == leader || m.ID == e.srv.MemberID() || m.IsLearner {
				continue
			}
			u := o.peerURL(urlAddr(m.PeerURLs))
			u.Path, u.RawQuery = seesPath, "id="+leader.String()
			wg.Go(func() {
				resp, err := get(ctx, hc, u.String())
				if err == nil {
					_ = resp.Body.Close()
				}
				// One that does not say is taken for one that sees it: where all is slow, waiting is right.
				if err == nil || errors.Is(err, context.DeadlineExceeded) {
					yes.Store(true)
				}
			})
		}
		wg.Wait()
		cancel()
		if !yes.Load() {
			return false
		}
	}
	return true
}

// stand stands for election, unless this member has no vote or another one was quicker.
func (e *Etcd) stand(dead types.ID) bool {
	self := e.srv.MemberID()
	rank := time.Duration(0)
	for _, m := range e.srv.Cluster().Members() {
		switch {
		case m.ID == self && m.IsLearner:
			return false
		case m.ID < self && m.ID != dead && !m.IsLearner:
			rank++
		}
	}
	changed := e.srv.LeaderChangedNotify()
	if rank > 0 {
		t := time.NewTimer(rank * standAfter)
		defer t.Stop()
		select {
		case <-t.C:
		case <-changed:
			return false
		case <-e.ctx.Done():
			return false
		}
	}
	// No leader at all is one that stood before this member and did not have the newest log.
	if l := e.srv.Leader(); l != dead && l != 0 {
		return false
	}
	e.log.log.Info("the process that leads the coordination store is gone: standing for election", "member", dead)
	ctx, cancel := context.WithTimeout(e.ctx, answerTimeout)
	defer cancel()
	// The message with which a leader asks another member to take over, in its name.
	to, from := uint64(self), uint64(dead)
	return e.srv.Process(ctx, &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), To: &to, From: &from}) == nil
}
