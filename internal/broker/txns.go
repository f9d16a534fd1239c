package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/marker"
	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/shard"
	"github.com/milena-mq/milena/internal/txn"
)

// newTxns makes the transaction coordinators and what writes their markers. Neither does anything before this broker
// leads a partition of __transaction_state, which is after the API's environment was made.
func (b *Broker) newTxns() {
	c := txn.DefaultConfig()
	c.MaxTimeout = ms(config.TransactionMaxTimeoutMs.Static(b.o.Static))
	c.IDExpiration = ms(config.TransactionalIDExpirationMs.Static(b.o.Static))
	b.txns = shard.NewTxns(shard.TxnOptions{
		Config: c, Log: b.log,
		FreshID: func() (int64, bool) { return b.env.ProducerIDs.Take() },
		Markers: func(p int32, load uint64, ms []txn.Marker) { b.markers.Put(p, load, ms) },
		Forget:  func(p int32, load uint64) { b.markers.Forget(p, load) },
	})
	o := marker.Options{
		NodeID: b.nodeID, Image: b.ctl.Image, Tell: b.txns.Tell, Log: b.log,
		Local: func(ctx context.Context, req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse {
			return b.env.WriteMarkers(ctx, req)
		},
	}
	if b.peers.addr != "" {
		o.Pool = b.peers.pool
	}
	b.markers = marker.New(o)
	b.coordinate(shard.TxnsTopic, b.txns)
}

// coordinators are what runs on the partitions of a topic that this broker leads.
type coordinators interface {
	Lead(partition int32, log shard.Log)
	Lose(partition int32)
}

// coordinate lets coordinators hear of the leadership of their topic's partitions.
func (b *Broker) coordinate(topic string, cs coordinators) {
	b.set.OnLeadership(topic, func(c partition.LeadershipChange) {
		n := c.Partition.TopicPartition().Partition
		if c.Leads {
			if log, err := c.Partition.Coordinator(); err == nil {
				cs.Lead(n, log)
				return
			}
			// Lost again before we came to it; the next change says so.
		}
		cs.Lose(n)
	})
}

// ask sends a request to the peer address of another broker.
func (b *Broker) ask(ctx context.Context, node int32, req kmsg.Request) (kmsg.Response, error) {
	x := b.ctl.Image().Broker(node)
	if x == nil || b.peers.addr == "" {
		return nil, kerr.BrokerNotAvailable
	}
	e, ok := x.Endpoint(config.PeerListenerName)
	if !ok {
		return nil, kerr.BrokerNotAvailable
	}
	return b.peers.pool.Do(ctx, e.Address(), req)
}
