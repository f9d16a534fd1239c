package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/server"
)

// ListOffsets (key 2), versions 1-11.
//
//	v4   leader epochs (KIP-320)             v5   OFFSET_NOT_AVAILABLE (KIP-207)
//	v7   -3, the largest timestamp (KIP-734) v8   -4, the local start
//	v9   -5, the last tiered offset          v10  a timeout, unused: nothing here waits
//	v11  -6, the first offset not yet uploaded
//
// Nothing is tiered, so -5 and -6 answer -1 and -4 the log start. A sentinel that the version does not have is
// UNSUPPORTED_VERSION, a partition named twice INVALID_REQUEST.
func serveListOffsets(c *Call) server.Reply {
	req := c.Request.(*kmsg.ListOffsetsRequest)
	resp := kmsg.NewPtrListOffsetsResponse()
	resp.Version = req.Version
	twice := repeated(req)
	for i := range req.Topics {
		t := &req.Topics[i]
		mt := c.Image.Topic(t.Topic)
		rt := kmsg.NewListOffsetsResponseTopic()
		rt.Topic = t.Topic
		for j := range t.Partitions {
			p := &t.Partitions[j]
			rp := kmsg.NewListOffsetsResponseTopicPartition()
			rp.Partition, rp.Offset, rp.Timestamp, rp.LeaderEpoch = p.Partition, -1, -1, -1
			var o partition.Offset
			var err error
			switch {
			case twice[offsetsKey{t.Topic, p.Partition}] > 1:
				err = kerr.InvalidRequest
			case p.Timestamp < 0 && req.Version < sentinelSince(p.Timestamp):
				err = kerr.UnsupportedVersion
			case mt == nil:
				err = kerr.UnknownTopicOrPartition
			default:
				o, err = c.offsetFor(req, mt.Name, p)
			}
			if err == nil && !c.Conn.Peer() && !c.current() {
				err = kerr.NotLeaderForPartition
			}
			if err == nil {
				rp.Offset, rp.Timestamp, rp.LeaderEpoch = o.Offset, o.Timestamp, o.Epoch
			}
			rp.ErrorCode = c.offsetsCode(err, req.Version)
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return c.ready(resp)
}

type offsetsKey struct {
	topic     string
	partition int32
}

// repeated counts how often each partition is named.
func repeated(req *kmsg.ListOffsetsRequest) map[offsetsKey]int {
	n := map[offsetsKey]int{}
	for i := range req.Topics {
		for j := range req.Topics[i].Partitions {
			n[offsetsKey{req.Topics[i].Topic, req.Topics[i].Partitions[j].Partition}]++
		}
	}
	return n
}

// sentinelSince is the first version that has a negative timestamp's meaning; past all versions for none.
func sentinelSince(ts int64) int16 {
	switch ts {
	case partition.Latest, partition.Earliest:
		return 0
	case partition.MaxTimestamp:
		return 7
	case partition.EarliestLocal:
		return 8
	case partition.LatestTiered:
		return 9
	case partition.EarliestPendingUpload:
		return 11
	}
	return 1<<15 - 1
}

func (c *Call) offsetFor(req *kmsg.ListOffsetsRequest, topic string, p *kmsg.ListOffsetsRequestTopicPartition) (partition.Offset, error) {
	h, err := c.hosted(c.Image.Topic(topic), p.Partition)
	if err != nil {
		return partition.Offset{}, err
	}
	replica := req.ReplicaID
	if !c.Conn.Peer() {
		replica = partition.Consumer // only a follower is shown what is not committed
	}
	return h.OffsetFor(partition.OffsetQuery{
		Timestamp: p.Timestamp, Committed: req.IsolationLevel == 1, Epoch: p.CurrentLeaderEpoch, Replica: replica,
	})
}

// offsetsCode translates for old versions: before 5 a client knows LEADER_NOT_AVAILABLE only.
func (c *Call) offsetsCode(err error, version int16) int16 {
	code := c.errorCode(err)
	if code == kerr.OffsetNotAvailable.Code && version < 5 {
		return kerr.LeaderNotAvailable.Code
	}
	return code
}
