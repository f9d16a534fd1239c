package storage

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// The operator hears once that the reserve is reached, and once that there is room again, however often a producer tries, and also
// when nobody tries.
func TestReserveIsToldOncePerTransition(t *testing.T) {
	mem := memfs.New()
	e := errfs.New(mem)
	d, _ := openTest(t, e)
	d.SetReserve(1 << 20)
	var told []string
	d.WatchReserve(func(reached bool, left, reserve int64) { told = append(told, fmt.Sprint(reached, left, reserve)) })
	expect := func(want ...string) {
		t.Helper()
		if !slices.Equal(told, want) {
			t.Fatalf("told %q, want %q", told, want)
		}
		told = nil
	}
	if err := d.Writable(100); err != nil {
		t.Fatal(err)
	}
	expect()
	mem.SetFree(1<<20+50, 1<<40)
	if err := d.Checkpoint(); err != nil { // looks again at the next write
		t.Fatal(err)
	}
	for range 3 {
		if err := d.Writable(100); !errors.Is(err, ErrReserve) {
			t.Fatal(err)
		}
		if err := d.Writable(10); err != nil { // a smaller one still fits
			t.Fatal(err)
		}
	}
	expect(fmt.Sprint(true, 1<<20+50-100, 1<<20))
	mem.SetFree(1<<30, 1<<40)
	for range 3 {
		if err := d.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	expect(fmt.Sprint(false, 1<<30, 1<<20))
	// A disk that is full before its reserve is known to be: a reserve of 0, or somebody else's writes.
	l, err := d.Create(tp("a", 0), topicID(1), smallConfig(), 1)
	if err != nil {
		t.Fatal(err)
	}
	e.Add(errfs.Rule{Ops: errfs.Write, Suffix: extLog, Count: 2, Err: syscall.ENOSPC})
	for range 2 {
		if _, err := l.Append(makeBatch(1, "x", 1, -1, -1), 0, 1); !errors.Is(err, ErrReserve) {
			t.Fatal(err)
		}
	}
	expect(fmt.Sprint(true, 0, 1<<20))
	if err := d.Writable(1); err != nil {
		t.Fatal(err)
	}
	expect(fmt.Sprint(false, 1<<30, 1<<20))
}
