package sim

import (
	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/isr"
)

// question is a follower's fetch.
type question struct {
	from             int32
	brokerEpoch      int64
	leaderEpoch      int32
	lastEpoch        int32
	offset, seq, low int64
}

// answered is a leader's answer, with the log start.
type answered struct {
	isr.FollowerIn
	raw   []byte
	start int64
}

// follow begins to fetch from the leader of the image.
func (r *replica) follow() {
	if !r.check(r.b.w.o.Rules.BeforeFollow(r.log)) {
		return
	}
	// Of an epoch that was led here without a record no leader need know, and nothing older could be
	// appended behind it.
	if e, start, ok := r.log.LatestEpoch(); ok && start >= r.log.End() && e > r.recordEpoch() && r.b.w.rand.Intn(2) == 0 {
		if !r.check(r.log.Truncate(r.log.End())) {
			return
		}
	}
	r.resize()
	f := isr.NewFollower(r.log.HW(), r.b.w.o.Rules.Durable(r.log), r.log.End(), r.lastEpoch())
	r.follower = f
	r.b.w.tell("broker %d: follows %d in %d, epoch %d, %v", r.b.id, r.rec.Leader, r.n, r.epoch, r)
	r.followed(f, f.Step(r.b.w.now, isr.FollowerIn{Kind: isr.Begin}), nil)
}

// lastEpoch is the newest epoch of the log, also one without a record: Kafka's fetches carry that, ours name
// the epoch of the last record after healing; both have to work.
func (r *replica) lastEpoch() int32 {
	if e, _, ok := r.log.LatestEpoch(); ok {
		return e
	}
	return -1
}

func (r *replica) recordEpoch() int32 {
	if end := r.log.End(); end > r.log.Start() {
		return r.log.EpochAt(end - 1)
	}
	return -1
}

// resize drops what the log no longer has from the shadow.
func (r *replica) resize() {
	if r.log.End() < r.base || r.log.Start() > r.end() { // begun again elsewhere
		r.base, r.shadow = r.log.Start(), nil
	}
	r.shadow = r.shadow[:r.log.End()-r.base]
	r.known = max(min(r.known, r.log.End()), r.base)
}

// followed carries out what a follower's step said.
func (r *replica) followed(f *isr.Follower, o isr.FollowerOut, raw []byte) {
	if r.follower != f {
		return
	}
	if o.HW > r.log.HW() {
		r.log.SetHW(o.HW)
	}
	switch o.Act {
	case isr.Fetch:
		r.ask(f, o)
	case isr.Retry:
		r.b.local(15, func() {
			if r.follower == f {
				r.ask(f, o)
			}
		})
	case isr.Append:
		if !r.check(r.log.AppendFollower(raw, r.epoch, r.b.w.now.UnixMilli())) {
			return
		}
		each(raw, func(x batch.Batch) {
			if x.BaseOffset() == r.end() && x.BaseOffset() < r.log.End() {
				r.add(entryOf(x))
			}
		})
		r.wrote(f)
	case isr.Flush:
		r.b.local(1, func() {
			if r.follower == f && r.check(r.log.Flush()) {
				r.wrote(f)
			}
		})
	case isr.Truncate, isr.Restart:
		r.cut(f, o)
	}
}

func (r *replica) cut(f *isr.Follower, o isr.FollowerOut) {
	r.b.w.tell("broker %d: cuts %d, %v, to %d, hw %d", r.b.id, r.n, r, o.Offset, r.log.HW())
	if o.Offset < r.log.HW() && !r.t.unclean {
		r.b.w.fail("nothing below the HW is cut", "broker %d partition %d to %d, hw %d", r.b.id, r.n, o.Offset, r.log.HW())
	}
	r.b.w.Stats.Cuts++
	none := o.Offset >= r.log.End() && o.Act == isr.Truncate
	if o.Act == isr.Restart {
		r.b.w.Stats.Restarts++
		r.start = 0
		if !r.check(r.log.TruncateFully(o.Offset)) {
			return
		}
		r.base, r.shadow, r.known = o.Offset, nil, o.Offset
	} else if !r.check(r.log.Truncate(o.Offset)) {
		return
	}
	r.resize()
	if none { // not at once, so that it cannot spin
		r.b.local(10, func() { r.wrote(f) })
		return
	}
	r.wrote(f)
}

func (r *replica) wrote(f *isr.Follower) {
	if r.follower == f {
		r.followed(f, f.Step(r.b.w.now, isr.FollowerIn{Kind: isr.Wrote, End: r.log.End(), Flushed: r.b.w.o.Rules.Durable(r.log), LastEpoch: r.lastEpoch()}), nil)
	}
}

// ask sends a fetch to the leader.
func (r *replica) ask(f *isr.Follower, o isr.FollowerOut) {
	b := r.b
	life := b.life
	q := question{b.id, b.w.o.Rules.FetchEpoch(b.epoch), r.epoch, o.LastEpoch, o.Offset, o.Seq, r.log.Start()}
	to := b.w.brokers[r.rec.Leader]
	take := func(a answered) {
		if b.life != life || r.follower != f {
			return
		}
		a.Seq = o.Seq
		if a.Kind == isr.Diverged {
			_, a.OwnEnd = r.log.EpochEnd(a.DivEpoch)
		}
		if a.Kind == isr.Records && b.w.o.Rules.Unseen(min(a.start, r.log.End()) > r.log.Start()) {
			a.HW = min(a.HW, f.HW()) // what lies below the leader's log start was never compared
		}
		r.followed(f, f.Step(b.w.now, a.FollowerIn), a.raw)
		if s := min(a.start, r.log.End()); a.Kind == isr.Records && r.follower == f && s > r.log.StartAsked() && r.check(r.log.RaiseStart(s, 0)) {
			b.local(1, func() {
				if !r.dead {
					r.check(r.disk.dir.CheckpointStarts())
				}
			})
		}
	}
	n := r.n
	b.w.send(b.id, to.id, func() {
		if l := to.replicas[n]; l != nil {
			l.fetch(q, take)
		}
	})
	b.local(80, func() { take(answered{FollowerIn: isr.FollowerIn{Kind: isr.Lost}}) })
}

// fetch is the leader's side of a fetch.
func (r *replica) fetch(q question, answer func(answered)) {
	send := func(in isr.FollowerIn, raw []byte) {
		start := r.log.Start()
		r.b.w.send(r.b.id, q.from, func() { answer(answered{in, raw, start}) })
	}
	if r.leader == nil || r.epoch != q.leaderEpoch {
		kind := isr.Lost
		if r.epoch > q.leaderEpoch {
			kind = isr.Fenced
		}
		send(isr.FollowerIn{Kind: kind}, nil)
		return
	}
	if q.lastEpoch >= 0 {
		if e, end := r.log.EpochEnd(q.lastEpoch); e < q.lastEpoch || end < q.offset {
			send(isr.FollowerIn{Kind: isr.Diverged, DivEpoch: e, DivEnd: end}, nil)
			return
		}
	}
	strange := q.offset == r.log.Start() && q.lastEpoch >= 0 && q.lastEpoch < r.log.EpochAt(q.offset)
	if q.offset > r.log.End() || q.offset < r.log.Start() || r.b.w.o.Rules.Strange(strange) {
		send(isr.FollowerIn{Kind: isr.OutOfRange, LeaderStart: r.log.Start(), LeaderEnd: r.log.End()}, nil)
		return
	}
	l := r.leader
	if r.starts == nil {
		r.starts = map[int32]int64{}
	}
	r.starts[q.from] = q.low
	behind := r.b.w.o.Rules.Behind(q.low < r.log.Start())
	r.led(l.Step(r.b.w.now, isr.In{Kind: isr.Fetched, Replica: q.from, Offset: q.offset, BrokerEpoch: q.brokerEpoch, Behind: behind}))
	r.lowered()
	data := func() {
		if r.leader != l || q.offset < r.log.Start() {
			send(isr.FollowerIn{Kind: isr.Fenced}, nil)
			return
		}
		var raw []byte
		if q.offset < r.log.End() {
			raw, _ = r.read(q.offset, 2000, r.log.End())
		}
		if r.leader == l {
			send(isr.FollowerIn{Kind: isr.Records, HW: l.HW(), More: len(raw) > 0}, raw)
		}
	}
	if q.offset < r.log.End() {
		data()
		return
	}
	r.b.local(5, data) // the long poll
}
