package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Transaction is a transactional id as its coordinator sees it. Times are ms since 1970, -1 for none.
type Transaction struct {
	ID          string         `json:"id"`
	Coordinator int32          `json:"coordinator"`
	ProducerID  int64          `json:"producer_id"`
	Epoch       int16          `json:"epoch"`
	State       string         `json:"state"`
	TimeoutMs   int32          `json:"timeout_ms"`
	StartMs     int64          `json:"start_ms"`
	Partitions  []TxnPartition `json:"partitions"` // in the open transaction
}

// TxnPartition is one partition in a transaction.
type TxnPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
}

// Transactions lists transactional ids, with how they stand; states nil: all.
func (c *Client) Transactions(ctx context.Context, states []string) (out []Transaction, err error) {
	err = c.with(ctx, "list transactions", func(ctx context.Context, adm *kadm.Client) error {
		list, err := adm.ListTransactions(ctx, nil, states)
		if err != nil {
			return err
		}
		ids := list.TransactionalIDs()
		if len(ids) == 0 {
			return nil
		}
		all, err := adm.DescribeTransactions(ctx, ids...)
		if err != nil {
			return err
		}
		for _, d := range all.Sorted() {
			if d.Err == nil { // one that expired in between is none
				out = append(out, described(d))
			}
		}
		return nil
	})
	return out, err
}

// Transaction shows one transactional id.
func (c *Client) Transaction(ctx context.Context, id string) (out Transaction, err error) {
	what := fmt.Sprintf("describe transaction %q", id)
	err = c.with(ctx, what, func(ctx context.Context, adm *kadm.Client) error {
		all, err := adm.DescribeTransactions(ctx, id)
		if err != nil {
			return err
		}
		d := all[id]
		if d.Err != nil {
			return fail(what, d.Err, "")
		}
		out = described(d)
		return nil
	})
	return out, err
}

func described(d kadm.DescribedTransaction) Transaction {
	t := Transaction{
		ID: d.TxnID, Coordinator: d.Coordinator, ProducerID: d.ProducerID, Epoch: d.ProducerEpoch,
		State: d.State, TimeoutMs: d.TimeoutMillis, StartMs: d.StartTimestamp, Partitions: []TxnPartition{},
	}
	for _, s := range d.Topics.Sorted() {
		for _, p := range s.Partitions {
			t.Partitions = append(t.Partitions, TxnPartition{s.Topic, p})
		}
	}
	return t
}

// Hanging is an open transaction in a partition that no coordinator will ever end: readers of committed records wait
// there for ever.
type Hanging struct {
	Topic            string `json:"topic"`
	Partition        int32  `json:"partition"`
	ProducerID       int64  `json:"producer_id"`
	Epoch            int16  `json:"epoch"`
	CoordinatorEpoch int32  `json:"coordinator_epoch"`
	StartOffset      int64  `json:"start_offset"`
	LastMs           int64  `json:"last_ms"` // of its last record
}

// FindHanging looks through all partitions, as kafka-transactions does (KIP-664): a transaction hangs when its last
// record is older than older and its coordinator does not have the partition in an open transaction of that producer.
func (c *Client) FindHanging(ctx context.Context, older time.Duration, now time.Time) (out []Hanging, err error) {
	err = c.with(ctx, "find hanging transactions", func(ctx context.Context, adm *kadm.Client) error {
		open, err := openIn(ctx, adm)
		if err != nil || len(open) == 0 {
			return err
		}
		var ids []int64
		for _, h := range open {
			ids = append(ids, h.ProducerID)
		}
		list, err := adm.ListTransactions(ctx, ids, nil)
		if err != nil {
			return err
		}
		known := map[int64]kadm.TopicsSet{}
		if names := list.TransactionalIDs(); len(names) > 0 {
			all, err := adm.DescribeTransactions(ctx, names...)
			if err != nil {
				return err
			}
			for _, d := range all {
				known[d.ProducerID] = d.Topics
			}
		}
		for _, h := range open {
			if now.Sub(time.UnixMilli(h.LastMs)) >= older && !known[h.ProducerID].Lookup(h.Topic, h.Partition) {
				out = append(out, h)
			}
		}
		return nil
	})
	return out, err
}

// openIn is every open transaction of every partition.
func openIn(ctx context.Context, adm *kadm.Client) (out []Hanging, err error) {
	topics, err := adm.ListTopicsWithInternal(ctx)
	if err != nil {
		return nil, err
	}
	all, err := adm.DescribeProducers(ctx, topics.TopicsSet())
	if err != nil {
		return nil, err
	}
	for _, p := range all.SortedPartitions() {
		for _, a := range p.ActiveProducers {
			if a.CurrentTxnStartOffset >= 0 {
				out = append(out, Hanging{p.Topic, p.Partition, a.ProducerID, a.ProducerEpoch, a.CoordinatorEpoch, a.CurrentTxnStartOffset, a.LastTimestamp})
			}
		}
	}
	return out, nil
}

// AbortHanging ends the transaction that began at an offset of a partition, by writing the marker that its coordinator
// never wrote. Of a transaction that does not hang it takes the records away from its producer.
func (c *Client) AbortHanging(ctx context.Context, topic string, partition int32, start int64) error {
	what := fmt.Sprintf("abort the transaction at offset %d of %s-%d", start, topic, partition)
	return c.with(ctx, what, func(ctx context.Context, adm *kadm.Client) error {
		open, err := openIn(ctx, adm)
		if err != nil {
			return err
		}
		for _, h := range open {
			if h.Topic != topic || h.Partition != partition || h.StartOffset != start {
				continue
			}
			set := kadm.TopicsSet{}
			set.Add(topic, partition)
			rs, err := adm.WriteTxnMarkers(ctx, kadm.TxnMarkers{
				ProducerID: h.ProducerID, ProducerEpoch: h.Epoch, CoordinatorEpoch: max(h.CoordinatorEpoch, 0), Topics: set,
			})
			if err != nil {
				return err
			}
			for _, p := range rs.SortedPartitions() {
				if p.Err != nil {
					return fail(what, p.Err, "")
				}
			}
			return nil
		}
		return errors.New("no transaction is open there from that offset")
	})
}
