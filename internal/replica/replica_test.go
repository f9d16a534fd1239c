package replica

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/metric"
	"github.com/milena-mq/milena/internal/partition"
)

var all3 = []int32{1, 2, 3}

// TestRecordsReachEveryReplica: the thinnest path, acks=all over three brokers.
func TestRecordsReachEveryReplica(t *testing.T) {
	c := newCluster(t, 3).start()
	c.topic("t", map[string]string{"min.insync.replicas": "2"}, all3, []int32{2, 3, 1}, []int32{3, 1, 2})
	for i := range 30 {
		for n := range int32(3) {
			c.must("t", n, fmt.Sprint("v", i))
		}
	}
	for tp, vals := range c.whole() {
		if len(vals) != 30 || vals[29] != "v29" {
			t.Errorf("%s: %d values, last %q", tp, len(vals), vals[29])
		}
	}
}

// TestFailover: the leader loses its power; the next one has everything that was acknowledged, and the old one
// comes back with its log cut to what the new one has.
func TestFailover(t *testing.T) {
	c := newCluster(t, 3).start()
	c.topic("t", map[string]string{"min.insync.replicas": "2"}, all3)
	acked := map[int64]string{}
	for round := range 6 {
		for i := range 20 {
			v := fmt.Sprintf("r%d-%d", round, i)
			acked[c.must("t", 0, v)] = v
		}
		old := c.leader("t", 0)
		old.crash(round % 3 * 50)
		began := time.Now()
		v := fmt.Sprintf("after%d", round)
		acked[c.must("t", 0, v)] = v
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("round %d: %v until the next leader acknowledged", round, d)
		}
		old.start()
		c.eventually("back in sync", func() bool { return len(c.image().Partition("t", 0).ISR) == 3 })
	}
	got := c.whole()["t-0"]
	for o, v := range acked {
		if got[o] != v {
			t.Errorf("offset %d: %q, acknowledged was %q", o, got[o], v)
		}
	}
}

// TestBelowMinInsync: with too few replicas acks=all is refused before the write, or told after it, and the high watermark stands still.
func TestBelowMinInsync(t *testing.T) {
	c := newCluster(t, 3).start()
	c.topic("t", map[string]string{"min.insync.replicas": "2"}, all3)
	c.must("t", 0, "a")
	c.eventually("in sync", func() bool { return len(c.image().Partition("t", 0).ISR) == 3 })
	waits := make(chan error, 1)
	c.node(3).crash(100)
	c.node(2).silence()
	go func() {
		_, err := c.produce("t", 0, time.Minute, "b")
		waits <- err
	}()
	p, err := c.node(1).set.Get("t", 0)
	if err != nil {
		t.Fatal(err)
	}
	c.eventually("appended", func() bool { return p.LogEnd() == 2 })
	c.node(2).up.Store(false)
	_ = c.node(2).set.Close(-1)
	c.fence(2)
	if err := <-waits; err != kerr.NotEnoughReplicasAfterAppend {
		t.Errorf("a write that waited: %v", err)
	}
	if _, err := c.produce("t", 0, time.Minute, "c"); err != kerr.NotEnoughReplicas {
		t.Errorf("a write afterwards: %v", err)
	}
	if p.HW() != 1 {
		t.Errorf("high watermark %d, want 1", p.HW())
	}
	c.node(2).start()
	c.eventually("high watermark moves on", func() bool { return p.HW() == 2 })
}

// TestCounts: what operators watch is true before, during and after a failure.
func TestCounts(t *testing.T) {
	c := newCluster(t, 3).start()
	c.topic("t", map[string]string{"min.insync.replicas": "2"}, all3, []int32{2, 3, 1})
	c.must("t", 0, "a")
	c.must("t", 1, "a")
	c.whole()
	one := c.node(1)
	count := func(want partition.Counts) {
		t.Helper()
		c.eventually(fmt.Sprintf("%+v", want), func() bool { return one.set.Counts() == want })
	}
	count(partition.Counts{Replicas: 2, Leaders: 1})
	c.node(3).crash(100)
	count(partition.Counts{Replicas: 2, Leaders: 1, UnderReplicated: 1, AtMinISR: 1})
	c.node(2).crash(100)
	count(partition.Counts{Replicas: 2, Leaders: 2, UnderReplicated: 2, UnderMinISR: 2})
	c.node(2).start()
	c.node(3).start()
	c.whole()
	m := metric.New()
	one.set.Measure(m)
	one.mgr.Measure(m)
	if got := m.Names(); !slices.Contains(got, "milena_under_replicated_partitions") || !slices.Contains(got, "milena_replication_bytes_in_total") {
		t.Errorf("%v", got)
	}
}
