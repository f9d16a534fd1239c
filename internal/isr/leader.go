package isr

import (
	"slices"

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
)

// In is one input. Fields that the kind does not name are zero.
type In struct {
	Kind    Kind
	Offset  int64 // Appended, Flushed, Fetched
	Replica int32 // Fetched
	To      Assignment
}

// Out is what came of an input.
type Out struct {
	HW     int64 // the high watermark after the input
	Raised bool  // it is higher than before
}

// follower is what the leader knows about another replica.
type follower struct {
	id     int32
	end    int64 // everything below is on its disk; -1: not heard of in this epoch
	inSync bool
}

// Leader is the leader's half of one partition's replication, for one leader epoch. It is a
// det.Machine that needs no timer as long as there is no follower to lose patience with.
type Leader struct {
	self    int32
	to      Assignment
	start   int64 // log end when the epoch began (KIP-207)
	end     int64
	flushed int64
	hw      int64
	others  []follower // the other replicas, in assignment order
}

var _ det.Machine[In, Out] = (*Leader)(nil)

// NewLeader starts an epoch. hw is the high watermark this replica knew, which may be behind; end is
// its log end, where the epoch starts; flushed is what of it is durable, at most end.
func NewLeader(self int32, to Assignment, hw, flushed, end int64) *Leader {
	l := &Leader{self: self, start: end, end: end, flushed: min(flushed, end), hw: min(hw, end)}
	l.assign(to)
	l.advance()
	return l
}

// Step takes one input. now is unused until followers can fall behind by time.
func (l *Leader) Step(_ det.Instant, in In) Out {
	switch in.Kind {
	case Appended:
		l.end = max(l.end, in.Offset)
		return Out{HW: l.hw} // what is only in memory moves nothing
	case Flushed:
		// Never past the end: a flush of a log that was truncated meanwhile must not invent progress.
		l.flushed = max(l.flushed, min(in.Offset, l.end))
	case Fetched:
		for i := range l.others {
			if f := &l.others[i]; f.id == in.Replica {
				// A follower that claims more than the leader has is answered by truncation; it
				// holds nothing that counts.
				f.end = min(in.Offset, l.end)
			}
		}
	case Assigned:
		l.assign(in.To)
	}
	return l.advance()
}

// Wake is Never: a leader without followers waits for nothing.
func (l *Leader) Wake() det.Instant { return det.Never }

func (l *Leader) assign(to Assignment) {
	others := make([]follower, 0, max(len(to.Replicas)-1, 0))
	for _, id := range to.Replicas {
		if id == l.self {
			continue
		}
		f := follower{id: id, end: -1}
		for _, o := range l.others {
			if o.id == id {
				f.end = o.end
			}
		}
		f.inSync = slices.Contains(to.ISR, id)
		others = append(others, f)
	}
	l.others = others
	l.to = to
}

// advance recomputes the high watermark over the in-sync set.
func (l *Leader) advance() Out {
	if l.BelowMin() {
		// KIP-966: with too few copies even acks=1 data stays invisible, or a consumer could read
		// what the next leader does not have.
		return Out{HW: l.hw}
	}
	hw := l.flushed
	for i := range l.others {
		if f := &l.others[i]; f.inSync {
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
