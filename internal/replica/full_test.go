package replica

import (
	"fmt"
	"testing"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
)

// TestFullDisk: a leader whose disk is full to its reserve gives way to one with room, follows without room until it falls out of the
// in-sync set, and comes back by itself when there is room again.
func TestFullDisk(t *testing.T) {
	c := newCluster(t, 3)
	c.static["replica.lag.time.max.ms"] = "400"
	c.start()
	c.topic("t", map[string]string{"min.insync.replicas": "2"}, all3)
	c.must("t", 0, "before")
	one := c.node(1)
	if got := one.parts().FullDirs(); len(got) != 0 {
		t.Fatalf("full from the start: %v", got)
	}
	one.dirs[0].SetReserve(1 << 20)
	one.mem.SetFree(1<<19, 1<<40)
	if _, err := c.produceAt(one, "t", 0, 0, "refused"); err == nil {
		t.Fatal("written below the reserve")
	}
	full := one.parts().FullDirs()
	if len(full) != 1 || full[0] != one.dirs[0].ID() {
		t.Fatalf("full: %v", full)
	}
	c.plan(func(cl *control.Cluster) (control.Plan, error) {
		cl.Full = func(id int32, dir meta.UUID) bool { return id == 1 }
		p, _, err := cl.SweepFull()
		return p, err
	})
	if l := c.image().Partition("t", 0).Leader; l == 1 || l < 0 {
		t.Fatalf("led by %d", l)
	}
	end := one.dirs[0].Get(meta.TopicPartition{Topic: "t"}).End()
	for i := range 10 {
		c.must("t", 0, fmt.Sprint("during", i))
	}
	c.eventually("the full one has left the in-sync set", func() bool { return len(c.image().Partition("t", 0).ISR) == 2 })
	c.must("t", 0, "two are enough")
	if now := one.dirs[0].Get(meta.TopicPartition{Topic: "t"}).End(); now != end {
		t.Errorf("the follower went on from %d to %d below its reserve", end, now)
	}
	one.mem.SetFree(1<<39, 1<<40)
	c.eventually("there is room again, and all are in sync", func() bool { return len(c.image().Partition("t", 0).ISR) == 3 })
	c.must("t", 0, "after")
	if vals := c.whole()["t-0"]; len(vals) != 13 || len(one.parts().FullDirs()) != 0 {
		t.Errorf("%d values, full %v", len(vals), one.parts().FullDirs())
	}
}
