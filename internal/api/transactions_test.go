package api

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/shard"
	"github.com/milena-mq/milena/internal/txn"
)

// txnRig is a broker with the topics t, __consumer_offsets and __transaction_state on real partitions, and their
// coordinators. Markers wait until the test writes them.
type txnRig struct {
	*dataBroker
	c     *client
	marks chan txn.Marker
}

func startTxns(t *testing.T) *txnRig {
	r := &txnRig{dataBroker: newDataBroker(t), marks: make(chan txn.Marker, 100)}
	log := slog.New(slog.DiscardHandler)
	r.env.Groups = shard.NewGroups(shard.Options{Config: group.DefaultConfig(), Log: log})
	r.env.Txns = shard.NewTxns(shard.TxnOptions{Config: txn.DefaultConfig(), Log: log,
		FreshID: r.env.ProducerIDs.Take,
		Markers: func(_ int32, _ uint64, ms []txn.Marker) {
			for _, m := range ms {
				r.marks <- m
			}
		}})
	r.topic("t", 1, 2)
	r.topic(shard.GroupsTopic, 2, 1)
	r.topic(shard.TxnsTopic, 3, 1)
	r.apply(meta.PutCluster(meta.ClusterRecord{ID: "transactions", Format: 1, Features: map[string]int16{control.FeatureTransactions: 2}}))
	r.env.Groups.Apply(r.im.Load(), nil)
	r.env.Txns.Apply(r.im.Load())
	for _, topic := range []string{shard.GroupsTopic, shard.TxnsTopic} {
		p, err := r.set.Get(topic, 0)
		if err != nil {
			t.Fatal(err)
		}
		l, err := p.Coordinator()
		if err != nil {
			t.Fatal(err)
		}
		if topic == shard.GroupsTopic {
			r.env.Groups.Lead(0, l)
		} else {
			r.env.Txns.Lead(0, l)
		}
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = r.env.Groups.Close(ctx)
		_ = r.env.Txns.Close(ctx)
	})
	r.c = r.dial()
	for r.init(5, "warm", -1, -1).ErrorCode != 0 { // until it is loaded
		continue
	}
	return r
}

// mark writes the markers that wait, as the one for transactions would, and returns when the coordinator has heard.
func (r *txnRig) mark() {
	r.t.Helper()
	m := <-r.marks
	req := kmsg.NewPtrWriteTxnMarkersRequest()
	req.Version = 2
	w := kmsg.NewWriteTxnMarkersRequestMarker()
	w.ProducerID, w.ProducerEpoch, w.Committed, w.CoordinatorEpoch, w.TransactionVersion = m.ProducerID, m.Epoch, m.Commit, m.CoordinatorEpoch, int8(m.Version)
	for _, p := range m.Partitions {
		w.Topics = append(w.Topics, kmsg.WriteTxnMarkersRequestMarkerTopic{Topic: p.Topic, Partitions: []int32{p.Partition}})
	}
	req.Markers = append(req.Markers, w)
	for _, wm := range r.c.do(req).(*kmsg.WriteTxnMarkersResponse).Markers {
		for _, wt := range wm.Topics {
			for _, p := range wt.Partitions {
				if p.ErrorCode != 0 {
					r.t.Errorf("marker for %s-%d: %v", wt.Topic, p.Partition, kerr.ErrorForCode(p.ErrorCode))
				}
			}
		}
	}
	r.env.Txns.Tell(0, txn.Written{TxnID: m.TxnID, ProducerID: m.ProducerID, Epoch: m.Epoch, Partitions: m.Partitions})
}

func (r *txnRig) init(v int16, id string, producer int64, epoch int16) *kmsg.InitProducerIDResponse {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.Version, req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = v, &id, 60_000, producer, epoch
	return r.c.do(req).(*kmsg.InitProducerIDResponse)
}

func (r *txnRig) produce(v int16, id string, producer int64, epoch int16, seq, part int32, value string) int16 {
	b := testBatch(r.t, batch.Spec{Transactional: true, Producer: &batch.ProducerInfo{ID: producer, Epoch: epoch, Sequence: seq}}, value)
	req := newProduce(v, -1, "t", meta.UUID{0: 1, 15: 1}, map[int32][]byte{part: b})
	req.TransactionID = &id
	return r.c.do(req).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
}

func (r *txnRig) add(v int16, id string, producer int64, epoch int16, parts ...int32) []int16 {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch = v, id, producer, epoch
	req.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: "t", Partitions: parts}}
	var out []int16
	for _, p := range r.c.do(req).(*kmsg.AddPartitionsToTxnResponse).Topics[0].Partitions {
		out = append(out, p.ErrorCode)
	}
	return out
}

// ask is the question of another broker; verify only looks.
func (r *txnRig) ask(v int16, id string, producer int64, epoch int16, verify bool, parts ...int32) []int16 {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.Version = v
	x := kmsg.NewAddPartitionsToTxnRequestTransaction()
	x.TransactionalID, x.ProducerID, x.ProducerEpoch, x.VerifyOnly = id, producer, epoch, verify
	x.Topics = []kmsg.AddPartitionsToTxnRequestTransactionTopic{{Topic: "t", Partitions: parts}}
	req.Transactions = []kmsg.AddPartitionsToTxnRequestTransaction{x}
	var out []int16
	for _, p := range r.c.do(req).(*kmsg.AddPartitionsToTxnResponse).Transactions[0].Topics[0].Partitions {
		out = append(out, p.ErrorCode)
	}
	return out
}

func (r *txnRig) addOffsets(v int16, id string, producer int64, epoch int16) int16 {
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = v, id, producer, epoch, "g"
	return r.c.do(req).(*kmsg.AddOffsetsToTxnResponse).ErrorCode
}

func (r *txnRig) end(v int16, id string, producer int64, epoch int16, commit bool) *kmsg.EndTxnResponse {
	req := kmsg.NewPtrEndTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = v, id, producer, epoch, commit
	return r.c.do(req).(*kmsg.EndTxnResponse)
}

func (r *txnRig) commitOffset(v int16, id string, producer int64, epoch int16, part int32, offset int64) int16 {
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.Version, req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch, req.Generation = v, id, "g", producer, epoch, -1
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset = part, offset
	req.Topics = []kmsg.TxnOffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{p}}}
	return r.c.do(req).(*kmsg.TxnOffsetCommitResponse).Topics[0].Partitions[0].ErrorCode
}

// committed is the group's stable offset of t-0.
func (r *txnRig) committed() (int64, int16) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Version, req.Group, req.RequireStable = 7, "g", true
	req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "t", Partitions: []int32{0}}}
	p := r.c.do(req).(*kmsg.OffsetFetchResponse).Topics[0].Partitions[0]
	return p.Offset, p.ErrorCode
}

// read is what a consumer of committed records is given of t-0.
func (r *txnRig) read() (n int, lso int64, aborted int) {
	req := newFetch(12, "t", meta.UUID{}, map[int32]int64{0: 0})
	req.IsolationLevel = 1
	p := r.c.do(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]
	return len(values(r.t, p.RecordBatches)), p.LastStableOffset, len(p.AbortedTransactions)
}

func (r *txnRig) describe(id string) kmsg.DescribeTransactionsResponseTransactionState {
	req := kmsg.NewPtrDescribeTransactionsRequest()
	req.TransactionalIDs = []string{id}
	return r.c.do(req).(*kmsg.DescribeTransactionsResponse).TransactionStates[0]
}

func TestATransactionOfVersion2(t *testing.T) {
	r := startTxns(t)
	p := r.init(5, "x", -1, -1)
	code(t, "init", p.ErrorCode, nil)
	id := p.ProducerID
	code(t, "produce", r.produce(12, "x", id, 0, 0, 0, "a"), nil)
	code(t, "produce to another partition", r.produce(13, "x", id, 0, 0, 1, "b"), nil)
	code(t, "offsets", r.commitOffset(5, "x", id, 0, 0, 77), nil)
	if _, e := r.committed(); e != kerr.UnstableOffsetCommit.Code {
		t.Errorf("offset of an open transaction: code %d", e)
	}
	if n, lso, _ := r.read(); n != 0 || lso != 0 {
		t.Errorf("open transaction: %d records, last stable offset %d", n, lso)
	}
	if d := r.describe("x"); d.State != "Ongoing" || len(d.Topics) != 2 || d.ProducerID != id {
		t.Errorf("described as %+v", d)
	}
	e := r.end(5, "x", id, 0, true)
	code(t, "commit", e.ErrorCode, nil)
	if e.ProducerID != id || e.ProducerEpoch != 1 {
		t.Errorf("after the commit %d/%d", e.ProducerID, e.ProducerEpoch)
	}
	code(t, "a late batch", r.produce(12, "x", id, 0, 1, 0, "late"), nil) // it is open there as long as the marker is missing
	if n, lso, _ := r.read(); n != 0 || lso != 0 {
		t.Errorf("without the marker: %d records, last stable offset %d", n, lso)
	}
	code(t, "the next one before the markers", r.produce(12, "x", id, 1, 0, 0, "c"), kerr.NotEnoughReplicas)
	r.mark()
	if n, lso, aborted := r.read(); n == 0 || lso != 3 || aborted != 0 {
		t.Errorf("with the marker: %d records, last stable offset %d, %d aborted", n, lso, aborted)
	}
	if o, c := r.committed(); o != 77 || c != 0 {
		t.Errorf("offset %d, code %d", o, c)
	}
	code(t, "a late batch behind the marker", r.produce(12, "x", id, 0, 2, 0, "late"), kerr.InvalidProducerEpoch)
	code(t, "late offsets", r.commitOffset(5, "x", id, 0, 0, 66), kerr.InvalidProducerEpoch)
	code(t, "the next one", r.produce(12, "x", id, 1, 0, 0, "c"), nil)
	code(t, "abort", r.end(5, "x", id, 1, false).ErrorCode, nil)
	r.mark()
	if _, lso, aborted := r.read(); lso != 5 || aborted != 1 {
		t.Errorf("after the abort: last stable offset %d, %d aborted", lso, aborted)
	}
}

func TestProducersOfVersion1(t *testing.T) {
	r := startTxns(t)
	id := r.init(4, "x", -1, -1).ProducerID
	code(t, "a batch of no transaction", r.produce(11, "x", id, 0, 0, 0, "a"), kerr.TransactionAbortable)
	code(t, "the same, of older clients", r.produce(10, "x", id, 0, 0, 0, "a"), kerr.InvalidTxnState)
	code(t, "offsets of no transaction", r.commitOffset(4, "x", id, 0, 0, 1), kerr.TransactionAbortable)
	code(t, "offsets of no transaction, older", r.commitOffset(3, "x", id, 0, 0, 1), kerr.InvalidTxnState)
	got := r.add(3, "x", id, 0, 0, 9)
	code(t, "beside an unknown one", got[0], kerr.OperationNotAttempted)
	code(t, "unknown", got[1], kerr.UnknownTopicOrPartition)
	code(t, "add", r.add(3, "x", id, 0, 0)[0], nil)
	code(t, "produce", r.produce(11, "x", id, 0, 0, 0, "a"), nil)
	code(t, "to a partition that was not added", r.produce(11, "x", id, 0, 0, 1, "a"), kerr.TransactionAbortable)
	code(t, "offsets before AddOffsetsToTxn", r.commitOffset(3, "x", id, 0, 0, 5), kerr.InvalidTxnState)
	code(t, "AddOffsetsToTxn", r.addOffsets(3, "x", id, 0), nil)
	code(t, "offsets", r.commitOffset(3, "x", id, 0, 0, 5), nil)
	code(t, "offsets of an unknown partition", r.commitOffset(3, "x", id, 0, 9, 5), kerr.UnknownTopicOrPartition)
	code(t, "commit", r.end(4, "x", id, 0, true).ErrorCode, nil)
	r.mark()
	if n, lso, _ := r.read(); n != 2 || lso != 2 { // the record and the marker
		t.Errorf("%d records, last stable offset %d", n, lso)
	}
	code(t, "a late batch", r.produce(11, "x", id, 0, 1, 0, "late"), kerr.TransactionAbortable)
	code(t, "commit again", r.end(4, "x", id, 0, true).ErrorCode, nil)
	code(t, "the other outcome", r.end(4, "x", id, 0, false).ErrorCode, kerr.InvalidTxnState)
}

// TestCodesOfOldVersions: who was fenced hears it in the words of its time (KIP-588).
func TestCodesOfOldVersions(t *testing.T) {
	r := startTxns(t)
	id := r.init(5, "x", -1, -1).ProducerID
	if again := r.init(5, "x", -1, -1); again.ProducerID != id || again.ProducerEpoch != 1 {
		t.Fatalf("taken over as %d/%d", again.ProducerID, again.ProducerEpoch)
	}
	for _, c := range []struct {
		what string
		got  int16
		want *kerr.Error
	}{
		{"InitProducerId 3", r.init(3, "x", id, 7).ErrorCode, kerr.InvalidProducerEpoch},
		{"InitProducerId 4", r.init(4, "x", id, 7).ErrorCode, kerr.ProducerFenced},
		{"InitProducerId 4 of another id", r.init(4, "x", id+1, 0).ErrorCode, kerr.ProducerFenced},
		{"AddPartitionsToTxn 1", r.add(1, "x", id, 0, 0)[0], kerr.InvalidProducerEpoch},
		{"AddPartitionsToTxn 2", r.add(2, "x", id, 0, 0)[0], kerr.ProducerFenced},
		{"AddPartitionsToTxn 3 of another id", r.add(3, "x", id+1, 0, 0)[0], kerr.InvalidProducerIDMapping},
		{"AddPartitionsToTxn 3 of nobody", r.add(3, "nobody", id, 0, 0)[0], kerr.InvalidProducerIDMapping},
		{"AddOffsetsToTxn 1", r.addOffsets(1, "x", id, 0), kerr.InvalidProducerEpoch},
		{"AddOffsetsToTxn 2", r.addOffsets(2, "x", id, 0), kerr.ProducerFenced},
		{"EndTxn 1", r.end(1, "x", id, 0, true).ErrorCode, kerr.InvalidProducerEpoch},
		{"EndTxn 2", r.end(2, "x", id, 0, true).ErrorCode, kerr.ProducerFenced},
		{"EndTxn 5 of nothing", r.end(5, "x", id, 1, true).ErrorCode, kerr.InvalidTxnState},
		{"Produce 11", r.produce(11, "x", id, 0, 0, 0, "a"), kerr.InvalidProducerEpoch},
		{"Produce 12", r.produce(12, "x", id, 0, 0, 0, "a"), kerr.InvalidProducerEpoch},
		{"Produce 12 of another id", r.produce(12, "x", id+1, 0, 0, 0, "a"), kerr.InvalidProducerIDMapping},
		{"TxnOffsetCommit 2", r.commitOffset(2, "x", id, 0, 0, 1), kerr.InvalidProducerEpoch},
		{"TxnOffsetCommit 5", r.commitOffset(5, "x", id, 0, 0, 1), kerr.InvalidProducerEpoch},
		{"TxnOffsetCommit 5 of nobody", r.commitOffset(5, "x", -1, -1, 0, 1), kerr.InvalidProducerIDMapping},
	} {
		code(t, c.what, c.got, c.want)
	}
}

func TestQuestionsOfPartitionLeaders(t *testing.T) {
	r := startTxns(t)
	id := r.init(5, "x", -1, -1).ProducerID
	code(t, "add", r.ask(5, "x", id, 0, false, 0)[0], nil)
	got := r.ask(4, "x", id, 0, true, 0, 1)
	code(t, "verify", got[0], nil)
	code(t, "verify, not in it", got[1], kerr.InvalidTxnState)
	code(t, "verify, not in it, 5", r.ask(5, "x", id, 0, true, 1)[0], kerr.TransactionAbortable)
	got = r.ask(5, "x", id, 0, false, 1, 9, -1)
	code(t, "beside unknown ones", got[0], kerr.OperationNotAttempted)
	code(t, "unknown", got[1], kerr.UnknownTopicOrPartition)
	code(t, "negative", got[2], kerr.UnknownTopicOrPartition)
	if d := r.describe("x"); len(d.Topics) != 1 || len(d.Topics[0].Partitions) != 1 {
		t.Errorf("in the transaction: %+v", d.Topics)
	}
}

func TestMarkersFromOutside(t *testing.T) {
	r := startTxns(t)
	id := r.init(5, "x", -1, -1).ProducerID
	code(t, "produce", r.produce(12, "x", id, 0, 0, 0, "a"), nil)
	for _, c := range []struct {
		what     string
		producer int64
		epoch    int16
		topic    string
		part     int32
		want     *kerr.Error
	}{
		{"no producer", -1, 0, "t", 0, kerr.InvalidProducerEpoch},
		{"no producer, for a coordinator", -1, 0, shard.GroupsTopic, 0, kerr.InvalidProducerEpoch},
		{"no epoch", id, -1, "t", 0, kerr.InvalidProducerEpoch},
		{"unknown topic", id, 0, "u", 0, kerr.UnknownTopicOrPartition},
		{"unknown partition", id, 0, "t", 2, kerr.UnknownTopicOrPartition},
		{"negative partition", id, 0, shard.GroupsTopic, -1, kerr.UnknownTopicOrPartition},
		{"a transaction that hangs (KIP-664)", id, 0, "t", 0, nil},
	} {
		req := kmsg.NewPtrWriteTxnMarkersRequest()
		req.Version = 1
		m := kmsg.NewWriteTxnMarkersRequestMarker()
		m.ProducerID, m.ProducerEpoch, m.Topics = c.producer, c.epoch, []kmsg.WriteTxnMarkersRequestMarkerTopic{{Topic: c.topic, Partitions: []int32{c.part}}}
		req.Markers = append(req.Markers, m)
		code(t, c.what, r.c.do(req).(*kmsg.WriteTxnMarkersResponse).Markers[0].Topics[0].Partitions[0].ErrorCode, c.want)
	}
	if _, lso, aborted := r.read(); lso != 2 || aborted != 1 {
		t.Errorf("last stable offset %d, %d aborted", lso, aborted)
	}
}

func TestListedTransactions(t *testing.T) {
	r := startTxns(t)
	a, b := r.init(5, "orders-a", -1, -1).ProducerID, r.init(5, "orders-b", -1, -1).ProducerID
	code(t, "add", r.ask(5, "orders-b", b, 0, false, 0)[0], nil)
	list := func(v int16, change func(*kmsg.ListTransactionsRequest)) *kmsg.ListTransactionsResponse {
		req := kmsg.NewPtrListTransactionsRequest()
		req.Version, req.DurationFilterMillis = v, -1
		change(req)
		return r.c.do(req).(*kmsg.ListTransactionsResponse)
	}
	pattern := func(s string) func(*kmsg.ListTransactionsRequest) {
		return func(q *kmsg.ListTransactionsRequest) { q.TransactionalIDPattern = &s }
	}
	for what, c := range map[string]struct {
		got  *kmsg.ListTransactionsResponse
		want int
	}{
		"all":      {list(0, func(*kmsg.ListTransactionsRequest) {}), 3},
		"state":    {list(2, func(q *kmsg.ListTransactionsRequest) { q.StateFilters = []string{"Ongoing", "Sleeping"} }), 1},
		"producer": {list(2, func(q *kmsg.ListTransactionsRequest) { q.ProducerIDFilters = []int64{a} }), 1},
		"duration": {list(1, func(q *kmsg.ListTransactionsRequest) { q.DurationFilterMillis = 3_600_000 }), 0},
		"pattern":  {list(2, pattern("orders-.")), 2},
		"a part":   {list(2, pattern("orders")), 0},
		"no state": {list(0, func(q *kmsg.ListTransactionsRequest) { q.StateFilters = []string{"Sleeping"} }), 0},
	} {
		if len(c.got.TransactionStates) != c.want || c.got.ErrorCode != 0 {
			t.Errorf("%s: %d, code %d, want %d", what, len(c.got.TransactionStates), c.got.ErrorCode, c.want)
		}
	}
	if got := list(0, func(q *kmsg.ListTransactionsRequest) { q.StateFilters = []string{"Sleeping"} }); len(got.UnknownStateFilters) != 1 {
		t.Errorf("unknown states %v", got.UnknownStateFilters)
	}
	code(t, "bad pattern", list(2, pattern("(")).ErrorCode, kerr.InvalidRegularExpression)
	code(t, "unknown id", r.describe("nobody").ErrorCode, kerr.TransactionalIDNotFound)
}

func TestNobodyEverBeganATransaction(t *testing.T) {
	b := newDataBroker(t)
	b.topic("t", 1, 1)
	r := &txnRig{dataBroker: b, c: b.dial()}
	code(t, "produce", r.produce(12, "x", 5, 0, 0, 0, "a"), kerr.InvalidProducerIDMapping)
}
