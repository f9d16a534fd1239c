package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// classes are the sizes of pooled buffers. Most requests fit 1 KiB; the producers' default batch of
// about a megabyte fits 2 MiB with its headers. Larger frames are rare and are left to the collector.
var classes = [...]int{1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 2 << 20, 4 << 20}

var pools [len(classes)]sync.Pool

// buffer is a pooled piece of memory. class is -1 when it belongs to no pool.
type buffer struct {
	b     []byte
	class int
}

func getBuffer(n int) *buffer {
	for i, c := range classes {
		if n <= c {
			if p, _ := pools[i].Get().(*buffer); p != nil {
				return p
			}
			return &buffer{b: make([]byte, c), class: i}
		}
	}
	return &buffer{b: make([]byte, n), class: -1}
}

func putBuffer(b *buffer) {
	if b.class >= 0 {
		pools[b.class].Put(b)
	}
}

// ErrBusy says that the memory budget was used up for longer than chargeWait.
var ErrBusy = errors.New("memory budget of requests in flight is used up")

// chargeWait bounds the wait for memory to decode a large request; the frame is held meanwhile.
const chargeWait = 2 * time.Second

// budget counts the bytes of requests in flight in the whole server.
type budget struct {
	sem   *semaphore.Weighted
	total int64
	used  atomic.Int64
}

func newBudget(total int64) *budget {
	return &budget{sem: semaphore.NewWeighted(total), total: total}
}

func (b *budget) acquire(ctx context.Context, n int64) error {
	if n > b.total {
		return ErrBusy
	}
	if !b.sem.TryAcquire(n) {
		if err := b.sem.Acquire(ctx, n); err != nil {
			return err
		}
	}
	b.used.Add(n)
	return nil
}

func (b *budget) release(n int64) {
	if n > 0 {
		b.used.Add(-n)
		b.sem.Release(n)
	}
}

// Frame is one request as it came, without the length. Its buffer is pooled: after the last Release the
// bytes belong to another request.
type Frame struct {
	budget *budget
	buf    *buffer
	n      int
	refs   atomic.Int32
	charge int64        // taken from the budget for buf
	extra  atomic.Int64 // taken from the budget for what was decoded; given back with the answer
	Start  time.Time    // when the frame was complete
}

// Bytes is the request: header and body.
func (f *Frame) Bytes() []byte { return f.buf.b[:f.n] }

// Retain keeps the bytes valid until one more Release.
func (f *Frame) Retain() { f.refs.Add(1) }

// Release gives up one hold on the bytes.
func (f *Frame) Release() {
	if f.refs.Add(-1) != 0 {
		return
	}
	b := f.buf
	f.buf = nil
	f.budget.release(f.charge)
	putBuffer(b)
}

// Charge takes n bytes from the memory budget for what the request becomes when it is decoded; they are
// given back when its answer is written. It waits up to two seconds for them and then returns ErrBusy
// or the end of the connection. Called from Serve only.
func (f *Frame) Charge(ctx context.Context, n int64) error {
	if f.charge+f.extra.Load()+n > f.budget.total {
		return ErrBusy // with what it holds already it could only wait for itself
	}
	ctx, cancel := context.WithTimeout(ctx, chargeWait)
	defer cancel()
	if err := f.budget.acquire(ctx, n); err != nil {
		return ErrBusy
	}
	f.extra.Add(n)
	return nil
}

func (f *Frame) giveBack() { f.budget.release(f.extra.Swap(0)) }
