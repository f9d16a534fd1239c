package sim

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/storage"
	"github.com/milena-mq/milena/internal/vfs"
)

// mutations are rules taken away, each through a dependency of the shell, and the promises whose
// breach may tell.
var mutations = []struct {
	name   string
	rules  func(*Rules)
	breach []string
}{
	{"HW advanced before the follower flushed", func(r *Rules) { r.Durable = (*storage.Log).End },
		[]string{"no acked loss", "logs agree below the HW", "stale incarnation never in the ISR"}},
	{"truncation to HW", func(r *Rules) {
		r.BeforeFollow = func(l *storage.Log) error { return l.Truncate(l.HW()) }
	}, []string{"no acked loss", "logs agree below the HW", "nothing below the HW is cut"}},
	{"ISR rejoin without broker epoch", func(r *Rules) { r.FetchEpoch = func(int64) int64 { return -1 } },
		[]string{"no acked loss", "logs agree below the HW", "stale incarnation never in the ISR"}},
	{"election outside ISR", func(r *Rules) {
		r.Elect = func(p *meta.Partition, alive func(int32) bool) int32 {
			for _, id := range p.Replicas {
				if alive(id) {
					return id
				}
			}
			return meta.NoLeader
		}
	}, []string{"no acked loss", "logs agree below the HW", "nothing below the HW is cut"}},
	{"recovery without sync", func(r *Rules) {
		r.Recover = func(f vfs.FS) (vfs.FS, func()) {
			l := &lazyFS{FS: f, lazy: true}
			return l, func() { l.lazy = false }
		}
	}, // Storage itself may notice: the durable mark says that more was there.
		[]string{"no acked loss", "logs agree below the HW", "stale incarnation never in the ISR", "recovery succeeds"}},
	{"HW moved below min ISR", func(r *Rules) { r.MinISR = func(int32) int32 { return 1 } },
		[]string{"HW does not move below min ISR"}},
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
			for seed := range uint64(2000) {
				_, err := Run(seed, Options{Rules: r})
				if err == nil {
					continue
				}
				var b *Breach
				if !errors.As(err, &b) {
					t.Fatal(err)
				}
				for _, name := range m.breach {
					if b.Name == name {
						t.Logf("seed %d: %s: %s", seed, b.Name, b.What)
						return
					}
				}
				t.Fatalf("another promise broke than one of %q:\n%v", m.breach, err)
			}
			t.Error("not found within 2,000 seeds")
		})
	}
}
