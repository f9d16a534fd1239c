package storage

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs"
)

// BenchmarkStopAndStart: 10,000 logs that were all written and flushed just before a clean stop, and the start after it, with 1 KiB
// and with 100 KiB in each.
func BenchmarkStopAndStart(b *testing.B) {
	const logs = 10_000
	for _, batches := range []int{1, 100} {
		b.Run(fmt.Sprintf("%dKiB", batches), func(b *testing.B) {
			for b.Loop() {
				path := b.TempDir()
				d, err := OpenDir(vfs.OS, path, DirOptions{NodeID: 1})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := d.Load(nil, 1, nil); err != nil {
					b.Fatal(err)
				}
				data := makeBatch(10, "0123456789012345678901234567890123456789012345678901234567", 1, 1, 0)
				var all []*Log
				for n := range logs {
					l, err := d.Create(meta.TopicPartition{Topic: "t", Partition: int32(n)}, topicID(1), DefaultLogConfig(), 1)
					if err != nil {
						b.Fatal(err)
					}
					for range batches {
						if _, err := l.Append(data, 1, 1); err != nil {
							b.Fatal(err)
						}
					}
					all = append(all, l)
				}
				for _, err := range d.SyncMany(all, nil) {
					if err != nil {
						b.Fatal(err)
					}
				}
				begin := time.Now()
				if err := d.Close(1); err != nil {
					b.Fatal(err)
				}
				stop := time.Since(begin)
				begin = time.Now()
				if d, err = OpenDir(vfs.OS, path, DirOptions{NodeID: 1}); err != nil {
					b.Fatal(err)
				}
				back, err := d.Load(two, 1, func(meta.TopicPartition, meta.UUID) LogConfig { return DefaultLogConfig() })
				if err != nil || len(back) != logs || back[0].End() != all[0].End() {
					b.Fatal(len(back), err)
				}
				b.ReportMetric(stop.Seconds(), "stop-s")
				b.ReportMetric(time.Since(begin).Seconds(), "start-s")
				_ = d.Abandon()
			}
		})
	}
}

// two runs on two goroutines.
func two(n int, f func(i int)) {
	var wg sync.WaitGroup
	for k := range 2 {
		wg.Go(func() {
			for i := k; i < n; i += 2 {
				f(i)
			}
		})
	}
	wg.Wait()
}
