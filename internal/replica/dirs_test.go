package replica

import (
	"errors"
	"fmt"
	"testing"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// TestFailedDirectory: with two log directories the controller is told where replicas lie, and when one fails the
// leaderships on it move while the broker serves what is in the other (KIP-112, KIP-858).
func TestFailedDirectory(t *testing.T) {
	c := newCluster(t, 3)
	c.dirs = 2
	disks := map[string]*errfs.FS{}
	c.disk = func(id int32, dir int) vfs.FS {
		f := errfs.New(memfs.New())
		disks[fmt.Sprintf("%d/%d", id, dir)] = f
		return f
	}
	c.start()
	c.topic("t", map[string]string{"min.insync.replicas": "2"}, all3, all3, all3, all3)
	for n := range int32(4) {
		c.must("t", n, "a")
	}
	c.eventually("directories are known", func() bool {
		for _, p := range c.image().Topic("t").Partitions {
			if len(p.Dirs) != 3 || p.Dirs[0].IsZero() || p.Dirs[1].IsZero() || p.Dirs[2].IsZero() {
				return false
			}
		}
		return true
	})
	one := c.node(1)
	disks["1/1"].Add(errfs.Rule{Ops: errfs.Any, Count: -1, Err: errors.New("input/output error")})
	for n := range int32(4) { // who writes there finds out
		_, _ = c.produce("t", n, 0, "b")
	}
	c.eventually("the failure is noticed", func() bool { return len(one.set.LostDirs()) == 1 })
	lost := one.set.LostDirs()[0]
	c.plan(func(cl *control.Cluster) (control.Plan, error) { return loseDirs(cl, one, lost) })
	moved, stayed := 0, 0
	for n := range int32(4) {
		p := c.image().Partition("t", n)
		if p.Dirs[0] == lost {
			moved++
			if p.Leader == 1 {
				t.Errorf("t-%d is led from a failed directory", n)
			}
		} else {
			stayed++
			if p.Leader != 1 {
				t.Errorf("t-%d is led by %d, its directory works", n, p.Leader)
			}
		}
		c.must("t", n, fmt.Sprint("after", n))
	}
	if moved != 2 || stayed != 2 {
		t.Errorf("%d moved, %d stayed", moved, stayed)
	}
}

// loseDirs is the controller hearing of a lost directory with a heartbeat.
func loseDirs(cl *control.Cluster, n *node, dir meta.UUID) (control.Plan, error) {
	return cl.LoseDirs(n.id, n.epoch.Load(), []meta.UUID{dir})
}

// TestDamagedReplicaIsFetchedAgain: a log that is damaged below its durable mark is not served, nor cut: it is given up
// and fetched from the leader, and counts again when it has everything.
func TestDamagedReplicaIsFetchedAgain(t *testing.T) {
	c := newCluster(t, 3).start()
	c.topic("t", map[string]string{"min.insync.replicas": "2"}, all3)
	for i := range 20 {
		c.must("t", 0, fmt.Sprint("v", i))
	}
	c.whole()
	three := c.node(3)
	three.stop()
	c.fence(3)
	f, err := three.fs.OpenFile("/data0/t-0/00000000000000000000.log", vfs.ReadWrite, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(200), f.Close()); err != nil {
		t.Fatal(err)
	}
	c.must("t", 0, "while away")
	three.start()
	if three.part("t", 0).LogEnd() == 20 {
		t.Fatal("the damage was not seen")
	}
	if got := c.whole()["t-0"]; len(got) != 21 || got[20] != "while away" {
		t.Errorf("%d records", len(got))
	}
	if q := three.dirs[0].Quarantined(); len(q) != 0 {
		t.Errorf("still quarantined: %v", q)
	}
}
