package replica

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/api"
	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/metric"
	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/peer"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/session"
	"github.com/milena-mq/milena/internal/storage"
	"github.com/milena-mq/milena/internal/vfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// cluster is several brokers' data plane in one process: real Sets on file systems in memory, real fetchers and
// real peer listeners on loopback. The controller is package control under a lock.
type cluster struct {
	t      testing.TB
	rand   *det.Rand
	static map[string]string
	nodes  []*node
	racks  map[int32]string
	root   func(id int32) string // where the directories of a broker are; nil: /data
	dirs   int
	disk   func(id int32, dir int) vfs.FS // nil: one memfs for all directories, which survives crashes
	dial   func(*node) func(context.Context, string) (link, error)

	mu struct {
		sync.Mutex
		im       *meta.Image
		silent   bool // the controller answers nobody
		proposed int
	}
}

// node is one broker.
type node struct {
	c     *cluster
	id    int32
	fs    vfs.FS
	mem   *memfs.FS
	root  string
	inc   meta.UUID
	im    atomic.Pointer[meta.Image]
	epoch atomic.Int64
	up    atomic.Bool
	set   *partition.Set
	mgr   *Manager
	srv   *server.Server
	addr  string
	dirs  []*storage.Dir

	apply sync.Mutex
	late  []func() // images that are held back
	held  bool
}

func newCluster(t testing.TB, n int) *cluster {
	c := &cluster{t: t, rand: det.NewRand(7), static: map[string]string{"replica.fetch.wait.max.ms": "50"}, racks: map[int32]string{}, dirs: 1}
	c.mu.im = meta.Empty()
	c.plan(func(cl *control.Cluster) (control.Plan, error) { return cl.Bootstrap("") })
	for i := range n {
		c.nodes = append(c.nodes, &node{c: c, id: int32(i + 1)})
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			if n.up.Load() {
				n.stop()
			}
		}
	})
	return c
}

// start brings all brokers up.
func (c *cluster) start() *cluster {
	for _, n := range c.nodes {
		n.start()
	}
	return c
}

func (c *cluster) control() *control.Cluster {
	return &control.Cluster{Image: c.mu.im, Static: config.StaticOf(c.static), NodeID: 1, Rand: func(n int) int { return int(c.rand.Uint64() % uint64(n)) },
		NewID: func() meta.UUID { return meta.UUID{0: 7, 1: byte(c.rand.Uint64()), 2: byte(c.rand.Uint64()), 15: 1} }}
}

// plan carries out a plan of the controller, step by step, and tells all brokers.
func (c *cluster) plan(make func(*control.Cluster) (control.Plan, error)) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := make(c.control())
	if err != nil {
		c.t.Error(err)
		return
	}
	c.carryLocked(p)
}

func (c *cluster) carryLocked(p control.Plan) {
	for _, cs := range p.Steps {
		c.changeLocked(cs...)
	}
}

func (c *cluster) changeLocked(cs ...meta.Change) {
	im, d, err := c.mu.im.Apply(cs, c.mu.im.Revision()+1)
	if err != nil {
		c.t.Error(err)
		return
	}
	c.mu.im = im
	for _, n := range c.nodes {
		n.hear(im, d)
	}
}

func (c *cluster) change(cs ...meta.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changeLocked(cs...)
}

func (c *cluster) image() *meta.Image {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.im
}

// alter is the controller's AlterPartition.
func (c *cluster) alter(_ context.Context, req kmsg.Request) (kmsg.Response, error) {
	if r, ok := req.(*kmsg.AssignReplicasToDirsRequest); ok {
		return c.assign(r)
	}
	r := req.(*kmsg.AlterPartitionRequest)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.silent {
		return nil, kerr.RequestTimedOut
	}
	c.mu.proposed++
	var changes []control.ISRChange
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			ch := control.ISRChange{Topic: t.TopicID, Partition: p.Partition, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch}
			for _, m := range p.NewEpochISR {
				ch.ISR = append(ch.ISR, control.ISRMember{ID: m.BrokerID, Epoch: m.BrokerEpoch})
			}
			changes = append(changes, ch)
		}
	}
	resp := kmsg.NewPtrAlterPartitionResponse()
	plan, answers, err := c.control().AlterPartition(r.BrokerID, r.BrokerEpoch, changes)
	if err != nil {
		resp.ErrorCode = kerr.StaleBrokerEpoch.Code
		return resp, nil
	}
	for i, a := range answers {
		t := kmsg.NewAlterPartitionResponseTopic()
		t.TopidID = changes[i].Topic
		p := kmsg.NewAlterPartitionResponseTopicPartition()
		p.Partition = changes[i].Partition
		if a.Err != nil {
			p.ErrorCode = a.Err.Code.Code
		}
		t.Partitions = append(t.Partitions, p)
		resp.Topics = append(resp.Topics, t)
	}
	c.carryLocked(plan)
	return resp, nil
}

// assign is the controller's AssignReplicasToDirs.
func (c *cluster) assign(r *kmsg.AssignReplicasToDirsRequest) (kmsg.Response, error) {
	var wishes []control.DirAssignment
	for _, d := range r.Directories {
		for _, t := range d.Topics {
			for _, p := range t.Partitions {
				wishes = append(wishes, control.DirAssignment{Dir: d.ID, Topic: t.TopicID, Partition: p.Partition})
			}
		}
	}
	c.plan(func(cl *control.Cluster) (control.Plan, error) {
		p, _, err := cl.AssignDirs(r.BrokerID, r.BrokerEpoch, wishes)
		return p, err
	})
	return kmsg.NewPtrAssignReplicasToDirsResponse(), nil
}

// hear applies an image, or keeps it while the broker is cut off from the controller.
func (n *node) hear(im *meta.Image, d *meta.Delta) {
	if !n.up.Load() {
		return
	}
	do := func() {
		n.set.Apply(im, d)
		n.mgr.Apply(im, d)
		n.im.Store(im)
	}
	n.apply.Lock()
	defer n.apply.Unlock()
	if n.held {
		n.late = append(n.late, do)
		return
	}
	do()
}

// deaf holds back what the controller says, until it is called with false.
func (n *node) deaf(yes bool) {
	n.apply.Lock()
	defer n.apply.Unlock()
	n.held = yes
	if !yes {
		for _, do := range n.late {
			do()
		}
		n.late = nil
	}
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// start is a new process on the disk that is there.
func (n *node) start() {
	c := n.c
	c.t.Helper()
	if n.fs == nil {
		n.mem = memfs.New()
		n.fs, n.root = n.mem, "/data"
		if c.root != nil {
			n.root = c.root(n.id)
		}
	}
	log := quiet
	if testing.Verbose() && os.Getenv("MILENA_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", n.id)
	}
	n.inc = meta.UUID{0: byte(n.id), 1: byte(c.rand.Uint64()), 2: byte(c.rand.Uint64()), 15: 3}
	n.dirs = nil
	for i := range c.dirs {
		fsys := n.fs
		if c.disk != nil {
			fsys = c.disk(n.id, i)
		}
		d, err := storage.OpenDir(fsys, n.root+strconv.Itoa(i), storage.DirOptions{NodeID: n.id, ClusterID: "c", NewID: func() meta.UUID { return meta.UUID{0: byte(n.id), 1: byte(i + 1), 15: 9} }})
		if err != nil {
			c.t.Fatal(err)
		}
		n.dirs = append(n.dirs, d)
	}
	static := config.StaticOf(c.static)
	set := partition.NewSet(partition.Options{NodeID: n.id, Dirs: n.dirs, Static: static, Clock: time.Now, Log: log, Incarnation: n.inc})
	if err := set.Load(nil); err != nil {
		c.t.Fatal(err)
	}
	n.apply.Lock()
	n.set = set
	n.apply.Unlock()
	n.epoch.Store(-1)
	o := Options{
		NodeID: n.id, Epoch: n.epoch.Load, Set: n.set, Static: static, Log: log, Clock: time.Now, Controller: c.alter,
		Dialer: &peer.Dialer{ClientID: fmt.Sprint("broker-", n.id)},
	}
	if c.dial != nil {
		o.dial = c.dial(n)
	}
	n.mgr = New(o)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	n.addr = ln.Addr().String()
	env := &api.Env{
		NodeID: n.id, Image: n.im.Load, Partitions: n.set, Static: static, Log: log, Metrics: metric.New(), Clock: time.Now, Epoch: n.epoch.Load,
		Sessions: session.New(session.Options{Slots: 64, NewID: rand.Int32}),
	}
	n.srv = server.New(server.Options{Handler: api.New(env), Log: log, Metrics: env.Metrics, Listeners: []server.ListenerOptions{{Name: config.PeerListenerName, Peer: true, Listener: ln}}})
	n.set.Start()
	n.mgr.Start()
	n.srv.Start()

	c.mu.Lock()
	defer c.mu.Unlock()
	n.im.Store(c.mu.im)
	n.set.Apply(c.mu.im, nil)
	n.mgr.Apply(c.mu.im, nil)
	n.up.Store(true)
	host, port, _ := net.SplitHostPort(n.addr)
	num, _ := strconv.Atoi(port)
	r := control.Registration{ID: n.id, Incarnation: n.inc, ClusterID: c.mu.im.ClusterID(), Rack: c.racks[n.id], PreviousEpoch: -1,
		Endpoints: []meta.Endpoint{{Listener: config.PeerListenerName, Host: host, Port: int32(num), Protocol: config.Plaintext}}}
	for _, d := range n.dirs {
		r.Dirs = append(r.Dirs, d.ID())
	}
	p, err := c.control().Register(r)
	if err != nil {
		c.t.Error(err)
		return
	}
	c.carryLocked(p)
	n.epoch.Store(c.mu.im.Broker(n.id).Epoch)
	if p, err = c.control().Unfence(n.id, n.epoch.Load()); err != nil {
		c.t.Error(err)
		return
	}
	c.carryLocked(p)
}

// silence ends the process's part in the network: nothing it does from here on reaches anybody.
func (n *node) silence() {
	n.mgr.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = n.srv.Shutdown(ctx)
}

// stop ends the process in order.
func (n *node) stop() {
	n.silence()
	n.up.Store(false)
	_ = n.set.Close(n.epoch.Load())
}

// crash is a power cut: keep percent of the bytes that were not synced survive.
func (n *node) crash(keep int) {
	n.silence()
	n.up.Store(false)
	if n.mem != nil {
		n.mem = n.mem.Crash(keep, n.c.rand)
		n.fs = n.mem
	}
	_ = n.set.Close(-1) // on the disk that nobody sees any more
	n.c.fence(n.id)
}

// parts is the Set of the process that runs now, or ran last.
func (n *node) parts() *partition.Set {
	n.apply.Lock()
	defer n.apply.Unlock()
	return n.set
}

// unfence is what the controller does when a broker beats again.
func (c *cluster) unfence(n *node) {
	c.plan(func(cl *control.Cluster) (control.Plan, error) { return cl.Unfence(n.id, n.epoch.Load()) })
}

// silence lets the controller answer nobody.
func (c *cluster) silence(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.silent = yes
}

// fence is what the controller does with a dead broker.
func (c *cluster) fence(id int32) {
	c.plan(func(cl *control.Cluster) (control.Plan, error) {
		return cl.Fence(id, cl.Image.Broker(id).Epoch)
	})
}

// topic creates a topic, with the given replicas for each partition.
func (c *cluster) topic(name string, configs map[string]string, replicas ...[]int32) {
	c.t.Helper()
	w := control.NewTopic{Name: name, Partitions: -1, Factor: -1, Assignment: map[int32][]int32{}, Configs: map[string]*string{}}
	for i, r := range replicas {
		w.Assignment[int32(i)] = r
	}
	for k, v := range configs {
		w.Configs[k] = &v
	}
	c.plan(func(cl *control.Cluster) (control.Plan, error) {
		p, res := cl.CreateTopics([]control.NewTopic{w}, false)
		if res[0].Err != nil {
			return p, res[0].Err
		}
		return p, nil
	})
}

func (c *cluster) node(id int32) *node { return c.nodes[id-1] }

// leader is who leads a partition, nil for nobody.
func (c *cluster) leader(topic string, n int32) *node {
	if p := c.image().Partition(topic, n); p != nil && p.Leader > 0 {
		return c.node(p.Leader)
	}
	return nil
}

// values builds a batch.
func values(t testing.TB, vals ...string) batch.Batch {
	t.Helper()
	b := batch.NewBuilder(batch.Spec{LeaderEpoch: -1})
	for _, v := range vals {
		if err := b.Add(batch.Record{Timestamp: time.Now().UnixMilli(), Key: []byte("k"), Value: []byte(v)}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// produce writes with acks=all at whoever leads, once. The error may mean that the outcome is unknown.
func (c *cluster) produce(topic string, n int32, wait time.Duration, vals ...string) (base int64, err error) {
	l := c.leader(topic, n)
	if l == nil || !l.up.Load() {
		return 0, kerr.LeaderNotAvailable
	}
	return c.produceAt(l, topic, n, wait, vals...)
}

// believer is a broker that believes to lead a partition: there may be several. nil: none does.
func (c *cluster) believer(topic string, n int32, turn int) *node {
	for i := range c.nodes {
		x := c.nodes[(turn+i)%len(c.nodes)]
		if !x.up.Load() {
			continue
		}
		if p, err := x.parts().Get(topic, n); err == nil {
			if _, ok := p.Leader(); ok {
				return x
			}
		}
	}
	return nil
}

// produceAt writes with acks=all at a broker.
func (c *cluster) produceAt(l *node, topic string, n int32, wait time.Duration, vals ...string) (base int64, err error) {
	set := l.parts()
	p, err := set.Get(topic, n)
	if err != nil {
		return 0, err
	}
	a, err := p.Append(partition.AppendRequest{Records: values(c.t, vals...), Acks: partition.AcksAll, LeaderEpoch: -1, Version: 9, NowMs: time.Now().UnixMilli()})
	if err != nil {
		return 0, err
	}
	w := partition.NewWaiter(1)
	p.Wait(w, 0, partition.AcksAll, a)
	w.Arm(wait)
	<-w.Ready()
	if err := w.Err(0); err != nil {
		return 0, err
	}
	if l.parts() != set || !l.up.Load() {
		return 0, kerr.RequestTimedOut // the process died: whatever it thought, nobody heard it
	}
	return a.Base, nil
}

// must writes with acks=all and tries again until it is acknowledged.
func (c *cluster) must(topic string, n int32, vals ...string) int64 {
	c.t.Helper()
	end := time.Now().Add(20 * time.Second)
	for {
		base, err := c.produce(topic, n, 5*time.Second, vals...)
		if err == nil {
			return base
		}
		if time.Now().After(end) {
			c.t.Fatalf("produce to %s-%d: %v", topic, n, err)
		}
		pass(5 * time.Millisecond)
	}
}

// pass lets time go by: what breaks stays broken for a while, and who was refused does not ask again at once.
func pass(d time.Duration) { <-time.After(d) }

// eventually waits until ok says so; what is waited for happens by itself within milliseconds, or not at all.
func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); pass(2 * time.Millisecond) {
		if time.Now().After(end) {
			for _, t := range c.mu.im.Topics() {
				for n, p := range t.Partitions {
					c.t.Logf("%s-%d %+v", t.Name, n, *p)
					for _, x := range c.nodes {
						if x.up.Load() {
							if q, err := x.set.Get(t.Name, int32(n)); err == nil {
								c.t.Logf("  broker %d: [%d, %d], hw %d", x.id, q.LogStart(), q.LogEnd(), q.HW())
							}
						}
					}
				}
			}
			c.t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// whole waits until every replica of every partition is in sync and all logs are equal, then compares them byte for
// byte and returns the values by topic, partition and offset.
func (c *cluster) whole() map[string]map[int64]string {
	c.t.Helper()
	c.eventually("all in sync", func() bool {
		for _, t := range c.image().Topics() {
			for n, p := range t.Partitions {
				if len(p.ISR) < len(p.Replicas) || p.Leader < 0 {
					return false
				}
				end := int64(-1)
				for _, id := range p.Replicas {
					q, err := c.node(id).set.Get(t.Name, int32(n))
					if err != nil || end >= 0 && q.LogEnd() != end || q.HW() != q.LogEnd() {
						return false
					}
					end = q.LogEnd()
				}
			}
		}
		return true
	})
	out := map[string]map[int64]string{}
	for _, t := range c.image().Topics() {
		for n, p := range t.Partitions {
			var first []byte
			for i, id := range p.Replicas {
				raw := c.node(id).log(t.Name, int32(n))
				if i == 0 {
					first = raw
				} else if !slices.Equal(first, raw) {
					c.t.Errorf("%s-%d: the log of broker %d differs from that of broker %d", t.Name, n, id, p.Replicas[0])
				}
			}
			out[fmt.Sprintf("%s-%d", t.Name, n)] = parse(c.t, first)
		}
	}
	return out
}

// log is the bytes of a broker's log, from its start.
func (n *node) log(topic string, part int32) []byte {
	n.c.t.Helper()
	var out []byte
	d := n.dirs[0]
	l := d.Get(meta.TopicPartition{Topic: topic, Partition: part})
	for i := 1; l == nil && i < len(n.dirs); i++ {
		l = n.dirs[i].Get(meta.TopicPartition{Topic: topic, Partition: part})
	}
	if l == nil {
		n.c.t.Fatalf("broker %d has no %s-%d", n.id, topic, part)
	}
	for at := l.Start(); at < l.End(); {
		s, err := l.Read(at, 1<<20, l.End(), true)
		if err == nil {
			out, err = s.Bytes(out)
		}
		if err != nil {
			n.c.t.Fatal(err)
		}
		s.Release()
		at = s.Next
	}
	return out
}

func parse(t testing.TB, raw []byte) map[int64]string {
	t.Helper()
	out := map[int64]string{}
	epoch := int32(-1)
	for len(raw) > 0 {
		b, rest, err := batch.Next(raw)
		if err == nil {
			err = b.VerifyCRC()
		}
		if err != nil {
			t.Fatal(err)
		}
		if b.LeaderEpoch() < epoch {
			t.Errorf("epoch %d after %d", b.LeaderEpoch(), epoch)
		}
		epoch = b.LeaderEpoch()
		if err := b.Each(batch.Limits{}, func(r batch.Record) error {
			out[r.Offset] = string(r.Value)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		raw = rest
	}
	return out
}
