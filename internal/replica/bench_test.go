package replica

import (
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/vfs"
)

// quick is the real file system without its syncs: what is left is the broker's own work.
type quick struct{ vfs.FS }

func (q quick) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	f, err := q.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return quickFile{f}, nil
}

func (quick) SyncDir(string) error { return nil }

func (quick) Volume(string) (vfs.Volume, error) { return nil, vfs.ErrUnsupported }

type quickFile struct{ vfs.File }

func (quickFile) Sync() error { return nil }

// onDisk is a cluster on quick disks.
func onDisk(b *testing.B, n int) *cluster {
	c := newCluster(b, n)
	c.root = func(id int32) string { return fmt.Sprint(b.TempDir(), "/", id, "-") }
	c.disk = func(int32, int) vfs.FS { return quick{vfs.OS} }
	return c
}

// BenchmarkAcksAll is one record after the other through three brokers: append, fetch, append, fetch, high watermark.
// Nothing is synced, so that what is left is the brokers' own work and the loopback.
func BenchmarkAcksAll(b *testing.B) {
	c := onDisk(b, 3).start()
	c.topic("t", map[string]string{"min.insync.replicas": "2"}, all3)
	v := strings.Repeat("x", 1000)
	c.must("t", 0, v)
	c.eventually("in sync", func() bool { return len(c.image().Partition("t", 0).ISR) == 3 })
	raw := values(b, v)
	p := c.node(1).part("t", 0)
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		raw.SetBaseOffset(0)
		a, err := p.Append(partition.AppendRequest{Records: raw, Acks: partition.AcksAll, LeaderEpoch: -1, Version: 9, NowMs: time.Now().UnixMilli()})
		if err != nil {
			b.Fatal(err)
		}
		w := partition.NewWaiter(1)
		p.Wait(w, 0, partition.AcksAll, a)
		w.Arm(time.Minute)
		<-w.Ready()
		if err := w.Err(0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCatchUp is a broker that was away: bytes per second that it takes from the leader's log to its own.
func BenchmarkCatchUp(b *testing.B) {
	c := onDisk(b, 2).start()
	c.topic("t", nil, []int32{1, 2})
	c.must("t", 0, "x")
	raw := values(b, strings.Repeat("x", 500_000))
	p := c.node(1).part("t", 0)
	const batches = 60
	b.SetBytes(batches * int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		c.node(2).stop()
		c.fence(2)
		for range batches {
			raw.SetBaseOffset(0)
			if _, err := p.Append(partition.AppendRequest{Records: raw, Acks: partition.AcksNone, LeaderEpoch: -1, Version: 9, NowMs: time.Now().UnixMilli()}); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		c.node(2).start()
		c.eventually("caught up", func() bool {
			q, err := c.node(2).set.Get("t", 0)
			return err == nil && q.HW() == p.LogEnd()
		})
	}
}

// BenchmarkManyPartitions is sixteen producers that wait for acks=all, over 300 partitions.
func BenchmarkManyPartitions(b *testing.B) {
	const parts = 300
	c := onDisk(b, 3).start()
	var rs [][]int32
	for i := range parts {
		rs = append(rs, []int32{int32(i%3 + 1), int32((i+1)%3 + 1), int32((i+2)%3 + 1)})
	}
	c.topic("many", map[string]string{"min.insync.replicas": "2"}, rs...)
	for n := range int32(parts) {
		c.must("many", n, "v")
	}
	c.eventually("in sync", func() bool {
		for _, p := range c.image().Topic("many").Partitions {
			if len(p.ISR) < 3 {
				return false
			}
		}
		return true
	})
	var next atomic.Int32
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		raw := values(b, strings.Repeat("x", 1000))
		for pb.Next() {
			n := next.Add(1) * 7 % parts
			p, err := c.node(n%3+1).set.Get("many", n)
			if err != nil {
				b.Error(err)
				return
			}
			raw.SetBaseOffset(0)
			a, err := p.Append(partition.AppendRequest{Records: raw, Acks: partition.AcksAll, LeaderEpoch: -1, Version: 9, NowMs: time.Now().UnixMilli()})
			if err != nil {
				b.Error(err)
				return
			}
			w := partition.NewWaiter(1)
			p.Wait(w, 0, partition.AcksAll, a)
			w.Arm(time.Minute)
			<-w.Ready()
			if err := w.Err(0); err != nil {
				b.Error(err)
			}
		}
	})
}
