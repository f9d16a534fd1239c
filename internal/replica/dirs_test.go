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
