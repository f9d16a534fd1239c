package storage

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/producer"
)

// pass is one cleaning of one log.
type pass struct {
	c       *Cleaner
	job     job
	now     int64
	keys    *keyMap
	end     int64 // offsets below it are in the map; records from here on stay as they are
	aborted []AbortedTxn
	last    map[int64]producer.State // the newest thing each active producer wrote
	stats   CleanStats
}

// clean does a whole cleaning: build the map over the dirty part, then rewrite groups of segments. It returns the offset up to which
// the log is clean now.
func (c *Cleaner) clean(j job, now int64) (int64, error) {
	p := &pass{c: c, job: j, now: now, last: map[int64]producer.State{}}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		t := &c.mu.stats
		t.BytesRead += p.stats.BytesRead
		t.BytesWritten += p.stats.BytesWritten
		t.RecordsRead += p.stats.RecordsRead
		t.Kept += p.stats.Kept
	}()
	var err error
	if p.aborted, err = j.log.Aborted(j.segs[0].base, j.bound); err != nil {
		return 0, err
	}
	// Taken before the pass. What a producer writes later lies above the bound, so nothing it needs is dropped wrongly: at
	// worst a batch stays that need not.
	j.log.Producers(func(t *producer.Table) {
		for _, s := range t.Active() {
			p.last[s.ID] = s
		}
	})
	if err := p.buildMap(); err != nil {
		return 0, err
	}
	txns := newTxnFilter(p.aborted)
	for _, group := range p.groups() {
		if err := p.cleanGroup(group, txns); err != nil {
			return 0, err
		}
	}
	return p.end, nil
}

// eachBatch reads the batches of a segment in order with their checksums. fn may not keep the bytes.
func (p *pass) eachBatch(s source, fn func(b batch.Batch) error) error {
	f, err := p.job.log.sourceFile(s)
	if err != nil {
		return err
	}
	defer func() { _ = f.release() }() // opened for reading
	w := newWalker(f, 0, s.size)
	defer w.close()
	var buf []byte
	for {
		_, n, err := w.header()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			buf, err = w.full(n, buf)
		}
		if err == nil {
			err = batch.Batch(buf).VerifyCRC()
		}
		if err != nil {
			return fmt.Errorf("segment %d, position %d: %w", s.base, w.pos, err)
		}
		p.stats.BytesRead += n
		if err := p.c.pace(n); err != nil {
			return err
		}
		if err := fn(batch.Batch(buf)); err != nil {
			return err
		}
		w.pos += n
	}
}

// sourceFile opens a segment that was chosen, if it is still part of the log.
func (l *Log) sourceFile(s source) (*file, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed != nil {
		return nil, l.mu.closed
	}
	for _, x := range l.mu.segs {
		if x == s.seg {
			return l.fileLocked(x)
		}
	}
	return nil, errMoved
}

var errMapFull = errors.New("map of keys is full")

// buildMap notes the newest offset of each key in the dirty part, leaving out what aborted transactions wrote. A full map ends
// it early, at a batch boundary.
func (p *pass) buildMap() error {
	p.end = p.job.bound
	records := int64(0)
	for i, s := range p.job.segs {
		if i == len(p.job.segs)-1 || p.job.segs[i+1].base > p.job.first {
			records += s.size // a record may take less than a byte when compressed; the offsets below bound it too
		}
	}
	p.keys = newKeyMap(p.c.opts.MapBytes, min(records, p.job.bound-p.job.first))
	txns := newTxnFilter(p.aborted)
	for _, s := range p.job.segs {
		err := p.eachBatch(s, func(b batch.Batch) error { return p.mapBatch(b, txns) })
		if errors.Is(err, errMapFull) {
			if p.end <= p.job.first {
				return fmt.Errorf("batch at offset %d alone exceeds the %d keys that the cleaner's map holds", p.end, p.keys.limit)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) mapBatch(b batch.Batch, txns *txnFilter) error {
	if b.IsControl() {
		_, err := txns.control(b)
		return err
	}
	dropped := txns.data(b)
	if b.LastOffset() < p.job.first || b.BaseOffset() >= p.end || dropped {
		return nil
	}
	if !p.keys.room(int(b.Count())) {
		p.end = b.BaseOffset()
		return errMapFull
	}
	return b.Each(batch.Limits{}, func(r batch.Record) error {
		if r.Key != nil && r.Offset >= p.job.first && r.Offset < p.end {
			p.keys.put(r.Key, r.Offset)
		}
		return nil
	})
}

// groups puts neighbouring segments together while their sum stays a legal segment. Segments at or past the end of the map
// are left alone.
func (p *pass) groups() [][]source {
	var out [][]source
	var size, index int64
	c := p.job.cfg
	for i, s := range p.job.segs {
		if s.base >= p.end {
			break
		}
		span := p.job.log.sourceEnd(s) - s.base
		if i > 0 {
			span = p.job.log.sourceEnd(s) - out[len(out)-1][0].base
		}
		entries := s.size / max(int64(c.IndexIntervalBytes), 61)
		if len(out) == 0 || size+s.size > int64(c.SegmentBytes) || index+entries > int64(c.SegmentIndexBytes)/timeEntry-1 || span > math.MaxInt32 {
			out, size, index = append(out, nil), 0, 0
		}
		out[len(out)-1] = append(out[len(out)-1], s)
		size, index = size+s.size, index+entries
	}
	return out
}

// sourceEnd is the offset after a chosen segment.
func (l *Log) sourceEnd(s source) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, x := range l.mu.segs {
		if x == s.seg {
			return l.segmentEndLocked(i)
		}
	}
	return s.base // gone: the pass will notice
}

// cleanGroup rewrites neighbouring segments into one and puts it in their place.
func (p *pass) cleanGroup(group []source, txns *txnFilter) error {
	// The last batch of a group always stays, empty if need be: it says how far the new segment reaches, so that after a crash in
	// the middle of the swap the segments it replaces are known.
	lastOffset := int64(-1)
	for i := len(group) - 1; i >= 0 && lastOffset < 0; i-- {
		o, err := p.lastOffset(group[i])
		if err != nil {
			return err
		}
		lastOffset = o
	}
	out, err := p.create(group[0].base)
	if err != nil {
		return err
	}
	defer out.discard()
	changed := len(group) > 1
	for _, s := range group {
		err := p.eachBatch(s, func(b batch.Batch) error {
			kept, same, err := p.filter(b, txns, b.LastOffset() == lastOffset)
			if err != nil {
				return fmt.Errorf("batch at offset %d: %w", b.BaseOffset(), err)
			}
			changed = changed || !same
			if kept == nil {
				return nil
			}
			if err := p.add(out, kept); err != nil {
				return err
			}
			p.stats.BytesWritten += int64(len(kept))
			return p.c.pace(int64(len(kept)))
		})
		if err != nil {
			return err
		}
	}
	if !changed || out.seg.size == 0 {
		return nil // clean already: nothing to replace
	}
	aborted, err := p.abortedIn(group, out)
	if err != nil {
		return err
	}
	if err := out.finish(aborted); err != nil {
		return p.failed(err)
	}
	return p.swap(group, out)
}

// lastOffset is the last offset of the last batch of a segment, -1 when it is empty. The index leads near it; should the index be
// insane, the whole segment is walked.
func (p *pass) lastOffset(s source) (int64, error) {
	f, err := p.job.log.sourceFile(s)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.release() }() // opened for reading
	pos, err := p.job.log.nearEnd(s)
	if err != nil {
		return 0, err
	}
	last, err := walkToEnd(f, pos, s.size)
	if err != nil && isData(err) && pos > 0 {
		last, err = walkToEnd(f, 0, s.size)
	}
	if err != nil {
		return 0, fmt.Errorf("segment %d: %w", s.base, err)
	}
	return last, nil
}

func walkToEnd(f io.ReaderAt, pos, size int64) (int64, error) {
	w := newWalker(f, pos, size)
	defer w.close()
	last := int64(-1)
	for {
		h, n, err := w.header()
		if errors.Is(err, io.EOF) {
			return last, nil
		}
		if err != nil {
			return 0, fmt.Errorf("position %d: %w", w.pos, err)
		}
		last = h.LastOffset()
		w.pos += n
	}
}

// nearEnd is the position of a batch close to the end of a segment, by its index.
func (l *Log) nearEnd(s source) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, x := range l.mu.segs {
		if x == s.seg {
			return l.floorLocked(i, l.segmentEndLocked(i)-1)
		}
	}
	return 0, errMoved
}

// filter decides what stays of a batch (kafka.md 3.6): nil for nothing; same when the bytes are unchanged.
func (p *pass) filter(b batch.Batch, txns *txnFilter, isLast bool) (kept batch.Batch, same bool, err error) {
	if b.IsControl() {
		return p.filterControl(b, txns, isLast)
	}
	aborted := txns.data(b)
	if b.BaseOffset() >= p.end {
		return b, true, nil
	}
	s, active := p.last[b.ProducerID()]
	mustStay := isLast || b.HasProducer() && active && s.LastOffset == b.LastOffset()
	empty := func() (batch.Batch, bool, error) {
		if !mustStay {
			return nil, false, nil
		}
		if b.Count() == 0 {
			return b, true, nil
		}
		return b.Empty(), false, nil
	}
	if aborted {
		return empty()
	}
	horizon, stamped := b.DeleteHorizon()
	keep := func(r batch.Record) bool {
		if r.Offset >= p.end {
			return true
		}
		if r.Key == nil || r.Offset < p.keys.newest(r.Key) {
			return false
		}
		return r.Value != nil || !stamped || p.now <= horizon
	}
	kept0, tombs := 0, 0
	err = b.Each(batch.Limits{}, func(r batch.Record) error {
		if keep(r) {
			kept0++
			if r.Value == nil {
				tombs++
			}
		}
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	p.stats.RecordsRead += int64(b.Count())
	p.stats.Kept += int64(kept0)
	stamp := int64(0)
	if tombs > 0 && !stamped {
		stamp = p.now + p.job.cfg.DeleteRetentionMs
	}
	if kept0 == 0 {
		return empty()
	}
	if kept0 == int(b.Count()) && stamp == 0 {
		return b, true, nil
	}
	out, _, err := b.Filter(0, stamp, keep)
	return out, false, err
}

// filterControl keeps a marker while data of its transaction was seen in this pass, then for delete.retention.ms more; the last
// thing an active producer wrote stays, because it holds the epoch that fences.
func (p *pass) filterControl(b batch.Batch, txns *txnFilter, isLast bool) (kept batch.Batch, same bool, err error) {
	discardable, err := txns.control(b)
	if err != nil {
		return nil, false, err
	}
	if b.BaseOffset() >= p.end || !discardable {
		return b, true, nil
	}
	if s, active := p.last[b.ProducerID()]; active && s.LastOffset < 0 && s.Epoch == b.ProducerEpoch() {
		return b, true, nil
	}
	if b.Count() == 0 {
		if isLast {
			return b, true, nil
		}
		return nil, false, nil
	}
	horizon, stamped := b.DeleteHorizon()
	switch {
	case !stamped:
		out, _, err := b.Filter(0, p.now+p.job.cfg.DeleteRetentionMs, func(batch.Record) bool { return true })
		return out, false, err
	case p.now <= horizon:
		return b, true, nil
	case isLast:
		return b.Empty(), false, nil
	}
	return nil, false, nil
}
