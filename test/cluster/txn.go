package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Exactly once: copiers read a topic as a group and write what they read to another one, the offsets in the same
// transaction. Brokers are killed, copiers vanish in the middle of a transaction and come back under their
// transactional id, some transactions are aborted on purpose. At the end the copy holds every value once.

const (
	txnIn, txnOut = "txn-in", "txn-out"
	txnParts      = 6
	abortMark     = "to be aborted " // no reader of committed records may ever see it
	hangLimit     = 30 * time.Second
)

// copying is one run.
type copying struct {
	c       *cluster
	n       int
	timeout time.Duration // of transactions

	commits, aborts, crashes, kills, fenced atomic.Int64
}

func runTxn(s settings, r *report) {
	n := 30_000
	if s.target > 0 {
		n = int(s.target)
	}
	c, err := newCluster(options{bin: s.bin, brokers: s.brokers, keys: map[string]string{"transaction.state.log.num.partitions": "5"}})
	if err == nil {
		defer func() { c.destroy(s.keep || r.failed > 0) }()
		err = c.start()
	}
	if err != nil {
		r.say(false, "txn-start", "%v", err)
		return
	}
	x := &copying{c: c, n: n, timeout: 10 * time.Second}
	began := time.Now()
	if err := x.fill(min(3, s.brokers)); err != nil {
		r.say(false, "txn-fill", "%v", err)
		return
	}
	filled := time.Since(began)
	limit := 2*time.Minute + time.Duration(n/2000)*time.Second
	if err := x.copy(limit); err != nil {
		r.say(false, "txn-copy", "%v", err)
	} else {
		r.say(true, "txn-copy", "%d values copied in %.1f s (filled in %.1f s): %d commits, %d aborts on purpose or after a rebalance, %d brokers killed, %d copiers vanished",
			n, (time.Since(began) - filled).Seconds(), filled.Seconds(), x.commits.Load(), x.aborts.Load(), x.kills.Load(), x.crashes.Load())
	}
	x.verify(r)
}

func (x *copying) opts(more ...kgo.Opt) []kgo.Opt {
	return append([]kgo.Opt{
		kgo.SeedBrokers(x.c.bootstrap()...), kgo.MetadataMinAge(100 * time.Millisecond), kgo.DialTimeout(time.Second),
		kgo.RequestTimeoutOverhead(2 * time.Second), kgo.RequestRetries(1000), kgo.RetryTimeout(time.Minute),
	}, more...)
}

// fill writes the values 0 to n-1.
func (x *copying) fill(factor int) error {
	for _, t := range []string{txnIn, txnOut} {
		if err := createTopic(x.c, t, txnParts, factor, nil); err != nil {
			return err
		}
	}
	cl, err := kgo.NewClient(x.opts(kgo.DefaultProduceTopic(txnIn))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	var mu sync.Mutex
	var bad error
	for i := range x.n {
		v := fmt.Sprint(i)
		cl.Produce(context.Background(), &kgo.Record{Key: []byte(v), Value: []byte(v)}, func(_ *kgo.Record, err error) {
			if err != nil {
				mu.Lock()
				bad = err
				mu.Unlock()
			}
		})
	}
	if err := cl.Flush(context.Background()); err != nil {
		return err
	}
	return bad
}

// copy runs three copiers and breaks things until everything is copied.
func (x *copying) copy(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for life := 0; ctx.Err() == nil; life++ {
				x.copier(ctx, i, life)
			}
		}()
	}
	stop, stopped := context.WithCancel(ctx)
	wg.Add(1)
	go func() {
		defer wg.Done()
		x.harm(stop)
	}()
	defer wg.Wait()
	defer cancel()
	defer stopped()
	for {
		done, err := x.copied(ctx)
		if err == nil && done >= int64(x.n) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%d of %d values are copied after %s (%v)", done, x.n, limit, err)
		}
		pause(ctx, 300*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// copied is the group's committed offsets, added up.
func (x *copying) copied(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(x.opts()...)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	os, err := kadm.NewClient(cl).FetchOffsets(ctx, "copiers")
	if err != nil {
		return 0, err
	}
	n := int64(0)
	os.Each(func(o kadm.OffsetResponse) { n += max(o.At, 0) })
	return n, nil
}

// copier copies until it vanishes, or ctx ends.
func (x *copying) copier(ctx context.Context, i, life int) {
	s, err := kgo.NewGroupTransactSession(x.opts(
		kgo.TransactionalID(fmt.Sprint("copier-", i)), kgo.TransactionTimeout(x.timeout),
		kgo.ConsumerGroup("copiers"), kgo.ConsumeTopics(txnIn), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DefaultProduceTopic(txnOut),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond),
	)...)
	if err != nil {
		note("copier %d: %v", i, err)
		pause(ctx, time.Second)
		return
	}
	crash := time.Now().Add(3*time.Second + time.Duration(rand.IntN(6000))*time.Millisecond)
	defer s.Close()
	for ctx.Err() == nil {
		pctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		fs := s.PollRecords(pctx, 400)
		cancel()
		if fs.NumRecords() == 0 {
			continue
		}
		if err := s.Begin(); err != nil {
			note("copier %d life %d: begin: %v", i, life, err)
			return
		}
		abort := rand.IntN(10) == 0
		var mu sync.Mutex
		var bad error
		fs.EachRecord(func(rec *kgo.Record) {
			v := string(rec.Value)
			if abort {
				v = abortMark + v
			}
			s.Produce(ctx, &kgo.Record{Key: rec.Key, Value: []byte(v)}, func(_ *kgo.Record, err error) {
				if err != nil {
					mu.Lock()
					bad = err
					mu.Unlock()
				}
			})
		})
		if time.Now().After(crash) && rand.IntN(2) == 0 {
			x.crashes.Add(1) // its transaction stays open; the next one with this id fences it
			return
		}
		err := s.Client().Flush(ctx)
		mu.Lock()
		err = errors.Join(err, bad)
		mu.Unlock()
		ectx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		committed, eerr := s.End(ectx, kgo.TransactionEndTry(!abort && err == nil))
		cancel()
		switch {
		case eerr != nil:
			x.fenced.Add(1)
			note("copier %d life %d: end: %v", i, life, eerr)
			return
		case committed:
			x.commits.Add(1)
		default:
			x.aborts.Add(1)
		}
	}
}

// harm kills one broker after the other.
func (x *copying) harm(ctx context.Context) {
	for k := 0; len(x.c.nodes) > 1; k++ {
		pause(ctx, 2500*time.Millisecond)
		if ctx.Err() != nil {
			return
		}
		n := x.c.nodes[k%len(x.c.nodes)]
		n.kill()
		x.kills.Add(1)
		pause(ctx, 800*time.Millisecond)
		if err := x.c.start(n.id); err != nil {
			note("broker %d does not come back: %v", n.id, err)
			return
		}
	}
}

// verify reads the copy as a consumer of committed records does.
func (x *copying) verify(r *report) {
	ctx, cancel := context.WithTimeout(context.Background(), hangLimit+30*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(x.opts(kgo.ConsumeTopics(txnOut), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		r.say(false, "txn-read", "%v", err)
		return
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	began := time.Now()
	stable, err := x.stable(ctx, adm)
	r.say(err == nil, "txn-hanging", "the last stable offset of every partition is its end %.1f s after the copiers stopped (%v)", time.Since(began).Seconds(), err)
	seen := make(map[string]int, x.n)
	var aborted int
	at := map[int32]int64{}
	for !reached(at, stable) && ctx.Err() == nil {
		pctx, cancel := context.WithTimeout(ctx, time.Second)
		fs := cl.PollFetches(pctx)
		cancel()
		fs.EachPartition(func(p kgo.FetchTopicPartition) {
			for _, rec := range p.Records {
				v := string(rec.Value)
				switch {
				case len(v) > len(abortMark) && v[:len(abortMark)] == abortMark:
					aborted++
				default:
					seen[v]++
				}
				at[rec.Partition] = rec.Offset + 1
			}
		})
		if fs.NumRecords() == 0 && len(seen) >= x.n {
			break // markers alone stand at the end
		}
	}
	var lost, twice int
	for i := range x.n {
		switch seen[fmt.Sprint(i)] {
		case 0:
			lost++
		case 1:
		default:
			twice++
		}
	}
	foreign := len(seen) - (x.n - lost)
	r.say(lost == 0 && twice == 0 && aborted == 0 && foreign == 0, "txn-exactly-once", "%d values: lost %d, twice %d, aborted ones visible %d, foreign %d", x.n, lost, twice, aborted, foreign)
	list, err := adm.ListTransactions(ctx, nil, []string{"Ongoing", "PrepareCommit", "PrepareAbort"})
	open := 0
	list.Each(func(kadm.ListedTransaction) { open++ })
	r.say(err == nil && open == 0, "txn-open", "%d transactions open in their coordinators (%v)", open, err)
}

func reached(at, want map[int32]int64) bool {
	for p, end := range want {
		if at[p] < end {
			return false
		}
	}
	return len(want) > 0
}

// stable waits until no transaction is open in any partition of the copy, and gives the ends.
func (x *copying) stable(ctx context.Context, adm *kadm.Client) (map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, hangLimit)
	defer cancel()
	var last error
	for ctx.Err() == nil {
		committed, err := adm.ListCommittedOffsets(ctx, txnOut)
		ends, err2 := adm.ListEndOffsets(ctx, txnOut)
		if last = errors.Join(err, err2); last == nil {
			out, open := map[int32]int64{}, 0
			ends.Each(func(o kadm.ListedOffset) {
				out[o.Partition] = o.Offset
				if c, ok := committed.Lookup(txnOut, o.Partition); !ok || c.Err != nil || o.Err != nil || c.Offset != o.Offset {
					open++
				}
			})
			if open == 0 && len(out) == txnParts {
				return out, nil
			}
			last = fmt.Errorf("%d partitions have an open transaction", open)
		}
		pause(ctx, 200*time.Millisecond)
	}
	return nil, last
}
