// Package memfs owns a file system in memory that knows what was synced: file data by Sync, directory entries by
// SyncDir, everything by Volume.Sync.
//
// It never touches the disk and has no clock: modification times count operations.
//
// It is safe for concurrent use (one lock) and starts no goroutine.
//
// Invariant: Crash(100) shows what was written, Crash(0) only what was synced; in between each unsynced piece of 512 bytes,
// each size change and each directory operation is kept or lost by the generator alone.
//
// Read memfs.go first.
package memfs

import (
	"io"
	"io/fs"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/vfs"
)

const sector = 512

// change is one unsynced change of a file: bytes at an offset, or a size.
type change struct {
	off  int64
	data []byte // nil: the size became off
}

type node struct {
	dir      bool
	data     []byte // as written
	durable  []byte // as of the last sync
	changes  []change
	entries  map[string]*node
	lasting  map[string]*node
	unsynced []entryOp
	mod      int64
}

// entryOp is one unsynced change of a folder: names set (nil: removed). A rename's two halves share a coin.
type entryOp struct {
	name string
	to   *node
	coin *coin
}

type coin struct{ tossed, keep bool }

// FS is the file system.
type FS struct {
	mu struct {
		sync.Mutex
		root   *node
		locks  map[string]bool
		clock  int64
		avail  int64
		total  int64
		noSync bool
	}
}

// New is an empty file system with 1 TiB free.
func New() *FS {
	f := &FS{}
	f.mu.root = newDir()
	f.mu.locks = map[string]bool{}
	f.mu.avail, f.mu.total = 1<<40, 1<<40
	return f
}

func newDir() *node {
	return &node{dir: true, entries: map[string]*node{}, lasting: map[string]*node{}}
}

// SetFree changes what Free answers; writes that grow files do not count against it.
func (f *FS) SetFree(avail, total int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.avail, f.mu.total = avail, total
}

// DisableVolumeSync makes Volume.Sync answer ErrUnsupported, as on systems without syncfs.
func (f *FS) DisableVolumeSync() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.noSync = true
}

func (f *FS) tickLocked() int64 { f.mu.clock++; return f.mu.clock }

func perr(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

func parts(name string) []string {
	name = path.Clean("/" + name)
	if name == "/" {
		return nil
	}
	var out []string
	for name != "/" {
		var base string
		name, base = path.Dir(name), path.Base(name)
		out = append(out, base)
	}
	slices.Reverse(out)
	return out
}

func (f *FS) findLocked(name string) *node {
	n := f.mu.root
	for _, p := range parts(name) {
		if n == nil || !n.dir {
			return nil
		}
		n = n.entries[p]
	}
	return n
}

func (f *FS) parentLocked(name string) (*node, string) {
	ps := parts(name)
	if len(ps) == 0 {
		return nil, ""
	}
	d := f.findLocked(path.Dir(path.Clean("/" + name)))
	if d == nil || !d.dir {
		return nil, ""
	}
	return d, ps[len(ps)-1]
}

func (d *node) set(name string, to *node, c *coin) {
	if to == nil {
		delete(d.entries, name)
	} else {
		d.entries[name] = to
	}
	d.unsynced = append(d.unsynced, entryOp{name, to, c})
}

// OpenFile implements vfs.FS.
func (f *FS) OpenFile(name string, flag int, _ fs.FileMode) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, base := f.parentLocked(name)
	if d == nil {
		return nil, perr("open", name, fs.ErrNotExist)
	}
	n := d.entries[base]
	switch {
	case n == nil && flag&vfs.Create == 0:
		return nil, perr("open", name, fs.ErrNotExist)
	case n == nil:
		n = &node{mod: f.tickLocked()}
		d.set(base, n, &coin{})
	case n.dir:
		return nil, perr("open", name, syscall.EISDIR)
	case flag&vfs.Create != 0 && flag&vfs.Excl != 0:
		return nil, perr("open", name, fs.ErrExist)
	}
	if flag&vfs.Trunc != 0 && len(n.data) > 0 {
		n.data = nil
		n.changes = append(n.changes, change{off: 0})
	}
	return &file{fs: f, n: n, name: name}, nil
}

// Remove implements vfs.FS.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, base := f.parentLocked(name)
	if d == nil || d.entries[base] == nil {
		return perr("remove", name, fs.ErrNotExist)
	}
	if n := d.entries[base]; n.dir && len(n.entries) > 0 {
		return perr("remove", name, syscall.ENOTEMPTY)
	}
	d.set(base, nil, &coin{})
	return nil
}

// RemoveAll implements vfs.FS.
func (f *FS) RemoveAll(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d, base := f.parentLocked(name); d != nil && d.entries[base] != nil {
		d.set(base, nil, &coin{})
	}
	return nil
}

// Rename implements vfs.FS.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, base := f.parentLocked(from)
	if d == nil || d.entries[base] == nil {
		return perr("rename", from, fs.ErrNotExist)
	}
	td, tbase := f.parentLocked(to)
	if td == nil {
		return perr("rename", to, fs.ErrNotExist)
	}
	n := d.entries[base]
	if old := td.entries[tbase]; old != nil && old.dir && len(old.entries) > 0 {
		return perr("rename", to, syscall.ENOTEMPTY)
	}
	c := &coin{}
	d.set(base, nil, c)
	td.set(tbase, n, c)
	return nil
}

// MkdirAll implements vfs.FS.
func (f *FS) MkdirAll(name string, _ fs.FileMode) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.mu.root
	for _, p := range parts(name) {
		next := n.entries[p]
		if next == nil {
			next = newDir()
			next.mod = f.tickLocked()
			n.set(p, next, &coin{})
		}
		if !next.dir {
			return perr("mkdir", name, syscall.ENOTDIR)
		}
		n = next
	}
	return nil
}

type info struct {
	name string
	size int64
	dir  bool
	mod  int64
}

func (i info) Name() string               { return i.name }
func (i info) Size() int64                { return i.size }
func (i info) IsDir() bool                { return i.dir }
func (i info) ModTime() time.Time         { return time.UnixMilli(i.mod) }
func (i info) Sys() any                   { return nil }
func (i info) Type() fs.FileMode          { return i.Mode().Type() }
func (i info) Info() (fs.FileInfo, error) { return i, nil }
func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}

func (n *node) info(name string) info {
	return info{name: name, size: int64(len(n.data)), dir: n.dir, mod: n.mod}
}

// ReadDir implements vfs.FS.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.findLocked(name)
	if d == nil || !d.dir {
		return nil, perr("readdir", name, fs.ErrNotExist)
	}
	out := make([]fs.DirEntry, 0, len(d.entries))
	for _, k := range det.SortedKeys(d.entries) {
		out = append(out, d.entries[k].info(k))
	}
	return out, nil
}

// Stat implements vfs.FS.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.findLocked(name)
	if n == nil {
		return nil, perr("stat", name, fs.ErrNotExist)
	}
	return n.info(path.Base(name)), nil
}

// SyncDir implements vfs.FS.
func (f *FS) SyncDir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.findLocked(name)
	if d == nil || !d.dir {
		return perr("syncdir", name, fs.ErrNotExist)
	}
	d.syncEntries()
	return nil
}

func (n *node) syncEntries() {
	for _, op := range n.unsynced {
		op.coin.tossed, op.coin.keep = true, true // the other half of a rename is on disk too
	}
	n.unsynced = nil
	n.lasting = make(map[string]*node, len(n.entries))
	for k, v := range n.entries {
		n.lasting[k] = v
	}
}

func (n *node) syncData() {
	n.durable = append(n.durable[:0], n.data...)
	n.changes = nil
}

func (n *node) syncTree() {
	if !n.dir {
		n.syncData()
		return
	}
	n.syncEntries()
	for _, c := range n.entries {
		c.syncTree()
	}
}

type volume struct{ fs *FS }

// Volume implements vfs.FS.
func (f *FS) Volume(string) (vfs.Volume, error) { return volume{f}, nil }

func (v volume) Sync() error {
	v.fs.mu.Lock()
	defer v.fs.mu.Unlock()
	if v.fs.mu.noSync {
		return vfs.ErrUnsupported
	}
	v.fs.mu.root.syncTree()
	return nil
}

func (v volume) Close() error { return nil }

type lock struct {
	fs   *FS
	name string
}

// Lock implements vfs.FS.
func (f *FS) Lock(name string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name = path.Clean("/" + name)
	if f.mu.locks[name] {
		return nil, perr("lock", name, vfs.ErrLocked)
	}
	f.mu.locks[name] = true
	return &lock{f, name}, nil
}

func (l *lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	delete(l.fs.mu.locks, l.name)
	return nil
}

// Free implements vfs.FS.
func (f *FS) Free(string) (avail, total int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.avail, f.mu.total, nil
}

type file struct {
	fs   *FS
	n    *node
	name string
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.n.mod = f.fs.tickLocked()
	f.n.data = put(f.n.data, p, off)
	f.n.changes = append(f.n.changes, change{off, slices.Clone(p)})
	return len(p), nil
}

func put(data, p []byte, off int64) []byte {
	data = resize(data, max(int64(len(data)), off+int64(len(p))))
	copy(data[off:], p)
	return data
}

func resize(data []byte, size int64) []byte {
	if size <= int64(len(data)) {
		return data[:size:size]
	}
	return append(data, make([]byte, size-int64(len(data)))...)
}

func (f *file) Close() error { return nil }
func (f *file) Name() string { return f.name }

func (f *file) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *file) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.n.mod = f.fs.tickLocked()
	f.n.data = resize(slices.Clone(f.n.data), size)
	f.n.changes = append(f.n.changes, change{off: size})
	return nil
}

func (f *file) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.n.syncData()
	return nil
}

func (f *file) Preallocate(int64) error     { return nil }
func (f *file) StartWriteback(int64, int64) {}
func (f *file) SysFile() *vfs.OSFile        { return nil }

// Crash is what a power cut now would leave: everything synced, and of the rest about keep percent, drawn by r. The
// original goes on unchanged.
func (f *FS) Crash(keep int, r *det.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &crasher{keep: keep, r: r, seen: map[*node]*node{}, coins: map[*coin]bool{}}
	out := New()
	out.mu.root = c.copy(f.mu.root)
	out.mu.clock, out.mu.avail, out.mu.total, out.mu.noSync = f.mu.clock, f.mu.avail, f.mu.total, f.mu.noSync
	return out
}

type crasher struct {
	keep  int
	r     *det.Rand
	seen  map[*node]*node
	coins map[*coin]bool
}

func (c *crasher) toss() bool { return c.r.Intn(100) < c.keep }

func (c *crasher) copy(n *node) *node {
	if m := c.seen[n]; m != nil {
		return m
	}
	m := &node{dir: n.dir, mod: n.mod}
	c.seen[n] = m
	if !n.dir {
		m.data = c.data(n)
		m.durable = slices.Clone(m.data)
		return m
	}
	kept := make(map[string]*node, len(n.lasting))
	for k, v := range n.lasting {
		kept[k] = v
	}
	for _, op := range n.unsynced {
		keep, known := c.coins[op.coin]
		if !known {
			keep = op.coin.keep || c.toss()
			c.coins[op.coin] = keep
		}
		switch {
		case !keep:
		case op.to == nil:
			delete(kept, op.name)
		default:
			kept[op.name] = op.to
		}
	}
	m.entries, m.lasting = map[string]*node{}, map[string]*node{}
	for _, k := range det.SortedKeys(kept) {
		m.entries[k] = c.copy(kept[k])
		m.lasting[k] = m.entries[k]
	}
	return m
}

// data replays the unsynced changes of a file, each sector by its own coin. A lost piece behind a kept one reads as zeros.
func (c *crasher) data(n *node) []byte {
	out := slices.Clone(n.durable)
	for _, ch := range n.changes {
		if ch.data == nil {
			if c.toss() {
				out = resize(out, ch.off)
			}
			continue
		}
		if c.keep < 100 && c.toss() { // the size may reach the disk before the bytes do
			out = resize(out, max(int64(len(out)), ch.off+int64(len(ch.data))))
		}
		for at := int64(0); at < int64(len(ch.data)); {
			n := min(int64(len(ch.data))-at, sector-(ch.off+at)%sector)
			if c.toss() {
				out = put(out, ch.data[at:at+n], ch.off+at)
			}
			at += n
		}
	}
	return out
}

// FlipBit turns one bit of a file over, durably.
func (f *FS) FlipBit(name string, at int64, bit uint) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.findLocked(name)
	if n == nil || at >= int64(len(n.data)) {
		return perr("flip", name, fs.ErrNotExist)
	}
	n.data = slices.Clone(n.data)
	n.data[at] ^= 1 << (bit % 8)
	n.syncData()
	return nil
}

// Clone is an independent copy in which everything counts as synced.
func (f *FS) Clone() *FS { return f.Crash(100, det.NewRand(0)) }

// Files lists all files with their sizes, for sweeps.
func (f *FS) Files() map[string]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]int64{}
	var walk func(p string, n *node)
	walk = func(p string, n *node) {
		for k, c := range n.entries {
			if c.dir {
				walk(p+"/"+k, c)
			} else {
				out[p+"/"+k] = int64(len(c.data))
			}
		}
	}
	walk("", f.mu.root)
	return out
}
