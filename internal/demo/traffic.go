package demo

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// traffic is one writer and a group of readers.
type traffic struct {
	o      Options
	ledger *ledger
	lines  *lines
	topic  string

	writer  *kgo.Client
	readers []*kgo.Client
	stop    context.CancelFunc // ends the writing
	quit    context.CancelFunc // ends the reading
	wg      sync.WaitGroup
	writing sync.WaitGroup
	once    sync.Once
}

// group is the name of the readers' group.
const group = "demo-readers"

// readersCount makes the group one: two members share the partitions.
const readersCount = 2

// bufferedMost is how many lines may wait for an answer.
const bufferedMost = 50000

// refresh is how soon a client may ask again who leads. The client's own 5 s would be what one sees here,
// not the cluster: between two askings it sends to the dead leader.
const refresh = 200 * time.Millisecond

func (t *traffic) base() []kgo.Opt {
	return []kgo.Opt{
		kgo.SeedBrokers(t.o.bootstrap...), kgo.ClientID("milena-demo"), kgo.SoftwareNameAndVersion("milena-demo", "0"),
		kgo.MetadataMinAge(refresh), kgo.DialTimeout(time.Second),
		kgo.RetryBackoffFn(func(n int) time.Duration { return min(time.Duration(n)*25*time.Millisecond, 250*time.Millisecond) }),
	}
}

// begin starts reading and writing; the topic exists. It returns when the readers share the partitions and
// every partition has acknowledged a line, so that what comes later measures the cluster and not the first
// steps of clients.
func (t *traffic) begin(ctx context.Context) error {
	read, quit := context.WithCancel(context.WithoutCancel(ctx)) // reading goes on until everything is counted
	write, stop := context.WithCancel(ctx)
	t.stop, t.quit = stop, quit
	shared := make(chan struct{}, 1)
	var got atomic.Int32
	for range readersCount {
		r, err := kgo.NewClient(append(t.base(), kgo.ConsumerGroup(group), kgo.ConsumeTopics(t.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.AutoCommitMarks(), kgo.AutoCommitInterval(time.Second), kgo.FetchMaxWait(250*time.Millisecond),
			kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, m map[string][]int32) {
				if got.Add(int32(len(m[t.topic]))) >= int32(t.o.Parts) {
					select {
					case shared <- struct{}{}:
					default:
					}
				}
			}))...)
		if err != nil {
			return err
		}
		t.readers = append(t.readers, r)
		t.wg.Go(func() { t.read(read, r) })
	}
	// acks=all and idempotence are franz-go's defaults; they are spelled out because they are the point.
	var err error
	t.writer, err = kgo.NewClient(append(t.base(), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.DefaultProduceTopic(t.topic), kgo.ProducerLinger(2*time.Millisecond), kgo.MaxBufferedRecords(bufferedMost), kgo.ProduceRequestTimeout(5*time.Second))...)
	if err != nil {
		return err
	}
	if err := t.warm(ctx, shared); err != nil {
		return err
	}
	t.writing.Go(func() { t.write(write) })
	return nil
}

// warm sends a line to each partition and waits for all of them and for the readers.
func (t *traffic) warm(ctx context.Context, shared <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for range t.o.Parts {
		t.send(ctx)
	}
	if err := t.writer.Flush(ctx); err != nil {
		return errors.New("the cluster does not acknowledge the first lines")
	}
	select {
	case <-shared:
	case <-ctx.Done():
		return errors.New("the readers get no partitions from their group")
	}
	t.ledger.calm()
	return nil
}

// write sends lines at the wanted rate until ctx ends. While the cluster does not answer it fills the
// client's buffer and then waits, as a program would.
func (t *traffic) write(ctx context.Context) {
	const beat = 10 * time.Millisecond
	tick := time.NewTicker(beat)
	defer tick.Stop()
	begun, sent := time.Now(), int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		due := int64(time.Since(begun).Seconds() * float64(t.o.Rate))
		if due-sent > int64(t.o.Rate) {
			sent = due - int64(t.o.Rate) // what could not be sent for a second is not caught up
		}
		// Produce would block on a full buffer, and with a cluster that never answers again so would the end.
		for ; sent < due && ctx.Err() == nil && t.writer.BufferedProduceRecords() < bufferedMost-1; sent++ {
			t.send(ctx)
		}
	}
}

func (t *traffic) send(ctx context.Context) {
	value := t.lines.line()
	number, partition := t.ledger.sending(value, time.Now())
	// Not ctx: a record that was begun is finished, or the tally would have records that nobody knows of.
	t.writer.Produce(context.WithoutCancel(ctx), &kgo.Record{Key: strconv.AppendInt(nil, number, 10), Value: value, Partition: partition}, func(r *kgo.Record, err error) {
		if err != nil {
			t.ledger.refused(number, time.Now())
			return
		}
		t.ledger.acknowledged(number, r.Offset, len(r.Key)+len(r.Value), time.Now())
	})
}

func (t *traffic) read(ctx context.Context, r *kgo.Client) {
	for ctx.Err() == nil {
		fs := r.PollFetches(ctx)
		if errors.Is(fs.Err0(), kgo.ErrClientClosed) {
			return
		}
		now := time.Now()
		fs.EachRecord(func(x *kgo.Record) {
			number, err := strconv.ParseInt(string(x.Key), 10, 64)
			if err != nil {
				number = -1
			}
			t.ledger.delivered(number, x.Partition, x.Offset, x.Value, now)
			r.MarkCommitRecords(x)
		})
	}
}

// finish stops writing, waits until everything sent is answered and everything acknowledged is read, or
// until nothing has come for patience, and ends the clients. It says whether everything was there.
func (t *traffic) finish(ctx context.Context, patience time.Duration) bool {
	defer t.close()
	t.stop()
	t.writing.Wait()
	last, since := int64(-1), time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		a := t.ledger.accounts(time.Now())
		if a.inFlight == 0 && a.owed == 0 {
			return true
		}
		if n := a.acked + a.read + a.failed; n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) > patience {
			return false
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return false
}

func (t *traffic) close() { t.once.Do(t.end) }

func (t *traffic) end() {
	if t.stop != nil {
		t.stop()
		t.quit()
	}
	t.writing.Wait()
	t.wg.Wait()
	for _, r := range t.readers {
		r.CloseAllowingRebalance()
	}
	if t.writer != nil {
		t.writer.Close()
	}
}
