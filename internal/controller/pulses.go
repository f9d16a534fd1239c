package controller

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
)

// seenEvery is how often the clock is read for its own sake, at most: a gap in that is a gap in the process. With a
// shorter session it is a sixth of it.
const seenEvery = 100 * time.Millisecond

// localConn is the connection on which this broker's own heartbeats count as having come: it never closes.
const localConn = math.MaxUint64

// maxConns bounds the connections that are remembered for brokers. Each carried a beat of a registered broker.
const maxConns = 1 << 16

// pulses is the liveness machine with its lock and its clock. It listens on every member of the quorum all the time,
// since every broker beats to all of them: whoever becomes controller judges by what it has heard, not from nothing.
type pulses struct {
	began   time.Time
	session int64         // ms
	wake    chan struct{} // holds one token when a decision may be due
	mu      struct {
		sync.Mutex
		live   *control.Liveness
		conns  map[uint64]int32 // the broker that last beat on a connection
		last   int64            // when the machine was last seen running
		paused bool             // it stood still since somebody asked
		kept   []control.Beat   // of brokers that need no heartbeats of their own; see keep
	}
}

func newPulses(s *config.Static) *pulses {
	p := &pulses{began: time.Now(), session: int64(config.BrokerSessionTimeoutMs.Static(s)), wake: make(chan struct{}, 1)}
	p.mu.live = control.NewLiveness(p.session)
	p.mu.conns = make(map[uint64]int32)
	return p
}

// nowLocked is the time in milliseconds since this process began to listen. When nobody has asked for longer than
// half a session this process itself was not running: the beats of that time lie unread in the sockets, and the first
// verdict after it would fence everybody.
func (p *pulses) nowLocked() int64 {
	now := time.Since(p.began).Milliseconds()
	if gap := now - p.mu.last; gap > p.session/2 {
		p.mu.live.Extend(gap)
		p.mu.paused = true
	}
	p.mu.last = max(p.mu.last, now)
	return now
}

// run keeps the clock seen: it alone runs all the time, so a gap in it is a gap in the process.
func (p *pulses) run(done <-chan struct{}) {
	t := time.NewTicker(min(seenEvery, time.Duration(p.session)*time.Millisecond/6))
	defer t.Stop()
	for {
		select {
		case <-t.C:
			p.mu.Lock()
			p.nowLocked()
			p.mu.Unlock()
		case <-done:
			return
		}
	}
}

func (p *pulses) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// sync brings the registrations of a newer image in.
func (p *pulses) sync(im *meta.Image) {
	p.mu.Lock()
	p.mu.live.Sync(im, p.nowLocked())
	p.mu.Unlock()
	p.nudge()
}

func (p *pulses) beat(im *meta.Image, b control.Beat) (control.Pulse, *control.Error) {
	if b.Conn == 0 {
		b.Conn = localConn
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.mu.live.AnyFull()
	pulse, err := p.mu.live.Beat(im, b, p.nowLocked())
	if err != nil {
		return pulse, err
	}
	if len(b.FullDirs) > 0 && !was {
		p.nudge()
	}
	if b.Conn != localConn && len(p.mu.conns) < maxConns {
		p.mu.conns[b.Conn] = b.ID
	}
	if b.Shutdown || len(b.LostDirs) > 0 || pulse.Fenced != b.Fence {
		p.nudge()
	}
	return pulse, nil
}

func (p *pulses) closed(conn uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id, ok := p.mu.conns[conn]; ok {
		delete(p.mu.conns, conn)
		p.mu.live.Closed(id, conn, p.nowLocked())
		p.nudge()
	}
}

func (p *pulses) check(im *meta.Image, r control.Registration) *control.Error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.live.CheckRegistration(im, r, p.nowLocked())
}

// decide says what is to be done now. paused: this process stood still since the last call, so the term may be long
// over without our knowing.
func (p *pulses) decide(im *meta.Image) (ds []control.Decision, paused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.nowLocked()
	p.mu.live.Sync(im, now)
	for _, b := range p.mu.kept {
		b.Seen = im.Revision()
		_, _ = p.mu.live.Beat(im, b, now) // refused once it has registered anew
	}
	paused, p.mu.paused = p.mu.paused, false
	return p.mu.live.Decide(im, now), paused
}

// next is how long nothing is to be decided if nothing happens: until then the loop may sleep. A beat, a closed
// connection or a new image wakes it.
func (p *pulses) next(im *meta.Image) (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.mu.kept) > 0 {
		return 0, false // its broker is heard whenever somebody asks
	}
	at, ok := p.mu.live.Next(im)
	return time.Duration(at)*time.Millisecond - time.Since(p.began), ok
}

func (p *pulses) hindered() []int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.live.Hindered(p.nowLocked())
}

func (p *pulses) slow(id int32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.live.Slow(id, p.nowLocked())
}

func (p *pulses) full(id int32, dir meta.UUID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.live.Full(id, dir)
}

func (p *pulses) anyFull() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.live.AnyFull()
}

// begin is for a new term.
func (p *pulses) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.live.Begin(p.nowLocked())
}

func (p *pulses) drained(id int32, epoch, rev int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.live.Drained(id, epoch, rev)
}

// keep lets a broker count as heard as long as this process runs: a lone broker that runs its own controller is alive
// whenever anybody asks.
func (p *pulses) keep(id int32, epoch int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.kept = slices.DeleteFunc(p.mu.kept, func(b control.Beat) bool { return b.ID == id })
	p.mu.kept = append(p.mu.kept, control.Beat{ID: id, Epoch: epoch, Conn: localConn})
}
