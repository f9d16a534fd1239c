package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/controller"
	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/coord/memstore"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/metric"
	"github.com/milena-mq/milena/internal/peer"
	"github.com/milena-mq/milena/internal/server"
)

// gate is a store whose appends can be held up, as by a slow disk.
type gate struct {
	coord.Store
	sync.Mutex // held: nothing is appended
}

func (g *gate) Append(ctx context.Context, t *coord.Term, cs []meta.Change) (coord.Revision, error) {
	g.Lock()
	defer g.Unlock()
	return g.Store.Append(ctx, t, cs)
}

// adminNode is one broker of a cluster without data path: a real controller on the shared store, a client listener
// and a peer listener, and requests forwarded over real connections.
type adminNode struct {
	t     *testing.T
	id    int32
	ctl   *controller.Controller
	env   *Env
	store *gate
	addr  [2]string // client, peer
	all   *[]*adminNode
	pool  *peer.Pool
	fail  atomic.Pointer[error] // what Forward answers instead
	conns [2]*client
}

// startAdminCluster starts n brokers; the first one leads.
func startAdminCluster(t *testing.T, n int, change ...func(*Env)) []*adminNode {
	t.Helper()
	h := memstore.New().Elect()
	nodes := make([]*adminNode, 0, n)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	var ids atomic.Uint32
	for i := range n {
		nodes = append(nodes, startAdminNode(ctx, t, h, int32(i+1), &ids, &nodes, change))
	}
	for _, b := range nodes {
		epoch, err := nodes[0].ctl.RegisterBroker(ctx, control.Registration{
			ID: b.id, Incarnation: meta.UUID{byte(b.id)}, PreviousEpoch: -1, Rack: fmt.Sprintf("r%d", b.id),
			Endpoints: []meta.Endpoint{{Listener: "PLAINTEXT", Host: fmt.Sprintf("b%d.example", b.id), Port: 9092}, {Listener: config.PeerListenerName, Host: "127.0.0.1", Port: 1}},
		})
		if err == nil {
			err = nodes[0].ctl.UnfenceBroker(ctx, b.id, epoch)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range nodes {
		b.ctl.AwaitImage(ctx, func(im *meta.Image) bool { return len(im.Alive()) == n })
	}
	return nodes
}

func startAdminNode(ctx context.Context, t *testing.T, h *memstore.History, id int32, ids *atomic.Uint32, all *[]*adminNode, change []func(*Env)) *adminNode {
	b := &adminNode{t: t, id: id, all: all, pool: peer.NewPool(&peer.Dialer{ClientID: fmt.Sprint(id)})}
	b.store = &gate{Store: h.Node(coord.Identity{NodeID: id, Incarnation: meta.UUID{byte(id)}})}
	static := config.StaticOf(map[string]string{"num.partitions": "2", "node.id": fmt.Sprint(id), "offsets.topic.num.partitions": "4"})
	b.ctl = controller.New(controller.Options{Store: b.store, NodeID: id, Static: static, Rand: func(int) int { return 0 },
		NewID: func() meta.UUID { return meta.UUID{0: 1, 12: byte(ids.Add(1) >> 8), 13: byte(ids.Load())} }})
	if err := b.ctl.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.ctl.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	b.env = &Env{
		NodeID: id, Image: b.ctl.Image, Controller: b.ctl, Static: static, Log: log, Metrics: metric.New(), Clock: time.Now,
		Leads: b.ctl.Leads, Forward: b.forward, Epoch: func() int64 { return b.ctl.Image().Broker(id).Epoch },
	}
	for _, c := range change {
		c(b.env)
	}
	o := server.Options{Handler: New(b.env), Log: log, Metrics: b.env.Metrics, Grace: 100 * time.Millisecond}
	for i, name := range []string{"PLAINTEXT", config.PeerListenerName} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		b.addr[i] = ln.Addr().String()
		o.Listeners = append(o.Listeners, server.ListenerOptions{Name: name, Peer: i == 1, Listener: ln})
	}
	srv := server.New(o)
	srv.Start()
	t.Cleanup(func() {
		b.pool.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if n := b.env.Metrics.Counter("milena_server_panics_total", "").Value(); n != 0 {
			t.Errorf("%d panics", n)
		}
		_ = b.ctl.Close()
		_ = b.store.Close()
	})
	for i := range b.addr {
		c, err := net.Dial("tcp", b.addr[i])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		b.conns[i] = &client{t: t, c: c, id: "test"}
	}
	return b
}

// forward is what package member does, as far as a test without failures needs it.
func (b *adminNode) forward(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	if e := b.fail.Load(); e != nil {
		return nil, *e
	}
	for _, o := range *b.all {
		if o.ctl.Leads() {
			if o == b {
				return o.ctl.Handle(ctx, 0, req), nil
			}
			return b.pool.Do(ctx, o.addr[1], req)
		}
	}
	return nil, kerr.NotController
}

// ask sends a request to the client listener.
func (b *adminNode) ask(req kmsg.Request, version int16) kmsg.Response {
	b.t.Helper()
	req.SetVersion(version)
	return b.conns[0].do(req)
}

// askPeer sends a request to the peer listener.
func (b *adminNode) askPeer(req kmsg.Request, version int16) kmsg.Response {
	b.t.Helper()
	req.SetVersion(version)
	return b.conns[1].do(req)
}

func code(t *testing.T, what string, got int16, want *kerr.Error) {
	t.Helper()
	c := int16(0)
	if want != nil {
		c = want.Code
	}
	if got != c {
		t.Errorf("%s: %v, want %v", what, kerr.ErrorForCode(got), want)
	}
}

// errorsOf lists every error code of an answer, its own first.
func errorsOf(resp kmsg.Response) []int16 {
	switch r := resp.(type) {
	case *kmsg.CreateTopicsResponse:
		return each(r.Topics, func(x kmsg.CreateTopicsResponseTopic) int16 { return x.ErrorCode })
	case *kmsg.DeleteTopicsResponse:
		return each(r.Topics, func(x kmsg.DeleteTopicsResponseTopic) int16 { return x.ErrorCode })
	case *kmsg.CreatePartitionsResponse:
		return each(r.Topics, func(x kmsg.CreatePartitionsResponseTopic) int16 { return x.ErrorCode })
	case *kmsg.AlterConfigsResponse:
		return each(r.Resources, func(x kmsg.AlterConfigsResponseResource) int16 { return x.ErrorCode })
	case *kmsg.IncrementalAlterConfigsResponse:
		return each(r.Resources, func(x kmsg.IncrementalAlterConfigsResponseResource) int16 { return x.ErrorCode })
	case *kmsg.ElectLeadersResponse:
		if r.Version >= 1 {
			return []int16{r.ErrorCode}
		}
		return each(r.Topics, func(x kmsg.ElectLeadersResponseTopic) int16 { return x.Partitions[0].ErrorCode })
	case *kmsg.AlterPartitionAssignmentsResponse:
		return []int16{r.ErrorCode}
	case *kmsg.ListPartitionReassignmentsResponse:
		return []int16{r.ErrorCode}
	case *kmsg.DescribeQuorumResponse:
		return []int16{r.ErrorCode}
	case *kmsg.UnregisterBrokerResponse:
		return []int16{r.ErrorCode}
	case *kmsg.UpdateFeaturesResponse:
		return []int16{r.ErrorCode}
	case *kmsg.AddRaftVoterResponse:
		return []int16{r.ErrorCode}
	case *kmsg.RemoveRaftVoterResponse:
		return []int16{r.ErrorCode}
	case *kmsg.AlterPartitionResponse:
		return []int16{r.ErrorCode}
	case *kmsg.BrokerRegistrationResponse:
		return []int16{r.ErrorCode}
	case *kmsg.BrokerHeartbeatResponse:
		return []int16{r.ErrorCode}
	case *kmsg.AllocateProducerIDsResponse:
		return []int16{r.ErrorCode}
	case *kmsg.AssignReplicasToDirsResponse:
		return []int16{r.ErrorCode}
	}
	return nil
}

func each[T any](in []T, f func(T) int16) []int16 {
	out := make([]int16, len(in))
	for i := range in {
		out[i] = f(in[i])
	}
	return out
}

// small is a request of every API that only a controller serves, with one item where items have the errors.
func small(key int16) kmsg.Request {
	name := "t"
	switch req := kmsg.RequestForKey(key).(type) {
	case *kmsg.CreateTopicsRequest:
		return newCreate("t", 1, 1)
	case *kmsg.DeleteTopicsRequest:
		req.TopicNames = []string{name}
		req.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: &name}}
		return req
	case *kmsg.CreatePartitionsRequest:
		req.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: name, Count: 9}}
		return req
	case *kmsg.AlterConfigsRequest:
		req.Resources = []kmsg.AlterConfigsRequestResource{{ResourceType: 2, ResourceName: name}}
		return req
	case *kmsg.IncrementalAlterConfigsRequest:
		req.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: 2, ResourceName: name}}
		return req
	case *kmsg.ElectLeadersRequest:
		req.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: name, Partitions: []int32{0}}}
		return req
	case *kmsg.AlterPartitionAssignmentsRequest:
		req.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{{Topic: name, Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Partition: 0, Replicas: []int32{1}}}}}
		return req
	default:
		return req
	}
}

// TestRequestsOfTheControllerAreRefusedWhereTheyCannotBeServed: for every row that only the controller serves and every
// version, each way in which it cannot be reached has that API's own error.
func TestRequestsOfTheControllerAreRefusedWhereTheyCannotBeServed(t *testing.T) {
	nodes := startAdminCluster(t, 2)
	b := nodes[1]
	for i := range table {
		r := &table[i]
		if r.Route != Controller {
			continue
		}
		if r.On != Both || r.Flow != Serial {
			t.Errorf("%s: forwarded to the peer listener, it has to be served there, and a client waits for it", r.Name())
		}
		for v := r.Min; v <= r.Max; v++ {
			for _, c := range []struct {
				err  error
				want *kerr.Error
			}{
				{errors.New("refused"), kerr.NotController},
				{context.DeadlineExceeded, kerr.RequestTimedOut},
				{fmt.Errorf("no answer: %w", kerr.RequestTimedOut), kerr.RequestTimedOut},
				{fmt.Errorf("not reached: %w", kerr.NotController), kerr.NotController},
			} {
				b.fail.Store(&c.err)
				got := errorsOf(b.ask(small(r.Key), v))
				if len(got) == 0 {
					t.Errorf("%s version %d: no place for an error", r.Name(), v)
				}
				for _, g := range got {
					code(t, fmt.Sprintf("%s version %d, %v", r.Name(), v, c.err), g, c.want)
				}
			}
			b.fail.Store(nil)
			for _, g := range errorsOf(b.askPeer(small(r.Key), v)) { // no broker forwards what was forwarded to it
				code(t, fmt.Sprintf("%s version %d on the peer listener", r.Name(), v), g, kerr.NotController)
			}
		}
	}
}

// TestClientsMayNotSpeakForBrokers: what only brokers may send gets CLUSTER_AUTHORIZATION_FAILED on a client listener, at
// every version that can be read, and the connection lives on.
func TestClientsMayNotSpeakForBrokers(t *testing.T) {
	b := startAdminCluster(t, 1)[0]
	before := b.ctl.Image().Revision()
	keys := 0
	for i := range table {
		r := &table[i]
		if r.On != Peer {
			continue
		}
		keys++
		for v := int16(0); v <= r.Max; v++ {
			for _, g := range errorsOf(b.ask(small(r.Key), v)) {
				code(t, fmt.Sprintf("%s version %d", r.Name(), v), g, kerr.ClusterAuthorizationFailed)
			}
		}
	}
	if keys != 5 {
		t.Errorf("%d keys between brokers", keys)
	}
	if now := b.ctl.Image().Revision(); now != before {
		t.Errorf("the metadata moved from %d to %d", before, now)
	}
	for v := int16(4); v <= 18; v++ {
		req := newFetch(v, "t", meta.UUID{1}, map[int32]int64{0: 5})
		if req.ReplicaID = 2; v >= 15 {
			req.ReplicaID, req.ReplicaState.ID = -1, 2
		}
		resp := b.ask(req, v).(*kmsg.FetchResponse)
		got := resp.ErrorCode
		if v < 7 {
			got = resp.Topics[0].Partitions[0].ErrorCode
		}
		code(t, fmt.Sprintf("fetch version %d as a replica", v), got, kerr.ClusterAuthorizationFailed)
	}
}

// TestAdminRequestsAreForwarded: any broker does what only the controller can, and then shows it.
func TestAdminRequestsAreForwarded(t *testing.T) {
	nodes := startAdminCluster(t, 3)
	if !nodes[0].ctl.Leads() || nodes[1].ctl.Leads() {
		t.Fatal("the first broker does not lead alone")
	}
	b := nodes[1]
	for v := int16(2); v <= 7; v++ {
		name := fmt.Sprintf("t%d", v)
		got := b.ask(newCreate(name, 2, 3), v).(*kmsg.CreateTopicsResponse).Topics[0]
		code(t, "create", got.ErrorCode, nil)
		m := b.ask(newMetadata(false, name), 12).(*kmsg.MetadataResponse).Topics[0]
		if code(t, "metadata at once", m.ErrorCode, nil); len(m.Partitions) != 2 || len(m.Partitions[0].Replicas) != 3 {
			t.Errorf("version %d: %+v", v, m)
		}
		code(t, "create again", b.ask(newCreate(name, 2, 3), v).(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode, kerr.TopicAlreadyExists)
	}
	for v := int16(0); v <= 3; v++ {
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.TimeoutMillis = 10_000
		req.Topics = []kmsg.CreatePartitionsRequestTopic{{Topic: "t2", Count: int32(v) + 3}}
		code(t, "grow", errorsOf(b.ask(req, v))[0], nil)
		if n := len(b.ask(newMetadata(false, "t2"), 12).(*kmsg.MetadataResponse).Topics[0].Partitions); n != int(v)+3 {
			t.Errorf("%d partitions", n)
		}
	}
	for v := int16(0); v <= 1; v++ {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: 2, ResourceName: "t2",
			Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: "retention.ms", Value: kmsg.StringPtr(fmt.Sprint(1000 + v))}}}}
		code(t, "alter", errorsOf(b.ask(req, v))[0], nil)
		d := kmsg.NewPtrDescribeConfigsRequest()
		one := resource(2, "t2")
		one.ConfigNames = []string{"retention.ms"}
		d.Resources = append(d.Resources, one)
		if got := b.ask(d, 4).(*kmsg.DescribeConfigsResponse).Resources[0].Configs[0]; *got.Value != fmt.Sprint(1000+v) {
			t.Errorf("described %s", *got.Value)
		}
	}
	for v := int16(1); v <= 6; v++ {
		name := fmt.Sprintf("t%d", v+1)
		del := kmsg.NewPtrDeleteTopicsRequest()
		del.TimeoutMillis, del.TopicNames, del.Topics = 10_000, []string{name}, []kmsg.DeleteTopicsRequestTopic{{Topic: &name}}
		code(t, "delete", errorsOf(b.ask(del, v))[0], nil)
		code(t, "gone at once", b.ask(newMetadata(false, name), 12).(*kmsg.MetadataResponse).Topics[0].ErrorCode, kerr.UnknownTopicOrPartition)
	}
}

// TestFirstUseByWayOfTheController: topics are made on first use by a broker that is not the controller, coordinators'
// topics with the settings they need.
func TestFirstUseByWayOfTheController(t *testing.T) {
	nodes := startAdminCluster(t, 3)
	b := nodes[2]
	m := b.ask(newMetadata(true, "fresh", "bad/name"), 12).(*kmsg.MetadataResponse)
	code(t, "on first use", m.Topics[0].ErrorCode, nil)
	code(t, "bad name", m.Topics[1].ErrorCode, kerr.InvalidTopicException)
	if len(m.Topics[0].Partitions) != 2 || len(m.Brokers) != 3 || m.ControllerID != 1 {
		t.Errorf("%+v", m)
	}
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.CoordinatorKeys = []string{"g"}
	f := b.ask(find, 4).(*kmsg.FindCoordinatorResponse).Coordinators[0]
	if code(t, "coordinator", f.ErrorCode, nil); f.NodeID < 1 || f.Host != fmt.Sprintf("b%d.example", f.NodeID) {
		t.Errorf("%+v", f)
	}
	im := b.ctl.Image()
	top := im.Topic("__consumer_offsets")
	if top == nil || !top.Internal || len(top.Partitions) != 4 || len(top.Partitions[0].Replicas) != 3 {
		t.Fatalf("%+v", top)
	}
	if cf := im.Config(meta.Resource{Type: meta.ResourceTopic, Name: top.Name}); cf["cleanup.policy"] != "compact" {
		t.Errorf("made with %v", cf)
	}
	// With no controller to be had the client is told to ask again, in words that it understands.
	why := error(kerr.NotController)
	b.fail.Store(&why)
	code(t, "no controller", b.ask(newMetadata(true, "later"), 12).(*kmsg.MetadataResponse).Topics[0].ErrorCode, kerr.UnknownTopicOrPartition)
}

// TestProducerIDsByWayOfTheController: blocks come from the controller, no id twice, whoever asks.
func TestProducerIDsByWayOfTheController(t *testing.T) {
	nodes := startAdminCluster(t, 2)
	seen := map[int64]bool{}
	for range 1200 { // more than a block
		for _, b := range nodes {
			r := b.ask(kmsg.NewPtrInitProducerIDRequest(), 4).(*kmsg.InitProducerIDResponse)
			if r.ErrorCode != 0 || seen[r.ProducerID] {
				t.Fatalf("id %d: %v", r.ProducerID, kerr.ErrorForCode(r.ErrorCode))
			}
			seen[r.ProducerID] = true
		}
	}
	lost := startAdminCluster(t, 2)[1]
	why := error(kerr.NotController)
	lost.fail.Store(&why)
	code(t, "no controller", lost.ask(kmsg.NewPtrInitProducerIDRequest(), 4).(*kmsg.InitProducerIDResponse).ErrorCode, kerr.CoordinatorLoadInProgress)
	lost.fail.Store(nil)
	code(t, "controller is back", lost.ask(kmsg.NewPtrInitProducerIDRequest(), 4).(*kmsg.InitProducerIDResponse).ErrorCode, nil)
}

// TestSlowStoreHoldsNoHeartbeatUp: a request that waits for the store must not keep the heartbeats behind it, on the same
// connection, from being heard.
func TestSlowStoreHoldsNoHeartbeatUp(t *testing.T) {
	nodes := startAdminCluster(t, 2)
	ctl := nodes[0]
	epoch := ctl.ctl.Image().Broker(2).Epoch
	ctl.store.Lock()
	held := true
	defer func() {
		if held {
			ctl.store.Unlock()
		}
	}()
	c := nodes[0].conns[1]
	create := newCreate("slow", 1, 1)
	create.Version = 7
	c.send(create)
	ids := kmsg.NewPtrAllocateProducerIDsRequest()
	ids.BrokerID, ids.BrokerEpoch = 2, epoch
	c.send(ids)
	beat := kmsg.NewPtrBrokerHeartbeatRequest()
	beat.Version, beat.BrokerID, beat.BrokerEpoch, beat.CurrentMetadataOffset = 1, 2, epoch, 1<<40
	c.send(beat)
	for end := time.Now().Add(10 * time.Second); ; {
		if seen, _, ok := ctl.ctl.Heard(2); ok && seen == 1<<40 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the heartbeat waits for the store")
		}
	}
	ctl.store.Unlock()
	held = false
	for _, req := range []kmsg.Request{create, ids, beat} {
		resp, err := c.receive(req)
		if err != nil {
			t.Fatal(err)
		}
		code(t, fmt.Sprintf("%T", resp), errorsOf(resp)[0], nil)
	}
}
