package storage

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/vfs"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// A write that a full disk cuts short leaves half a batch. When the segment is closed before those bytes are
// overwritten, neither a kill, nor a power cut, nor a clean stop may lose what the next segment holds.
func TestHalfABatchAtTheEndOfAClosedSegmentLosesNothing(t *testing.T) {
	after := map[string]func(*Dir, *memfs.FS) (vfs.FS, error){
		"kill":       func(d *Dir, m *memfs.FS) (vfs.FS, error) { return m, d.Abandon() },
		"clean stop": func(d *Dir, m *memfs.FS) (vfs.FS, error) { return m, d.Close(1) },
		"power cut":  func(d *Dir, m *memfs.FS) (vfs.FS, error) { return m.Crash(0, det.NewRand(1)), nil },
	}
	for _, how := range det.SortedKeys(after) {
		t.Run(how, func(t *testing.T) {
			mem := memfs.New()
			fsys := errfs.New(mem)
			d, _ := openTest(t, fsys)
			l, err := d.Create(tp("a", 0), topicID(1), smallConfig(), 1)
			if err != nil {
				t.Fatal(err)
			}
			mustAppend(t, l, 1, "one", 1)
			fsys.Add(errfs.Rule{Ops: errfs.Write, Suffix: extLog, Err: syscall.ENOSPC, Short: true})
			if _, err := l.Append(makeBatch(1, "torn", 2, -1, -1), 0, 2); err == nil {
				t.Fatal("a full disk was not noticed")
			}
			fsys.Clear()
			// What was torn reaches the disk with the first record.
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
			mustAppend(t, l, 8, "too large for the first segment", 3)
			if n := len(l.Segments()); n != 2 {
				t.Fatalf("%d segments, the test wants 2", n)
			}
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
			want := l.Flushed()
			left, err := after[how](d, mem)
			if err != nil {
				t.Fatal(err)
			}
			_, logs := openTest(t, left)
			if len(logs) != 1 || logs[0].End() != want {
				t.Fatalf("%d logs, end %d, acknowledged %d", len(logs), logs[0].End(), want)
			}
			if _, err := readAll(logs[0], want, 1<<20); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Killed before the first flush, a log comes back from the page cache. What is acknowledged afterwards must survive a power
// cut, so the folder and its partition.metadata are synced although nobody created them in this run.
func TestLogThatWasKilledBeforeItsFirstFlushSurvivesAPowerCut(t *testing.T) {
	for _, records := range []int{0, 1} {
		for _, keep := range []int{0, 50} {
			mem := memfs.New()
			fsys := errfs.New(mem)
			d, _ := openTest(t, fsys)
			l, err := d.Create(tp("a", 0), topicID(1), smallConfig(), 1)
			if err != nil {
				t.Fatal(err)
			}
			if records == 0 { // the segment's file is made, but nothing gets into it
				fsys.Add(errfs.Rule{Ops: errfs.Write, Suffix: extLog, Err: syscall.ENOSPC})
				if _, err := l.Append(makeBatch(1, "one", 1, -1, -1), 0, 1); err == nil {
					t.Fatal("a full disk was not noticed")
				}
			} else {
				mustAppend(t, l, records, "one", 1)
			}
			if err := d.Abandon(); err != nil {
				t.Fatal(err)
			}
			d, logs := openTest(t, mem)
			if len(logs) == 1 {
				l = logs[0]
			} else if l, err = d.Create(tp("a", 0), topicID(1), smallConfig(), 1); err != nil {
				t.Fatal(err)
			}
			mustAppend(t, l, 1, "two", 1)
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
			want := l.Flushed()
			_, logs = openTest(t, mem.Crash(keep, det.NewRand(1)))
			if len(logs) != 1 || logs[0].End() != want || logs[0].TopicID() != topicID(1) {
				t.Fatalf("%d records, keep %d: %d logs, acknowledged %d", records, keep, len(logs), want)
			}
		}
	}
}

// Retention takes segments away and another log's start is written down before those removals are on disk: after a
// power cut the files are back, and the start must not fall with them.
func TestLogStartDoesNotFallWhenRemovedSegmentsComeBack(t *testing.T) {
	mem := memfs.New()
	d, _ := openTest(t, mem)
	var logs [2]*Log
	for i := range logs {
		l, err := d.Create(tp("a", int32(i)), topicID(1), smallConfig(), 1)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 20 {
			mustAppend(t, l, 1, fmt.Sprint(n), 1)
		}
		if err := l.Flush(); err != nil {
			t.Fatal(err)
		}
		l.SetHW(l.End())
		logs[i] = l
	}
	raise := func(l *Log, to int64) {
		t.Helper()
		if err := l.RaiseStart(to, 1); err != nil {
			t.Fatal(err)
		}
		if err := d.CheckpointStarts(); err != nil {
			t.Fatal(err)
		}
	}
	raise(logs[0], logs[0].Segments()[2].Base)
	if err := d.Housekeep(10, (*Log).HW); err != nil {
		t.Fatal(err)
	}
	raise(logs[1], 1)
	want := logs[0].Start()
	_, back := openTest(t, mem.Crash(0, det.NewRand(1)))
	for _, l := range back {
		if l.TopicPartition() == logs[0].TopicPartition() && l.Start() != want {
			t.Fatalf("log start was %d, is %d", want, l.Start())
		}
	}
}
