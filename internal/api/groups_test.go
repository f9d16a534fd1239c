package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/metric"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/shard"
)

// groupRig is the APIs of groups behind a socket: real coordinators on logs in memory, an image made by hand.
type groupRig struct {
	t      *testing.T
	groups *shard.Groups
	im     atomic.Pointer[meta.Image]
	c      net.Conn
	corr   int32
}

var ordersID = meta.UUID{1}

func startGroups(t *testing.T) *groupRig {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg := group.DefaultConfig()
	cfg.InitialRebalanceDelay = 0
	r := &groupRig{t: t, groups: shard.NewGroups(shard.Options{Config: cfg, Log: log})}
	var cs []meta.Change
	topic := func(name string, id meta.UUID, n int32) {
		cs = append(cs, meta.PutTopic(name, meta.TopicRecord{ID: id, Partitions: n}))
		for i := range n {
			cs = append(cs, meta.PutPartition(id, i, &meta.Partition{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}))
		}
	}
	topic("orders", ordersID, 3)
	topic(shard.GroupsTopic, meta.UUID{2}, 4)
	cs = append(cs, meta.PutBroker(&meta.Broker{ID: 1, Epoch: 1, Endpoints: []meta.Endpoint{{Listener: "PLAINTEXT", Host: "one.example", Port: 9092}}}))
	im, d, err := meta.Empty().Apply(cs, 1)
	if err != nil {
		t.Fatal(err)
	}
	r.im.Store(im)
	r.groups.Apply(im, d)
	m := metric.New()
	l, err := server.Listen(context.Background(), "127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	env := &Env{NodeID: 1, Image: r.im.Load, Groups: r.groups, Log: log, Metrics: m, Clock: time.Now}
	srv := server.New(server.Options{Handler: New(env), Metrics: m, Grace: 100 * time.Millisecond, Listeners: []server.ListenerOptions{{Name: "PLAINTEXT", Listener: l}}})
	srv.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = r.groups.Close(ctx)
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	if r.c, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	_ = r.c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { _ = r.c.Close() })
	return r
}

// lead starts the coordinators and waits until they are loaded.
func (r *groupRig) lead() {
	for i := range int32(4) {
		r.groups.Lead(i, &memLog{})
	}
	for loaded := false; !loaded; {
		call := r.groups.List(group.List{})
		<-call.Ready()
		loaded = !slices.ContainsFunc(call.Results(), func(x shard.Result) bool { return x.Err != nil })
	}
}

func (r *groupRig) do(req kmsg.Request, version int16) kmsg.Response {
	r.t.Helper()
	req.SetVersion(version)
	r.corr++
	if _, err := r.c.Write(request(req, r.corr)); err != nil {
		r.t.Fatal(err)
	}
	resp := req.ResponseKind()
	resp.SetVersion(version)
	answer(r.t, r.c, r.corr, resp)
	return resp
}

// memLog commits what is appended at once.
type memLog struct {
	sync.Mutex
	batches []batch.Batch
	end     int64
}

func (l *memLog) Append(b batch.Batch) (base, end int64, err error) {
	l.Lock()
	defer l.Unlock()
	c := batch.Batch(slices.Clone(b))
	c.SetBaseOffset(l.end)
	base, l.end = l.end, c.NextOffset()
	l.batches = append(l.batches, c)
	return base, l.end, nil
}
func (l *memLog) AppendMarker(b batch.Batch, _ int16) (base, end int64, err error) {
	return l.Append(b)
}
func (l *memLog) OnCommitted(_ int64, fn func(error))  { fn(nil) }
func (l *memLog) Replay(func(batch.Batch) error) error { return nil }
func (l *memLog) Epoch() int32                         { return 0 }

func joinRequest(id, member string) *kmsg.JoinGroupRequest {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Group, r.MemberID, r.ProtocolType, r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = id, member, "consumer", 10000, 10000
	sub := kmsg.NewConsumerMemberMetadata()
	sub.Topics = []string{"orders"}
	r.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: sub.AppendTo(nil)}}
	return r
}

func commitRequest(id, member string, gen int32, offset int64) *kmsg.OffsetCommitRequest {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Group, r.MemberID, r.Generation = id, member, gen
	part := func(n int32) kmsg.OffsetCommitRequestTopicPartition {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = n, offset, 5, kmsg.StringPtr("m")
		return p
	}
	r.Topics = []kmsg.OffsetCommitRequestTopic{
		{Topic: "nowhere", TopicID: [16]byte{9}, Partitions: []kmsg.OffsetCommitRequestTopicPartition{part(0)}},
		{Topic: "orders", TopicID: ordersID, Partitions: []kmsg.OffsetCommitRequestTopicPartition{part(0), part(99), part(2)}},
	}
	return r
}

// TestGroupLifeAtEveryVersion: a member's whole life, each request at every version it has.
func TestGroupLifeAtEveryVersion(t *testing.T) {
	r := startGroups(t)
	r.lead()
	at := func(v, least, most int16) int16 { return min(max(v, least), most) }
	for v := range int16(11) {
		id := fmt.Sprintf("group-%d", v)
		jv := at(v, 0, 9)
		j := r.do(joinRequest(id, ""), jv).(*kmsg.JoinGroupResponse)
		if jv >= 4 {
			if j.ErrorCode != kerr.MemberIDRequired.Code {
				t.Fatalf("join v%d: %+v", jv, j)
			}
			j = r.do(joinRequest(id, j.MemberID), jv).(*kmsg.JoinGroupResponse)
		}
		if j.ErrorCode != 0 || j.Generation != 1 || j.LeaderID != j.MemberID || len(j.Members) != 1 {
			t.Fatalf("join v%d: %+v", jv, j)
		}
		s := kmsg.NewPtrSyncGroupRequest()
		s.Group, s.MemberID, s.Generation, s.ProtocolType, s.Protocol = id, j.MemberID, 1, kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
		s.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: j.MemberID, MemberAssignment: []byte("mine")}}
		if a := r.do(s, at(v, 0, 5)).(*kmsg.SyncGroupResponse); a.ErrorCode != 0 || string(a.MemberAssignment) != "mine" {
			t.Fatalf("sync: %+v", a)
		}
		h := kmsg.NewPtrHeartbeatRequest()
		h.Group, h.MemberID, h.Generation = id, j.MemberID, 1
		if a := r.do(h, at(v, 0, 4)).(*kmsg.HeartbeatResponse); a.ErrorCode != 0 {
			t.Fatalf("heartbeat: %+v", a)
		}
		cv := at(v, 2, 10)
		c := r.do(commitRequest(id, j.MemberID, 1, 7), cv).(*kmsg.OffsetCommitResponse)
		unknown := kerr.UnknownTopicOrPartition.Code
		if cv >= 10 {
			unknown = kerr.UnknownTopicID.Code
		}
		got := []int16{c.Topics[0].Partitions[0].ErrorCode, c.Topics[1].Partitions[0].ErrorCode, c.Topics[1].Partitions[1].ErrorCode, c.Topics[1].Partitions[2].ErrorCode}
		if !slices.Equal(got, []int16{unknown, 0, kerr.UnknownTopicOrPartition.Code, 0}) {
			t.Fatalf("commit v%d: %v", cv, got)
		}
		checkFetch(r, id, at(v, 1, 10), cv >= 6)
		l := kmsg.NewPtrLeaveGroupRequest()
		l.Group, l.MemberID = id, j.MemberID
		l.Members = []kmsg.LeaveGroupRequestMember{{MemberID: j.MemberID}}
		if a := r.do(l, at(v, 0, 5)).(*kmsg.LeaveGroupResponse); a.ErrorCode != 0 {
			t.Fatalf("leave: %+v", a)
		}
	}
	checkOperators(r)
}

// checkFetch reads what was committed, by name and all, in the shape of each version.
func checkFetch(r *groupRig, id string, v int16, epochs bool) {
	r.t.Helper()
	for _, all := range []bool{false, true} {
		if all && v < 2 {
			continue
		}
		f := kmsg.NewPtrOffsetFetchRequest()
		f.Group = id
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = id
		if !all {
			f.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "orders", Partitions: []int32{0, 1}}}
			g.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: "orders", TopicID: ordersID, Partitions: []int32{0, 1}}}
		}
		f.Groups = []kmsg.OffsetFetchRequestGroup{g}
		a := r.do(f, v).(*kmsg.OffsetFetchResponse)
		var got []int64
		epoch := int32(-1)
		for _, t := range a.Topics {
			for _, p := range t.Partitions {
				got, epoch = append(got, p.Offset), max(epoch, p.LeaderEpoch)
			}
		}
		for _, g := range a.Groups {
			for _, t := range g.Topics {
				if v >= 10 && t.TopicID != ordersID || v < 10 && t.Topic != "orders" {
					r.t.Fatalf("fetch v%d: topic %q %v", v, t.Topic, t.TopicID)
				}
				for _, p := range t.Partitions {
					got, epoch = append(got, p.Offset), max(epoch, p.LeaderEpoch)
				}
			}
		}
		want := []int64{7, -1}
		if all {
			want = []int64{7, 7}
		}
		if !slices.Equal(got, want) || v >= 5 && epochs != (epoch == 5) {
			r.t.Fatalf("fetch v%d all=%v: %v epoch %d", v, all, got, epoch)
		}
	}
}

// checkOperators lists, describes and deletes the eleven groups of the test before.
func checkOperators(r *groupRig) {
	t := r.t
	t.Helper()
	for v := range int16(6) {
		l := kmsg.NewPtrListGroupsRequest()
		l.StatesFilter, l.TypesFilter = []string{"Empty"}, []string{"classic"}
		if a := r.do(l, v).(*kmsg.ListGroupsResponse); a.ErrorCode != 0 || len(a.Groups) != 11 || a.Groups[0].Group != "group-0" {
			t.Fatalf("list v%d: %+v", v, a)
		}
	}
	for v := range int16(7) {
		d := kmsg.NewPtrDescribeGroupsRequest()
		d.Groups, d.IncludeAuthorizedOperations = []string{"group-1", "none", "group-2"}, true
		a := r.do(d, v).(*kmsg.DescribeGroupsResponse)
		if len(a.Groups) != 3 || a.Groups[0].State != "Empty" || a.Groups[1].State != "Dead" || a.Groups[2].Group != "group-2" {
			t.Fatalf("describe v%d: %+v", v, a)
		}
		if (a.Groups[1].ErrorCode == kerr.GroupIDNotFound.Code) != (v >= 6) || v >= 3 && a.Groups[0].AuthorizedOperations != groupOperations {
			t.Fatalf("describe v%d: %+v", v, a)
		}
	}
	od := kmsg.NewPtrOffsetDeleteRequest()
	od.Group = "group-1"
	od.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}, {Partition: 50}}}}
	if a := r.do(od, 0).(*kmsg.OffsetDeleteResponse); a.ErrorCode != 0 || a.Topics[0].Partitions[0].ErrorCode != 0 || a.Topics[1].Partitions[0].ErrorCode != kerr.UnknownTopicOrPartition.Code {
		t.Fatalf("offset delete: %+v", a)
	}
	for v := range int16(3) {
		d := kmsg.NewPtrDeleteGroupsRequest()
		d.Groups = []string{fmt.Sprintf("group-%d", v), "none"}
		a := r.do(d, v).(*kmsg.DeleteGroupsResponse)
		if a.Groups[0].ErrorCode != 0 || a.Groups[1].ErrorCode != kerr.GroupIDNotFound.Code {
			t.Fatalf("delete v%d: %+v", v, a)
		}
	}
}

// TestWithoutCoordinator: every API says NOT_COORDINATOR in its own shape, at every version.
func TestWithoutCoordinator(t *testing.T) {
	r := startGroups(t)
	want := kerr.NotCoordinator.Code
	check := func(what string, v, got int16) {
		t.Helper()
		if got != want {
			t.Errorf("%s v%d: %d", what, v, got)
		}
	}
	for v := range int16(11) {
		if v <= 9 {
			check("join", v, r.do(joinRequest("g", ""), v).(*kmsg.JoinGroupResponse).ErrorCode)
		}
		if v <= 5 {
			check("sync", v, r.do(&kmsg.SyncGroupRequest{Group: "g"}, v).(*kmsg.SyncGroupResponse).ErrorCode)
			check("leave", v, r.do(&kmsg.LeaveGroupRequest{Group: "g"}, v).(*kmsg.LeaveGroupResponse).ErrorCode)
		}
		if v <= 4 {
			check("heartbeat", v, r.do(&kmsg.HeartbeatRequest{Group: "g"}, v).(*kmsg.HeartbeatResponse).ErrorCode)
		}
		if v <= 6 {
			check("describe", v, r.do(&kmsg.DescribeGroupsRequest{Groups: []string{"g"}}, v).(*kmsg.DescribeGroupsResponse).Groups[0].ErrorCode)
		}
		if v <= 2 {
			check("delete", v, r.do(&kmsg.DeleteGroupsRequest{Groups: []string{"g"}}, v).(*kmsg.DeleteGroupsResponse).Groups[0].ErrorCode)
		}
		if v >= 2 {
			a := r.do(commitRequest("g", "", -1, 1), v).(*kmsg.OffsetCommitResponse)
			check("commit", v, a.Topics[1].Partitions[0].ErrorCode)
		}
		if v >= 1 {
			f := kmsg.NewPtrOffsetFetchRequest()
			f.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
			f.Groups = []kmsg.OffsetFetchRequestGroup{{Group: "g"}}
			a := r.do(f, v).(*kmsg.OffsetFetchResponse)
			switch {
			case v < 2:
				check("fetch", v, a.Topics[0].Partitions[0].ErrorCode)
			case v < 8:
				check("fetch", v, a.ErrorCode)
			default:
				check("fetch", v, a.Groups[0].ErrorCode)
			}
		}
	}
	check("offset delete", 0, r.do(&kmsg.OffsetDeleteRequest{Group: "g"}, 0).(*kmsg.OffsetDeleteResponse).ErrorCode)
	if a := r.do(&kmsg.ListGroupsRequest{}, 5).(*kmsg.ListGroupsResponse); a.ErrorCode != 0 || len(a.Groups) != 0 {
		t.Errorf("list: %+v", a)
	}
}

func TestFindCoordinator(t *testing.T) {
	r := startGroups(t)
	for v := range int16(7) {
		q := kmsg.NewPtrFindCoordinatorRequest()
		q.CoordinatorKey, q.CoordinatorKeys = "g", []string{"g", "h"}
		a := r.do(q, v).(*kmsg.FindCoordinatorResponse)
		got := a.Coordinators
		if v < 4 {
			got = []kmsg.FindCoordinatorResponseCoordinator{{Key: "g", NodeID: a.NodeID, Host: a.Host, Port: a.Port, ErrorCode: a.ErrorCode}}
		} else if len(got) != 2 || got[1].Key != "h" {
			t.Fatalf("v%d: %+v", v, got)
		}
		for _, c := range got {
			if c.NodeID != 1 || c.Host != "one.example" || c.Port != 9092 || c.ErrorCode != 0 {
				t.Fatalf("v%d: %+v", v, c)
			}
		}
		if v == 0 {
			continue
		}
		for kind, want := range map[int8]*kerr.Error{coordinatorShare: kerr.UnsupportedVersion, 7: kerr.InvalidRequest} {
			if kind == coordinatorShare && v < 6 {
				want = kerr.InvalidRequest
			}
			q.CoordinatorType = kind
			a := r.do(q, v).(*kmsg.FindCoordinatorResponse)
			code := a.ErrorCode
			if v >= 4 {
				code = a.Coordinators[0].ErrorCode
			}
			if code != want.Code {
				t.Errorf("v%d type %d: %d, want %s", v, kind, code, want.Message)
			}
		}
	}
	im, _, err := r.im.Load().Apply([]meta.Change{meta.PutPartition(meta.UUID{2}, shard.PartitionFor("g", 4), &meta.Partition{Replicas: []int32{1}, ISR: []int32{1}, Leader: meta.NoLeader, LeaderEpoch: 1, PartitionEpoch: 1})}, 2)
	if err != nil {
		t.Fatal(err)
	}
	r.im.Store(im)
	q := kmsg.NewPtrFindCoordinatorRequest()
	q.CoordinatorKey = "g"
	if a := r.do(q, 3).(*kmsg.FindCoordinatorResponse); a.ErrorCode != kerr.CoordinatorNotAvailable.Code {
		t.Errorf("no leader: %+v", a)
	}
}

func (l *memLog) Admit(int64, int16, any) error { return nil }
