package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/producer"
	"github.com/milena-mq/milena/internal/vfs"
)

// logWalk is the inspection of one log.
type logWalk struct {
	in     *inspection
	dir    string
	name   string
	tp     meta.TopicPartition
	mark   int64 // recovery point: what lies below it must be whole; -1 unknown, everything must be
	next   int64 // the offset that the next batch may not be below
	epoch  int32
	epochs epochs
	cut    bool // a tail that the next start cuts has been met
}

// spot is where a batch lies, for checking index entries.
type spot struct {
	pos, base, last int64
	maxTs           int64
	aborts          int64 // producer whose transaction an abort marker here ends, -1 none
}

// severity: past the recovery point anything may follow a crash.
func (g *logWalk) severity(offset int64) Severity {
	if g.mark >= 0 && offset >= g.mark {
		return Tail
	}
	return Damage
}

func (in *inspection) logFolder(path string) error {
	in.sum.Logs++
	list, err := in.fs.ReadDir(path)
	if err != nil {
		return fmt.Errorf("inspect %s: %w", path, err)
	}
	g := &logWalk{in: in, dir: path, name: filepath.Base(path), mark: -1, epoch: -1}
	g.tp, _ = parseDirName(g.name)
	if m, ok := in.marks[g.tp]; ok {
		g.mark = m
	} else if in.marks != nil {
		g.mark = 0 // never checkpointed: nothing is promised yet
	}
	if err := g.smallFiles(); err != nil {
		return err
	}
	var bases []int64
	for _, e := range list {
		base, ext, ok := parseSegName(e.Name())
		switch {
		case ok && ext == extLog:
			bases = append(bases, base)
		case ok && ext == extSnapshot:
			err = g.snapshot(e.Name())
		case ok && (strings.HasSuffix(ext, extCleaned) || strings.HasSuffix(ext, extSwap) || strings.HasSuffix(ext, extDeleted)):
			err = in.problem(g.name, e.Name(), 0, Note, "left by compaction or deletion; the next start finishes or removes it")
		}
		if err != nil {
			return err
		}
	}
	slices.Sort(bases)
	if len(bases) > 0 {
		g.next = bases[0]
	}
	for _, base := range bases {
		if base < g.next {
			if err := in.problem(g.name, segName(base, extLog), 0, g.severity(base), "segment begins at %d, the one before it reaches to %d", base, g.next); err != nil {
				return err
			}
		}
		spots, err := g.segment(segName(base, extLog), base)
		if err == nil {
			err = g.indexes(base, spots)
		}
		if err != nil {
			return err
		}
	}
	if g.mark > g.next && !g.cut {
		return in.problem(g.name, "", 0, Damage, "the log ends at %d, but records up to %d were durable", g.next, g.mark)
	}
	return nil
}

func (g *logWalk) smallFiles() error {
	in := g.in
	_, ok, err := readPartitionMetadata(in.fs, filepath.Join(g.dir, filePartition))
	if err != nil || !ok {
		if err := in.problem(g.name, filePartition, 0, Note, "no topic id (%v)", err); err != nil {
			return err
		}
	}
	in.sum.Files++
	if g.epochs, err = readEpochs(in.fs, filepath.Join(g.dir, fileEpochs)); err != nil {
		return in.problem(g.name, fileEpochs, 0, Damage, "%v", err)
	}
	if !in.opts.Indexes {
		return nil
	}
	for _, e := range g.epochs {
		if err := in.tell(InspectItem{Log: g.name, File: fileEpochs, Offset: &OffsetView{strconv.Itoa(int(e.epoch)), e.start}}); err != nil {
			return err
		}
	}
	return nil
}

func (g *logWalk) snapshot(file string) error {
	in := g.in
	in.sum.Files++
	raw, err := vfs.ReadFile(in.fs, filepath.Join(g.dir, file), maxCheckpoint)
	var t producer.Table
	if err == nil {
		err = t.Load(raw)
	}
	if err != nil {
		return in.problem(g.name, file, 0, Note, "%v; recovery takes an older one", err)
	}
	if !in.opts.Indexes {
		return nil
	}
	for _, s := range t.Active() {
		if err := in.tell(InspectItem{Log: g.name, File: file, Producer: &s}); err != nil {
			return err
		}
	}
	return nil
}

// segment walks one .log file.
func (g *logWalk) segment(file string, base int64) ([]spot, error) {
	in := g.in
	in.sum.Segments++
	in.sum.Files++
	f, err := in.fs.OpenFile(filepath.Join(g.dir, file), vfs.ReadOnly, 0)
	if err != nil {
		return nil, fmt.Errorf("inspect: %w", err)
	}
	defer func() { _ = f.Close() }() // opened for reading
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("inspect: %w", err)
	}
	w := newWalker(f, 0, size)
	defer w.close()
	var spots []spot
	var buf []byte
	for {
		_, n, err := w.header()
		if errors.Is(err, io.EOF) {
			return spots, nil
		}
		if err == nil {
			buf, err = w.full(n, buf)
		}
		if err != nil {
			if !isData(err) {
				return spots, fmt.Errorf("inspect: %w", err)
			}
			g.cut = g.severity(g.next) == Tail
			return spots, in.problem(g.name, file, w.pos, g.severity(g.next), "%d bytes from here to the end are no batch: %v", size-w.pos, err)
		}
		s, err := g.batch(file, base, w.pos, buf)
		if err != nil {
			return spots, err
		}
		spots = append(spots, s)
		in.sum.Batches++
		in.sum.Bytes += n
		w.pos += n
	}
}

// batch tells and checks one batch.
func (g *logWalk) batch(file string, base, pos int64, b batch.Batch) (spot, error) {
	in := g.in
	s := spot{pos: pos, base: b.BaseOffset(), last: b.LastOffset(), maxTs: b.MaxTimestamp(), aborts: -1}
	crc := b.VerifyCRC()
	if in.opts.Batches || in.opts.Records {
		if err := in.tell(InspectItem{Log: g.name, File: file, Position: pos, Batch: viewBatch(b, crc == nil)}); err != nil {
			return s, err
		}
	}
	var bad []string
	if crc != nil {
		bad = append(bad, crc.Error())
	}
	if b.BaseOffset() < g.next {
		bad = append(bad, fmt.Sprintf("offset %d, at least %d was expected", b.BaseOffset(), g.next))
	}
	if b.LastOffset()-base > math.MaxInt32 {
		bad = append(bad, fmt.Sprintf("offset %d is too far from the segment's %d", b.LastOffset(), base))
	}
	if b.LeaderEpoch() < g.epoch {
		bad = append(bad, fmt.Sprintf("leader epoch %d after %d", b.LeaderEpoch(), g.epoch))
	}
	if e := g.epochs.at(b.BaseOffset()); len(g.epochs) > 0 && e != b.LeaderEpoch() && g.severity(b.BaseOffset()) == Damage {
		bad = append(bad, fmt.Sprintf("leader epoch %d, the epoch list says %d", b.LeaderEpoch(), e))
	}
	if crc == nil {
		more, err := g.records(file, pos, b)
		if err != nil {
			return s, err
		}
		bad = append(bad, more...)
		m, ok, err := b.Marker()
		if err != nil {
			bad = append(bad, err.Error())
		}
		if ok && m.Type == batch.Abort {
			s.aborts = b.ProducerID()
		}
	}
	g.next, g.epoch = max(g.next, b.NextOffset()), max(g.epoch, b.LeaderEpoch())
	for _, why := range bad {
		if err := in.problem(g.name, file, pos, g.severity(b.BaseOffset()), "batch at offset %d: %s", b.BaseOffset(), why); err != nil {
			return s, err
		}
	}
	return s, nil
}

// records decodes a batch whose checksum is good; what is wrong comes back as words.
func (g *logWalk) records(file string, pos int64, b batch.Batch) (bad []string, err error) {
	last, maxTs := b.BaseOffset()-1, int64(batch.NoTimestamp)
	var told error
	err = b.Each(batch.Limits{}, func(r batch.Record) error {
		if r.Offset <= last || r.Offset > b.LastOffset() {
			bad = append(bad, fmt.Sprintf("record offset %d after %d, last is %d", r.Offset, last, b.LastOffset()))
		}
		last, maxTs = r.Offset, max(maxTs, r.Timestamp)
		g.in.sum.Records++
		if g.in.opts.Records {
			told = g.in.tell(InspectItem{Log: g.name, File: file, Position: pos, Record: g.viewRecord(b, r)})
		}
		return told
	})
	if told != nil {
		return nil, told
	}
	if err != nil {
		return append(bad, err.Error()), nil
	}
	if b.Count() > 0 && maxTs != b.MaxTimestamp() {
		bad = append(bad, fmt.Sprintf("largest timestamp is %d, the header says %d", maxTs, b.MaxTimestamp()))
	}
	return bad, nil
}

func viewBatch(b batch.Batch, valid bool) *BatchView {
	v := &BatchView{BaseOffset: b.BaseOffset(), LastOffset: b.LastOffset(), Count: b.Count(), BaseSequence: b.BaseSequence(), LastSequence: b.LastSequence(),
		ProducerID: b.ProducerID(), ProducerEpoch: b.ProducerEpoch(), LeaderEpoch: b.LeaderEpoch(), Transactional: b.IsTransactional(), Control: b.IsControl(),
		MaxTimestamp: b.MaxTimestamp(), TimestampType: "CreateTime", Size: len(b), Codec: b.Codec().String(), CRC: b.CRC(), Valid: valid}
	if b.IsLogAppendTime() {
		v.TimestampType = "LogAppendTime"
	}
	if h, ok := b.DeleteHorizon(); ok {
		v.DeleteHorizon = &h
	}
	return v
}

func (g *logWalk) viewRecord(b batch.Batch, r batch.Record) *RecordView {
	v := &RecordView{Offset: r.Offset, Timestamp: r.Timestamp, Sequence: -1, Key: slices.Clone(r.Key), Value: slices.Clone(r.Value)}
	if s := b.BaseSequence(); s >= 0 {
		v.Sequence = batch.AddSequence(s, int32(r.Offset-b.BaseOffset()))
	}
	for _, h := range r.Headers {
		v.Headers = append(v.Headers, HeaderView{string(h.Key), slices.Clone(h.Value)})
	}
	switch {
	case b.IsControl():
		if m, ok, err := b.Marker(); ok && err == nil {
			word := "ABORT"
			if m.Type == batch.Commit {
				word = "COMMIT"
			}
			v.Decoded = fmt.Sprintf("endTxnMarker: %s coordinatorEpoch: %d", word, m.CoordinatorEpoch)
		}
	case g.in.opts.Decode != nil:
		v.Decoded = g.in.opts.Decode(g.tp.Topic, r)
	}
	return v
}

// indexes checks the three indexes of a segment against its batches. A missing or damaged index is rebuilt by the broker, so it
// is only a note; an abort index that misses a marker is damage, because readers would see aborted records.
func (g *logWalk) indexes(base int64, spots []spot) error {
	if err := g.sparse(segName(base, extIndex), offsetEntry, base, spots); err != nil {
		return err
	}
	if err := g.sparse(segName(base, extTime), timeEntry, base, spots); err != nil {
		return err
	}
	in, name := g.in, segName(base, extTxn)
	list, err := readAborted(in.fs, filepath.Join(g.dir, name))
	if err != nil {
		return in.problem(g.name, name, 0, Damage, "%v", err)
	}
	for i, t := range list {
		if in.opts.Indexes {
			if err := in.tell(InspectItem{Log: g.name, File: name, Position: int64(i) * txnEntry, Aborted: &t}); err != nil {
				return err
			}
		}
		if !slices.ContainsFunc(spots, func(s spot) bool { return s.base == t.LastOffset && s.aborts == t.ProducerID }) {
			if err := in.problem(g.name, name, int64(i)*txnEntry, g.severity(t.LastOffset), "no abort marker of producer %d at offset %d", t.ProducerID, t.LastOffset); err != nil {
				return err
			}
		}
	}
	return nil
}

// sparse checks an offset index (entries point at the batch that ends at their offset) or a time index (the batch that ends at
// the offset has that timestamp).
func (g *logWalk) sparse(file string, width int, base int64, spots []spot) error {
	in := g.in
	raw, err := vfs.ReadFile(in.fs, filepath.Join(g.dir, file), 1<<31)
	if err != nil {
		if isNotExist(err) {
			return nil // an empty index has no file
		}
		return in.problem(g.name, file, 0, Note, "%v", err)
	}
	in.sum.Files++
	prev := int64(-1)
	for at := 0; len(raw)-at >= width; at += width {
		p := raw[at : at+width]
		e := IndexView{FilePosition: -1}
		var key int64
		var fits func(spot) bool
		if width == offsetEntry {
			e.Offset, e.FilePosition = base+int64(binary.BigEndian.Uint32(p)), int64(binary.BigEndian.Uint32(p[4:]))
			key, fits = e.Offset, func(s spot) bool { return s.last == e.Offset && s.pos == e.FilePosition }
		} else {
			ts := int64(binary.BigEndian.Uint64(p))
			e.Timestamp, e.Offset = &ts, base+int64(binary.BigEndian.Uint32(p[8:]))
			key, fits = ts, func(s spot) bool { return s.last == e.Offset && s.maxTs == ts }
		}
		if in.opts.Indexes {
			if err := in.tell(InspectItem{Log: g.name, File: file, Position: int64(at), Index: &e}); err != nil {
				return err
			}
		}
		i, _ := slices.BinarySearchFunc(spots, e.Offset, func(s spot, o int64) int { return int(min(max(s.last-o, -1), 1)) })
		if key <= prev || i == len(spots) || !fits(spots[i]) {
			return in.problem(g.name, file, int64(at), Note, "entry for offset %d does not fit the log; the index is rebuilt when it is needed", e.Offset)
		}
		prev = key
	}
	if n := len(raw) % width; n > 0 {
		return in.problem(g.name, file, int64(len(raw)-n), Note, "%d bytes after the last entry", n)
	}
	return nil
}
