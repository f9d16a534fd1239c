package storage

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// sweepBase is a log that needs cleaning, closed, and what a reader of it must see ever after.
type sweepBase struct {
	disk  *memfs.FS
	sent  *world
	view  map[string]string
	prods string
	end   int64
}

func prepareSweep(t *testing.T, seed uint64) sweepBase {
	m := memfs.New()
	w := openWorld(t, m, "d", compactConfig())
	w.must(w.fill(seed, 40))
	w.must(w.settle())
	w.must(w.clean(100)) // so that the sweep meets horizons, emptied batches and merged segments
	w.must(w.fill(seed+1, 25))
	w.must(w.settle())
	b := sweepBase{disk: m, sent: w, view: w.view(), prods: w.producers(), end: w.log.End()}
	w.must(w.dir.Close(1))
	return b
}

// on opens the prepared log on another file system.
func (b sweepBase) on(t *testing.T, fsys *errfs.FS) *world {
	w := &world{t: t, fs: fsys, path: "d", sent: b.sent.sent}
	w.must(w.open(compactConfig()))
	if w.log == nil {
		t.Fatal("the log is gone")
	}
	return w
}

func (b sweepBase) check(w *world, when string) {
	w.t.Helper()
	w.same(b.view, when)
	if got := w.producers(); got != b.prods {
		w.t.Fatalf("%s: producers\n got %s\nwant %s", when, got, b.prods)
	}
	if w.log.End() != b.end {
		w.t.Fatalf("%s: log end %d, want %d", when, w.log.End(), b.end)
	}
}

// again reopens a disk, checks the log, cleans it once more and checks again.
func (b sweepBase) again(t *testing.T, disk *memfs.FS, when string) {
	t.Helper()
	fsys := errfs.New(disk)
	w := b.on(t, fsys)
	b.check(w, when)
	if _, _, err := w.cl.CleanOne(5_000); err != nil {
		t.Fatalf("%s: cleaning after it: %v", when, err)
	}
	b.check(w, when+", cleaned again")
	w.must(w.dir.Close(2))
	if l := fsys.Leaked(); len(l) > 0 {
		t.Fatalf("%s: open files: %v", when, l)
	}
}

func sweepSeeds() int {
	if os.Getenv("MILENA_SOAK") != "" {
		return 40
	}
	return 3
}

// A crash at every operation of a cleaning, with none, half or all of the unsynced changes kept.
func TestACrashAnywhereInACleaningLosesNothing(t *testing.T) {
	b := prepareSweep(t, 4)
	points := 0
	for n := 1; ; n++ {
		done := false
		for i := range sweepSeeds() {
			disk := b.disk.Clone()
			fsys := errfs.New(disk)
			w := b.on(t, fsys)
			fsys.PowerOffAt(fsys.Ops() + n)
			_, ok, err := w.cl.CleanOne(5_000)
			done = err == nil
			if done && !ok {
				t.Fatal("nothing was cleaned")
			}
			keep := []int{0, 50, 100}[i%3]
			b.again(t, disk.Crash(keep, det.NewRand(uint64(n*100+i))), fmt.Sprintf("crash at operation %d keeping %d %%", n, keep))
		}
		points = n
		if done {
			break
		}
	}
	if points < 30 {
		t.Fatal("only", points, "operations: the sweep does not reach the swap")
	}
	t.Log(points, "operations")
}

// An error at every operation of a cleaning: the log still reads the same, now or after a restart, and a cleaning that failed
// for want of space can be repeated.
func TestAnErrorAnywhereInACleaningLosesNothing(t *testing.T) {
	b := prepareSweep(t, 4)
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		for n := 1; ; n++ {
			disk := b.disk.Clone()
			fsys := errfs.New(disk)
			w := b.on(t, fsys)
			fsys.Add(errfs.Rule{Ops: errfs.Any, From: n, Err: cause})
			before := fsys.Ops()
			_, _, err := w.cl.CleanOne(5_000)
			reached := fsys.Ops()-before >= n
			fsys.Clear()
			when := fmt.Sprintf("%v at operation %d (%v)", cause, n, err)
			if w.dir.Offline() == nil {
				b.check(w, when)
				if errors.Is(err, ErrReserve) {
					if _, _, err := w.cl.CleanOne(5_000); err != nil {
						t.Fatalf("%s: cleaning is not repeated: %v", when, err)
					}
					b.check(w, when+", repeated")
				}
			}
			w.must(w.dir.Abandon())
			if l := fsys.Leaked(); len(l) > 0 {
				t.Fatalf("%s: open files: %v", when, l)
			}
			b.again(t, disk.Clone(), when)
			if !reached {
				break
			}
		}
	}
}
