package shard

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/txn"
)

// txns is transaction coordinators that lead one partition, the only one, and what they handed over.
type txns struct {
	*Txns
	mu    sync.Mutex
	told  []string // markers and what was forgotten
	fresh int64    // the next producer id; negative: none is at hand
}

func oneTxn(l Log) *txns {
	x := &txns{fresh: 100}
	x.Txns = NewTxns(TxnOptions{
		Config: txn.DefaultConfig(), Log: quiet(),
		FreshID: func() (int64, bool) {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.fresh++
			return x.fresh - 1, x.fresh > 0
		},
		Markers: func(partition int32, load uint64, ms []txn.Marker) {
			for _, m := range ms {
				x.say("load %d: %s %d/%d commit=%v %v", load, m.TxnID, m.ProducerID, m.Epoch, m.Commit, m.Partitions)
			}
		},
		Forget: func(partition int32, load uint64) { x.say("forget %d", load) },
	})
	x.Txns.mu.parts = 1
	x.Txns.version.Store(2)
	x.Lead(0, l)
	return x
}

func (x *txns) say(format string, args ...any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.told = append(x.told, fmt.Sprintf(format, args...))
}

// heard is what was handed over since the last time.
func (x *txns) heard() string {
	synctest.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	s := strings.Join(x.told, "; ")
	x.told = nil
	return s
}

func (x *txns) init(id string) *Call {
	r := kmsg.NewPtrInitProducerIDRequest()
	r.Version, r.TransactionalID, r.TransactionTimeoutMillis = 5, &id, 60_000
	return x.Submit(TxnRequest{TxnID: id, Event: txn.Init{Request: r, FreshID: -1}})
}

func (x *txns) add(id string, epoch int16) *Call {
	return x.Submit(TxnRequest{TxnID: id, Event: txn.Add{TxnID: id, ProducerID: 100, Epoch: epoch, V2: true, Partitions: []meta.TopicPartition{{Topic: "t"}}}})
}

func (x *txns) end(id string, epoch int16) *Call {
	r := kmsg.NewPtrEndTxnRequest()
	r.Version, r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.Commit = 5, id, 100, epoch, true
	return x.Submit(TxnRequest{TxnID: id, Event: txn.End{Request: r, FreshID: -1}})
}

func (x *txns) written(id string, epoch int16) {
	x.Tell(0, txn.Written{TxnID: id, ProducerID: 100, Epoch: epoch, Partitions: []meta.TopicPartition{{Topic: "t"}}})
	synctest.Wait()
}

// said is an answer of the transaction coordinator in short.
func said(t *testing.T, c *Call, want string) {
	t.Helper()
	got := outcome(c)
	if got == "ok" {
		var code int16
		switch v := c.Results()[0].Value.(type) {
		case *kmsg.InitProducerIDResponse:
			code, got = v.ErrorCode, fmt.Sprintf("%d/%d", v.ProducerID, v.ProducerEpoch)
		case *kmsg.EndTxnResponse:
			code, got = v.ErrorCode, fmt.Sprintf("%d/%d", v.ProducerID, v.ProducerEpoch)
		case []int16:
			code = v[0]
		}
		if code != 0 {
			got = kerr.TypedErrorForCode(code).Message
		}
	}
	if got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func heard(t *testing.T, x *txns, want string) {
	t.Helper()
	if got := x.heard(); got != want {
		t.Fatalf("handed over %q, want %q", got, want)
	}
}

// open brings an id to an open transaction at epoch 0.
func open(t *testing.T, x *txns, id string) {
	t.Helper()
	said(t, x.init(id), "100/0")
	said(t, x.add(id, 0), "ok")
}

const firstMarker = "load 1: x 100/1 commit=true [t-0]"

func TestMarkersFollowTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		x := oneTxn(l)
		synctest.Wait()
		open(t, x, "x")
		l.set(func() { l.auto = false })
		c := x.end("x", 0)
		said(t, c, "waiting")
		heard(t, x, "")
		l.commit()
		said(t, c, "100/1")
		heard(t, x, firstMarker)
		_ = x.Close(context.Background())
		heard(t, x, "forget 1")
	})
}

func TestMarkersOfWhatIsLostAreNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		x := oneTxn(l)
		synctest.Wait()
		open(t, x, "x")
		l.set(func() { l.auto = false })
		c := x.end("x", 0)
		synctest.Wait()
		l.lose()
		said(t, c, "NOT_COORDINATOR")
		x.Lose(0)
		heard(t, x, "forget 1")
		_ = x.Close(context.Background())
	})
}

func TestMarkersGoOutAlsoWhenTheAnswerWasTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		x := oneTxn(l)
		synctest.Wait()
		open(t, x, "x")
		l.set(func() { l.auto = false })
		c := x.end("x", 0)
		pass(6 * time.Second)
		said(t, c, "COORDINATOR_NOT_AVAILABLE")
		l.commit()
		heard(t, x, firstMarker)
		_ = x.Close(context.Background())
	})
}

func TestParkedRequestsAreReleasedByTheLastMarker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		x := oneTxn(l)
		synctest.Wait()
		open(t, x, "x")
		said(t, x.end("x", 0), "100/1")
		next, again, other := x.add("x", 1), x.end("x", 0), x.init("x")
		said(t, next, "waiting")
		said(t, again, "waiting")
		said(t, x.init("y"), "101/0") // another id does not wait
		pass(100 * time.Millisecond)
		l.set(func() { l.auto = false })
		x.written("x", 1)
		said(t, next, "waiting") // it saw the end, which is not committed
		l.commit()
		said(t, next, "ok")
		// The repeated EndTxn meets the next transaction, which next has opened before it: not a repeat of that.
		said(t, again, "PRODUCER_FENCED")
		said(t, other, "waiting") // it aborts what next has opened, and waits for those markers
		l.set(func() { l.auto = true })
		start := time.Now()
		<-other.Ready()
		said(t, other, "CONCURRENT_TRANSACTIONS")
		if d := time.Since(start); d != 400*time.Millisecond {
			t.Errorf("refused %v after it was parked again, want 400ms: 500 ms in all", d)
		}
		_ = x.Close(context.Background())
	})
}

func TestParkedRequestsAreRefusedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		x := oneTxn(l)
		synctest.Wait()
		open(t, x, "x")
		said(t, x.end("x", 0), "100/1")
		for range 50 { // clients ask all the time, for as long as a leader is away
			start := time.Now()
			c := x.add("x", 1)
			pass(20 * time.Millisecond)
			d := x.init("x")
			<-c.Ready()
			said(t, c, "CONCURRENT_TRANSACTIONS")
			if d := time.Since(start); d != parkFor {
				t.Fatalf("refused after %v", d)
			}
			said(t, d, "waiting")
		}
		s := x.Txns.mu.shards[0]
		synctest.Wait()
		if n := len(s.parked.by["x"]); n != 1 || len(s.parked.queue) != 1 {
			t.Errorf("%d requests are parked by name, %d in the queue, want the last one", n, len(s.parked.queue))
		}
		_ = x.Close(context.Background())
	})
}

func TestCloseAndLossAnswerWhatIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, end := range []func(x *txns){
			func(x *txns) { _ = x.Close(context.Background()) },
			func(x *txns) { x.Lose(0) },
			func(x *txns) { x.Lead(0, &fakeLog{auto: true}) },
		} {
			x := oneTxn(&fakeLog{auto: true})
			synctest.Wait()
			open(t, x, "x")
			said(t, x.end("x", 0), "100/1")
			c := x.add("x", 1)
			said(t, c, "waiting")
			end(x)
			said(t, c, "NOT_COORDINATOR")
			_ = x.Close(context.Background())
			said(t, x.add("x", 1), "NOT_COORDINATOR")
		}
	})
}

// TestReloadHandsMarkersOverOnce: the machine that decided is forgotten before its decision is committed. The one that
// reads the decision hands the markers over, and only that one.
func TestReloadHandsMarkersOverOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		x := oneTxn(l)
		synctest.Wait()
		open(t, x, "x")
		l.set(func() { l.auto = false })
		c := x.end("x", 0)
		said(t, c, "waiting")
		l.set(func() { l.fail = kerr.NotEnoughReplicas })
		said(t, x.init("y"), "COORDINATOR_NOT_AVAILABLE")
		said(t, c, "COORDINATOR_NOT_AVAILABLE")
		heard(t, x, "forget 1")
		l.set(func() { l.fail = nil })
		pass(2 * time.Second)
		heard(t, x, "") // read, not committed yet
		l.commit()
		heard(t, x, "load 2: x 100/1 commit=true [t-0]")
		l.set(func() { l.auto = true })
		x.written("x", 1)
		said(t, x.end("x", 0), "100/1")
		_ = x.Close(context.Background())
	})
}

// TestReloadBeforeTheMarkersStand: what was handed over is void, and handed over anew.
func TestReloadBeforeTheMarkersStand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		x := oneTxn(l)
		synctest.Wait()
		open(t, x, "x")
		said(t, x.end("x", 0), "100/1")
		parked := x.add("x", 1)
		heard(t, x, firstMarker)
		l.set(func() { l.fail = kerr.NotEnoughReplicas })
		said(t, x.init("y"), "COORDINATOR_NOT_AVAILABLE")
		said(t, parked, "COORDINATOR_NOT_AVAILABLE")
		l.set(func() { l.fail = nil })
		x.written("x", 1) // told to nobody yet, and kept for the machine that comes
		pass(2 * time.Second)
		heard(t, x, "forget 1; load 2: x 100/1 commit=true [t-0]")
		said(t, x.add("x", 1), "ok")
		_ = x.Close(context.Background())
	})
}

func TestNoProducerIDAtHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := oneTxn(&fakeLog{auto: true})
		x.fresh = -1
		synctest.Wait()
		said(t, x.init("x"), "COORDINATOR_LOAD_IN_PROGRESS")
		said(t, x.init("x"), "0/0")
		_ = x.Close(context.Background())
	})
}

func TestTimeoutsRunWithoutRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := oneTxn(&fakeLog{auto: true})
		synctest.Wait()
		open(t, x, "x")
		pass(59 * time.Second)
		heard(t, x, "")
		pass(2 * time.Second)
		heard(t, x, "load 1: x 100/2 commit=false [t-0]")
		said(t, x.end("x", 0), "PRODUCER_FENCED")
		_ = x.Close(context.Background())
	})
}

func TestCloseDoesNotWaitForTheNextLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true, fail: kerr.NotEnoughReplicas}
		x := oneTxn(l)
		synctest.Wait()
		said(t, x.init("x"), "COORDINATOR_NOT_AVAILABLE")
		start := time.Now()
		if err := x.Close(context.Background()); err != nil || time.Since(start) != 0 {
			t.Errorf("closed after %v: %v", time.Since(start), err)
		}
	})
}

// TestEveryAnswerComesOnce: requests from all sides while the coordinator is lost, led again and told of markers. A
// second answer to one request would close its channel twice.
func TestEveryAnswerComesOnce(t *testing.T) {
	l := &fakeLog{auto: true}
	x := oneTxn(l)
	var asking, moving sync.WaitGroup
	stop := make(chan struct{})
	moving.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			switch i % 4 {
			case 0:
				x.Lose(0)
			case 1:
				x.Lead(0, &fakeLog{auto: true})
			default:
				for e := range int16(4) {
					x.Tell(0, txn.Written{TxnID: "x", ProducerID: 100, Epoch: e, Partitions: []meta.TopicPartition{{Topic: "t"}}})
					x.List(txn.List{Request: kmsg.NewPtrListTransactionsRequest()})
				}
			}
		}
	})
	n := 0
	var mu sync.Mutex
	for range 8 {
		asking.Go(func() {
			for i := range 100 {
				for _, c := range []*Call{x.init("x"), x.add("x", int16(i%4)), x.end("x", int16(i%4))} {
					<-c.Ready()
					mu.Lock()
					n++
					mu.Unlock()
				}
			}
		})
	}
	asking.Wait()
	close(stop)
	moving.Wait()
	_ = x.Close(context.Background())
	if n != 8*100*3 {
		t.Errorf("%d answers", n)
	}
}
