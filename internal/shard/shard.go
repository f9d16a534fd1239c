package shard

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/txn"
)

// reloadPause is how long a coordinator whose append or load went wrong waits before it loads again: the
// cause, a full disk or too few replicas, seldom passes at once, and a replay is not cheap. It doubles up to
// reloadPauseMax while loading itself goes wrong.
const (
	reloadPause    = time.Second
	reloadPauseMax = 30 * time.Second
)

// recordOverhead bounds what a batch adds to a record's key and value.
const recordOverhead = 48

type item struct {
	w  waiter // zero: nobody waits
	ev any    // of the machine, or a markerEvent
	// admit is asked before the event.
	admit *Admission
	// parked is when it was parked first; 0: never.
	parked det.Instant
}

type phase uint8

const (
	loading phase = iota
	active
	stopped
)

// shard runs one machine on one log. Everything outside mu belongs to the goroutine in run.
type shard struct {
	partition int32
	log       Log
	o         Options
	kind      *kind

	wake chan struct{} // one token: look at the inbox
	quit chan struct{} // closed by stop

	mu struct {
		sync.Mutex
		phase phase
		inbox []item
	}
	draining atomic.Bool
	hand     struct {
		sync.Mutex     // held while effects are handed over
		loads      int // machines there were before this one
	}

	m       machine
	waiters map[uint64]item // tokens that are owed an answer, and the events they came with
	token   uint64
	fx      effects
	spare   []item     // the inbox of the round before, used again
	flight  []*release // answers waiting for the log, oldest first
	end     int64      // log end: what an answer given now has seen
	parked  parking
}

func newShard(partition int32, log Log, o Options, k *kind) *shard {
	return &shard{partition: partition, log: log, o: o, kind: k, wake: make(chan struct{}, 1), quit: make(chan struct{})}
}

// submit takes an item or answers it. Items for which nobody waits are kept while loading, too: a topic that is
// deleted meanwhile has offsets in the log that is being read.
func (s *shard) submit(it item) {
	var refused *kerr.Error
	s.mu.Lock()
	switch {
	case s.mu.phase == stopped || s.draining.Load():
		refused = kerr.NotCoordinator
	case it.w.call != nil && (s.mu.phase == loading || len(s.mu.inbox) >= inboxLimit):
		refused = kerr.CoordinatorLoadInProgress
	default:
		s.mu.inbox = append(s.mu.inbox, it)
	}
	s.mu.Unlock()
	if refused != nil {
		it.w.finish(Result{Err: refused})
		return
	}
	s.poke()
}

func (s *shard) poke() {
	select {
	case s.wake <- struct{}{}:
	default: // it has been told and has not looked yet
	}
}

// stop ends the coordinator; run answers whoever waits.
func (s *shard) stop() {
	s.mu.Lock()
	was := s.mu.phase
	s.mu.phase = stopped
	s.mu.Unlock()
	if was != stopped {
		close(s.quit)
	}
}

// drain takes no more and stops when what was taken is committed.
func (s *shard) drain() {
	s.draining.Store(true)
	s.poke()
}

// run loads and serves until stop, or until drain has nothing left to wait for.
func (s *shard) run() {
	defer s.leave()
	wait := reloadPause / 2
	for {
		wait = min(2*wait, reloadPauseMax)
		if err := s.load(); err != nil {
			if !s.isStopped() {
				s.o.Log.Warn(s.kind.name+" cannot load", "partition", s.partition, "epoch", s.log.Epoch(), "err", err)
			}
		} else if err = s.serve(); err == nil {
			return
		} else if wait = reloadPause; !s.isStopped() {
			s.o.Log.Warn(s.kind.name+" loads again", "partition", s.partition, "epoch", s.log.Epoch(), "err", err)
		}
		s.forget(kerr.CoordinatorNotAvailable)
		if !s.pause(wait) {
			return
		}
	}
}

// pause rests before the next load; false: there will be none.
func (s *shard) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		if s.draining.Load() {
			return false
		}
		select {
		case <-timer.C:
			return true
		case <-s.quit:
			return false
		case <-s.wake: // something came for the machine after this, or the end
		}
	}
}

func (s *shard) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.phase == stopped
}

// load builds the machine from the log.
func (s *shard) load() error {
	m := s.kind.make(s.log.Epoch())
	bad := 0
	err := s.log.Replay(func(b batch.Batch) error {
		select {
		case <-s.quit:
			return errStopped
		default:
		}
		defer m.setNext(b.NextOffset())
		if b.IsControl() {
			if mk, ok, err := b.Marker(); err == nil && ok {
				m.marker(b.LastOffset(), b, mk)
			}
			return nil
		}
		return b.Each(batch.Limits{}, func(r batch.Record) error {
			err := m.replay(b, r)
			if errors.Is(err, group.ErrRecord) || errors.Is(err, txn.ErrRecord) {
				// Somebody else wrote it, the batch's CRC being right. To refuse the whole partition for it
				// would take everything on it away.
				if bad++; bad <= 10 {
					s.o.Log.Warn("record of "+s.kind.topic+" skipped", "partition", s.partition, "err", err)
				}
				return nil
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	s.m, s.end = m, m.next()
	s.waiters = map[uint64]item{}
	s.fx.reset()
	m.loaded(s.now(), &s.fx)
	var w writer
	if err := s.collect(&w); err != nil {
		return err
	}
	if err := s.finish(&w); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.phase == stopped {
		return errStopped
	}
	s.mu.phase = active
	return nil
}

var errStopped = errors.New("coordinator stopped")

func (s *shard) now() det.Instant { return det.At(s.o.Clock()) }

// serve is the loop: everything that has arrived is stepped and appended together. It returns nil when it
// should end and an error when the machine can no longer be trusted.
func (s *shard) serve() error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if err := s.round(); err != nil {
			return err
		}
		if s.idleAndDraining() {
			return nil
		}
		var due <-chan time.Time
		if at := s.wakeAt(); at != det.Never {
			timer.Reset(max(at.Sub(s.now()), 0))
			due = timer.C
		}
		select {
		case <-s.wake:
		case <-due:
		case <-s.quit:
			return nil
		}
	}
}

// round takes what is in the inbox through the machine and into the log.
func (s *shard) round() error {
	s.mu.Lock()
	items := s.mu.inbox
	s.mu.inbox = s.spare[:0]
	s.mu.Unlock()
	now := s.now()
	var w writer
	// Owed from here on: a failure half way must not leave the rest of the round without an answer.
	first := s.token + 1
	for _, it := range items {
		s.token++
		if it.w.call != nil {
			s.waiters[s.token] = it
		}
	}
	var err error
	for i := range items {
		if err = s.step(&w, now, first+uint64(i), &items[i]); err != nil {
			break
		}
	}
	if err == nil && s.m.wake() <= now {
		err = s.step(&w, now, 0, &item{})
	}
	clear(items)
	s.spare = items[:0]
	if err == nil {
		err = s.finish(&w)
	}
	if err != nil {
		w.fail(err)
		return err
	}
	s.parked.expire(now)
	s.expire(now)
	return nil
}

// step takes one item through the machine, and then what was parked for something that ended by it.
func (s *shard) step(w *writer, now det.Instant, token uint64, it *item) error {
	if it.w.call == nil {
		token = 0
	}
	if mk, ok := it.ev.(markerEvent); ok {
		return s.mark(w, token, mk)
	}
	if it.admit != nil {
		// Between the coordinator's word and this moment the transaction may have ended. This goroutine is the only
		// writer, so what the log says now still holds when the records are written.
		if err := s.admit(w, it.admit); err != nil {
			var k *kerr.Error
			if !errors.As(err, &k) {
				return err
			}
			s.owe(w, token, Result{Err: k})
			return nil
		}
	}
	s.fx.reset()
	s.m.step(now, token, it.ev, &s.fx)
	if err := s.collect(w); err != nil {
		return err
	}
	// Taken out first: an item may be parked again.
	for _, p := range s.parked.take(s.fx.done) {
		s.token++
		s.waiters[s.token] = p.it
		s.fx.reset()
		s.m.step(now, s.token, p.it.ev, &s.fx)
		if err := s.collect(w); err != nil {
			return err
		}
	}
	return nil
}

// admit asks the log, with everything in it that was decided before.
func (s *shard) admit(w *writer, a *Admission) error {
	if w.b != nil {
		if err := s.append(w); err != nil {
			return err
		}
	}
	return s.log.Admit(a.ProducerID, a.Epoch, a.Guard)
}

// mark writes a marker behind everything that was decided before it.
func (s *shard) mark(w *writer, token uint64, mk markerEvent) error {
	if w.b != nil {
		if err := s.append(w); err != nil {
			return err
		}
	}
	base, end, err := s.log.AppendMarker(mk.b, mk.version)
	var refused *kerr.Error
	switch {
	case errors.As(err, &refused) && refused != kerr.NotLeaderForPartition && refused != kerr.KafkaStorageError:
		// The marker is late, or no good, or cannot be replicated enough now. Nothing was decided by it, so the
		// machine is right as it is.
		s.owe(w, token, Result{Err: refused})
		return nil
	case err != nil:
		return err
	}
	if m, ok, err := mk.b.Marker(); err == nil && ok {
		s.m.marker(base, mk.b, m)
	}
	s.end = end
	s.m.setNext(end)
	s.owe(w, token, Result{})
	return nil
}

// owe answers a token with what is committed now.
func (s *shard) owe(w *writer, token uint64, r Result) {
	if it, ok := s.waiters[token]; ok {
		delete(s.waiters, token)
		w.owed = append(w.owed, owed{it.w, r})
	}
}

// writer gathers one round's records into batches and its answers.
type writer struct {
	b    *batch.Builder
	owed []owed
	then []any
	n    int64 // records in b
	size int   // upper bound of its bytes
	// of the transaction that the records in b belong to, noProducer for none
	producer int64
	epoch    int16
}

type owed struct {
	w waiter
	r Result
}

// collect takes over the effects of one step.
func (s *shard) collect(w *writer) error {
	for _, r := range s.fx.records {
		n := len(r.key) + len(r.value) + recordOverhead
		if w.b != nil && (w.size+n > s.o.MaxBatchBytes || w.producer != r.producer || w.epoch != r.epoch) {
			if err := s.append(w); err != nil {
				return err
			}
		}
		if w.b == nil {
			spec := batch.Spec{LeaderEpoch: s.log.Epoch()}
			if r.producer != noProducer {
				// Without sequences: the coordinator is the only writer, and repeats nothing.
				spec.Transactional, spec.Producer = true, &batch.ProducerInfo{ID: r.producer, Epoch: r.epoch, Sequence: -1}
			}
			w.b, w.size, w.n, w.producer, w.epoch = batch.NewBuilder(spec), batch.HeaderSize, 0, r.producer, r.epoch
		}
		if err := w.b.Add(batch.Record{Timestamp: s.o.Clock().UnixMilli(), Key: r.key, Value: r.value}); err != nil {
			return err
		}
		w.size += n
		w.n++
	}
	for _, a := range s.fx.answers {
		it, ok := s.waiters[a.token]
		if !ok {
			continue
		}
		delete(s.waiters, a.token)
		if a.parked != "" && s.parked.add(a.parked, it, Result{Value: a.response}, s.now()) {
			continue
		}
		w.owed = append(w.owed, owed{it.w, Result{Value: a.response}})
	}
	w.then = append(w.then, s.fx.then...)
	return nil
}

func (s *shard) append(w *writer) error {
	b, err := w.b.Build()
	n := w.n
	w.b = nil
	if err != nil {
		return err
	}
	base, end, err := s.log.Append(b)
	if err != nil {
		return err
	}
	if base != s.end {
		// Somebody else wrote to the partition. Offsets of records only have to rise.
		s.o.Log.Warn("foreign records in "+s.kind.topic, "partition", s.partition, "from", s.end, "to", base)
		s.m.setNext(base + n)
	}
	s.end = end
	return nil
}

// finish appends the rest and lets the answers go when the log is committed up to here. They also wait when
// their own steps wrote nothing: they saw what earlier ones wrote.
func (s *shard) finish(w *writer) error {
	if w.b != nil {
		if err := s.append(w); err != nil {
			return err
		}
	}
	if len(w.owed) == 0 && len(w.then) == 0 {
		return nil
	}
	r := &release{owed: w.owed, then: w.then, deadline: s.now().Add(s.o.CommitTimeout), shard: s, load: s.hand.loads}
	w.owed, w.then = nil, nil
	s.flight = append(s.flight, r)
	s.log.OnCommitted(s.end, r.committed)
	return nil
}

func (w *writer) fail(err error) {
	code := refusal(err)
	for _, o := range w.owed {
		o.w.finish(Result{Err: code})
	}
	w.owed = nil
}

// refusal is Kafka's translation of an append error for clients of a coordinator.
func refusal(err error) *kerr.Error {
	var k *kerr.Error
	if !errors.As(err, &k) {
		return kerr.NotCoordinator // a storage error: the partition is about to move
	}
	switch k {
	case kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut, kerr.UnknownTopicOrPartition:
		return kerr.CoordinatorNotAvailable
	case kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.FencedLeaderEpoch:
		return kerr.NotCoordinator
	}
	return kerr.UnknownServerError
}

// release is the answers of one round, let go by whoever is first: the commit, the timeout or the end.
type release struct {
	owed     []owed
	then     []any
	deadline det.Instant
	done     atomic.Bool
	shard    *shard
	load     int // of which machine
}

func (r *release) committed(err error) {
	if err != nil {
		r.end(refusal(err))
		return
	}
	late := !r.done.CompareAndSwap(false, true)
	if len(r.then) > 0 {
		// Also when nobody waits for the answers any more: what was decided has to be carried out.
		r.shard.handOver(r.load, r.then)
	}
	if !late {
		for _, o := range r.owed {
			o.w.finish(o.r)
		}
		r.settled()
	}
}

// handOver gives on what is committed, unless the machine that decided it is gone. The one after it has read the same
// records and asks for the same: a second copy of a marker could come so late that it ends the next transaction of a
// producer, which in version 1 of the protocol has the same epoch.
func (s *shard) handOver(load int, what []any) {
	s.hand.Lock()
	defer s.hand.Unlock()
	if load == s.hand.loads {
		s.kind.then(what)
	}
}

func (r *release) end(err *kerr.Error) {
	if r.done.CompareAndSwap(false, true) {
		for _, o := range r.owed {
			o.w.finish(Result{Err: err})
		}
		r.settled()
	}
}

// settled tells a coordinator that drains, which waits for this.
func (r *release) settled() {
	if r.shard.draining.Load() {
		r.shard.poke()
	}
}

// expire drops what is done from the flight list and answers what has waited too long: the records are in
// the log and may yet be committed, so the client is told to ask again, not that it failed.
func (s *shard) expire(now det.Instant) {
	n := 0
	for n < len(s.flight) {
		r := s.flight[n]
		if !r.done.Load() && r.deadline > now {
			break
		}
		r.end(kerr.CoordinatorNotAvailable)
		s.flight[n] = nil
		n++
	}
	if n == len(s.flight) {
		s.flight = s.flight[:0]
	} else {
		s.flight = s.flight[n:]
	}
}

func (s *shard) wakeAt() det.Instant {
	at := min(s.m.wake(), s.parked.wake())
	if len(s.flight) > 0 {
		at = min(at, s.flight[0].deadline)
	}
	return at
}

func (s *shard) idleAndDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining.Load() && len(s.mu.inbox) == 0 && len(s.flight) == 0
}

// forget drops the machine and answers everybody who waits for it.
func (s *shard) forget(err *kerr.Error) {
	s.hand.Lock()
	s.hand.loads++
	if s.kind.forget != nil {
		s.kind.forget()
	}
	s.hand.Unlock()
	var refused []item
	s.mu.Lock()
	if s.mu.phase == active {
		s.mu.phase = loading
	}
	// Deleted topics, and the finalised version, are told again to the machine that comes next, in their order.
	s.mu.inbox = slices.DeleteFunc(s.mu.inbox, func(it item) bool {
		if it.w.call != nil {
			refused = append(refused, it)
		}
		return it.w.call != nil
	})
	s.mu.Unlock()
	s.m, s.spare = nil, nil
	for _, it := range refused {
		it.w.finish(Result{Err: err})
	}
	for t, it := range s.waiters {
		delete(s.waiters, t)
		it.w.finish(Result{Err: err})
	}
	s.parked.end(err)
	for _, r := range s.flight {
		r.end(err)
	}
	s.flight = nil
}

// leave is the end of run: from here on nothing is taken, and nobody is left waiting.
func (s *shard) leave() {
	s.stop()
	s.forget(kerr.NotCoordinator)
}
