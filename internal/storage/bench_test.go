package storage

import (
	"bytes"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs"
)

// parallel is a runner as the broker's flusher uses it.
func parallel(workers int) Runner {
	return func(n int, f func(int)) {
		var wg sync.WaitGroup
		next := make(chan int, n)
		for i := range n {
			next <- i
		}
		close(next)
		for range min(workers, n) {
			wg.Go(func() {
				for i := range next {
					f(i)
				}
			})
		}
		wg.Wait()
	}
}

func benchDir(b *testing.B, o DirOptions) *Dir {
	b.Helper()
	o.NodeID = 1
	d, err := OpenDir(vfs.OS, filepath.Join(b.TempDir(), "data"), o)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := d.Load(nil, 0, func(meta.TopicPartition, meta.UUID) LogConfig { return DefaultLogConfig() }); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := d.Abandon(); err != nil {
			b.Error(err)
		}
	})
	return d
}

func benchLog(b *testing.B, d *Dir, p int) *Log {
	b.Helper()
	l, err := d.Create(tp("bench", int32(p)), topicID(1), DefaultLogConfig(), 0)
	if err != nil {
		b.Fatal(err)
	}
	return l
}

func benchBatch(size int) batch.Batch {
	bu := batch.NewBuilder(batch.Spec{})
	_ = bu.Add(batch.Record{Timestamp: 1, Value: make([]byte, size)})
	out, _ := bu.Build()
	return out
}

// BenchmarkSync is one commit round: every log gets one 16 KiB batch, then all are made durable together.
func BenchmarkSync(b *testing.B) {
	for _, n := range []int{1, 4, 8, 10, 16, 100, 1000} {
		for _, how := range []struct {
			name    string
			above   int
			workers int
		}{{"one-by-one", -1, 1}, {"fdatasync-x4", -1, 4}, {"fdatasync-x8", -1, 8}, {"syncfs", 1, 1}} {
			if n == 1 && how.workers > 1 || n == 1000 && how.name == "one-by-one" {
				continue
			}
			b.Run(fmt.Sprintf("logs=%d/%s", n, how.name), func(b *testing.B) {
				d := benchDir(b, DirOptions{SyncFSAbove: how.above})
				if how.name == "syncfs" {
					d.syncFSAbove = 0
				}
				logs := make([]*Log, n)
				for i := range logs {
					logs[i] = benchLog(b, d, i)
				}
				for _, err := range d.SyncMany(logs, nil) {
					if err != nil {
						b.Fatal(err)
					}
				}
				bt := benchBatch(16 << 10)
				run := parallel(how.workers)
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					for _, l := range logs {
						if _, err := l.Append(bt, 0, 0); err != nil {
							b.Fatal(err)
						}
					}
					for _, err := range d.SyncMany(logs, run) {
						if err != nil {
							b.Fatal(err)
						}
					}
				}
				b.SetBytes(int64(n * len(bt)))
			})
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			d := benchDir(b, DirOptions{})
			l := benchLog(b, d, 0)
			bt := benchBatch(size)
			b.SetBytes(int64(len(bt)))
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if _, err := l.Append(bt, 0, 0); err != nil {
					b.Fatal(err)
				}
				if l.Size() > 512<<20 {
					b.StopTimer()
					if err := l.TruncateFully(l.End()); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	d := benchDir(b, DirOptions{})
	l := benchLog(b, d, 0)
	bt := benchBatch(1 << 10)
	for range 64 << 10 {
		if _, err := l.Append(bt, 0, 0); err != nil {
			b.Fatal(err)
		}
	}
	end := l.End()
	b.Run("tail", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			s, err := l.Read(end-1, 1<<20, end, true)
			if err != nil || s.Len == 0 {
				b.Fatal(err)
			}
			s.Release()
		}
	})
	b.Run("sequential-1MiB", func(b *testing.B) {
		b.ReportAllocs()
		from := int64(0)
		for range b.N {
			s, err := l.Read(from, 1<<20, end, true)
			if err != nil || s.Len == 0 {
				b.Fatal(err)
			}
			if from = s.Next; from >= end {
				from = 0
			}
			s.Release()
		}
	})
	b.Run("random", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			s, err := l.Read(int64(i)*7919%end, 64<<10, end, true)
			if err != nil || s.Len == 0 {
				b.Fatal(err)
			}
			s.Release()
		}
	})
}

// BenchmarkIdlePartitions reports the memory of a log that was written once and lies idle.
func BenchmarkIdlePartitions(b *testing.B) {
	const n = 2000
	for range b.N {
		d := benchDir(b, DirOptions{})
		bt := benchBatch(1 << 10)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range n {
			if _, err := benchLog(b, d, i).Append(bt, 0, 0); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/log")
		b.ReportMetric(float64(d.sealedOpen.Load()), "sealed-open")
		runtime.KeepAlive(d)
	}
}

// BenchmarkAppendFollower: answers of 1 MiB with batches of several sizes, as a follower that catches up gets them.
func BenchmarkAppendFollower(b *testing.B) {
	for _, size := range []int{200, 1 << 10, 16 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			d, err := OpenDir(vfs.OS, b.TempDir(), DirOptions{NodeID: 1})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := d.Load(nil, 1, nil); err != nil {
				b.Fatal(err)
			}
			l, err := d.Create(tp("t", 0), topicID(1), DefaultLogConfig(), 1)
			if err != nil {
				b.Fatal(err)
			}
			one := makeBatch(1, strings.Repeat("x", size-100), 1, -1, -1)
			answer := bytes.Repeat(one, max(1, (1<<20)/len(one)))
			b.SetBytes(int64(len(answer)))
			for b.Loop() {
				for at, o := 0, l.End(); at < len(answer); at, o = at+len(one), o+1 {
					batch.Batch(answer[at:]).SetBaseOffset(o)
				}
				if err := l.AppendFollower(answer, 1, 1); err != nil {
					b.Fatal(err)
				}
				if l.Size() > 4<<30 {
					b.StopTimer()
					if err := l.TruncateFully(0); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			}
			_ = d.Abandon()
		})
	}
}
