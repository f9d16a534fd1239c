package controller_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/controller"
	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/coord/memstore"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs"
)

const patience = 60 * time.Second

func ids(node byte) func() meta.UUID {
	var n atomic.Uint64
	return func() (u meta.UUID) {
		binary.BigEndian.PutUint64(u[8:], n.Add(1))
		u[0], u[1] = 1, node
		return u
	}
}

func start(t testing.TB, s coord.Store, change ...func(*controller.Options)) *controller.Controller {
	t.Helper()
	st, err := config.Parse([]string{"node.id=1", "broker.session.timeout.ms=60000"}, nil, nil) // two controllers hear no beats of each other's broker
	if err != nil {
		t.Fatal(err)
	}
	o := controller.Options{Store: s, NodeID: 1, Static: st, NewID: ids(1), Rand: func(int) int { return 0 }}
	for _, c := range change {
		c(&o)
	}
	c := controller.New(o)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return c
}

func up(t testing.TB, s coord.Store, change ...func(*controller.Options)) (*controller.Controller, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	c := start(t, s, change...)
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	register(t, ctx, c, 1)
	return c, ctx
}

func register(t testing.TB, ctx context.Context, c *controller.Controller, n byte) int64 {
	t.Helper()
	epoch, err := c.RegisterBroker(ctx, control.Registration{ID: 1, Incarnation: meta.UUID{n}, Endpoints: []meta.Endpoint{{Listener: "PLAINTEXT", Host: "h", Port: 9092}}, PreviousEpoch: -1})
	if err != nil {
		t.Fatal(err)
	}
	if b := c.Image().Broker(1); b == nil || !b.Fenced || b.Epoch != epoch {
		t.Fatalf("registered at epoch %d shows as %+v", epoch, b)
	}
	if err := c.UnfenceBroker(ctx, 1, epoch); err != nil {
		t.Fatal(err)
	}
	if b := c.Image().Broker(1); b.Fenced || b.Epoch != epoch {
		t.Fatalf("unfenced shows as %+v, epoch %d", b, epoch)
	}
	return epoch
}

func mem(t testing.TB, h *memstore.History, id int32) coord.Store {
	s := h.Node(coord.Identity{NodeID: id, Incarnation: meta.UUID{byte(id)}})
	t.Cleanup(func() { s.Close() })
	return s
}

func etcd(t testing.TB, dir string) coord.Store {
	t.Helper()
	s, err := coord.OpenEtcd(coord.EtcdOptions{Dir: dir, FS: vfs.OS, Identity: coord.Identity{NodeID: 1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func topic(name string, n int32) control.NewTopic {
	return control.NewTopic{Name: name, Partitions: n, Factor: 1}
}

func create(t testing.TB, ctx context.Context, c *controller.Controller, w control.NewTopic) meta.UUID {
	t.Helper()
	r := c.CreateTopics(ctx, []control.NewTopic{w}, false)
	if len(r) != 1 || r[0].Err != nil {
		t.Fatalf("create %s: %v", w.Name, r)
	}
	return r[0].ID
}

// again creates a topic, however often the lead is lost on the way: a refusal wrote nothing.
func again(t *testing.T, ctx context.Context, c *controller.Controller, name string) {
	t.Helper()
	for {
		r := c.CreateTopics(ctx, []control.NewTopic{topic(name, 1)}, false)[0]
		if r.Err == nil {
			return
		}
		if !errors.Is(r.Err, kerr.NotController) {
			t.Fatalf("create %s: %v", name, r)
		}
	}
}

func TestAnAnswerComesAfterTheImageAndItsSubscribers(t *testing.T) {
	c, ctx := up(t, mem(t, memstore.New(), 1))
	seen := map[string]int{}
	var mu sync.Mutex
	c.Subscribe(func(im *meta.Image, d *meta.Delta) {
		mu.Lock()
		defer mu.Unlock()
		for _, td := range d.Topics {
			if td.New != nil && td.Old == nil {
				seen[td.New.Name]++
			}
		}
	})
	for i := range 20 {
		name := fmt.Sprintf("t%d", i)
		id := create(t, ctx, c, topic(name, 3))
		im := c.Image()
		if im.Topic(name) == nil || im.TopicByID(id) != im.Topic(name) {
			t.Fatalf("created %s does not show", name)
		}
		mu.Lock()
		if seen[name] != 1 {
			t.Fatalf("the subscriber saw %s %d times before the answer", name, seen[name])
		}
		mu.Unlock()
	}
	for _, r := range c.DeleteTopics(ctx, []control.GoneTopic{{Name: "t3"}, {Name: "nope"}}) {
		if (r.Err == nil) != (r.Name == "t3") {
			t.Errorf("delete: %v", r)
		}
	}
	if c.Image().Topic("t3") != nil {
		t.Error("deleted topic still shows")
	}
	late := 0
	c.Subscribe(func(_ *meta.Image, d *meta.Delta) { late += len(d.Topics) })
	if late != 19 {
		t.Errorf("a late subscriber was told of %d topics, want 19", late)
	}
}

func TestARestartElectsTheOnlyBrokerAgainAtAHigherEpoch(t *testing.T) {
	h := memstore.New()
	one, ctx := up(t, mem(t, h, 1))
	create(t, ctx, one, topic("t", 1500)) // more than one step to fence and to elect
	before := one.Image().Topic("t").Partitions[1400]
	if before.Leader != 1 || before.LeaderEpoch != 0 {
		t.Fatalf("new partition: %+v", before)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	two := start(t, mem(t, h, 1))
	if err := two.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if two.Image().ClusterID() != one.Image().ClusterID() || two.Image().ClusterID() == "" {
		t.Errorf("cluster id %q after %q", two.Image().ClusterID(), one.Image().ClusterID())
	}
	register(t, ctx, two, 2)
	for n, p := range two.Image().Topic("t").Partitions {
		if p.Leader != 1 || p.LeaderEpoch != 2 || p.PartitionEpoch <= before.PartitionEpoch || len(p.ISR) != 1 {
			t.Fatalf("partition %d after the restart: %+v", n, p)
		}
	}
}

func TestTenThousandPartitionsTakeSecondsOnRealEtcd(t *testing.T) {
	c, ctx := up(t, etcd(t, filepath.Join(t.TempDir(), "coord")))
	at := time.Now()
	create(t, ctx, c, topic("big", 10_000))
	if n := c.Image().NumPartitions(); n != 10_000 {
		t.Fatalf("%d partitions", n)
	}
	made := time.Since(at)
	at = time.Now()
	for i := range 300 {
		create(t, ctx, c, topic(fmt.Sprintf("small%d", i), 1))
	}
	t.Logf("10,000 partitions in %v; 300 topics one by one in %v", made, time.Since(at))
	if r := c.DeleteTopics(ctx, []control.GoneTopic{{Name: "big"}}); r[0].Err != nil {
		t.Fatal(r[0])
	}
	if n := c.Image().NumPartitions(); n != 300 {
		t.Errorf("%d partitions after the deletion", n)
	}
}

func TestALostAnswerEndsTheTermAndTheNextOneLooks(t *testing.T) {
	h := memstore.New()
	c, ctx := up(t, mem(t, h, 1))
	_, term := c.Image().Controller()
	h.Fail(coord.ErrUnknown, true)
	if r := c.CreateTopics(ctx, []control.NewTopic{topic("t", 1)}, false); r[0].Err == nil || !errors.Is(r[0].Err, kerr.RequestTimedOut) {
		t.Fatalf("a lost answer: %v", r)
	}
	if r := c.CreateTopics(ctx, []control.NewTopic{topic("t", 1)}, false); r[0].Err == nil || !errors.Is(r[0].Err, kerr.TopicAlreadyExists) {
		t.Fatalf("the write whose answer was lost is not seen: %v", r)
	}
	if _, now := c.Image().Controller(); now != term+1 {
		t.Errorf("term %d after %d", now, term)
	}
}

func TestAHalfMadeTopicIsSweptAndNeverShown(t *testing.T) {
	h := memstore.New()
	c, ctx := up(t, mem(t, h, 1))
	shown := false
	c.Subscribe(func(im *meta.Image, _ *meta.Delta) { shown = shown || im.Topic("big") != nil })
	before := len(c.Image().Changes())
	h.Fail(nil, true) // the first step goes through (its revision is not told: 0), the second fails
	h.Fail(coord.ErrFull, false)
	if r := c.CreateTopics(ctx, []control.NewTopic{topic("big", 2500)}, false); r[0].Err == nil {
		t.Fatal("created although a step failed")
	}
	create(t, ctx, c, topic("after", 1))
	if got := len(c.Image().Changes()); got != before+2 || len(c.Image().Orphans()) != 0 {
		t.Errorf("%d records after the sweep, want %d; %d orphans", got, before+2, len(c.Image().Orphans()))
	}
	if shown {
		t.Error("the half-made topic was shown")
	}
}

func TestTwoControllersOneWriter(t *testing.T) {
	h := memstore.New()
	one, ctx := up(t, mem(t, h, 1))
	two := start(t, mem(t, h, 2), func(o *controller.Options) { o.NodeID, o.NewID = 2, ids(2) })
	if err := two.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	// Each takes the lead back when it is refused; what counts is that a refusal wrote nothing and that
	// an acknowledged topic is there for both.
	for i := range 10 {
		again(t, ctx, one, fmt.Sprintf("a%d", i))
		again(t, ctx, two, fmt.Sprintf("b%d", i))
	}
	again(t, ctx, one, "last")
	for i := 0; one.Image().Topic("b9") == nil || two.Image().Topic("last") == nil; i++ {
		again(t, ctx, one, fmt.Sprintf("c%d", i))
		again(t, ctx, two, fmt.Sprintf("d%d", i))
	}
	for _, n := range []string{"a0", "a9", "b0", "b9", "last"} {
		if one.Image().Topic(n) == nil || two.Image().Topic(n) == nil {
			t.Errorf("%s is missing", n)
		}
	}
}

func TestAStoreThatLostItsHistoryIsReadAgain(t *testing.T) {
	h := memstore.New()
	c, ctx := up(t, mem(t, h, 1))
	block, blocked := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.Subscribe(func(im *meta.Image, _ *meta.Delta) {
		if im.Topic("t0") != nil {
			once.Do(func() { close(blocked); <-block })
		}
	})
	done := make(chan struct{})
	go func() { // while the follower stands still, the history moves on and is compacted
		defer close(done)
		c.CreateTopics(ctx, []control.NewTopic{topic("t0", 1)}, false)
	}()
	<-blocked
	s := h.Node(coord.Identity{NodeID: 9})
	defer s.Close()
	release := sync.OnceFunc(func() { close(block) })
	defer release() // also when this test fails: Close waits for the follower
	for {
		term, err := s.Lead(ctx)
		if err != nil {
			t.Fatal(err)
		}
		// The controller under test takes the lead back as soon as it sees that it lost it.
		_, err = s.Append(ctx, term, []meta.Change{groupConfig(t)})
		if err == nil {
			break
		}
		if !errors.Is(err, coord.ErrFenced) {
			t.Fatal(err)
		}
	}
	h.Compact()
	release()
	<-done
	again(t, ctx, c, "t1")
	if c.Image().Config(meta.Resource{Type: meta.ResourceGroup, Name: "g"}) == nil || c.Image().Topic("t0") == nil {
		t.Error("the listing did not bring what was missed")
	}
}

func TestDirectoriesOfAnotherClusterAreRefused(t *testing.T) {
	c := start(t, mem(t, memstore.New(), 1), func(o *controller.Options) { o.ClusterID = "abcdefghijklmnopqrstuv" })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Ready(ctx); !errors.Is(err, kerr.InconsistentClusterID) {
		t.Fatalf("ready: %v", err)
	}
}

func TestProducerIDBlocksNeverOverlap(t *testing.T) {
	h := memstore.New()
	c, ctx := up(t, mem(t, h, 1))
	var next int64
	for range 3 {
		first, n, err := c.AllocateProducerIDs(ctx)
		if err != nil || n != 1000 || first != next {
			t.Fatalf("block at %d of %d, want %d: %v", first, n, next, err)
		}
		next = first + int64(n)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	two, ctx := up(t, mem(t, h, 1))
	if first, _, err := two.AllocateProducerIDs(ctx); err != nil || first != next {
		t.Errorf("after a restart the block begins at %d, want %d: %v", first, next, err)
	}
}

func TestManyClientsAskForTheSameNewTopic(t *testing.T) {
	c, ctx := up(t, mem(t, memstore.New(), 1))
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			r := c.AutoCreate(ctx, []string{"same", control.OffsetsTopic})
			if r[0].Err != nil || r[1].Err != nil || r[1].Partitions != 50 || r[1].Factor != 1 {
				t.Errorf("auto-create: %v", r)
			}
		})
	}
	wg.Wait()
	im := c.Image()
	if o := im.Topic(control.OffsetsTopic); !o.Internal || im.Config(meta.Resource{Type: meta.ResourceTopic, Name: o.Name})["cleanup.policy"] != "compact" {
		t.Errorf("%+v %v", o, im.Config(meta.Resource{Type: meta.ResourceTopic, Name: o.Name}))
	}
}

func groupConfig(t *testing.T) meta.Change {
	t.Helper()
	c, err := meta.PutConfig(meta.Resource{Type: meta.ResourceGroup, Name: "g"}, map[string]string{"consumer.session.timeout.ms": "50000"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
