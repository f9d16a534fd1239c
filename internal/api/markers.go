package api

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/shard"
)

// WriteTxnMarkers (key 27), versions 1-2: coordinators end transactions in the partitions that this broker leads. An
// administrator may, too, where a transaction hangs (KIP-664); Kafka asks for ALTER on the cluster then.
//
//	v2  the transaction version, by which the epoch is judged (KIP-890, KAFKA-19999)
func serveWriteTxnMarkers(c *Call) server.Reply {
	req := c.Request.(*kmsg.WriteTxnMarkersRequest)
	return c.aside(func(ctx context.Context) server.Reply {
		ctx, cancel := context.WithTimeout(ctx, markerWait)
		defer cancel()
		return c.ready(c.WriteMarkers(ctx, req))
	})
}

// markerWait bounds the wait until markers are committed.
const markerWait = 10 * time.Second

// markerItem is one marker in one partition on its way.
type markerItem struct {
	code *int16
	p    *partition.Partition
	a    partition.Appended
	call *shard.Call // instead of p, in the offsets topic
	slot int
}

// WriteMarkers writes markers into partitions that this broker leads, and returns when they are committed or ctx
// ends; what is not known to be committed is REQUEST_TIMED_OUT.
func (e *Env) WriteMarkers(ctx context.Context, req *kmsg.WriteTxnMarkersRequest) *kmsg.WriteTxnMarkersResponse {
	resp := req.ResponseKind().(*kmsg.WriteTxnMarkersResponse)
	resp.Version = req.Version
	im := e.Image()
	var items []markerItem
	resp.Markers = make([]kmsg.WriteTxnMarkersResponseMarker, len(req.Markers))
	for i := range req.Markers {
		m := &req.Markers[i]
		out := &resp.Markers[i]
		out.ProducerID = m.ProducerID
		out.Topics = make([]kmsg.WriteTxnMarkersResponseMarkerTopic, len(m.Topics))
		for j := range m.Topics {
			t := &m.Topics[j]
			rt := &out.Topics[j]
			rt.Topic = t.Topic
			rt.Partitions = make([]kmsg.WriteTxnMarkersResponseMarkerTopicPartition, len(t.Partitions))
			mt := im.Topic(t.Topic)
			for k, n := range t.Partitions {
				rt.Partitions[k].Partition = n
				it := markerItem{code: &rt.Partitions[k].ErrorCode, slot: -1}
				if e.writeMarker(&it, mt, n, m) {
					items = append(items, it)
				}
			}
		}
	}
	e.awaitMarkers(ctx, items)
	return resp
}

// writeMarker appends one marker; false: refused, or done already.
func (e *Env) writeMarker(it *markerItem, mt *meta.Topic, n int32, m *kmsg.WriteTxnMarkersRequestMarker) bool {
	if mt == nil || n < 0 || int(n) >= len(mt.Partitions) {
		*it.code = kerr.UnknownTopicOrPartition.Code
		return false
	}
	if m.ProducerID < 0 || m.ProducerEpoch < 0 {
		*it.code = kerr.InvalidProducerEpoch.Code // no producer at all
		return false
	}
	typ := batch.Abort
	if m.Committed {
		typ = batch.Commit
	}
	b := batch.BuildMarker(m.ProducerID, m.ProducerEpoch, batch.Marker{
		Type: typ, CoordinatorEpoch: m.CoordinatorEpoch, TimestampMs: e.Clock().UnixMilli(),
	})
	if mt.Name == shard.GroupsTopic {
		// The coordinator on it has to hear of the marker in the order of its own records.
		it.call = e.Groups.WriteMarker(n, b, int16(m.TransactionVersion))
		return true
	}
	var err error
	if it.p, err = e.Partitions.GetByID(mt.ID, n); err == nil {
		it.a, err = it.p.AppendMarker(b, int16(m.TransactionVersion))
	} else if errors.Is(err, kerr.UnknownTopicOrPartition) {
		err = kerr.NotLeaderForPartition
	}
	if err != nil {
		k, _ := errorOf(err)
		*it.code = k.Code
		return false
	}
	return !it.p.Reached(partition.AcksAll, it.a)
}

func (e *Env) awaitMarkers(ctx context.Context, items []markerItem) {
	n := 0
	for i := range items {
		if items[i].call == nil {
			items[i].slot = n
			n++
		}
	}
	var w *partition.Waiter
	if n > 0 {
		w = partition.NewWaiter(n)
		for i := range items {
			if it := &items[i]; it.slot >= 0 {
				it.p.Wait(w, it.slot, partition.AcksAll, it.a)
			}
		}
		within := markerWait
		if at, ok := ctx.Deadline(); ok {
			within = time.Until(at)
		}
		w.Arm(max(within, time.Millisecond))
		<-w.Ready()
	}
	for i := range items {
		it := &items[i]
		var err error
		if it.call == nil {
			err = w.Err(it.slot)
		} else {
			select {
			case <-it.call.Ready():
				err = it.call.Results()[0].Err
				if errors.Is(err, kerr.NotCoordinator) || errors.Is(err, kerr.CoordinatorLoadInProgress) || errors.Is(err, kerr.CoordinatorNotAvailable) {
					err = kerr.NotLeaderForPartition // what the writer of markers asks again about
				}
			case <-ctx.Done():
				err = kerr.RequestTimedOut
			}
		}
		if err != nil {
			k, _ := errorOf(err)
			*it.code = k.Code
		}
	}
}
