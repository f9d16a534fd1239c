package storage

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/producer"
	"github.com/milena-mq/milena/internal/vfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

var compactTP = meta.TopicPartition{Topic: "keep", Partition: 0}

func compactConfig() LogConfig {
	c := DefaultLogConfig()
	c.Delete, c.Compact = false, true
	c.SegmentBytes, c.IndexIntervalBytes = 2000, 200
	c.MinCleanableDirtyRatio, c.DeleteRetentionMs, c.FileDeleteDelayMs = 0, 1000, 0
	return c
}

// world is a log directory with one compacted log, and what was appended to it.
type world struct {
	t    testing.TB
	fs   vfs.FS
	path string
	dir  *Dir
	log  *Log
	cl   *Cleaner
	sent []batch.Record // every record ever appended, by offset; markers and aborted ones have no key here
	seqs map[int64]int32
}

func openWorld(t testing.TB, fsys vfs.FS, path string, c LogConfig) *world {
	t.Helper()
	w := &world{t: t, fs: fsys, path: path, seqs: map[int64]int32{}}
	w.must(w.open(c))
	if w.log == nil {
		l, err := w.dir.Create(compactTP, meta.UUID{1}, c, 0)
		w.must(err)
		w.log = l
	}
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) open(c LogConfig) error {
	d, err := OpenDir(w.fs, w.path, DirOptions{NodeID: 1, NewID: func() meta.UUID { return meta.UUID{9} }, SyncFSAbove: -1})
	if err != nil {
		return err
	}
	logs, err := d.Load(nil, 0, func(meta.TopicPartition, meta.UUID) LogConfig { return c })
	if err != nil {
		return errors.Join(err, d.Abandon())
	}
	w.dir, w.log = d, nil
	if q := d.Quarantined(); len(q) > 0 {
		return errors.Join(q[0].Err, d.Abandon())
	}
	for _, l := range logs {
		w.log = l
	}
	w.cl, err = NewCleaner(d, CleanerOptions{})
	return err
}

func (w *world) append(b batch.Batch) error {
	n := int(b.Count())
	base, err := w.log.Append(b, 1, 0)
	if err != nil {
		return err
	}
	for len(w.sent) < int(base)+n {
		w.sent = append(w.sent, batch.Record{})
	}
	if b.IsControl() {
		return nil
	}
	return b.Each(batch.Limits{}, func(r batch.Record) error {
		w.sent[r.Offset] = batch.Record{Offset: r.Offset, Timestamp: r.Timestamp, Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value)}
		return nil
	})
}

// data makes a batch of records "key=value"; a value of "-" is a tombstone.
func data(codec batch.Codec, p *batch.ProducerInfo, txn bool, kv ...string) batch.Batch {
	b := batch.NewBuilder(batch.Spec{Codec: codec, Producer: p, Transactional: txn})
	for i := 0; i < len(kv); i += 2 {
		r := batch.Record{Timestamp: int64(100 + i), Key: []byte(kv[i]), Value: []byte(kv[i+1])}
		if kv[i+1] == "-" {
			r.Value = nil
		}
		_ = b.Add(r)
	}
	out, _ := b.Build()
	return out
}

// settle makes everything appended cleanable: synced, checkpointed, below the high watermark, in closed segments.
func (w *world) settle() error {
	if err := w.log.Flush(); err != nil {
		return err
	}
	w.log.SetHW(w.log.End())
	w.log.mu.Lock()
	err := error(nil)
	if w.log.activeLocked().size > 0 {
		err = w.log.rollLocked(w.log.end.Load(), 0)
		w.log.mu.rolled = true
	}
	w.log.mu.Unlock()
	if err != nil {
		return err
	}
	return w.dir.checkpoint(true)
}

func (w *world) clean(now int64) error {
	_, ok, err := w.cl.CleanOne(now)
	if err == nil && !ok {
		err = errors.New("nothing to clean")
	}
	return err
}

// batches reads the whole log.
func (w *world) batches() []batch.Batch {
	w.t.Helper()
	var out []batch.Batch
	for at := w.log.Start(); at < w.log.End(); {
		s, err := w.log.Read(at, 1<<20, w.log.End(), true)
		w.must(err)
		raw, err := s.Bytes(nil)
		s.Release()
		w.must(err)
		for len(raw) > 0 {
			b, rest, err := batch.Next(raw)
			w.must(err)
			w.must(b.VerifyCRC())
			out = append(out, b)
			at, raw = b.NextOffset(), rest
		}
		if s.Len == 0 {
			if s.Next <= at {
				w.t.Fatalf("read at %d gives nothing, end %d", at, w.log.End())
			}
			at = s.Next
		}
	}
	return out
}

// view is the state a read_committed reader ends with: the newest value of each key. It checks on the way that offsets rise and
// that every record is the one that was sent at its offset.
func (w *world) view() map[string]string {
	w.t.Helper()
	bs := w.batches()
	aborted, err := w.log.Aborted(0, w.log.End())
	w.must(err)
	f := newTxnFilter(aborted)
	out := map[string]string{}
	next := int64(0)
	for _, b := range bs {
		if b.BaseOffset() < next {
			w.t.Fatalf("batch at %d after %d", b.BaseOffset(), next)
		}
		next = b.NextOffset()
		if b.IsControl() {
			if _, err := f.control(b); err != nil {
				w.t.Fatal(err)
			}
			continue
		}
		dropped := f.data(b)
		w.must(b.Each(batch.Limits{}, func(r batch.Record) error {
			s := w.sent[r.Offset]
			if !bytes.Equal(s.Key, r.Key) || !bytes.Equal(s.Value, r.Value) || s.Timestamp != r.Timestamp || (s.Value == nil) != (r.Value == nil) {
				w.t.Fatalf("offset %d holds %q=%q at %d, was sent %q=%q at %d", r.Offset, r.Key, r.Value, r.Timestamp, s.Key, s.Value, s.Timestamp)
			}
			if dropped {
				return nil
			}
			if r.Value == nil {
				delete(out, string(r.Key))
			} else {
				out[string(r.Key)] = string(r.Value)
			}
			return nil
		}))
	}
	return out
}

func (w *world) records() (n int) {
	for _, b := range w.batches() {
		n += int(b.Count())
	}
	return n
}

// producers is the table as a replay of the log's batches gives it.
func (w *world) producers() string {
	var t producer.Table
	for _, b := range w.batches() {
		t.Update(b)
	}
	list := t.Active()
	for i := range list {
		list[i].LastTimestamp = 0 // follows the records that are left, as in Kafka
	}
	return fmt.Sprintf("%+v", list)
}

func (w *world) same(want map[string]string, when string) {
	w.t.Helper()
	if got := w.view(); fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Fatalf("%s:\n got %v\nwant %v", when, got, want)
	}
}

// fill appends a random workload: two idempotent producers, plain batches, transactions that commit or abort, tombstones.
func (w *world) fill(seed uint64, n int) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	open := map[int64]bool{}
	epoch := map[int64]int16{}
	for i := range n {
		kv := []string{}
		for range 1 + rng.IntN(3) {
			v := fmt.Sprintf("v%d-%d", i, rng.IntN(1000))
			if rng.IntN(6) == 0 {
				v = "-"
			}
			kv = append(kv, fmt.Sprintf("k%d", rng.IntN(12)), v)
		}
		codec := batch.Codec(rng.IntN(5))
		var err error
		switch id := int64(1 + rng.IntN(2)); rng.IntN(6) {
		case 0, 1:
			err = w.append(data(codec, nil, false, kv...))
		case 2:
			id += 10
			p := &batch.ProducerInfo{ID: id, Sequence: w.seqs[id]}
			w.seqs[id] += int32(len(kv) / 2)
			err = w.append(data(codec, p, false, kv...))
		case 3, 4:
			p := &batch.ProducerInfo{ID: id, Epoch: epoch[id], Sequence: w.seqs[id]}
			w.seqs[id] += int32(len(kv) / 2)
			open[id] = true
			err = w.append(data(codec, p, true, kv...))
		case 5:
			if open[id] {
				err = w.append(batch.BuildMarker(id, epoch[id], batch.Marker{Type: batch.ControlType(rng.IntN(2)), TimestampMs: 100}))
				open[id] = false
			}
		}
		if err != nil {
			return err
		}
	}
	for id := range open {
		if open[id] {
			if err := w.append(batch.BuildMarker(id, epoch[id], batch.Marker{Type: batch.Abort, TimestampMs: 100})); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestCompactionKeepsTheLastValueOfEachKey(t *testing.T) {
	for seed := range uint64(24) {
		w := openWorld(t, memfs.New(), "d", compactConfig())
		if seed == 0 { // once on the real file system
			w = openWorld(t, vfs.OS, filepath.Join(t.TempDir(), "d"), compactConfig())
		}
		w.must(w.fill(seed, 120))
		w.must(w.settle())
		want, prods, before, end := w.view(), w.producers(), w.records(), w.log.End()
		size := w.log.Size()
		w.must(w.clean(10_000))
		w.same(want, "after one pass")
		if w.records() >= before || w.log.Size() >= size || w.log.End() != end {
			t.Fatalf("records %d to %d, bytes %d to %d, end %d to %d", before, w.records(), size, w.log.Size(), end, w.log.End())
		}
		if got := w.producers(); got != prods {
			t.Fatalf("producers\n got %s\nwant %s", got, prods)
		}
		if _, ok, err := w.cl.CleanOne(10_000); ok || err != nil {
			t.Fatal("a clean log is cleaned again:", err)
		}
		// More data, a second pass after the tombstones' time; then a restart.
		w.must(w.fill(seed+100, 60))
		w.must(w.settle())
		want, prods = w.view(), w.producers()
		w.must(w.clean(20_000))
		w.same(want, "after the second pass")
		if got := w.producers(); got != prods {
			t.Fatalf("producers\n got %s\nwant %s", got, prods)
		}
		w.must(w.dir.Close(1))
		w.must(w.open(compactConfig()))
		w.same(want, "after a restart")
		if w.log.End() < end || w.dir.Offline() != nil {
			t.Fatal("end fell")
		}
		w.must(w.dir.Abandon())
	}
}

func TestTombstonesGoInTwoPasses(t *testing.T) {
	w := openWorld(t, memfs.New(), "d", compactConfig())
	w.must(w.append(data(batch.None, nil, false, "a", "1", "b", "2")))
	w.must(w.append(data(batch.None, nil, false, "a", "-")))
	w.must(w.append(data(batch.None, nil, false, "c", "3")))
	w.must(w.settle())
	has := func() (tomb bool, horizon int64) {
		for _, b := range w.batches() {
			_ = b.Each(batch.Limits{}, func(r batch.Record) error {
				if r.Value == nil {
					tomb = true
					horizon, _ = b.DeleteHorizon()
				}
				return nil
			})
		}
		return tomb, horizon
	}
	w.must(w.clean(5_000))
	if tomb, h := has(); !tomb || h != 6_000 {
		t.Fatal("first pass: tombstone", tomb, "horizon", h)
	}
	again := func(now int64) {
		w.must(w.append(data(batch.None, nil, false, "d", fmt.Sprint(now))))
		w.must(w.settle())
		w.must(w.clean(now))
	}
	again(6_000)
	if tomb, h := has(); !tomb || h != 6_000 {
		t.Fatal("at the horizon: tombstone", tomb, h)
	}
	again(6_001)
	if tomb, _ := has(); tomb {
		t.Fatal("after the horizon the tombstone is still there")
	}
	w.same(map[string]string{"b": "2", "c": "3", "d": "6001"}, "at the end")
}

func TestMarkersGoAfterTheirData(t *testing.T) {
	w := openWorld(t, memfs.New(), "d", compactConfig())
	p := &batch.ProducerInfo{ID: 7}
	w.must(w.append(data(batch.None, nil, false, "a", "old")))
	w.must(w.append(data(batch.None, p, true, "a", "aborted")))
	w.must(w.append(batch.BuildMarker(7, 0, batch.Marker{Type: batch.Abort, TimestampMs: 100})))
	w.must(w.append(data(batch.None, &batch.ProducerInfo{ID: 7, Epoch: 1}, false, "z", "1"))) // the producer's newest batch is elsewhere
	markers := func() (n int) {
		for _, b := range w.batches() {
			if b.IsControl() && b.Count() > 0 {
				n++
			}
		}
		return n
	}
	want := map[string]string{"a": "old", "z": "1"}
	for i, left := range []int{1, 1, 0} { // data seen; stamped; dropped
		w.must(w.append(data(batch.None, nil, false, "d", fmt.Sprint(i))))
		w.must(w.settle())
		w.must(w.clean(int64(i) * 10_000))
		want["d"] = fmt.Sprint(i)
		w.same(want, fmt.Sprint("pass ", i))
		if got := markers(); got != left {
			t.Fatalf("pass %d: %d markers, want %d", i, got, left)
		}
	}
}

func TestAFullMapCleansAsFarAsItReaches(t *testing.T) {
	w := openWorld(t, memfs.New(), "d", compactConfig())
	for i := range 200 {
		w.must(w.append(data(batch.None, nil, false, fmt.Sprint("k", i%50), fmt.Sprint("v", i))))
	}
	w.must(w.settle())
	want := w.view()
	w.cl.opts.MapBytes = 30 * keySlotBytes
	passes := 0
	for {
		_, ok, err := w.cl.CleanOne(10_000)
		w.must(err)
		w.same(want, fmt.Sprint("pass ", passes))
		if !ok {
			break
		}
		if passes++; passes > 50 {
			t.Fatal("it never ends")
		}
	}
	if passes < 4 {
		t.Fatal(passes, "passes: the map was not full")
	}
}

func TestWhatMayNotBeCleanedIsLeftAlone(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"above the high watermark":  func(w *world) { w.log.hw.Store(0) },
		"an open transaction first": func(w *world) {},
		"too young":                 func(w *world) { w.log.mu.cfg.MinCompactionLagMs = 1_000_000 },
		"clean enough":              func(w *world) { w.log.mu.cfg.MinCleanableDirtyRatio = 1 },
		"not compacted":             func(w *world) { w.log.mu.cfg.Compact = false },
	} {
		w := openWorld(t, memfs.New(), "d", compactConfig())
		if name == "an open transaction first" {
			w.must(w.append(data(batch.None, &batch.ProducerInfo{ID: 7}, true, "a", "1")))
		}
		w.must(w.append(data(batch.None, nil, false, "a", "1")))
		w.must(w.append(data(batch.None, nil, false, "a", "2")))
		w.must(w.settle())
		change(w)
		if _, ok, err := w.cl.CleanOne(10_000); ok || err != nil {
			t.Errorf("%s: cleaned, %v", name, err)
		}
		if name == "clean enough" {
			w.log.mu.cfg.MaxCompactionLagMs = 500
			if _, ok, err := w.cl.CleanOne(10_000); !ok || err != nil {
				t.Errorf("overdue: %v %v", ok, err)
			}
		}
	}
}

// The last stable offset lies inside a closed segment: the log is cleaned up to there once, not again and again.
func TestAnOpenTransactionInsideASegmentEndsThePass(t *testing.T) {
	w := openWorld(t, memfs.New(), "d", compactConfig())
	w.must(w.append(data(batch.None, nil, false, "a", "1")))
	w.must(w.append(data(batch.None, nil, false, "a", "2")))
	w.must(w.append(data(batch.None, &batch.ProducerInfo{ID: 7}, true, "a", "3")))
	w.must(w.append(data(batch.None, nil, false, "a", "4")))
	w.must(w.append(data(batch.None, nil, false, "a", "5")))
	w.must(w.settle())
	w.must(w.clean(10_000))
	if n := w.records(); n != 4 {
		t.Fatal(n, "records: only the first may go, what lies past the open transaction stays")
	}
	if _, ok, err := w.cl.CleanOne(10_000); ok || err != nil {
		t.Fatal("cleaned again", err)
	}
	w.must(w.append(batch.BuildMarker(7, 0, batch.Marker{Type: batch.Commit, TimestampMs: 100})))
	w.must(w.settle())
	w.must(w.clean(10_000))
	w.same(map[string]string{"a": "5"}, "after the commit")
}

func TestADamagedLogIsSetAsideAndOthersGoOn(t *testing.T) {
	w := openWorld(t, memfs.New(), "d", compactConfig())
	other, err := w.dir.Create(meta.TopicPartition{Topic: "other"}, meta.UUID{2}, compactConfig(), 0)
	w.must(err)
	w.must(w.append(data(batch.None, nil, false, "a", "1")))
	w.must(w.append(data(batch.None, nil, false, "a", "2")))
	w.must(w.settle())
	f, err := w.fs.OpenFile(w.log.segPath(0, extLog), vfs.ReadWrite, 0)
	w.must(err)
	_, err = f.WriteAt([]byte{0xff}, 65)
	w.must(err)
	w.must(f.Close())
	mine := w.log
	w.log = other
	w.must(w.append(data(batch.None, nil, false, "a", "1")))
	w.must(w.append(data(batch.None, nil, false, "a", "2")))
	w.must(w.settle())
	tp, ok, err := w.cl.CleanOne(10_000)
	if tp != mine.tp || !ok || !errors.Is(err, batch.ErrCRC) || w.cl.Uncleanable()[mine.tp] == nil {
		t.Fatal(tp, ok, err)
	}
	if tp, ok, err = w.cl.CleanOne(10_000); tp != other.tp || !ok || err != nil {
		t.Fatal(tp, ok, err)
	}
	if _, ok, err = w.cl.CleanOne(10_000); ok || err != nil {
		t.Fatal(ok, err)
	}
	if w.dir.Offline() != nil {
		t.Fatal("one damaged log took the directory offline")
	}
}

func TestPaceStopsACleaningWithoutHarm(t *testing.T) {
	w := openWorld(t, memfs.New(), "d", compactConfig())
	w.must(w.fill(3, 60))
	w.must(w.settle())
	want := w.view()
	stop := errors.New("stop")
	for n := 0; ; n++ {
		left := n
		w.cl.opts.Pace = func(int64) error {
			if left--; left < 0 {
				return stop
			}
			return nil
		}
		_, ok, err := w.cl.CleanOne(10_000)
		w.same(want, fmt.Sprint("stopped after ", n))
		if err == nil {
			if !ok || n < 10 {
				t.Fatal(ok, n)
			}
			break
		}
		if !errors.Is(err, stop) || len(w.cl.Uncleanable()) > 0 {
			t.Fatal(err)
		}
	}
}

// The cleaner remembers how far a log is clean by the partition's name. A log that was truncated, or made anew under the name, is not
// clean there; nor is it damaged because the old one was.
func TestCleanerForgetsALogThatIsGone(t *testing.T) {
	for _, how := range []string{"truncated", "made anew"} {
		w := openWorld(t, memfs.New(), "d", compactConfig())
		w.must(w.fill(5, 60))
		w.must(w.settle())
		w.must(w.clean(10_000))
		point := w.cl.mu.points[compactTP]
		if point == 0 {
			t.Fatal("nothing was cleaned")
		}
		w.cl.mu.bad[compactTP] = errors.New("as if it were damaged")
		if how == "truncated" {
			w.must(w.log.TruncateFully(0))
		} else {
			w.must(w.dir.Delete(w.log, 1))
			var err error
			w.log, err = w.dir.Create(compactTP, meta.UUID{2}, compactConfig(), 1)
			w.must(err)
		}
		w.sent, w.seqs = nil, map[int64]int32{}
		w.must(w.fill(5, 60))
		w.must(w.settle())
		before := w.log.Size()
		w.must(w.clean(20_000))
		if w.log.Size() >= before {
			t.Errorf("%s: %d bytes of %d after cleaning, the old log was clean up to %d", how, w.log.Size(), before, point)
		}
		w.must(w.dir.Close(1))
	}
}

func TestReadersKeepTheirSliceThroughACleaning(t *testing.T) {
	w := openWorld(t, memfs.New(), "d", compactConfig())
	w.must(w.fill(5, 60))
	w.must(w.settle())
	s, err := w.log.Read(0, 1<<20, w.log.End(), true)
	w.must(err)
	before, err := s.Bytes(nil)
	w.must(err)
	w.must(w.clean(10_000))
	after, err := s.Bytes(nil)
	if err != nil || !bytes.Equal(before, after) {
		t.Fatal("the slice changed:", err)
	}
	s.Release()
	w.must(w.log.RaiseStart(w.log.End(), 0))
	w.must(w.dir.Housekeep(0, (*Log).HW))
	w.must(w.dir.Close(1))
}

// Appends, reads, checkpoints and housekeeping go on while the cleaner works; run with -race.
func TestCleaningBesideEverythingElse(t *testing.T) {
	c := compactConfig()
	c.SegmentBytes = 600
	w := openWorld(t, memfs.New(), "d", c)
	var group sync.WaitGroup
	stop := make(chan struct{})
	beside := func(f func(i int) error) {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := f(i); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	beside(func(int) error {
		next := int64(-1)
		for at := w.log.Start(); at < w.log.HW(); {
			s, err := w.log.Read(at, 1000, w.log.HW(), true)
			if err != nil {
				return err
			}
			raw, err := s.Bytes(nil)
			s.Release()
			for err == nil && len(raw) > 0 {
				var b batch.Batch
				if b, raw, err = batch.Next(raw); err != nil {
					return err
				}
				if err := b.VerifyCRC(); err != nil {
					return err
				}
				if b.LastOffset() <= next {
					return fmt.Errorf("batch at %d after %d", b.BaseOffset(), next)
				}
				next = b.LastOffset()
			}
			if err != nil {
				return err
			}
			at = max(s.Next, at+1)
		}
		return nil
	})
	beside(func(i int) error { return errors.Join(w.dir.Checkpoint(), w.dir.Housekeep(int64(i), (*Log).HW)) })
	beside(func(i int) error {
		_, _, err := w.cl.CleanOne(int64(i) * 1000)
		return err
	})
	for i := range 400 {
		w.must(w.append(data(batch.Codec(i%5), nil, false, fmt.Sprint("k", i%9), fmt.Sprint("v", i))))
		w.must(w.log.Flush())
		w.log.SetHW(w.log.End())
	}
	close(stop)
	group.Wait()
	want := map[string]string{}
	for i := range 400 {
		want[fmt.Sprint("k", i%9)] = fmt.Sprint("v", i)
	}
	w.same(want, "at the end")
	w.must(w.settle())
	if _, _, err := w.cl.CleanOne(1 << 40); err != nil {
		t.Fatal(err)
	}
	w.same(want, "cleaned once more")
	if w.cl.Stats().Passes == 0 {
		t.Fatal("nothing was cleaned")
	}
	w.must(w.dir.Close(1))
}
