package partition

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs"
)

// benchBatch is one batch of n bytes of one-KB records.
func benchBatch(b *testing.B, n int) []byte {
	bb := batch.NewBuilder(batch.Spec{LeaderEpoch: -1, Producer: &batch.ProducerInfo{ID: -1, Epoch: -1, Sequence: -1}})
	for range max(n/1024, 1) {
		if err := bb.Add(batch.Record{Timestamp: 1_700_000_000_000, Value: make([]byte, min(n, 1000))}); err != nil {
			b.Fatal(err)
		}
	}
	out, err := bb.Build()
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// BenchmarkAppend is the produce path below the API in page-cache mode: check, sequence, write, high watermark.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 900 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			w := newWorld(b, vfs.OS, 1)
			w.root, w.names = b.TempDir(), []string{b.TempDir()}
			w.static["log.flush.interval.messages"] = "9223372036854775807"
			w.static["log.segment.bytes"] = "134217728"
			w.static["log.retention.bytes"] = "268435456"
			w.start().run()
			w.apply(newTopic("t", 1, 1)...)
			p := w.get("t", 0)
			raw := benchBatch(b, size)
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				clear(raw[:8]) // the base offset is patched in place by each append
				if _, err := p.Append(AppendRequest{Records: raw, Acks: AcksAll, LeaderEpoch: -1, Version: 9, NowMs: 1_700_000_000_000}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDurable is produce with acks=all, with many requests in flight: the flusher batches them.
func BenchmarkDurable(b *testing.B) {
	for _, parts := range []int32{1, 100} {
		b.Run(fmt.Sprintf("16KiB/partitions=%d/inflight=64", parts), func(b *testing.B) {
			w := newWorld(b, vfs.OS, 1)
			w.names = []string{b.TempDir()}
			w.start().run()
			w.apply(newTopic("t", 1, parts)...)
			raw := benchBatch(b, 16<<10)
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			window := make([]*Waiter, 64)
			i := 0
			for b.Loop() {
				p := w.get("t", int32(i)%parts)
				slot := i % len(window)
				if window[slot] != nil {
					<-window[slot].Ready()
				}
				clear(raw[:8])
				a, err := p.Append(AppendRequest{Records: raw, Acks: AcksAll, LeaderEpoch: -1, Version: 9, NowMs: 1_700_000_000_000})
				if err != nil {
					b.Fatal(err)
				}
				window[slot] = NewWaiter(1)
				p.Wait(window[slot], 0, AcksAll, a)
				window[slot].Arm(time.Minute)
				i++
			}
		})
	}
}

// BenchmarkRead finds a range for a fetch: in the tail, as a consumer that keeps up does.
func BenchmarkRead(b *testing.B) {
	w := newWorld(b, vfs.OS, 1)
	w.names = []string{b.TempDir()}
	w.start().run()
	w.apply(newTopic("t", 1, 1)...)
	p := w.get("t", 0)
	for range 100 {
		raw := benchBatch(b, 16<<10)
		a, err := p.Append(AppendRequest{Records: raw, Acks: AcksAll, LeaderEpoch: -1, Version: 9, NowMs: 1_700_000_000_000})
		if err != nil {
			b.Fatal(err)
		}
		if err := w.await(p, AcksAll, a); err != nil {
			b.Fatal(err)
		}
	}
	for name, at := range map[string]int64{"tail": p.HW() - 16, "empty": p.HW(), "start": 0} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, err := p.Read(ReadRequest{Offset: at, MaxBytes: 1 << 20, AtLeastOne: true, Epoch: -1, LastEpoch: -1, Replica: Consumer})
				if err != nil {
					b.Fatal(err)
				}
				r.Slice.Release()
			}
		})
	}
}

// BenchmarkFollowerAppend is a follower's half of a fetch: check and append what came, sync, ask again.
func BenchmarkFollowerAppend(b *testing.B) {
	w := newWorld(b, quick{vfs.OS}, 1)
	w.names = []string{b.TempDir()}
	id := meta.UUID{0: 1, 15: 1}
	w.apply(meta.PutTopic("t", meta.TopicRecord{ID: id, Partitions: 1}), meta.PutPartition(id, 0, &meta.Partition{Replicas: []int32{1, 2}, ISR: []int32{1, 2}, Leader: 2, LeaderEpoch: 0}))
	w.start().run()
	f := w.get("t", 0).Follower()
	f.Begin()
	raw := records(b, batchSpec, strings.Repeat("x", 1000))
	raw.SetLeaderEpoch(0)
	one := []*Follower{f}
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	n := int64(0)
	for b.Loop() {
		raw.SetBaseOffset(n)
		next, err := f.Take(Answer{HW: n, Records: raw})
		if err != nil || next.Step != Sync {
			b.Fatal(next, err)
		}
		w.set.Sync(one)
		if next = f.Synced(); next.Step != Ask {
			b.Fatal(next)
		}
		n++
	}
}

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
