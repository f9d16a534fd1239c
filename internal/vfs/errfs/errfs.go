// Package errfs owns faults: it wraps a file system and makes chosen operations fail, write or read short, flip bits or
// wait, and it counts what was opened and not closed.
//
// It never changes what a rule does not name, and has no randomness of its own.
//
// It is safe for concurrent use and starts no goroutine.
//
// Invariant: operations are numbered from 1 in the order they begin; a single-threaded run gives the same numbers each time.
//
// Read errfs.go first.
package errfs

import (
	"errors"
	"io"
	"io/fs"
	"sort"
	"strings"
	"sync"

	"github.com/milena-mq/milena/internal/vfs"
)

// Op is a kind of operation; a Rule may name several.
type Op int

// The kinds.
const (
	Open Op = 1 << iota
	Read
	Write
	Sync // data of a file
	SyncDir
	SyncVolume
	Truncate
	Rename
	Remove
	Mkdir
	List // ReadDir, Stat, Size
	Close
	Any = 1<<iota - 1
)

// ErrInjected is the error of rules that name none; ErrPower is what everything answers after a power cut.
var (
	ErrInjected = errors.New("injected fault")
	ErrPower    = errors.New("power is off")
)

// Rule says what happens to operations. The zero values of its fields ask for the least.
type Rule struct {
	Ops    Op
	Suffix string // of the file's name; empty: all
	From   int    // the first matching operation that is hit, from 1 (0 means 1)
	Count  int    // how many are hit; 0: one, negative: all from there on
	Err    error  // the error; nil with Short, Flip or Do alone
	Short  bool   // half of the bytes are read or written before the error (ErrInjected, for a read io.ErrUnexpectedEOF, if Err is nil)
	Flip   bool   // one bit of the bytes read or written is turned over
	Do     func() // called first, for delays and for tests that interleave

	seen int
}

// FS wraps a file system.
type FS struct {
	in vfs.FS
	mu struct {
		sync.Mutex
		rules []*Rule
		ops   int
		trace []string
		open  map[*file]string
		cut   int
	}
}

// New wraps a file system without any rule.
func New(in vfs.FS) *FS {
	f := &FS{in: in}
	f.mu.open = map[*file]string{}
	return f
}

// Add adds a rule.
func (f *FS) Add(r Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.rules = append(f.mu.rules, &r)
}

// Clear removes all rules.
func (f *FS) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.rules = nil
}

// PowerOffAt makes operation n and all after it fail with ErrPower and change nothing.
func (f *FS) PowerOffAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.cut = n
}

// Ops is how many operations have begun.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.ops
}

// Trace lists the operations so far, each as kind and name.
func (f *FS) Trace() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.mu.trace...)
}

// Leaked lists the names of files that are still open.
func (f *FS) Leaked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, n := range f.mu.open {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

func (f *FS) begin(op Op, kind, name string) (hit Rule, err error) {
	f.mu.Lock()
	f.mu.ops++
	f.mu.trace = append(f.mu.trace, kind+" "+name)
	if f.mu.cut > 0 && f.mu.ops >= f.mu.cut {
		f.mu.Unlock()
		return hit, &fs.PathError{Op: kind, Path: name, Err: ErrPower}
	}
	for _, r := range f.mu.rules {
		if r.Ops&op == 0 || !strings.HasSuffix(name, r.Suffix) {
			continue
		}
		r.seen++
		n := r.seen - max(r.From, 1)
		if n < 0 || (r.Count >= 0 && n >= max(r.Count, 1)) {
			continue
		}
		hit = *r
		break
	}
	f.mu.Unlock()
	if hit.Do != nil {
		hit.Do()
	}
	if hit.Err != nil {
		err = &fs.PathError{Op: kind, Path: name, Err: hit.Err}
	}
	return hit, err
}

// OpenFile implements vfs.FS.
func (f *FS) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	if _, err := f.begin(Open, "open", name); err != nil {
		return nil, err
	}
	in, err := f.in.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	w := &file{File: in, fs: f}
	f.mu.Lock()
	f.mu.open[w] = name
	f.mu.Unlock()
	return w, nil
}

// Remove implements vfs.FS.
func (f *FS) Remove(name string) error {
	if _, err := f.begin(Remove, "remove", name); err != nil {
		return err
	}
	return f.in.Remove(name)
}

// RemoveAll implements vfs.FS.
func (f *FS) RemoveAll(name string) error {
	if _, err := f.begin(Remove, "removeall", name); err != nil {
		return err
	}
	return f.in.RemoveAll(name)
}

// Rename implements vfs.FS.
func (f *FS) Rename(from, to string) error {
	if _, err := f.begin(Rename, "rename", to); err != nil {
		return err
	}
	return f.in.Rename(from, to)
}

// MkdirAll implements vfs.FS.
func (f *FS) MkdirAll(name string, perm fs.FileMode) error {
	if _, err := f.begin(Mkdir, "mkdir", name); err != nil {
		return err
	}
	return f.in.MkdirAll(name, perm)
}

// ReadDir implements vfs.FS.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	if _, err := f.begin(List, "readdir", name); err != nil {
		return nil, err
	}
	return f.in.ReadDir(name)
}

// Stat implements vfs.FS.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	if _, err := f.begin(List, "stat", name); err != nil {
		return nil, err
	}
	return f.in.Stat(name)
}

// SyncDir implements vfs.FS.
func (f *FS) SyncDir(name string) error {
	if _, err := f.begin(SyncDir, "syncdir", name); err != nil {
		return err
	}
	return f.in.SyncDir(name)
}

type volume struct {
	vfs.Volume
	fs   *FS
	name string
}

// Volume implements vfs.FS.
func (f *FS) Volume(name string) (vfs.Volume, error) {
	v, err := f.in.Volume(name)
	if err != nil {
		return nil, err
	}
	return &volume{v, f, name}, nil
}

func (v *volume) Sync() error {
	if _, err := v.fs.begin(SyncVolume, "syncfs", v.name); err != nil {
		return err
	}
	return v.Volume.Sync()
}

// Lock implements vfs.FS.
func (f *FS) Lock(name string) (io.Closer, error) { return f.in.Lock(name) }

// Free implements vfs.FS.
func (f *FS) Free(name string) (avail, total int64, err error) { return f.in.Free(name) }

type file struct {
	vfs.File
	fs *FS
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	r, err := f.fs.begin(Read, "read", f.Name())
	if err != nil && !r.Short {
		return 0, err
	}
	if r.Short {
		n, rerr := f.File.ReadAt(p[:len(p)/2], off)
		if err == nil {
			err = rerr
		}
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	}
	n, err := f.File.ReadAt(p, off)
	if r.Flip && n > 0 {
		p[n/2] ^= 0x10
	}
	return n, err
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	r, err := f.fs.begin(Write, "write", f.Name())
	if err != nil && !r.Short {
		return 0, err
	}
	if r.Short {
		n, werr := f.File.WriteAt(p[:len(p)/2], off)
		if err == nil {
			err = werr
		}
		if err == nil {
			err = &fs.PathError{Op: "write", Path: f.Name(), Err: ErrInjected}
		}
		return n, err
	}
	if r.Flip && len(p) > 0 {
		q := append([]byte(nil), p...)
		q[len(q)/2] ^= 0x10
		p = q
	}
	return f.File.WriteAt(p, off)
}

func (f *file) Close() error {
	_, err := f.fs.begin(Close, "close", f.Name())
	f.fs.mu.Lock()
	delete(f.fs.mu.open, f)
	f.fs.mu.Unlock()
	return errors.Join(err, f.File.Close())
}

func (f *file) Size() (int64, error) {
	if _, err := f.fs.begin(List, "size", f.Name()); err != nil {
		return 0, err
	}
	return f.File.Size()
}

func (f *file) Truncate(size int64) error {
	if _, err := f.fs.begin(Truncate, "truncate", f.Name()); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *file) Sync() error {
	if _, err := f.fs.begin(Sync, "sync", f.Name()); err != nil {
		return err
	}
	return f.File.Sync()
}
