package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs"
)

// Dir is one log directory: the logs in it, their checkpoints, and the fate they share when the disk fails.
type Dir struct {
	fs   vfs.FS
	path string
	id   meta.UUID

	lock   io.Closer
	volume vfs.Volume // nil where there is none

	syncFSAbove int
	noSyncFS    atomic.Bool
	maxOpen     int

	offline     atomic.Pointer[offlineError]
	hwDirty     atomic.Bool
	startsDirty atomic.Bool  // a log start was asked for, or a line is superfluous, since the file was written
	startsDue   atomic.Int32 // logs whose raised start is not durable yet
	removed     atomic.Bool  // Remove renamed a log and SyncRemoved has not run since
	full        atomic.Bool  // a write met a full disk; look at the free space again
	written     atomic.Int64 // bytes appended since the free space was looked at
	avail       atomic.Int64
	reserve     atomic.Int64
	sealedOpen  atomic.Int64
	short       atomic.Bool // the free space is below the reserve, and whoever watches has been told
	onReserve   func(reached bool, left, reserve int64)

	clean      int64 // broker epoch of the clean-shutdown mark
	cleanFound bool

	// markMu is held while offset checkpoints are made and while a log is truncated, so that no recovery point is
	// written for records that a truncation is taking away. Taken before syncMu and a log's lock.
	markMu sync.Mutex
	// manyMu admits one operation at a time that holds the syncMu of many logs.
	manyMu sync.Mutex

	mu struct {
		sync.Mutex
		logs        map[meta.TopicPartition]*Log
		futures     map[meta.TopicPartition]*Log // half-made copies of logs of other directories
		ghosts      map[meta.TopicPartition]bool // deleted, and perhaps still in a checkpoint file
		trash       []trash
		quarantined []Quarantined
		closed      bool
	}
	kept map[string]map[meta.TopicPartition]int64 // checkpoint lines of quarantined logs, by file; under markMu
}

type trash struct {
	path string
	due  int64
	tree bool
}

type offlineError struct{ err error }

// goOffline takes the directory offline for ever and returns the typed error. The first cause stays.
func (d *Dir) goOffline(op string, err error) error {
	if errors.Is(err, ErrOffline) {
		return err
	}
	e := &offlineError{fmt.Errorf("%w: %s: %w", ErrOffline, op, err)}
	d.offline.CompareAndSwap(nil, e)
	return d.offline.Load().err
}

// Offline is nil while the directory works, else an error that wraps ErrOffline and the cause.
func (d *Dir) Offline() error {
	if e := d.offline.Load(); e != nil {
		return e.err
	}
	return nil
}

// ID is directory.id.
func (d *Dir) ID() meta.UUID { return d.id }

// Path is where the directory is.
func (d *Dir) Path() string { return d.path }

// CleanEpoch is the broker epoch in the clean-shutdown mark that OpenDir found; false after a crash.
func (d *Dir) CleanEpoch() (int64, bool) { return d.clean, d.cleanFound }

// Quarantined lists the logs that Load refused to serve.
func (d *Dir) Quarantined() []Quarantined {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Quarantined(nil), d.mu.quarantined...)
}

// OpenDir takes the lock of a log directory, creating the directory when it is missing, and checks format number and identity.
// Errors: ErrLocked, ErrForeign, ErrFormat, each one line that names the path.
func OpenDir(fsys vfs.FS, path string, o DirOptions) (_ *Dir, err error) {
	if _, err := fsys.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := fsys.MkdirAll(path, dirPerm); err != nil {
			return nil, fmt.Errorf("create log directory %s: %w", path, err)
		}
	}
	d := &Dir{fs: fsys, path: path, syncFSAbove: o.SyncFSAbove, maxOpen: o.MaxOpenSegments}
	if d.syncFSAbove == 0 {
		d.syncFSAbove = 4 // measured: docs/benchmarks.md
	}
	if d.maxOpen <= 0 {
		d.maxOpen = 1024
	}
	d.reserve.Store(o.Reserve)
	d.full.Store(true)
	d.mu.futures = map[meta.TopicPartition]*Log{}
	d.mu.logs, d.mu.ghosts = map[meta.TopicPartition]*Log{}, map[meta.TopicPartition]bool{}
	if d.lock, err = fsys.Lock(filepath.Join(path, fileLock)); err != nil {
		if errors.Is(err, vfs.ErrLocked) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("open log directory %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open log directory %s: %w", path, err), d.release())
		}
	}()
	if err := d.checkFormat(); err != nil {
		return nil, err
	}
	// What is seen here is believed from now on. A process killed between a rename and the sync of the folder leaves a list that a
	// power cut would take back: a log start that falls again, a recovery point above a log that was cut because of the new one.
	if err := d.fs.SyncDir(path); err != nil {
		return nil, err
	}
	if err := d.checkIdentity(o); err != nil {
		return nil, err
	}
	if err := d.readClean(); err != nil {
		return nil, err
	}
	if d.volume, err = fsys.Volume(path); err != nil {
		if !errors.Is(err, vfs.ErrUnsupported) {
			return nil, err
		}
		d.volume, err = nil, nil
	}
	return d, nil
}

// syncParents makes the path to a fresh log directory durable, up to the root: syncing what is in a folder does not cover the folder's
// own entry. It runs until the format file is there, not only where the directory is missing: a process that was killed between
// creating the folders and syncing them leaves a directory that exists and that a power cut would still take away, with all in it.
func syncParents(fsys vfs.FS, path string) error {
	for parent := filepath.Dir(path); parent != path; path, parent = parent, filepath.Dir(parent) {
		err := fsys.SyncDir(parent)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EROFS) {
			continue // a folder that may not be read, or that knows no sync, is none that was created here
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) release() error {
	var errs []error
	if d.volume != nil {
		errs = append(errs, d.volume.Close())
		d.volume = nil
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
		d.lock = nil
	}
	return errors.Join(errs...)
}

func (d *Dir) checkFormat() error {
	name := filepath.Join(d.path, fileFormat)
	raw, err := vfs.ReadFile(d.fs, name, maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) {
		if err := syncParents(d.fs, d.path); err != nil {
			return err
		}
		return writeAtomic(d.fs, name, []byte(strconv.Itoa(formatNumber)+"\n"))
	}
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || n < 1 {
		return fmt.Errorf("%w: %s holds %q", ErrFormat, fileFormat, raw)
	}
	if n > formatNumber {
		return fmt.Errorf("%w: written in format %d by a newer version, this one knows up to %d", ErrFormat, n, formatNumber)
	}
	return nil
}

func (d *Dir) checkIdentity(o DirOptions) error {
	name := filepath.Join(d.path, fileProps)
	raw, err := vfs.ReadFile(d.fs, name, maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) {
		if o.NewID != nil {
			d.id = o.NewID()
		}
		return d.writeIdentity(o.ClusterID, o.NodeID)
	}
	if err != nil {
		return err
	}
	p := properties(raw, "=")
	if v := p["version"]; v != "0" && v != "1" {
		return fmt.Errorf("%w: %s has version %q", ErrFormat, fileProps, v)
	}
	node, ok := p["node.id"]
	if !ok {
		node = p["broker.id"]
	}
	// A directory that no cluster has taken holds nothing: its broker may have been refused, for example because its
	// number is another one's, and come again with a better one.
	fresh := p["cluster.id"] == ""
	if node != strconv.Itoa(int(o.NodeID)) && !fresh {
		return fmt.Errorf("%w: node.id is %s there, %d here", ErrForeign, node, o.NodeID)
	}
	if o.ClusterID != "" && p["cluster.id"] != "" && p["cluster.id"] != o.ClusterID {
		return fmt.Errorf("%w: cluster.id is %s there, %s here", ErrForeign, p["cluster.id"], o.ClusterID)
	}
	if d.id, err = meta.ParseUUID(p["directory.id"]); err != nil {
		if p["directory.id"] != "" {
			return fmt.Errorf("%w: directory.id: %w", ErrFormat, err)
		}
		if o.NewID != nil {
			d.id = o.NewID()
		}
		return d.writeIdentity(o.ClusterID, o.NodeID)
	}
	if fresh && (o.ClusterID != "" || node != strconv.Itoa(int(o.NodeID))) {
		return d.writeIdentity(o.ClusterID, o.NodeID)
	}
	return nil
}

func (d *Dir) writeIdentity(cluster string, node int32) error {
	text := fmt.Sprintf("cluster.id=%s\ndirectory.id=%s\nnode.id=%d\nversion=1\n", cluster, d.id, node)
	return writeAtomic(d.fs, filepath.Join(d.path, fileProps), []byte(text))
}

func (d *Dir) readClean() error {
	raw, err := vfs.ReadFile(d.fs, filepath.Join(d.path, fileClean), maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var m struct {
		Version     int    `json:"version"`
		BrokerEpoch *int64 `json:"brokerEpoch"`
	}
	// An unreadable mark counts as none: the logs are then checked from their recovery points, as after a crash.
	if json.Unmarshal(raw, &m) == nil && m.Version == 0 && m.BrokerEpoch != nil {
		d.clean, d.cleanFound = *m.BrokerEpoch, true
	}
	return nil
}

// Create makes an empty log. It becomes durable with its first flush; before that a crash may take the empty
// log away, and who asked for it creates it again. now is in milliseconds.
func (d *Dir) Create(tp meta.TopicPartition, topic meta.UUID, c LogConfig, now int64) (*Log, error) {
	if err := d.Offline(); err != nil {
		return nil, err
	}
	if !validTopic(tp.Topic) || tp.Partition < 0 {
		return nil, fmt.Errorf("create log: %q is no topic name", tp.Topic)
	}
	return d.create(tp, topic, c, now, dirName(tp), false)
}

// create makes an empty log in the folder of a name.
func (d *Dir) create(tp meta.TopicPartition, topic meta.UUID, c LogConfig, now int64, name string, future bool) (*Log, error) {
	if err := d.forgetGhost(tp); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.closed {
		return nil, ErrClosed
	}
	for _, q := range d.mu.quarantined {
		if q.TopicPartition == tp {
			return nil, fmt.Errorf("create log %s: %w", tp, q.Err)
		}
	}
	if d.mu.logs[tp] != nil || d.mu.futures[tp] != nil {
		return nil, fmt.Errorf("create log %s: %w", tp, ErrExists)
	}
	path := filepath.Join(d.path, name)
	if err := d.fs.MkdirAll(path, dirPerm); err != nil {
		return nil, d.fail("create log "+tp.String(), err)
	}
	if err := writeFile(d.fs, filepath.Join(path, filePartition), encodePartitionMetadata(topic), false); err != nil {
		return nil, d.fail("create log "+tp.String(), err)
	}
	l := newLog(d, tp, topic, path, c)
	s := newSegment(0, now)
	s.lazy, s.known, s.checked = true, true, true
	l.mu.segs = []*segment{s}
	l.mu.newborn, l.mu.dirDirty = true, true
	l.cut.Store(0)
	if future {
		d.mu.futures[tp] = l
	} else {
		d.mu.logs[tp] = l
	}
	return l, nil
}

// forgetGhost rewrites the checkpoints before a name is used again: the lines of the deleted log would
// otherwise make the new, shorter one look damaged after a crash.
func (d *Dir) forgetGhost(tp meta.TopicPartition) error {
	d.markMu.Lock()
	defer d.markMu.Unlock()
	d.mu.Lock()
	ghost := d.mu.ghosts[tp]
	var all []meta.TopicPartition
	if ghost {
		all = slices.Collect(maps.Keys(d.mu.ghosts))
	}
	d.mu.Unlock()
	if !ghost {
		return nil
	}
	if err := d.writeStarts(); err != nil {
		return err
	}
	if err := d.writeMarks(); err != nil {
		return err
	}
	// None that was deleted before has a line any more, so that a topic of a thousand partitions pays once.
	d.mu.Lock()
	for _, g := range all {
		delete(d.mu.ghosts, g)
	}
	d.mu.Unlock()
	return nil
}

func newLog(d *Dir, tp meta.TopicPartition, topic meta.UUID, path string, c LogConfig) *Log {
	l := &Log{dir: d, tp: tp, topic: topic}
	l.cut.Store(math.MaxInt64)
	l.mu.path, l.mu.cfg, l.mu.snap = path, c, -1
	return l
}

// Get is the log of a partition, nil when the directory has none.
func (d *Dir) Get(tp meta.TopicPartition) *Log {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.logs[tp]
}

// all lists the logs, future ones included: what a checkpoint covers. No partition has both here, so that lines do not collide.
func (d *Dir) all() []*Log {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]*Log, 0, len(d.mu.logs)+len(d.mu.futures))
	for _, l := range d.mu.logs {
		out = append(out, l)
	}
	for _, l := range d.mu.futures {
		out = append(out, l)
	}
	return out
}

// served lists the logs without the future ones, whose contents the logs they copy decide.
func (d *Dir) served() []*Log {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]*Log, 0, len(d.mu.logs))
	for _, l := range d.mu.logs {
		out = append(out, l)
	}
	return out
}

// Delete takes a log away: its folder is renamed to .uuid-delete at once and durably, so that the name is free and
// a crash does not bring it back; Housekeep unlinks it after file.delete.delay.ms. Slices held by readers stay readable.
func (d *Dir) Delete(l *Log, now int64) error {
	if err := d.Remove(l, now); err != nil {
		return err
	}
	return d.SyncRemoved()
}

// Remove is Delete without its sync, for many logs at once: ten thousand partitions would be as many syncs of
// one folder. SyncRemoved follows; until then a crash may bring the logs back, under their old topic id.
func (d *Dir) Remove(l *Log, now int64) error {
	// A sync in progress names files by the folder's path: renamed under it, its failure would be taken for
	// the disk's and end the whole directory.
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed != nil {
		return l.mu.closed
	}
	l.mu.closed = fmt.Errorf("%s: %w", l.tp, ErrClosed)
	l.dropWantLocked()
	d.closeFilesLocked(l)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.futures[l.tp] == l {
		delete(d.mu.futures, l.tp)
	} else {
		delete(d.mu.logs, l.tp)
	}
	d.mu.ghosts[l.tp] = true
	d.startsDirty.Store(true)
	d.hwDirty.Store(true)
	id := spread(uint64(now)) ^ uint64(len(d.mu.trash)+1)
	suffix := fmt.Sprintf(".%016x%016x%s", spread(id), id, dirDelete)
	name := dirName(l.tp)
	name = name[:min(len(name), 255-len(suffix))] + suffix
	to := filepath.Join(d.path, name)
	if err := d.fs.Rename(l.mu.path, to); err != nil {
		return d.fail("delete log "+l.tp.String(), err)
	}
	d.mu.trash = append(d.mu.trash, trash{to, now + l.mu.cfg.FileDeleteDelayMs, true})
	d.removed.Store(true)
	return nil
}

// SyncRemoved makes the renames of Remove durable; it does nothing when there were none.
func (d *Dir) SyncRemoved() error {
	if !d.removed.Swap(false) {
		return nil
	}
	return d.fail("delete logs", d.fs.SyncDir(d.path))
}

// closeFilesLocked gives up the log's own references. A failed close of a file whose bytes were synced loses nothing.
func (d *Dir) closeFilesLocked(l *Log) {
	for _, s := range l.mu.segs {
		l.closeFile(s)
	}
}

// Free space is looked at again after this much was written.
const lookEvery = 16 << 20

// SetReserve changes the free space, in bytes, below which Writable refuses.
func (d *Dir) SetReserve(n int64) { d.reserve.Store(n); d.full.Store(true) }

// Writable refuses a write of n bytes with ErrReserve when it would take the free space below the reserve, or with
// ErrOffline. It costs a few atomic reads; the disk is asked after every 16 MiB written, after a
// housekeeping pass, and each time while it refuses, so that writing resumes as soon as there is room.
func (d *Dir) Writable(n int64) error {
	if err := d.Offline(); err != nil {
		return err
	}
	reserve := d.reserve.Load()
	w := d.written.Load()
	if d.full.Load() || w > lookEvery {
		avail, _, err := d.fs.Free(d.path)
		if err != nil {
			avail = math.MaxInt64 // cannot tell: a full disk is then met by the write itself
		}
		d.written.Add(-w)
		w = 0
		d.avail.Store(avail)
		d.full.Store(false)
	}
	if left := d.avail.Load() - w - n; left < reserve {
		d.full.Store(true)
		d.tellReserve(true, left)
		return fmt.Errorf("write to %s: %w: %d bytes would be left, reserve is %d", d.path, ErrReserve, max(left, 0), reserve)
	}
	// Left only with some room to spare: near the border small writes would pass and large ones be refused in turn.
	if d.short.Load() && d.avail.Load()-w >= reserve+lookEvery {
		d.tellReserve(false, d.avail.Load()-w)
	}
	return nil
}

// WatchReserve has fn called when the free space falls below the reserve (reached, or the disk is simply full) and when there is room
// again, once each. left and reserve are bytes. fn may run under a log's lock: it must not call this package. Call it before
// the first write.
func (d *Dir) WatchReserve(fn func(reached bool, left, reserve int64)) { d.onReserve = fn }

// AtReserve says that the free space is below the reserve, as far as it is known: from the first write that was refused, or checkpoint
// that saw it, until there is room to spare.
func (d *Dir) AtReserve() bool { return d.short.Load() }

func (d *Dir) tellReserve(reached bool, left int64) {
	if d.short.CompareAndSwap(!reached, reached) && d.onReserve != nil {
		d.onReserve(reached, max(left, 0), d.reserve.Load())
	}
}

// Space is the free and total bytes of the disk.
func (d *Dir) Space() (avail, total int64, err error) { return d.fs.Free(d.path) }
