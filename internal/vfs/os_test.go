package vfs

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
)

func TestFileKeepsSizeUntilWritten(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	f, err := OS.OpenFile(name, ReadWrite|Create|Excl, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Preallocate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Size(); n != 0 || err != nil {
		t.Fatalf("size %d after preallocation, %v", n, err)
	}
	if _, err := f.WriteAt([]byte("hello"), 3); err != nil {
		t.Fatal(err)
	}
	f.StartWriteback(0, 8)
	if err := errors.Join(f.Sync(), f.Truncate(6)); err != nil {
		t.Fatal(err)
	}
	if f.SysFile() == nil || f.Name() != name {
		t.Fatal("no file behind the file")
	}
	if _, err := OS.OpenFile(name, ReadWrite|Create|Excl, 0o644); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(OS, name, 6); string(b) != "\x00\x00\x00hel" || err != nil {
		t.Fatalf("%q %v", b, err)
	}
	if _, err := ReadFile(OS, name, 5); err == nil {
		t.Fatal("a file above the limit was read")
	}
}

func TestLockIsExclusiveUntilClosed(t *testing.T) {
	name := filepath.Join(t.TempDir(), ".lock")
	a, err := OS.Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OS.Lock(name); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := OS.Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFoldersAndVolume(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "a", "b")
	if err := errors.Join(OS.MkdirAll(sub, 0o755), OS.SyncDir(dir)); err != nil {
		t.Fatal(err)
	}
	if err := OS.Rename(sub, filepath.Join(dir, "c")); err != nil {
		t.Fatal(err)
	}
	list, err := OS.ReadDir(dir)
	if err != nil || len(list) != 2 || list[1].Name() != "c" {
		t.Fatal(list, err)
	}
	if err := errors.Join(OS.Remove(filepath.Join(dir, "c")), OS.RemoveAll(filepath.Join(dir, "a"))); err != nil {
		t.Fatal(err)
	}
	if _, err := OS.Stat(filepath.Join(dir, "c")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	avail, total, err := OS.Free(dir)
	if err != nil || avail < 0 || total < avail {
		t.Fatal(avail, total, err)
	}
	v, err := OS.Volume(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Sync(); err != nil && !errors.Is(err, ErrUnsupported) {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}
