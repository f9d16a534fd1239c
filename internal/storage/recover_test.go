package storage

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// A power cut during recovery must find the same acknowledged records the next time, and what one recovery served the next one serves.
func TestPowerCutDuringRecoveryLosesNothing(t *testing.T) {
	total := storyOps(t)
	for _, first := range []int{total / 4, total / 2, total * 2 / 3, total * 3 / 4, total - 40, total - 8} {
		for _, keep := range []int{50, 100} {
			m := memfs.New()
			e := errfs.New(m)
			e.PowerOffAt(first)
			s := newStory()
			if err := s.run(e); !errors.Is(err, errfs.ErrPower) {
				t.Fatal(err)
			}
			hurt := m.Crash(keep, det.NewRand(uint64(first)))
			for n := 1; ; n++ {
				work := hurt.Clone()
				e := errfs.New(work)
				e.PowerOffAt(n)
				d, logs, err := tryOpen(e)
				if err == nil {
					ends := map[meta.TopicPartition]int64{}
					for _, l := range logs {
						ends[l.tp] = l.End()
					}
					_ = d.Abandon()
					d2, again, err := tryOpen(work.Crash(0, det.NewRand(1)))
					if err != nil {
						t.Fatal(err)
					}
					for _, l := range again {
						if l.End() != ends[l.tp] {
							t.Fatalf("cut at %d: %s was served up to %d, after a power cut it ends at %d", first, l.tp, ends[l.tp], l.End())
						}
					}
					_ = d2.Abandon()
					break
				}
				for _, k := range []int{0, 50, 100} {
					if err := s.check(work.Crash(k, det.NewRand(uint64(n))), false); err != nil {
						tr := e.Trace()
						t.Fatalf("first cut at %d (%d%%), second at operation %d of recovery (%s), %d%% kept: %v", first, keep, n, tr[n-1], k, err)
					}
				}
			}
		}
	}
}

func TestDamageBelowTheMarkIsSetAsideNotCut(t *testing.T) {
	m := memfs.New()
	d, _ := openTest(t, m)
	for p := range int32(2) {
		l, err := d.Create(tp("t", p), topicID(1), smallConfig(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			mustAppend(t, l, 2, fmt.Sprint(i), 0)
		}
	}
	if err := d.Close(1); err != nil {
		t.Fatal(err)
	}
	name, size := "", int64(0)
	for n, s := range m.Files() {
		if strings.HasPrefix(n, testDir+"/t-1/") && strings.HasSuffix(n, extLog) && n > name {
			name, size = n, s
		}
	}
	f, err := m.OpenFile(name, vfs.ReadWrite, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size - 1); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second start must not find it healed by having lost its mark
		d, logs := openTest(t, m)
		q := d.Quarantined()
		if len(q) != 1 || q[0].TopicPartition != tp("t", 1) || !errors.Is(q[0].Err, ErrCorrupt) || len(logs) != 1 {
			t.Fatalf("%v, %d logs", q, len(logs))
		}
		if _, err := d.Create(tp("t", 1), topicID(1), smallConfig(), 0); !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		mustAppend(t, logs[0], 1, "x", 0)
		if got := m.Files()[name]; got != size-1 {
			t.Fatalf("the damaged file was changed: %d bytes", got)
		}
		if err := d.Close(1); err != nil {
			t.Fatal(err)
		}
	}
}

func TestIndexesAreRebuiltWhenMissingOrWrong(t *testing.T) {
	for _, how := range []string{"missing", "empty", "noise"} {
		m := memfs.New()
		d, _ := openTest(t, m)
		l, _ := d.Create(tp("t", 0), topicID(1), smallConfig(), 0)
		for i := range 60 {
			mustAppend(t, l, 2, fmt.Sprint(i), int64(i))
		}
		if err := d.Close(1); err != nil {
			t.Fatal(err)
		}
		r := det.NewRand(3)
		for n, size := range m.Files() {
			if !strings.HasSuffix(n, "index") {
				continue
			}
			var err error
			switch how {
			case "missing":
				err = m.Remove(n)
			case "empty":
				err = writeFile(m, n, nil, true)
			default:
				b := make([]byte, size)
				r.Bytes(b)
				err = writeFile(m, n, b, true)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		_, logs := openTest(t, m)
		l = logs[0]
		if l.End() != 120 {
			t.Fatalf("%s: end %d", how, l.End())
		}
		for from := range int64(120) {
			s, err := l.Read(from, 100, 120, true)
			if err != nil || s.Len == 0 {
				t.Fatalf("%s: read at %d: %v", how, from, err)
			}
			s.Release()
		}
		for ts := range int64(60) {
			if off, _, _, ok, err := l.LookupTime(ts, 120); err != nil || !ok || (off != 2*ts && ts == 0) {
				t.Fatalf("%s: time %d gives %d %v %v", how, ts, off, ok, err)
			}
		}
	}
}

// Everything a broker does at once; the race detector and the reads are the judges.
func TestConcurrentUseOfOneDirectory(t *testing.T) {
	m := memfs.New()
	d, _ := openTest(t, m)
	var logs []*Log
	for p := range int32(10) {
		l, err := d.Create(tp("t", p), topicID(1), smallConfig(), 0)
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
	}
	stop := make(chan struct{})
	var workers, background sync.WaitGroup
	fail := make(chan error, 100)
	for _, l := range logs {
		workers.Go(func() {
			for i := range 150 {
				if _, err := l.Append(makeBatch(2, fmt.Sprint(i), int64(i), -1, -1), 0, 0); err != nil {
					fail <- err
					return
				}
				if i%10 == 9 {
					if err := l.Truncate(l.End() - 3); err != nil {
						fail <- err
						return
					}
				}
			}
		})
	}
	every := func(f func() error) {
		background.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := f(); err != nil {
					fail <- err
					return
				}
			}
		})
	}
	every(func() error { return errors.Join(d.SyncMany(logs, parallel(3))...) })
	every(func() error { return errors.Join(d.SyncMany(logs[:2], nil)...) })
	every(d.Checkpoint)
	every(func() error { return d.Housekeep(1, (*Log).Flushed) })
	every(func() error {
		for _, l := range logs {
			s, err := l.Read(max(l.Start(), l.Flushed()-4), 1000, l.End(), true)
			if err != nil && !errors.Is(err, ErrOutOfRange) {
				return err
			}
			s.Release()
		}
		return nil
	})
	workers.Wait()
	close(stop)
	background.Wait()
	select {
	case err := <-fail:
		t.Fatal(err)
	default:
	}
	if err := d.Close(1); err != nil {
		t.Fatal(err)
	}
	_, again := openTest(t, m.Crash(0, det.NewRand(1)))
	if len(again) != len(logs) {
		t.Fatalf("%d logs", len(again))
	}
	for _, l := range again {
		if _, err := readAll(l, l.End(), 900); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzRecovery replaces one file of a directory by anything: the start must end without a panic, with typed errors, and serve only
// sound batches in order, or say that it is corrupt.
func FuzzRecovery(f *testing.F) {
	m := memfs.New()
	s := newStory()
	if err := s.run(m); err != nil {
		f.Fatal(err)
	}
	crashed := memfs.New()
	e := errfs.New(crashed)
	e.PowerOffAt(300)
	_ = newStory().run(e)
	bases := []*memfs.FS{m.Clone(), crashed.Crash(100, det.NewRand(1))}
	for b, base := range bases {
		files := base.Files()
		for i, name := range det.SortedKeys(files) {
			raw, err := vfs.ReadFile(base, name, 1<<20)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(b), uint8(i), raw)
		}
	}
	f.Fuzz(func(t *testing.T, which, file uint8, content []byte) {
		base := bases[int(which)%len(bases)].Clone()
		names := det.SortedKeys(base.Files())
		name := names[int(file)%len(names)]
		if err := writeFile(base, name, content, true); err != nil {
			t.Fatal(err)
		}
		d, logs, err := tryOpen(base)
		if err != nil {
			if !typed(err) {
				t.Fatalf("%s: %v", path.Base(name), err)
			}
			return
		}
		for _, l := range logs {
			if l.Start() > l.End() || l.HW() > l.End() || l.Flushed() != l.End() {
				t.Fatalf("%s: start %d, hw %d, flushed %d, end %d", name, l.Start(), l.HW(), l.Flushed(), l.End())
			}
			if strings.HasSuffix(name, extLog) {
				continue // below the mark the bytes are served as they are
			}
			if _, err := readAll(l, l.End(), 700); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if err := d.Housekeep(1<<40, (*Log).End); err != nil && !errors.Is(err, ErrOffline) {
			t.Fatal(err)
		}
		_ = d.Abandon()
	})
}
