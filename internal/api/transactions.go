package api

import (
	"regexp"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/shard"
	"github.com/milena-mq/milena/internal/txn"
)

// toTxn hands one event to the coordinator of a transactional id and answers when its answer is committed.
func (c *Call) toTxn(id string, ev txn.Event, answer func(value any, err *kerr.Error) kmsg.Response) server.Reply {
	if c.Txns == nil {
		return c.ready(answer(nil, kerr.CoordinatorNotAvailable))
	}
	call := c.Txns.Submit(shard.TxnRequest{TxnID: id, Event: ev})
	return c.later(call.Ready(), func() kmsg.Response {
		r := call.Results()[0]
		err := asRefusal(r.Err)
		if err == nil && r.Value == nil {
			err = kerr.UnknownServerError
		}
		return answer(r.Value, err)
	})
}

// fencedBefore gives clients of old versions the code they know for a fenced producer (KIP-588).
func fencedBefore(code int16, version, since int16) int16 {
	if code == kerr.ProducerFenced.Code && version < since {
		return kerr.InvalidProducerEpoch.Code
	}
	return code
}

// initTransactional is InitProducerId with a transactional id: the coordinator fences whoever had it before.
func (c *Call) initTransactional(req *kmsg.InitProducerIDRequest, resp *kmsg.InitProducerIDResponse) server.Reply {
	serve := func() server.Reply {
		return c.toTxn(*req.TransactionalID, txn.Init{Request: req, FreshID: -1}, func(v any, err *kerr.Error) kmsg.Response {
			if r, ok := v.(*kmsg.InitProducerIDResponse); ok {
				resp = r
			} else {
				resp.ErrorCode = codeOr(err)
			}
			resp.ErrorCode = c.failed(fencedBefore(resp.ErrorCode, req.Version, 4))
			return resp
		})
	}
	// The machine takes ids that are at hand, and nothing else.
	if wait := c.ProducerIDs.fetch(c.Conn); wait != nil {
		return c.asideAfter(wait, serve)
	}
	return serve()
}

// AddPartitionsToTxn (key 24), versions 0-5. Up to 3 a producer adds partitions to its own transaction; from 4 on the
// leaders of partitions add or verify them for producers (KIP-890).
//
//	v2  PRODUCER_FENCED (KIP-588)   v4  several transactions, verify only (KIP-890)   v5  TRANSACTION_ABORTABLE
func serveAddPartitionsToTxn(c *Call) server.Reply {
	req := c.Request.(*kmsg.AddPartitionsToTxnRequest)
	if req.Version >= 4 {
		return c.addForLeaders(req)
	}
	resp := kmsg.NewPtrAddPartitionsToTxnResponse()
	var parts []meta.TopicPartition
	unknown := map[meta.TopicPartition]bool{}
	for i := range req.Topics {
		t := &req.Topics[i]
		rt := kmsg.NewAddPartitionsToTxnResponseTopic()
		rt.Topic = t.Topic
		for _, n := range t.Partitions {
			tp := meta.TopicPartition{Topic: t.Topic, Partition: n}
			parts = append(parts, tp)
			if !c.knows(t.Topic, n) {
				unknown[tp] = true
			}
			rp := kmsg.NewAddPartitionsToTxnResponseTopicPartition()
			rp.Partition = n
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	fill := func(code func(i int, tp meta.TopicPartition) int16) kmsg.Response {
		k := 0
		for i := range resp.Topics {
			for j := range resp.Topics[i].Partitions {
				resp.Topics[i].Partitions[j].ErrorCode = c.failed(fencedBefore(code(k, parts[k]), req.Version, 2))
				k++
			}
		}
		return resp
	}
	if len(unknown) > 0 {
		return c.ready(fill(func(_ int, tp meta.TopicPartition) int16 {
			if unknown[tp] {
				return kerr.UnknownTopicOrPartition.Code
			}
			return kerr.OperationNotAttempted.Code
		}))
	}
	ev := txn.Add{TxnID: req.TransactionalID, ProducerID: req.ProducerID, Epoch: req.ProducerEpoch, Partitions: parts}
	return c.toTxn(req.TransactionalID, ev, func(v any, err *kerr.Error) kmsg.Response {
		codes, ok := v.([]int16)
		return fill(func(i int, _ meta.TopicPartition) int16 {
			if !ok || i >= len(codes) {
				return codeOr(err)
			}
			return codes[i]
		})
	})
}

// addForLeaders is AddPartitionsToTxn of a broker for the producers whose batches it holds.
func (c *Call) addForLeaders(req *kmsg.AddPartitionsToTxnRequest) server.Reply {
	resp := kmsg.NewPtrAddPartitionsToTxnResponse()
	if c.Txns == nil {
		resp.ErrorCode = c.failed(kerr.CoordinatorNotAvailable.Code)
		return c.ready(resp)
	}
	asks := make([]shard.TxnRequest, 0, len(req.Transactions))
	missing := make([]bool, len(req.Transactions))
	for i := range req.Transactions {
		t := &req.Transactions[i]
		// Only what this broker's image knows may join: a partition that it does not know when the transaction ends
		// counts as deleted, and gets no marker.
		if missing[i] = !c.knowsAll(t.Topics); missing[i] {
			continue
		}
		ev := txn.Add{TxnID: t.TransactionalID, ProducerID: t.ProducerID, Epoch: t.ProducerEpoch, Verify: t.VerifyOnly, V2: true}
		for j := range t.Topics {
			for _, n := range t.Topics[j].Partitions {
				ev.Partitions = append(ev.Partitions, meta.TopicPartition{Topic: t.Topics[j].Topic, Partition: n})
			}
		}
		asks = append(asks, shard.TxnRequest{TxnID: t.TransactionalID, Event: ev})
	}
	call := c.Txns.Submit(asks...)
	return c.later(call.Ready(), func() kmsg.Response {
		results := call.Results()
		for i := range req.Transactions {
			t := &req.Transactions[i]
			r := shard.Result{Err: kerr.OperationNotAttempted}
			if !missing[i] {
				r, results = results[0], results[1:]
			}
			codes, ok := r.Value.([]int16)
			out := kmsg.NewAddPartitionsToTxnResponseTransaction()
			out.TransactionalID = t.TransactionalID
			k := 0
			for j := range t.Topics {
				rt := kmsg.NewAddPartitionsToTxnResponseTransactionTopic()
				rt.Topic = t.Topics[j].Topic
				for _, n := range t.Topics[j].Partitions {
					rp := kmsg.NewAddPartitionsToTxnResponseTransactionTopicPartition()
					rp.Partition, rp.ErrorCode = n, codeOr(asRefusal(r.Err))
					if ok && k < len(codes) {
						rp.ErrorCode = codes[k]
					}
					if missing[i] && !c.knows(rt.Topic, n) {
						rp.ErrorCode = kerr.UnknownTopicOrPartition.Code
					}
					if rp.ErrorCode == kerr.TransactionAbortable.Code && req.Version < 5 {
						rp.ErrorCode = kerr.InvalidTxnState.Code
					}
					c.failed(rp.ErrorCode)
					k++
					rt.Partitions = append(rt.Partitions, rp)
				}
				out.Topics = append(out.Topics, rt)
			}
			resp.Transactions = append(resp.Transactions, out)
		}
		return resp
	})
}

// knows says that the image has a partition.
func (c *Call) knows(topic string, n int32) bool {
	t := c.Image.Topic(topic)
	return t != nil && n >= 0 && int(n) < len(t.Partitions)
}

func (c *Call) knowsAll(topics []kmsg.AddPartitionsToTxnRequestTransactionTopic) bool {
	for i := range topics {
		for _, n := range topics[i].Partitions {
			if !c.knows(topics[i].Topic, n) {
				return false
			}
		}
	}
	return true
}

// AddOffsetsToTxn (key 25), versions 0-4: the partition that keeps a group's offsets joins the transaction.
func serveAddOffsetsToTxn(c *Call) server.Reply {
	req := c.Request.(*kmsg.AddOffsetsToTxnRequest)
	resp := kmsg.NewPtrAddOffsetsToTxnResponse()
	tp, err := c.offsetsPartition(req.Group)
	if err != nil {
		resp.ErrorCode = c.failed(err.Code)
		return c.ready(resp)
	}
	ev := txn.Add{TxnID: req.TransactionalID, ProducerID: req.ProducerID, Epoch: req.ProducerEpoch, Partitions: []meta.TopicPartition{tp}}
	return c.toTxn(req.TransactionalID, ev, func(v any, err *kerr.Error) kmsg.Response {
		resp.ErrorCode = codeOr(err)
		if codes, ok := v.([]int16); ok && len(codes) == 1 {
			resp.ErrorCode = codes[0]
		}
		resp.ErrorCode = c.failed(fencedBefore(resp.ErrorCode, req.Version, 2))
		return resp
	})
}

// offsetsPartition is where a group's offsets are kept; the topic is made on first need.
func (c *Call) offsetsPartition(group string) (meta.TopicPartition, *kerr.Error) {
	im := c.Image
	if im.Topic(shard.GroupsTopic) == nil {
		im = c.createInternal(shard.GroupsTopic)
	}
	t := im.Topic(shard.GroupsTopic)
	if t == nil || len(t.Partitions) == 0 {
		return meta.TopicPartition{}, kerr.CoordinatorNotAvailable
	}
	return meta.TopicPartition{Topic: shard.GroupsTopic, Partition: shard.PartitionFor(group, int32(len(t.Partitions)))}, nil
}

// EndTxn (key 26), versions 0-5: commit or abort. It is answered when the decision is on every in-sync disk; the
// markers follow.
//
//	v2  PRODUCER_FENCED (KIP-588)   v4  TRANSACTION_ABORTABLE   v5  a new epoch with every end (KIP-890)
func serveEndTxn(c *Call) server.Reply {
	req := c.Request.(*kmsg.EndTxnRequest)
	if req.Version >= 5 {
		c.ProducerIDs.fetch(c.Conn) // not waited for: one end in thousands needs an id, and asks again without one
	}
	return c.toTxn(req.TransactionalID, txn.End{Request: req, FreshID: -1}, func(v any, err *kerr.Error) kmsg.Response {
		resp, ok := v.(*kmsg.EndTxnResponse)
		if !ok {
			resp = kmsg.NewPtrEndTxnResponse()
			resp.ProducerID, resp.ProducerEpoch, resp.ErrorCode = -1, -1, codeOr(err)
		}
		resp.ErrorCode = c.failed(fencedBefore(resp.ErrorCode, req.Version, 2))
		return resp
	})
}

// DescribeTransactions (key 65), version 0 (KIP-664).
func serveDescribeTransactions(c *Call) server.Reply {
	req := c.Request.(*kmsg.DescribeTransactionsRequest)
	resp := kmsg.NewPtrDescribeTransactionsResponse()
	none := func(i int, err *kerr.Error) {
		s := kmsg.NewDescribeTransactionsResponseTransactionState()
		s.TransactionalID, s.ErrorCode = req.TransactionalIDs[i], c.failed(codeOr(err))
		resp.TransactionStates = append(resp.TransactionStates, s)
	}
	if c.Txns == nil {
		for i := range req.TransactionalIDs {
			none(i, kerr.CoordinatorNotAvailable)
		}
		return c.ready(resp)
	}
	asks := make([]shard.TxnRequest, len(req.TransactionalIDs))
	for i, id := range req.TransactionalIDs {
		asks[i] = shard.TxnRequest{TxnID: id, Event: txn.Describe{TxnID: id}}
	}
	call := c.Txns.Submit(asks...)
	return c.later(call.Ready(), func() kmsg.Response {
		for i, r := range call.Results() {
			if s, ok := r.Value.(*kmsg.DescribeTransactionsResponseTransactionState); ok {
				c.failed(s.ErrorCode)
				resp.TransactionStates = append(resp.TransactionStates, *s)
			} else {
				none(i, asRefusal(r.Err))
			}
		}
		return resp
	})
}

// maxPattern bounds the regular expression of ListTransactions.
const maxPattern = 1000

// ListTransactions (key 66), versions 0-2: the transactional ids whose coordinator is here.
//
//	v1  by duration (KIP-994)   v2  by a pattern of the id (KIP-1152)
func serveListTransactions(c *Call) server.Reply {
	req := c.Request.(*kmsg.ListTransactionsRequest)
	resp := kmsg.NewPtrListTransactionsResponse()
	for _, s := range req.StateFilters {
		if !slices.Contains(txn.StateNames(), s) {
			resp.UnknownStateFilters = append(resp.UnknownStateFilters, s)
		}
	}
	if p := req.TransactionalIDPattern; req.Version >= 2 && p != nil {
		if _, err := regexp.Compile(*p); err != nil || len(*p) > maxPattern {
			resp.ErrorCode = c.failed(kerr.InvalidRegularExpression.Code)
			return c.ready(resp)
		}
	}
	if c.Txns == nil || len(req.StateFilters) > 0 && len(resp.UnknownStateFilters) == len(req.StateFilters) {
		return c.ready(resp)
	}
	call := c.Txns.List(txn.List{Request: req})
	return c.later(call.Ready(), func() kmsg.Response {
		for _, r := range call.Results() {
			if err := asRefusal(r.Err); err != nil && err != kerr.NotCoordinator {
				resp.ErrorCode, resp.TransactionStates = c.failed(err.Code), nil
				return resp
			}
			some, _ := r.Value.([]kmsg.ListTransactionsResponseTransactionState)
			resp.TransactionStates = append(resp.TransactionStates, some...)
		}
		return resp
	})
}
