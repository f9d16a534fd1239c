package member_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
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
	"github.com/milena-mq/milena/internal/member"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/peer"
	"github.com/milena-mq/milena/internal/vfs"
	"github.com/milena-mq/milena/internal/wire"
)

const patience = 40 * time.Second

// rig is several brokers, each with a controller behind a real socket, on one history.
type rig struct {
	t     *testing.T
	ctx   context.Context
	h     *memstore.History
	conns atomic.Uint64
	mu    sync.Mutex
	nodes map[int32]*node
	addrs []string
}

type node struct {
	r      *rig
	id     int32
	lis    net.Listener
	store  coord.Store
	ctl    *controller.Controller
	m      *member.Member
	regs   chan int64 // epochs that Registered was told
	failed chan error
	frozen atomic.Bool // nothing is answered
	deaf   atomic.Bool // its heartbeats are not heard by anybody
	open   atomic.Int64
	seen   atomic.Int64 // CreateTopics requests that arrived
	hangUp atomic.Bool  // on CreateTopics
	mu     sync.Mutex
	socks  map[net.Conn]bool
	closed bool
	wg     sync.WaitGroup
	stop   func()
}

func newRig(t *testing.T, settings ...string) *rig {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	r := &rig{t: t, ctx: ctx, h: memstore.New().Elect(), nodes: map[int32]*node{}}
	var list []*node
	for id := range int32(3) {
		list = append(list, r.listen(id+1))
	}
	for _, n := range list {
		r.start(n, nil, settings...)
	}
	return r
}

func (r *rig) listen(id int32) *node {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	if len(r.addrs) < 3 { // the quorum; those who join later only read it
		r.addrs = append(r.addrs, lis.Addr().String())
	}
	return &node{r: r, id: id, lis: lis, regs: make(chan int64, 100), failed: make(chan error, 1), socks: map[net.Conn]bool{}}
}

func parse(t *testing.T, settings ...string) *config.Static {
	t.Helper()
	st, err := config.Parse(append([]string{"broker.session.timeout.ms=2000", "broker.heartbeat.interval.ms=20"}, settings...), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func ids(node byte) func() meta.UUID {
	var n atomic.Uint64
	return func() (u meta.UUID) {
		binary.BigEndian.PutUint64(u[8:], n.Add(1))
		u[0], u[1] = 1, node
		return u
	}
}

// registration is what broker id says about itself.
func registration(id int32, incarnation byte, addr string) control.Registration {
	host, port, _ := net.SplitHostPort(addr)
	var p int32
	_, _ = fmt.Sscan(port, &p)
	return control.Registration{ID: id, Incarnation: meta.UUID{incarnation, byte(id)}, PreviousEpoch: -1, Dirs: []meta.UUID{{9, byte(id)}},
		Endpoints: []meta.Endpoint{{Listener: "PLAINTEXT", Host: "h", Port: 1, Protocol: "PLAINTEXT"}, {Listener: config.PeerListenerName, Host: host, Port: p, Protocol: "PLAINTEXT"}}}
}

// start brings a node up; change may alter its membership's options.
func (r *rig) start(n *node, change func(*member.Options), settings ...string) {
	r.t.Helper()
	addr := n.lis.Addr().String()
	st := parse(r.t, append(settings, fmt.Sprintf("node.id=%d", n.id))...)
	n.store = r.h.Node(coord.Identity{NodeID: n.id, Incarnation: meta.UUID{byte(n.id)}, Peer: addr})
	n.ctl = controller.New(controller.Options{Store: n.store, NodeID: n.id, Static: st, NewID: ids(byte(n.id)), Rand: func(int) int { return 0 }})
	if err := n.ctl.Start(r.ctx); err != nil {
		r.t.Fatal(err)
	}
	d := &peer.Dialer{ClientID: fmt.Sprint(n.id)}
	pool := peer.NewPool(d)
	o := member.Options{
		NodeID: n.id, Leads: n.ctl.Leads, Image: n.ctl.Image, Pool: pool, Dialer: d, Static: st,
		Local: func(ctx context.Context, req kmsg.Request) kmsg.Response {
			if _, beat := req.(*kmsg.BrokerHeartbeatRequest); beat && n.deaf.Load() {
				return nil
			}
			return n.ctl.Handle(ctx, 0, req)
		},
		Seeds:        func() []string { return r.addrs },
		Registration: func() control.Registration { return registration(n.id, 1, addr) },
		Registered:   func(e int64) { n.regs <- e },
		Failed:       func(err error) { n.failed <- err },
	}
	if change != nil {
		change(&o)
	}
	n.m = member.New(o)
	n.wg.Go(n.accept)
	n.stop = sync.OnceFunc(func() {
		n.mu.Lock()
		n.closed = true
		_ = n.lis.Close()
		for c := range n.socks {
			_ = c.Close()
		}
		n.mu.Unlock()
		_ = n.m.Close()
		_ = pool.Close()
		_ = n.ctl.Close()
		_ = n.store.Close()
		n.wg.Wait()
	})
	r.t.Cleanup(n.stop)
	r.mu.Lock()
	r.nodes[n.id] = n
	r.mu.Unlock()
}

// accept is the broker's peer listener: frames in, the controller's answers out.
func (n *node) accept() {
	for {
		nc, err := n.lis.Accept()
		if err != nil {
			return
		}
		n.mu.Lock()
		if n.closed {
			_ = nc.Close()
		}
		n.socks[nc] = true
		n.mu.Unlock()
		n.wg.Go(func() { n.serve(nc) })
	}
}

func (n *node) serve(nc net.Conn) {
	id := n.r.conns.Add(1)
	n.open.Add(1)
	defer func() {
		n.open.Add(-1)
		_ = nc.Close()
		n.ctl.Closed(id)
		n.mu.Lock()
		delete(n.socks, nc)
		n.mu.Unlock()
	}()
	for {
		var size [4]byte
		if _, err := io.ReadFull(nc, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(nc, frame); err != nil {
			return
		}
		h, body, err := wire.ParseHeader(frame)
		if err != nil {
			n.r.t.Error(err)
			return
		}
		req, err := wire.Decode(h, body)
		if err != nil {
			n.r.t.Error(err)
			return
		}
		if n.frozen.Load() {
			continue
		}
		resp := n.answer(id, req)
		if resp == nil {
			return
		}
		resp.SetVersion(h.Version)
		out := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(h.Correlation))
		if h.ResponseTags() {
			out = append(out, 0) // no tags in the response header
		}
		out = resp.AppendTo(out)
		binary.BigEndian.PutUint32(out, uint32(len(out)-4))
		if _, err := nc.Write(out); err != nil {
			return
		}
	}
}

func (n *node) answer(id uint64, req kmsg.Request) kmsg.Response {
	switch q := req.(type) {
	case *kmsg.BrokerHeartbeatRequest:
		n.r.mu.Lock()
		from := n.r.nodes[q.BrokerID]
		n.r.mu.Unlock()
		if from != nil && from.deaf.Load() && from.m.Epoch() == q.BrokerEpoch {
			resp := q.ResponseKind().(*kmsg.BrokerHeartbeatResponse)
			resp.ErrorCode = kerr.NotController.Code
			return resp
		}
	case *kmsg.CreateTopicsRequest:
		n.seen.Add(1)
		if n.hangUp.Load() {
			return nil
		}
		resp := q.ResponseKind().(*kmsg.CreateTopicsResponse)
		for _, t := range q.Topics {
			x := kmsg.NewCreateTopicsResponseTopic()
			x.Topic = t.Topic
			if r := n.ctl.CreateTopics(n.r.ctx, []control.NewTopic{{Name: t.Topic, Partitions: 1, Factor: 1}}, false)[0]; r.Err != nil {
				x.ErrorCode = r.Err.Code.Code
			}
			resp.Topics = append(resp.Topics, x)
		}
		return resp
	}
	return n.ctl.Handle(n.r.ctx, id, req)
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

// kill ends a node as SIGKILL does.
func (r *rig) kill(n *node) {
	r.mu.Lock()
	delete(r.nodes, n.id)
	r.mu.Unlock()
	n.stop()
}

func (r *rig) leader() *node {
	for r.ctx.Err() == nil {
		for _, n := range r.all() {
			if n.ctl.Leads() {
				return n
			}
		}
		r.rest()
	}
	r.t.Fatal("nobody leads")
	return nil
}

func (r *rig) rest() {
	select {
	case <-time.After(3 * time.Millisecond):
	case <-r.ctx.Done():
	}
}

func (r *rig) follower() *node {
	l := r.leader()
	for _, n := range r.all() {
		if n != l {
			return n
		}
	}
	r.t.Fatal("no follower")
	return nil
}

func (r *rig) join(nodes ...*node) {
	r.t.Helper()
	for _, n := range nodes {
		if _, err := n.m.Register(r.ctx); err != nil {
			r.t.Fatal(err)
		}
		if err := n.m.Ready(r.ctx); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) until(what string, ok func(*meta.Image) bool) {
	r.t.Helper()
	for _, n := range r.all() {
		for !ok(n.ctl.Image()) {
			if r.ctx.Err() != nil {
				r.t.Fatalf("broker %d never sees: %s", n.id, what)
			}
			r.rest()
		}
	}
}

func TestAKilledBrokerIsFencedByItsClosedConnections(t *testing.T) {
	r := newRig(t)
	r.join(r.all()...)
	for _, kind := range []string{"follower", "controller"} {
		n := r.follower()
		if kind == "controller" {
			n = r.leader()
		}
		at := time.Now()
		r.kill(n)
		r.until(kind+" is fenced", func(im *meta.Image) bool { return im.Broker(n.id).Fenced })
		t.Logf("%s: fenced everywhere after %v", kind, time.Since(at))
	}
}

func TestHeartbeatsKeepEverybodyInThroughAChangeOfController(t *testing.T) {
	r := newRig(t)
	r.join(r.all()...)
	victim := r.leader()
	r.kill(victim)
	r.until("the dead one is fenced", func(im *meta.Image) bool { return im.Broker(victim.id).Fenced })
	for _, n := range r.all() {
		if im := n.ctl.Image(); im.Broker(n.id).Fenced || im.Broker(n.id).Epoch != n.m.Epoch() {
			t.Errorf("broker %d: %+v", n.id, im.Broker(n.id))
		}
	}
}

func TestABrokerRegistersWhileTheControllerDies(t *testing.T) {
	r := newRig(t)
	r.join(r.all()...)
	n := r.listen(9)
	r.start(n, nil)
	done := make(chan error)
	victim := r.leader()
	go func() {
		_, err := n.m.Register(r.ctx)
		done <- err
	}()
	r.kill(victim)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := n.m.Ready(r.ctx); err != nil {
		t.Fatal(err)
	}
}

func TestDoFindsTheControllerAndFollowsIt(t *testing.T) {
	r := newRig(t)
	r.join(r.all()...)
	n := r.follower()
	ask := func() int64 {
		t.Helper()
		q := kmsg.NewPtrAllocateProducerIDsRequest()
		q.BrokerID, q.BrokerEpoch = n.id, n.m.Epoch()
		resp, err := n.m.Do(r.ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		x := resp.(*kmsg.AllocateProducerIDsResponse)
		if x.ErrorCode != 0 {
			t.Fatal(kerr.ErrorForCode(x.ErrorCode))
		}
		return x.ProducerIDStart
	}
	if a, b := ask(), ask(); a == b {
		t.Errorf("blocks %d and %d", a, b)
	}
	l := r.leader()
	r.kill(l)
	ask() // over a broken connection, by a new controller, perhaps this broker itself
	if resp, err := n.m.Do(r.ctx, create("t")); r.leader() != n && (err != nil || resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode != 0) {
		t.Errorf("create: %+v %v", resp, err)
	}
}

func create(name string) *kmsg.CreateTopicsRequest {
	q := kmsg.NewPtrCreateTopicsRequest()
	q.SetVersion(7)
	x := kmsg.NewCreateTopicsRequestTopic()
	x.Topic, x.NumPartitions, x.ReplicationFactor = name, 1, 1
	q.Topics = append(q.Topics, x)
	return q
}

func TestWhatMayHaveHappenedIsNotRepeated(t *testing.T) {
	r := newRig(t)
	r.join(r.all()...)
	l, n := r.leader(), r.follower()
	l.hangUp.Store(true)
	if _, err := n.m.Do(r.ctx, create("t")); !errors.Is(err, member.ErrUnknown) || strings.Contains(err.Error(), "\n") {
		t.Errorf("the controller hung up: %v", err)
	}
	if k := l.seen.Load(); k != 1 {
		t.Errorf("sent %d times", k)
	}
	l.hangUp.Store(false)
	resp, err := n.m.Do(r.ctx, create("u"))
	if err != nil || resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode != 0 {
		t.Fatalf("%+v %v", resp, err)
	}
	if _, err := l.m.Do(r.ctx, create("v")); !errors.Is(err, member.ErrLocal) {
		t.Errorf("on the controller itself: %v", err)
	}
}

func TestAFrozenMemberOfTheQuorumDoesNotPileUpConnections(t *testing.T) {
	r := newRig(t, "broker.session.timeout.ms=100")
	r.join(r.all()...)
	n := r.follower()
	for n.open.Load() < 2 { // the other two
		r.rest()
	}
	n.frozen.Store(true)
	n.deaf.Store(true)
	r.until("it is fenced", func(im *meta.Image) bool { return im.Broker(n.id).Fenced })
	most := int64(0)
	for end := time.Now().Add(700 * time.Millisecond); time.Now().Before(end); r.rest() {
		most = max(most, n.open.Load())
	}
	if most > 8 { // each of two: the old one, its replacement, one that is closing, one of Do
		t.Errorf("%d connections to one that answers nothing", most)
	}
	n.frozen.Store(false)
	n.deaf.Store(false)
	r.until("it takes part again", func(im *meta.Image) bool { return !im.Broker(n.id).Fenced })
	if n.ctl.Image().Broker(n.id).Epoch != n.m.Epoch() {
		t.Error("its registration changed")
	}
}

func TestRefusalsAreOneClearLine(t *testing.T) {
	r := newRig(t, "broker.session.timeout.ms=300")
	r.join(r.all()...)
	for what, c := range map[string]struct {
		id     int32
		change func(*member.Options)
		want   []string
	}{
		"a taken id": {1, func(o *member.Options) {
			o.Registration = func() control.Registration { return registration(1, 7, "127.0.0.1:1") }
		}, []string{"broker id 1 is taken", "h:1", "DUPLICATE_BROKER_REGISTRATION"}},
		"another cluster": {11, func(o *member.Options) {
			o.Registration = func() control.Registration {
				x := registration(11, 1, "127.0.0.1:1")
				x.ClusterID = "abcdefghijklmnopqrstuv"
				return x
			}
		}, []string{"belong to cluster abcdefghijklmnopqrstuv", r.leader().ctl.Image().ClusterID()}},
		"an older binary": {12, func(o *member.Options) {
			o.Registration = func() control.Registration {
				x := registration(12, 1, "127.0.0.1:1")
				x.Features = []control.FeatureRange{{Name: "metadata.version", Min: 1, Max: 1}}
				return x
			}
		}, []string{"too old", "UNSUPPORTED_VERSION"}},
		"nobody there": {13, func(o *member.Options) {
			o.Static = parse(t, "initial.broker.registration.timeout.ms=400")
			o.Seeds = func() []string { return []string{"127.0.0.1:2"} }
			o.Image = meta.Empty
		}, []string{"no controller is reachable", "127.0.0.1:2", "refused"}},
	} {
		n := r.listen(c.id)
		st := parse(t, "broker.session.timeout.ms=300")
		d := &peer.Dialer{ClientID: "x"}
		ctl := r.follower().ctl
		o := member.Options{NodeID: c.id, Leads: func() bool { return false }, Image: ctl.Image, Dialer: d, Static: st,
			Local:        func(context.Context, kmsg.Request) kmsg.Response { return nil },
			Seeds:        func() []string { return r.addrs },
			Registration: func() control.Registration { return registration(c.id, 1, "127.0.0.1:1") }}
		c.change(&o)
		m := member.New(o)
		_, err := m.Register(r.ctx)
		_ = m.Close()
		_ = n.lis.Close()
		if err == nil {
			t.Errorf("%s: registered", what)
			continue
		}
		t.Logf("%s: %v", what, err)
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %q does not say %q in one line", what, err, w)
			}
		}
	}
	if im := r.leader().ctl.Image(); im.Broker(1).Incarnation != (meta.UUID{1, 1}) || im.Broker(1).Fenced {
		t.Errorf("the one whose id was taken suffers: %+v", im.Broker(1))
	}
}

func TestAForgottenBrokerRegistersAgain(t *testing.T) {
	r := newRig(t)
	r.join(r.all()...)
	n := r.follower()
	old := <-n.regs
	if err := r.leader().ctl.UnregisterBroker(r.ctx, n.id); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-n.regs:
		if e <= old {
			t.Errorf("epoch %d after %d", e, old)
		}
	case <-r.ctx.Done():
		t.Fatal("never registered again")
	}
	r.until("it takes part again", func(im *meta.Image) bool {
		b := im.Broker(n.id)
		return b != nil && !b.Fenced && b.Epoch == n.m.Epoch()
	})
}

func TestABrokerWhoseIDWasTakenWhileItStoodStillGoes(t *testing.T) {
	r := newRig(t, "broker.session.timeout.ms=300")
	r.join(r.all()...)
	n := r.follower()
	n.deaf.Store(true)
	r.until("it is fenced", func(im *meta.Image) bool { return im.Broker(n.id).Fenced })
	x := r.listen(n.id)
	thief := member.New(member.Options{NodeID: n.id, Leads: func() bool { return false }, Image: r.leader().ctl.Image, Dialer: &peer.Dialer{}, Static: parse(t),
		Local:        func(context.Context, kmsg.Request) kmsg.Response { return nil },
		Seeds:        func() []string { return r.addrs },
		Registration: func() control.Registration { return registration(n.id, 8, x.lis.Addr().String()) }})
	t.Cleanup(func() { _ = thief.Close(); _ = x.lis.Close() })
	if _, err := thief.Register(r.ctx); err != nil {
		t.Fatal(err)
	}
	if err := thief.Ready(r.ctx); err != nil {
		t.Fatal(err)
	}
	n.deaf.Store(false)
	select {
	case err := <-n.failed:
		if !errors.Is(err, kerr.DuplicateBrokerRegistration) {
			t.Error(err)
		}
	case <-r.ctx.Done():
		t.Fatal("it never gives up")
	}
	if im := r.leader().ctl.Image(); im.Broker(n.id).Epoch != thief.Epoch() {
		t.Errorf("%+v", im.Broker(n.id))
	}
}

func TestABrokerWithAHungDiskIsFencedUntilTheDiskAnswers(t *testing.T) {
	r := newRig(t)
	n := r.listen(9)
	var hang atomic.Pointer[chan struct{}]
	real, err := member.NewCanary(vfs.OS, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r.start(n, func(o *member.Options) {
		o.Canaries = []member.Canary{{Dir: "/data", Close: real.Close, Write: func() error {
			if c := hang.Load(); c != nil {
				<-*c
			}
			return real.Write()
		}}}
	}, "broker.session.timeout.ms=300")
	r.join(r.all()...)
	c := make(chan struct{})
	hang.Store(&c)
	r.until("it is fenced", func(im *meta.Image) bool { return im.Broker(9).Fenced })
	hang.Store(nil)
	close(c)
	r.until("it takes part again", func(im *meta.Image) bool { return !im.Broker(9).Fenced })
}

func TestLeaveReturnsWhenLeadershipHasMoved(t *testing.T) {
	r := newRig(t)
	r.join(r.all()...)
	for _, n := range []*node{r.follower(), r.leader()} {
		l := r.leader()
		res := l.ctl.CreateTopics(r.ctx, []control.NewTopic{{Name: fmt.Sprint("t", n.id), Partitions: 9, Factor: 2}}, false)
		if res[0].Err != nil {
			t.Fatal(res[0].Err)
		}
		at := time.Now()
		if err := n.m.Leave(r.ctx); err != nil {
			t.Fatal(err)
		}
		t.Logf("released after %v", time.Since(at))
		for _, o := range r.all() {
			for _, x := range o.ctl.Image().Topics() {
				for i, p := range x.Partitions {
					if p.Leader == n.id && len(p.ISR) > 1 || slices.Contains(p.ISR, n.id) && len(p.ISR) > 1 {
						t.Errorf("broker %d sees %s-%d: %+v", o.id, x.Name, i, p)
					}
				}
			}
		}
		r.kill(n)
	}
}

func TestLeaveGivesUpWhenNobodyAnswers(t *testing.T) {
	r := newRig(t)
	r.join(r.all()...)
	n := r.follower()
	n.deaf.Store(true)
	ctx, cancel := context.WithTimeout(r.ctx, 50*time.Millisecond)
	defer cancel()
	if err := n.m.Leave(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("leave: %v", err)
	}
}

// freeze lets a node stand still as SIGSTOP does; go on with the function returned.
func (n *node) freeze() (thaw func()) {
	n.frozen.Store(true)
	n.deaf.Store(true)
	s := n.store.(*memstore.Store)
	s.Freeze()
	return func() {
		s.Thaw()
		n.frozen.Store(false)
		n.deaf.Store(false)
	}
}

func TestAFrozenControllerIsReplacedAndChangesNothingWhenItGoesOn(t *testing.T) {
	r := newRig(t, "broker.session.timeout.ms=300")
	r.join(r.all()...)
	old, n := r.leader(), r.follower()
	epochs := map[int32]int64{}
	for _, x := range r.all() {
		epochs[x.id] = x.m.Epoch()
	}
	thaw := old.freeze()
	// Somebody waits for the frozen one's answer, and gets that of its successor.
	q := kmsg.NewPtrAllocateProducerIDsRequest()
	q.BrokerID, q.BrokerEpoch = n.id, n.m.Epoch()
	resp, err := n.m.Do(r.ctx, q)
	if err != nil || resp.(*kmsg.AllocateProducerIDsResponse).ErrorCode != 0 {
		t.Fatalf("%+v %v", resp, err)
	}
	fenced := func() bool {
		for _, x := range r.all() {
			if x != old && !x.ctl.Image().Broker(old.id).Fenced {
				return false
			}
		}
		return true
	}
	for !fenced() {
		if r.ctx.Err() != nil {
			t.Fatal("the frozen one is never fenced")
		}
		r.rest()
	}
	if !old.ctl.Leads() {
		t.Error("the frozen one has been told")
	}
	thaw()
	// Until it hears of its successor it believes that it leads, that the others are silent and that it may write.
	r.until("everybody takes part, under the registrations of before", func(im *meta.Image) bool {
		for id, e := range epochs {
			if b := im.Broker(id); b.Fenced || b.Epoch != e {
				return false
			}
		}
		return true
	})
	if l := r.leader(); l == old {
		t.Error("it leads again without an election")
	}
	for id, e := range epochs {
		if got := r.nodes[id].m.Epoch(); got != e {
			t.Errorf("broker %d registered again: epoch %d after %d", id, got, e)
		}
	}
}
