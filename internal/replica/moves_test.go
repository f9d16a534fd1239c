package replica

import (
	"fmt"
	"testing"

	"github.com/milena-mq/milena/internal/meta"
)

// TestMovesBetweenDirectories: replicas of leaders and followers move to their brokers' other log directories (KIP-113) while records are
// acknowledged; the followers go on from where they are, leaders fail over afterwards, and nothing is lost.
func TestMovesBetweenDirectories(t *testing.T) {
	c := newCluster(t, 3)
	c.dirs = 2
	c.start()
	c.topic("t", map[string]string{"min.insync.replicas": "2"}, all3, []int32{2, 3, 1})
	acked := map[int64]string{}
	where := func(n *node, part int32) (at int) {
		for i, d := range n.dirs {
			if d.Get(meta.TopicPartition{Topic: "t", Partition: part}) != nil {
				at = i
			}
		}
		return at
	}
	for round := range 4 {
		moving := c.node(int32(round%3) + 1)
		to := map[int32]int{}
		for part := range int32(2) {
			to[part] = 1 - where(moving, part)
			if err := moving.parts().Move("t", part, moving.dirs[to[part]].Path()); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 20 {
			v := fmt.Sprintf("r%d-%d", round, i)
			acked[c.must("t", 0, v)] = v
			c.must("t", 1, v)
		}
		c.eventually("replicas have moved, and the controller knows", func() bool {
			for part, i := range to {
				rec := c.image().Partition("t", part)
				for k, id := range rec.Replicas {
					if id == moving.id && (len(rec.Dirs) <= k || rec.Dirs[k] != moving.dirs[i].ID()) {
						return false
					}
				}
				if where(moving, part) != i || len(rec.ISR) != 3 {
					return false
				}
			}
			return true
		})
		old := c.leader("t", 0)
		old.crash(round % 3 * 50)
		v := fmt.Sprintf("after%d", round)
		acked[c.must("t", 0, v)] = v
		old.start()
		c.eventually("back in sync", func() bool {
			return len(c.image().Partition("t", 0).ISR) == 3 && len(c.image().Partition("t", 1).ISR) == 3
		})
	}
	got := c.whole()["t-0"]
	for o, v := range acked {
		if got[o] != v {
			t.Errorf("offset %d: %q, acknowledged was %q", o, got[o], v)
		}
	}
}
