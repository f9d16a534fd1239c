package control

import (
	"cmp"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/meta"
)

// ClosedMs is how long a broker's connection stays closed before the broker counts as dead. A broker
// that only reconnects is back before that.
const ClosedMs = 100

// Liveness knows which brokers live. It is a machine without clock: times are milliseconds of one
// monotone clock, given in. Every member of the quorum runs one all the time, since every broker beats
// to all of them; only the controller acts on what it decides. So whoever becomes controller judges a
// broker by what it has heard so far, and a broker that died with the last controller gets no new
// grace. Not safe for concurrent use.
type Liveness struct {
	sessionMs int64 // broker.session.timeout.ms
	brokers   map[int32]*pulse
}

// pulse is what is known of one incarnation, by its broker epoch.
type pulse struct {
	epoch    int64
	heard    int64  // last beat; before the first one, when the registration was seen
	conn     uint64 // that beat came on it
	closed   int64  // since when conn is closed; -1: open, or never opened
	seen     int64  // revision of the broker's own image
	want     int64  // a revision that the image at hand had, and that it was not known to have at wantAt
	wantAt   int64
	fenced   bool  // as the image showed it last
	since    int64 // revision of the first image that showed it fenced after it was not; 0: never
	fence    bool  // it asks to stay fenced
	shutdown bool  // it wants to leave
	drained  int64 // revision at which nothing of it could move any more; 0: not yet
	lost     []meta.UUID
	full     []meta.UUID // as of the last beat
	dirs     int         // how many directories it registered
}

// NewLiveness knows nobody yet. sessionMs is above 0.
func NewLiveness(sessionMs int64) *Liveness {
	return &Liveness{sessionMs: max(sessionMs, 1), brokers: make(map[int32]*pulse)}
}

// Sync brings the registrations of an image in: an incarnation not known so far has the session
// timeout to send its first beat, one that was replaced or unregistered is forgotten.
func (l *Liveness) Sync(im *meta.Image, now int64) {
	for id := range l.brokers {
		if im.Broker(id) == nil {
			delete(l.brokers, id)
		}
	}
	for _, b := range im.Brokers() {
		p := l.brokers[b.ID]
		if p == nil || p.epoch < b.Epoch {
			p = &pulse{epoch: b.Epoch, heard: now, closed: -1, fenced: b.Fenced}
			l.brokers[b.ID] = p
		}
		if b.Fenced && !p.fenced {
			p.since = im.Revision()
		}
		p.fenced = b.Fenced
	}
}

// Beat is one heartbeat (BrokerHeartbeat), and the connection it came on.
type Beat struct {
	ID       int32
	Epoch    int64
	Seen     int64  // revision up to which the broker has the metadata
	Conn     uint64 // above 0, of one machine never used twice
	Fence    bool   // it wants to be fenced
	Shutdown bool   // it wants to shut down
	LostDirs []meta.UUID
	FullDirs []meta.UUID // no room for records there
}

// Pulse is the answer to a heartbeat.
type Pulse struct{ CaughtUp, Fenced, Shutdown bool }

// Beat takes a heartbeat in. im is the image at hand.
func (l *Liveness) Beat(im *meta.Image, b Beat, now int64) (Pulse, *Error) {
	r := im.Broker(b.ID)
	if p := l.brokers[b.ID]; r != nil && (p == nil || p.epoch < r.Epoch) {
		l.Sync(im, now)
	}
	p := l.brokers[b.ID]
	switch {
	case r == nil || p == nil:
		return Pulse{}, refuse(kerr.BrokerIDNotRegistered, "broker %d is not registered", b.ID)
	case r.Epoch != b.Epoch || p.epoch != b.Epoch:
		return Pulse{}, refuse(kerr.StaleBrokerEpoch, "broker %d has epoch %d, not %d", b.ID, r.Epoch, b.Epoch)
	}
	p.heard, p.conn, p.closed = max(p.heard, now), b.Conn, -1
	p.seen = max(p.seen, b.Seen)
	if p.want == 0 || p.seen >= p.want {
		p.want, p.wantAt = im.Revision(), now
	}
	p.fence = b.Fence
	p.shutdown = p.shutdown || b.Shutdown // there is no way back from a controlled shutdown
	p.full, p.dirs = p.full[:0], len(r.Dirs)
	for _, d := range b.FullDirs {
		if slices.Contains(r.Dirs, d) && !slices.Contains(p.full, d) {
			p.full = append(p.full, d)
		}
	}
	for _, d := range b.LostDirs {
		// Only what it registered counts, which also bounds the list.
		if slices.Contains(r.Dirs, d) && !slices.Contains(p.lost, d) {
			p.lost = append(p.lost, d)
		}
	}
	return Pulse{CaughtUp: p.seen >= r.Epoch, Fenced: r.Fenced, Shutdown: p.shutdown && l.released(im, r, p)}, nil
}

// Closed says that a connection is gone. One that carried no beat, or an older one, does not matter.
func (l *Liveness) Closed(id int32, conn uint64, now int64) {
	if p := l.brokers[id]; p != nil && p.conn == conn && p.conn != 0 && p.closed < 0 {
		p.closed = now
	}
}

// Extend gives every broker more time, in milliseconds: the machine that listens stood still that long (SIGSTOP, a
// paused virtual machine), and what it did not hear says nothing about who did not speak.
func (l *Liveness) Extend(ms int64) {
	for _, p := range l.brokers {
		p.heard, p.wantAt = p.heard+ms, p.wantAt+ms
		if p.closed >= 0 {
			p.closed += ms
		}
	}
}

// Slow says that a broker lives, but has not seen for a session what the metadata were then: its way to the store is
// cut, or it is stuck. It would not know that it leads.
func (l *Liveness) Slow(id int32, now int64) bool {
	p := l.brokers[id]
	return p != nil && l.slow(p, now)
}

// Full says that a directory of a broker has no room for records, by the broker's last word. A replica whose directory is not known,
// the zero id, may lie in any: it counts when all of them are full.
func (l *Liveness) Full(id int32, dir meta.UUID) bool {
	p := l.brokers[id]
	switch {
	case p == nil:
		return false
	case dir.IsZero():
		return len(p.full) > 0 && len(p.full) == p.dirs
	}
	return slices.Contains(p.full, dir)
}

// AnyFull says that some broker has a directory without room.
func (l *Liveness) AnyFull() bool {
	for _, p := range l.brokers {
		if len(p.full) > 0 {
			return true
		}
	}
	return false
}

func (l *Liveness) slow(p *pulse, now int64) bool {
	return p.conn != 0 && p.seen < p.want && now-p.wantAt > l.sessionMs
}

// Hindered lists the brokers that are slow or have a full directory: elections pass over them.
func (l *Liveness) Hindered(now int64) []int32 {
	var out []int32
	for id, p := range l.brokers {
		if l.slow(p, now) || len(p.full) > 0 {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// Begin is for a new controller: brokers that it never heard get a session to be heard in. Those may be brokers that
// beat to other members only and learn now who leads.
func (l *Liveness) Begin(now int64) {
	for _, p := range l.brokers {
		if p.conn == 0 {
			p.heard = max(p.heard, now)
		}
	}
}

// deadline is when a broker counts as dead unless it is heard again.
func (l *Liveness) deadline(p *pulse) int64 {
	at := p.heard + l.sessionMs
	if p.closed >= 0 {
		at = min(at, p.closed+ClosedMs)
	}
	return at
}

// CheckRegistration refuses a second broker under the id of a live one. The same incarnation may
// register again: its answer may have been lost.
func (l *Liveness) CheckRegistration(im *meta.Image, r Registration, now int64) *Error {
	b, p := im.Broker(r.ID), l.brokers[r.ID]
	if b == nil || b.Incarnation == r.Incarnation || p == nil || p.epoch != b.Epoch {
		return nil
	}
	// One that has never beaten here is judged by its record: fenced ones do not count as live.
	if now >= l.deadline(p) || p.conn == 0 && b.Fenced || p.shutdown && p.closed >= 0 {
		return nil
	}
	return refuse(kerr.DuplicateBrokerRegistration, "Another broker is registered with id %d and lives.", r.ID)
}

// Verdict is what is to be done about a broker.
type Verdict int8

// The verdicts, in the order in which Decide gives them.
const (
	VerdictFence    Verdict = iota // Cluster.Fence
	VerdictLoseDirs                // Cluster.LoseDirs
	VerdictDrain                   // Cluster.Drain; an empty plan is reported by Drained
	VerdictUnfence                 // Cluster.Unfence
)

func (v Verdict) String() string { return [...]string{"fence", "lose dirs", "drain", "unfence"}[v] }

// Decision is one verdict.
type Decision struct {
	Verdict Verdict
	ID      int32
	Epoch   int64
	Dirs    []meta.UUID // VerdictLoseDirs
	Reason  string
}

// Decide says what the controller has to do now, the dead first: who is elected in their place must
// not be one of them. It changes nothing; a decision comes again until the image shows it done.
func (l *Liveness) Decide(im *meta.Image, now int64) []Decision {
	var out []Decision
	add := func(v Verdict, b *meta.Broker, reason string) {
		out = append(out, Decision{Verdict: v, ID: b.ID, Epoch: b.Epoch, Reason: reason})
	}
	for _, b := range im.Brokers() {
		p := l.brokers[b.ID]
		if p == nil || p.epoch != b.Epoch {
			continue
		}
		dead := now >= l.deadline(p)
		var lost []meta.UUID
		for _, d := range p.lost {
			if slices.Contains(b.Dirs, d) {
				lost = append(lost, d)
			}
		}
		switch {
		case dead && !b.Fenced && p.closed >= 0 && now >= p.closed+ClosedMs:
			add(VerdictFence, b, "its connection is closed")
		case dead && !b.Fenced:
			add(VerdictFence, b, "it is silent")
		case dead:
		case p.fence && !b.Fenced && !p.shutdown && l.others(im, b.ID):
			add(VerdictFence, b, "it asks for it")
		case len(lost) > 0 && (len(lost) < len(b.Dirs) || !b.Fenced):
			add(VerdictLoseDirs, b, "it lost log directories")
			out[len(out)-1].Dirs = lost
		case p.shutdown && !b.Fenced && p.drained == 0:
			add(VerdictDrain, b, "it shuts down")
		case b.Fenced && !p.fence && !p.shutdown && p.conn != 0 && p.seen >= max(b.Epoch, p.since) && len(lost) == 0:
			// Before it has seen its own fence it believes that it leads what others lead by now: taken back earlier,
			// it would be told that it is current and answer reads from there (I9).
			add(VerdictUnfence, b, "it has caught up")
		}
	}
	slices.SortStableFunc(out, func(a, b Decision) int { return cmp.Compare(a.Verdict, b.Verdict) })
	return out
}

// others says that somebody else takes part and does not ask to be fenced: where all ask, because one disk that they
// share is slow, nobody would be left.
func (l *Liveness) others(im *meta.Image, but int32) bool {
	for _, b := range im.Brokers() {
		if p := l.brokers[b.ID]; b.ID != but && !b.Fenced && p != nil && p.epoch == b.Epoch && !p.fence {
			return true
		}
	}
	return false
}

// Drained notes that an image shows a broker marked and nothing of it left that could move; rev is
// the revision of that image, above 0.
func (l *Liveness) Drained(id int32, epoch, rev int64) {
	if p := l.brokers[id]; p != nil && p.epoch == epoch && p.drained == 0 {
		p.drained = rev
	}
}

// released says that a broker may stop: it is fenced, or drained and every active broker knows, so
// that none sends clients to it.
func (l *Liveness) released(im *meta.Image, r *meta.Broker, p *pulse) bool {
	if r.Fenced {
		return true
	}
	if p.drained == 0 {
		return false
	}
	for _, b := range im.Brokers() {
		if !active(b) {
			continue
		}
		o := l.brokers[b.ID]
		if o != nil && l.slow(o, p.heard) {
			continue // it may never see it
		}
		if o == nil || o.epoch != b.Epoch || o.seen < p.drained {
			return false
		}
	}
	return true
}

// Next is the time at which Decide may say something new although nothing happened; ok false: never.
func (l *Liveness) Next(im *meta.Image) (at int64, ok bool) {
	for _, b := range im.Brokers() {
		if p := l.brokers[b.ID]; p != nil && p.epoch == b.Epoch && !b.Fenced {
			if d := l.deadline(p); !ok || d < at {
				at, ok = d, true
			}
		}
	}
	return at, ok
}
