package shard

import (
	"context"
	"fmt"
	"sync"
	"unicode/utf16"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/meta"
)

// fleet is the coordinators of one kind on this broker, one for each partition of their topic that it leads. The zero
// value leads nothing.
type fleet struct {
	wg sync.WaitGroup
	mu struct {
		sync.RWMutex
		shards map[int32]*shard
		parts  int32 // partitions of the topic, 0 while it does not exist
		closed bool
	}
}

// lead starts a coordinator in place of that of an earlier epoch.
func (f *fleet) lead(s *shard) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.closed {
		return
	}
	if old := f.mu.shards[s.partition]; old != nil {
		old.stop()
	}
	if f.mu.shards == nil {
		f.mu.shards = map[int32]*shard{}
	}
	f.mu.shards[s.partition] = s
	f.wg.Add(1)
	go func() {
		defer f.wg.Done()
		s.run()
	}()
}

// Lose stops the coordinator of a partition: whoever waits is answered NOT_COORDINATOR at once. A partition
// that is not led is no error.
func (f *fleet) Lose(partition int32) {
	f.mu.Lock()
	s := f.mu.shards[partition]
	delete(f.mu.shards, partition)
	f.mu.Unlock()
	if s != nil {
		s.stop()
	}
}

// follow learns how many partitions the topic has.
func (f *fleet) follow(im *meta.Image, topic string) {
	var parts int32
	if t := im.Topic(topic); t != nil {
		parts = int32(len(t.Partitions))
	}
	f.mu.Lock()
	f.mu.parts = parts
	f.mu.Unlock()
}

// PartitionFor is the partition of a coordinators' topic that keeps a group or a transactional id when the topic has n
// partitions (n above 0): Java's String.hashCode, as Kafka computes it, so that what is stored can move between the two.
func PartitionFor(id string, n int32) int32 {
	var h int32
	for _, c := range utf16.Encode([]rune(id)) {
		h = 31*h + int32(c)
	}
	if h < 0 {
		h = -h
	}
	if h < 0 { // the smallest int32 is its own negative
		h = 0
	}
	return h % n
}

// shardOf is the coordinator of a group or a transactional id, nil when it is not here.
func (f *fleet) shardOf(id string) *shard {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.mu.parts == 0 {
		return nil
	}
	return f.mu.shards[PartitionFor(id, f.mu.parts)]
}

// at is the coordinator of a partition, nil when it is not here.
func (f *fleet) at(partition int32) *shard {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mu.shards[partition]
}

func (f *fleet) all() []*shard {
	f.mu.RLock()
	defer f.mu.RUnlock()
	out := make([]*shard, 0, len(f.mu.shards))
	for _, s := range f.mu.shards {
		out = append(out, s)
	}
	return out
}

// askAll hands one event to every coordinator; one result of each.
func (f *fleet) askAll(ev any) *Call {
	all := f.all()
	c := newCall(len(all))
	for i, s := range all {
		s.submit(item{w: waiter{c, i}, ev: ev})
	}
	return c
}

// tellAll hands an event for which nobody waits to every coordinator.
func (f *fleet) tellAll(ev any) {
	for _, s := range f.all() {
		s.submit(item{ev: ev})
	}
}

// submitOr is submit, or NOT_COORDINATOR where there is none.
func (s *shard) submitOr(it item) {
	if s == nil {
		it.w.finish(Result{Err: kerr.NotCoordinator})
		return
	}
	s.submit(it)
}

// close stops every coordinator once what it has taken is appended and committed, or ctx ends, and waits for
// their goroutines; what begins the error.
func (f *fleet) close(ctx context.Context, what string) error {
	f.mu.Lock()
	f.mu.closed = true
	shards := f.mu.shards
	f.mu.shards = nil
	f.mu.Unlock()
	for _, s := range shards {
		s.drain()
	}
	done := make(chan struct{})
	go func() {
		f.wg.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("%s: %w", what, ctx.Err())
	}
	for _, s := range shards {
		s.stop()
	}
	<-done
	return err
}
