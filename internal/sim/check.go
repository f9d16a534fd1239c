package sim

import (
	"slices"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/twmb/franz-go/pkg/kerr"
)

var ineligible = kerr.IneligibleReplica.Code

// truth is what the outside world may rely on, of one partition.
type truth struct {
	w         *World
	n         int32
	committed []entry // by offset: what some leader's high watermark has passed
	acks      int64   // above the highest offset that a client was told
	leaders   map[int32]int32
	next      map[int64]int32 // sequence that each producer has to go on with
	last      map[int64]int64 // offset of the newest record of each producer
	asked     int64           // highest log start that somebody asked for
	deleted   int64           // highest one that was confirmed
	unclean   bool            // an unclean election has happened: records may be gone
}

func newTruth(w *World, n int32) *truth {
	return &truth{w: w, n: n, leaders: map[int32]int32{}, next: map[int64]int32{}, last: map[int64]int64{}}
}

// raised checks a leader's new high watermark and notes what is now visible.
func (t *truth) raised(r *replica, hw int64) {
	b := r.b
	a := r.leader.Assignment()
	if min := min(int(b.view.minISR), len(a.Replicas)); len(a.ISR) < min {
		t.w.fail("HW does not move below min ISR", "broker %d partition %d: hw %d with isr of %d, min %d", b.id, t.n, hw, len(a.ISR), min)
	}
	if hw > r.log.Flushed() {
		t.w.fail("HW is durable", "broker %d partition %d: hw %d, flushed %d", b.id, t.n, hw, r.log.Flushed())
	}
	if hw > r.end() {
		t.w.fail("HW is in the log", "broker %d partition %d: hw %d, log end %d", b.id, t.n, hw, r.end())
		return
	}
	for o := int64(len(t.committed)); o < hw; o++ {
		if o < r.base {
			t.committed = append(t.committed, entry{epoch: -1}) // nobody has seen it
			continue
		}
		e := r.at(o)
		want := t.next[e.pid]
		// Sent again after its first copy was deleted, and with it what a replica that began above it could know of the
		// producer: nobody has been told of the first one, or it would not be sent again, and nobody can read it.
		again := e.seq == want-1 && t.last[e.pid] < t.asked
		if e.seq != want && !again && !t.unclean {
			t.w.fail("each record once and in order", "partition %d offset %d: producer %d sequence %d, want %d", t.n, o, e.pid, e.seq, want)
		}
		t.next[e.pid], t.last[e.pid] = e.seq+1, o
		t.committed = append(t.committed, e)
	}
}

// acked checks an acknowledgement to a client.
func (t *truth) acked(r *replica, a wait) {
	if a.offset >= r.base && r.at(a.offset) != a.e || !t.unclean && (a.offset >= int64(len(t.committed)) || t.committed[a.offset] != a.e) {
		t.w.fail("one value per offset", "broker %d partition %d acknowledged %v at %d, which is not what is committed", r.b.id, t.n, a.e, a.offset)
	}
	t.w.Stats.Acked++
	t.acks = max(t.acks, a.offset+1)
}

// read checks what a consumer got.
func (t *truth) read(r *replica, want, o int64, e entry) {
	if t.unclean {
		return
	}
	if o != want {
		t.w.fail("a reader skips nothing", "broker %d partition %d gave offset %d for %d", r.b.id, t.n, o, want)
		return
	}
	if o >= int64(len(t.committed)) || t.committed[o] != e {
		t.w.fail("readers see what is committed", "broker %d partition %d gave %v at %d, %d are committed", r.b.id, t.n, e, o, len(t.committed))
	}
}

// leads checks a broker that begins to lead: alone in its epoch, and with everything that was visible.
func (t *truth) leads(r *replica) {
	if other, ok := t.leaders[r.epoch]; ok && other != r.b.id {
		t.w.fail("one leader per epoch", "partition %d epoch %d: %d and %d", t.n, r.epoch, other, r.b.id)
	}
	t.leaders[r.epoch] = r.b.id
	if r.epoch == t.w.store.topic().Partitions[t.n].LeaderEpoch {
		t.complete(r, "no acked loss", "leads")
		if r.log.Start() < t.deleted && !t.w.shape.Unclean {
			t.w.fail("deleted records stay deleted", "broker %d partition %d leads from %d, deleted up to %d", r.b.id, t.n, r.log.Start(), t.deleted)
		}
	}
}

// complete checks that a replica has all that was visible.
func (t *truth) complete(r *replica, name, why string) {
	n := int64(len(t.committed))
	if t.w.shape.Unclean {
		t.taken(r)
		return
	}
	if r.end() < n || r.base > t.asked {
		t.w.fail(name, "broker %d partition %d %s with [%d %d), %d were visible, %d acknowledged", r.b.id, t.n, why, r.base, r.end(), n, t.acks)
		return
	}
	for o := max(r.base, r.log.Start()); o < n; o++ {
		if e := t.committed[o]; r.at(o) != e && e.epoch >= 0 {
			t.w.fail(name, "broker %d partition %d %s with %v at %d, visible was %v", r.b.id, t.n, why, r.at(o), o, e)
			return
		}
	}
}

// taken counts what an unclean election has taken, once. From there on records may be gone; all that does not
// depend on them still has to hold.
func (t *truth) taken(r *replica) {
	n := int64(len(t.committed))
	o := max(r.base, 0)
	for o < min(n, r.end()) && t.committed[o] == r.at(o) {
		o++
	}
	if o < n {
		t.unclean = true
		t.w.Stats.Unclean++
		t.w.Stats.Lost += int(n - o)
		t.committed = t.committed[:o]
	}
}

// joined checks a replica that the controller takes into the set: what it has on its disk, whoever
// asked for it and however long the request was under way.
func (t *truth) joined(id int32) {
	b := t.w.brokers[id]
	r := b.replicas[t.n]
	if x := t.w.store.image.Broker(id); !b.up || r == nil || r.dead || x == nil || x.Incarnation != b.uuid {
		return // dead, and the controller does not know it yet; what it has is seen when it returns
	}
	if !t.w.shape.Unclean {
		t.complete(r, "stale incarnation never in the ISR", "joins")
	}
}

// check looks at every replica after every event.
func (w *World) check() {
	for _, b := range w.brokers {
		if !b.up || w.breach != nil {
			continue
		}
		for _, r := range b.replicas {
			if r != nil && !r.dead {
				r.t.look(r)
			}
		}
	}
}

func (t *truth) look(r *replica) {
	w, b := t.w, r.b
	if r.log.End() != r.end() {
		w.fail("the simulator knows the logs", "broker %d partition %d: log end %d, known %d", b.id, t.n, r.log.End(), r.end())
		return
	}
	if s := r.log.Start(); s != r.start {
		if s < r.start && !t.w.shape.Unclean {
			w.fail("the log start never falls", "broker %d partition %d: from %d to %d", b.id, t.n, r.start, s)
		}
		if s > t.asked {
			w.fail("nothing above what was asked is deleted", "broker %d partition %d: log start %d, asked %d", b.id, t.n, s, t.asked)
		}
		r.start = s
	}
	if t.unclean {
		return
	}
	hw := r.log.HW()
	if hw > int64(len(t.committed)) {
		w.fail("nobody knows more than the leaders", "broker %d partition %d: hw %d, visible %d", b.id, t.n, hw, len(t.committed))
		return
	}
	for r.known = max(r.known, r.log.Start()); r.known < hw; r.known++ {
		if o := r.known; r.at(o) != t.committed[o] && t.committed[o].epoch >= 0 {
			w.fail("logs agree below the HW", "broker %d partition %d has %v at %d, visible was %v", b.id, t.n, r.at(o), o, t.committed[o])
			return
		}
	}
}

// final checks the healed cluster: the real logs, batch for batch by checksum, and that it works again.
func (w *World) final() {
	for n, rec := range w.store.topic().Partitions {
		if rec.Leader == meta.NoLeader || len(rec.ISR) != len(rec.Replicas) || len(rec.Adding)+len(rec.Removing) > 0 {
			w.fail("healed", "partition %d after the calm: %+v", n, *rec)
			return
		}
		lead := w.brokers[rec.Leader].replicas[n]
		for _, id := range rec.Replicas {
			w.same(w.brokers[id], lead, n)
		}
	}
	for _, b := range w.brokers {
		if !b.up {
			w.fail("healed", "broker %d is down", b.id)
		}
	}
	for _, c := range w.clients {
		if w.parts[c.n].unclean {
			continue // what it had confirmed is gone, and with it its sequence
		}
		if c.last.Add(ms(1000)) < w.now {
			w.fail("healed", "producer %d of partition %d was last confirmed at %v", c.pid, c.n, c.last.Sub(begin))
		}
	}
}

// same compares a replica's files with what is known of it and with its leader's.
func (w *World) same(b *broker, lead *replica, n int) {
	r := b.replicas[n]
	if r == nil || r.dead || lead == nil {
		w.fail("healed", "broker %d has no replica of %d", b.id, n)
		return
	}
	from := r.log.Start()
	if !slices.Equal(r.readLog(), r.shadow[from-r.base:]) {
		w.fail("the simulator knows the logs", "broker %d partition %d", b.id, n)
		return
	}
	if !r.t.w.shape.Unclean {
		r.t.complete(r, "no acked loss", "ends in sync")
	}
	from = max(from, lead.log.Start())
	to := min(r.log.HW(), lead.log.HW())
	if from < to && !slices.Equal(r.shadow[from-r.base:to-r.base], lead.shadow[from-lead.base:to-lead.base]) {
		w.fail("replicas are equal", "brokers %d and %d, partition %d", b.id, lead.b.id, n)
	}
}
