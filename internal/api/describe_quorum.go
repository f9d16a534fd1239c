package api

import (
	"net"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/server"
)

// quorumTopic is Kafka's name of the log in which its controllers keep the metadata.
const quorumTopic = "__cluster_metadata"

// DescribeQuorum (key 55), versions 0-2: who keeps the cluster's metadata and how far each has come, in the
// words of kafka-metadata-quorum. The only partition there is is __cluster_metadata-0.
//
//	v1  when each was last heard and last up to date (KIP-836)
//	v2  directory ids and addresses of the voters (KIP-853)
//
// The leader is the controller and its epoch the controller's. Voters are the members of the coordination
// store with a vote; observers are its learners and every other broker. Offsets are revisions of the
// metadata: of a voter its leader's less the entries of the store's log that it lacks, of an observer what it
// said in its last heartbeat; -1 when it cannot be known. Where the store is elsewhere (external etcd,
// ZooKeeper) the controller is shown as the only voter: nobody else's loss stops a decision of this cluster.
func serveDescribeQuorum(c *Call) server.Reply {
	req := c.Request.(*kmsg.DescribeQuorumRequest)
	resp := kmsg.NewPtrDescribeQuorumResponse()
	var members []coord.Member
	if c.Quorum != nil && len(req.Topics) > 0 {
		ctx, cancel := c.admin(0)
		defer cancel()
		var err error
		if members, err = c.Quorum.Members(ctx); err != nil {
			resp.ErrorCode = c.errorCode(err)
			msg := err.Error()
			resp.ErrorMessage = &msg
			return c.ready(resp)
		}
	}
	q := c.quorumOf(members)
	for i := range req.Topics {
		t := kmsg.NewDescribeQuorumResponseTopic()
		t.Topic = req.Topics[i].Topic
		for _, rp := range req.Topics[i].Partitions {
			p := q
			if p.Partition = rp.Partition; t.Topic != quorumTopic || rp.Partition != 0 {
				p = kmsg.NewDescribeQuorumResponseTopicPartition()
				p.Partition, p.ErrorCode, p.LeaderID, p.LeaderEpoch = rp.Partition, c.failed(kerr.UnknownTopicOrPartition.Code), -1, -1
				p.HighWatermark = -1
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	if req.Version >= 2 && len(req.Topics) > 0 {
		resp.Nodes = quorumNodes(members)
	}
	return c.ready(resp)
}

func (c *Call) quorumOf(members []coord.Member) kmsg.DescribeQuorumResponseTopicPartition {
	p := kmsg.NewDescribeQuorumResponseTopicPartition()
	p.LeaderID, p.LeaderEpoch = c.Image.Controller()
	p.HighWatermark = c.Image.Revision()
	seated := map[int32]bool{}
	for _, m := range members {
		if m.Node < 0 || seated[m.Node] {
			continue // a member that has never started has no id yet
		}
		s := c.quorumState(m.Node)
		s.LogEndOffset = p.HighWatermark - m.Lag
		if m.Err != "" {
			s.LogEndOffset = -1
		}
		if m.Learner {
			p.Observers = append(p.Observers, s)
		} else {
			p.CurrentVoters = append(p.CurrentVoters, s)
		}
		seated[m.Node] = true
	}
	if len(members) == 0 && p.LeaderID >= 0 {
		p.CurrentVoters = append(p.CurrentVoters, c.quorumState(p.LeaderID))
		seated[p.LeaderID] = true
	}
	for _, b := range c.Image.Brokers() {
		if !seated[b.ID] {
			p.Observers = append(p.Observers, c.quorumState(b.ID))
		}
	}
	return p
}

// quorumState is what is known of a broker by its heartbeats.
func (c *Call) quorumState(id int32) kmsg.DescribeQuorumResponseTopicPartitionReplicaState {
	s := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
	s.ReplicaID, s.LogEndOffset, s.LastFetchTimestamp, s.LastCaughtUpTimestamp = id, -1, -1, -1
	now := c.Now.UnixMilli()
	if id == c.NodeID {
		s.LogEndOffset, s.LastFetchTimestamp, s.LastCaughtUpTimestamp = c.Image.Revision(), now, now
		return s
	}
	if seen, ago, ok := c.Controller.Heard(id); ok {
		s.LogEndOffset, s.LastFetchTimestamp = min(seen, c.Image.Revision()), now-ago.Milliseconds()
		if seen >= c.Image.Revision() {
			s.LastCaughtUpTimestamp = s.LastFetchTimestamp
		}
	}
	return s
}

// quorumNodes is where the members reach one another.
func quorumNodes(members []coord.Member) []kmsg.DescribeQuorumResponseNode {
	var out []kmsg.DescribeQuorumResponseNode
	for _, m := range members {
		host, port, err := net.SplitHostPort(m.Peer)
		n, perr := strconv.ParseUint(port, 10, 16)
		if m.Node < 0 || err != nil || perr != nil {
			continue
		}
		l := kmsg.NewDescribeQuorumResponseNodeListener()
		l.Name, l.Host, l.Port = config.PeerListenerName, host, uint16(n)
		node := kmsg.NewDescribeQuorumResponseNode()
		node.NodeID, node.Listeners = m.Node, append(node.Listeners, l)
		out = append(out, node)
	}
	return out
}
