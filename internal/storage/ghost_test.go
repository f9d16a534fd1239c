package storage

import (
	"fmt"
	"testing"

	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// A log is deleted, and the process is killed before a checkpoint forgets it. The next run makes a log of the same name; its records
// are acknowledged and must not be judged by what the checkpoints say of the old one.
func TestNameUsedAgainAfterACrashOwesNothingToTheOldLog(t *testing.T) {
	for _, raise := range []bool{false, true} {
		mem := memfs.New()
		d, _ := openTest(t, mem)
		l, err := d.Create(tp("a", 0), topicID(1), smallConfig(), 1)
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
		if raise {
			if err := l.RaiseStart(7, 1); err != nil {
				t.Fatal(err)
			}
			if err := d.CheckpointStarts(); err != nil {
				t.Fatal(err)
			}
		} else if err := d.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		if err := d.Delete(l, 5); err != nil {
			t.Fatal(err)
		}
		if err := d.Abandon(); err != nil { // killed
			t.Fatal(err)
		}
		d, logs := openTest(t, mem)
		if len(logs) != 0 {
			t.Fatal(len(logs))
		}
		l, err = d.Create(tp("a", 0), topicID(2), smallConfig(), 10)
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, 1, "new", 11)
		if err := l.Flush(); err != nil {
			t.Fatal(err)
		}
		want := l.Flushed()
		if err := d.Abandon(); err != nil {
			t.Fatal(err)
		}
		d, logs = openTest(t, mem)
		if len(logs) != 1 || logs[0].End() != want || logs[0].Start() != 0 {
			t.Errorf("log start raised %v, acknowledged %d: %d logs, quarantined %v", raise, want, len(logs), d.Quarantined())
		}
	}
}
