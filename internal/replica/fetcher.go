package replica

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/partition"
)

// The times of a fetcher.
const (
	dialTimeout   = 2 * time.Second
	firstRedial   = 10 * time.Millisecond
	lastRedial    = 500 * time.Millisecond
	firstPause    = 5 * time.Millisecond  // of a partition after an error; it doubles up to replica.fetch.backoff.ms
	throttlePause = 50 * time.Millisecond // of a throttled partition
	epochPause    = 10 * time.Millisecond // while this broker is not registered
	// answerTimeout comes on top of the wait that a fetch asks for. A leader that answers nothing for so long
	// is not there, or the network takes what it says: a new connection finds out.
	answerTimeout = 8 * time.Second
)

// maxFlights is one request that waits at the leader and one that overtakes it, because there is something
// new to ask: the leader ends the wait of the first when the second comes.
const maxFlights = 2

// state is where a partition stands.
type state uint8

const (
	due    state = iota // to be asked for with the next request
	asked               // the leader has been asked
	bound               // asked for the leader's log start and end
	paused              // asked for again at until
	rests               // until the role changes
)

// part is one partition that a fetcher follows. It belongs to the fetcher's goroutine.
type part struct {
	key     key
	f       *partition.Follower
	next    partition.Next
	state   state
	listed  bool  // in the leader's session
	askedIn int64 // number of the request that asked for next
	failed  int   // errors in a row
	until   time.Time
	wide    bool  // the last answer was full: it is far behind
	size    int32 // bytes asked for
	held    bool  // paused by a throttle, not by an error

	start, end int64 // what the leader answered so far while bound; -1: nothing
}

// flight is a request under way.
type flight struct {
	n      int64
	call   pending
	full   bool // it makes a session
	bounds []*part
	ends   bool // bounds: log ends, not log starts
	until  time.Time
}

// note is what the Manager leaves for a fetcher: follow f, or nothing any more.
type note struct {
	key key
	f   *partition.Follower
}

// fetcher keeps partitions up with one leader.
type fetcher struct {
	m      *Manager
	source source
	wake   chan struct{} // capacity 1
	mu     struct {
		sync.Mutex
		notes   []note
		address bool // the leader's registration changed
	}

	// What follows belongs to the goroutine.
	parts   map[key]*part
	due     []*part
	paused  []*part
	syncing []*part
	bounds  []*part
	forget  map[key]struct{}
	listed  int // partitions in the leader's session

	link     link
	at       string // address of link
	redials  int
	hold     time.Time // nothing is sent before
	flights  []flight
	free     [][]byte // buffers
	n        int64    // of the last request
	session  int32
	epoch    int32   // of the next request in the session; 0: a full one
	greeted  bool    // a session was asked for on this link
	wide     int     // partitions whose last answers were full
	bulk     []*part // far behind, with bytes that are not synced
	unsynced int64   // those bytes
	pace     pace
	build    builder
	sync     []*partition.Follower
}

func newFetcher(m *Manager, s source) *fetcher {
	return &fetcher{m: m, source: s, wake: make(chan struct{}, 1), parts: map[key]*part{}, forget: map[key]struct{}{}}
}

// note leaves a note; it never blocks.
func (f *fetcher) note(n note) {
	f.mu.Lock()
	f.mu.notes = append(f.mu.notes, n)
	f.mu.Unlock()
	f.poke()
}

// moved says that the leader's registration has changed.
func (f *fetcher) moved() {
	f.mu.Lock()
	f.mu.address = true
	f.mu.Unlock()
	f.poke()
}

func (f *fetcher) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// run works until nothing is left to fetch or the Manager closes.
func (f *fetcher) run() {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	defer f.disconnect()
	for {
		f.read()
		now := f.m.o.Clock()
		f.unpause(now)
		if len(f.parts) == 0 && f.m.ended(f) {
			return
		}
		f.send(now)
		f.syncBulk()
		t.Reset(f.rest(now))
		var done <-chan struct{}
		if len(f.flights) > 0 {
			done = f.flights[0].call.Done()
		}
		select {
		case <-f.m.ctx.Done():
			return
		case <-f.wake:
		case <-t.C:
			f.expire(f.m.o.Clock())
		case <-done:
			f.landed()
		}
	}
}

// rest is how long nothing happens by itself.
func (f *fetcher) rest(now time.Time) time.Duration {
	next := now.Add(time.Hour)
	if len(f.flights) > 0 {
		next = f.flights[0].until
	} else if len(f.parts) > 0 && f.hold.After(now) {
		next = f.hold
	}
	for _, p := range f.paused {
		if p.until.Before(next) {
			next = p.until
		}
	}
	return max(next.Sub(now), 0)
}

// read takes the notes.
func (f *fetcher) read() {
	f.mu.Lock()
	notes, address := f.mu.notes, f.mu.address
	f.mu.notes, f.mu.address = nil, false
	f.mu.Unlock()
	if address {
		f.hold, f.redials = time.Time{}, 0
		if f.link != nil && f.m.addr(f.source.leader) != f.at {
			f.disconnect()
		}
	}
	for _, n := range notes {
		if old := f.parts[n.key]; old != nil {
			f.drop(old)
		}
		if n.f == nil {
			continue
		}
		p := &part{key: n.key, f: n.f}
		f.parts[n.key] = p
		f.step(p, n.f.Begin())
	}
	f.settle()
}

// drop forgets a partition.
func (f *fetcher) drop(p *part) {
	f.unlist(p)
	p.state = rests
	if f.parts[p.key] == p {
		delete(f.parts, p.key)
	}
	if p.wide {
		f.wide--
	}
}

// unlist takes a partition out of the leader's session with the next request.
func (f *fetcher) unlist(p *part) {
	if p.listed {
		p.listed = false
		f.listed--
		f.forget[p.key] = struct{}{}
	}
}

// step files a partition under what it wants next.
func (f *fetcher) step(p *part, n partition.Next) {
	p.next = n
	switch n.Step {
	case partition.Ask:
		p.state = due
		f.due = append(f.due, p)
		if n := p.f.Unsynced(); n > 0 {
			f.bulk = append(f.bulk, p)
			f.unsynced += n
		}
	case partition.Later:
		p.failed++
		f.pause(p, f.backoff(p.failed))
	case partition.Sync:
		f.syncing = append(f.syncing, p)
	case partition.Bound:
		f.unlist(p)
		p.state, p.start, p.end = bound, -1, -1
		f.bounds = append(f.bounds, p)
	case partition.Rest:
		f.unlist(p)
		p.state = rests
	case partition.Over:
		f.drop(p)
	}
}

// backoff doubles with every error in a row. It begins short: after an election followers and leader hear of
// it within milliseconds of each other, and whoever asks too early must not lose a second.
func (f *fetcher) backoff(failed int) time.Duration {
	top := time.Duration(config.ReplicaFetchBackoffMs.Of(f.m.o.Set.BrokerLayers())) * time.Millisecond
	return max(min(firstPause<<min(failed-1, 12), top), time.Millisecond)
}

// pause takes a partition out of the session for a while: with an error that stays, it would end every long poll.
func (f *fetcher) pause(p *part, d time.Duration) {
	f.unlist(p)
	p.held = false
	p.state, p.until = paused, f.m.o.Clock().Add(d)
	f.paused = append(f.paused, p)
}

// unpause brings back whose pause is over.
func (f *fetcher) unpause(now time.Time) {
	kept := f.paused[:0]
	for _, p := range f.paused {
		switch {
		case p.state != paused || f.parts[p.key] != p:
		case p.held && !p.until.After(now) && f.m.o.Set.Taking.Left(now.UnixMilli()) == 0:
			p.until = now.Add(throttlePause)
			kept = append(kept, p)
		case p.until.After(now):
			kept = append(kept, p)
		default:
			p.state = due
			f.due = append(f.due, p)
		}
	}
	clear(f.paused[len(kept):])
	f.paused = kept
}

// settle makes durable what was appended, one round for all, and goes on with those partitions.
func (f *fetcher) settle() {
	for range 2 {
		if len(f.syncing) == 0 {
			return
		}
		list := f.syncing
		f.syncing = nil
		f.sync = f.sync[:0]
		for _, p := range list {
			f.sync = append(f.sync, p.f)
		}
		f.m.o.Set.Sync(f.sync)
		for _, p := range list {
			if f.parts[p.key] == p {
				f.step(p, p.f.Synced())
			}
		}
		clear(f.sync)
	}
	for _, p := range f.syncing { // not durable after a sync: it is tried again, but not at once
		f.step(p, partition.Next{Step: partition.Later, Offset: p.next.Offset, LastEpoch: p.next.LastEpoch, LogStart: p.next.LogStart})
	}
	f.syncing = f.syncing[:0]
}

// send sends what is due, when there is room.
func (f *fetcher) send(now time.Time) {
	if f.hold.After(now) || len(f.parts) == 0 {
		return
	}
	fetches := 0
	for i := range f.flights {
		if f.flights[i].bounds == nil {
			fetches++
		}
	}
	f.liveDue()
	full := f.epoch == 0
	switch {
	case fetches >= maxFlights:
		return
	case fetches > 0 && (full || len(f.due) == 0):
		return // a session that is being made cannot be overtaken
	}
	if f.listed+len(f.due)+len(f.bounds) == 0 {
		return
	}
	epoch := f.m.o.Epoch()
	if epoch < 0 {
		f.hold = now.Add(epochPause)
		return
	}
	if f.link == nil && !f.connect(now) {
		return
	}
	if len(f.bounds) > 0 && !f.askBounds(now) {
		return
	}
	if f.listed+len(f.due) > 0 {
		f.fetch(now, epoch, full)
	}
}

// liveDue drops from the list who is not due any more.
func (f *fetcher) liveDue() {
	kept := f.due[:0]
	for _, p := range f.due {
		if p.state == due && f.parts[p.key] == p {
			kept = append(kept, p)
		}
	}
	clear(f.due[len(kept):])
	f.due = kept
}

// connect opens the connection; false when that has to wait.
func (f *fetcher) connect(now time.Time) bool {
	addr := f.m.addr(f.source.leader)
	var err error
	if addr != "" {
		limit := time.Duration(config.SocketConnectionSetupTimeoutMs.Of(f.m.o.Set.BrokerLayers())) * time.Millisecond
		ctx, cancel := context.WithTimeout(f.m.ctx, min(limit, dialTimeout))
		f.link, err = f.m.o.dial(ctx, addr)
		cancel()
	}
	if addr == "" || err != nil {
		f.link = nil
		d := min(firstRedial<<min(f.redials, 10), lastRedial)
		f.redials++
		if f.redials == 8 {
			f.m.log.Warn("leader not reached", "leader", f.source.leader, "addr", addr, "partitions", len(f.parts), "err", err)
		}
		f.hold = now.Add(d)
		return false
	}
	f.at, f.greeted, f.epoch = addr, false, 0
	return true
}

// disconnect ends the connection and what is under way on it. All that was asked is asked again.
func (f *fetcher) disconnect() {
	if f.link != nil {
		_ = f.link.Close() // nothing is sent after it, and what was asked is asked again
		f.link = nil
	}
	for i := range f.flights {
		for _, p := range f.flights[i].bounds {
			if p.state == bound && f.parts[p.key] == p {
				p.state = due
				f.due = append(f.due, p)
			}
		}
	}
	f.flights, f.free, f.epoch = nil, nil, 0
}

// fetch sends a Fetch.
func (f *fetcher) fetch(now time.Time, epoch int64, full bool) {
	l := f.limits()
	f.n++
	b := &f.build
	b.reset(f.m.o.NodeID, epoch, l)
	b.req.SessionID, b.req.SessionEpoch = f.session, f.epoch
	if full {
		if !f.greeted {
			b.req.MaxWaitMillis = 0 // nothing can overtake it
		}
		f.greeted = true
		f.listed = 0
		for _, p := range f.parts {
			if p.listed = p.state == due || p.state == asked; p.listed {
				f.listed++
				f.ask(p, l)
			}
		}
	} else {
		for _, p := range f.due {
			delete(f.forget, p.key)
			if !p.listed {
				p.listed = true
				f.listed++
			}
			f.ask(p, l)
		}
		for k := range f.forget {
			b.forget(k)
		}
		f.epoch = nextEpoch(f.epoch)
	}
	clear(f.forget)
	clear(f.due)
	f.due = f.due[:0]
	var buf []byte
	if n := len(f.free); n > 0 {
		buf, f.free = f.free[n-1], f.free[:n-1]
	}
	call, err := f.link.Start(f.m.ctx, b.req, buf)
	if err != nil {
		f.broken(now, err)
		return
	}
	f.flights = append(f.flights, flight{n: f.n, call: call, full: full, until: now.Add(time.Duration(l.wait)*time.Millisecond + answerTimeout)})
}

func (f *fetcher) ask(p *part, l limits) {
	n := l.partBytes
	if p.wide {
		n = min(max(bulkBytes/int32(max(f.wide, 1)), leastBulk), l.maxBytes)
	}
	if p.f.Partition().FollowerThrottled() {
		n = int32(min(int64(n), max(f.m.o.Set.Taking.Left(f.m.o.Clock().UnixMilli()), 1)))
	}
	f.build.ask(p, n)
	p.state, p.askedIn, p.size = asked, f.n, n
}

// nextEpoch wraps from the largest int32 to 1: 0 and -1 have their own meaning (KIP-227).
func nextEpoch(e int32) int32 {
	if e == 1<<31-1 {
		return 1
	}
	return e + 1
}

// broken ends a connection that failed and says when the next one is tried.
func (f *fetcher) broken(now time.Time, err error) {
	f.m.log.Debug("connection to leader lost", "leader", f.source.leader, "err", err)
	f.disconnect()
	f.hold = now.Add(min(firstRedial<<min(f.redials, 10), lastRedial))
	f.redials++
}

// expire ends a connection on which an answer is overdue.
func (f *fetcher) expire(now time.Time) {
	if len(f.flights) > 0 && !f.flights[0].until.After(now) {
		f.broken(now, kerr.RequestTimedOut)
	}
}
