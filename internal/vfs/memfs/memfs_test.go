package memfs

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/vfs"
)

func write(t *testing.T, f *FS, name, text string, sync bool) {
	t.Helper()
	h, err := f.OpenFile(name, vfs.ReadWrite|vfs.Create, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.WriteAt([]byte(text), 0); err != nil {
		t.Fatal(err)
	}
	if sync {
		if err := h.Sync(); err != nil {
			t.Fatal(err)
		}
	}
}

func read(f *FS, name string) string {
	b, err := vfs.ReadFile(f, name, 1<<20)
	if err != nil {
		return "<" + errors.Unwrap(err).Error() + ">"
	}
	return string(b)
}

func TestCrashKeepsWhatWasSynced(t *testing.T) {
	f := New()
	if err := errors.Join(f.MkdirAll("/d", 0), f.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	write(t, f, "/d/a", "one", true)
	if err := f.SyncDir("/d"); err != nil {
		t.Fatal(err)
	}
	write(t, f, "/d/a", "two", false)
	write(t, f, "/d/b", "data synced, name not", true)
	if err := f.Rename("/d/a", "/d/c"); err != nil {
		t.Fatal(err)
	}
	gone := "<" + fs.ErrNotExist.Error() + ">"
	lost, kept := f.Crash(0, det.NewRand(1)), f.Crash(100, det.NewRand(1))
	for _, x := range []struct {
		f          *FS
		name, want string
	}{{lost, "/d/a", "one"}, {lost, "/d/b", gone}, {lost, "/d/c", gone}, {kept, "/d/a", gone}, {kept, "/d/b", "data synced, name not"}, {kept, "/d/c", "two"}, {f, "/d/c", "two"}} {
		if got := read(x.f, x.name); got != x.want {
			t.Errorf("%s is %q, want %q", x.name, got, x.want)
		}
	}
	// A rename is whole: never both names, never neither.
	for seed := range uint64(50) {
		c := f.Crash(50, det.NewRand(seed))
		if a, b := read(c, "/d/a"), read(c, "/d/c"); (a == gone) == (b == gone) {
			t.Fatalf("seed %d: a is %q, c is %q", seed, a, b)
		}
	}
	v, _ := f.Volume("/")
	if err := v.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := read(f.Crash(0, det.NewRand(1)), "/d/c"); got != "two" {
		t.Fatalf("after a volume sync c is %q", got)
	}
}

func TestCrashTearsUnsyncedWritesBySector(t *testing.T) {
	f := New()
	write(t, f, "/a", "", true)
	if err := f.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	write(t, f, "/a", string(bytes.Repeat([]byte("x"), 8*sector)), false)
	seen := map[string]bool{}
	for seed := range uint64(60) {
		got := read(f.Crash(50, det.NewRand(seed)), "/a")
		for at := 0; at < len(got); at += sector {
			s := got[at:min(len(got), at+sector)]
			switch s[0] {
			case 'x':
				seen["kept"] = true
			case 0:
				seen["zeros"] = true
			}
			for i := range s {
				if s[i] != s[0] {
					t.Fatalf("seed %d: sector at %d is torn", seed, at)
				}
			}
		}
		if len(got) < 8*sector {
			seen["short"] = true
		}
	}
	if len(seen) != 3 {
		t.Fatalf("50 %% gave only %v", seen)
	}
	a, b := read(f.Crash(50, det.NewRand(7)), "/a"), read(f.Crash(50, det.NewRand(7)), "/a")
	if a != b {
		t.Fatal("one seed, two outcomes")
	}
}
