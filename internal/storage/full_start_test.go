package storage

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// After a kill on a disk without a free byte, the logs are recovered and readable: only a running broker can delete.
func TestFullDiskDoesNotKeepLogsFromBeingLoaded(t *testing.T) {
	mem := memfs.New()
	d, _ := openTest(t, mem)
	l, err := d.Create(tp("a", 0), topicID(1), smallConfig(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		if _, err := l.Append(makeBatch(1, fmt.Sprint(n), 1, 5, int32(n)), 0, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	// An epoch without a record, above the durable end: recovery wants to write the list again.
	if err := l.AssignEpoch(3, l.End()); err != nil {
		t.Fatal(err)
	}
	if err := l.AssignEpoch(4, l.End()+5); err != nil {
		t.Fatal(err)
	}
	want := l.Flushed()
	if err := d.Abandon(); err != nil {
		t.Fatal(err)
	}
	fsys := errfs.New(mem)
	for _, ext := range []string{extTemp, extSnapshot, extIndex, extTime, extLog} {
		fsys.Add(errfs.Rule{Ops: errfs.Write, Suffix: ext, Err: syscall.ENOSPC, Short: true, Count: -1})
	}
	d, logs := openTest(t, fsys)
	if len(logs) != 1 || logs[0].End() != want {
		t.Fatalf("%d logs, acknowledged %d, quarantined %v", len(logs), want, d.Quarantined())
	}
	if _, err := readAll(logs[0], want, 1<<20); err != nil {
		t.Fatal(err)
	}
	// Killed once more; with room again everything is still there, duplicates are still known.
	if err := d.Abandon(); err != nil {
		t.Fatal(err)
	}
	_, logs = openTest(t, mem)
	if len(logs) != 1 || logs[0].End() != want {
		t.Fatalf("%d logs with room again, acknowledged %d", len(logs), want)
	}
	if dup, base := isDuplicate(logs[0], makeBatch(1, "19", 1, 5, 19)); !dup || base != 19 {
		t.Fatalf("duplicate %v at %d", dup, base)
	}
}
