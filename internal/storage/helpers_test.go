package storage

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/producer"
	"github.com/milena-mq/milena/internal/vfs"
)

const testDir = "/data"

// smallConfig rolls after a few batches and indexes nearly every one.
func smallConfig() LogConfig {
	c := DefaultLogConfig()
	c.SegmentBytes, c.IndexIntervalBytes, c.RetentionMs = 600, 100, -1
	return c
}

func tp(topic string, p int32) meta.TopicPartition {
	return meta.TopicPartition{Topic: topic, Partition: p}
}

func topicID(n byte) meta.UUID { return meta.UUID{1, 2, 3, n} }

func openTest(t testing.TB, fsys vfs.FS) (*Dir, []*Log) {
	t.Helper()
	d, logs, err := tryOpen(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return d, logs
}

func tryOpen(fsys vfs.FS) (*Dir, []*Log, error) {
	d, err := OpenDir(fsys, testDir, DirOptions{NodeID: 1, ClusterID: "c", NewID: func() meta.UUID { return topicID(99) }})
	if err != nil {
		return nil, nil, err
	}
	logs, err := d.Load(nil, 1000, func(meta.TopicPartition, meta.UUID) LogConfig { return smallConfig() })
	return d, logs, err
}

// makeBatch builds n records whose values name the batch; seq below 0 means not idempotent.
func makeBatch(n int, tag string, ts int64, pid int64, seq int32) batch.Batch {
	s := batch.Spec{}
	if seq >= 0 {
		s.Producer = &batch.ProducerInfo{ID: pid, Epoch: 0, Sequence: seq}
	}
	b := batch.NewBuilder(s)
	for i := range n {
		if err := b.Add(batch.Record{Offset: int64(i), Timestamp: ts + int64(i), Key: []byte("k"), Value: fmt.Appendf(nil, "%s-%d-%s", tag, i, "vvvvvvvvvvvvvvvvvvvv")}); err != nil {
			panic(err)
		}
	}
	out, err := b.Build()
	if err != nil {
		panic(err)
	}
	return out
}

func mustAppend(t testing.TB, l *Log, n int, tag string, ts int64) int64 {
	t.Helper()
	o, err := l.Append(makeBatch(n, tag, ts, -1, -1), 0, ts)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// readAll reads every batch from the log start to bound, checking that they are whole, sound and without gaps.
func readAll(l *Log, bound int64, maxBytes int) ([]batch.Batch, error) {
	var out []batch.Batch
	from := l.Start()
	for from < bound {
		s, err := l.Read(from, maxBytes, bound, true)
		if err != nil {
			return out, err
		}
		raw, err := s.Bytes(nil)
		s.Release()
		if err != nil {
			return out, err
		}
		if len(raw) == 0 {
			return out, fmt.Errorf("nothing to read at %d below %d", from, bound)
		}
		for len(raw) > 0 {
			b, rest, err := batch.Next(raw)
			if err != nil {
				return out, fmt.Errorf("at %d: %w", from, err)
			}
			if err := b.VerifyCRC(); err != nil {
				return out, fmt.Errorf("at %d: %w", from, err)
			}
			if b.BaseOffset() > from || b.LastOffset() < from {
				return out, fmt.Errorf("asked for %d, got batch [%d, %d]", from, b.BaseOffset(), b.LastOffset())
			}
			from = b.NextOffset()
			out = append(out, b)
			raw = rest
		}
		if s.Next != from {
			return out, fmt.Errorf("slice says next is %d, batches end at %d", s.Next, from)
		}
	}
	return out, nil
}

func isDuplicate(l *Log, b batch.Batch) (dup bool, base int64) {
	l.Producers(func(t *producer.Table) {
		v, err := t.Check(b, 0)
		dup, base = err == nil && v.Duplicate, v.BaseOffset
	})
	return dup, base
}

func same(a, b []byte) bool { return bytes.Equal(a, b) }
