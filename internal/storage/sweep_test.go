package storage

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// expect is what a workload knows of one log: what may be there, and what must.
type expect struct {
	written    map[int64][]string // every batch ever appended at an offset
	ends       map[int64]int64
	end        int64 // of the log as the workload sees it
	acked      int64 // flushed: must survive
	maybe      int64 // a truncation to here may or may not have happened; -1 none
	start      int64 // log start that must survive
	asked      int64 // log start that may be there
	epoch      int32 // assigned durably
	epochStart int64
	deleted    int         // 1: deletion begun, 2: done
	lastDup    batch.Batch // newest idempotent batch below acked
	id         meta.UUID
}

func newExpect(id meta.UUID) *expect {
	return &expect{written: map[int64][]string{}, ends: map[int64]int64{}, maybe: -1, epoch: -1, id: id}
}

// story is the workload of the sweeps; it stops at the first error.
type story struct {
	d    *Dir
	logs map[meta.TopicPartition]*expect
	seq  int32
	n    int

	volume bool // always syncfs, never a sync of one file
}

func (s *story) append(l *Log, epoch int32, idempotent bool) error {
	e := s.logs[l.tp]
	s.n++
	b := makeBatch(1+s.n%3, fmt.Sprint(l.tp, s.n), int64(s.n), -1, -1)
	if idempotent {
		b = makeBatch(1+s.n%3, fmt.Sprint(l.tp, s.n), int64(s.n), 7, s.seq)
	}
	b.SetBaseOffset(l.End())
	b.SetLeaderEpoch(epoch)
	// Noted first: an append that reports an error may still have reached the disk.
	e.written[l.End()] = append(e.written[l.End()], string(b))
	if _, err := l.Append(b, epoch, int64(s.n)); err != nil {
		return err
	}
	if idempotent {
		s.seq += b.Count()
	}
	e.end = l.End()
	if idempotent {
		e.lastDup = b
	}
	return nil
}

func (s *story) flush(logs ...*Log) error {
	err := errors.Join(s.d.SyncMany(logs, nil)...)
	if err == nil {
		for _, l := range logs {
			if l.Flushed() != l.End() {
				return fmt.Errorf("flushed %d, end %d", l.Flushed(), l.End())
			}
			s.logs[l.tp].acked = l.Flushed()
		}
	}
	return err
}

func (s *story) create(p int32, id byte) (*Log, error) {
	e := newExpect(topicID(id))
	if old := s.logs[tp("t", p)]; old != nil && old.deleted != 2 {
		return nil, errors.New("still there")
	}
	s.logs[tp("t", p)] = e
	return s.d.Create(tp("t", p), topicID(id), smallConfig(), 0)
}

// run is the workload: everything a log goes through in its life, small.
func (s *story) run(fsys vfs.FS) (err error) {
	if s.d, _, err = tryOpen(fsys); err != nil {
		return err
	}
	if s.volume {
		s.d.syncFSAbove = 0
	}
	a, err := s.create(0, 1)
	if err != nil {
		return err
	}
	b, err := s.create(1, 2)
	if err != nil {
		return err
	}
	step := func(f func() error) {
		if err == nil {
			err = f()
		}
	}
	for i := range 9 {
		step(func() error { return s.append(a, 0, i%2 == 0) })
		step(func() error { return s.append(b, 0, false) })
		if i%3 == 1 {
			step(func() error { return s.flush(a, b) })
		}
	}
	step(func() error { return s.assign(a, 2) })
	step(s.d.Checkpoint)
	for range 6 {
		step(func() error { return s.append(a, 2, true) })
	}
	step(func() error { return s.flush(a) })
	step(func() error { return s.d.checkpoint(true) })
	for range 4 {
		step(func() error { return s.append(a, 2, true) })
	}
	step(func() error { return s.raise(a, 7) })
	step(func() error { return s.d.Housekeep(10, (*Log).End) })
	step(func() error { return s.truncate(a, a.End()-9) })
	for range 3 {
		step(func() error { return s.append(a, 3, false) })
	}
	step(func() error { return s.flush(a, b) })
	step(func() error { return s.remove(b) })
	step(func() error {
		if b, err = s.create(1, 3); err != nil {
			return err
		}
		return s.append(b, 0, false)
	})
	step(func() error { return s.flush(b) })
	step(func() error { return s.d.Housekeep(1<<40, (*Log).End) })
	step(func() error { return s.append(a, 3, false) })
	if err == nil {
		if err = s.d.Close(5); err == nil {
			for _, e := range s.logs {
				e.acked = e.end
			}
		}
	}
	return err
}

func (s *story) assign(l *Log, epoch int32) error {
	err := l.AssignEpoch(epoch, l.End())
	if err == nil {
		s.logs[l.tp].epoch, s.logs[l.tp].epochStart = epoch, l.End()
	}
	return err
}

func (s *story) raise(l *Log, to int64) error {
	e := s.logs[l.tp]
	e.asked = to
	err := l.RaiseStart(to, 0)
	if err == nil {
		err = s.d.CheckpointStarts()
	}
	if err == nil {
		e.start = to
	}
	return err
}

func (s *story) truncate(l *Log, to int64) error {
	e := s.logs[l.tp]
	e.acked = min(e.acked, to-3) // the cut may remove the batch around to
	e.lastDup = nil
	err := l.Truncate(to)
	e.end = l.End()
	return err
}

func (s *story) remove(l *Log) error {
	e := s.logs[l.tp]
	e.deleted = 1
	err := s.d.Delete(l, 0)
	if err == nil {
		e.deleted = 2
	}
	return err
}

// check opens a survivor and compares.
func (s *story) check(fsys vfs.FS, lossy bool) error {
	d, logs, err := tryOpen(fsys)
	if err != nil {
		return err
	}
	defer func() { _ = d.Abandon() }()
	if q := d.Quarantined(); len(q) > 0 && !lossy {
		return q[0].Err
	}
	found := map[meta.TopicPartition]bool{}
	for _, l := range logs {
		found[l.tp] = true
		e := s.logs[l.tp]
		switch {
		case e == nil:
			return fmt.Errorf("%s was never created", l.tp)
		case l.topic != e.id && !lossy && e.acked > 0:
			return fmt.Errorf("%s has id %s, want %s", l.tp, l.topic, e.id)
		case l.topic != e.id:
			continue // the one before, whose deletion was not finished
		case e.deleted == 2:
			return fmt.Errorf("%s came back", l.tp)
		}
		if err := e.compare(l, lossy); err != nil {
			return fmt.Errorf("%s [%d, %d] acked %d: %w", l.tp, l.Start(), l.End(), e.acked, err)
		}
	}
	for tp, e := range s.logs {
		if !found[tp] && e.acked > 0 && e.deleted == 0 && !lossy {
			return fmt.Errorf("%s is lost", tp)
		}
	}
	return nil
}

func (e *expect) compare(l *Log, lossy bool) error {
	if !lossy && (l.End() < e.acked || l.Start() < e.start || l.Start() > max(e.start, e.asked)) {
		return fmt.Errorf("want end >= %d, start in [%d, %d]", e.acked, e.start, e.asked)
	}
	if l.Flushed() != l.End() || l.HW() < l.Start() || l.HW() > l.End() {
		return fmt.Errorf("flushed %d, high watermark %d", l.Flushed(), l.HW())
	}
	got, err := readAll(l, l.End(), 700)
	if err != nil {
		// Damage below the mark is found when it is read: by us when it breaks the frame, else by the reader's checksum,
		// for bytes go from the disk to the socket unseen, as in Kafka.
		for _, found := range []error{ErrCorrupt, batch.ErrCRC, batch.ErrShort, batch.ErrLength, batch.ErrMagic} {
			if lossy && errors.Is(err, found) {
				return nil
			}
		}
		return err
	}
	for _, b := range got {
		ok := false
		for _, w := range e.written[b.BaseOffset()] {
			ok = ok || w == string(b)
		}
		if !ok {
			return fmt.Errorf("the batch at %d was never written", b.BaseOffset())
		}
	}
	if ep, _, _ := l.LatestEpoch(); ep < e.epoch && l.End() >= e.epochStart && !lossy {
		return fmt.Errorf("epoch %d, want %d", ep, e.epoch)
	}
	if e.lastDup != nil && e.lastDup.LastOffset() < e.acked && !lossy {
		if dup, base := isDuplicate(l, e.lastDup); !dup || base != e.lastDup.BaseOffset() {
			return fmt.Errorf("duplicate of %d: %v, %d", e.lastDup.BaseOffset(), dup, base)
		}
	}
	// The log goes on, in order, and what is appended now can be read.
	end := l.End()
	ep, _, _ := l.LatestEpoch()
	if _, err := l.Append(makeBatch(2, "after", 1, -1, -1), max(ep, 0), 0); err != nil {
		return fmt.Errorf("append after recovery: %w", err)
	}
	if err := l.Flush(); err != nil {
		return err
	}
	s, err := l.Read(end, 1<<20, l.End(), true)
	if err != nil || s.Len == 0 {
		return fmt.Errorf("read after recovery: %d bytes, %w", s.Len, err)
	}
	s.Release()
	return nil
}

func newStory() *story { return &story{logs: map[meta.TopicPartition]*expect{}} }

// storyOps is how many file operations the whole workload has.
func storyOps(t *testing.T) int {
	t.Helper()
	return countOps(t, newStory())
}

func countOps(t *testing.T, s *story) int {
	t.Helper()
	e := errfs.New(memfs.New())
	if err := s.run(e); err != nil {
		t.Fatal(err)
	}
	if n := e.Leaked(); len(n) > 0 {
		t.Fatalf("left open: %v", n)
	}
	return e.Ops()
}

func TestPowerCutAtEveryOperationLosesNothingAcknowledged(t *testing.T) {
	total := storyOps(t)
	for n := 1; n <= total+1; n++ {
		for _, keep := range []int{0, 50, 100} {
			for seed := range uint64(1 + 2*b2i(keep == 50)) {
				m := memfs.New()
				e := errfs.New(m)
				e.PowerOffAt(n)
				s := newStory()
				err := s.run(e)
				if tr := e.Trace(); n <= total && !errors.Is(err, errfs.ErrPower) && !strings.HasPrefix(tr[n-1], "close") {
					t.Fatalf("operation %d: %v", n, err)
				}
				if err := s.check(m.Crash(keep, det.NewRand(seed+uint64(n)*3)), false); err != nil {
					tr := e.Trace()
					t.Fatalf("power cut at operation %d of %d (%s), %d%% kept, seed %d: %v\n%s", n, total, tr[min(n, len(tr))-1], keep, seed, err, strings.Join(tr[max(0, n-12):min(n, len(tr))], "\n"))
				}
			}
		}
	}
	t.Logf("%d operations, 5 crashes each", total)
}

func TestPowerCutAtEveryOperationWithSyncfsLosesNothingAcknowledged(t *testing.T) {
	total := countOps(t, &story{logs: map[meta.TopicPartition]*expect{}, volume: true})
	for n := 1; n <= total; n++ {
		for _, keep := range []int{0, 50, 100} {
			m := memfs.New()
			e := errfs.New(m)
			e.PowerOffAt(n)
			s := newStory()
			s.volume = true
			_ = s.run(e) // the check is what matters; that the cut is noticed is tested above
			if err := s.check(m.Crash(keep, det.NewRand(uint64(n))), false); err != nil {
				t.Fatalf("power cut at operation %d of %d (%s), %d%% kept: %v", n, total, e.Trace()[n-1], keep, err)
			}
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestErrorAtEveryOperationIsReportedAndNothingAcknowledgedIsLost(t *testing.T) {
	total := storyOps(t)
	for n := 1; n <= total; n++ {
		for _, short := range []bool{false, true} {
			m := memfs.New()
			e := errfs.New(m)
			e.Add(errfs.Rule{Ops: errfs.Any, From: n, Err: errfs.ErrInjected, Short: short})
			s := newStory()
			err := s.run(e)
			if s.d != nil && err != nil {
				_ = s.d.Abandon()
			}
			what := e.Trace()[n-1]
			if kind, _, _ := strings.Cut(what, " "); err == nil && kind != "close" && kind != "remove" && kind != "read" {
				t.Fatalf("operation %d (%s) failed and nobody noticed", n, what)
			}
			for _, name := range e.Leaked() {
				t.Fatalf("operation %d (%s) failed: %s left open", n, what, name)
			}
			e.Clear()
			for _, keep := range []int{0, 100} {
				if err := s.check(m.Crash(keep, det.NewRand(uint64(n))), false); err != nil {
					t.Fatalf("operation %d (%s) failed (short %v), %d%% kept: %v", n, what, short, keep, err)
				}
			}
		}
	}
}

func TestFailedSyncIsFinal(t *testing.T) {
	for _, suffix := range []string{extLog, testDir} {
		m := memfs.New()
		e := errfs.New(m)
		d, _ := openTest(t, e)
		var logs []*Log
		for p := range int32(12) {
			l, err := d.Create(tp("t", p), topicID(1), smallConfig(), 0)
			if err != nil {
				t.Fatal(err)
			}
			mustAppend(t, l, 1, "x", 0)
			logs = append(logs, l)
		}
		if suffix == extLog {
			logs = logs[:3]
		}
		e.Add(errfs.Rule{Ops: errfs.Sync | errfs.SyncVolume, Suffix: suffix, Err: errfs.ErrInjected})
		for i, err := range d.SyncMany(logs, nil) {
			if !errors.Is(err, ErrOffline) || !errors.Is(err, errfs.ErrInjected) {
				t.Fatalf("log %d: %v", i, err)
			}
		}
		before := e.Ops()
		for _, l := range logs {
			if err := l.Flush(); !errors.Is(err, ErrOffline) || l.Flushed() != 0 {
				t.Fatal(err)
			}
			if _, err := l.Append(makeBatch(1, "x", 0, -1, -1), 0, 0); !errors.Is(err, ErrOffline) {
				t.Fatal(err)
			}
		}
		if err := d.Checkpoint(); !errors.Is(err, ErrOffline) || e.Ops() != before {
			t.Fatalf("%v, %d operations after the failure", err, e.Ops()-before)
		}
	}
}

func TestEveryFlippedByteIsFoundOrHarmless(t *testing.T) {
	for _, clean := range []bool{true, false} {
		m := memfs.New()
		s := newStory()
		e := errfs.New(m)
		if !clean {
			e.PowerOffAt(storyOps(t) - 12)
		}
		if err := s.run(e); (err == nil) != clean {
			t.Fatal(err)
		}
		m = m.Clone()
		r := det.NewRand(1)
		files := m.Files()
		for _, name := range det.SortedKeys(files) {
			for at := range files[name] {
				c := m.Clone()
				if err := c.FlipBit(name, at, uint(r.Intn(8))); err != nil {
					t.Fatal(err)
				}
				err := s.check(c, true)
				if err != nil && !typed(err) && !unprotected(t, m, name, at) {
					t.Fatalf("clean %v: bit of byte %d of %s flipped: %v", clean, at, name, err)
				}
			}
		}
	}
}

// typed says that damage was refused by name rather than served.
func typed(err error) bool {
	return errors.Is(err, ErrForeign) || errors.Is(err, ErrFormat) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrOffline)
}

// unprotected tells bytes that Kafka's checksum leaves out and that no reader can check: base offset and leader epoch.
func unprotected(t *testing.T, fsys vfs.FS, name string, at int64) bool {
	t.Helper()
	if !strings.HasSuffix(name, extLog) {
		return false
	}
	raw, err := vfs.ReadFile(fsys, name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for pos := int64(0); len(raw) > 0; {
		b, rest, err := batch.Next(raw)
		if err != nil {
			return false
		}
		if at < pos+int64(len(b)) {
			return at-pos < 8 || at-pos >= 12 && at-pos < 16
		}
		pos, raw = pos+int64(len(b)), rest
	}
	return false
}

func TestZeroTailIsCut(t *testing.T) {
	for zeros := range 200 {
		m := memfs.New()
		s := newStory()
		if err := s.run(m); err != nil {
			t.Fatal(err)
		}
		name := ""
		for n := range m.Files() {
			if strings.HasSuffix(n, extLog) && strings.Contains(n, "t-0") && n > name {
				name = n
			}
		}
		f, err := m.OpenFile(name, vfs.ReadWrite, 0)
		if err != nil {
			t.Fatal(err)
		}
		size, _ := f.Size()
		if err := f.Truncate(size + int64(zeros)); err != nil {
			t.Fatal(err)
		}
		if err := s.check(m.Clone(), false); err != nil {
			t.Fatalf("%d zeros: %v", zeros, err)
		}
	}
}
