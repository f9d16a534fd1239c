package shard

import (
	"sync/atomic"

	"github.com/milena-mq/milena/internal/group"
)

// Request is one event for the coordinator of a group.
type Request struct {
	Group string // names the partition
	Event group.Event
	// Admit, when not nil, is asked before the event: may this producer write here? An error is the answer.
	Admit *Admission
}

// Admission is the transaction that an event writes for.
type Admission struct {
	ProducerID int64
	Epoch      int16
	Guard      any // the partition's, see partition.Verify
}

// Result is what became of a Request: the machine's answer, whose type stands with the event in package
// group, or a *kerr.Error that says why no coordinator here took it.
type Result struct {
	Value any
	Err   error
}

// Call is one or more requests whose answers are waited for together.
type Call struct {
	ready   chan struct{}
	left    atomic.Int32
	results []Result
}

func newCall(n int) *Call {
	c := &Call{ready: make(chan struct{}), results: make([]Result, n)}
	c.left.Store(int32(n))
	if n == 0 {
		close(c.ready)
	}
	return c
}

// Ready is closed when every answer is there. That always happens: an answer, a refusal, the commit
// timeout, or the loss of the partition.
func (c *Call) Ready() <-chan struct{} { return c.ready }

// Results is the answers in the order of the requests. Only after Ready.
func (c *Call) Results() []Result { return c.results }

// finish is called once for each i.
func (c *Call) finish(i int, r Result) {
	c.results[i] = r
	if c.left.Add(-1) == 0 {
		close(c.ready)
	}
}

// waiter is one answer that is owed.
type waiter struct {
	call *Call
	i    int
}

func (w waiter) finish(r Result) {
	if w.call != nil {
		w.call.finish(w.i, r)
	}
}
