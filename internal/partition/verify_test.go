package partition

import (
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// inTxn is one batch of a producer's transaction.
func (w *world) inTxn(id int64, epoch int16, sequence int32) batch.Batch {
	return records(w.t, batch.Spec{LeaderEpoch: -1, Transactional: true, Producer: &batch.ProducerInfo{ID: id, Epoch: epoch, Sequence: sequence}}, "v")
}

func (w *world) send(p *Partition, g *Guard, version int16, b batch.Batch) (Appended, error) {
	return p.Append(AppendRequest{Records: b, Acks: AcksAll, LeaderEpoch: -1, Version: version, Guard: g, NowMs: w.clock.UnixMilli()})
}

func (w *world) mark(p *Partition, id int64, epoch int16, coordinator int32, typ batch.ControlType, version int16) (Appended, error) {
	return p.AppendMarker(batch.BuildMarker(id, epoch, batch.Marker{Type: typ, CoordinatorEpoch: coordinator, TimestampMs: w.clock.UnixMilli()}), version)
}

func refusedWith(t *testing.T, what string, err error, want *kerr.Error) {
	t.Helper()
	var k *kerr.Error
	switch {
	case want == nil && err != nil:
		t.Errorf("%s: %v", what, err)
	case want != nil && (!errors.As(err, &k) || k != want):
		t.Errorf("%s: %v, want %s", what, err, want.Message)
	}
}

func onePartition(t *testing.T) (*world, *Partition) {
	w := newWorld(t, memfs.New(), 1)
	w.apply(newTopic("t", 1, 1)...)
	w.start().run()
	return w, w.get("t", 0)
}

func TestATransactionIsOpenedWithAGuardOnly(t *testing.T) {
	w, p := onePartition(t)
	_, err := w.send(p, nil, 12, w.inTxn(5, 3, 0))
	refusedWith(t, "without a guard", err, kerr.InvalidTxnState)
	refusedWith(t, "admission without a guard", p.admit(5, 3, nil), kerr.InvalidTxnState)
	g, open := p.Verify(5, 3, 0)
	if g == nil || open {
		t.Fatalf("guard %v, open %v", g, open)
	}
	for _, b := range []batch.Batch{w.inTxn(6, 3, 0), w.inTxn(5, 4, 0), w.inTxn(5, 2, 0)} {
		_, err := w.send(p, g, 12, b)
		refusedWith(t, fmt.Sprintf("guard of another for %d/%d", b.ProducerID(), b.ProducerEpoch()), err, kerr.InvalidTxnState)
	}
	if again, _ := p.Verify(5, 3, 0); again != g {
		t.Error("two questions of one producer have two guards")
	}
	refusedWith(t, "admission", p.admit(5, 3, g), nil)
	_, err = w.send(p, g, 12, w.inTxn(5, 3, 0))
	refusedWith(t, "with its guard", err, nil)
	if len(p.app.guards) != 0 {
		t.Errorf("%d guards are left when the transaction is open", len(p.app.guards))
	}
	if g, open := p.Verify(5, 3, 1); g != nil || !open {
		t.Errorf("open transaction: guard %v, open %v", g, open)
	}
	_, err = w.send(p, nil, 12, w.inTxn(5, 3, 1))
	refusedWith(t, "once it is open", err, nil)
	refusedWith(t, "admission once it is open", p.admit(5, 3, nil), nil)
	refusedWith(t, "admission of an earlier epoch", p.admit(5, 2, nil), kerr.InvalidProducerEpoch)
	// The batch that opened it again, after its end: it is told where it stands, and opens nothing.
	if _, err := w.mark(p, 5, 3, 0, batch.Commit, 1); err != nil {
		t.Fatal(err)
	}
	a, err := w.send(p, nil, 11, w.inTxn(5, 3, 0))
	if err != nil || !a.Duplicate || a.Base != 0 {
		t.Errorf("sent again after the end: %+v, %v", a, err)
	}
	_, err = w.send(p, g, 11, w.inTxn(5, 3, 2))
	refusedWith(t, "with a guard that is used up", err, kerr.InvalidTxnState)
}

func TestAMarkerMakesGuardsVoid(t *testing.T) {
	for _, c := range []struct {
		marker  int16 // epoch; the guard's is 5
		version int16
		want    *kerr.Error
	}{
		{4, 1, nil}, {5, 0, kerr.InvalidTxnState}, {5, 1, kerr.InvalidTxnState}, {6, 1, kerr.InvalidProducerEpoch},
		{5, 2, nil}, // the marker of the transaction before has the epoch of this one
		{4, 2, nil}, {6, 2, kerr.InvalidProducerEpoch}, {7, 2, kerr.InvalidProducerEpoch},
	} {
		t.Run(fmt.Sprintf("epoch %d version %d", c.marker, c.version), func(t *testing.T) {
			w, p := onePartition(t)
			g, _ := p.Verify(5, 5, 0)
			other, _ := p.Verify(6, 5, 0)
			if _, err := w.mark(p, 5, c.marker, 1, batch.Abort, c.version); err != nil {
				t.Fatal(err)
			}
			refusedWith(t, "admission", p.admit(5, 5, g), c.want)
			_, err := w.send(p, g, 12, w.inTxn(5, 5, 0))
			refusedWith(t, "append", err, c.want)
			_, err = w.send(p, other, 12, w.inTxn(6, 5, 0))
			refusedWith(t, "another producer", err, nil)
		})
	}
}

func TestGuardsEndWithTheRole(t *testing.T) {
	w, p := onePartition(t)
	g, _ := p.Verify(5, 0, 0)
	u := meta.UUID{0: 1, 15: 1}
	w.apply(meta.PutPartition(u, 0, led(1, alone, alone)))
	_, err := w.send(p, g, 12, w.inTxn(5, 0, 0))
	refusedWith(t, "guard of the epoch before", err, kerr.InvalidTxnState)
	g, _ = p.Verify(5, 0, 0)
	_, err = w.send(p, g, 12, w.inTxn(5, 0, 0))
	refusedWith(t, "guard of this epoch", err, nil)
}

// TestTheFirstBatchComesFirst: the question for a producer's first batch was refused and the one for its second is let
// through. Taken in, the second would make the first a batch out of order for ever.
func TestTheFirstBatchComesFirst(t *testing.T) {
	w, p := onePartition(t)
	g, _ := p.Verify(5, 0, 10)
	p.Verify(5, 0, 11)
	_, err := w.send(p, g, 11, w.inTxn(5, 0, 11))
	refusedWith(t, "version 1, overtaking", err, kerr.OutOfOrderSequenceNumber)
	_, err = w.send(p, g, 11, w.inTxn(5, 0, 10))
	refusedWith(t, "version 1, in order", err, nil)
	_, err = w.send(p, nil, 11, w.inTxn(5, 0, 11))
	refusedWith(t, "version 1, the next", err, nil)
	g, _ = p.Verify(6, 0, 1)
	_, err = w.send(p, g, 12, w.inTxn(6, 0, 1))
	refusedWith(t, "version 2, not from 0 on", err, kerr.OutOfOrderSequenceNumber)
	_, err = w.send(p, g, 12, w.inTxn(6, 0, 0))
	refusedWith(t, "version 2, from 0 on", err, nil)
}

func TestManyQuestionsDoNotVoidEachOther(t *testing.T) {
	w, p := onePartition(t)
	first, _ := p.Verify(0, 0, 0)
	for id := range int64(maxGuards - 1) {
		p.Verify(id+1, 0, 0)
	}
	_, err := w.send(p, first, 12, w.inTxn(0, 0, 0))
	refusedWith(t, "the oldest of as many as there may be", err, nil)
	for id := range int64(100) {
		p.Verify(id+2*maxGuards, 0, 0)
	}
	if n := len(p.app.guards); n != maxGuards {
		t.Errorf("%d guards, want %d", n, maxGuards)
	}
}

func TestMarkersAreJudgedByTheirVersion(t *testing.T) {
	w, p := onePartition(t)
	begin := func(epoch int16) {
		t.Helper()
		g, _ := p.Verify(5, epoch, 0)
		_, err := w.send(p, g, 12, w.inTxn(5, epoch, 0))
		refusedWith(t, "begin", err, nil)
	}
	mark := func(what string, epoch int16, coordinator int32, version int16, want *kerr.Error) {
		t.Helper()
		end := p.LogEnd()
		_, err := w.mark(p, 5, epoch, coordinator, batch.Commit, version)
		refusedWith(t, what, err, want)
		if grown := p.LogEnd() > end; grown != (want == nil) {
			t.Errorf("%s: written: %v", what, grown)
		}
	}
	mark("of a producer that is not known", 1, 4, 2, nil)
	begin(2)
	mark("version 2, the epoch that wrote", 2, 5, 2, kerr.InvalidProducerEpoch)
	mark("version 2, an earlier one", 1, 5, 2, kerr.InvalidProducerEpoch)
	mark("of an earlier coordinator", 3, 3, 2, kerr.TransactionCoordinatorFenced)
	mark("version 2", 3, 5, 2, nil)
	mark("version 2 once more", 3, 5, 2, nil) // the answer was lost (KAFKA-19999)
	mark("version 2 of before", 2, 5, 2, kerr.InvalidProducerEpoch)
	begin(3)
	mark("version 1, the epoch that wrote", 3, 5, 1, nil)
	mark("version 1, an earlier one", 2, 5, 1, kerr.InvalidProducerEpoch)
	g, _ := p.Verify(5, 2, 0)
	_, err := w.send(p, g, 12, w.inTxn(5, 2, 0))
	refusedWith(t, "a late batch", err, kerr.InvalidProducerEpoch)
}

// TestWhatReadersOfCommittedRecordsSee walks through two transactions that overlap, one of them aborted.
func TestWhatReadersOfCommittedRecordsSee(t *testing.T) {
	w, p := onePartition(t)
	expect := func(what string, at, lso, next int64, aborted string) {
		t.Helper()
		r, err := p.Read(ReadRequest{Offset: at, MaxBytes: 1 << 20, AtLeastOne: true, Committed: true, Epoch: -1, LastEpoch: -1, Replica: Consumer})
		if err != nil {
			t.Fatal(err)
		}
		r.Slice.Release()
		got := ""
		for _, a := range r.Aborted {
			got += fmt.Sprintf("%d from %d to %d;", a.ProducerID, a.FirstOffset, a.LastOffset)
		}
		if r.LSO != lso || r.LSO > r.HW || got != aborted || lso > at && r.Slice.Next != next {
			t.Errorf("%s: last stable %d, next %d, aborted %q; want %d, %d, %q", what, r.LSO, r.Slice.Next, got, lso, next, aborted)
		}
	}
	add := func(id int64, seq int32) {
		t.Helper()
		g, _ := p.Verify(id, 0, seq)
		a, err := w.send(p, g, 12, w.inTxn(id, 0, seq))
		if err == nil {
			err = w.await(p, AcksAll, a)
		}
		refusedWith(t, "add", err, nil)
	}
	mark := func(id int64, typ batch.ControlType) Appended {
		t.Helper()
		a, err := w.mark(p, id, 1, 1, typ, 2)
		refusedWith(t, "mark", err, nil)
		return a
	}
	w.produce(p, "plain") // 0
	add(1, 0)             // 1
	add(2, 0)             // 2
	add(1, 1)             // 3
	expect("two are open", 0, 1, 1, "")
	a := mark(1, batch.Abort) // 4
	if err := w.await(p, AcksAll, a); err != nil {
		t.Fatal(err)
	}
	// What is aborted past the last stable offset is none of this reader's business yet.
	expect("the first is aborted", 0, 2, 2, "1 from 1 to 4;")
	expect("behind its first record", 2, 2, 0, "")
	w.g.close()
	a = mark(2, batch.Commit) // 5
	expect("the second is committed, and not on the disk", 0, 2, 2, "1 from 1 to 4;")
	w.g.open()
	if err := w.await(p, AcksAll, a); err != nil {
		t.Fatal(err)
	}
	expect("both are over", 0, 6, 6, "1 from 1 to 4;")
	expect("in the middle of the aborted one", 3, 6, 6, "1 from 1 to 4;")
	expect("at its marker", 4, 6, 6, "1 from 1 to 4;")
	expect("behind it", 5, 6, 6, "")
	w.stop()
	w.start().run()
	p = w.get("t", 0)
	expect("after a restart", 0, 6, 6, "1 from 1 to 4;")
	if _, open := p.Verify(2, 0, 1); open {
		t.Error("a committed transaction is open after a restart")
	}
}
