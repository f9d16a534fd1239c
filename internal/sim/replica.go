package sim

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/isr"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/producer"
	"github.com/milena-mq/milena/internal/storage"
)

// replica is one partition on a broker: what package partition does around the machines of isr.
type replica struct {
	b        *broker
	n        int32
	t        *truth
	log      *storage.Log
	disk     *disk
	rec      *meta.Partition
	epoch    int32 // leader epoch of the latest assignment
	leader   *isr.Leader
	follower *isr.Follower
	dead     bool
	flushing bool
	waits    []wait
	low      []lowWait
	starts   map[int32]int64 // log starts of the followers, as they told them

	base   int64   // offset of shadow[0]
	shadow []entry // what the log holds, one record to a batch
	ledHW  int64   // last high watermark while it leads this epoch
	known  int64   // up to here its shadow was compared with the truth
	start  int64   // last log start seen
}

// entry names a record: the epoch of its leader, the checksum of its unique value, and who sent it.
type entry struct {
	epoch int32
	crc   uint32
	pid   int64
	seq   int32
}

// wait is a producer's request that waits for the high watermark.
type wait struct {
	offset int64
	e      entry
	reply  func(reply)
}

type lowWait struct {
	offset int64
	done   func()
}

// reply is the answer to a producer.
type reply struct {
	ok     bool
	offset int64
	e      entry
}

func newReplica(b *broker, n int32, l *storage.Log, d *disk) *replica {
	r := &replica{b: b, n: n, t: b.w.parts[n], log: l, disk: d, epoch: -1, base: l.Start(), known: l.Start(), start: l.Start()}
	r.shadow = r.readLog()
	return r
}

func (r *replica) String() string {
	if r == nil {
		return "none"
	}
	return fmt.Sprintf("[%d flushed %d %d)", r.log.Start(), r.log.Flushed(), r.log.End())
}

func (r *replica) end() int64 { return r.base + int64(len(r.shadow)) }

func (r *replica) at(o int64) entry { return r.shadow[o-r.base] }

func (r *replica) check(err error) bool { return r.b.check(r.disk, err) }

// gone ends the role for good.
func (r *replica) gone() {
	r.endRole()
	r.dead = true
}

func (r *replica) endRole() {
	r.leader, r.follower, r.starts, r.low = nil, nil, nil, nil
	ws := r.waits
	r.waits = nil
	for _, w := range ws {
		w.reply(reply{}) // NOT_LEADER_OR_FOLLOWER
	}
}

func (r *replica) assignment() isr.Assignment {
	p, v := r.rec, &r.b.view
	return isr.Assignment{Replicas: p.Replicas, ISR: p.ISR, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch,
		MinISR: r.b.w.o.Rules.MinISR(v.minISR), Lag: ms(lagMax), Brokers: v.brokers}
}

// assign carries out what the image says of the partition.
func (r *replica) assign(rec *meta.Partition) {
	r.rec = rec
	v := &r.b.view
	leads := v.present && rec.Leader == r.b.id && v.unfenced
	follows := v.present && rec.Leader != meta.NoLeader && rec.Leader != r.b.id
	if r.epoch == rec.LeaderEpoch && (r.leader != nil) == leads && (r.follower != nil) == follows {
		if r.leader != nil {
			r.led(r.leader.Step(r.b.w.now, isr.In{Kind: isr.Assigned, To: r.assignment()}))
			r.tooFew()
			r.lowered()
		}
		return
	}
	r.endRole()
	r.epoch = rec.LeaderEpoch
	switch {
	case leads:
		r.lead()
	case follows:
		r.follow()
	}
}

// tooFew tells producers that wait, when the set has become too small, that their records are written and
// not replicated enough.
func (r *replica) tooFew() {
	if r.leader == nil || !r.leader.BelowMin() {
		return
	}
	ws := r.waits
	r.waits = nil
	for _, w := range ws {
		r.b.w.Stats.NotEnoughAfter++
		w.reply(reply{})
	}
}

func (r *replica) lead() {
	end := r.log.End()
	if !r.check(r.log.AssignEpoch(r.epoch, end)) {
		return
	}
	r.leader = isr.NewLeader(r.b.id, r.assignment(), r.log.HW(), r.log.Flushed(), end)
	r.ledHW = r.leader.HW()
	r.b.w.tell("broker %d: leads %d in epoch %d, %v, hw %d", r.b.id, r.n, r.epoch, r, r.leader.HW())
	r.t.leads(r)
	if hw := r.leader.HW(); hw > r.log.HW() { // alone in the set, it needs to wait for nobody
		r.t.raised(r, hw)
		r.log.SetHW(hw)
	}
	r.flushSoon()
	r.tick(r.leader)
}

func (r *replica) tick(l *isr.Leader) {
	if r.leader != l {
		return
	}
	r.led(l.Step(r.b.w.now, isr.In{Kind: isr.Tick}))
	r.b.local(20, func() { r.tick(l) })
}

// flushSoon is the flusher of the log directory.
func (r *replica) flushSoon() {
	if r.flushing || r.dead {
		return
	}
	r.flushing = true
	r.b.local(1, func() {
		r.flushing = false
		if r.dead || !r.check(r.log.Flush()) {
			return
		}
		if r.leader != nil {
			r.led(r.leader.Step(r.b.w.now, isr.In{Kind: isr.Flushed, Offset: r.log.Flushed()}))
		}
	})
}

// led carries out what a leader's step said.
func (r *replica) led(o isr.Out) {
	w := r.b.w
	if o.HW < r.ledHW {
		w.fail("HW monotone", "broker %d partition %d: from %d to %d", r.b.id, r.n, r.ledHW, o.HW)
	}
	if o.Raised {
		r.t.raised(r, o.HW)
		r.log.SetHW(o.HW)
		for len(r.waits) > 0 && r.waits[0].offset < o.HW && w.breach == nil {
			x := r.waits[0]
			r.waits = r.waits[1:]
			r.t.acked(r, x)
			x.reply(reply{true, x.offset, x.e})
		}
	}
	r.ledHW = o.HW
	if o.Propose != nil {
		r.propose(*o.Propose)
	}
}

func (r *replica) propose(p isr.Proposal) {
	l, b := r.leader, r.b
	epoch, life, answered := b.epoch, b.life, false
	answer := func(a isr.Answer) {
		if b.life != life || r.leader != l || answered {
			return
		}
		answered = true
		in := isr.In{Kind: isr.Answered, Seq: p.Seq, Answer: b.w.o.Rules.Granted(a)}
		if in.Answer == isr.Committed {
			in.To = r.assignment()
			in.To.ISR, in.To.PartitionEpoch = nil, p.PartitionEpoch+1
			for _, m := range p.ISR {
				in.To.ISR = append(in.To.ISR, m.ID)
			}
		}
		r.led(l.Step(b.w.now, in))
	}
	ch := control.ISRChange{Topic: b.im.Topic(topicName).ID, Partition: r.n, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch}
	for _, m := range p.ISR {
		ch.ISR = append(ch.ISR, control.ISRMember{ID: m.ID, Epoch: m.Epoch})
	}
	b.ask(func(c *controller) {
		c.alter(b.id, epoch, ch, func(code int16) {
			if code == ineligible {
				b.w.Stats.Stale++
			}
			a := isr.Failed
			if code >= 0 {
				a = isr.AnswerOf(code)
			}
			b.w.send(c.b.id, b.id, func() { answer(a) })
		})
	})
	b.local(100, func() { answer(isr.Failed) })
}

// produced is a client's acks=all request.
func (r *replica) produced(value uint64, pid int64, seq int32, answer func(reply)) {
	w := r.b.w
	if r.leader == nil || r.dead {
		answer(reply{})
		return
	}
	if r.leader.BelowMin() {
		w.Stats.Refused++
		answer(reply{})
		return
	}
	raw := r.build(value, pid, seq)
	var v producer.Verdict
	var err error
	r.log.Producers(func(t *producer.Table) { v, err = t.Check(raw, w.now.UnixMilli()) })
	v, err = w.o.Rules.Known(v, err)
	if err != nil {
		w.Stats.Refused++
		answer(reply{}) // a zombie's answer, or the wish is answered elsewhere
		return
	}
	if v.Duplicate {
		w.Stats.Duplicates++
		if v.BaseOffset < r.base { // committed, and deleted meanwhile
			r.t.acked(r, wait{v.BaseOffset, r.t.committed[v.BaseOffset], nil})
			answer(reply{true, v.BaseOffset, r.t.committed[v.BaseOffset]})
			return
		}
		r.wait(v.BaseOffset, answer)
		return
	}
	o, err := r.log.Append(raw, r.epoch, w.now.UnixMilli())
	if !r.check(err) {
		answer(reply{})
		return
	}
	r.add(entryOf(raw))
	r.wait(o, answer)
	r.led(r.leader.Step(w.now, isr.In{Kind: isr.Appended, Offset: r.log.End()}))
	r.flushSoon()
}

func (r *replica) build(value uint64, pid int64, seq int32) batch.Batch {
	bl := batch.NewBuilder(batch.Spec{Producer: &batch.ProducerInfo{ID: pid, Epoch: 0, Sequence: seq}})
	v := make([]byte, 40)
	binary.BigEndian.PutUint64(v, value)
	if err := bl.Add(batch.Record{Timestamp: r.b.w.now.UnixMilli(), Value: v}); err != nil {
		r.b.w.fail("a batch is built", "%v", err)
	}
	raw, err := bl.Build()
	if err != nil {
		r.b.w.fail("a batch is built", "%v", err)
	}
	return raw
}

func (r *replica) wait(o int64, answer func(reply)) {
	x := wait{o, r.at(o), answer}
	if o < r.leader.HW() {
		r.t.acked(r, x)
		answer(reply{true, o, x.e})
		return
	}
	i := len(r.waits)
	for i > 0 && r.waits[i-1].offset > o {
		i--
	}
	r.waits = append(r.waits[:i:i], append([]wait{x}, r.waits[i:]...)...)
}

// deleteRecords is a client's DeleteRecords: done is called when no live replica shows anything below.
func (r *replica) deleteRecords(o int64, done func()) {
	if r.leader == nil || r.dead || o > r.leader.HW() {
		return
	}
	r.t.asked = max(r.t.asked, o)
	if !r.check(r.log.RaiseStart(o, 0)) {
		return
	}
	l := r.leader
	r.b.local(1, func() {
		if r.leader != l || !r.check(r.disk.dir.CheckpointStarts()) {
			return
		}
		r.low = append(r.low, lowWait{o, done})
		r.lowered()
	})
}

// lowered answers who waits for the low watermark: the smallest log start of the replicas that live or may lead.
func (r *replica) lowered() {
	if r.leader == nil || len(r.low) == 0 {
		return
	}
	low := r.log.Start()
	to := r.leader.Assignment()
	for _, id := range to.Replicas {
		for _, x := range to.Brokers {
			if id != r.b.id && x.ID == id && (x.Active || slices.Contains(to.ISR, id) || slices.Contains(r.rec.ELR, id)) {
				low = min(low, r.starts[id])
			}
		}
	}
	low = r.b.w.o.Rules.Low(r.log.Start(), low)
	var left []lowWait
	for _, x := range r.low {
		if x.offset <= low {
			x.done()
		} else {
			left = append(left, x)
		}
	}
	r.low = left
}

func entryOf(x batch.Batch) entry {
	return entry{x.LeaderEpoch(), x.CRC(), x.ProducerID(), x.BaseSequence()}
}

// add notes what was appended.
func (r *replica) add(e entry) {
	if n := len(r.shadow); n > 0 && r.shadow[n-1].epoch > e.epoch {
		r.b.w.fail("epochs in the log never decrease", "broker %d: epoch %d after %d at %d", r.b.id, e.epoch, r.shadow[n-1].epoch, r.end())
	}
	r.shadow = append(r.shadow, e)
}

// readLog is what the real log holds.
func (r *replica) readLog() []entry {
	var out []entry
	for from := r.log.Start(); from < r.log.End(); {
		raw, next := r.read(from, 1<<20, r.log.End())
		if next == from {
			break
		}
		each(raw, func(x batch.Batch) { out = append(out, entryOf(x)) })
		from = next
	}
	return out
}

func (r *replica) read(from int64, size int, bound int64) ([]byte, int64) {
	s, err := r.log.Read(from, size, bound, true)
	if err != nil {
		r.check(err)
		return nil, from
	}
	raw, err := s.Bytes(nil)
	s.Release()
	r.check(err)
	return raw, s.Next
}

func each(raw []byte, do func(batch.Batch)) {
	for len(raw) > 0 {
		x, rest, err := batch.Next(raw)
		if err != nil {
			return
		}
		do(x)
		raw = rest
	}
}

// consumed is a consumer's fetch, from a leader or (KIP-392) from a follower.
func (r *replica) consumed(from int64) {
	hw := r.b.w.o.Rules.Readable(r.log)
	if r.dead || r.leader == nil && r.follower == nil || from >= hw || from < r.log.Start() {
		return
	}
	raw, _ := r.read(from, 3000, hw)
	o := from
	each(raw, func(x batch.Batch) {
		r.t.read(r, o, x.BaseOffset(), entryOf(x))
		o = x.NextOffset()
	})
	r.b.w.Stats.Reads++
}
