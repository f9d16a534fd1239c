package sim

import (
	"encoding/binary"
	"slices"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/isr"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/storage"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

const lagMax = 150 // replica.lag.time.max.ms of the simulated brokers

var topic = meta.TopicPartition{Topic: "t"}

// broker is one process and its disk: the shell that package partition and its fetchers are in a real
// broker.
type broker struct {
	w      *World
	id     int32
	disk   *memfs.FS
	dir    *storage.Dir
	log    *storage.Log
	up     bool
	frozen det.Instant // until then it does nothing
	life   int         // incarnation; what an earlier one planned or was sent as an answer is void
	epoch  int64       // broker epoch, 0: not registered

	replaced bool // its disk was replaced, and it has not registered since

	im       image
	leader   *isr.Leader
	follower *isr.Follower
	waits    []wait
	flushing bool

	shadow []entry // what the log holds, one record to a batch
	ledHW  int64   // last high watermark while it leads this epoch
	known  int64   // up to here its shadow was compared with the truth
}

// entry names a record: the epoch of its leader and the checksum of its unique value.
type entry struct {
	epoch int32
	crc   uint32
}

type wait struct {
	offset int64
	e      entry
}

func newBroker(w *World, id int32) *broker {
	return &broker{w: w, id: id, disk: memfs.New()}
}

func logConfig() storage.LogConfig {
	c := storage.DefaultLogConfig()
	c.SegmentBytes, c.IndexIntervalBytes, c.RetentionMs = 8<<10, 1<<10, -1
	return c
}

// local runs something of this incarnation later; a frozen process does it when it thaws.
func (b *broker) local(d int, do func()) {
	life := b.life
	var run func()
	run = func() {
		switch {
		case !b.up || b.life != life:
		case b.frozen > b.w.now:
			b.w.after(b.frozen.Sub(b.w.now), run)
		default:
			do()
		}
	}
	b.w.after(b.w.between(d, 2*d+1), run)
}

// boot starts the process: recovery, then registration.
func (b *broker) boot() {
	b.life++
	b.up, b.frozen, b.epoch, b.im = true, 0, 0, image{version: -1}
	b.leader, b.follower, b.waits, b.flushing = nil, nil, nil, false
	fsys, done := b.w.o.Rules.Recover(b.disk)
	d, err := storage.OpenDir(fsys, "/data", storage.DirOptions{NodeID: b.id, ClusterID: "c", NewID: func() meta.UUID { return meta.UUID{9, byte(b.id)} }})
	if err == nil {
		_, err = d.Load(nil, b.w.now.UnixMilli(), func(meta.TopicPartition, meta.UUID) storage.LogConfig { return logConfig() })
	}
	if err == nil && len(d.Quarantined()) > 0 {
		err = d.Quarantined()[0].Err
	}
	if err == nil {
		if b.log = d.Get(topic); b.log == nil {
			b.log, err = d.Create(topic, meta.UUID{1}, logConfig(), b.w.now.UnixMilli())
		}
	}
	done()
	if err != nil {
		b.w.fail("recovery succeeds", "broker %d: %v", b.id, err)
		return
	}
	b.dir = d
	b.shadow, b.known = b.readLog(), 0
	b.w.tell("broker %d: up, log end %d", b.id, b.log.End())
	b.register()
	b.local(20, b.beat)
	b.local(150, b.checkpoint)
}

func (b *broker) register() {
	if b.epoch != 0 {
		return
	}
	life := b.life
	b.w.send(b.id, -1, func() {
		e := b.w.ctl.register(b.id, life)
		b.w.send(-1, b.id, func() {
			if b.life == life && b.epoch == 0 {
				b.epoch = e
			}
		})
	})
	b.local(40, b.register)
}

func (b *broker) beat() {
	if e, seen, life := b.epoch, b.im.version, b.life; e != 0 {
		b.w.send(b.id, -1, func() {
			b.w.ctl.heartbeat(b.id, e, seen)
			im := b.w.ctl.image()
			b.w.send(-1, b.id, func() {
				if b.life == life {
					b.apply(im)
				}
			})
		})
	}
	b.local(20, b.beat)
}

func (b *broker) receive(im image) {
	b.w.send(-1, b.id, func() { b.apply(im) })
}

func (b *broker) checkpoint() {
	b.check(b.dir.Checkpoint())
	b.local(150, b.checkpoint)
}

func (b *broker) check(err error) {
	if err != nil {
		b.w.fail("the disk works", "broker %d: %v", b.id, err)
	}
}

func (b *broker) assignment() isr.Assignment {
	p := b.im.part
	return isr.Assignment{Replicas: p.Replicas, ISR: p.ISR, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch,
		MinISR: b.w.o.Rules.MinISR(b.w.o.MinISR), Lag: ms(lagMax), Brokers: b.im.brokers}
}

// apply carries out a newer image.
func (b *broker) apply(im image) {
	if b.epoch == 0 || im.version <= b.im.version || im.brokers[b.id].Epoch != b.epoch {
		return
	}
	old := b.im.part
	b.im = im
	if old != nil && old.LeaderEpoch == im.part.LeaderEpoch {
		if b.leader != nil {
			b.led(b.leader.Step(b.w.now, isr.In{Kind: isr.Assigned, To: b.assignment()}))
		}
		return
	}
	b.leader, b.follower, b.waits = nil, nil, nil
	switch {
	case im.part.Leader == b.id:
		b.lead()
	case im.part.Leader != meta.NoLeader:
		b.follow()
	}
}

func (b *broker) lead() {
	end := b.log.End()
	b.check(b.log.AssignEpoch(b.im.part.LeaderEpoch, end))
	b.leader = isr.NewLeader(b.id, b.assignment(), b.log.HW(), b.log.Flushed(), end)
	b.ledHW = b.leader.HW()
	b.w.tell("broker %d: leads epoch %d from %d, hw %d", b.id, b.im.part.LeaderEpoch, end, b.leader.HW())
	b.w.leads(b)
	b.flushSoon()
	b.tick(b.leader)
}

func (b *broker) tick(l *isr.Leader) {
	if b.leader != l {
		return
	}
	b.led(l.Step(b.w.now, isr.In{Kind: isr.Tick}))
	b.local(20, func() { b.tick(l) })
}

// flushSoon is the flusher of the log directory.
func (b *broker) flushSoon() {
	if b.flushing {
		return
	}
	b.flushing = true
	b.local(1, func() {
		b.flushing = false
		b.check(b.log.Flush())
		if b.leader != nil {
			b.led(b.leader.Step(b.w.now, isr.In{Kind: isr.Flushed, Offset: b.log.Flushed()}))
		}
	})
}

// led carries out what a leader's step said.
func (b *broker) led(o isr.Out) {
	if o.HW < b.ledHW {
		b.w.fail("HW monotone", "broker %d: from %d to %d", b.id, b.ledHW, o.HW)
	}
	if o.Raised {
		b.w.raised(b, o.HW)
		b.log.SetHW(o.HW)
		for len(b.waits) > 0 && b.waits[0].offset < o.HW {
			b.w.acked(b, b.waits[0])
			b.waits = b.waits[1:]
		}
	}
	b.ledHW = o.HW
	if o.Propose != nil {
		b.propose(*o.Propose)
	}
}

func (b *broker) propose(p isr.Proposal) {
	l, epoch, life := b.leader, b.epoch, b.life
	answer := func(a isr.Answer, im image) {
		if b.life != life || b.leader != l {
			return
		}
		in := isr.In{Kind: isr.Answered, Seq: p.Seq, Answer: a}
		if a == isr.Committed {
			in.To = b.assignment()
			in.To.ISR, in.To.PartitionEpoch, in.To.LeaderEpoch = im.part.ISR, im.part.PartitionEpoch, im.part.LeaderEpoch
		}
		b.led(l.Step(b.w.now, in))
	}
	b.w.send(b.id, -1, func() {
		code, im := b.w.ctl.alter(b.id, epoch, &p)
		b.w.send(-1, b.id, func() { answer(isr.AnswerOf(code), im) })
	})
	b.local(100, func() { answer(isr.Failed, image{}) })
}

// produced is a client's acks=all request.
func (b *broker) produced(value uint64) {
	if b.leader == nil {
		return
	}
	if b.leader.BelowMin() {
		b.w.Stats.Refused++
		return
	}
	bl := batch.NewBuilder(batch.Spec{})
	v := make([]byte, 40)
	binary.BigEndian.PutUint64(v, value)
	b.check(bl.Add(batch.Record{Timestamp: b.w.now.UnixMilli(), Value: v}))
	raw, err := bl.Build()
	b.check(err)
	o, err := b.log.Append(raw, b.im.part.LeaderEpoch, b.w.now.UnixMilli())
	if err != nil {
		b.check(err)
		return
	}
	e := entry{raw.LeaderEpoch(), raw.CRC()}
	b.add(e)
	b.waits = append(b.waits, wait{o, e})
	b.led(b.leader.Step(b.w.now, isr.In{Kind: isr.Appended, Offset: b.log.End()}))
	b.flushSoon()
}

// add notes what was appended.
func (b *broker) add(e entry) {
	if n := len(b.shadow); n > 0 && b.shadow[n-1].epoch > e.epoch {
		b.w.fail("epochs in the log never decrease", "broker %d: epoch %d after %d at %d", b.id, e.epoch, b.shadow[n-1].epoch, n)
	}
	b.shadow = append(b.shadow, e)
}

// readLog is what the real log holds.
func (b *broker) readLog() []entry {
	var out []entry
	for from := int64(0); from < b.log.End(); {
		raw, next := b.read(from, 1<<20)
		if next == from {
			break
		}
		b.each(raw, func(x batch.Batch) { out = append(out, entry{x.LeaderEpoch(), x.CRC()}) })
		from = next
	}
	return out
}

func (b *broker) read(from int64, size int) ([]byte, int64) {
	s, err := b.log.Read(from, size, b.log.End(), true)
	if err != nil {
		b.check(err)
		return nil, from
	}
	raw, err := s.Bytes(nil)
	s.Release()
	b.check(err)
	return raw, s.Next
}

func (b *broker) each(raw []byte, do func(batch.Batch)) {
	for len(raw) > 0 {
		x, rest, err := batch.Next(raw)
		if err != nil {
			return
		}
		do(x)
		raw = rest
	}
}

// down ends the process at once. keep is the percentage of unsynced writes that the disk keeps; -1:
// the machine goes on, and with it the page cache.
func (b *broker) down(keep int) {
	if !b.up {
		return
	}
	b.up = false
	b.w.tell("broker %d: down, keep %d, end %d, flushed %d", b.id, keep, b.log.End(), b.log.Flushed())
	if keep >= 0 {
		b.disk = b.disk.Crash(keep, b.w.rand)
	}
	_ = b.dir.Abandon()
}

func (b *broker) inISR() bool { return slices.Contains(b.w.ctl.part.ISR, b.id) }
