package storage

import (
	"errors"
	"syscall"
	"testing"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// A follower that once led epochs in which nothing was written is told by its leader, which never heard of them, that its log
// diverges at its own end. After that it must not know these epochs any more, also after a crash.
func TestTruncateAtTheLogEndForgetsEmptyEpochs(t *testing.T) {
	mem := memfs.New()
	e := errfs.New(mem)
	d, _ := openTest(t, e)
	l, err := d.Create(tp("a", 0), topicID(1), smallConfig(), 1)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, 3, "x", 1)
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, epoch := range []int32{4, 7} {
		if err := l.AssignEpoch(epoch, l.End()); err != nil {
			t.Fatal(err)
		}
	}
	// A full disk refuses it, and then it is still due.
	e.Add(errfs.Rule{Ops: errfs.Write, Suffix: fileEpochs + extTemp, Err: syscall.ENOSPC})
	if err := l.Truncate(l.End()); !errors.Is(err, ErrReserve) {
		t.Fatal(err)
	}
	if err := l.Truncate(l.End() + 1); err != nil { // above the end nothing is known to part
		t.Fatal(err)
	}
	if epoch, _, _ := l.LatestEpoch(); epoch != 7 {
		t.Fatalf("latest epoch %d after a refused truncation", epoch)
	}
	if err := l.Truncate(l.End()); err != nil {
		t.Fatal(err)
	}
	ops := e.Ops()
	if err := l.Truncate(l.End()); err != nil || e.Ops() != ops {
		t.Fatalf("%v, %d operations for nothing", err, e.Ops()-ops)
	}
	check := func(l *Log) {
		t.Helper()
		if epoch, start, ok := l.LatestEpoch(); epoch != 0 || start != 0 || !ok || l.End() != 3 {
			t.Fatalf("latest epoch %d from %d, log end %d", epoch, start, l.End())
		}
	}
	check(l)
	_, logs := openTest(t, mem.Crash(0, det.NewRand(1)))
	check(logs[0])
}

// An epoch that could not be written down, because the disk is full, is not taken for durable when it is assigned again.
func TestAssignEpochIsTriedAgainAfterAFullDisk(t *testing.T) {
	mem := memfs.New()
	e := errfs.New(mem)
	d, _ := openTest(t, e)
	l, err := d.Create(tp("a", 0), topicID(1), smallConfig(), 1)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, 3, "x", 1)
	if err := errors.Join(l.Flush(), l.AssignEpoch(2, l.End())); err != nil {
		t.Fatal(err)
	}
	e.Add(errfs.Rule{Ops: errfs.Write, Suffix: fileEpochs + extTemp, Count: 2, Err: syscall.ENOSPC})
	for range 2 {
		if err := l.AssignEpoch(3, l.End()); !errors.Is(err, ErrReserve) {
			t.Fatal(err)
		}
	}
	if epoch, start, _ := l.LatestEpoch(); epoch != 2 || start != 3 {
		t.Fatalf("epoch %d from %d", epoch, start)
	}
	if err := l.AssignEpoch(3, l.End()); err != nil {
		t.Fatal(err)
	}
	_, logs := openTest(t, mem.Crash(0, det.NewRand(1)))
	if epoch, start, _ := logs[0].LatestEpoch(); epoch != 3 || start != 3 {
		t.Fatalf("epoch %d from %d after a power cut", epoch, start)
	}
}
