package storage

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"

	"github.com/milena-mq/milena/internal/meta"
)

// fileCleaner is Kafka's checkpoint of the first offset of each log that was never cleaned.
const fileCleaner = "cleaner-offset-checkpoint"

// CleanerOptions configure a Cleaner.
type CleanerOptions struct {
	// MapBytes is the memory for the map of keys (log.cleaner.dedupe.buffer.size); 0: 128 MiB. Less is taken when the dirty
	// part of a log is small.
	MapBytes int64
	// Pace is called after each n bytes read or written, without a lock held; it may sleep (log.cleaner.io.max.bytes.per.second).
	// An error stops the cleaning between two batches and comes back from CleanOne; the log stays cleanable. nil: no limit.
	Pace func(n int64) error
}

// Cleaner compacts the logs of one directory (kafka.md 3.6). It has no goroutine: the broker calls CleanOne until there is nothing to
// do. CleanOne is not meant for several goroutines at once (a lock makes them wait); everything else goes on beside it.
type Cleaner struct {
	dir  *Dir
	opts CleanerOptions

	mu struct {
		sync.Mutex
		points map[meta.TopicPartition]int64 // first offset never cleaned
		bad    map[meta.TopicPartition]error
		stats  CleanStats
	}
	work sync.Mutex // one cleaning at a time
}

// CleanStats counts since start.
type CleanStats struct {
	Passes, Failures        int64
	BytesRead, BytesWritten int64
	RecordsRead, Kept       int64 // records of the batches that were looked into
	Uncleanable             int
}

// NewCleaner reads the cleaner's checkpoint. A malformed checkpoint counts as none: cleaning again from the start is only work.
func NewCleaner(d *Dir, o CleanerOptions) (*Cleaner, error) {
	if o.MapBytes <= 0 {
		o.MapBytes = 128 << 20
	}
	c := &Cleaner{dir: d, opts: o}
	c.mu.bad = map[meta.TopicPartition]error{}
	points, err := readOffsets(d.fs, filepath.Join(d.path, fileCleaner))
	if err != nil && !isData(err) {
		return nil, err
	}
	if points == nil {
		points = map[meta.TopicPartition]int64{}
	}
	c.mu.points = points
	return c, nil
}

// Uncleanable lists the logs whose cleaning failed and why; they are left alone until the next start or Retry (KIP-346).
func (c *Cleaner) Uncleanable() map[meta.TopicPartition]error {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[meta.TopicPartition]error, len(c.mu.bad))
	for tp, err := range c.mu.bad {
		out[tp] = err
	}
	return out
}

// Retry makes a log cleanable again.
func (c *Cleaner) Retry(tp meta.TopicPartition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.mu.bad, tp)
}

// Stats counts since start.
func (c *Cleaner) Stats() CleanStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.mu.stats
	s.Uncleanable = len(c.mu.bad)
	return s
}

// CleanOne compacts the log that needs it most and tells which. ok is false when none needs it. The error belongs to that log, which
// is uncleanable from then on; but ErrReserve, ErrOffline, ErrClosed and errors of Pace leave it as it is. now is in milliseconds.
func (c *Cleaner) CleanOne(now int64) (tp meta.TopicPartition, ok bool, err error) {
	c.work.Lock()
	defer c.work.Unlock()
	if err := c.dir.Offline(); err != nil {
		return tp, false, err
	}
	j, ok := c.choose(now)
	if !ok {
		return tp, false, nil
	}
	tp = j.log.tp
	end, err := c.clean(j, now)
	var stop *paceError
	switch {
	case err == nil:
		err = c.advance(tp, end)
	case errors.As(err, &stop), errors.Is(err, ErrReserve), errors.Is(err, ErrOffline), errors.Is(err, ErrClosed), errors.Is(err, errMoved):
		err = fmt.Errorf("clean %s: %w", tp, err)
	default:
		err = fmt.Errorf("clean %s: %w", tp, err)
		c.mu.Lock()
		c.mu.bad[tp] = err
		c.mu.stats.Failures++
		c.mu.Unlock()
	}
	return tp, true, err
}

// errMoved: the segments changed under the cleaning (retention, truncation); nothing was replaced, and the next call starts over.
var errMoved = errors.New("segments changed during cleaning")

// paceError carries an error of Pace through.
type paceError struct{ err error }

func (p *paceError) Error() string { return p.err.Error() }
func (p *paceError) Unwrap() error { return p.err }

func (c *Cleaner) pace(n int64) error {
	if c.opts.Pace == nil {
		return nil
	}
	if err := c.opts.Pace(n); err != nil {
		return &paceError{err}
	}
	return nil
}

// advance writes the checkpoint after a cleaning. Losing it in a crash costs another pass. Logs that are gone lose their line.
func (c *Cleaner) advance(tp meta.TopicPartition, end int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.points[tp] = end
	c.mu.stats.Passes++
	for p := range c.mu.points {
		if c.dir.Get(p) == nil {
			delete(c.mu.points, p)
		}
	}
	tps := make([]meta.TopicPartition, 0, len(c.mu.points))
	for p := range c.mu.points {
		tps = append(tps, p)
	}
	slices.SortFunc(tps, func(a, b meta.TopicPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	raw := encodeOffsets(len(tps), func(yield func(meta.TopicPartition, int64)) {
		for _, p := range tps {
			yield(p, c.mu.points[p])
		}
	})
	return c.dir.fail("write "+fileCleaner, writeAtomic(c.dir.fs, filepath.Join(c.dir.path, fileCleaner), raw))
}

// job is one log to clean: the segments and offsets as they were when it was chosen.
type job struct {
	log   *Log
	cfg   LogConfig
	segs  []source // from the log start to before bound
	first int64    // first dirty offset
	bound int64    // nothing at or above it is cleaned
	ratio float64
}

// source is a closed segment; its bytes never change.
type source struct {
	seg  *segment
	base int64
	size int64
}

// choose finds the log with the highest dirty ratio among those that are due.
func (c *Cleaner) choose(now int64) (best job, ok bool) {
	logs := c.dir.served()
	slices.SortFunc(logs, func(a, b *Log) int { // the same choice every time, whatever the map's order
		return cmp.Or(cmp.Compare(a.tp.Topic, b.tp.Topic), cmp.Compare(a.tp.Partition, b.tp.Partition))
	})
	for _, l := range logs {
		c.mu.Lock()
		if cut := l.cut.Swap(math.MaxInt64); cut < math.MaxInt64 {
			// What was cleaned before lies in a log that is gone, and so does what could not be.
			c.mu.points[l.tp] = min(c.mu.points[l.tp], cut)
			delete(c.mu.bad, l.tp)
		}
		bad, point := c.mu.bad[l.tp], c.mu.points[l.tp]
		c.mu.Unlock()
		if bad != nil {
			continue
		}
		if j, due := l.cleanable(point, now); due && (!ok || j.ratio > best.ratio) {
			best, ok = j, true
		}
	}
	return best, ok
}

// cleanable measures what could be cleaned in a log and whether it is due.
func (l *Log) cleanable(point, now int64) (job, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed != nil || !l.mu.cfg.Compact || len(l.mu.segs) < 2 {
		return job{}, false
	}
	if l.mu.epochsDirty && !l.mu.epochsFile {
		return job{}, false // after a light stop only the batches know where the leader epochs began: see lightMark
	}
	j := job{log: l, cfg: l.mu.cfg}
	start := max(l.start.Load(), l.mu.segs[0].base)
	active := l.activeLocked().base
	if j.first = point; point < start || point > active {
		j.first = start // retention has passed it, or the log was truncated and written anew
	}
	j.bound = min(l.hw.Load(), active)
	if o, ok := l.mu.producers.FirstUnstable(); ok {
		j.bound = min(j.bound, o)
	}
	var clean, dirty int64
	must := false
	for i, s := range l.mu.segs[:len(l.mu.segs)-1] {
		// Only what lies below the recovery point: after a crash the log is walked from there on, and what is walked
		// must be what was written.
		if s.base >= j.bound || l.segmentEndLocked(i) > l.mu.mark {
			break
		}
		isDirty := l.segmentEndLocked(i) > j.first
		if isDirty && j.cfg.MinCompactionLagMs > 0 {
			if l.knowLocked(i) != nil {
				return job{}, false // the reading side reports it
			}
			if s.maxTs > now-j.cfg.MinCompactionLagMs {
				break
			}
		}
		if isDirty {
			dirty += s.size
			must = must || l.overdueLocked(i, now)
		} else {
			clean += s.size
		}
		j.segs = append(j.segs, source{s, s.base, s.size})
	}
	if dirty == 0 {
		return job{}, false
	}
	last := len(j.segs) - 1
	if j.bound = min(j.bound, l.segmentEndLocked(last)); j.bound <= j.first {
		return job{}, false // the high watermark or an open transaction stopped the last pass inside a segment, and has not moved
	}
	j.ratio = float64(dirty) / float64(clean+dirty)
	return j, must || j.ratio > j.cfg.MinCleanableDirtyRatio
}

// overdueLocked tells whether a dirty segment has waited longer than max.compaction.lag.ms.
func (l *Log) overdueLocked(i int, now int64) bool {
	s := l.mu.segs[i]
	if l.mu.cfg.MaxCompactionLagMs <= 0 || l.mu.cfg.MaxCompactionLagMs >= now {
		return false // no limit in practice, the default
	}
	first := s.firstTs
	if first < 0 {
		if f, err := l.fileLocked(s); err == nil {
			w := newWalker(f, 0, s.size)
			if h, _, err := w.header(); err == nil {
				first = h.MaxTimestamp()
			}
			w.close()
			_ = f.release() // opened for reading
		}
	}
	if first < 0 {
		first = s.created
	}
	return now-first > l.mu.cfg.MaxCompactionLagMs
}
