package api

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/shard"
	"github.com/milena-mq/milena/internal/txn"
)

// verifyWait bounds the question to a transaction coordinator. Whoever asks holds back the later requests of its
// connection, which are of the same producer.
const verifyWait = 3 * time.Second

// inTransaction asks the coordinator of a transactional id whether partitions are in its transaction, and with add
// puts them into it (KIP-890): one code for each, in their order.
func (e *Env) inTransaction(ctx context.Context, id string, producer int64, epoch int16, parts []meta.TopicPartition, add bool) []int16 {
	ctx, cancel := context.WithTimeout(ctx, verifyWait)
	defer cancel()
	codes := make([]int16, len(parts))
	all := func(err *kerr.Error) []int16 {
		for i := range codes {
			codes[i] = err.Code
		}
		return codes
	}
	t := e.Image().Topic(shard.TxnsTopic)
	if e.Txns == nil || t == nil || len(t.Partitions) == 0 {
		return all(kerr.InvalidProducerIDMapping) // nobody ever began a transaction
	}
	leader := t.Partitions[shard.PartitionFor(id, int32(len(t.Partitions)))].Leader
	switch {
	case leader == e.NodeID:
		ev := txn.Add{TxnID: id, ProducerID: producer, Epoch: epoch, Partitions: parts, Verify: !add, V2: true}
		call := e.Txns.Submit(shard.TxnRequest{TxnID: id, Event: ev})
		select {
		case <-call.Ready():
		case <-ctx.Done():
			return all(kerr.CoordinatorNotAvailable)
		}
		r := call.Results()[0]
		if c, ok := r.Value.([]int16); ok && len(c) == len(parts) {
			return c
		}
		if err := asRefusal(r.Err); err != nil {
			return all(err)
		}
		return all(kerr.CoordinatorNotAvailable)
	case leader < 0 || e.Ask == nil:
		return all(kerr.CoordinatorNotAvailable)
	}
	resp, err := e.Ask(ctx, leader, verification(id, producer, epoch, parts, add))
	if err != nil {
		return all(kerr.CoordinatorNotAvailable)
	}
	return verified(resp, parts, all(kerr.CoordinatorNotAvailable))
}

// verification is the question as another broker is asked it.
func verification(id string, producer int64, epoch int16, parts []meta.TopicPartition, add bool) *kmsg.AddPartitionsToTxnRequest {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.Version = 5
	t := kmsg.NewAddPartitionsToTxnRequestTransaction()
	t.TransactionalID, t.ProducerID, t.ProducerEpoch, t.VerifyOnly = id, producer, epoch, !add
	for i, p := range parts {
		if i == 0 || parts[i-1].Topic != p.Topic {
			x := kmsg.NewAddPartitionsToTxnRequestTransactionTopic()
			x.Topic = p.Topic
			t.Topics = append(t.Topics, x)
		}
		x := &t.Topics[len(t.Topics)-1]
		x.Partitions = append(x.Partitions, p.Partition)
	}
	req.Transactions = append(req.Transactions, t)
	return req
}

// verified reads the answer into codes, which hold what is said of a partition that it does not name.
func verified(r kmsg.Response, parts []meta.TopicPartition, codes []int16) []int16 {
	resp, ok := r.(*kmsg.AddPartitionsToTxnResponse)
	if !ok || len(resp.Transactions) != 1 {
		return codes
	}
	by := map[meta.TopicPartition]int16{}
	for _, t := range resp.Transactions[0].Topics {
		for _, p := range t.Partitions {
			by[meta.TopicPartition{Topic: t.Topic, Partition: p.Partition}] = p.ErrorCode
		}
	}
	for i, p := range parts {
		if code, ok := by[p]; ok {
			codes[i] = code
		}
	}
	return codes
}

// verify asks for the partitions of a transactional Produce whose transaction is not open there yet, all in one
// question; guards holds what Append wants to see, by item, and refused the codes of those it must not append.
func (w *produceWork) verify() (guards map[produceKey]*partition.Guard, refused map[produceKey]int16) {
	if w.req.TransactionID == nil || *w.req.TransactionID == "" {
		return nil, nil
	}
	byID := w.req.Version >= 13
	var keys []produceKey
	var parts []meta.TopicPartition
	producer, epoch := int64(-1), int16(-1)
	for i := range w.req.Topics {
		t := &w.req.Topics[i]
		mt := w.c.topicOf(t.Topic, t.TopicID, byID)
		if mt == nil {
			continue
		}
		for j := range t.Partitions {
			b := batch.Batch(t.Partitions[j].Records)
			if len(b) < batch.HeaderSize || !b.IsTransactional() || b.ProducerID() < 0 {
				continue
			}
			p, err := w.c.hosted(mt, t.Partitions[j].Partition)
			if err != nil {
				continue // Append says so
			}
			if producer >= 0 && (b.ProducerID() != producer || b.ProducerEpoch() != epoch) {
				continue // no client mixes; without a guard the batch is refused
			}
			producer, epoch = b.ProducerID(), b.ProducerEpoch()
			g, open := p.Verify(producer, epoch, b.BaseSequence())
			if open {
				continue
			}
			if guards == nil {
				guards, refused = map[produceKey]*partition.Guard{}, map[produceKey]int16{}
			}
			k := produceKey{i, j}
			guards[k] = g
			keys = append(keys, k)
			parts = append(parts, p.TopicPartition())
		}
	}
	if len(parts) == 0 {
		return nil, nil
	}
	codes := w.c.inTransaction(w.c.Conn.Context(), *w.req.TransactionID, producer, epoch, parts, w.req.Version >= 12)
	for i, k := range keys {
		if codes[i] != 0 {
			refused[k] = produceRefusal(codes[i], w.req.Version)
			delete(guards, k)
		}
	}
	return guards, refused
}

// produceKey is one partition of a request: the index of its topic and its index there.
type produceKey struct{ topic, partition int }

// produceRefusal is a coordinator's code as a producer understands it.
func produceRefusal(code, version int16) int16 {
	switch code {
	case kerr.OperationNotAttempted.Code, kerr.UnknownTopicOrPartition.Code: // the coordinator has not heard of a topic yet
		return kerr.NotEnoughReplicas.Code
	case kerr.ConcurrentTransactions.Code, kerr.CoordinatorLoadInProgress.Code, kerr.CoordinatorNotAvailable.Code, kerr.NotCoordinator.Code, kerr.RequestTimedOut.Code:
		// Every client sends the batch again after this code, and asks for no metadata.
		return kerr.NotEnoughReplicas.Code
	case kerr.ProducerFenced.Code:
		return kerr.InvalidProducerEpoch.Code
	case kerr.TransactionAbortable.Code:
		if version < 11 {
			return kerr.InvalidTxnState.Code
		}
	}
	return code
}
