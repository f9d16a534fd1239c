package sim

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/milena-mq/milena/internal/producer"
	"github.com/milena-mq/milena/internal/storage"
	"github.com/milena-mq/milena/internal/vfs"
)

// Shapes in which a mutation can be seen soonest; drawn ones would do, with more seeds.
var (
	plain    = &Shape{Partitions: 1}
	deletes  = &Shape{Partitions: 1, Deletes: true, Drain: true}
	failover = &Shape{Partitions: 2, Controller: true, Reassign: true}
)

// mutations are rules taken away, each through a dependency of the shell, and the promises whose
// breach may tell.
var mutations = []struct {
	name   string
	seed   uint64 // that found it last, tried first
	shape  *Shape
	rules  func(*Rules)
	breach []string
}{
	{"HW advanced before the follower flushed", 6, plain, func(r *Rules) { r.Durable = (*storage.Log).End },
		[]string{"no acked loss", "logs agree below the HW", "stale incarnation never in the ISR", "one value per offset"}},
	{"truncation to HW", 74, plain, func(r *Rules) {
		r.BeforeFollow = func(l *storage.Log) error { return l.Truncate(l.HW()) }
	}, []string{"no acked loss", "logs agree below the HW", "nothing below the HW is cut"}},
	{"ISR rejoin without broker epoch", 373, plain, func(r *Rules) { r.FetchEpoch = func(int64) int64 { return -1 } },
		[]string{"no acked loss", "logs agree below the HW", "stale incarnation never in the ISR"}},
	{"election outside ISR", 3, plain, func(r *Rules) { r.Unclean = func(bool) bool { return true } },
		[]string{"no acked loss", "logs agree below the HW", "nothing below the HW is cut", "stale incarnation never in the ISR"}},
	{"recovery without sync", 0, plain, func(r *Rules) {
		r.Recover = func(f vfs.FS) (vfs.FS, func()) {
			l := &lazyFS{FS: f, lazy: true}
			return l, func() { l.lazy = false }
		}
	}, // Storage itself may notice: the durable mark says that more was there.
		[]string{"no acked loss", "logs agree below the HW", "stale incarnation never in the ISR", "recovery succeeds"}},
	{"HW moved below min ISR", 0, plain, func(r *Rules) { r.MinISR = func(int32) int32 { return 1 } },
		[]string{"HW does not move below min ISR"}},

	{"leading an epoch of a former incarnation", 76, plain, func(r *Rules) { r.Present = func(bool) bool { return true } },
		[]string{"no acked loss", "logs agree below the HW", "one value per offset", "each record once and in order", "epochs in the log never decrease", "nothing below the HW is cut", "stale incarnation never in the ISR"}},
	{"a write of a replaced controller is taken", 6, failover, func(r *Rules) { r.Fence = func(int64, int64) bool { return true } },
		[]string{"epochs never fall", "one leader per epoch", "the leader is in sync", "no acked loss", "the controller's own picture is right", "the metadata can be read"}},
	{"an overtaken controller goes on", 1846, failover, func(r *Rules) { r.Overtaken = func(bool) bool { return false } },
		[]string{"healed"}},
	{"records of a forgotten epoch are kept and shown", 81, deletes, func(r *Rules) {
		r.Strange = func(bool) bool { return false } // either rule alone hides what the other lets through
		r.Unseen = func(bool) bool { return false }
	}, []string{"logs agree below the HW", "readers see what is committed"}},
	{"sequence numbers are not checked", 0, plain, func(r *Rules) {
		r.Known = func(producer.Verdict, error) (producer.Verdict, error) { return producer.Verdict{}, nil }
	}, []string{"each record once and in order"}},
	{"a follower is read to its log end", 0, plain, func(r *Rules) { r.Readable = (*storage.Log).End },
		[]string{"readers see what is committed"}},
	{"deletion is confirmed before the followers have it", 9, deletes, func(r *Rules) { r.Low = func(own, _ int64) int64 { return own } },
		[]string{"deleted records stay deleted"}},
	{"a replica joins with a lower log start", 125, deletes, func(r *Rules) { r.Behind = func(bool) bool { return false } },
		[]string{"deleted records stay deleted"}},
}

// lazyFS answers every sync of segments with success and does nothing while it is lazy.
type lazyFS struct {
	vfs.FS
	lazy bool
}

func (l *lazyFS) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	f, err := l.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(name, ".log") {
		return f, nil
	}
	return &lazyFile{f, l}, nil
}

func (l *lazyFS) Volume(name string) (vfs.Volume, error) {
	v, err := l.FS.Volume(name)
	if err != nil {
		return nil, err
	}
	return &lazyVolume{v, l}, nil
}

type lazyFile struct {
	vfs.File
	fs *lazyFS
}

func (f *lazyFile) Sync() error {
	if f.fs.lazy {
		return nil
	}
	return f.File.Sync()
}

type lazyVolume struct {
	vfs.Volume
	fs *lazyFS
}

func (v *lazyVolume) Sync() error {
	if v.fs.lazy {
		return nil
	}
	return v.Volume.Sync()
}

// TestMutations proves that the simulator has teeth: each rule taken away is found within 2,000 seeds.
func TestMutations(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			r := Right()
			m.rules(&r)
			o := Options{Rules: r, Shape: m.shape}
			_, err := Run(m.seed, o)
			if err == nil {
				_, err = play(2000, o)
			}
			var b *Breach
			if !errors.As(err, &b) {
				t.Fatalf("not found within 2,000 seeds: %v", err)
			}
			if !slices.Contains(m.breach, b.Name) {
				t.Fatalf("another promise broke than one of %q:\n%v", m.breach, err)
			}
			t.Logf("seed %d: %s: %s", b.Seed, b.Name, b.What)
		})
	}
}
