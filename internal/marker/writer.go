package marker

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/peer"
	"github.com/milena-mq/milena/internal/txn"
)

const (
	// again is the rest before what failed is tried once more, unless the metadata moves before.
	again = 50 * time.Millisecond
	// answerWithin bounds one request: a leader that stands still is replaced long before.
	answerWithin = 5 * time.Second
	// most is the markers of one request.
	most = 2000
)

// Options is what a Writer needs.
type Options struct {
	NodeID int32
	Image  func() *meta.Image
	Pool   *peer.Pool // nil: there are no other brokers
	// Local writes markers into partitions that this broker leads, and returns when they are committed.
	Local func(ctx context.Context, req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse
	// Tell reports to the coordinator of a partition of __transaction_state: txn.Written or txn.Fenced.
	Tell func(partition int32, ev txn.Event)
	Log  *slog.Logger
}

// job is one marker for some partitions of one leader.
type job struct {
	state int32  // partition of __transaction_state that decided
	load  uint64 // its machine, see Forget
	m     txn.Marker
	parts []meta.TopicPartition
}

// Writer writes markers.
type Writer struct {
	o      Options
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     struct {
		sync.Mutex
		leaders map[int32]*leader
		lost    []job            // without a leader, or to be tried again
		void    map[int32]uint64 // by partition of __transaction_state: loads up to this one are gone
		timer   *time.Timer
		closed  bool
	}
}

// leader is the queue of one broker.
type leader struct {
	id   int32
	jobs []job
	wake chan struct{} // one token
}

// New makes a Writer.
func New(o Options) *Writer {
	w := &Writer{o: o, log: o.Log}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.mu.leaders = map[int32]*leader{}
	w.mu.void = map[int32]uint64{}
	return w
}

// Put takes markers over whose decision is committed. It does not block. load is the machine that decided.
func (w *Writer) Put(state int32, load uint64, ms []txn.Marker) {
	jobs := make([]job, len(ms))
	for i, m := range ms {
		jobs[i] = job{state, load, m, m.Partitions}
	}
	w.route(jobs)
}

// Forget drops what is not written yet of one partition's machines up to load: whoever loads that partition next hands
// over all markers that are missing. Kept beside those, the old ones could be written when the transaction is over and
// the next one has begun.
func (w *Writer) Forget(state int32, load uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.void[state] = max(w.mu.void[state], load)
	for _, l := range w.mu.leaders {
		l.jobs = slices.DeleteFunc(l.jobs, w.voidLocked)
	}
	w.mu.lost = slices.DeleteFunc(w.mu.lost, w.voidLocked)
}

func (w *Writer) voidLocked(j job) bool { return j.load <= w.mu.void[j.state] && j.load > 0 }

// route gives every partition to its leader's queue.
func (w *Writer) route(jobs []job) {
	im := w.o.Image()
	var gone []job
	w.mu.Lock()
	for _, j := range jobs {
		if w.voidLocked(j) {
			continue
		}
		by := map[int32][]meta.TopicPartition{}
		var missing []meta.TopicPartition
		for _, p := range j.parts {
			switch id, ok := leaderOf(im, p); {
			case !ok:
				missing = append(missing, p)
			default:
				by[id] = append(by[id], p)
			}
		}
		if len(missing) > 0 {
			gone = append(gone, job{j.state, j.load, j.m, missing})
		}
		for id, parts := range by {
			w.enqueueLocked(id, job{j.state, j.load, j.m, parts})
		}
	}
	w.mu.Unlock()
	for _, j := range gone {
		w.written(j, j.parts) // a topic that is deleted has no transaction any more
	}
}

func leaderOf(im *meta.Image, p meta.TopicPartition) (int32, bool) {
	t := im.Topic(p.Topic)
	if t == nil || p.Partition < 0 || int(p.Partition) >= len(t.Partitions) {
		return 0, false
	}
	return t.Partitions[p.Partition].Leader, true
}

func (w *Writer) enqueueLocked(id int32, j job) {
	if w.mu.closed {
		return
	}
	if id < 0 {
		w.laterLocked(j)
		return
	}
	l := w.mu.leaders[id]
	if l == nil {
		l = &leader{id: id, wake: make(chan struct{}, 1)}
		w.mu.leaders[id] = l
		w.wg.Go(func() { w.run(l) })
	}
	l.jobs = append(l.jobs, j)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// laterLocked tries a job again after a rest, or as soon as the metadata has moved.
func (w *Writer) laterLocked(j job) {
	w.mu.lost = append(w.mu.lost, j)
	if w.mu.timer == nil {
		w.mu.timer = time.AfterFunc(again, w.retry)
	}
}

func (w *Writer) retry() {
	w.mu.Lock()
	jobs := w.mu.lost
	w.mu.lost = nil
	if w.mu.timer != nil {
		w.mu.timer.Stop()
		w.mu.timer = nil
	}
	w.mu.Unlock()
	if len(jobs) > 0 {
		w.route(jobs)
	}
}

// Apply follows the metadata: what waits for a leader is looked at again.
func (w *Writer) Apply(d *meta.Delta) {
	if d != nil && len(d.Topics) > 0 {
		w.retry()
	}
}

// Close ends everything. Markers that are not written yet are written by whoever loads their coordinator.
func (w *Writer) Close() {
	w.mu.Lock()
	w.mu.closed = true
	if w.mu.timer != nil {
		w.mu.timer.Stop()
	}
	w.mu.Unlock()
	w.cancel()
	w.wg.Wait()
}

// run writes what comes for one leader, one request at a time.
func (w *Writer) run(l *leader) {
	for {
		select {
		case <-l.wake:
		case <-w.ctx.Done():
			return
		}
		for {
			w.mu.Lock()
			n := min(len(l.jobs), most)
			jobs := slices.Clone(l.jobs[:n])
			l.jobs = slices.Delete(l.jobs, 0, n)
			w.mu.Unlock()
			if n == 0 || w.ctx.Err() != nil {
				break
			}
			w.write(l.id, jobs)
		}
	}
}

func (w *Writer) write(id int32, jobs []job) {
	req := request(jobs)
	ctx, cancel := context.WithTimeout(w.ctx, answerWithin)
	defer cancel()
	var resp *kmsg.WriteTxnMarkersResponse
	if id == w.o.NodeID {
		resp = w.o.Local(ctx, req)
	} else if addr, ok := w.address(id); ok {
		r, err := w.o.Pool.Do(ctx, addr, req)
		if err != nil {
			w.log.Debug("write transaction markers", "broker", id, "err", err)
		}
		resp, _ = r.(*kmsg.WriteTxnMarkersResponse)
	}
	for i := range jobs {
		w.settle(jobs[i], resp, i)
	}
}

func (w *Writer) address(id int32) (string, bool) {
	b := w.o.Image().Broker(id)
	if b == nil || w.o.Pool == nil {
		return "", false
	}
	e, ok := b.Endpoint(config.PeerListenerName)
	return e.Address(), ok
}

// request is the jobs as one message; the answer keeps their order.
func request(jobs []job) *kmsg.WriteTxnMarkersRequest {
	req := kmsg.NewPtrWriteTxnMarkersRequest()
	req.Version = 2
	for _, j := range jobs {
		m := kmsg.NewWriteTxnMarkersRequestMarker()
		m.ProducerID, m.ProducerEpoch, m.Committed = j.m.ProducerID, j.m.Epoch, j.m.Commit
		m.CoordinatorEpoch, m.TransactionVersion = j.m.CoordinatorEpoch, int8(j.m.Version)
		parts := slices.Clone(j.parts)
		slices.SortFunc(parts, func(a, b meta.TopicPartition) int {
			return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
		})
		for i, p := range parts {
			if i == 0 || p.Topic != parts[i-1].Topic {
				t := kmsg.NewWriteTxnMarkersRequestMarkerTopic()
				t.Topic = p.Topic
				m.Topics = append(m.Topics, t)
			}
			t := &m.Topics[len(m.Topics)-1]
			t.Partitions = append(t.Partitions, p.Partition)
		}
		req.Markers = append(req.Markers, m)
	}
	return req
}

// settle takes the answer for one job in; what it does not name is tried again.
func (w *Writer) settle(j job, resp *kmsg.WriteTxnMarkersResponse, i int) {
	codes := map[meta.TopicPartition]int16{}
	if resp != nil && i < len(resp.Markers) && resp.Markers[i].ProducerID == j.m.ProducerID {
		for _, t := range resp.Markers[i].Topics {
			for _, p := range t.Partitions {
				codes[meta.TopicPartition{Topic: t.Topic, Partition: p.Partition}] = p.ErrorCode
			}
		}
	}
	var done, left []meta.TopicPartition
	fenced := false
	for _, p := range j.parts {
		code, answered := codes[p]
		switch {
		case answered && (code == 0 || code == kerr.UnsupportedForMessageFormat.Code):
			done = append(done, p)
		case code == kerr.TransactionCoordinatorFenced.Code, code == kerr.InvalidProducerEpoch.Code:
			fenced = true // another coordinator has ended it, or a later transaction has begun: this word counts no more
		default:
			left = append(left, p)
		}
	}
	if fenced {
		w.log.Warn("transaction marker refused: another coordinator has ended this transaction", "transactional_id", j.m.TxnID, "producer", j.m.ProducerID, "epoch", j.m.Epoch)
		w.o.Tell(j.state, txn.Fenced{TxnID: j.m.TxnID, ProducerID: j.m.ProducerID, Epoch: j.m.Epoch})
	}
	if len(done) > 0 {
		w.written(j, done)
	}
	if len(left) > 0 && !fenced {
		w.mu.Lock()
		if !w.mu.closed && !w.voidLocked(j) {
			w.laterLocked(job{j.state, j.load, j.m, left})
		}
		w.mu.Unlock()
	}
}

func (w *Writer) written(j job, parts []meta.TopicPartition) {
	w.o.Tell(j.state, txn.Written{TxnID: j.m.TxnID, ProducerID: j.m.ProducerID, Epoch: j.m.Epoch, Partitions: parts})
}
