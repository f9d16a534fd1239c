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

var moveDirs = []string{"/disks/one", "/disks/two"}

func openTwo(fsys vfs.FS) (ds []*Dir, err error) {
	for i, path := range moveDirs {
		d, err := OpenDir(fsys, path, DirOptions{NodeID: 1, ClusterID: "c", NewID: func() meta.UUID { return topicID(byte(90 + i)) }})
		if err != nil {
			return ds, err
		}
		ds = append(ds, d)
		if _, err := d.Load(nil, 1000, func(meta.TopicPartition, meta.UUID) LogConfig { return smallConfig() }); err != nil {
			return ds, err
		}
	}
	return ds, nil
}

func abandonAll(ds []*Dir) {
	for _, d := range ds {
		_ = d.Abandon()
	}
}

// mover moves one log from the first directory to the second while it is written to and cut, as a follower's log is.
type mover struct {
	ds      []*Dir
	cur     *Log
	written map[int64][]string
	acked   int64
	start   int64
	seq     int32
	n       int
	last    batch.Batch // newest idempotent batch below acked
	first   batch.Batch // of a producer whose records retention takes away
	err     error
}

func (m *mover) do(f func() error) {
	if m.err == nil {
		m.err = f()
	}
}

func (m *mover) append(epoch int32) {
	m.do(func() error {
		m.n++
		b := makeBatch(1+m.n%3, fmt.Sprint("m", m.n), int64(m.n), 7, m.seq)
		if m.n == 1 {
			b = makeBatch(2, "first", 1, 8, 0)
			m.first = b
		} else {
			m.seq += b.Count()
		}
		b.SetBaseOffset(m.cur.End())
		b.SetLeaderEpoch(epoch)
		m.written[m.cur.End()] = append(m.written[m.cur.End()], string(b))
		_, err := m.cur.Append(b, epoch, int64(m.n))
		if m.n > 1 {
			m.last = b
		}
		return err
	})
}

func (m *mover) flush() {
	m.do(func() error {
		err := m.cur.Flush()
		if err == nil {
			m.acked = m.cur.Flushed()
			m.cur.SetHW(m.acked)
		}
		return err
	})
}

func (m *mover) run(fsys vfs.FS) error {
	m.ds, m.err = openTwo(fsys)
	if m.err != nil {
		return m.err
	}
	one, two := m.ds[0], m.ds[1]
	m.do(func() (err error) { m.cur, err = one.Create(tp("t", 0), topicID(1), smallConfig(), 0); return err })
	for range 12 {
		m.append(0)
	}
	m.flush()
	m.do(func() error { return m.cur.RaiseStart(6, 0) })
	m.do(one.CheckpointStarts)
	if m.err == nil {
		m.start = 6
	}
	m.do(one.Checkpoint)
	var f *Log
	m.do(func() (err error) { f, err = two.CreateFuture(m.cur, 77); return err })
	step := func() { m.do(func() error { _, _, err := f.CopyFrom(m.cur, 300, 5); return err }) }
	for i := range 4 {
		m.append(2)
		step()
		if i%2 == 1 {
			m.do(f.Flush)
			m.do(two.Checkpoint)
		}
	}
	m.flush()
	for range 8 {
		step()
	}
	m.append(2)
	m.append(2)
	step()
	m.do(func() error { // a new leader has less: what is cut was never acknowledged
		m.last = nil
		return m.cur.Truncate(m.acked)
	})
	m.append(5)
	m.flush()
	m.do(func() error { return m.cur.AssignEpoch(6, m.cur.End()) })
	for caught := false; !caught && m.err == nil; {
		m.do(func() (err error) { _, caught, err = f.CopyFrom(m.cur, 300, 5); return err })
	}
	m.do(func() error { return two.Promote(f, m.cur, 9) })
	if m.err == nil {
		m.cur = f
	}
	m.append(6)
	m.flush()
	for i := range m.ds {
		m.do(func() error { return m.ds[i].Housekeep(100_000, (*Log).HW) })
	}
	m.append(6)
	m.flush()
	for i := range m.ds {
		m.do(func() error { return m.ds[i].Close(1) })
	}
	return m.err
}

// recover is what a broker does with two directories after a crash: choose, go on with the move, serve.
func (m *mover) recover(fsys vfs.FS) error {
	ds, err := openTwo(fsys)
	defer func() { abandonAll(ds) }()
	if err != nil {
		return err
	}
	for _, d := range ds {
		if q := d.Quarantined(); len(q) > 0 {
			return q[0].Err
		}
	}
	a, b := ds[0].Get(tp("t", 0)), ds[1].Get(tp("t", 0))
	if a != nil && b != nil {
		if Newer(a, b) == a {
			a, b = b, a
		}
		if err := a.dir.Delete(a, 1); err != nil {
			return err
		}
		a, b = b, nil
	}
	if a == nil {
		a = b
	}
	if a == nil {
		if m.acked > 0 {
			return errors.New("log is gone")
		}
		return nil
	}
	for _, f := range ds[1].Futures() {
		if f.TopicID() != a.TopicID() || a.dir != ds[0] {
			return fmt.Errorf("future log of %s beside %s", f.TopicID(), a.path())
		}
		for caught := false; !caught; {
			if _, caught, err = f.CopyFrom(a, 500, 5); err != nil {
				return fmt.Errorf("going on: %w", err)
			}
		}
		if err := ds[1].Promote(f, a, 9); err != nil {
			return fmt.Errorf("going on: %w", err)
		}
		a = f
	}
	return m.compare(a)
}

func (m *mover) compare(l *Log) error {
	if l.End() < m.acked || l.Start() < m.start || (m.acked > 0 && l.TopicID() != topicID(1)) {
		return fmt.Errorf("[%d, %d], acknowledged %d, start was %d", l.Start(), l.End(), m.acked, m.start)
	}
	got, err := readAll(l, l.End(), 700)
	if err != nil {
		return err
	}
	for _, b := range got {
		ok := false
		for _, w := range m.written[b.BaseOffset()] {
			ok = ok || w == string(b)
		}
		if !ok {
			return fmt.Errorf("the batch at %d was never written", b.BaseOffset())
		}
	}
	for _, b := range []batch.Batch{m.last, m.first} {
		if b != nil && b.LastOffset() < m.acked {
			if dup, base := isDuplicate(l, b); !dup || base != b.BaseOffset() {
				return fmt.Errorf("duplicate of %d is not known", b.BaseOffset())
			}
		}
	}
	epoch, _, _ := l.LatestEpoch()
	if _, err := l.Append(makeBatch(1, "after", 1, -1, -1), max(epoch, 0), 0); err != nil {
		return err
	}
	return l.Flush()
}

func newMover() *mover { return &mover{written: map[int64][]string{}} }

// A move is cut short by a power cut at every operation: what was acknowledged is in the log that is chosen then, producers included,
// and the move can be finished.
func TestPowerCutWhileALogMovesLosesNothing(t *testing.T) {
	e := errfs.New(memfs.New())
	m := newMover()
	if err := m.run(e); err != nil {
		t.Fatal(err)
	}
	if n := e.Leaked(); len(n) > 0 {
		t.Fatalf("left open: %v", n)
	}
	total := e.Ops()
	for n := 1; n <= total+1; n++ {
		for _, keep := range []int{0, 50, 100} {
			mem := memfs.New()
			e := errfs.New(mem)
			e.PowerOffAt(n)
			m := newMover()
			_ = m.run(e)
			if err := m.recover(mem.Crash(keep, det.NewRand(uint64(n)))); err != nil {
				tr := e.Trace()
				t.Fatalf("cut at %d of %d, %d%% kept: %v\n%s", n, total, keep, err, strings.Join(tr[max(0, n-12):min(n, len(tr))], "\n"))
			}
		}
	}
	t.Logf("%d operations", total)
}

// An error of either disk at any operation of a move leaves a log that has everything, once the process starts again.
func TestDiskErrorWhileALogMovesLosesNothing(t *testing.T) {
	e := errfs.New(memfs.New())
	if err := newMover().run(e); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= e.Ops(); n++ {
		mem := memfs.New()
		e := errfs.New(mem)
		e.Add(errfs.Rule{Ops: errfs.Any &^ errfs.Close, From: n, Err: errfs.ErrInjected})
		m := newMover()
		_ = m.run(e)
		abandonAll(m.ds)
		if err := m.recover(mem.Crash(0, det.NewRand(uint64(n)))); err != nil {
			t.Fatalf("error at %d: %v (%v)", n, err, m.err)
		}
	}
}

func TestMovesThatAreRefused(t *testing.T) {
	mem := memfs.New()
	ds, err := openTwo(mem)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ds[0].Create(tp("t", 0), topicID(1), smallConfig(), 0)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, 1, "x", 1)
	if _, err := ds[0].CreateFuture(l, 1); !errors.Is(err, ErrExists) {
		t.Errorf("to where it is: %v", err)
	}
	f, err := ds[1].CreateFuture(l, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ds[1].CreateFuture(l, 2); !errors.Is(err, ErrExists) {
		t.Errorf("twice: %v", err)
	}
	if _, err := ds[1].Create(tp("t", 0), topicID(1), smallConfig(), 0); !errors.Is(err, ErrExists) {
		t.Errorf("a log beside its future: %v", err)
	}
	if err := ds[1].Promote(f, l, 1); !errors.Is(err, ErrBehind) || ds[1].Get(l.tp) != nil || ds[0].Get(l.tp) != l {
		t.Errorf("too early: %v", err)
	}
	if err := ds[1].Delete(f, 1); err != nil || len(ds[1].Futures()) != 0 {
		t.Error(err)
	}
	if err := ds[1].Promote(f, l, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("after it was given up: %v", err)
	}
	long, err := ds[0].Create(tp(strings.Repeat("n", 249), 0), topicID(2), smallConfig(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ds[1].CreateFuture(long, 1); err == nil {
		t.Error("a folder with a name of 290 characters")
	}
	// Half copied, found again; a damaged copy is thrown away, for the log is whole.
	if f, err = ds[1].CreateFuture(l, 3); err != nil {
		t.Fatal(err)
	}
	if _, caught, err := f.CopyFrom(l, 1000, 1); !caught || err != nil {
		t.Fatal(caught, err)
	}
	if err := ds[1].settle(f); err != nil {
		t.Fatal(err)
	}
	name := f.segPath(0, extLog)
	abandonAll(ds)
	if ds, err = openTwo(mem); err != nil || len(ds[1].Futures()) != 1 || len(ds[1].served()) != 0 {
		t.Fatal(err)
	}
	abandonAll(ds)
	w, err := mem.OpenFile(name, vfs.ReadWrite, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Truncate(5); err != nil {
		t.Fatal(err)
	}
	if ds, err = openTwo(mem); err != nil || len(ds[1].Futures()) != 0 || len(ds[1].Quarantined()) != 0 {
		t.Fatal(err, ds[1].Futures(), ds[1].Quarantined())
	}
	if _, err := ds[1].CreateFuture(ds[0].Get(tp("t", 0)), 4); err != nil {
		t.Error(err)
	}
}
