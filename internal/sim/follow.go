package sim

import (
	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/isr"
)

// question is a follower's fetch.
type question struct {
	from        int32
	brokerEpoch int64
	leaderEpoch int32
	lastEpoch   int32
	offset, seq int64
}

// follow begins to fetch from the leader of the image.
func (b *broker) follow() {
	b.check(b.w.o.Rules.BeforeFollow(b.log))
	b.resize()
	f := isr.NewFollower(b.log.HW(), b.w.o.Rules.Durable(b.log), b.log.End(), b.lastEpoch())
	b.follower = f
	b.w.tell("broker %d: follows %d, epoch %d, end %d", b.id, b.im.part.Leader, b.im.part.LeaderEpoch, b.log.End())
	b.followed(f, f.Step(b.w.now, isr.FollowerIn{Kind: isr.Begin}), nil)
}

// lastEpoch is the newest epoch of the log, as a real fetch carries it: also one that this broker led
// without writing a record, which no leader may know.
func (b *broker) lastEpoch() int32 {
	if e, _, ok := b.log.LatestEpoch(); ok {
		return e
	}
	return -1
}

// resize drops what the log no longer has from the shadow.
func (b *broker) resize() {
	b.shadow = b.shadow[:min(len(b.shadow), int(b.log.End()))]
	b.known = min(b.known, b.log.End())
}

// followed carries out what a follower's step said.
func (b *broker) followed(f *isr.Follower, o isr.FollowerOut, raw []byte) {
	if b.follower != f {
		return
	}
	if o.HW > b.log.HW() {
		b.log.SetHW(o.HW)
	}
	switch o.Act {
	case isr.Fetch:
		b.ask(f, o)
	case isr.Retry:
		b.local(15, func() {
			if b.follower == f {
				b.ask(f, o)
			}
		})
	case isr.Append:
		if err := b.log.AppendFollower(raw, b.im.part.LeaderEpoch, b.w.now.UnixMilli()); err != nil {
			b.check(err)
			return
		}
		b.each(raw, func(x batch.Batch) {
			if x.BaseOffset() == int64(len(b.shadow)) && x.BaseOffset() < b.log.End() {
				b.add(entry{x.LeaderEpoch(), x.CRC()})
			}
		})
		b.wrote(f, false)
	case isr.Flush:
		b.local(1, func() {
			b.check(b.log.Flush())
			b.wrote(f, false)
		})
	case isr.Truncate, isr.Restart:
		b.cut(f, o)
	}
}

func (b *broker) cut(f *isr.Follower, o isr.FollowerOut) {
	b.w.tell("broker %d: cuts %d to %d, hw %d", b.id, b.log.End(), o.Offset, b.log.HW())
	if o.Offset < b.log.HW() {
		b.w.fail("nothing below the HW is cut", "broker %d to %d, hw %d", b.id, o.Offset, b.log.HW())
	}
	b.w.Stats.Cuts++
	none := o.Offset >= b.log.End()
	if o.Act == isr.Restart {
		b.check(b.log.TruncateFully(o.Offset))
	} else {
		b.check(b.log.Truncate(o.Offset))
	}
	b.resize()
	b.wrote(f, none)
}

// wrote reports the log's state; after something odd, not at once, so that the odd cannot spin.
func (b *broker) wrote(f *isr.Follower, odd bool) {
	d := 0
	if odd {
		d = 10
	}
	report := func() {
		if b.follower == f {
			b.followed(f, f.Step(b.w.now, isr.FollowerIn{Kind: isr.Wrote, End: b.log.End(), Flushed: b.w.o.Rules.Durable(b.log), LastEpoch: b.lastEpoch()}), nil)
		}
	}
	if d == 0 {
		report()
		return
	}
	b.local(d, report)
}

// ask sends a fetch to the leader.
func (b *broker) ask(f *isr.Follower, o isr.FollowerOut) {
	life := b.life
	q := question{b.id, b.w.o.Rules.FetchEpoch(b.epoch), b.im.part.LeaderEpoch, o.LastEpoch, o.Offset, o.Seq}
	leader := b.w.brokers[b.im.part.Leader]
	answer := func(in isr.FollowerIn, raw []byte) {
		if b.life != life || b.follower != f {
			return
		}
		in.Seq = o.Seq
		if in.Kind == isr.Diverged {
			_, in.OwnEnd = b.log.EpochEnd(in.DivEpoch)
		}
		b.followed(f, f.Step(b.w.now, in), raw)
	}
	b.w.send(b.id, leader.id, func() { leader.fetch(q, answer) })
	b.local(80, func() { answer(isr.FollowerIn{Kind: isr.Lost}, nil) })
}

// fetch is the leader's side of a fetch.
func (b *broker) fetch(q question, answer func(isr.FollowerIn, []byte)) {
	reply := func(in isr.FollowerIn, raw []byte) {
		b.w.send(b.id, q.from, func() { answer(in, raw) })
	}
	if b.leader == nil || b.im.part.LeaderEpoch != q.leaderEpoch {
		kind := isr.Lost
		if b.im.part != nil && b.im.part.LeaderEpoch > q.leaderEpoch {
			kind = isr.Fenced
		}
		reply(isr.FollowerIn{Kind: kind}, nil)
		return
	}
	if q.lastEpoch >= 0 {
		if e, end := b.log.EpochEnd(q.lastEpoch); e < q.lastEpoch || end < q.offset {
			reply(isr.FollowerIn{Kind: isr.Diverged, DivEpoch: e, DivEnd: end}, nil)
			return
		}
	}
	if q.offset > b.log.End() {
		reply(isr.FollowerIn{Kind: isr.OutOfRange, LeaderStart: b.log.Start(), LeaderEnd: b.log.End()}, nil)
		return
	}
	l := b.leader
	b.led(l.Step(b.w.now, isr.In{Kind: isr.Fetched, Replica: q.from, Offset: q.offset, BrokerEpoch: q.brokerEpoch}))
	data := func() {
		if b.leader != l {
			reply(isr.FollowerIn{Kind: isr.Fenced}, nil)
			return
		}
		var raw []byte
		if q.offset < b.log.End() {
			raw, _ = b.read(q.offset, 2000)
		}
		reply(isr.FollowerIn{Kind: isr.Records, HW: l.HW(), More: len(raw) > 0}, raw)
	}
	if q.offset < b.log.End() {
		data()
		return
	}
	b.local(5, data) // the long poll
}
