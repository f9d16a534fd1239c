package isr

import "github.com/milena-mq/milena/internal/det"

// FollowerKind says what an input of a Follower is about.
type FollowerKind uint8

// The inputs of a Follower.
const (
	// Begin: fetching may start. It is the first input.
	Begin FollowerKind = iota + 1
	// Records: the leader answered fetch Seq with records (More) or none, and its high watermark HW.
	Records
	// Diverged: the leader answered fetch Seq with its own end DivEnd of epoch DivEpoch; OwnEnd is where this
	// replica's newest epoch not above DivEpoch ends, -1 when it knows none.
	Diverged
	// OutOfRange: the leader's log is [LeaderStart, LeaderEnd].
	OutOfRange
	// Lost: fetch Seq failed, or got no answer in time.
	Lost
	// Fenced: the leader answered fetch Seq that the epoch is another one; only a new assignment helps.
	Fenced
	// Wrote: the log now ends at End, its last epoch is LastEpoch, after an append or a cut; Flushed is durable.
	Wrote
	// Heard: an answer to a fetch that was overtaken by a newer one tells the leader's high watermark HW.
	Heard
)

// FollowerIn is one input. Fields that the kind does not name are zero.
type FollowerIn struct {
	Kind FollowerKind
	Seq  int64

	HW   int64
	More bool

	DivEpoch       int32
	DivEnd, OwnEnd int64

	LeaderStart, LeaderEnd int64

	End, Flushed int64
	LastEpoch    int32
}

// Act is what a Follower wants done.
type Act uint8

// The effects. The shell carries one out and reports with the input named.
const (
	Nothing  Act = iota
	Fetch        // ask the leader at Offset: Records, Diverged, OutOfRange, Lost or Fenced
	Append       // append the records of this answer: Wrote
	Flush        // make the log durable: Wrote
	Truncate     // cut the log at Offset, durably: Wrote
	Restart      // drop the log, durably, and begin at Offset: Wrote
	Retry        // as Fetch, after a pause
)

// FollowerOut is one effect, and the high watermark after the input.
type FollowerOut struct {
	Act       Act
	Offset    int64 // Fetch, Retry, Truncate, Restart
	Seq       int64 // Fetch, Retry
	LastEpoch int32 // Fetch, Retry: epoch of the last record, -1 for an empty log
	HW        int64
}

// Follower is the follower's half of one partition's replication, under one leader epoch: truncate
// first, then fetch, one fetch at a time.
type Follower struct {
	end, flushed int64
	last         int32
	hw, leaderHW int64
	seq          int64
	waits        bool // for the answer to fetch seq
	agreed       bool // the leader's last answer found this log to be a prefix of its own
}

var _ det.Machine[FollowerIn, FollowerOut] = (*Follower)(nil)

// NewFollower starts to follow. lastEpoch is the epoch of the last record, -1 when the log is empty.
func NewFollower(hw, flushed, end int64, lastEpoch int32) *Follower {
	return &Follower{end: end, flushed: min(flushed, end), last: lastEpoch, hw: min(hw, flushed, end)}
}

// Wake is Never: the shell's timeouts come as Lost.
func (f *Follower) Wake() det.Instant { return det.Never }

// HW is the high watermark as far as this replica knows it and has it on its disk.
func (f *Follower) HW() int64 { return f.hw }

// Step takes one input. now is not needed.
func (f *Follower) Step(_ det.Instant, in FollowerIn) FollowerOut {
	switch in.Kind {
	case Begin:
		return f.next()
	case Wrote:
		f.end, f.flushed, f.last = in.End, min(in.Flushed, in.End), in.LastEpoch
		// Only an unclean election can take what was below the high watermark.
		f.hw = min(f.hw, f.end)
		f.learn()
		return f.next()
	case Heard:
		if f.agreed {
			f.leaderHW = max(f.leaderHW, in.HW)
			f.learn()
		}
		return FollowerOut{HW: f.hw}
	}
	if !f.waits || in.Seq != f.seq {
		return FollowerOut{HW: f.hw} // an answer that came twice, or too late
	}
	f.waits = false
	// What was compared with the leader's log before a cut says nothing of a high watermark told since.
	f.agreed = in.Kind == Records || f.agreed && in.Kind == Lost
	switch in.Kind {
	case Records:
		f.leaderHW = max(f.leaderHW, in.HW)
		f.learn()
		if in.More {
			return FollowerOut{Act: Append, HW: f.hw}
		}
	case Diverged:
		to := min(in.DivEnd, f.end)
		if in.OwnEnd >= 0 {
			to = min(to, in.OwnEnd)
		}
		// Also when nothing is to be cut: an epoch of this replica that began at its log end and
		// never got a record has to be forgotten.
		return FollowerOut{Act: Truncate, Offset: to, HW: f.hw}
	case OutOfRange:
		switch {
		case in.LeaderEnd < f.end:
			return FollowerOut{Act: Truncate, Offset: in.LeaderEnd, HW: f.hw}
		case in.LeaderStart > f.end, in.LeaderStart == f.end && f.last >= 0:
			// Also where they meet: the leader has nothing of this log, and does not know its last epoch any more. What is
			// here was never compared, and with it what it says of producers: sequences that the cluster never accepted.
			return FollowerOut{Act: Restart, Offset: in.LeaderStart, HW: f.hw}
		}
		return f.ask(Retry)
	case Lost:
		return f.ask(Retry)
	case Fenced:
		return FollowerOut{HW: f.hw}
	}
	return f.next()
}

// learn takes over the leader's high watermark, never past what a power cut would leave here: this
// replica may lead next and start from it.
func (f *Follower) learn() { f.hw = max(f.hw, min(f.leaderHW, f.flushed)) }

func (f *Follower) next() FollowerOut {
	if f.flushed < f.end && f.end >= f.leaderHW {
		// The fetch offset is the acknowledgement: it must not name bytes that a crash can take. Below the
		// leader's high watermark it acknowledges nothing: a member of the in-sync set is never there, and
		// nobody joins it from there. A follower that is far behind need not sync each answer.
		return FollowerOut{Act: Flush, HW: f.hw}
	}
	return f.ask(Fetch)
}

func (f *Follower) ask(a Act) FollowerOut {
	f.seq++
	f.waits = true
	return FollowerOut{Act: a, Offset: f.end, Seq: f.seq, LastEpoch: f.last, HW: f.hw}
}
