package isr

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/det"
)

// retryAfter is how long a proposal rests after an answer that says nothing about it.
const retryAfter = 50 * time.Millisecond

// Member is a replica with the broker epoch under which its leader heard of it (AlterPartition v3).
type Member struct {
	ID    int32
	Epoch int64 // -1: not compared
}

// Proposal is a wish to change the in-sync set of one partition.
type Proposal struct {
	Seq            int64
	LeaderEpoch    int32
	PartitionEpoch int32 // of the state that it changes
	ISR            []Member
}

// Answer is what the controller's answer to a proposal means to its leader (kafka.md 4.2).
type Answer uint8

// The answers.
const (
	// Failed: nothing is known; the same proposal is sent again.
	Failed Answer = iota
	// Committed: the set is as In.To says.
	Committed
	// Refused: a member may not be in the set; back to the committed one.
	Refused
	// Superseded: the image has moved. Until it is here the old set and the proposed one both count.
	Superseded
)

// AnswerOf reads the error code of AlterPartition, 0 for none.
func AnswerOf(code int16) Answer {
	switch code {
	case 0:
		return Committed
	case kerr.IneligibleReplica.Code, kerr.OperationNotAttempted.Code:
		return Refused
	case kerr.FencedLeaderEpoch.Code, kerr.InvalidUpdateVersion.Code, kerr.InvalidRequest.Code,
		kerr.UnknownTopicOrPartition.Code, kerr.UnknownTopicID.Code, kerr.NewLeaderElected.Code:
		return Superseded
	}
	return Failed
}

// pending is the proposal in flight.
type pending struct {
	p     *Proposal
	again det.Instant // when to send it again; 0: not to be sent again
}

func (p *pending) has(id int32) bool {
	return p.p != nil && slices.ContainsFunc(p.p.ISR, func(m Member) bool { return m.ID == id })
}

func (p *pending) retry() det.Instant {
	if p.p == nil || p.again == 0 {
		return det.Never
	}
	return p.again
}

// Pending is the proposal that the controller has not answered, nil when there is none.
func (l *Leader) Pending() *Proposal { return l.pending.p }

// eligible says that the controller would let a follower into the set: known, active, and the very
// incarnation that fetched. One whose log begins earlier than the leader's has to wait.
func (l *Leader) eligible(f *follower) bool {
	b, ok := l.broker(f.id)
	return ok && b.Active && !f.behind && (f.epoch == -1 || f.epoch == b.Epoch)
}

// joins says that a follower outside the set is about to join, so that the high watermark waits for
// it; under load it would else never be at the high watermark at the moment it fetches.
func (l *Leader) joins(f *follower, now det.Instant) bool {
	return l.to.Lag > 0 && f.end >= l.start && f.endAtLast >= 0 && f.caughtUp > 0 && now.Sub(f.caughtUp) <= l.to.Lag && l.eligible(f)
}

// expand proposes the set with every follower that has what it must have.
func (l *Leader) expand() *Proposal {
	if l.to.Lag <= 0 || l.pending.p != nil {
		return nil
	}
	// The start of the epoch: a follower at the high watermark alone could lack records that an earlier leader
	// acknowledged and whose acknowledgement this one has not learned of yet.
	joins := func(f *follower) bool {
		return !f.inSync && f.end >= l.hw && f.end >= l.start && l.eligible(f)
	}
	for i := range l.others {
		if joins(&l.others[i]) {
			return l.propose(l.members(func(f *follower) bool { return f.inSync || joins(f) }))
		}
	}
	return nil // nearly always: a fetch in a set that is complete must cost nothing
}

// tick proposes the set without those that have been behind for too long.
func (l *Leader) tick(now det.Instant) *Proposal {
	if !l.began {
		l.began = true
		for i := range l.others {
			if f := &l.others[i]; f.inSync {
				f.caughtUp = max(f.caughtUp, now)
			}
		}
	}
	if l.to.Lag <= 0 {
		return nil
	}
	if l.pending.p != nil {
		if now < l.pending.retry() {
			l.check = now.Add(l.to.Lag / 2)
			return nil
		}
		l.pending.again = 0
		return l.pending.p
	}
	if l.check != det.Never && now < l.check {
		return nil
	}
	l.check = now.Add(l.to.Lag / 2)
	left := false
	members := l.members(func(f *follower) bool {
		late := f.inSync && f.end < l.end && now.Sub(f.caughtUp) > l.to.Lag
		left = left || late
		return f.inSync && !late
	})
	if !left {
		return nil
	}
	return l.propose(members)
}

// members is this broker and those that in picks, in the order of the assignment.
func (l *Leader) members(in func(*follower) bool) []Member {
	var out []Member
	for _, id := range l.to.Replicas {
		if id == l.self {
			b, ok := l.broker(id)
			if !ok {
				b.Epoch = -1
			}
			out = append(out, Member{id, b.Epoch})
		} else if f := l.follower(id); in(f) {
			out = append(out, Member{id, l.memberEpoch(f)})
		}
	}
	return out
}

// memberEpoch is the incarnation that a follower fetched as; of one that has not fetched in this
// epoch, the one that the image shows.
func (l *Leader) memberEpoch(f *follower) int64 {
	if f.epoch >= 0 {
		return f.epoch
	}
	if b, ok := l.broker(f.id); ok {
		return b.Epoch
	}
	return -1
}

func (l *Leader) propose(m []Member) *Proposal {
	l.seq++
	l.pending = pending{p: &Proposal{Seq: l.seq, LeaderEpoch: l.to.LeaderEpoch, PartitionEpoch: l.to.PartitionEpoch, ISR: m}}
	return l.pending.p
}

func (l *Leader) answered(now det.Instant, in In) {
	if l.pending.p == nil || in.Seq != l.pending.p.Seq {
		return // to a proposal that the image has answered already
	}
	switch in.Answer {
	case Committed:
		l.assign(in.To)
	case Refused:
		l.pending = pending{}
	case Superseded:
	case Failed:
		l.pending.again = now.Add(retryAfter)
	}
}
