package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// Replacing segments, for the cleaner. The order makes every crash harmless:
//
//	1. the new segment is written as .cleaned files, all synced     -> crash: removed at the next start
//	2. .cleaned files are renamed to .swap, the .log last           -> crash: see finishSwapsLocked
//	3. the folder is synced: from here on the new segment counts
//	4. the old segments are removed, the .swap files get their names
//
// Only segments wholly below the recovery point may be replaced: recovery past it demands that each
// segment begins where the one before it ends, which compaction does not keep.

// swapExts are the files of a segment that a replacement brings, the log last: a .log.swap says that its companions are there.
var swapExts = []string{extIndex, extTime, extTxn, extLog}

// publishSwapLocked is steps 2 and 3 for one cleaned segment, whose .cleaned files are complete and synced.
func (l *Log) publishSwapLocked(base int64) error {
	for _, ext := range swapExts {
		name := l.segPath(base, ext)
		if err := l.dir.fs.Rename(name+extCleaned, name+extSwap); err != nil && (ext != extTxn || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return l.dir.fs.SyncDir(l.mu.path)
}

// installSwapLocked is step 4: the old segments' files are removed, newest first, and the new ones get their names.
func (l *Log) installSwapLocked(base int64, old []int64) error {
	for _, o := range slices.Backward(old) {
		for _, ext := range []string{extLog, extIndex, extTime, extTxn} {
			if err := l.dir.fs.Remove(l.segPath(o, ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if o != base { // the snapshot at the first base still describes the first offset of the new segment
			if err := l.dir.fs.Remove(l.segPath(o, extSnapshot)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	// Without this sync a crash may keep the new .log name and bring an old segment back: they would overlap.
	if err := l.dir.fs.SyncDir(l.mu.path); err != nil {
		return err
	}
	for _, ext := range swapExts {
		if ext == extLog {
			// The .log.swap keeps its name until its companions have theirs for good: it is what makes the next start go on here.
			if err := l.dir.fs.SyncDir(l.mu.path); err != nil {
				return err
			}
		}
		name := l.segPath(base, ext)
		if err := l.dir.fs.Rename(name+extSwap, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return l.dir.fs.SyncDir(l.mu.path)
}

// finishSwapsLocked brings a replacement that was cut short to its beginning or its end (kafka.md 3.11, step 1).
func (l *Log) finishSwapsLocked() error {
	list, err := l.dir.fs.ReadDir(l.mu.path)
	if err != nil {
		return err
	}
	var bases, swaps []int64
	minCleaned := int64(-1)
	for _, e := range list {
		o, ext, ok := parseSegName(e.Name())
		if !ok {
			continue
		}
		switch {
		case strings.HasSuffix(ext, extCleaned):
			if minCleaned < 0 || o < minCleaned {
				minCleaned = o
			}
			if err := l.dir.fs.Remove(filepath.Join(l.mu.path, e.Name())); err != nil {
				return err
			}
		case ext == extLog:
			bases = append(bases, o)
		case ext == extLog+extSwap:
			swaps = append(swaps, o)
		}
	}
	for _, e := range list {
		o, ext, ok := parseSegName(e.Name())
		if !ok || !strings.HasSuffix(ext, extSwap) {
			continue
		}
		// A .swap beside a .cleaned at or below it belongs to a set that was not complete; one without its .log too, unless
		// the .log already has its final name.
		incomplete := minCleaned >= 0 && o >= minCleaned
		if incomplete || (!slices.Contains(swaps, o) && !slices.Contains(bases, o)) {
			if err := l.dir.fs.Remove(filepath.Join(l.mu.path, e.Name())); err != nil {
				return err
			}
			swaps = slices.DeleteFunc(swaps, func(b int64) bool { return b == o })
		}
	}
	for _, base := range swaps {
		end, err := l.swapEnd(base)
		if err != nil {
			return err
		}
		var old []int64
		for _, o := range bases {
			if o >= base && o < end {
				old = append(old, o)
			}
		}
		if err := l.installSwapLocked(base, old); err != nil {
			return err
		}
	}
	return nil
}

// swapEnd is the offset after the last batch of a .log.swap: the segments that begin below it are replaced.
func (l *Log) swapEnd(base int64) (int64, error) {
	name := l.segPath(base, extLog) + extSwap
	f, err := l.dir.fs.OpenFile(name, 0, 0)
	if err != nil {
		return 0, err
	}
	size, err := f.Size()
	if err != nil {
		return 0, errors.Join(err, f.Close())
	}
	w := newWalker(f, 0, size)
	defer w.close()
	end := base + 1
	for w.pos < size {
		h, n, err := w.header()
		if err != nil {
			return 0, errors.Join(corrupt("%s, position %d: %w", name, w.pos, err), f.Close())
		}
		end = h.NextOffset()
		w.pos += n
	}
	if err := f.Close(); err != nil {
		return 0, fmt.Errorf("close %s: %w", name, err)
	}
	return end, nil
}
