package storage

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs"
)

// BenchmarkRecovery is the start after kill -9 with 1,000 partitions: the directory is abandoned as a killed process leaves it, 5
// seconds of checkpoints behind it. MILENA_BENCH_BYTES sets the size of the data (default 64 MiB; the figure of the issue is 10 GiB).
func BenchmarkRecovery(b *testing.B) {
	const parts = 1000
	total := int64(64 << 20)
	if v := os.Getenv("MILENA_BENCH_BYTES"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		total = n
	}
	path := filepath.Join(b.TempDir(), "data")
	cfg := func(meta.TopicPartition, meta.UUID) LogConfig { return DefaultLogConfig() }
	open := func() (*Dir, []*Log) {
		d, err := OpenDir(vfs.OS, path, DirOptions{NodeID: 1})
		if err != nil {
			b.Fatal(err)
		}
		logs, err := d.Load(parallel(2), 0, cfg)
		if err != nil {
			b.Fatal(err)
		}
		return d, logs
	}
	d, logs := open()
	for p := range parts {
		logs = append(logs, benchLog(b, d, p))
	}
	seq := int32(0)
	var checkpoints time.Duration
	for done := int64(0); done < total; {
		bt := makeBatch(200, "recovery", done, 7, seq)
		seq += 200
		for _, l := range logs {
			if _, err := l.Append(bt, 0, 0); err != nil {
				b.Fatal(err)
			}
		}
		done += int64(len(bt)) * parts
		if seq%4000 == 0 {
			for _, err := range d.SyncMany(logs, parallel(4)) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
		if seq%8000 == 0 {
			t := time.Now()
			if err := d.Checkpoint(); err != nil {
				b.Fatal(err)
			}
			checkpoints += time.Since(t)
		}
	}
	for _, err := range d.SyncMany(logs, parallel(4)) {
		if err != nil {
			b.Fatal(err)
		}
	}
	want := logs[0].End()
	behind := int64(0)
	for _, l := range logs {
		behind += l.mu.sinceMark
	}
	if err := d.Abandon(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		d, logs = open()
		b.StopTimer()
		for _, l := range logs {
			if l.End() != want {
				b.Fatalf("%s ends at %d, want %d", l.tp, l.End(), want)
			}
		}
		if err := d.Abandon(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(behind)/(1<<20), "MiB-reread")
	b.ReportMetric(checkpoints.Seconds()/max(1, float64(seq/8000)), "s/checkpoint")
}
