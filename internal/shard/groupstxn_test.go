package shard

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/group"
)

func txnCommit(g *Groups, offset int64, producer int64, epoch int16) *Call {
	c := commitOf("g", offset)
	return g.Submit(Request{Group: "g", Event: group.TxnCommit{Request: c.Request, ProducerID: producer, Epoch: epoch},
		Admit: &Admission{ProducerID: producer, Epoch: epoch, Guard: "guard"}})
}

func mark(g *Groups, producer int64, epoch int16, t batch.ControlType) *Call {
	return g.WriteMarker(0, batch.BuildMarker(producer, epoch, batch.Marker{Type: t, CoordinatorEpoch: 1}), 2)
}

// shown is the batches of the log in short.
func (l *fakeLog) shown() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, raw := range l.batches {
		b := batch.Batch(raw)
		switch {
		case b.IsControl():
			out = append(out, fmt.Sprintf("marker %d/%d", b.ProducerID(), b.ProducerEpoch()))
		case b.IsTransactional():
			out = append(out, fmt.Sprintf("%d of %d/%d", b.Count(), b.ProducerID(), b.ProducerEpoch()))
		default:
			out = append(out, fmt.Sprint(b.Count()))
		}
	}
	return strings.Join(out, ", ")
}

func TestOffsetsOfTransactionsInTheOrderOfTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true, loading: make(chan struct{})}
		g := one(t, l)
		s := g.mu.shards[0]
		s.mu.Lock()
		s.mu.phase = active // take them all in before anybody looks: one round
		s.mu.Unlock()
		calls := []*Call{
			ask(g, "g", commitOf("g", 1)), txnCommit(g, 5, 7, 3), txnCommit(g, 6, 7, 3), txnCommit(g, 9, 8, 0),
			fetchOffset(g, "g"), mark(g, 7, 4, batch.Commit), fetchOffset(g, "g"), mark(g, 8, 1, batch.Abort), fetchOffset(g, "g"),
		}
		close(l.loading)
		for i, want := range []string{"ok", "ok", "ok", "ok", "1", "ok", "6", "ok", "6"} {
			if got := outcome(calls[i]); got != want {
				t.Errorf("%d: %s, want %s", i, got, want)
			}
		}
		if got := l.shown(); got != "1, 2 of 7/3, 1 of 8/0, marker 7/4, marker 8/1" && got != "1, 1 of 7/3, 1 of 7/3, 1 of 8/0, marker 7/4, marker 8/1" {
			t.Errorf("log: %s", got)
		}
		// What a reload finds is the same.
		g.Lead(0, l)
		synctest.Wait()
		expect(t, fetchOffset(g, "g"), "6")
		_ = g.Close(context.Background())
	})
}

func TestAdmissionIsAskedAtTheMomentOfTheWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		l.admit = func(producer int64, epoch int16, guard any) error {
			if guard != "guard" {
				t.Errorf("guard %v", guard)
			}
			for _, raw := range l.batches { // the marker of this very transaction is in the log
				if b := batch.Batch(raw); b.IsControl() && b.ProducerID() == producer && b.ProducerEpoch() > epoch {
					return kerr.InvalidProducerEpoch
				}
			}
			return nil
		}
		g := one(t, l)
		synctest.Wait()
		expect(t, txnCommit(g, 5, 7, 0), "ok")
		// In one round: the marker is written by the time that the offsets are looked at.
		s := g.mu.shards[0]
		s.mu.Lock()
		m, late := newCall(1), newCall(1)
		s.mu.inbox = append(s.mu.inbox,
			item{w: waiter{m, 0}, ev: markerEvent{batch.BuildMarker(7, 1, batch.Marker{Type: batch.Abort}), 2}},
			item{w: waiter{late, 0}, ev: group.TxnCommit{Request: commitOf("g", 6).Request, ProducerID: 7}, admit: &Admission{ProducerID: 7, Guard: "guard"}})
		s.mu.Unlock()
		s.poke()
		expect(t, m, "ok")
		expect(t, late, "INVALID_PRODUCER_EPOCH")
		expect(t, fetchOffset(g, "g"), "-1")
		if got := l.shown(); got != "1 of 7/0, marker 7/1" {
			t.Errorf("log: %s", got)
		}
		_ = g.Close(context.Background())
	})
}

func TestARefusedMarkerLeavesTheCoordinator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		g := one(t, l)
		synctest.Wait()
		expect(t, ask(g, "g", commitOf("g", 7)), "ok")
		for _, e := range []*kerr.Error{kerr.InvalidProducerEpoch, kerr.TransactionCoordinatorFenced, kerr.NotEnoughReplicas, kerr.InvalidRecord} {
			l.set(func() { l.refuse = e })
			expect(t, mark(g, 7, 1, batch.Commit), e.Message)
			expect(t, fetchOffset(g, "g"), "7")
		}
		l.set(func() { l.refuse = kerr.NotLeaderForPartition })
		expect(t, mark(g, 7, 1, batch.Commit), "COORDINATOR_NOT_AVAILABLE") // it loads again
		if c := g.WriteMarker(5, nil, 2); outcome(c) != "NOT_COORDINATOR" {
			t.Errorf("a partition that is not led: %s", outcome(c))
		}
		_ = g.Close(context.Background())
	})
}

func TestMarkersWaitForTheirCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		g := one(t, l)
		synctest.Wait()
		c, m := txnCommit(g, 5, 7, 0), mark(g, 7, 1, batch.Commit)
		expect(t, c, "waiting")
		expect(t, m, "waiting")
		f := kmsg.NewOffsetFetchRequestGroup()
		f.Group, f.Topics = "g", []kmsg.OffsetFetchRequestGroupTopic{{Topic: "t", Partitions: []int32{0}}}
		r := ask(g, "g", group.FetchOffsets{Group: f, RequireStable: true})
		expect(t, r, "waiting")
		l.commit()
		expect(t, m, "ok")
		expect(t, r, "5")
		_ = g.Close(context.Background())
	})
}
