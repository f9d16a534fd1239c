package isr

import (
	"slices"
	"time"

	"github.com/milena-mq/milena/internal/det"
)

// Assignment is what the cluster's image says about one partition, as far as its leader needs it.
// The slices are read, never kept for writing.
type Assignment struct {
	Replicas       []int32 // assigned replicas
	ISR            []int32 // committed in-sync replicas
	LeaderEpoch    int32
	PartitionEpoch int32
	MinISR         int32 // min.insync.replicas as configured, at least 1
	// Lag is replica.lag.time.max.ms. 0: the leader proposes no change of the set.
	Lag time.Duration
	// Brokers says what the image knows of the brokers that hold replicas. A replica that is not listed
	// may not join the set.
	Brokers []Broker
}

// Broker is a replica's broker as the image shows it.
type Broker struct {
	ID     int32
	Epoch  int64 // of its registration (KIP-903)
	Active bool  // neither fenced nor in controlled shutdown
}

// Kind says what an input is about.
type Kind uint8

// The inputs of a Leader.
const (
	// Appended: the leader's own log now ends at Offset.
	Appended Kind = iota + 1
	// Flushed: everything below Offset is on the leader's disk. A partition that does not wait for
	// its disk (flush.messages above 1) says so at once for what it appended.
	Flushed
	// Fetched: follower Replica asked for Offset, so everything below Offset is on its disk.
	Fetched
	// Assigned: the image has a new record for the partition, or min.insync.replicas changed.
	Assigned
	// Tick says only that time has passed. It is due at Wake, and once right after NewLeader.
	Tick
	// Answered: the controller's answer to proposal Seq is Answer; To is the new state when it is Committed.
	Answered
)

// In is one input. Fields that the kind does not name are zero.
type In struct {
	Kind    Kind
	Offset  int64 // Appended, Flushed, Fetched
	Replica int32 // Fetched
	// BrokerEpoch of the follower's incarnation (Fetched); -1: it did not say, and is not compared.
	BrokerEpoch int64
	// Behind says that the follower's log start is below the one that this leader shows (Fetched): it may not
	// join the set yet. Led by it, the partition would show again what DeleteRecords has taken (invariant I20).
	Behind bool
	To     Assignment // Assigned, Answered with Committed
	Seq    int64      // Answered
	Answer Answer     // Answered
}

// Out is what came of an input.
type Out struct {
	HW     int64 // the high watermark after the input
	Raised bool  // it is higher than before
	// Propose is a change of the in-sync set to be sent to the controller; nil: none. It stays the only
	// one until it is Answered or the image has moved.
	Propose *Proposal
}

// follower is what the leader knows about another replica.
type follower struct {
	id     int32
	end    int64 // everything below is on its disk; -1: not heard of in this epoch
	inSync bool  // in the committed set
	epoch  int64 // broker epoch of its last fetch; -1: not told
	behind bool  // its log start was below the leader's then

	caughtUp  det.Instant // last moment at which it had everything
	fetched   det.Instant // moment of its last fetch
	endAtLast int64       // the leader's log end at that moment; -1: no fetch yet
}

// Leader is the leader's half of one partition's replication, for one leader epoch.
type Leader struct {
	self    int32
	to      Assignment
	start   int64 // log end when the epoch began (KIP-207)
	end     int64
	flushed int64
	hw      int64
	others  []follower // the other replicas, in assignment order
	began   bool       // the first Tick has come
	check   det.Instant
	seq     int64
	pending pending
}

var _ det.Machine[In, Out] = (*Leader)(nil)

// NewLeader starts an epoch. hw is the high watermark this replica knew, which may be behind; end is
// its log end, where the epoch starts; flushed is what of it is durable, at most end.
func NewLeader(self int32, to Assignment, hw, flushed, end int64) *Leader {
	l := &Leader{self: self, start: end, end: end, flushed: min(flushed, end), hw: min(hw, end), check: det.Never}
	l.assign(to)
	l.advance(0)
	return l
}

// Step takes one input.
func (l *Leader) Step(now det.Instant, in In) Out {
	var p *Proposal
	switch in.Kind {
	case Appended:
		l.end = max(l.end, in.Offset)
		return Out{HW: l.hw} // what is only in memory moves nothing
	case Flushed:
		// Never past the end: a flush of a log that was truncated meanwhile must not invent progress.
		l.flushed = max(l.flushed, min(in.Offset, l.end))
	case Fetched:
		if f := l.follower(in.Replica); f != nil && l.fetched(f, now, in) {
			// The high watermark is looked at first: who joins must have reached it.
			o := l.advance(now)
			o.Propose = l.expand()
			return o
		}
		return Out{HW: l.hw}
	case Assigned:
		l.assign(in.To)
	case Tick:
		p = l.tick(now)
	case Answered:
		l.answered(now, in)
	}
	o := l.advance(now)
	o.Propose = p
	return o
}

func (l *Leader) follower(id int32) *follower {
	for i := range l.others {
		if l.others[i].id == id {
			return &l.others[i]
		}
	}
	return nil
}

// fetched notes a follower's progress; false when the fetch counts for nothing.
func (l *Leader) fetched(f *follower, now det.Instant, in In) bool {
	if b, ok := l.broker(f.id); ok && l.to.Lag > 0 && in.BrokerEpoch >= 0 && in.BrokerEpoch < b.Epoch {
		// A fetch sent before the broker restarted tells of a disk that may have lost what it had
		// (KIP-903, invariant I16).
		return false
	}
	if f.epoch != in.BrokerEpoch {
		f.epoch, f.endAtLast = in.BrokerEpoch, -1
		if !f.inSync {
			f.caughtUp = 0 // the high watermark must not wait for what an earlier incarnation had
		}
	}
	// A follower that claims more than the leader has is answered by truncation; it holds nothing that counts.
	f.end = min(in.Offset, l.end)
	switch {
	case in.Offset >= l.end:
		f.caughtUp = now
	case f.endAtLast >= 0 && in.Offset >= f.endAtLast:
		// It has all that there was when it asked before; what came since does not make it late.
		f.caughtUp = max(f.caughtUp, f.fetched)
	}
	f.fetched, f.endAtLast, f.behind = now, l.end, in.Behind
	return true
}

func (l *Leader) broker(id int32) (Broker, bool) {
	for _, b := range l.to.Brokers {
		if b.ID == id {
			return b, true
		}
	}
	return Broker{}, false
}

// Wake is the next look at followers that fall behind, or the repetition of a proposal that got lost.
func (l *Leader) Wake() det.Instant {
	if l.to.Lag <= 0 {
		return det.Never
	}
	return min(l.check, l.pending.retry())
}

func (l *Leader) assign(to Assignment) {
	if to.LeaderEpoch != l.to.LeaderEpoch && l.to.Replicas != nil || to.PartitionEpoch < l.to.PartitionEpoch {
		return // an older image, or another leader's epoch: nothing in it is about this machine
	}
	others := make([]follower, 0, max(len(to.Replicas)-1, 0))
	for _, id := range to.Replicas {
		if id == l.self {
			continue
		}
		f := follower{id: id, end: -1, epoch: -1, endAtLast: -1}
		if o := l.follower(id); o != nil {
			f = *o
		}
		in := slices.Contains(to.ISR, id)
		if f.inSync && !in {
			// Who left has to catch up anew before the high watermark waits for it: a broker that comes back within
			// replica.lag.time.max.ms would else hold up all producers until it has what it missed.
			f.caughtUp = 0
		}
		f.inSync = in
		others = append(others, f)
	}
	if to.PartitionEpoch > l.to.PartitionEpoch {
		l.pending = pending{} // the image has answered, whatever it said
	}
	l.others, l.to = others, to
	for i := range l.others {
		f := &l.others[i]
		if b, ok := l.broker(f.id); ok && f.epoch >= 0 && f.epoch < b.Epoch {
			// Its progress was that of an earlier incarnation.
			f.end, f.epoch, f.endAtLast = -1, -1, -1
		}
	}
}

// advance recomputes the high watermark over the maximal in-sync set: members that are about to leave
// still count, since the controller may refuse; members that are about to join count already, since it
// may have agreed and made one of them leader.
func (l *Leader) advance(now det.Instant) Out {
	if l.BelowMin() {
		// KIP-966: with too few copies even acks=1 data stays invisible, or a consumer could read
		// what the next leader does not have.
		return Out{HW: l.hw}
	}
	hw := l.flushed
	for i := range l.others {
		if f := &l.others[i]; f.inSync || l.pending.has(f.id) || l.joins(f, now) {
			hw = min(hw, f.end)
		}
	}
	if hw <= l.hw {
		return Out{HW: l.hw}
	}
	l.hw = hw
	return Out{HW: hw, Raised: true}
}

// HW is the high watermark: everything below is on every in-sync replica's disk.
func (l *Leader) HW() int64 { return l.hw }

// EndOf is up to where a follower has told that it has everything on its disk, -1 when it has not told.
func (l *Leader) EndOf(id int32) int64 {
	if f := l.follower(id); f != nil {
		return f.end
	}
	return -1
}

// Active says that the image shows a broker neither fenced nor in controlled shutdown.
func (l *Leader) Active(id int32) bool {
	b, ok := l.broker(id)
	return ok && b.Active
}

// Start is the log end at which this epoch began.
func (l *Leader) Start() int64 { return l.start }

// Assignment is what the leader last heard.
func (l *Leader) Assignment() Assignment { return l.to }

// MinISR is the effective min.insync.replicas: min(configured, replica count).
func (l *Leader) MinISR() int {
	return min(max(int(l.to.MinISR), 1), max(len(l.to.Replicas), 1))
}

// BelowMin says that the in-sync set is too small for acks=all and for the high watermark to move.
func (l *Leader) BelowMin() bool { return len(l.to.ISR) < l.MinISR() }

// CaughtUp says that the high watermark has reached the start of this epoch. Before, the latest
// offset is not known for sure and ListOffsets answers OFFSET_NOT_AVAILABLE (KIP-207).
func (l *Leader) CaughtUp() bool { return l.hw >= l.start }
