package storage

import (
	"fmt"
	"math"
	"testing"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// BenchmarkClean compacts 20,000 records of 200 bytes over 2,000 keys, as __consumer_offsets looks: small batches.
func BenchmarkClean(b *testing.B) {
	c := compactConfig()
	c.SegmentBytes, c.IndexIntervalBytes, c.SegmentMs = 1<<20, 4096, math.MaxInt64
	w := openWorld(b, memfs.New(), "d", c)
	value := make([]byte, 200)
	for i := range 10_000 {
		kv := []string{fmt.Sprint("key", i%2000), string(value), fmt.Sprint("key", (i+7)%2000), string(value)}
		w.must(w.append(data(batch.None, nil, false, kv...)))
	}
	w.must(w.settle())
	w.must(w.dir.Close(1))
	disk := w.fs.(*memfs.FS)
	b.ReportAllocs()
	for b.Loop() {
		w := &world{t: b, fs: disk.Clone(), path: "d"}
		w.must(w.open(c))
		w.must(w.clean(10_000))
		b.SetBytes(w.cl.Stats().BytesRead)
		w.must(w.dir.Abandon())
	}
}

func BenchmarkKeyMap(b *testing.B) {
	m := newKeyMap(1<<20, 1<<20)
	var keys [4096][]byte
	for i := range keys {
		keys[i] = []byte(fmt.Sprint("group/topic/", i))
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		m.put(keys[i%len(keys)], int64(i))
		i++
	}
}
