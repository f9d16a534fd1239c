package txn

import (
	"container/heap"
	"slices"

	"github.com/milena-mq/milena/internal/det"
)

// entry is a deadline in the heap. Only the one that equals the id's queued counts.
type entry struct {
	at  det.Instant
	seq uint64 // ties fire in the order in which they were set, so that two runs of one history agree
	t   *id
}

// timers is one deadline for each id. Moving one later, what every transaction does, touches only the id: its
// entry stays where it is and is pushed again when it comes up.
type timers struct {
	q    queue
	seq  uint64
	most int // entries before those that do not count are thrown out
}

type queue []entry

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(entry)) }
func (q *queue) Pop() any {
	n := len(*q) - 1
	x := (*q)[n]
	(*q)[n] = entry{}
	*q = (*q)[:n]
	return x
}

func (q *timers) set(t *id, at det.Instant) {
	t.due = at
	if at < t.queued {
		t.queued = at
		q.seq++
		heap.Push(&q.q, entry{at, q.seq, t})
		q.tidy()
	}
}

// tidy throws out entries that do not count any more. A transaction sets a timer before that of the id's expiry, whose
// entry would stay for seven days, and one of its kind with every transaction that comes after a pause.
func (q *timers) tidy() {
	if len(q.q) < max(q.most, 1024) {
		return
	}
	q.q = slices.DeleteFunc(q.q, func(e entry) bool { return e.at != e.t.queued })
	heap.Init(&q.q)
	q.most = 2 * len(q.q)
}

// next is the earliest moment at which something may be due. It can be early, never late.
func (q *timers) next() det.Instant {
	if len(q.q) == 0 {
		return det.Never
	}
	return q.q[0].at
}

// expired takes one timer that is due out of the queue, nil when there is none.
func (q *timers) expired(now det.Instant) *id {
	for len(q.q) > 0 && q.q[0].at <= now {
		e := heap.Pop(&q.q).(entry)
		t := e.t
		if e.at != t.queued {
			continue
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
