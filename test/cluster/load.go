package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/milena-mq/milena/internal/history"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	topic      = "letters"
	group      = "readers"
	partitions = 12
	valueSize  = 120
)

// clock is the one clock of a history: nanoseconds since the start of this program.
var programStart = time.Now()

func clock() int64 { return int64(time.Since(programStart)) }

// load is all clients of one run and what they saw.
type load struct {
	c    *cluster
	hist *history.Recorder
	rate int // records a second of all producers together

	ctx, readCtx context.Context
	stopWrite    context.CancelFunc
	stopRead     context.CancelFunc
	writing      sync.WaitGroup
	reading      sync.WaitGroup

	consumers []*history.Consumer
	clients   []*kgo.Client
	hush      *hush
	paused    atomic.Bool // producers wait, so that a test can look at a quiet cluster

	mu    sync.Mutex
	codes map[string]int // answers of raw requests and probes, by name
	// resets are the moments at which a producer gave its sequence numbers up
	resets []string
}

// newLoad creates the topic and starts the clients: producers writers of franz-go, two readers of everything, a group of two, a
// raw writer for each pair of broker and partition, and a probe for each broker.
func newLoad(c *cluster, producers, rate int, topicKeys map[string]string) (*load, error) {
	l := &load{c: c, hist: history.New(partitions), rate: rate, hush: newHush(partitions), codes: map[string]int{}}
	l.ctx, l.stopWrite = context.WithCancel(context.Background())
	l.readCtx, l.stopRead = context.WithCancel(context.Background())
	factor := min(3, len(c.nodes))
	if err := createTopic(c, topic, partitions, factor, topicKeys); err != nil {
		return nil, err
	}
	for i := range producers {
		if err := l.producer(fmt.Sprint("franz-", i), producers); err != nil {
			return nil, err
		}
	}
	for i := range 2 {
		if err := l.consumer(fmt.Sprint("reader-", i)); err != nil {
			return nil, err
		}
	}
	for i := range 2 {
		if err := l.member(fmt.Sprint("member-", i)); err != nil {
			return nil, err
		}
	}
	l.reading.Add(1)
	go l.watchGroup()
	for _, n := range c.nodes {
		for p := range int32(partitions) {
			w := l.hist.Writer(fmt.Sprintf("raw-%d-%d", n.id, p), n.id, false)
			l.writing.Add(1)
			go l.rawWriter(n, p, w)
		}
		l.reading.Add(1)
		go l.probe(n)
	}
	return l, nil
}

func createTopic(c *cluster, name string, parts, factor int, keys map[string]string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.bootstrap()...))
	if err != nil {
		return err
	}
	defer cl.Close()
	conf := map[string]*string{}
	if factor > 2 {
		conf["min.insync.replicas"] = kmsg.StringPtr("2")
	}
	for k, v := range keys {
		conf[k] = kmsg.StringPtr(v)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err = kadm.NewClient(cl).CreateTopic(ctx, int32(parts), int16(factor), conf, name)
	return err
}

// common are settings of all franz-go clients here: this is a test of the cluster, not of a library's
// patience, so all its waits are short.
func (l *load) common() []kgo.Opt {
	return []kgo.Opt{
		kgo.SeedBrokers(l.c.bootstrap()...),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.DialTimeout(time.Second),
		kgo.RequestTimeoutOverhead(time.Second),
		kgo.RetryBackoffFn(func(n int) time.Duration { return time.Duration(min(n, 5)) * 50 * time.Millisecond }),
		kgo.RetryTimeout(time.Minute),
		kgo.RequestRetries(1000),
	}
}

func (l *load) producer(name string, of int) error {
	cl, err := kgo.NewClient(append(l.common(),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), // the final logs are read here value by value
		kgo.ProducerLinger(5*time.Millisecond),
		kgo.ProduceRequestTimeout(time.Second),
		kgo.MaxBufferedRecords(2000),
		kgo.UnknownTopicRetries(-1),
		kgo.WithLogger(resets{l, name}),
	)...)
	if err != nil {
		return err
	}
	l.clients = append(l.clients, cl)
	w := l.hist.Writer(name, -1, true)
	l.writing.Add(1)
	go func() {
		defer l.writing.Done()
		l.produce(cl, w, time.Duration(of)*time.Second/time.Duration(max(1, l.rate)))
	}()
	return nil
}

// resets keeps what a producer says when it gives its sequence numbers up: from then on the client itself makes duplicates,
// and the question is why the broker refused the old ones.
type resets struct {
	l    *load
	name string
}

func (resets) Level() kgo.LogLevel { return kgo.LogLevelInfo }

func (r resets) Log(_ kgo.LogLevel, msg string, keyvals ...any) {
	if strings.Contains(msg, "failing the producer ID") || strings.Contains(msg, "bumping producer epoch") || strings.Contains(msg, "locally bumping") {
		r.l.mu.Lock()
		defer r.l.mu.Unlock()
		r.l.resets = append(r.l.resets, fmt.Sprintf("%s %s %s %v", time.Now().Format("15:04:05.000"), r.name, msg, keyvals))
	}
}

// produce sends one record every so often, without a debt above half a second: after an outage the load goes on as
// before and does not come back as a wave.
func (l *load) produce(cl *kgo.Client, w *history.Writer, every time.Duration) {
	next := time.Now()
	for i := 0; ; i++ {
		if d := time.Until(next); d > 0 {
			select {
			case <-l.ctx.Done():
			case <-time.After(max(d, 2*time.Millisecond)):
			}
		} else if d < -500*time.Millisecond {
			next = time.Now()
		}
		next = next.Add(every)
		for l.paused.Load() && l.ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond)
		}
		if l.ctx.Err() != nil {
			return
		}
		part := int32(i % partitions)
		seq, value := w.Send(part, valueSize, clock())
		cl.Produce(context.Background(), &kgo.Record{Topic: topic, Partition: part, Value: value}, func(r *kgo.Record, err error) {
			now := clock()
			if err != nil {
				l.count("producer: " + err.Error())
				w.Failed(seq, false, now)
				return
			}
			w.Acked(seq, r.Offset, now)
			l.hush.acked(r.Partition, now)
		})
	}
}

// endWrites stops all writers and waits until every record has its answer. A record without one is a breach of I37.
func (l *load) endWrites(limit time.Duration) {
	l.stopWrite()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for _, cl := range l.clients {
		if err := cl.Flush(ctx); err != nil {
			l.hist.Breach("I37", "a producer waits for answers for ever: "+err.Error())
		}
	}
	done := make(chan struct{})
	go func() { l.writing.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		l.hist.Breach("I37", "a raw writer waits for an answer for ever")
	}
	for _, cl := range l.clients {
		go cl.Close()
	}
}

func (l *load) count(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.codes[name]++
}

func (l *load) consumer(name string) error {
	from := map[int32]kgo.Offset{}
	for p := range int32(partitions) {
		from[p] = kgo.NewOffset().At(0)
	}
	cl, err := kgo.NewClient(append(l.common(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // an offset that is out of range is a finding, not a reason to jump
		kgo.FetchMaxWait(300*time.Millisecond),
		kgo.MaxConcurrentFetches(3),
	)...)
	if err != nil {
		return err
	}
	c := l.hist.Consumer(name)
	l.consumers = append(l.consumers, c)
	l.reading.Add(1)
	go func() {
		defer l.reading.Done()
		defer cl.Close()
		l.consume(cl, c, name)
	}()
	return nil
}

func (l *load) consume(cl *kgo.Client, c *history.Consumer, name string) {
	for l.readCtx.Err() == nil {
		fs := cl.PollFetches(l.readCtx)
		fs.EachError(func(t string, p int32, err error) {
			if l.readCtx.Err() != nil {
				return
			}
			l.count("reader: " + err.Error())
			if loss := (*kgo.ErrDataLoss)(nil); errors.As(err, &loss) {
				l.hist.Breach("I3", fmt.Sprintf("%s: %v", name, err))
			}
			if t == topic && p >= 0 { // the client gives a partition up after some errors: go on where it stood
				cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: {p: kgo.NewOffset().At(c.Position(p))}})
			}
		})
		now := clock()
		fs.EachRecord(func(r *kgo.Record) {
			c.Polled(r.Partition, r.Offset, r.Value)
			l.hush.read(r.Partition, now)
		})
	}
}

// member is one of the group: it reads and commits, and must go on when its coordinator moves.
func (l *load) member(name string) error {
	cl, err := kgo.NewClient(append(l.common(),
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(300*time.Millisecond),
		kgo.AutoCommitInterval(300*time.Millisecond),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond),
	)...)
	if err != nil {
		return err
	}
	l.reading.Add(1)
	go func() {
		defer l.reading.Done()
		defer cl.CloseAllowingRebalance()
		for l.readCtx.Err() == nil {
			fs := cl.PollFetches(l.readCtx)
			fs.EachError(func(_ string, _ int32, err error) {
				if l.readCtx.Err() == nil {
					l.count("member: " + err.Error())
				}
			})
		}
	}()
	return nil
}

// watchGroup asks for the committed offsets all the time (I31).
func (l *load) watchGroup() {
	defer l.reading.Done()
	cl, err := kgo.NewClient(l.common()...)
	if err != nil {
		l.hist.Breach("I31", err.Error())
		return
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	had := map[int32]bool{}
	for l.readCtx.Err() == nil {
		begin := clock()
		ctx, cancel := context.WithTimeout(l.readCtx, 5*time.Second)
		offsets, err := adm.FetchOffsets(ctx, group)
		cancel()
		end := clock()
		if err == nil {
			now := map[int32]int64{}
			offsets.Each(func(o kadm.OffsetResponse) {
				if o.Topic == topic && o.Err == nil {
					now[o.Partition], had[o.Partition] = o.At, true
				}
			})
			for p := range had {
				at, ok := now[p]
				if !ok {
					at = -1 // it was committed before and is not any more
				}
				l.hist.Observe(history.Answer{Start: begin, End: end, Offset: at, Part: p, Broker: -1, Kind: history.Committed})
			}
		} else if l.readCtx.Err() == nil {
			l.count("committed: " + err.Error())
		}
		select {
		case <-l.readCtx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// rawWriter sends single records for one partition to one broker, whether it leads or not, one at a time and twice a second.
// While the broker is frozen one request waits in its socket and is the first thing it sees when it is thawed.
func (l *load) rawWriter(n *node, part int32, w *history.Writer) {
	defer l.writing.Done()
	var conn *rawConn
	defer func() {
		if conn != nil {
			conn.close()
		}
	}()
	for l.ctx.Err() == nil {
		if !l.paused.Load() {
			conn = l.rawWrite(conn, n, part, w)
		}
		select {
		case <-l.ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// rawWait is longer than any freeze, so that the answer of a thawed broker is seen.
const rawWait = 40 * time.Second

func (l *load) rawWrite(conn *rawConn, n *node, part int32, w *history.Writer) *rawConn {
	if conn == nil {
		var err error
		if conn, err = dialRaw(n.client.real, time.Second); err != nil {
			return nil
		}
	}
	seq, value := w.Send(part, valueSize, clock())
	req := produceRequest(topic, part, value, 5*time.Second)
	resp, err := conn.do(req, rawWait)
	now := clock()
	if err != nil {
		w.Failed(seq, false, now)
		conn.close()
		return nil
	}
	ts := resp.(*kmsg.ProduceResponse).Topics
	if len(ts) != 1 || len(ts[0].Partitions) != 1 {
		l.hist.Breach("I37", fmt.Sprintf("broker %d answered a Produce of one partition with %d topics", n.id, len(ts)))
		w.Failed(seq, false, now)
		return conn
	}
	switch p := ts[0].Partitions[0]; {
	case p.ErrorCode == 0:
		w.Acked(seq, p.BaseOffset, now)
		l.count("raw: acknowledged")
	default:
		w.Failed(seq, definite(p.ErrorCode), now)
		l.count("raw: " + errorName(p.ErrorCode))
	}
	return conn
}

// probe asks one broker ten times a second for the ends of all partitions, by ListOffsets and by a Fetch of the
// version that only leaders answer, for the log starts, and for its metadata.
func (l *load) probe(n *node) {
	defer l.reading.Done()
	var conn *rawConn
	defer func() {
		if conn != nil {
			conn.close()
		}
	}()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-l.readCtx.Done():
			return
		case <-tick.C:
		}
		if conn == nil {
			c, err := dialRaw(n.client.real, time.Second)
			if err != nil {
				continue
			}
			conn = c
		}
		err := l.probeEnds(conn, n, -1, history.HighWatermark)
		if err == nil {
			err = l.probeFetch(conn, n)
		}
		if err == nil && i%5 == 0 {
			err = l.probeEnds(conn, n, -2, history.LogStart)
		}
		if err == nil && i%2 == 0 {
			err = l.probeMetadata(conn, n)
		}
		if err != nil {
			conn.close()
			conn = nil
		}
	}
}

func (l *load) probeEnds(conn *rawConn, n *node, timestamp int64, kind history.Kind) error {
	req := kmsg.NewPtrListOffsetsRequest()
	req.SetVersion(4)
	req.ReplicaID = -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	for p := range int32(partitions) {
		q := kmsg.NewListOffsetsRequestTopicPartition()
		q.Partition, q.Timestamp, q.CurrentLeaderEpoch = p, timestamp, -1
		t.Partitions = append(t.Partitions, q)
	}
	req.Topics = append(req.Topics, t)
	begin := clock()
	resp, err := conn.do(req, rawWait)
	end := clock()
	if err != nil {
		return err
	}
	for _, t := range resp.(*kmsg.ListOffsetsResponse).Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				l.count("ListOffsets: " + errorName(p.ErrorCode))
				continue
			}
			l.hist.Observe(history.Answer{Start: begin, End: end, Offset: p.Offset, Part: p.Partition, Broker: n.id, Kind: kind})
		}
	}
	return nil
}

func (l *load) probeFetch(conn *rawConn, n *node) error {
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(10)
	req.ReplicaID = -1
	req.MaxBytes = 1 << 20
	req.SessionEpoch = -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic = topic
	for p := range int32(partitions) {
		q := kmsg.NewFetchRequestTopicPartition()
		q.Partition, q.CurrentLeaderEpoch, q.PartitionMaxBytes = p, -1, 1
		q.FetchOffset = l.consumers[0].Position(p)
		t.Partitions = append(t.Partitions, q)
	}
	req.Topics = append(req.Topics, t)
	begin := clock()
	resp, err := conn.do(req, rawWait)
	end := clock()
	if err != nil {
		return err
	}
	for _, t := range resp.(*kmsg.FetchResponse).Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				l.count("Fetch: " + errorName(p.ErrorCode))
				continue
			}
			if p.HighWatermark < 0 { // records from a broker that does not know: it says nothing about where the log ends
				continue
			}
			l.hist.Observe(history.Answer{Start: begin, End: end, Offset: p.HighWatermark, Part: p.Partition, Broker: n.id, Kind: history.HighWatermark, Fetch: true})
		}
	}
	return nil
}

func (l *load) probeMetadata(conn *rawConn, n *node) error {
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(9)
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, t)
	begin := clock()
	resp, err := conn.do(req, rawWait)
	end := clock()
	if err != nil {
		return err
	}
	for p, e := range readView(resp.(*kmsg.MetadataResponse)).epoch {
		l.hist.Observe(history.Answer{Start: begin, End: end, Offset: int64(e), Part: p, Broker: n.id, Kind: history.LeaderEpoch})
	}
	return nil
}

// hush is the longest silence of each partition since the last reset.
type hush struct {
	mu          sync.Mutex
	ack, poll   []int64 // time of the latest
	ackG, pollG []int64 // longest gap
}

func newHush(n int) *hush {
	h := &hush{ack: make([]int64, n), poll: make([]int64, n), ackG: make([]int64, n), pollG: make([]int64, n)}
	h.reset()
	return h
}

func (h *hush) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := clock()
	for i := range h.ack {
		h.ack[i], h.poll[i], h.ackG[i], h.pollG[i] = now, now, 0, 0
	}
}

func (h *hush) acked(p int32, now int64) { h.note(h.ack, h.ackG, p, now) }
func (h *hush) read(p int32, now int64)  { h.note(h.poll, h.pollG, p, now) }

func (h *hush) note(last, gap []int64, p int32, now int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	gap[p] = max(gap[p], now-last[p])
	last[p] = max(last[p], now)
}

// longest is the longest gap of any partition, the one that lasts now counted too.
func (h *hush) longest() (ack, poll time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := clock()
	for p := range h.ack {
		ack = max(ack, time.Duration(max(h.ackG[p], now-h.ack[p])))
		poll = max(poll, time.Duration(max(h.pollG[p], now-h.poll[p])))
	}
	return ack, poll
}

// since reports whether every partition had an acknowledgement and a read after a moment.
func (h *hush) since(t int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Min(h.ack) > t && slices.Min(h.poll) > t
}
