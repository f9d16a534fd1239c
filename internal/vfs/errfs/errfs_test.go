package errfs

import (
	"errors"
	"testing"

	"github.com/milena-mq/milena/internal/vfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

func TestRulesHitTheNthOperation(t *testing.T) {
	e := New(memfs.New())
	f, err := e.OpenFile("/a.log", vfs.ReadWrite|vfs.Create, 0)
	if err != nil {
		t.Fatal(err)
	}
	e.Add(Rule{Ops: Write, Suffix: ".log", From: 2, Err: ErrInjected})
	e.Add(Rule{Ops: Write, Suffix: ".log", From: 2, Count: 1, Short: true})
	e.Add(Rule{Ops: Read, Flip: true})
	calls := 0
	e.Add(Rule{Ops: Sync, Count: -1, Do: func() { calls++ }})
	put := func() (int, error) { return f.WriteAt([]byte("12345678"), 0) }
	if n, err := put(); n != 8 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := put(); n != 0 || !errors.Is(err, ErrInjected) {
		t.Fatal(n, err)
	}
	if n, err := put(); n != 4 || err == nil {
		t.Fatal("short write:", n, err)
	}
	b := make([]byte, 8)
	if _, err := f.ReadAt(b, 0); err != nil || string(b) == "12345678" {
		t.Fatalf("%q %v", b, err)
	}
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "12345678" {
		t.Fatalf("%q %v", b, err)
	}
	if err := errors.Join(f.Sync(), f.Sync()); err != nil || calls != 2 {
		t.Fatal(calls, err)
	}
	if l := e.Leaked(); len(l) != 1 || l[0] != "/a.log" {
		t.Fatal(l)
	}
	if err := f.Close(); err != nil || len(e.Leaked()) != 0 {
		t.Fatal(err, e.Leaked())
	}
	e.PowerOffAt(e.Ops() + 1)
	if err := e.Rename("/a.log", "/b.log"); !errors.Is(err, ErrPower) {
		t.Fatal(err)
	}
	if _, err := e.Stat("/a.log"); !errors.Is(err, ErrPower) {
		t.Fatal(err)
	}
}
