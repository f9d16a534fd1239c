package api

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestAlterReplicaLogDirs: a replica moves to another directory while a client asks where it is; wishes that cannot be met are
// answered one by one, a topic named for two directories once.
func TestAlterReplicaLogDirs(t *testing.T) {
	b := newDataBrokerOn(t, 2)
	b.topic("t", 1, 2)
	c := b.dial()
	where := func(n int32) (dir string, future bool) {
		req := kmsg.NewPtrDescribeLogDirsRequest()
		req.Version = 5
		for _, d := range c.do(req).(*kmsg.DescribeLogDirsResponse).Dirs {
			for _, rt := range d.Topics {
				for _, p := range rt.Partitions {
					if rt.Topic == "t" && p.Partition == n {
						if p.IsFuture {
							future = true
						} else {
							dir = d.Dir
						}
					}
				}
			}
		}
		return dir, future
	}
	dirs := b.set.Dirs()
	for v := int16(1); v <= 2; v++ {
		was, _ := where(0)
		to := dirs[0].Path
		if to == was {
			to = dirs[1].Path
		}
		req := kmsg.NewPtrAlterReplicaLogDirsRequest()
		req.Version = v
		for _, x := range []struct {
			dir, topic string
			n          []int32
		}{{to, "t", []int32{0}}, {"/nowhere", "t", []int32{1}}, {to, "u", []int32{0}}} {
			rd, rt := kmsg.NewAlterReplicaLogDirsRequestDir(), kmsg.NewAlterReplicaLogDirsRequestDirTopic()
			rt.Topic, rt.Partitions = x.topic, x.n
			rd.Dir, rd.Topics = x.dir, append(rd.Topics, rt)
			req.Dirs = append(req.Dirs, rd)
		}
		r := c.do(req).(*kmsg.AlterReplicaLogDirsResponse)
		var got []string
		for _, rt := range r.Topics {
			for _, p := range rt.Partitions {
				got = append(got, fmt.Sprint(rt.Topic, p.Partition, ":", p.ErrorCode))
			}
		}
		if s := strings.Join(got, " "); s != "t0:0 t1:57 u0:9" {
			t.Errorf("version %d: %s", v, s)
		}
		for at, future := where(0); at != to || future; at, future = where(0) {
			if at != was && at != to {
				t.Fatalf("version %d: neither here nor there, but in %q", v, at)
			}
		}
	}
}
