package partition

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/isr"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/producer"
	"github.com/milena-mq/milena/internal/storage"
)

// Acks is what a producer asks to wait for.
const (
	AcksNone   int16 = 0  // nothing
	AcksLeader int16 = 1  // the leader's disk
	AcksAll    int16 = -1 // the high watermark
)

// Partition is one replica on this broker. All methods are safe for concurrent use.
//
// Two locks: app keeps appends in order and is held over the write; mu keeps the replication state and
// whoever waits for it and is never held over input or output, so that a flush round can wake its
// waiters while the next append is being written. app is taken before mu.
type Partition struct {
	set   *Set
	dir   *dir
	tp    meta.TopicPartition
	id    meta.UUID
	log   *storage.Log
	topic *topic

	queued   atomic.Bool  // in the flusher's list
	hw       atomic.Int64 // copy of mu.leader.HW() for readers without a lock
	start    atomic.Int64 // offset at which the leader epoch began
	unstable atomic.Int64 // first offset of the earliest open transaction, MaxInt64 for none

	throttledLeader, throttledFollower atomic.Bool // as the topic's configuration says of this replica

	app struct {
		sync.Mutex
		unflushed int64       // records appended since the last flush was asked for; flush.messages above 1
		since     int64       // when the oldest of them came, ms
		batch     batch.Batch // argument and results of check, kept here so that the call allocates nothing
		nowMs     int64
		// of the transaction that the marker in batch ends
		txnVersion int16
		guards     map[int64]*Guard // by producer: verifications under way
		verdict    producer.Verdict
		err        error
	}
	check func(*producer.Table) // reads app.batch, writes app.verdict; made once

	mu struct {
		sync.Mutex
		epoch    int32       // leader epoch of the latest assignment seen
		leader   *isr.Leader // nil: this broker does not lead
		follower *Follower   // nil: this broker does not follow
		gone     error       // why nothing works any more: deleted or the disk failed
		commit   queue       // waits for the high watermark
		disk     queue       // waits for this broker's disk
		low      queue       // waits for the low watermark
		polls    pollList
		sizes    sizes
		bytes    int64           // cumulative bytes that the high watermark has passed
		written  int64           // cumulative bytes that were appended
		starts   map[int32]int64 // log starts of the followers, as they told them
		elr      []int32         // eligible leader replicas of the latest assignment seen; shared
		told     map[int32]int64 // high watermarks that followers which serve consumers were told
	}
}

func newPartition(s *Set, d *dir, t *topic, l *storage.Log) *Partition {
	p := &Partition{set: s, dir: d, tp: l.TopicPartition(), id: t.id, log: l, topic: t}
	p.mu.epoch = -1
	p.setThrottled(t.cfg.Load())
	p.hw.Store(l.HW())
	p.unstable.Store(math.MaxInt64)
	p.check = func(t *producer.Table) {
		if p.app.batch.IsControl() {
			p.app.verdict, p.app.err = producer.Verdict{}, t.CheckMarker(p.app.batch, p.app.txnVersion)
			return
		}
		p.app.verdict, p.app.err = t.Check(p.app.batch, p.app.nowMs)
	}
	p.readUnstable()
	return p
}

// readUnstable refreshes the first unstable offset from the producer table.
func (p *Partition) readUnstable() {
	p.log.Producers(func(t *producer.Table) {
		if o, ok := t.FirstUnstable(); ok {
			p.unstable.Store(o)
			return
		}
		p.unstable.Store(math.MaxInt64)
	})
}

// TopicPartition names the partition.
func (p *Partition) TopicPartition() meta.TopicPartition { return p.tp }

// TopicID is the id of its topic.
func (p *Partition) TopicID() meta.UUID { return p.id }

// Config is the topic's configuration as it is now; shared, read only.
func (p *Partition) Config() *Config { return p.topic.cfg.Load() }

// Leader is the epoch in which this broker leads; ok is false when it does not.
func (p *Partition) Leader() (epoch int32, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.epoch, p.mu.leader != nil && p.mu.gone == nil
}

// HW is the high watermark: everything below is durable on every in-sync replica.
func (p *Partition) HW() int64 { return p.hw.Load() }

// LogStart is the first readable offset, LogEnd the next one to be written.
func (p *Partition) LogStart() int64 { return p.log.Start() }

// LogEnd is the next offset to be written.
func (p *Partition) LogEnd() int64 { return p.log.End() }

// Size is the bytes of all segments.
func (p *Partition) Size() int64 { return p.log.Size() }

// leadsLocked checks that this broker leads, and in the epoch the client believes in (-1: it does not
// say). Errors as in Kafka: 74 for an old epoch, 75 for one not seen yet, 6 when another one leads.
func (p *Partition) leadsLocked(epoch int32) error {
	switch {
	case p.mu.gone != nil:
		return p.mu.gone
	case epoch >= 0 && epoch < p.mu.epoch:
		return kerr.FencedLeaderEpoch
	case epoch > p.mu.epoch:
		return kerr.UnknownLeaderEpoch
	case p.mu.leader == nil:
		return kerr.NotLeaderForPartition
	}
	return nil
}

// AppendRequest is one batch for one partition.
type AppendRequest struct {
	Records     []byte // as received; patched in place, not kept
	Acks        int16
	LeaderEpoch int32 // the epoch the caller believes in, -1 for any
	Version     int16 // of the Produce request
	Coordinator bool  // a coordinator of this broker writes its own topic
	TxnVersion  int16 // of the transaction that a marker ends
	// Guard proves that the coordinator knows this partition to be in the producer's transaction; not needed once
	// the transaction is open here. See Partition.Verify.
	Guard *Guard
	NowMs int64
}

// Appended is what became of it.
type Appended struct {
	Base, End       int64 // offsets of the first record and after the last
	LogAppendTimeMs int64 // -1 with CreateTime
	LogStart        int64
	Epoch           int32 // leader epoch that appended, to be given to Wait
	Duplicate       bool  // one of the last five batches again; offsets are the original ones
}

// Append checks and writes one batch. It does not wait for the disk: see Wait. Errors are *kerr.Error,
// *batch.Invalid or errors of package storage.
func (p *Partition) Append(r AppendRequest) (Appended, error) {
	cfg := p.topic.cfg.Load()
	rules := cfg.Rules
	rules.NowMs, rules.Version, rules.Coordinator = r.NowMs, r.Version, r.Coordinator
	// Checked before the lock: the checksum of a megabyte must not hold up the other producers.
	c, bad := batch.Check(r.Records, rules)
	if bad != nil {
		// Who does not lead has no say on the records: Kafka finds the partition first.
		if err := p.appendable(r, cfg); err != nil {
			return Appended{}, err
		}
		return Appended{LogStart: p.log.Start()}, bad
	}
	if !r.Coordinator {
		if err := p.dir.d.Writable(int64(len(c.Batch))); err != nil {
			p.set.storageError(p, err)
			return Appended{}, err
		}
	}
	if int64(len(c.Batch)) > int64(cfg.Log.SegmentBytes) {
		return Appended{}, kerr.RecordListTooLarge
	}
	p.app.Lock()
	a, err := p.appendLocked(r, cfg, c)
	p.app.Unlock()
	if err != nil {
		p.set.storageError(p, err)
	}
	return a, err
}

// appendable says whether this broker would take an append.
func (p *Partition) appendable(r AppendRequest, cfg *Config) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.leadsLocked(r.LeaderEpoch); err != nil {
		return err
	}
	if r.Acks == AcksAll && p.mu.leader.BelowMin() {
		return kerr.NotEnoughReplicas
	}
	return nil
}

// appendLocked runs under app.
func (p *Partition) appendLocked(r AppendRequest, cfg *Config, c batch.Checked) (Appended, error) {
	p.mu.Lock()
	err := p.leadsLocked(r.LeaderEpoch)
	epoch := p.mu.epoch
	if err == nil && r.Acks == AcksAll && p.mu.leader.BelowMin() {
		err = kerr.NotEnoughReplicas
	}
	p.mu.Unlock()
	if err != nil {
		return Appended{}, err
	}
	out := Appended{LogAppendTimeMs: c.LogAppendTimeMs, Epoch: epoch}
	if c.Batch.HasProducer() {
		p.app.batch, p.app.nowMs, p.app.txnVersion = c.Batch, r.NowMs, r.TxnVersion
		p.log.Producers(p.check)
		v, err := p.app.verdict, p.app.err
		p.app.batch = nil
		if err != nil {
			return Appended{}, err
		}
		if c.Batch.IsTransactional() && !v.Duplicate && !r.Coordinator {
			if err := p.guardedLocked(c.Batch, r.Guard, r.Version); err != nil {
				return Appended{}, err
			}
		}
		if c.Batch.IsControl() {
			p.voidLocked(c.Batch, r.TxnVersion)
		}
		if v.Duplicate {
			out.Base, out.End, out.Duplicate = v.BaseOffset, v.LastOffset+1, true
			out.LogStart = p.log.Start()
			if cfg.Rules.LogAppendTime {
				out.LogAppendTimeMs = v.Timestamp
			}
			return out, nil
		}
	}
	base, err := p.log.Append(c.Batch, epoch, r.NowMs)
	if err != nil {
		return Appended{}, err
	}
	out.Base, out.End = base, p.log.End()
	out.LogStart = p.log.Start()
	if c.Batch.IsTransactional() || c.Batch.IsControl() {
		p.readUnstable()
	}
	if c.Batch.IsTransactional() && !c.Batch.IsControl() {
		p.usedLocked(c.Batch)
	}
	p.appended(cfg, out.End, int64(len(c.Batch)), int64(c.Batch.Count()), r.NowMs)
	return out, nil
}

// appended tells the replication state, and the flusher when the bytes have to reach the disk. It runs
// under app, so that ends arrive in order.
func (p *Partition) appended(cfg *Config, end, bytes, records, nowMs int64) {
	flush := cfg.Durable()
	if !flush {
		if p.app.unflushed == 0 {
			p.app.since = nowMs
		}
		p.app.unflushed += records
		if p.app.unflushed >= cfg.Log.FlushMessages {
			p.app.unflushed, flush = 0, true
		}
	}
	var due []wait
	p.mu.Lock()
	p.mu.sizes.push(end, bytes)
	if l := p.mu.leader; l != nil {
		l.Step(0, isr.In{Kind: isr.Appended, Offset: end})
		p.writtenLocked(bytes)
		if !cfg.Durable() {
			due = p.raisedLocked(l.Step(p.set.instant(), isr.In{Kind: isr.Flushed, Offset: end}), nil)
			due = p.mu.disk.due(end, due)
		}
	}
	p.mu.Unlock()
	endAll(due, nil)
	if !cfg.Durable() {
		p.publishHW()
	}
	if flush {
		p.dir.flusher.mark(p)
	}
}

// flushed is called by the flusher after a round that covered the partition. buf is scratch space.
func (p *Partition) flushed(buf []wait) []wait {
	end := p.log.Flushed()
	due := buf[:0]
	p.mu.Lock()
	if l := p.mu.leader; l != nil {
		due = p.raisedLocked(l.Step(p.set.instant(), isr.In{Kind: isr.Flushed, Offset: end}), due)
	}
	due = p.mu.disk.due(end, due)
	p.mu.Unlock()
	endAll(due, nil)
	p.publishHW()
	clear(due)
	return due
}

// writtenLocked wakes the followers that wait for something to fetch: they take what is appended, not
// what is committed, and at once, while this broker's own disk is still at work.
func (p *Partition) writtenLocked(bytes int64) {
	p.mu.written += bytes
	for q := p.mu.polls.first; q != nil; q = q.next {
		if q.replica {
			q.add(bytes)
		}
	}
}

// raisedLocked carries out what a step of the leader said: it publishes a higher high watermark, appends
// to due whoever waited for it, and hands a proposal on.
func (p *Partition) raisedLocked(o isr.Out, due []wait) []wait {
	if o.Propose != nil {
		p.set.propose(p, o.Propose)
	}
	if !o.Raised {
		return due
	}
	p.committedLocked(o.HW)
	return p.mu.commit.due(o.HW, due)
}

// committedLocked publishes a higher high watermark to those who read.
func (p *Partition) committedLocked(hw int64) {
	p.hw.Store(hw)
	n := p.mu.sizes.below(hw)
	p.mu.bytes += n
	stable := p.unstable.Load() == math.MaxInt64
	tell := p.set.followersServe.Load()
	for q := p.mu.polls.first; q != nil; q = q.next {
		switch {
		case q.replica:
			q.touched = true // it is told with the next answer, whatever that one is about
			if tell {
				q.fire() // its own readers wait for the high watermark
			}
		case !q.committed || stable:
			q.add(n)
		}
	}
	p.stableLocked()
}

// stableLocked tells the readers of committed records that the last stable offset has risen while
// transactions are open. How many bytes that is, is not counted: they are told to look.
func (p *Partition) stableLocked() {
	lso := min(p.hw.Load(), p.unstable.Load())
	for q := p.mu.polls.first; q != nil; q = q.next {
		if q.committed && lso > q.lso && p.unstable.Load() != math.MaxInt64 {
			q.lso = lso
			q.fire()
		}
	}
}

// publishHW writes the high watermark down in the log, for its checkpoint and its producers. It runs
// after the waiters were woken and without mu: the log's lock is held over writes.
func (p *Partition) publishHW() {
	p.log.SetHW(p.hw.Load())
	if p.unstable.Load() == math.MaxInt64 {
		return
	}
	p.readUnstable()
	p.mu.Lock()
	defer p.mu.Unlock()
	if lso := min(p.hw.Load(), p.unstable.Load()); p.unstable.Load() == math.MaxInt64 {
		// The last open transaction ended; from here on bytes are counted again.
		for q := p.mu.polls.first; q != nil; q = q.next {
			if q.committed && lso > q.lso {
				q.fire()
			}
		}
		return
	}
	p.stableLocked()
}

// Wait registers slot i of w until what r appended is durable: on this broker's disk for acks=1, below
// the high watermark for acks=-1. It is over at once when that is so already or the epoch has ended.
func (p *Partition) Wait(w *Waiter, i int, acks int16, a Appended) {
	w.open(i, p)
	p.mu.Lock()
	err := p.mu.gone
	if err == nil && (p.mu.leader == nil || p.mu.epoch != a.Epoch) {
		err = kerr.NotLeaderForPartition
	}
	over := true
	switch {
	case err != nil:
	case acks == AcksAll:
		if over = a.End <= p.mu.leader.HW(); !over {
			p.mu.commit.push(wait{offset: a.End, w: w, slot: i})
		}
	case acks == AcksLeader:
		if over = a.End <= p.log.Flushed() || !p.topic.cfg.Load().Durable(); !over {
			p.mu.disk.push(wait{offset: a.End, w: w, slot: i})
		}
	}
	p.mu.Unlock()
	if over {
		w.done(i, err)
	}
}

// Reached says that what a names is durable as acks asks, so that no Waiter is needed.
func (p *Partition) Reached(acks int16, a Appended) bool {
	switch acks {
	case AcksAll:
		return a.End <= p.hw.Load()
	case AcksLeader:
		return a.End <= p.log.Flushed() || !p.topic.cfg.Load().Durable()
	}
	return true
}

// forget takes the waits of w out, after its deadline.
func (p *Partition) forget(w *Waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.commit.remove(w)
	p.mu.disk.remove(w)
	p.mu.low.remove(w)
}

func (p *Partition) watch(n *pollNode, r *ReadResult) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.gone != nil || p.mu.leader == nil && p.mu.follower == nil || p.mu.epoch != r.Epoch {
		n.fire()
		return
	}
	p.mu.polls.push(n)
	switch {
	case n.replica:
		n.add(p.mu.written - r.mark)
		if r.news || p.set.followersServe.Load() && p.hw.Load() > r.HW {
			n.fire()
		}
	case !n.committed:
		n.add(p.mu.bytes - r.mark) // what came between the read and now
	case min(p.hw.Load(), p.unstable.Load()) > r.LSO:
		n.add(max(p.mu.bytes-r.mark, 1))
	}
}

func (p *Partition) unwatch(n *pollNode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.polls.remove(n)
}

// handover is how long consumers that wait here are kept after another broker has been elected. Brokers learn of an
// election within milliseconds of each other, and the old leader is often the first: a consumer that is sent away at
// once asks somebody for metadata who does not know yet, comes back here, and then rests, franz-go for a second.
const handover = 40 * time.Millisecond

// endLocked takes out everybody who waits, because the role is over; elected says that another broker has it now.
// The caller ends the returned waits outside the lock.
func (p *Partition) endLocked(elected bool) []wait {
	due := p.mu.commit.all(nil)
	due = p.mu.disk.all(due)
	due = p.mu.low.all(due)
	var later []*LongPoll
	for q := p.mu.polls.first; q != nil; q = q.next {
		if !elected || q.replica { // a follower is told at once: the new leader waits for it
			q.fire()
			continue
		}
		q.touched = true
		later = append(later, q.poll)
	}
	if len(later) > 0 {
		time.AfterFunc(handover, func() {
			for _, l := range later {
				l.fire()
			}
		})
	}
	return due
}

// fail makes the partition answer err for ever: it was deleted, or its disk failed.
func (p *Partition) fail(err error) {
	p.mu.Lock()
	if p.mu.gone != nil {
		p.mu.Unlock()
		return
	}
	p.mu.gone = err
	due := p.endLocked(false)
	p.mu.Unlock()
	endAll(due, err)
}
