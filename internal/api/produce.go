package api

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/server"
)

// Produce (key 0), versions 3-13; advertised from 0 because librdkafka stops compressing otherwise
// (KAFKA-18659), 0-2 are refused by the gate.
//
// Order of checks: kafka.md 3.2. Appends happen on the reader goroutine of the connection, in the order
// of arrival; the answer waits for the disk (acks=1) or the high watermark (acks=all) without holding
// a goroutine, so that the next request is appended while this one is being synced.
//
//	v3   record batches only
//	v5   log start offset (KIP-107)
//	v7   zstd (KIP-110)
//	v8   the records that were bad, and why (KIP-467)
//	v10  the new leader with NOT_LEADER_OR_FOLLOWER (KIP-951)
//	v11  TRANSACTION_ABORTABLE (KIP-890)
//	v12  the partition joins the producer's transaction by its first batch (KIP-890); before, the batch is
//	     refused where the producer has not added the partition
//	v13  topic ids (KIP-516)

// adminClient is the only client id that may write to internal topics (kafka.md 1.3).
const adminClient = "__admin_client"

// produceItem is one partition of a produce request.
type produceItem struct {
	topic     int
	partition int32
	code      int16
	slot      int32 // in the waiter, -1: nothing to wait for
	p         *partition.Partition
	a         partition.Appended
	bad       *batch.Invalid
}

// produceItemBytes is what one partition costs: the item, its place in the waiter and its part of the answer.
const produceItemBytes = 320

// produceWork is one Produce on its way: what was appended and what is still awaited.
type produceWork struct {
	c     *Call
	req   *kmsg.ProduceRequest
	items []produceItem
	w     *partition.Waiter
	hints leaderHints
}

func serveProduce(c *Call) server.Reply {
	req := c.Request.(*kmsg.ProduceRequest)
	n := 0
	for i := range req.Topics {
		n += len(req.Topics[i].Partitions)
	}
	if err := c.reserve(n, produceItemBytes); err != nil {
		return c.hangUp(err)
	}
	work := &produceWork{c: c, req: req, items: make([]produceItem, 0, n)}
	if req.Acks < partition.AcksAll || req.Acks > partition.AcksLeader {
		work.refuse(kerr.InvalidRequiredAcks.Code)
	} else {
		work.append()
	}
	if req.Acks == partition.AcksNone {
		return work.silent()
	}
	r := server.Reply{Encode: work.encode}
	if w := work.wait(); w != nil {
		r.Ready = w.Ready()
	}
	return c.custom(r)
}

// refuse answers every partition with one code.
func (w *produceWork) refuse(code int16) {
	for i := range w.req.Topics {
		for j := range w.req.Topics[i].Partitions {
			w.items = append(w.items, produceItem{topic: i, partition: w.req.Topics[i].Partitions[j].Partition, code: code, slot: -1})
		}
	}
}

// append writes every partition's batch.
func (w *produceWork) append() {
	byID := w.req.Version >= 13
	now := w.c.Now.UnixMilli()
	guards, refused := w.verify()
	for i := range w.req.Topics {
		t := &w.req.Topics[i]
		mt := w.c.topicOf(t.Topic, t.TopicID, byID)
		var code int16
		switch {
		case mt == nil:
			code = unknownTopic(byID)
		case mt.Internal && w.c.Header.ClientID != adminClient:
			code = kerr.InvalidTopicException.Code
		}
		for j := range t.Partitions {
			p := &t.Partitions[j]
			w.items = append(w.items, produceItem{topic: i, partition: p.Partition, code: code, slot: -1})
			it, k := &w.items[len(w.items)-1], produceKey{i, j}
			if code == 0 && refused != nil {
				it.code = w.c.failed(refused[k])
			}
			if it.code == 0 {
				w.appendOne(it, mt, p.Records, now, guards[k])
			}
		}
	}
}

func (w *produceWork) appendOne(it *produceItem, mt *meta.Topic, records []byte, now int64, guard *partition.Guard) {
	p, err := w.c.hosted(mt, it.partition)
	if err == nil {
		it.p = p
		it.a, err = p.Append(partition.AppendRequest{
			Records: records, Acks: w.req.Acks, LeaderEpoch: -1, Version: w.req.Version, NowMs: now, Guard: guard,
		})
	}
	if err != nil {
		it.code = w.c.errorCode(err)
		errors.As(err, &it.bad)
	}
}

// hosted finds the partition of a topic of the image on this broker. A partition that the image knows
// and another broker hosts is NOT_LEADER_OR_FOLLOWER, not an unknown one.
func (c *Call) hosted(mt *meta.Topic, n int32) (*partition.Partition, error) {
	if n < 0 || int(n) >= len(mt.Partitions) {
		return nil, kerr.UnknownTopicOrPartition
	}
	p, err := c.Partitions.GetByID(mt.ID, n)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return nil, kerr.NotLeaderForPartition
	}
	return p, err
}

// silent ends a request with acks=0: nothing is sent, and an error closes the connection, which is the
// only way to tell the client (kafka.md 1.3).
func (w *produceWork) silent() server.Reply {
	for i := range w.items {
		if it := &w.items[i]; it.code != 0 {
			return w.c.hangUp(fmt.Errorf("produce with acks=0 to %s-%d: %w", w.req.Topics[it.topic].Topic, it.partition, kerr.TypedErrorForCode(it.code)))
		}
	}
	return w.c.none()
}

// wait registers for what is not durable yet; nil when everything is.
func (w *produceWork) wait() *partition.Waiter {
	open := int32(0)
	for i := range w.items {
		if it := &w.items[i]; it.code == 0 && !it.p.Reached(w.req.Acks, it.a) {
			it.slot = open
			open++
		}
	}
	if open == 0 {
		return nil
	}
	w.w = partition.NewWaiter(int(open))
	for i := range w.items {
		if it := &w.items[i]; it.slot >= 0 {
			it.p.Wait(w.w, int(it.slot), w.req.Acks, it.a)
		}
	}
	w.w.Arm(time.Duration(w.req.TimeoutMillis) * time.Millisecond)
	return w.w
}

// encode writes the answer, once everything awaited is over.
func (w *produceWork) encode(o *server.Out) error {
	for i := range w.items {
		if it := &w.items[i]; it.slot >= 0 {
			if err := w.w.Err(int(it.slot)); err != nil {
				it.code = w.c.errorCode(err)
			}
		}
	}
	o.Append(w.appendTo)
	return nil
}
