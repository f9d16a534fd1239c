package api

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/shard"
)

// Key types of FindCoordinator.
const (
	coordinatorGroup int8 = 0
	coordinatorTxn   int8 = 1
	coordinatorShare int8 = 2
)

// createWait bounds the wait for a topic on its first use.
const createWait = 5 * time.Second

// FindCoordinator (key 10), versions 0-6: the leader of the internal topic's partition that the key falls on. The
// topic is made on first need; until the partition has a leader the answer is COORDINATOR_NOT_AVAILABLE.
//
//	v1  key type (KIP-98)   v4  several keys (KIP-699)   v6  share coordinators (KIP-932)
//
// Share groups are not served yet: UNSUPPORTED_VERSION. After COORDINATOR_NOT_AVAILABLE a client would ask for ever.
func serveFindCoordinator(c *Call) server.Reply {
	req := c.Request.(*kmsg.FindCoordinatorRequest)
	resp := kmsg.NewPtrFindCoordinatorResponse()
	keys := req.CoordinatorKeys
	if req.Version < 4 {
		keys = []string{req.CoordinatorKey}
	}
	im, refused, why, topic := c.Image, (*kerr.Error)(nil), "", shard.GroupsTopic
	switch {
	case req.CoordinatorType == coordinatorGroup, req.CoordinatorType == coordinatorTxn:
		if req.CoordinatorType == coordinatorTxn {
			topic = shard.TxnsTopic
		}
		if im.Topic(topic) == nil {
			im = c.createInternal(topic)
		}
	case req.CoordinatorType == coordinatorShare && req.Version >= 6:
		refused, why = kerr.UnsupportedVersion, "share groups are not served yet"
	default:
		refused, why = kerr.InvalidRequest, "unknown coordinator type"
	}
	for _, key := range keys {
		r := kmsg.NewFindCoordinatorResponseCoordinator()
		r.Key, r.NodeID, r.Port = key, -1, -1
		err := refused
		if err == nil {
			err, why = c.findCoordinator(im, topic, key, &r)
		}
		if err != nil {
			r.ErrorCode, r.ErrorMessage = c.failed(err.Code), kmsg.StringPtr(why)
		}
		resp.Coordinators = append(resp.Coordinators, r)
	}
	if req.Version < 4 {
		r := resp.Coordinators[0]
		resp.NodeID, resp.Host, resp.Port, resp.ErrorCode, resp.ErrorMessage = r.NodeID, r.Host, r.Port, r.ErrorCode, r.ErrorMessage
		resp.Coordinators = nil
	}
	return c.ready(resp)
}

// findCoordinator fills in the leader of the partition that keeps a group or a transactional id.
func (c *Call) findCoordinator(im *meta.Image, topic, id string, r *kmsg.FindCoordinatorResponseCoordinator) (*kerr.Error, string) {
	t := im.Topic(topic)
	if t == nil || len(t.Partitions) == 0 {
		return kerr.CoordinatorNotAvailable, "the topic " + topic + " is being made"
	}
	p := t.Partitions[shard.PartitionFor(id, int32(len(t.Partitions)))]
	b := im.Broker(p.Leader)
	if b == nil || b.Fenced {
		return kerr.CoordinatorNotAvailable, "the coordinator's partition has no leader"
	}
	e, ok := b.Endpoint(c.Conn.Listener())
	if !ok {
		return kerr.CoordinatorNotAvailable, "the coordinator has no listener " + c.Conn.Listener()
	}
	r.NodeID, r.Host, r.Port = b.ID, e.Host, e.Port
	return nil, ""
}

// createInternal asks the controller for a coordinator's topic and returns the metadata afterwards. Several clients that ask
// at once are all answered from the one topic. A failure is logged; the client asks again.
func (c *Call) createInternal(topic string) *meta.Image {
	for name, err := range c.firstUse([]string{topic}) {
		c.Log.Warn("internal topic not made", "topic", name, "error", err)
	}
	return c.Image
}
