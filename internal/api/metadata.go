package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
)

// Metadata (key 3), versions 0-13.
//
//	v0   an empty list of topics means all; v1  a null list does, an empty one means none
//	v1   controller, racks, internal flag    v2   cluster id
//	v4   the client may forbid auto-creation v5   offline replicas
//	v7   leader epochs (KIP-320)             v8   authorized operations (KIP-430)
//	v10  topic ids in the answer (KIP-516)   v12  topics may be asked for by id
//	v13  an error of the whole answer, for REBOOTSTRAP_REQUIRED (KIP-1102); never set
//
// A fenced broker is not shown, and what it leads has LEADER_NOT_AVAILABLE. A topic that does not exist
// is created on the way when auto.create.topics.enable and the client allow it; the answer then waits
// for it and shows it, where Kafka answers UNKNOWN_TOPIC_OR_PARTITION first. An unknown id is
// UNKNOWN_TOPIC_ID with a null name.
func serveMetadata(c *Call) server.Reply {
	req := c.Request.(*kmsg.MetadataRequest)
	refused := c.autoCreate(req)
	resp := kmsg.NewPtrMetadataResponse()
	c.metadataBrokers(resp)
	resp.AuthorizedOperations = noOperations
	if req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = clusterOperations
	}
	reach := c.reach()
	ops := noOperations
	if req.IncludeTopicAuthorizedOperations {
		ops = topicOperations
	}
	if wantsAll(req) {
		all := c.Image.Topics()
		resp.Topics = make([]kmsg.MetadataResponseTopic, 0, len(all))
		for _, t := range all {
			resp.Topics = append(resp.Topics, metadataTopic(t, reach, ops, req.Version))
		}
		return c.ready(resp)
	}
	c.metadataNamed(req, resp, refused, reach, ops)
	return c.ready(resp)
}

func wantsAll(req *kmsg.MetadataRequest) bool {
	return req.Topics == nil || req.Version == 0 && len(req.Topics) == 0
}

func (c *Call) metadataBrokers(resp *kmsg.MetadataResponse) {
	for _, b := range c.Image.Alive() {
		if e, ok := c.endpoint(b); ok {
			rb := kmsg.NewMetadataResponseBroker()
			rb.NodeID, rb.Host, rb.Port, rb.Rack = b.ID, e.Host, e.Port, rack(b)
			resp.Brokers = append(resp.Brokers, rb)
		}
	}
	if id := c.Image.ClusterID(); id != "" {
		resp.ClusterID = &id
	}
	resp.ControllerID = c.shownController()
}

// metadataNamed answers the topics that were asked for, each once, in the order of the request.
func (c *Call) metadataNamed(req *kmsg.MetadataRequest, resp *kmsg.MetadataResponse, refused map[string]*control.Error, reach func(int32) (int16, bool), ops int32) {
	names := make(map[string]bool, len(req.Topics))
	ids := make(map[meta.UUID]bool)
	for i := range req.Topics {
		rt := &req.Topics[i]
		id := meta.UUID(rt.TopicID)
		switch {
		case rt.Topic != nil && id.IsZero(): // the Java admin client asks by id with an empty name beside it
			if names[*rt.Topic] {
				continue
			}
			names[*rt.Topic] = true
			t := c.Image.Topic(*rt.Topic)
			if t == nil {
				resp.Topics = append(resp.Topics, c.metadataUnknown(*rt.Topic, refused, ops))
				continue
			}
			resp.Topics = append(resp.Topics, metadataTopic(t, reach, ops, req.Version))
		case ids[id]:
		default:
			ids[id] = true
			t := c.Image.TopicByID(id)
			if t == nil || req.Version < 12 {
				mt := kmsg.NewMetadataResponseTopic()
				mt.TopicID = rt.TopicID
				mt.AuthorizedOperations = noOperations
				mt.ErrorCode = c.failed(kerr.UnknownTopicID.Code)
				if req.Version < 12 { // the name may be null only from version 12 on
					empty := ""
					mt.Topic, mt.ErrorCode = &empty, kerr.InvalidRequest.Code
				}
				resp.Topics = append(resp.Topics, mt)
				continue
			}
			resp.Topics = append(resp.Topics, metadataTopic(t, reach, ops, req.Version))
		}
	}
}

func metadataTopic(t *meta.Topic, reach func(int32) (int16, bool), ops int32, version int16) kmsg.MetadataResponseTopic {
	mt := kmsg.NewMetadataResponseTopic()
	mt.Topic, mt.TopicID, mt.IsInternal, mt.AuthorizedOperations = &t.Name, t.ID, t.Internal, ops
	mt.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(t.Partitions))
	for n, p := range t.Partitions {
		s := shown(p, reach)
		if s.code == kerr.ListenerNotFound.Code && version < 6 {
			s.code = kerr.LeaderNotAvailable.Code // the newer code is not known to the client
		}
		mt.Partitions[n] = kmsg.MetadataResponseTopicPartition{
			ErrorCode: s.code, Partition: int32(n), Leader: s.leader, LeaderEpoch: p.LeaderEpoch,
			Replicas: p.Replicas, ISR: p.ISR, OfflineReplicas: s.offline,
		}
	}
	return mt
}

func (c *Call) metadataUnknown(name string, refused map[string]*control.Error, ops int32) kmsg.MetadataResponseTopic {
	mt := kmsg.NewMetadataResponseTopic()
	mt.Topic, mt.AuthorizedOperations, mt.IsInternal = &name, ops, control.IsInternal(name)
	code := kerr.UnknownTopicOrPartition.Code
	switch err := refused[name]; {
	case control.CheckTopicName(name) != nil:
		code = kerr.InvalidTopicException.Code
	case err == nil || is(err, kerr.RequestTimedOut) || is(err, kerr.NotController) || is(err, kerr.BrokerNotAvailable):
		// not there yet: the client asks again, which it does not after these codes in a topic
	default:
		code = c.errorCode(err)
	}
	mt.ErrorCode = c.failed(code)
	return mt
}

// autoCreate makes the topics that are asked for by name and do not exist, and takes the image that
// shows them. The result has an entry for every topic that could not be made.
func (c *Call) autoCreate(req *kmsg.MetadataRequest) map[string]*control.Error {
	if wantsAll(req) || req.Version >= 4 && !req.AllowAutoTopicCreation {
		return nil
	}
	var names []string
	seen := make(map[string]bool)
	for i := range req.Topics {
		n := req.Topics[i].Topic
		if n != nil && meta.UUID(req.Topics[i].TopicID).IsZero() && !seen[*n] && c.Image.Topic(*n) == nil && control.CheckTopicName(*n) == nil {
			seen[*n] = true
			names = append(names, *n)
		}
	}
	if len(names) == 0 || !config.AutoCreateTopicsEnable.Of(control.Layers(c.Image, c.Static, c.NodeID)) {
		return nil
	}
	return c.firstUse(names)
}
