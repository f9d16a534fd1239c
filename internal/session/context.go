package session

import "github.com/twmb/franz-go/pkg/kerr"

// Result is what the answer would say of one partition; enough to know whether it has to be said.
type Result struct {
	Bytes            int // of records
	Failed           bool
	Diverging        bool // a diverging epoch is reported
	PreferredReplica bool
	HW, LogStart     int64
}

// Context is one request's way through its session. It belongs to that request.
type Context struct {
	cache    *Cache
	full     []Partition // a full fetch
	want     bool        // a session is wanted
	usesIDs  bool
	follower bool
	session  *session // incremental
	epoch    int32
}

// Incremental tells whether unchanged partitions may be left out of the answer.
func (x *Context) Incremental() bool { return x.session != nil }

// Len is the number of partitions to fetch.
func (x *Context) Len() int {
	if x.session == nil {
		return len(x.full)
	}
	x.session.mu.Lock()
	defer x.session.mu.Unlock()
	return len(x.session.mu.parts.byKey)
}

// Append appends the partitions to fetch to dst, in the order in which they are served: those served last come last.
func (x *Context) Append(dst []Partition) []Partition {
	if x.session == nil {
		return append(dst, x.full...)
	}
	x.session.mu.Lock()
	defer x.session.mu.Unlock()
	for n := x.session.mu.parts.first; n != nil; n = n.next {
		dst = append(dst, n.Partition)
	}
	return dst
}

// OnSuperseded has over called, once, when the next request of the same session comes, and at once when it has come already: a
// fetcher that has something new to ask does not wait for what it asked before, and answers leave a connection in order. over runs
// on the goroutine of that request and must not block. It does nothing outside a session.
func (x *Context) OnSuperseded(over func()) {
	s := x.session
	if s == nil {
		return
	}
	s.mu.Lock()
	late := s.mu.epoch != x.epoch
	if !late {
		s.mu.over = over
	}
	s.mu.Unlock()
	if late {
		over()
	}
}

// Finish takes the results, in the order of parts (which Append gave), calls include for each one that the answer has to carry,
// and returns the session id for the answer: 0 when there is none. The error is INVALID_FETCH_SESSION_EPOCH when the same session
// was used by another request meanwhile; then nothing is included.
func (x *Context) Finish(now int64, parts []Partition, results []Result, include func(i int)) (int32, error) {
	if x.session == nil {
		for i := range results {
			include(i)
		}
		if !x.want {
			return 0, nil
		}
		return x.cache.create(now, x.usesIDs, x.follower, parts, results), nil
	}
	s := x.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.epoch != x.epoch {
		return 0, kerr.InvalidFetchSessionEpoch
	}
	s.mu.over = nil
	for i := range min(len(results), len(parts)) {
		n := s.mu.parts.byKey[parts[i].Key]
		if n == nil {
			continue
		}
		if n.told(results[i]) {
			include(i)
		}
		if results[i].Bytes > 0 { // served: others come first next time
			s.mu.parts.toEnd(n)
		}
	}
	return s.id, nil
}

// node is one partition of a session with what its fetcher was last told.
type node struct {
	Partition
	hw, logStart int64
	prev, next   *node
}

// told notes an answer and returns whether it says anything new.
func (n *node) told(r Result) bool {
	news := r.Bytes > 0 || r.Failed || r.Diverging || r.PreferredReplica || r.HW != n.hw || r.LogStart != n.logStart
	n.hw, n.logStart = r.HW, r.LogStart
	if r.Failed {
		n.hw = -1 // so that the end of the error is told too
	}
	return news
}

// list is the partitions of a session: a map, and an order that fairness changes.
type list struct {
	byKey       map[Key]*node
	first, last *node
}

// put adds a partition at the end, or changes what is asked of a known one where it stands.
func (l *list) put(p Partition) *node {
	if n := l.byKey[p.Key]; n != nil {
		n.Partition = p
		return n
	}
	if l.byKey == nil {
		l.byKey = make(map[Key]*node)
	}
	n := &node{Partition: p, hw: -1, logStart: -1}
	l.byKey[p.Key] = n
	l.push(n)
	return n
}

func (l *list) push(n *node) {
	n.prev, n.next = l.last, nil
	if l.last != nil {
		l.last.next = n
	} else {
		l.first = n
	}
	l.last = n
}

func (l *list) unlink(n *node) {
	if n.prev != nil {
		n.prev.next = n.next
	} else {
		l.first = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	} else {
		l.last = n.prev
	}
}

func (l *list) toEnd(n *node) {
	if n != l.last {
		l.unlink(n)
		l.push(n)
	}
}

func (l *list) remove(k Key) {
	if n := l.byKey[k]; n != nil {
		l.unlink(n)
		delete(l.byKey, k)
	}
}
