package partition

import (
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Waiter gathers the waits of one request: it is ready when every wait is over or the deadline has
// passed, whichever is first. It serves one request and is not used again.
//
// Register the waits with Partition.Wait, then call Arm once.
type Waiter struct {
	ready chan struct{}

	mu struct {
		sync.Mutex
		left   int // waits not over, and one more until Arm
		slots  []slot
		closed bool
		timer  *time.Timer
	}
}

// slot is one wait of a Waiter.
type slot struct {
	p    *Partition // nil: nothing was waited for
	err  error
	over bool
}

// NewWaiter makes a waiter with n slots, numbered from 0; a slot nobody waits in is over.
func NewWaiter(n int) *Waiter {
	w := &Waiter{ready: make(chan struct{})}
	w.mu.left = 1
	w.mu.slots = make([]slot, n)
	return w
}

// Ready is closed when the waiter is done.
func (w *Waiter) Ready() <-chan struct{} { return w.ready }

// Arm ends the registration and starts the deadline. After a zero or negative timeout the waiter is
// ready at once, with REQUEST_TIMED_OUT for all that is still open.
func (w *Waiter) Arm(timeout time.Duration) {
	w.mu.Lock()
	if w.mu.left > 1 && timeout > 0 {
		w.mu.timer = time.AfterFunc(timeout, w.expire)
	}
	w.mu.left--
	if w.mu.left == 0 {
		w.closeLocked()
	}
	open := !w.mu.closed
	w.mu.Unlock()
	if open && timeout <= 0 {
		w.expire()
	}
}

// Err is how the wait in slot i ended: nil when the offset was reached, REQUEST_TIMED_OUT at the
// deadline, NOT_LEADER_OR_FOLLOWER when the leadership ended, KAFKA_STORAGE_ERROR when the disk failed.
// Call it after Ready.
func (w *Waiter) Err(i int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.slots[i].err
}

func (w *Waiter) closeLocked() {
	if w.mu.closed {
		return
	}
	w.mu.closed = true
	if w.mu.timer != nil {
		w.mu.timer.Stop()
	}
	close(w.ready)
}

func (w *Waiter) open(i int, p *Partition) {
	w.mu.Lock()
	w.mu.slots[i].p = p
	w.mu.left++
	w.mu.Unlock()
}

// done ends the wait in slot i, once.
func (w *Waiter) done(i int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &w.mu.slots[i]
	if s.over || s.p == nil {
		return
	}
	s.over, s.err = true, err
	w.mu.left--
	if w.mu.left == 0 {
		w.closeLocked()
	}
}

// expire ends every open wait and takes it out of its partition: a high watermark that stands still
// must not collect the waits of clients that gave up long ago.
func (w *Waiter) expire() {
	w.mu.Lock()
	var open []*Partition
	for i := range w.mu.slots {
		s := &w.mu.slots[i]
		if s.p != nil && !s.over {
			s.over, s.err = true, kerr.RequestTimedOut
			open = append(open, s.p)
		}
	}
	w.mu.left = 0 // no wait is open, so that nobody but this function makes it ready
	w.mu.Unlock()
	for _, p := range open {
		p.forget(w)
	}
	w.mu.Lock()
	w.closeLocked()
	w.mu.Unlock()
}

// wait is one entry of a queue: over when the mark reaches offset. Either w or fn is set.
type wait struct {
	offset int64
	w      *Waiter
	slot   int
	fn     func(error)
}

func (w wait) end(err error) {
	if w.w != nil {
		w.w.done(w.slot, err)
		return
	}
	w.fn(err)
}

func endAll(ws []wait, err error) {
	for _, w := range ws {
		w.end(err)
	}
}

// queue holds waits by offset, ascending. Appends come in order of offset, so that both ends are cheap.
type queue struct {
	items []wait
	head  int
}

func (q *queue) empty() bool { return q.head == len(q.items) }

func (q *queue) push(w wait) {
	if q.head > 0 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, w)
	// A retry of an old batch waits for an old offset: it moves forward past the newer ones.
	for i := len(q.items) - 1; i > q.head && q.items[i-1].offset > w.offset; i-- {
		q.items[i], q.items[i-1] = q.items[i-1], q.items[i]
	}
}

// due takes what mark has reached and appends it to out.
func (q *queue) due(mark int64, out []wait) []wait {
	for q.head < len(q.items) && q.items[q.head].offset <= mark {
		out = append(out, q.items[q.head])
		q.items[q.head] = wait{}
		q.head++
	}
	q.reset()
	return out
}

func (q *queue) all(out []wait) []wait {
	out = append(out, q.items[q.head:]...)
	q.items, q.head = nil, 0
	return out
}

// clients takes out the waits of requests; a coordinator goes on waiting.
func (q *queue) clients(out []wait) []wait {
	kept := q.items[:q.head]
	for _, it := range q.items[q.head:] {
		if it.w != nil {
			out = append(out, it)
		} else {
			kept = append(kept, it)
		}
	}
	clear(q.items[len(kept):])
	q.items = kept
	q.reset()
	return out
}

func (q *queue) remove(w *Waiter) {
	kept := q.items[:q.head]
	for _, it := range q.items[q.head:] {
		if it.w != w {
			kept = append(kept, it)
		}
	}
	clear(q.items[len(kept):])
	q.items = kept
	q.reset()
}

func (q *queue) reset() {
	if q.head < len(q.items) {
		return
	}
	if cap(q.items) > 1024 {
		q.items = nil // a burst must not stay in memory for ever
	}
	q.items, q.head = q.items[:0], 0
}
