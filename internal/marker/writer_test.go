package marker

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/peer"
	"github.com/milena-mq/milena/internal/txn"
	"github.com/milena-mq/milena/internal/wire"
)

const patience = 20 * time.Second

// world is a Writer on broker 1 with an image to change and everything that it says.
type world struct {
	t *testing.T
	w *Writer
	o Options

	mu    sync.Mutex
	im    *meta.Image
	rev   int64
	local func(ctx context.Context, req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse
	asked []string // by requests to this broker
	told  chan string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, im: meta.Empty(), told: make(chan string, 10_000)}
	w.local = func(_ context.Context, req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse {
		return answer(req, 0)
	}
	w.o = Options{
		NodeID: 1,
		Image: func() *meta.Image {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.im
		},
		Local: func(ctx context.Context, req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse {
			w.mu.Lock()
			w.asked = append(w.asked, show(req))
			local := w.local
			w.mu.Unlock()
			return local(ctx, req)
		},
		Tell: func(partition int32, ev txn.Event) {
			switch ev := ev.(type) {
			case txn.Written:
				w.told <- fmt.Sprintf("%d: written %s %d/%d %v", partition, ev.TxnID, ev.ProducerID, ev.Epoch, ev.Partitions)
			case txn.Fenced:
				w.told <- fmt.Sprintf("%d: fenced %s %d/%d", partition, ev.TxnID, ev.ProducerID, ev.Epoch)
			default:
				t.Errorf("told %T", ev)
			}
		},
	}
	return w
}

func (w *world) start() *world {
	w.w = New(w.o)
	return w
}

// apply changes the image and tells the Writer.
func (w *world) apply(cs ...meta.Change) {
	w.t.Helper()
	w.mu.Lock()
	w.rev++
	im, d, err := w.im.Apply(cs, w.rev)
	if err != nil {
		w.t.Fatal(err)
	}
	w.im = im
	w.mu.Unlock()
	if w.w != nil {
		w.w.Apply(d)
	}
}

var topicID = meta.UUID{1}

// leaders is topic t with these leaders.
func (w *world) leaders(ids ...int32) {
	w.t.Helper()
	cs := []meta.Change{meta.PutTopic("t", meta.TopicRecord{ID: topicID, Partitions: int32(len(ids))})}
	for i, id := range ids {
		cs = append(cs, meta.PutPartition(topicID, int32(i), &meta.Partition{Replicas: []int32{1, 2}, ISR: []int32{1, 2}, Leader: id, LeaderEpoch: int32(w.rev)}))
	}
	w.apply(cs...)
}

// expect waits for what the Writer tells, in any order.
func (w *world) expect(want ...string) {
	w.t.Helper()
	var got []string
	for range want {
		select {
		case s := <-w.told:
			got = append(got, s)
		case <-time.After(patience):
			w.t.Fatalf("told %q, want %q", got, want)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Fatalf("told %q, want %q", got, want)
	}
}

// silent says that nothing more was told.
func (w *world) silent() {
	w.t.Helper()
	select {
	case s := <-w.told:
		w.t.Fatalf("told %q", s)
	default:
	}
}

func (w *world) requests() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.Join(w.asked, "; ")
	w.asked = nil
	return s
}

func marker(id string, parts ...int32) txn.Marker {
	m := txn.Marker{TxnID: id, ProducerID: int64(id[0]), Epoch: 3, CoordinatorEpoch: 9, Commit: true, Version: 2}
	for _, p := range parts {
		m.Partitions = append(m.Partitions, meta.TopicPartition{Topic: "t", Partition: p})
	}
	return m
}

func show(req *kmsg.WriteTxnMarkersRequest) string {
	var out []string
	for _, m := range req.Markers {
		for _, t := range m.Topics {
			out = append(out, fmt.Sprintf("%c %d/%d by %d commit=%v v%d %s%v", byte(m.ProducerID), m.ProducerID, m.ProducerEpoch, m.CoordinatorEpoch, m.Committed, m.TransactionVersion, t.Topic, t.Partitions))
		}
	}
	return strings.Join(out, " + ")
}

// answer is one code for every partition.
func answer(req *kmsg.WriteTxnMarkersRequest, code int16) *kmsg.WriteTxnMarkersResponse {
	resp := req.ResponseKind().(*kmsg.WriteTxnMarkersResponse)
	resp.Version = req.Version
	for _, m := range req.Markers {
		rm := kmsg.NewWriteTxnMarkersResponseMarker()
		rm.ProducerID = m.ProducerID
		for _, t := range m.Topics {
			rt := kmsg.NewWriteTxnMarkersResponseMarkerTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rt.Partitions = append(rt.Partitions, kmsg.WriteTxnMarkersResponseMarkerTopicPartition{Partition: p, ErrorCode: code})
			}
			rm.Topics = append(rm.Topics, rt)
		}
		resp.Markers = append(resp.Markers, rm)
	}
	return resp
}

// remote is broker 2, on a socket; fn answers, nil hangs up.
func (w *world) remote(fn func(req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				w.converse(nc, fn)
			})
		}
	})
	pool := peer.NewPool(&peer.Dialer{ClientID: "test", Timeout: patience})
	w.o.Pool = pool
	w.t.Cleanup(func() { pool.Close(); _ = l.Close(); wg.Wait() })
	at := l.Addr().(*net.TCPAddr)
	w.apply(meta.PutBroker(&meta.Broker{ID: 2, Endpoints: []meta.Endpoint{{Listener: config.PeerListenerName, Host: "127.0.0.1", Port: int32(at.Port)}}}))
}

func (w *world) converse(nc net.Conn, fn func(req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse) {
	for {
		var size [4]byte
		if _, err := io.ReadFull(nc, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(nc, frame); err != nil {
			return
		}
		h, body, err := wire.ParseHeader(frame)
		if err != nil {
			w.t.Errorf("header: %v", err)
			return
		}
		req, err := wire.Decode(h, body)
		if err != nil {
			w.t.Errorf("decode: %v", err)
			return
		}
		resp := fn(req.(*kmsg.WriteTxnMarkersRequest))
		if resp == nil {
			return
		}
		out := resp.AppendTo(append(binary.BigEndian.AppendUint32(nil, uint32(h.Correlation)), 0))
		if _, err := nc.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(out))), out...)); err != nil {
			return
		}
	}
}

func TestEveryPartitionHearsFromItsLeader(t *testing.T) {
	w := newWorld(t)
	far := make(chan string, 10)
	w.remote(func(req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse {
		far <- fmt.Sprintf("v%d %s", req.Version, show(req))
		return answer(req, 0)
	})
	w.leaders(1, 2, 1, 2)
	w.start()
	defer w.w.Close()
	w.w.Put(7, 1, []txn.Marker{marker("a", 3, 0, 1, 2)})
	w.expect("7: written a 97/3 [t-3 t-1]", "7: written a 97/3 [t-0 t-2]")
	if got := w.requests(); got != "a 97/3 by 9 commit=true v2 t[0 2]" {
		t.Errorf("here: %s", got)
	}
	if got := <-far; got != "v2 a 97/3 by 9 commit=true v2 t[1 3]" {
		t.Errorf("there: %s", got)
	}
	w.silent()
}

func TestAMoveOfTheLeaderIsFollowed(t *testing.T) {
	w := newWorld(t)
	w.remote(func(req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse { return answer(req, 0) })
	w.leaders(1)
	asked := make(chan struct{}, 100)
	w.local = func(_ context.Context, req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse {
		asked <- struct{}{}
		return answer(req, kerr.NotLeaderForPartition.Code)
	}
	w.start()
	defer w.w.Close()
	w.w.Put(0, 1, []txn.Marker{marker("a", 0)})
	<-asked
	w.leaders(2)
	w.expect("0: written a 97/3 [t-0]")
}

func TestABrokenConnectionIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	var n atomic.Int32 // each time another connection
	w.remote(func(req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse {
		if n.Add(1) < 3 {
			return nil
		}
		return answer(req, 0)
	})
	w.leaders(2)
	w.start()
	defer w.w.Close()
	w.w.Put(0, 1, []txn.Marker{marker("a", 0)})
	w.expect("0: written a 97/3 [t-0]")
}

// TestCloseDoesNotWaitForAnAnswer: a leader that never answers holds nobody up.
func TestCloseDoesNotWaitForAnAnswer(t *testing.T) {
	w := newWorld(t)
	asked, stop := make(chan struct{}), make(chan struct{})
	w.remote(func(*kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse {
		close(asked)
		<-stop
		return nil
	})
	w.leaders(2)
	w.start()
	w.w.Put(0, 1, []txn.Marker{marker("a", 0)})
	<-asked
	w.w.Close()
	close(stop)
	w.w.Put(0, 1, []txn.Marker{marker("b", 0)}) // nobody is there any more
	w.w.Apply(nil)
	w.silent()
}

func TestASilentLeaderIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.leaders(1)
		start := time.Now()
		w.local = func(ctx context.Context, req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse {
			if time.Since(start) > answerWithin {
				return answer(req, 0)
			}
			<-ctx.Done()
			return nil
		}
		w.start()
		defer w.w.Close()
		w.w.Put(0, 1, []txn.Marker{marker("a", 0)})
		w.expect("0: written a 97/3 [t-0]")
		if d := time.Since(start); d != answerWithin+again {
			t.Errorf("written after %v", d)
		}
	})
}

func TestWhatWaitsGoesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.leaders(1, 1)
		stop := make(chan struct{})
		w.local = func(_ context.Context, req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse {
			<-stop
			return answer(req, 0)
		}
		w.start()
		defer w.w.Close()
		w.w.Put(0, 1, []txn.Marker{marker("a", 0)})
		synctest.Wait()
		w.w.Put(0, 1, []txn.Marker{marker("b", 0), marker("c", 0, 1)})
		w.w.Put(1, 2, []txn.Marker{marker("d", 1)})
		close(stop)
		w.expect("0: written a 97/3 [t-0]", "0: written b 98/3 [t-0]", "0: written c 99/3 [t-0 t-1]", "1: written d 100/3 [t-1]")
		synctest.Wait()
		if got, want := w.requests(), "a 97/3 by 9 commit=true v2 t[0]; b 98/3 by 9 commit=true v2 t[0] + c 99/3 by 9 commit=true v2 t[0 1] + d 100/3 by 9 commit=true v2 t[1]"; got != want {
			t.Errorf("requests %s", got)
		}
	})
}

func TestARequestHasItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.leaders(1)
		w.local = func(_ context.Context, req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse {
			if len(req.Markers) > most {
				t.Errorf("%d markers in one request", len(req.Markers))
			}
			return answer(req, 0)
		}
		w.start()
		defer w.w.Close()
		ms := make([]txn.Marker, 2*most+1)
		for i := range ms {
			ms[i] = marker("a", 0)
		}
		w.w.Put(0, 1, ms)
		synctest.Wait()
		if n := len(w.told); n != len(ms) {
			t.Errorf("%d told of %d", n, len(ms))
		}
	})
}

func TestWhatIsDeletedNeedsNoMarker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.leaders(1)
		w.local = func(_ context.Context, req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse {
			return answer(req, kerr.UnknownTopicOrPartition.Code)
		}
		w.start()
		defer w.w.Close()
		w.w.Put(0, 1, []txn.Marker{{TxnID: "b", Partitions: []meta.TopicPartition{{Topic: "gone", Partition: 0}, {Topic: "t", Partition: 5}, {Topic: "t", Partition: -1}}}})
		w.expect("0: written b 0/0 [gone-0 t-5 t--1]")
		w.w.Put(0, 1, []txn.Marker{marker("a", 0)})
		synctest.Wait()
		w.silent() // its leader does not know it any more, or not yet: that is no word
		w.apply(meta.Delete(meta.TopicKey("t")), meta.Delete(meta.PartitionKey(topicID, 0)))
		w.expect("0: written a 97/3 [t-0]")
	})
}

func TestAPartitionWithoutLeaderIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.leaders(-1, 2) // broker 2 is not in the image
		w.start()
		defer w.w.Close()
		w.w.Put(0, 1, []txn.Marker{marker("a", 0, 1)})
		<-time.After(time.Hour)
		w.silent()
		w.leaders(1, 1)
		w.expect("0: written a 97/3 [t-0]", "0: written a 97/3 [t-1]")
	})
}

func TestAFencedWordIsGivenUp(t *testing.T) {
	for _, e := range []*kerr.Error{kerr.TransactionCoordinatorFenced, kerr.InvalidProducerEpoch} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.leaders(1, 1, 1)
			w.local = func(_ context.Context, req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse {
				resp := answer(req, 0)
				resp.Markers[0].Topics[0].Partitions[1].ErrorCode = e.Code
				resp.Markers[0].Topics[0].Partitions[2].ErrorCode = kerr.NotLeaderForPartition.Code
				return resp
			}
			w.start()
			defer w.w.Close()
			w.w.Put(0, 1, []txn.Marker{marker("a", 0, 1, 2)})
			w.expect("0: fenced a 97/3", "0: written a 97/3 [t-0]")
			<-time.After(time.Minute)
			w.silent()
			if got := w.requests(); got != "a 97/3 by 9 commit=true v2 t[0 1 2]" {
				t.Errorf("requests %s", got)
			}
		})
	}
}

// TestOnlyWhatIsNamedIsWritten: an answer that says less, or speaks of somebody else, is no word on the rest.
func TestOnlyWhatIsNamedIsWritten(t *testing.T) {
	for name, bend := range map[string]func(*kmsg.WriteTxnMarkersResponse){
		"no markers":        func(r *kmsg.WriteTxnMarkersResponse) { r.Markers = nil },
		"another producer":  func(r *kmsg.WriteTxnMarkersResponse) { r.Markers[0].ProducerID++ },
		"no topics":         func(r *kmsg.WriteTxnMarkersResponse) { r.Markers[0].Topics = nil },
		"another topic":     func(r *kmsg.WriteTxnMarkersResponse) { r.Markers[0].Topics[0].Topic = "u" },
		"another partition": func(r *kmsg.WriteTxnMarkersResponse) { r.Markers[0].Topics[0].Partitions[0].Partition = 9 },
		"timed out": func(r *kmsg.WriteTxnMarkersResponse) {
			r.Markers[0].Topics[0].Partitions[0].ErrorCode = kerr.RequestTimedOut.Code
		},
		"too few replicas": func(r *kmsg.WriteTxnMarkersResponse) {
			r.Markers[0].Topics[0].Partitions[0].ErrorCode = kerr.NotEnoughReplicas.Code
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.leaders(1)
				n := 0
				w.local = func(_ context.Context, req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse {
					resp := answer(req, 0)
					if n++; n == 1 {
						bend(resp)
					}
					return resp
				}
				w.start()
				defer w.w.Close()
				w.w.Put(0, 1, []txn.Marker{marker("a", 0)})
				synctest.Wait()
				w.silent()
				w.expect("0: written a 97/3 [t-0]")
			})
		})
	}
}

// TestForgetVoidsWhatIsNotWritten: of the same partition and load, or an earlier one; also what is being asked for when
// it is forgotten is not asked for again.
func TestForgetVoidsWhatIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.leaders(-1, 1)
		stop := make(chan struct{})
		w.local = func(_ context.Context, req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse {
			if req.Markers[0].ProducerID == 'a' {
				<-stop
				return answer(req, kerr.NotLeaderForPartition.Code)
			}
			return answer(req, 0)
		}
		w.start()
		defer w.w.Close()
		w.w.Put(0, 4, []txn.Marker{marker("a", 1)}) // under way
		synctest.Wait()
		w.w.Put(0, 4, []txn.Marker{marker("b", 1)})    // in the queue
		w.w.Put(0, 4, []txn.Marker{marker("c", 0)})    // without a leader
		w.w.Put(1, 3, []txn.Marker{marker("d", 0, 1)}) // of another partition
		w.w.Put(0, 5, []txn.Marker{marker("e", 0, 1)}) // of the machine after
		w.w.Forget(0, 4)
		w.w.Forget(0, 2) // one before it ends late
		w.w.Put(0, 4, []txn.Marker{marker("f", 1)})
		close(stop)
		w.expect("1: written d 100/3 [t-1]", "0: written e 101/3 [t-1]")
		w.leaders(1, 1)
		w.expect("1: written d 100/3 [t-0]", "0: written e 101/3 [t-0]")
		<-time.After(time.Minute)
		w.silent()
	})
}
