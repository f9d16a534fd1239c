package partition

import (
	"sync"
	"sync/atomic"

	"github.com/milena-mq/milena/internal/storage"
)

// parallelSyncs bounds the sync calls in flight in one log directory. More of them block a thread each
// and make every one slower (measured.md A 2.3: 8 are as fast as 32).
const parallelSyncs = 8

// flusher is the group commit of one log directory: everything that is dirty when a round starts rides
// in that round, and what is appended meanwhile rides in the next.
type flusher struct {
	d    *dir
	wake chan struct{} // capacity 1

	mu struct {
		sync.Mutex
		dirty []*Partition
	}
}

// mark asks for a flush of p. It costs one atomic operation when p is in the list already.
func (f *flusher) mark(p *Partition) {
	if !p.queued.CompareAndSwap(false, true) {
		return
	}
	f.mu.Lock()
	f.mu.dirty = append(f.mu.dirty, p)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// run flushes until stop is closed; the last round covers what came before.
func (f *flusher) run(stop <-chan struct{}) {
	var b roundBuffers
	for {
		select {
		case <-f.wake:
			f.round(&b)
		case <-stop:
			f.round(&b)
			return
		}
	}
}

type roundBuffers struct {
	parts []*Partition
	logs  []*storage.Log
	due   []wait
}

// round makes everything durable that was appended before it, then wakes whoever waited for it.
func (f *flusher) round(b *roundBuffers) {
	f.mu.Lock()
	b.parts, f.mu.dirty = f.mu.dirty, b.parts[:0]
	f.mu.Unlock()
	if len(b.parts) == 0 {
		return
	}
	b.logs = b.logs[:0]
	for _, p := range b.parts {
		// Before the sync: an append after this point marks the partition again, one before it is
		// covered by the sync below.
		p.queued.Store(false)
		b.logs = append(b.logs, p.log)
	}
	errs := f.d.d.SyncMany(b.logs, inParallel)
	for i, p := range b.parts {
		if i < len(errs) && errs[i] != nil {
			f.d.set.storageError(p, errs[i])
			continue
		}
		b.due = p.flushed(b.due)
	}
	clear(b.parts)
	clear(b.logs)
	if cap(b.parts) > 4096 {
		*b = roundBuffers{}
	}
}

// inParallel runs f(0) to f(n-1) on at most parallelSyncs goroutines and returns when all have ended.
func inParallel(n int, f func(i int)) { parallel(parallelSyncs)(n, f) }

// parallel is a runner on at most limit goroutines, the caller's among them.
func parallel(limit int) storage.Runner {
	return func(n int, f func(i int)) {
		if n == 1 {
			f(0)
			return
		}
		var next atomic.Int64
		work := func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				f(int(i))
			}
		}
		var wg sync.WaitGroup
		for range min(n, limit) - 1 {
			wg.Go(work)
		}
		work()
		wg.Wait()
	}
}
