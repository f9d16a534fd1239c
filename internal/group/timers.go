package group

import "github.com/milena-mq/milena/internal/det"

type timerKind uint8

const (
	timerSession timerKind = iota // a member, or a handed-out member id, has been silent too long
	timerJoin                     // the join phase ends
	timerSync                     // the sync phase ends
	timerSweep                    // offsets are looked over for expiry
)

// timer is one deadline. Moving a deadline later, what every heartbeat does, touches only the timer: the
// entry in the heap stays where it is and is pushed again when it comes up.
type timer struct {
	due    det.Instant // Never: not set
	queued det.Instant // time of the heap entry that counts; Never: none
	kind   timerKind
	group  *grp
	member *member        // timerSession of a member
	handed *pendingMember // timerSession of an id that was handed out
}

func newTimer(kind timerKind, g *grp) timer {
	return timer{due: det.Never, queued: det.Never, kind: kind, group: g}
}

type entry struct {
	at  det.Instant
	seq uint64 // ties fire in the order in which they were set, so that two runs of one history agree
	t   *timer
}

func (a entry) before(b entry) bool { return a.at < b.at || a.at == b.at && a.seq < b.seq }

// timers is a binary heap of entries.
type timers struct {
	heap []entry
	seq  uint64
}

func (q *timers) set(t *timer, at det.Instant) {
	t.due = at
	if at < t.queued {
		t.queued = at
		q.seq++
		q.push(entry{at: at, seq: q.seq, t: t})
	}
}

func (q *timers) clear(t *timer) { t.due = det.Never }

// next is the earliest moment at which something may be due. It can be early, never late.
func (q *timers) next() det.Instant {
	if len(q.heap) == 0 {
		return det.Never
	}
	return q.heap[0].at
}

// expired takes one timer that is due out of the queue, nil when there is none.
func (q *timers) expired(now det.Instant) *timer {
	for len(q.heap) > 0 && q.heap[0].at <= now {
		e := q.pop()
		t := e.t
		if e.at != t.queued {
			continue // an earlier deadline was set after this entry; that entry was the one that counted
		}
		t.queued = det.Never
		if t.due <= now {
			t.due = det.Never
			return t
		}
		if t.due != det.Never {
			q.set(t, t.due)
		}
	}
	return nil
}

func (q *timers) push(e entry) {
	q.heap = append(q.heap, e)
	for i := len(q.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.heap[i].before(q.heap[up]) {
			return
		}
		q.heap[i], q.heap[up] = q.heap[up], q.heap[i]
		i = up
	}
}

func (q *timers) pop() entry {
	top := q.heap[0]
	n := len(q.heap) - 1
	q.heap[0], q.heap[n] = q.heap[n], entry{}
	q.heap = q.heap[:n]
	for i := 0; ; {
		c := 2*i + 1
		if c >= n {
			return top
		}
		if c+1 < n && q.heap[c+1].before(q.heap[c]) {
			c++
		}
		if !q.heap[c].before(q.heap[i]) {
			return top
		}
		q.heap[i], q.heap[c] = q.heap[c], q.heap[i]
		i = c
	}
}
