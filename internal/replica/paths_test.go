package replica

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/partition"
)

func (n *node) part(topic string, p int32) *partition.Partition {
	n.c.t.Helper()
	x, err := n.parts().Get(topic, p)
	if err != nil {
		n.c.t.Fatal(err)
	}
	return x
}

func (c *cluster) config(r meta.Resource, kv map[string]string) {
	c.t.Helper()
	ch, err := meta.PutConfig(r, kv)
	if err != nil {
		c.t.Fatal(err)
	}
	c.change(ch)
}

// TestFollowerBehindTheLogStart: what it would fetch first was deleted; it begins again at the leader's log start.
func TestFollowerBehindTheLogStart(t *testing.T) {
	c := newCluster(t, 3).start()
	c.topic("t", nil, all3)
	c.must("t", 0, "a", "b")
	c.eventually("in sync", func() bool { return len(c.image().Partition("t", 0).ISR) == 3 })
	c.node(3).crash(100)
	for i := range 10 {
		c.must("t", 0, fmt.Sprint("v", i))
	}
	l := c.node(1)
	if _, err := l.part("t", 0).DeleteRecords(9, 0); err != nil {
		t.Fatal(err)
	}
	if err := l.set.SyncStarts(); err != nil {
		t.Fatal(err)
	}
	w := partition.NewWaiter(1)
	l.part("t", 0).WaitLow(w, 0, 9)
	w.Arm(10 * time.Second)
	<-w.Ready()
	if err := w.Err(0); err != nil {
		t.Fatalf("low watermark: %v", err)
	}
	if low := l.part("t", 0).LowWatermark(); low != 9 {
		t.Errorf("low watermark of the live replicas %d, want 9", low)
	}
	c.node(3).start()
	got := c.whole()["t-0"]
	if len(got) != 3 || got[9] != "v7" || c.node(3).part("t", 0).LogStart() != 9 {
		t.Errorf("%v from %d", got, c.node(3).part("t", 0).LogStart())
	}
}

// TestUncleanElection: who led before has more than the new leader, and cuts it, below its high watermark.
func TestUncleanElection(t *testing.T) {
	c := newCluster(t, 2).start()
	c.topic("t", map[string]string{"unclean.leader.election.enable": "true"}, []int32{1, 2})
	c.must("t", 0, "kept")
	c.eventually("in sync", func() bool { return len(c.image().Partition("t", 0).ISR) == 2 })
	c.node(2).crash(100)
	for i := range 5 {
		c.must("t", 0, fmt.Sprint("lost", i))
	}
	c.node(1).crash(100)
	c.node(2).start()
	c.eventually("elected", func() bool { return c.image().Partition("t", 0).Leader == 2 })
	c.must("t", 0, "new")
	c.node(1).start()
	got := c.whole()["t-0"]
	if len(got) != 2 || got[0] != "kept" || got[1] != "new" {
		t.Errorf("%v", got)
	}
	if r := c.image().Partition("t", 0).Recovery; r != 0 {
		t.Errorf("recovery state %d after both are in sync", r)
	}
}

// TestRecreatedTopic: a topic deleted and made again under its name while a replica was away shows no old byte (I19).
func TestRecreatedTopic(t *testing.T) {
	c := newCluster(t, 3).start()
	c.topic("t", nil, all3)
	c.must("t", 0, "old")
	c.node(3).crash(100)
	old := c.image().Topic("t").ID
	c.change(meta.Delete(meta.TopicKey("t")), meta.Delete(meta.PartitionKey(old, 0)))
	c.topic("t", nil, all3)
	c.must("t", 0, "new")
	c.node(3).start()
	if got := c.whole()["t-0"]; len(got) != 1 || got[0] != "new" {
		t.Errorf("%v", got)
	}
}

// TestFollowersServeConsumers: the leader names a follower in the consumer's rack, which serves up to its own high
// watermark and hears of it at once (KIP-392, I18).
func TestFollowersServeConsumers(t *testing.T) {
	c := newCluster(t, 3)
	c.static["replica.selector.class"] = config.RackAwareSelector
	c.static["replica.fetch.wait.max.ms"] = "60000" // the high watermark does not come by waiting
	c.racks = map[int32]string{1: "a", 2: "b", 3: "c"}
	c.start()
	c.topic("t", nil, all3)
	rackOf := func(id int32) string { return c.racks[id] }
	for i := range 20 {
		o := c.must("t", 0, fmt.Sprint(i))
		f := c.node(2).part("t", 0)
		c.eventually("high watermark of the follower", func() bool { return f.HW() == o+1 })
	}
	l, f := c.node(1).part("t", 0), c.node(2).part("t", 0)
	c.eventually("preferred", func() bool { return l.PreferredReplica("b", 10, rackOf) == 2 })
	for rack, want := range map[string]int32{"a": -1, "": -1, "x": -1, "c": 3} {
		if got := l.PreferredReplica(rack, 10, rackOf); got != want {
			t.Errorf("rack %q: %d, want %d", rack, got, want)
		}
	}
	r, err := f.Read(partition.ReadRequest{Offset: 10, MaxBytes: 1 << 20, Epoch: -1, LastEpoch: -1, Replica: partition.Consumer, Follower: true})
	if err != nil || r.HW != 20 || r.Slice.Len == 0 {
		t.Errorf("%+v %v", r, err)
	}
	r.Slice.Release()
	if _, err := f.Read(partition.ReadRequest{Offset: 10, MaxBytes: 1 << 20, Epoch: -1, LastEpoch: -1, Replica: partition.Consumer}); err != kerr.NotLeaderForPartition {
		t.Errorf("an old consumer at a follower: %v", err)
	}
	if _, err := f.Read(partition.ReadRequest{Offset: 10, MaxBytes: 1 << 20, Epoch: 99, LastEpoch: -1, Replica: partition.Consumer, Follower: true}); err != kerr.UnknownLeaderEpoch {
		t.Errorf("a consumer from the future: %v", err)
	}
}

// TestThrottles: a replica that is behind is held to a rate by its leader or by itself, and catches up (KIP-73).
func TestThrottles(t *testing.T) {
	for _, who := range []string{"leader", "follower"} {
		c := newCluster(t, 2)
		c.static["replica.fetch.max.bytes"] = "150000"
		c.start()
		c.topic("t", map[string]string{who + ".replication.throttled.replicas": "*"}, []int32{1, 2})
		c.must("t", 0, "x")
		c.node(2).crash(100)
		c.config(meta.Resource{Type: meta.ResourceBroker}, map[string]string{who + ".replication.throttled.rate": "400000"})
		for range 8 {
			c.must("t", 0, strings.Repeat("y", 100_000))
		}
		began := time.Now()
		c.node(2).start()
		c.whole()
		if d := time.Since(began); d < 700*time.Millisecond || d > 8*time.Second {
			t.Errorf("%s: 800 kB at 400 kB/s, a second's worth at once: %v", who, d)
		}
	}
}

// TestOneConversationForManyPartitions: partitions share a fetcher, a new one does not wait for the long poll of the
// others, and a broker at rest asks twice a second.
func TestOneConversationForManyPartitions(t *testing.T) {
	c := newCluster(t, 3)
	c.static["replica.fetch.wait.max.ms"] = "500"
	c.start()
	var rs [][]int32
	for i := range 60 {
		rs = append(rs, []int32{int32(i%3 + 1), int32((i+1)%3 + 1), int32((i+2)%3 + 1)})
	}
	c.topic("many", map[string]string{"min.insync.replicas": "3"}, rs...)
	for n := range int32(60) {
		c.must("many", n, "v")
	}
	for _, n := range c.nodes {
		if s := n.mgr.Stats(); s.Fetchers != 2 || s.Partitions != 40 {
			t.Errorf("broker %d: %+v", n.id, s)
		}
	}
	c.whole()
	was := c.node(1).mgr.Stats().Fetches
	began := time.Now()
	c.eventually("a long poll ends", func() bool { return c.node(1).mgr.Stats().Fetches >= was+4 })
	if d := time.Since(began); d < 400*time.Millisecond {
		t.Errorf("4 fetches of two fetchers at rest took %v, two at a time wait for half a second each", d)
	}
	slow := 0
	for i := range 10 {
		began := time.Now()
		c.topic(fmt.Sprint("new", i), map[string]string{"min.insync.replicas": "3"}, all3)
		c.must(fmt.Sprint("new", i), 0, "v")
		if time.Since(began) > 250*time.Millisecond {
			slow++
		}
	}
	if slow > 3 {
		t.Errorf("%d of 10 new topics waited for a long poll", slow)
	}
}

// TestSlowFollowerLeavesAndReturns: a follower that does not fetch leaves the in-sync set, the writes go on, and it
// comes back when it fetches again.
func TestSlowFollowerLeavesAndReturns(t *testing.T) {
	c := newCluster(t, 3)
	x := &cuts{}
	c.static["replica.lag.time.max.ms"] = "200"
	c.dial = func(n *node) func(ctx context.Context, addr string) (link, error) { return n.dialThrough(x) }
	c.start()
	c.topic("t", map[string]string{"min.insync.replicas": "2"}, all3)
	c.must("t", 0, "a")
	c.eventually("in sync", func() bool { return len(c.image().Partition("t", 0).ISR) == 3 })
	x.pairs[3][1].Store(true)
	c.must("t", 0, "b") // acknowledged when the set has shrunk
	if n := len(c.image().Partition("t", 0).ISR); n != 2 {
		t.Errorf("%d in sync", n)
	}
	x.pairs[3][1].Store(false)
	c.whole()
}

// TestControllerSilent: proposals are repeated until the controller answers.
func TestControllerSilent(t *testing.T) {
	c := newCluster(t, 3).start()
	c.topic("t", nil, all3)
	c.must("t", 0, "a")
	c.node(2).crash(100)
	c.silence(true)
	c.node(2).start()
	p := c.node(2).part("t", 0)
	c.eventually("caught up", func() bool { return p.LogEnd() == 1 })
	was := c.node(1).mgr.Stats().Proposals
	c.eventually("asked again", func() bool { return c.node(1).mgr.Stats().Proposals >= was+3 })
	c.silence(false)
	c.whole()
}

// TestMoreFetchers: num.replica.fetchers changes while records flow.
func TestMoreFetchers(t *testing.T) {
	c := newCluster(t, 2).start()
	var rs [][]int32
	for range 20 {
		rs = append(rs, []int32{1, 2})
	}
	c.topic("t", map[string]string{"min.insync.replicas": "2"}, rs...)
	for round, want := range []int{1, 4, 2} {
		c.config(meta.Resource{Type: meta.ResourceBroker}, map[string]string{"num.replica.fetchers": fmt.Sprint(want)})
		for n := range int32(20) {
			c.must("t", n, fmt.Sprint(round))
		}
		c.eventually("fetchers", func() bool { s := c.node(2).mgr.Stats(); return s.Fetchers == want && s.Partitions == 20 })
	}
	for tp, vals := range c.whole() {
		if len(vals) != 3 {
			t.Errorf("%s: %v", tp, vals)
		}
	}
}
