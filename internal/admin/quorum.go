package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sort"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Quorum is the members that hold the cluster's metadata together, as DescribeQuorum tells them.
type Quorum struct {
	Leader        int32          `json:"leader"` // -1: none
	Epoch         int32          `json:"epoch"`
	HighWatermark int64          `json:"high_watermark"` // what a majority has
	Voters        []QuorumMember `json:"voters"`
	Observers     []QuorumMember `json:"observers"` // who follow without a vote
}

// QuorumMember is one member. Times are ms since 1970, -1 when they are not known.
type QuorumMember struct {
	ID           int32  `json:"id"`
	Offset       int64  `json:"offset"` // what it has; -1: not known
	Lag          int64  `json:"lag"`    // behind the leader; -1: not known
	LastFetch    int64  `json:"last_fetch_ms"`
	LastCaughtUp int64  `json:"last_caught_up_ms"`
	Address      string `json:"address,omitempty"` // where its peers reach it
}

// metadataTopic is how Kafka names the log of its metadata.
const metadataTopic = "__cluster_metadata"

// lagAllowed is how many changes a member may be behind without being called slow: a busy cluster writes
// some dozen between two beats.
const lagAllowed = 10000

func (q *Quorum) behind(m QuorumMember) bool { return m.Offset < 0 || m.Lag > lagAllowed }

// Elsewhere says that the metadata lies in a store outside the brokers: then the controller is named as the
// only voter, the other brokers as observers, and nobody has an address as a member.
func (q *Quorum) Elsewhere() bool {
	return len(q.Voters) == 1 && q.Voters[0].Address == "" && len(q.Observers) > 0
}

// Tolerates says how many more members may fail.
func (q *Quorum) Tolerates() string {
	if q.Elsewhere() {
		return "the metadata lies in a store outside the brokers"
	}
	if len(q.Voters) == 1 {
		return "no other has the metadata: while it is down, nothing can change"
	}
	live := 0
	for _, v := range q.Voters {
		if !q.behind(v) {
			live++
		}
	}
	switch n := live - (len(q.Voters)/2 + 1); {
	case n < 0:
		return "there is no majority, so nothing can change"
	case n == 0:
		return "if one more fails, nothing can change until it is back"
	default:
		return fmt.Sprintf("%d more may fail", n)
	}
}

// Member finds a voter or observer.
func (q *Quorum) Member(id int32) (QuorumMember, bool) {
	for _, list := range [][]QuorumMember{q.Voters, q.Observers} {
		for _, m := range list {
			if m.ID == id {
				return m, true
			}
		}
	}
	return QuorumMember{}, false
}

// Quorum asks for the members that hold the metadata.
func (c *Client) Quorum(ctx context.Context) (Quorum, error) {
	const what = "describe the metadata quorum"
	out := Quorum{Leader: -1, Voters: []QuorumMember{}, Observers: []QuorumMember{}}
	req := kmsg.NewPtrDescribeQuorumRequest()
	t := kmsg.NewDescribeQuorumRequestTopic()
	t.Topic = metadataTopic
	t.Partitions = append(t.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	req.Topics = append(req.Topics, t)
	resp, err := request[*kmsg.DescribeQuorumResponse](ctx, c, what, req)
	if err != nil {
		return out, err
	}
	if err := codeError(what, resp.ErrorCode, resp.ErrorMessage); err != nil {
		return out, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return out, errors.New(what + ": an answer without the metadata log")
	}
	p := resp.Topics[0].Partitions[0]
	if err := codeError(what, p.ErrorCode, p.ErrorMessage); err != nil {
		return out, err
	}
	address := map[int32]string{}
	for _, n := range resp.Nodes {
		for _, l := range n.Listeners {
			address[n.NodeID] = net.JoinHostPort(l.Host, strconv.Itoa(int(l.Port)))
		}
	}
	out.Leader, out.Epoch, out.HighWatermark = p.LeaderID, p.LeaderEpoch, p.HighWatermark
	end := p.HighWatermark
	for _, v := range p.CurrentVoters {
		if v.ReplicaID == p.LeaderID {
			end = max(end, v.LogEndOffset)
		}
	}
	list := func(from []kmsg.DescribeQuorumResponseTopicPartitionReplicaState) []QuorumMember {
		to := []QuorumMember{}
		for _, v := range from {
			m := QuorumMember{ID: v.ReplicaID, Offset: v.LogEndOffset, Lag: -1, LastFetch: v.LastFetchTimestamp, LastCaughtUp: v.LastCaughtUpTimestamp, Address: address[v.ReplicaID]}
			if v.LogEndOffset >= 0 {
				m.Lag = max(0, end-v.LogEndOffset)
			}
			to = append(to, m)
		}
		sort.Slice(to, func(i, j int) bool { return to[i].ID < to[j].ID })
		return to
	}
	out.Voters, out.Observers = list(p.CurrentVoters), list(p.Observers)
	return out, nil
}

// AddVoter makes a broker a member of the metadata quorum; peer is the host:port where the others reach it.
func (c *Client) AddVoter(ctx context.Context, id int32, peer string) error {
	what := fmt.Sprintf("add broker %d to the metadata quorum", id)
	host, port, err := net.SplitHostPort(peer)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%s: port %q: want 1 to 65535", what, port)
	}
	req := kmsg.NewPtrAddRaftVoterRequest()
	req.VoterID, req.TimeoutMillis, req.AckWhenCommitted = id, int32(c.opts.Timeout.Milliseconds()), true
	l := kmsg.NewAddRaftVoterRequestListener()
	l.Name, l.Host, l.Port = "PEER", host, uint16(n)
	req.Listeners = append(req.Listeners, l)
	resp, err := request[*kmsg.AddRaftVoterResponse](ctx, c, what, req)
	if err != nil {
		return err
	}
	return codeError(what, resp.ErrorCode, resp.ErrorMessage)
}

// RemoveVoter takes a member out of the metadata quorum, be it alive or lost.
func (c *Client) RemoveVoter(ctx context.Context, id int32) error {
	what := fmt.Sprintf("remove broker %d from the metadata quorum", id)
	req := kmsg.NewPtrRemoveRaftVoterRequest()
	req.VoterID = id
	resp, err := request[*kmsg.RemoveRaftVoterResponse](ctx, c, what, req)
	if err != nil {
		return err
	}
	return codeError(what, resp.ErrorCode, resp.ErrorMessage)
}

// Unregister makes the cluster forget a broker that will not come back. One that still runs registers again
// at once, so it has to be stopped before.
func (c *Client) Unregister(ctx context.Context, id int32) error {
	what := fmt.Sprintf("unregister broker %d", id)
	req := kmsg.NewPtrUnregisterBrokerRequest()
	req.BrokerID = id
	resp, err := request[*kmsg.UnregisterBrokerResponse](ctx, c, what, req)
	if err != nil {
		return err
	}
	return codeError(what, resp.ErrorCode, resp.ErrorMessage)
}
