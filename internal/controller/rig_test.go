package controller_test

import (
	"context"
	"fmt"
	"slices"
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
)

// rig is several controllers on one history, and the brokers that beat to all of them.
type rig struct {
	t     *testing.T
	ctx   context.Context
	h     *memstore.History
	conns atomic.Uint64
	mu    sync.Mutex
	nodes map[int32]*node
}

// node is one process: a store, a controller, a broker.
type node struct {
	id    int32
	r     *rig
	store coord.Store
	ctl   *controller.Controller
	conn  uint64
	beats atomic.Pointer[kmsg.BrokerHeartbeatRequest] // what it says each time; nil: nothing
	last  atomic.Pointer[kmsg.BrokerHeartbeatResponse]
	stop  func()
}

func newRig(t *testing.T, settings ...string) *rig {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	r := &rig{t: t, ctx: ctx, h: memstore.New().Elect(), nodes: map[int32]*node{}}
	for id := range int32(3) {
		r.start(id+1, settings...)
	}
	return r
}

func (r *rig) start(id int32, settings ...string) *node {
	st, err := config.Parse(append([]string{fmt.Sprintf("node.id=%d", id), "broker.session.timeout.ms=5000"}, settings...), nil, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	n := &node{id: id, r: r, conn: r.conns.Add(1)}
	n.store = r.h.Node(coord.Identity{NodeID: id, Incarnation: meta.UUID{byte(id)}, Peer: fmt.Sprintf("h%d:1", id)})
	n.ctl = controller.New(controller.Options{Store: n.store, NodeID: id, Static: st, NewID: ids(byte(id)), Rand: func(int) int { return 0 }, Settle: 300 * time.Millisecond})
	if err := n.ctl.Start(r.ctx); err != nil {
		r.t.Fatal(err)
	}
	if err := n.ctl.Ready(r.ctx); err != nil {
		r.t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	r.mu.Lock()
	r.nodes[id] = n
	r.mu.Unlock()
	wg.Go(func() {
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-tick.C:
				n.beat()
			case <-done:
				return
			}
		}
	})
	n.stop = sync.OnceFunc(func() {
		close(done)
		wg.Wait()
		n.ctl.Close()
		n.store.Close()
	})
	r.t.Cleanup(n.stop)
	return n
}

// beat sends one heartbeat to every controller.
func (n *node) beat() {
	b := n.beats.Load()
	if b == nil {
		return
	}
	q := *b
	q.CurrentMetadataOffset = n.ctl.Image().Revision()
	for _, o := range n.r.all() {
		resp := o.ctl.Handle(n.r.ctx, n.conn, &q).(*kmsg.BrokerHeartbeatResponse)
		if resp.ErrorCode == 0 {
			n.last.Store(resp)
		}
	}
}

func (r *rig) all() []*node {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*node
	for _, n := range r.nodes {
		out = append(out, n)
	}
	return out
}

// kill ends a process as SIGKILL does: nothing is said, its connections close.
func (r *rig) kill(n *node) {
	r.mu.Lock()
	delete(r.nodes, n.id)
	r.mu.Unlock()
	n.stop()
	for _, o := range r.all() {
		o.ctl.Closed(n.conn)
	}
}

// ask sends a request to whoever leads, until somebody does.
func (r *rig) ask(req kmsg.Request) kmsg.Response {
	for r.ctx.Err() == nil {
		for _, n := range r.all() {
			resp := n.ctl.Handle(r.ctx, n.conn, req)
			if !refused(resp) {
				return resp
			}
		}
	}
	r.t.Fatal("nobody leads")
	return nil
}

// refused says that the request has to go elsewhere: whoever was asked does not lead, or is closing.
func refused(resp kmsg.Response) bool {
	code := int16(0)
	switch x := resp.(type) {
	case *kmsg.BrokerRegistrationResponse:
		code = x.ErrorCode
	case *kmsg.AlterPartitionResponse:
		code = x.ErrorCode
	case *kmsg.AllocateProducerIDsResponse:
		code = x.ErrorCode
	case *kmsg.AssignReplicasToDirsResponse:
		code = x.ErrorCode
	}
	return code == kerr.NotController.Code || code == kerr.BrokerNotAvailable.Code
}

func (r *rig) leader() *node {
	for r.ctx.Err() == nil {
		for _, n := range r.all() {
			if n.ctl.Leads() {
				return n
			}
		}
	}
	r.t.Fatal("nobody leads")
	return nil
}

func registration(id int32, incarnation byte) *kmsg.BrokerRegistrationRequest {
	q := kmsg.NewPtrBrokerRegistrationRequest()
	q.Version, q.BrokerID, q.IncarnationID = 4, id, meta.UUID{incarnation, byte(id)}
	l := kmsg.NewBrokerRegistrationRequestListener()
	l.Name, l.Host, l.Port = "PLAINTEXT", "h", 1
	q.Listeners = append(q.Listeners, l)
	q.LogDirs = [][16]byte{{1, byte(id)}, {2, byte(id)}}
	for _, f := range control.Supported() {
		q.Features = append(q.Features, kmsg.BrokerRegistrationRequestFeature{Name: f.Name, MinSupportedVersion: f.Min, MaxSupportedVersion: f.Max})
	}
	q.Features = append(q.Features, kmsg.BrokerRegistrationRequestFeature{Name: control.FeatureIntact, MaxSupportedVersion: 1})
	return q
}

// join registers a broker and waits until everybody sees it take part.
func (r *rig) join(n *node, incarnation byte) int64 {
	resp := r.ask(registration(n.id, incarnation)).(*kmsg.BrokerRegistrationResponse)
	if resp.ErrorCode != 0 {
		r.t.Fatalf("broker %d: %v", n.id, kerr.ErrorForCode(resp.ErrorCode))
	}
	b := kmsg.NewPtrBrokerHeartbeatRequest()
	b.Version, b.BrokerID, b.BrokerEpoch = 1, n.id, resp.BrokerEpoch
	n.beats.Store(b)
	r.until(fmt.Sprintf("broker %d takes part", n.id), func(im *meta.Image) bool {
		x := im.Broker(n.id)
		return x != nil && !x.Fenced && x.Epoch == resp.BrokerEpoch
	})
	return resp.BrokerEpoch
}

// until waits until the images of all nodes show something.
func (r *rig) until(what string, ok func(*meta.Image) bool) {
	r.t.Helper()
	for _, n := range r.all() {
		changed := make(chan struct{}, 1)
		n.ctl.Subscribe(func(*meta.Image, *meta.Delta) {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
		for !ok(n.ctl.Image()) {
			select {
			case <-changed:
			case <-time.After(20 * time.Millisecond): // a subscriber is called before Image shows the change
			case <-r.ctx.Done():
				r.t.Fatalf("broker %d never sees: %s", n.id, what)
			}
		}
	}
}

func (r *rig) three() {
	for _, n := range r.all() {
		r.join(n, 1)
	}
}

func (r *rig) topic(name string, parts int32, replicas ...int32) {
	r.t.Helper()
	as := map[int32][]int32{}
	for p := range parts {
		k := int(p) % len(replicas)
		as[p] = append(slices.Clone(replicas[k:]), replicas[:k]...)
	}
	w := control.NewTopic{Name: name, Partitions: -1, Factor: -1, Assignment: as}
	if res := r.leader().ctl.CreateTopics(r.ctx, []control.NewTopic{w}, false); res[0].Err != nil {
		r.t.Fatal(res[0].Err)
	}
	r.until(name+" is there", func(im *meta.Image) bool { return im.Topic(name) != nil })
}

// led counts the partitions that a broker leads.
func led(im *meta.Image, id int32) int {
	n := 0
	for _, t := range im.Topics() {
		for _, p := range t.Partitions {
			if p.Leader == id {
				n++
			}
		}
	}
	return n
}

func wait(ctx context.Context) error {
	select {
	case <-time.After(5 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// propose asks for an ISR as the leader of a partition.
func (r *rig) propose(topic string, n int32, isr ...int32) *kmsg.AlterPartitionResponse {
	im := r.leader().ctl.Image()
	t, p := im.Topic(topic), im.Partition(topic, n)
	q := kmsg.NewPtrAlterPartitionRequest()
	q.Version, q.BrokerID, q.BrokerEpoch = 3, p.Leader, im.Broker(p.Leader).Epoch
	qt := kmsg.NewAlterPartitionRequestTopic()
	qt.TopicID = t.ID
	qp := kmsg.NewAlterPartitionRequestTopicPartition()
	qp.Partition, qp.LeaderEpoch, qp.PartitionEpoch = n, p.LeaderEpoch, p.PartitionEpoch
	for _, id := range isr {
		m := kmsg.NewAlterPartitionRequestTopicPartitionNewEpochISR()
		m.BrokerID, m.BrokerEpoch = id, im.Broker(id).Epoch
		qp.NewEpochISR = append(qp.NewEpochISR, m)
	}
	qt.Partitions = append(qt.Partitions, qp)
	q.Topics = append(q.Topics, qt)
	return r.ask(q).(*kmsg.AlterPartitionResponse)
}
