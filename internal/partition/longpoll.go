package partition

import (
	"sync/atomic"
	"time"
)

// LongPoll is one fetch that waits for bytes on many partitions at once. It is ready when what has
// become readable since the first read reaches the missing bytes, when a partition changes in a way
// the client must hear of (leadership, deletion, disk), or at the deadline.
//
// The order is: NewLongPoll, Watch for each partition, Arm; after Ready, Close.
type LongPoll struct {
	ready   chan struct{}
	fired   atomic.Bool
	missing atomic.Int64
	nodes   []pollNode
	timer   atomic.Pointer[time.Timer]
}

// pollNode is the place of a LongPoll in one partition's list; the links are under the partition's lock.
type pollNode struct {
	poll       *LongPoll
	p          *Partition
	committed  bool  // the reader sees up to the last stable offset only
	replica    bool  // a follower: it sees up to the log end
	lso        int64 // the last stable offset it has seen
	touched    bool  // something happened that a second read may find
	prev, next *pollNode
	linked     bool
}

// NewLongPoll makes a poll over at most n partitions that needs missing more bytes, at least 1.
func NewLongPoll(n int, missing int64) *LongPoll {
	l := &LongPoll{ready: make(chan struct{}), nodes: make([]pollNode, 0, n)}
	l.missing.Store(max(missing, 1))
	return l
}

// Watch adds a partition whose read gave r. It may make the poll ready at once, when bytes arrived or
// the role changed between the read and now.
func (l *LongPoll) Watch(p *Partition, committed bool, r *ReadResult) {
	if len(l.nodes) == cap(l.nodes) {
		l.fire() // more partitions than announced: answer early rather than move linked nodes
		return
	}
	l.nodes = append(l.nodes, pollNode{poll: l, p: p, committed: committed && !r.replica, replica: r.replica, lso: r.LSO})
	p.watch(&l.nodes[len(l.nodes)-1], r)
}

// Arm starts the deadline.
func (l *LongPoll) Arm(timeout time.Duration) {
	t := time.AfterFunc(timeout, l.Close)
	l.timer.Store(t)
	if l.fired.Load() {
		t.Stop()
	}
}

// Ready is closed when the poll is over.
func (l *LongPoll) Ready() <-chan struct{} { return l.ready }

// Close makes the poll ready and takes it out of its partitions. It may be called more than once; the
// deadline calls it too, so that a poll whose connection died does not stay.
func (l *LongPoll) Close() {
	l.fire()
	if t := l.timer.Load(); t != nil {
		t.Stop()
	}
	for i := range l.nodes {
		l.nodes[i].p.unwatch(&l.nodes[i])
	}
}

func (l *LongPoll) fire() {
	if l.fired.CompareAndSwap(false, true) {
		close(l.ready)
	}
}

// add counts bytes that became readable.
func (l *LongPoll) add(n int64) {
	if n > 0 && l.missing.Add(-n) <= 0 {
		l.fire()
	}
}

// Touched says that reading the partition of the i-th Watch again may find something else than before, in the order of
// the calls. Called after Close. A fetch over a thousand partitions is woken by one of them: the others need no second
// look.
func (l *LongPoll) Touched(i int) bool {
	return i >= len(l.nodes) || l.nodes[i].touched
}

// add and fire run under the partition's lock.
func (n *pollNode) add(bytes int64) {
	if bytes > 0 {
		n.touched = true
		n.poll.add(bytes)
	}
}

func (n *pollNode) fire() {
	n.touched = true
	n.poll.fire()
}

// pollList is a doubly linked list of nodes, so that leaving costs the same with ten thousand waiting.
type pollList struct{ first *pollNode }

func (l *pollList) push(n *pollNode) {
	n.next, n.prev, n.linked = l.first, nil, true
	if l.first != nil {
		l.first.prev = n
	}
	l.first = n
}

func (l *pollList) remove(n *pollNode) {
	if !n.linked {
		return
	}
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		l.first = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	}
	n.next, n.prev, n.linked = nil, nil, false
}

// sizes remembers how many bytes lie between appended ends, from the high watermark on, so that a
// rise of the high watermark is known in bytes without reading an index.
type sizes struct {
	items []sizeAt
	head  int
}

type sizeAt struct{ end, bytes int64 }

func (s *sizes) push(end, bytes int64) {
	if s.head > 0 && len(s.items) == cap(s.items) {
		n := copy(s.items, s.items[s.head:])
		s.items, s.head = s.items[:n], 0
	}
	s.items = append(s.items, sizeAt{end, bytes})
}

// below takes what ends at or below hw and returns its bytes.
func (s *sizes) below(hw int64) int64 {
	n := int64(0)
	for s.head < len(s.items) && s.items[s.head].end <= hw {
		n += s.items[s.head].bytes
		s.head++
	}
	if s.head == len(s.items) {
		if cap(s.items) > 1024 {
			s.items = nil
		}
		s.items, s.head = s.items[:0], 0
	}
	return n
}
