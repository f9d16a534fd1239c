package admin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ProduceOptions says how records are sent.
type ProduceOptions struct {
	Topic     string
	Partition int32  // -1: by key, or sticky without one
	Acks      int    // -1 all, 1 leader, 0 none
	Codec     string // none, gzip, snappy, lz4, zstd
}

// Record is one record to send or as read. Key and Value may be nil: null.
type Record = kgo.Record

// Header is one header of a record.
type Header = kgo.RecordHeader

// Producer sends records of one topic. Send may be called by one goroutine at a time.
type Producer struct {
	c     *Client
	topic string
	cl    *kgo.Client
	acked atomic.Int64
	bytes atomic.Int64
	mu    struct {
		sync.Mutex
		err error
	}
	// ctx is of the records. It outlives the caller's, so that an interrupt still waits for what was sent,
	// and ends when nothing is acknowledged for a long time: franz-go by itself would try for ever, since
	// an idempotent batch that may have been written cannot be given up.
	ctx    context.Context
	cancel context.CancelCauseFunc
	watch  *time.Timer
	free   func() bool
}

// Codecs are the compression codecs by Kafka's names.
var Codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// Producer connects for sending.
func (c *Client) Producer(ctx context.Context, o ProduceOptions) (*Producer, error) {
	codec := map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
	k, ok := codec[o.Codec]
	if !ok {
		return nil, fmt.Errorf("codec %q: want one of %v", o.Codec, Codecs)
	}
	opts := []kgo.Opt{kgo.ProducerBatchCompression(k), kgo.MaxBufferedBytes(64 << 20), kgo.AllowAutoTopicCreation(), kgo.RecordRetries(20), kgo.UnknownTopicRetries(4)}
	switch o.Acks {
	case -1:
	case 1:
		opts = append(opts, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	case 0:
		opts = append(opts, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	default:
		return nil, fmt.Errorf("acks %d: want all, 1 or 0", o.Acks)
	}
	if o.Partition >= 0 {
		opts = append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	seeds, err := c.reachable(ctx)
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(c.base(seeds), opts...)...)
	if err != nil {
		return nil, fmt.Errorf("produce to %s: %w", o.Topic, err)
	}
	p := &Producer{c: c, topic: o.Topic, cl: cl}
	p.ctx, p.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	p.free = context.AfterFunc(ctx, func() {
		time.AfterFunc(c.opts.Timeout, func() { p.cancel(context.Cause(ctx)) })
	})
	p.watchdog()
	return p, nil
}

// patience is how many request timeouts may pass without any acknowledgement.
const patience = 3

func (p *Producer) watchdog() {
	limit := patience * p.c.opts.Timeout
	var seen int64 = -1
	p.watch = time.AfterFunc(1<<62, func() { // set below, when p.watch has its value

		if n := p.acked.Load(); n != seen || p.cl.BufferedProduceRecords() == 0 {
			seen = n
			p.watch.Reset(limit)
			return
		}
		p.cancel(fmt.Errorf("no acknowledgement for %s, %d records wait for theirs", limit, p.cl.BufferedProduceRecords()))
	})
	p.watch.Reset(limit)
}

// Send gives one record to the sender and blocks while 64 MiB wait for their acknowledgement. The first
// failure of an earlier record is returned here.
func (p *Producer) Send(r *Record) error {
	if err := p.failed(); err != nil {
		return err
	}
	r.Topic = p.topic
	n := int64(len(r.Key) + len(r.Value))
	p.cl.Produce(p.ctx, r, func(_ *kgo.Record, err error) {
		if err != nil {
			p.mu.Lock()
			if p.mu.err == nil {
				p.mu.err = err
			}
			p.mu.Unlock()
			return
		}
		p.acked.Add(1)
		p.bytes.Add(n)
	})
	return nil
}

func (p *Producer) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.err == nil {
		return nil
	}
	err := p.mu.err
	if cause := context.Cause(p.ctx); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	return p.c.explain("produce to "+p.topic, err)
}

// Acked is how many records and bytes of keys and values were acknowledged.
func (p *Producer) Acked() (records, bytes int64) { return p.acked.Load(), p.bytes.Load() }

// Close waits until all is acknowledged, or nothing was for a long time, and returns the first failure.
func (p *Producer) Close() error {
	err := p.cl.Flush(p.ctx)
	p.watch.Stop()
	p.free()
	p.cancel(nil)
	p.cl.Close()
	if f := p.failed(); f != nil {
		return f
	}
	return err
}

// ConsumeOptions says what is read.
type ConsumeOptions struct {
	Topics     []string
	Partitions []int32   // of the only topic; none: all
	Group      string    // read as a member of this group and commit; From counts where it has no offset
	From       Position  // not ShiftBy
	To         *Position // read up to here; nil: up to the end as it is now, or without end with Follow
	Follow     bool
	Committed  bool // hide records of aborted and open transactions
	Max        int64
}

// Consume reads records and gives each to fn, in order within a partition. It ends without error when
// everything asked for was read, after Max records, or with ctx. fn may keep nothing of a record. An error
// of fn ends it and is returned as it is.
func (c *Client) Consume(ctx context.Context, o ConsumeOptions, fn func(*Record) error) error {
	seeds, err := c.reachable(ctx)
	if err != nil {
		return err
	}
	opts := c.base(seeds)
	if o.Committed {
		opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	if o.Group != "" {
		return c.consumeGroup(ctx, append(opts, kgo.ConsumerGroup(o.Group), kgo.ConsumeTopics(o.Topics...), kgo.Balancers(kgo.CooperativeStickyBalancer()),
			kgo.ConsumeResetOffset(resetOffset(o.From)), kgo.AutoCommitMarks(), kgo.BlockRebalanceOnPoll()), o, fn)
	}
	plan, err := c.plan(ctx, o)
	if err != nil {
		return err
	}
	from := map[string]map[int32]kgo.Offset{}
	for t, ps := range plan.from {
		from[t] = map[int32]kgo.Offset{}
		for p, at := range ps {
			if end, bounded := plan.to[t][p]; !bounded || at < end {
				from[t][p] = kgo.NewOffset().At(at)
			}
		}
		if len(from[t]) == 0 {
			delete(from, t)
		}
	}
	if len(from) == 0 {
		return nil
	}
	cl, err := kgo.NewClient(append(opts, kgo.ConsumePartitions(from), kgo.KeepControlRecords())...)
	if err != nil {
		return err
	}
	defer cl.Close()
	return c.poll(ctx, cl, o, plan, fn)
}

func resetOffset(p Position) kgo.Offset {
	switch p.Kind {
	case AtEnd:
		return kgo.NewOffset().AtEnd()
	case AtTime:
		return kgo.NewOffset().AfterMilli(p.Value)
	}
	return kgo.NewOffset().AtStart()
}

// plan is where reading starts and stops in each partition.
type plan struct{ from, to map[string]map[int32]int64 }

func (c *Client) plan(ctx context.Context, o ConsumeOptions) (plan, error) {
	pl := plan{map[string]map[int32]int64{}, map[string]map[int32]int64{}}
	to := o.To
	if to == nil && !o.Follow {
		to = &Position{Kind: AtEnd}
		if o.Committed {
			to.Kind = AtStableEnd // behind it is an open transaction, which would never come
		}
	}
	for _, t := range o.Topics {
		from, err := c.Offsets(ctx, t, o.From)
		if err != nil {
			return pl, err
		}
		if err := keep(from, o.Partitions, t); err != nil {
			return pl, err
		}
		pl.from[t] = from
		if to != nil {
			if pl.to[t], err = c.Offsets(ctx, t, *to); err != nil {
				return pl, err
			}
			if err := keep(pl.to[t], o.Partitions, t); err != nil {
				return pl, err
			}
		}
	}
	return pl, nil
}

// keep leaves only the wanted partitions.
func keep(m map[int32]int64, want []int32, topic string) error {
	if len(want) == 0 {
		return nil
	}
	wanted := map[int32]bool{}
	for _, p := range want {
		if _, ok := m[p]; !ok {
			return fmt.Errorf("topic %s has no partition %d", topic, p)
		}
		wanted[p] = true
	}
	for p := range m {
		if !wanted[p] {
			delete(m, p)
		}
	}
	return nil
}

// left counts partitions whose end was not reached yet; -1: there is no end.
func (pl plan) left() int {
	if len(pl.to) == 0 {
		return -1
	}
	n := 0
	for t, ps := range pl.to {
		for p, end := range ps {
			if pl.from[t][p] < end {
				n++
			}
		}
	}
	return n
}

func (c *Client) poll(ctx context.Context, cl *kgo.Client, o ConsumeOptions, pl plan, fn func(*Record) error) error {
	left := pl.left()
	given := int64(0)
	for left != 0 {
		wait, cancel := ctx, context.CancelFunc(func() {})
		if left > 0 {
			wait, cancel = context.WithTimeout(ctx, c.opts.Timeout)
		}
		fs := cl.PollFetches(wait)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if fs.Empty() && wait.Err() != nil {
			// Said rather than taken for the end: a slow broker must not look like less data.
			return fmt.Errorf("no record came for %s, and %d partitions are not read to their end", c.opts.Timeout, left)
		}
		if err := c.fetchError(wait, fs); err != nil {
			return err
		}
		for it := fs.RecordIter(); !it.Done(); {
			r := it.Next()
			end, bounded := pl.to[r.Topic][r.Partition]
			if bounded && r.Offset >= end {
				continue
			}
			// Control records are asked for and left out here, because the record before the end may be
			// one: without it the end would never be seen.
			if !r.Attrs.IsControl() {
				if err := fn(r); err != nil {
					return err
				}
				if given++; o.Max > 0 && given >= o.Max {
					return nil
				}
			}
			if bounded && pl.from[r.Topic][r.Partition] < end {
				if pl.from[r.Topic][r.Partition] = r.Offset + 1; r.Offset+1 >= end {
					left--
				}
			}
		}
	}
	return nil
}

func (c *Client) consumeGroup(ctx context.Context, opts []kgo.Opt, o ConsumeOptions, fn func(*Record) error) error {
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer cl.CloseAllowingRebalance()
	given := int64(0)
	for {
		fs := cl.PollFetches(ctx)
		if err := c.fetchError(ctx, fs); err != nil || ctx.Err() != nil {
			return errors.Join(err, c.commit(cl))
		}
		for it := fs.RecordIter(); !it.Done(); {
			r := it.Next()
			if err := fn(r); err != nil {
				return errors.Join(err, c.commit(cl))
			}
			cl.MarkCommitRecords(r)
			if given++; o.Max > 0 && given >= o.Max {
				return c.commit(cl)
			}
		}
		cl.AllowRebalance()
	}
}

// commit saves how far fn got. It has its own time: the caller's context may have ended already.
func (c *Client) commit(cl *kgo.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.opts.Timeout)
	defer cancel()
	return cl.CommitMarkedOffsets(ctx)
}

func (c *Client) fetchError(ctx context.Context, fs kgo.Fetches) error {
	if ctx.Err() != nil {
		return nil
	}
	for _, e := range fs.Errors() {
		if errors.Is(e.Err, kgo.ErrClientClosed) {
			return nil
		}
		if kerr.IsRetriable(e.Err) {
			continue
		}
		return c.explain("read "+e.Topic, e.Err)
	}
	return nil
}
