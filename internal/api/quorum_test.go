package api

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/coord"
)

// fakeQuorum is a store of three members, one of which is new and one of which is down.
type fakeQuorum struct {
	asked []string
	err   error
}

func (q *fakeQuorum) Members(context.Context) ([]coord.Member, error) {
	return []coord.Member{
		{ID: 11, Node: 1, Peer: "10.0.0.1:9094", Leader: true, Applied: 100},
		{ID: 12, Node: 2, Peer: "[::1]:9095", Applied: 98, Lag: 2},
		{ID: 13, Node: 3, Peer: "10.0.0.3:9094", Err: "does not answer"},
		{ID: 14, Node: -1, Peer: "10.0.0.4:9094", Learner: true},
		{ID: 15, Node: 5, Peer: "10.0.0.5:9094", Learner: true, Lag: 50},
	}, q.err
}

func (q *fakeQuorum) Remove(_ context.Context, node int32) error {
	q.asked = append(q.asked, fmt.Sprint("remove ", node))
	return q.err
}

func (q *fakeQuorum) Add(_ context.Context, node int32, peer string) error {
	q.asked = append(q.asked, fmt.Sprint("add ", node, " ", peer))
	return q.err
}

func replicaIDs(in []kmsg.DescribeQuorumResponseTopicPartitionReplicaState) (out []int32) {
	for _, s := range in {
		out = append(out, s.ReplicaID)
	}
	return out
}

// TestDescribeQuorum tells the store's members, whoever is asked, and nothing of other topics.
func TestDescribeQuorum(t *testing.T) {
	q := &fakeQuorum{}
	nodes := startAdminCluster(t, 4, func(e *Env) { e.Quorum = q })
	for v := int16(0); v <= 2; v++ {
		for _, b := range nodes[:2] {
			req := kmsg.NewPtrDescribeQuorumRequest()
			for _, name := range []string{"__cluster_metadata", "other"} {
				req.Topics = append(req.Topics, kmsg.DescribeQuorumRequestTopic{Topic: name, Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{Partition: 0}, {Partition: 1}}})
			}
			got := b.ask(req, v).(*kmsg.DescribeQuorumResponse)
			p := got.Topics[0].Partitions[0]
			rev := nodes[0].ctl.Image().Revision()
			if got.ErrorCode != 0 || p.ErrorCode != 0 || p.LeaderID != 1 || p.LeaderEpoch != 1 || p.HighWatermark != rev {
				t.Fatalf("version %d: %+v", v, got)
			}
			if ids := replicaIDs(p.CurrentVoters); !slices.Equal(ids, []int32{1, 2, 3}) {
				t.Errorf("version %d: voters %v", v, ids)
			}
			if ids := replicaIDs(p.Observers); !slices.Equal(ids, []int32{5, 4}) {
				t.Errorf("version %d: observers %v", v, ids)
			}
			if w := p.CurrentVoters; w[0].LogEndOffset != rev || w[1].LogEndOffset != rev-2 || w[2].LogEndOffset != -1 || (v >= 1 && w[0].LastFetchTimestamp < 1) {
				t.Errorf("version %d: %+v", v, w)
			}
			for _, x := range []kmsg.DescribeQuorumResponseTopicPartition{got.Topics[0].Partitions[1], got.Topics[1].Partitions[0]} {
				code(t, "another partition", x.ErrorCode, kerr.UnknownTopicOrPartition)
			}
			if v >= 2 && (len(got.Nodes) != 4 || got.Nodes[1].NodeID != 2 || got.Nodes[1].Listeners[0].Host != "::1" || got.Nodes[1].Listeners[0].Port != 9095) {
				t.Errorf("version %d: nodes %+v", v, got.Nodes)
			}
		}
	}
	// A store that lives elsewhere: the controller is the only one whose loss matters here.
	b := startAdminCluster(t, 2)[1]
	req := kmsg.NewPtrDescribeQuorumRequest()
	req.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: "__cluster_metadata", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
	p := b.ask(req, 2).(*kmsg.DescribeQuorumResponse).Topics[0].Partitions[0]
	if !slices.Equal(replicaIDs(p.CurrentVoters), []int32{1}) || !slices.Equal(replicaIDs(p.Observers), []int32{2}) {
		t.Errorf("%+v", p)
	}
}

// TestVotersAreMembersOfTheStore: AddRaftVoter and RemoveRaftVoter change it, with Kafka's codes for what it refuses.
func TestVotersAreMembersOfTheStore(t *testing.T) {
	q := &fakeQuorum{}
	nodes := startAdminCluster(t, 2, func(e *Env) { e.Quorum = q })
	b := nodes[1]
	add := func(edit func(*kmsg.AddRaftVoterRequest)) *kmsg.AddRaftVoterRequest {
		r := kmsg.NewPtrAddRaftVoterRequest()
		r.TimeoutMillis, r.VoterID = 1000, 7
		r.Listeners = []kmsg.AddRaftVoterRequestListener{{Name: "CONTROLLER", Host: "h", Port: 1}, {Name: "PEER", Host: "h7", Port: 9094}}
		if edit != nil {
			edit(r)
		}
		return r
	}
	for v := int16(0); v <= 1; v++ {
		code(t, "add", b.ask(add(nil), v).(*kmsg.AddRaftVoterResponse).ErrorCode, nil)
	}
	code(t, "one listener", b.ask(add(func(r *kmsg.AddRaftVoterRequest) { r.Listeners = r.Listeners[:1] }), 1).(*kmsg.AddRaftVoterResponse).ErrorCode, nil)
	remove := kmsg.NewPtrRemoveRaftVoterRequest()
	remove.VoterID = 3
	code(t, "remove", b.ask(remove, 0).(*kmsg.RemoveRaftVoterResponse).ErrorCode, nil)
	if want := []string{"add 7 h7:9094", "add 7 h7:9094", "add 7 h:1", "remove 3"}; !slices.Equal(q.asked, want) {
		t.Errorf("asked %q, want %q", q.asked, want)
	}
	other := "another"
	for what, edit := range map[string]func(*kmsg.AddRaftVoterRequest){
		"no listener":     func(r *kmsg.AddRaftVoterRequest) { r.Listeners = nil },
		"negative id":     func(r *kmsg.AddRaftVoterRequest) { r.VoterID = -1 },
		"empty host":      func(r *kmsg.AddRaftVoterRequest) { r.Listeners = r.Listeners[:1]; r.Listeners[0].Host = "" },
		"another cluster": func(r *kmsg.AddRaftVoterRequest) { r.ClusterID = &other },
	} {
		want := kerr.InvalidRequest
		if what == "another cluster" {
			want = kerr.InconsistentClusterID
		}
		code(t, what, b.ask(add(edit), 1).(*kmsg.AddRaftVoterResponse).ErrorCode, want)
	}
	for err, want := range map[error]*kerr.Error{
		coord.ErrMember: kerr.DuplicateVoter, coord.ErrNoMember: kerr.VoterNotFound, coord.ErrLearner: kerr.RequestTimedOut, coord.ErrQuorum: kerr.InvalidRequest,
	} {
		q.err = fmt.Errorf("change the members: %w", err)
		r := b.ask(add(nil), 1).(*kmsg.AddRaftVoterResponse)
		if code(t, err.Error(), r.ErrorCode, want); r.ErrorMessage == nil || *r.ErrorMessage != q.err.Error() {
			t.Errorf("%v: message %v", err, r.ErrorMessage)
		}
		code(t, err.Error(), b.ask(remove, 0).(*kmsg.RemoveRaftVoterResponse).ErrorCode, want)
	}
	code(t, "a store elsewhere", startAdminCluster(t, 2)[1].ask(add(nil), 1).(*kmsg.AddRaftVoterResponse).ErrorCode, kerr.UnsupportedVersion)
}

// TestReassignmentsAndElections at every version, through a broker that is not the controller.
func TestReassignmentsAndElections(t *testing.T) {
	nodes := startAdminCluster(t, 3)
	b := nodes[2]
	hand := newCreate("t", -1, -1)
	for n, rs := range [][]int32{{1, 2}, {2, 3}} {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = int32(n), rs
		hand.Topics[0].ReplicaAssignment = append(hand.Topics[0].ReplicaAssignment, a)
	}
	code(t, "create", errorsOf(b.ask(hand, 7))[0], nil)
	move := func(v int16, replicas ...int32) kmsg.AlterPartitionAssignmentsResponseTopicPartition {
		req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		req.TimeoutMillis, req.AllowReplicationFactorChange = 10_000, false
		req.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{{Topic: "t", Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Partition: 0, Replicas: replicas}, {Partition: 9, Replicas: replicas}}}}
		got := b.ask(req, v).(*kmsg.AlterPartitionAssignmentsResponse)
		code(t, "the request", got.ErrorCode, nil)
		code(t, "unknown partition", got.Topics[0].Partitions[1].ErrorCode, kerr.UnknownTopicOrPartition)
		return got.Topics[0].Partitions[0]
	}
	list := func(topics ...kmsg.ListPartitionReassignmentsRequestTopic) *kmsg.ListPartitionReassignmentsResponse {
		req := kmsg.NewPtrListPartitionReassignmentsRequest()
		req.TimeoutMillis, req.Topics = 10_000, topics
		got := b.ask(req, 0).(*kmsg.ListPartitionReassignmentsResponse)
		code(t, "list", got.ErrorCode, nil)
		return got
	}
	for v := int16(0); v <= 1; v++ {
		code(t, "cancel nothing", move(v).ErrorCode, kerr.NoReassignmentInProgress)
		code(t, "unknown broker", move(v, 1, 77).ErrorCode, kerr.InvalidReplicaAssignment)
		want := kerr.InvalidReplicationFactor
		if v == 0 {
			want = nil // version 0 cannot forbid it
		}
		code(t, "another factor", move(v, 1, 2, 3).ErrorCode, want)
		code(t, "move", move(v, 3, 2).ErrorCode, nil)
		for _, l := range []*kmsg.ListPartitionReassignmentsResponse{list(), list(kmsg.ListPartitionReassignmentsRequestTopic{Topic: "t", Partitions: []int32{0, 1, 9}})} {
			if p := l.Topics[0].Partitions; len(l.Topics) != 1 || len(p) != 1 || p[0].Partition != 0 || !slices.Equal(p[0].AddingReplicas, []int32{3}) || !slices.Equal(p[0].RemovingReplicas, []int32{1}) {
				t.Errorf("version %d: %+v", v, l)
			}
		}
		code(t, "cancel", move(v).ErrorCode, nil)
		if l := list(); len(l.Topics) != 0 {
			t.Errorf("version %d: after cancelling %+v", v, l)
		}
	}
	// Cancelled, partition 0 has another first replica than before: the order of the wish that was given up.
	first := kmsg.NewPtrElectLeadersRequest()
	first.TimeoutMillis = 10_000
	first.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: "t", Partitions: []int32{0}}}
	if got := b.ask(first, 2).(*kmsg.ElectLeadersResponse).Topics[0].Partitions[0].ErrorCode; got != 0 { // the controller may have done it by itself
		code(t, "elect", got, kerr.ElectionNotNeeded)
	}
	for v := int16(0); v <= 2; v++ {
		req := kmsg.NewPtrElectLeadersRequest()
		req.TimeoutMillis = 10_000
		req.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: "t", Partitions: []int32{1, 9}}}
		got := b.ask(req, v).(*kmsg.ElectLeadersResponse)
		code(t, "elected already", got.Topics[0].Partitions[0].ErrorCode, kerr.ElectionNotNeeded)
		code(t, "unknown partition", got.Topics[0].Partitions[1].ErrorCode, kerr.UnknownTopicOrPartition)
		req.Topics = nil
		if got := b.ask(req, v).(*kmsg.ElectLeadersResponse); got.ErrorCode != 0 || len(got.Topics) != 0 {
			t.Errorf("version %d, all: %+v", v, got)
		}
		if req.ElectionType = 7; v >= 1 {
			code(t, "unknown type", b.ask(req, v).(*kmsg.ElectLeadersResponse).ErrorCode, kerr.InvalidRequest)
		}
	}
	gone := kmsg.NewPtrUnregisterBrokerRequest()
	gone.BrokerID = 77
	code(t, "unregister nobody", b.ask(gone, 0).(*kmsg.UnregisterBrokerResponse).ErrorCode, kerr.BrokerIDNotRegistered)
	gone.BrokerID = 2
	code(t, "unregister", b.ask(gone, 0).(*kmsg.UnregisterBrokerResponse).ErrorCode, nil)
	if m := b.ask(newMetadata(false), 12).(*kmsg.MetadataResponse); len(m.Brokers) != 2 {
		t.Errorf("shown afterwards: %+v", m.Brokers)
	}
}
