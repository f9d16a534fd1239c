package storage

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/milena-mq/milena/internal/meta"
)

// Moving a log to another log directory (KIP-113). The new copy is a log of its own, in a folder that ends in -future:
//
//	1. CreateFuture makes it, in the other directory             -> crash: it is found again (Futures), and copied on
//	2. CopyFrom is called until there is nothing left to copy    -> crash: what was flushed is there, the copying goes on
//	3. Promote, while nobody appends: flush, recovery point, and the folder gets its final name, durably
//	                                                             -> crash: both logs are there and equal, see Newer
//	4. the old log is deleted, durably                           -> only the new one is left
//
// Appends go to the old log until 3 and to the new one after it; whoever promotes holds them up in between.

// ErrBehind: the future log does not hold everything yet that the log it copies holds.
var ErrBehind = errors.New("future log has not caught up")

// CreateFuture makes the empty log in d that shall take the place of old, a log of another directory. now is in milliseconds.
// ErrExists when d holds a log or a future log of this partition already.
func (d *Dir) CreateFuture(old *Log, now int64) (*Log, error) {
	if err := d.Offline(); err != nil {
		return nil, err
	}
	if old.dir == d {
		return nil, fmt.Errorf("move log %s: %w in %s", old.tp, ErrExists, d.path)
	}
	id := spread(uint64(now) ^ uint64(old.tp.Partition)<<48)
	name := fmt.Sprintf("%s.%016x%016x%s", dirName(old.tp), id, spread(id), dirFuture)
	if len(name) > 255 {
		return nil, fmt.Errorf("move log %s: the name of its topic is too long for a folder beside it", old.tp)
	}
	if _, err := d.fs.Stat(filepath.Join(d.path, dirName(old.tp))); !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return nil, d.fail("move log "+old.tp.String(), err)
		}
		return nil, fmt.Errorf("move log %s: %w in %s", old.tp, ErrExists, d.path)
	}
	return d.create(old.tp, old.topic, old.Config(), now, name, true)
}

// Future is the future log of a partition in this directory, nil when there is none.
func (d *Dir) Future(tp meta.TopicPartition) *Log {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.futures[tp]
}

// Futures lists the future logs of the directory: after Load those that a crash or a stop found half copied. Whoever finds one goes on
// with CopyFrom, or gives it up with Delete.
func (d *Dir) Futures() []*Log {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]*Log, 0, len(d.mu.futures))
	for _, l := range d.mu.futures {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *Log) int { return strings.Compare(a.mu.path, b.mu.path) })
	return out
}

// parseFutureName reads the name of a future log's folder: that of the log, a dot, 32 hexadecimal digits, -future.
func parseFutureName(name string) (meta.TopicPartition, bool) {
	name, ok := strings.CutSuffix(name, dirFuture)
	i := strings.LastIndexByte(name, '.')
	if !ok || i < 0 || len(name)-i-1 != 32 || strings.Trim(name[i+1:], "0123456789abcdef") != "" {
		return meta.TopicPartition{}, false
	}
	return parseDirName(name[:i])
}

// CopyFrom brings a future log nearer to the log it copies, by at most maxBytes (one batch at least). n is the bytes that came, for a
// throttle; caught says that both ended at the same offset at one moment of the call. The old log may be appended to, truncated
// and cleaned meanwhile. Its high watermark and log start are taken over (the start counts after the directory's next checkpoint).
// Errors are those of Append and Read; ErrClosed when either log was deleted.
func (l *Log) CopyFrom(old *Log, maxBytes int, now int64) (n int64, caught bool, err error) {
	for n == 0 && !caught && err == nil {
		n, caught, err = l.copyOnce(old, maxBytes, now)
	}
	return n, caught, err
}

func (l *Log) copyOnce(old *Log, maxBytes int, now int64) (n int64, caught bool, err error) {
	if parted, err := l.unpart(old); parted || err != nil {
		return 0, false, err
	}
	start, end := old.Start(), l.End()
	if end < start {
		if err := l.TruncateFully(start); err != nil {
			return 0, false, err
		}
		end = start
	}
	s, err := old.Read(end, maxBytes, math.MaxInt64, true)
	if errors.Is(err, ErrOutOfRange) {
		return 0, false, nil // its start rose or its end fell since the look above
	}
	if err != nil {
		return 0, false, err
	}
	raw, err := s.Bytes(nil)
	s.Release()
	// Looked at again: between the first look and the read the old log may have been cut and have grown again, and the
	// batches that were read would then continue a history that this log does not have.
	if parted, perr := l.unpart(old); parted || perr != nil {
		return 0, false, perr
	}
	if err != nil {
		return 0, false, fmt.Errorf("copy %s: %w", l.tp, err)
	}
	if len(raw) > 0 {
		if err := l.AppendFollower(raw, math.MaxInt32, now); err != nil {
			return 0, false, err
		}
	}
	if err := l.RaiseStart(min(old.Start(), l.End()), now); err != nil {
		return 0, false, err
	}
	l.SetHW(old.HW())
	return int64(len(raw)), l.End() == old.End(), nil
}

// unpart cuts off what this log has and the one it copies has no more, by the rule of followers (kafka.md 3.7): where the latest epoch
// ends there. parted says that something was cut; there may be more.
func (l *Log) unpart(old *Log) (parted bool, err error) {
	epoch, _, ok := l.LatestEpoch()
	theirs, _, known := old.LatestEpoch()
	switch {
	case !ok && l.End() <= old.End():
		return false, nil
	case !ok, !known:
		return true, l.TruncateFully(old.Start()) // no epoch to compare: begin again
	}
	found, upTo := old.EpochEnd(min(epoch, theirs))
	if found == epoch {
		if l.End() <= upTo {
			return false, nil
		}
		return true, l.Truncate(upTo)
	}
	if _, mine := l.EpochEnd(found); mine >= 0 {
		upTo = min(upTo, mine)
	}
	return true, l.Truncate(upTo)
}

// Promote gives the future log its final name, durably, and deletes the old one. The caller holds up appends to and truncations of
// both. ErrBehind, and nothing has happened, unless both have the same log start and end; after any other error the old log is
// still the one that counts, and d is offline or full. That the old log could not be deleted is no error: its own directory is then
// offline, and Newer tells the two apart at the next start. What only the old log knew (producers whose records are gone, epochs without
// records, the high watermark) goes over to the new one.
func (d *Dir) Promote(future, old *Log, now int64) error {
	if err := d.inherit(future, old); err != nil {
		return err
	}
	if err := d.settle(future); err != nil {
		return err
	}
	if err := d.giveName(future); err != nil {
		return err
	}
	_ = old.dir.Delete(old, now)
	return nil
}

// inherit checks that nothing is missing and copies what does not come with the batches.
func (d *Dir) inherit(future, old *Log) error {
	if future.dir != d || old.dir == d || d.Future(future.tp) != future {
		return fmt.Errorf("move log %s to %s: %w", future.tp, d.path, ErrClosed)
	}
	if err := d.CheckpointStarts(); err != nil {
		return err
	}
	old.mu.Lock()
	closed, snap, list := old.mu.closed, old.mu.producers.Snapshot(nil), slices.Clone(old.mu.epochs)
	old.mu.Unlock()
	future.mu.Lock()
	defer future.mu.Unlock()
	if err := errors.Join(closed, future.usableLocked()); err != nil {
		return err
	}
	if future.start.Load() != old.start.Load() || future.end.Load() != old.end.Load() {
		return fmt.Errorf("move log %s: %w: [%d, %d] of [%d, %d]", future.tp, ErrBehind, future.start.Load(), future.end.Load(), old.start.Load(), old.end.Load())
	}
	if err := future.mu.producers.Load(snap); err != nil {
		return d.goOffline("move log "+future.tp.String(), err)
	}
	hw := min(max(old.hw.Load(), future.start.Load()), future.end.Load())
	future.hw.Store(hw)
	future.mu.producers.Replicated(hw)
	future.mu.epochs, future.mu.epochsDirty = list, true
	d.hwDirty.Store(true)
	return nil
}

// settle makes a log and all that recovery needs of it durable up to its end, recovery point included: the producers that were
// inherited exist in no batch, only in the snapshot there.
func (d *Dir) settle(l *Log) error {
	if err := l.Flush(); err != nil {
		return err
	}
	d.markMu.Lock()
	defer d.markMu.Unlock()
	p, ok, err := l.prepareMark(true)
	if err != nil || !ok {
		return err
	}
	return d.finishMarks([]pending{p}, nil)
}

func (d *Dir) giveName(l *Log) error {
	// Checkpoints and syncs in progress name files by the folder's path.
	d.markMu.Lock()
	defer d.markMu.Unlock()
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return err
	}
	op, to := "move log "+l.tp.String(), filepath.Join(d.path, dirName(l.tp))
	if err := d.fs.Rename(l.mu.path, to); err != nil {
		return d.fail(op, err)
	}
	if err := d.fs.SyncDir(d.path); err != nil {
		return d.goOffline(op, err)
	}
	l.mu.path = to
	l.cut.Store(0)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mu.futures, l.tp)
	d.mu.logs[l.tp] = l
	return nil
}

// Newer tells which of two logs of one partition, found in two directories, is the one that counts: a crash came between steps 3 and 4
// of a move, and they are equal, or the old log's disk was away when it should have been deleted, and it ends earlier. The other one is
// to be deleted before the first append.
func Newer(a, b *Log) *Log {
	ae, _, _ := a.LatestEpoch()
	be, _, _ := b.LatestEpoch()
	for _, c := range []int{cmp.Compare(ae, be), cmp.Compare(a.End(), b.End()), cmp.Compare(a.Start(), b.Start())} {
		if c != 0 {
			if c < 0 {
				return b
			}
			break
		}
	}
	return a
}
