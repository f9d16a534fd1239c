package storage

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

func TestReadReturnsWhatWasAppendedInWholeBatches(t *testing.T) {
	d, _ := openTest(t, memfs.New())
	l, err := d.Create(tp("t", 0), topicID(1), smallConfig(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		if got := mustAppend(t, l, 3, fmt.Sprint(i), int64(i*10)); got != int64(i*3) {
			t.Fatalf("append %d got offset %d", i, got)
		}
	}
	if len(l.Segments()) < 5 {
		t.Fatalf("%d segments", len(l.Segments()))
	}
	for _, n := range []int{1, 150, 200, 1000, 1 << 20} {
		got, err := readAll(l, l.End(), n)
		if err != nil || len(got) != 40 {
			t.Fatalf("max %d: %d batches, %v", n, len(got), err)
		}
	}
	for bound := range l.End() + 1 {
		for from := range bound {
			s, err := l.Read(from, 1<<20, bound, true)
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := s.Bytes(nil)
			for len(raw) > 0 {
				var b batch.Batch
				if b, raw, err = batch.Next(raw); err != nil || b.LastOffset() >= bound {
					t.Fatalf("read [%d, %d): batch ends at %d, %v", from, bound, b.LastOffset(), err)
				}
			}
			s.Release()
		}
	}
	if s, err := l.Read(0, 10, l.End(), false); err != nil || s.Len != 0 || s.Next != 0 {
		t.Fatalf("a first batch larger than the maximum: %+v %v", s, err)
	}
	for _, o := range []int64{-1, l.End() + 1} {
		if _, err := l.Read(o, 1, l.End(), true); !errors.Is(err, ErrOutOfRange) {
			t.Fatalf("read at %d: %v", o, err)
		}
	}
}

func TestLogSurvivesCleanRestartAndReportsTheMark(t *testing.T) {
	m := memfs.New()
	e := errfs.New(m)
	d, _ := openTest(t, e)
	l, _ := d.Create(tp("t", 0), topicID(1), smallConfig(), 0)
	for i := range 20 {
		if _, err := l.Append(makeBatch(2, fmt.Sprint(i), int64(i), 7, int32(2*i)), 3, 0); err != nil {
			t.Fatal(err)
		}
	}
	l.SetHW(30)
	if err := l.RaiseStart(5, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(77); err != nil {
		t.Fatal(err)
	}
	if n := e.Leaked(); len(n) > 0 {
		t.Fatalf("left open: %v", n)
	}
	ops := e.Ops()
	d, logs := openTest(t, errfs.New(m.Crash(0, det.NewRand(1))))
	if ep, ok := d.CleanEpoch(); !ok || ep != 77 {
		t.Fatalf("clean epoch %d %v", ep, ok)
	}
	l = logs[0]
	if l.Start() != 5 || l.End() != 40 || l.HW() != 30 || l.Flushed() != 40 || l.TopicID() != topicID(1) {
		t.Fatalf("start %d end %d hw %d flushed %d", l.Start(), l.End(), l.HW(), l.Flushed())
	}
	if ep, end := l.EpochEnd(3); ep != 3 || end != 40 {
		t.Fatalf("epoch 3 ends at %d (%d)", end, ep)
	}
	if dup, base := isDuplicate(l, makeBatch(2, "19", 19, 7, 38)); !dup || base != 38 {
		t.Fatalf("duplicate %v at %d", dup, base)
	}
	if _, err := readAll(l, l.End(), 300); err != nil {
		t.Fatal(err)
	}
	_ = ops
}

func TestLookupTimeFindsTheFirstRecordAtOrAfter(t *testing.T) {
	d, _ := openTest(t, memfs.New())
	l, _ := d.Create(tp("t", 0), topicID(1), smallConfig(), 0)
	for i := range 40 {
		mustAppend(t, l, 3, fmt.Sprint(i), int64(i*10))
	}
	for round := range 2 {
		for ts := int64(0); ts <= 392; ts++ {
			off, got, epoch, ok, err := l.LookupTime(ts, l.End())
			want := ts / 10 * 3
			if ts%10 <= 2 {
				want += ts % 10
			} else {
				want += 3
			}
			if err != nil || !ok || off != want || got < ts || epoch != 0 {
				t.Fatalf("round %d: time %d gives %d (%d) %v %v, want %d", round, ts, off, got, ok, err, want)
			}
		}
		if _, _, _, ok, err := l.LookupTime(393, l.End()); ok || err != nil {
			t.Fatal(ok, err)
		}
		if off, ts, _, ok, err := l.MaxTimestamp(l.End()); off != 119 || ts != 392 || !ok || err != nil {
			t.Fatalf("max %d at %d", ts, off)
		}
		if err := d.Close(1); err != nil {
			t.Fatal(err)
		}
		var logs []*Log
		d, logs = openTest(t, d.fs)
		l = logs[0]
	}
}

func TestRetentionDeletesAPrefixAndReadersKeepTheirFile(t *testing.T) {
	m := memfs.New()
	d, _ := openTest(t, m)
	c := smallConfig()
	c.RetentionBytes, c.FileDeleteDelayMs = 1500, 100
	l, _ := d.Create(tp("t", 0), topicID(1), c, 0)
	for i := range 40 {
		mustAppend(t, l, 3, fmt.Sprint(i), int64(i*10))
	}
	s, err := l.Read(0, 1<<20, l.End(), true)
	if err != nil {
		t.Fatal(err)
	}
	before := l.Size()
	if err := d.Housekeep(1000, func(*Log) int64 { return 0 }); err != nil || l.Start() != 0 {
		t.Fatalf("start %d: deleted past the high watermark (%v)", l.Start(), err)
	}
	if err := d.Housekeep(1000, (*Log).End); err != nil {
		t.Fatal(err)
	}
	if l.Size() < 1500 || l.Size() >= before || l.Start() != l.Segments()[0].Base || l.Start() == 0 {
		t.Fatalf("size %d of %d, start %d", l.Size(), before, l.Start())
	}
	if raw, err := s.Bytes(nil); err != nil || int64(len(raw)) != s.Len {
		t.Fatal(err)
	}
	s.Release()
	deleted := 0
	for n := range m.Files() {
		if strings.HasSuffix(n, extDeleted) {
			deleted++
		}
	}
	if deleted == 0 {
		t.Fatal("nothing is waiting for its delay")
	}
	if err := d.Housekeep(1100, (*Log).End); err != nil {
		t.Fatal(err)
	}
	for n := range m.Files() {
		if strings.HasSuffix(n, extDeleted) {
			t.Fatalf("%s outlived its delay", n)
		}
	}
	// By time everything goes, and the log starts empty at its end.
	c.RetentionMs = 10
	l.SetConfig(c)
	if err := d.Housekeep(5000, (*Log).End); err != nil || l.Start() != l.End() || l.Size() != 0 {
		t.Fatalf("start %d, end %d, size %d, %v", l.Start(), l.End(), l.Size(), err)
	}
	end := l.End()
	if err := d.Close(1); err != nil {
		t.Fatal(err)
	}
	_, logs := openTest(t, m)
	if logs[0].Start() != end || logs[0].End() != end {
		t.Fatalf("after restart [%d, %d], want %d", logs[0].Start(), logs[0].End(), end)
	}
}

func TestTruncateCutsRecordsEpochsAndProducers(t *testing.T) {
	for cut := int64(0); cut <= 80; cut++ {
		m := memfs.New()
		d, _ := openTest(t, m)
		l, _ := d.Create(tp("t", 0), topicID(1), smallConfig(), 0)
		var kept []batch.Batch
		for i := range 40 {
			b := makeBatch(2, fmt.Sprint(i), int64(i), 7, int32(2*i))
			if _, err := l.Append(b, int32(i/10), 0); err != nil {
				t.Fatal(err)
			}
			kept = append(kept, b)
			if i == 25 {
				if err := errors.Join(l.Flush(), d.checkpoint(true)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := l.Truncate(cut); err != nil {
			t.Fatal(err)
		}
		want := cut / 2 * 2
		for range 2 {
			got, err := readAll(l, l.End(), 500)
			if err != nil || l.End() != want || int64(len(got)) != want/2 {
				t.Fatalf("cut %d: end %d, %d batches, %v", cut, l.End(), len(got), err)
			}
			for i := range got {
				if !same(got[i], kept[i]) {
					t.Fatalf("cut %d: batch %d differs", cut, i)
				}
			}
			if ep, start, ok := l.LatestEpoch(); ok && start >= want || want > 0 && (!ok || int64(ep) != (want/2-1)/10) {
				t.Fatalf("cut %d: epoch %d from %d", cut, ep, start)
			}
			if want > 0 {
				if dup, base := isDuplicate(l, kept[want/2-1]); !dup || base != want-2 {
					t.Fatalf("cut %d: last batch duplicate %v at %d", cut, dup, base)
				}
			}
			_ = d.Abandon()
			var logs []*Log
			d, logs = openTest(t, m.Crash(100, det.NewRand(1)))
			l = logs[0]
		}
		// It goes on where it was cut.
		for i := want / 2; i < 40; i++ {
			if _, err := l.Append(makeBatch(2, "again", i, -1, -1), 9, 0); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := readAll(l, 80, 1000); err != nil {
			t.Fatalf("cut %d: %v", cut, err)
		}
	}
}

func TestFollowerAppendKeepsOffsetsAndRefusesDisorder(t *testing.T) {
	d, _ := openTest(t, memfs.New())
	l, _ := d.Create(tp("t", 0), topicID(1), smallConfig(), 0)
	put := func(off int64, epoch int32) batch.Batch {
		b := makeBatch(2, "f", 1, -1, -1)
		b.SetBaseOffset(off)
		b.SetLeaderEpoch(epoch)
		return b
	}
	two := append(put(0, 1), put(2, 1)...)
	if err := l.AppendFollower(two, 1, 0); err != nil || l.End() != 4 {
		t.Fatal(err, l.End())
	}
	if err := l.AppendFollower(put(2, 1), 1, 0); !errors.Is(err, ErrOrder) {
		t.Fatal(err)
	}
	if err := l.AppendFollower(put(4, 0), 1, 0); !errors.Is(err, ErrOrder) {
		t.Fatal(err)
	}
	if err := l.AppendFollower(put(4, 2), 1, 0); err != nil || l.End() != 4 {
		t.Fatalf("an epoch above the fetch was taken: %v, end %d", err, l.End())
	}
	if err := l.AppendFollower(put(4, 2)[:70], 2, 0); err != nil || l.End() != 4 {
		t.Fatalf("half a batch was taken: %v, end %d", err, l.End())
	}
	bad := put(4, 2)
	bad[len(bad)-1] ^= 1
	if err := l.AppendFollower(bad, 2, 0); !errors.Is(err, batch.ErrCRC) {
		t.Fatal(err)
	}
	if err := l.AppendFollower(put(10, 2), 2, 0); err != nil || l.End() != 12 {
		t.Fatalf("a gap left by compaction: %v, end %d", err, l.End())
	}
	if err := l.TruncateFully(101); err != nil || l.Start() != 101 || l.End() != 101 {
		t.Fatal(err, l.Start(), l.End())
	}
	if err := l.AppendFollower(put(100, 3), 3, 0); err != nil || l.End() != 102 || l.Start() != 101 {
		t.Fatalf("a batch around the log start: %v [%d, %d]", err, l.Start(), l.End())
	}
	if _, err := readAll(l, 102, 10); err != nil {
		t.Fatal(err)
	}
}

func TestFullDiskRefusesAndResumes(t *testing.T) {
	m := memfs.New()
	d, _ := openTest(t, m)
	d.SetReserve(1000)
	if err := d.Writable(10); err != nil {
		t.Fatal(err)
	}
	m.SetFree(1005, 1<<40)
	d.full.Store(true)
	for range 3 {
		if err := d.Writable(10); !errors.Is(err, ErrReserve) {
			t.Fatal(err)
		}
	}
	m.SetFree(2000, 1<<40)
	if err := d.Writable(10); err != nil {
		t.Fatal(err)
	}
}

func TestDeletedLogStaysAwayAndItsNameIsFree(t *testing.T) {
	m := memfs.New()
	d, _ := openTest(t, m)
	l, _ := d.Create(tp("t", 0), topicID(1), smallConfig(), 0)
	for i := range 30 {
		mustAppend(t, l, 3, fmt.Sprint(i), 0)
	}
	if err := errors.Join(l.Flush(), d.checkpoint(true), d.Delete(l, 0)); err != nil {
		t.Fatal(err)
	}
	if err := l.Flush(); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	n, err := d.Create(tp("t", 0), topicID(2), smallConfig(), 0)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, n, 1, "new", 0)
	if err := n.Flush(); err != nil {
		t.Fatal(err)
	}
	d2, logs := openTest(t, m.Crash(0, det.NewRand(1)))
	if len(d2.Quarantined()) > 0 || len(logs) != 1 || logs[0].TopicID() != topicID(2) || logs[0].End() != 1 {
		t.Fatalf("%v %v", d2.Quarantined(), logs)
	}
	if err := d2.Housekeep(1<<40, (*Log).End); err != nil {
		t.Fatal(err)
	}
	for name := range d2.fs.(*memfs.FS).Files() {
		if strings.Contains(name, dirDelete) {
			t.Fatalf("%s is still there", name)
		}
	}
}

func TestForeignNewerOrBusyDirectoryIsRefused(t *testing.T) {
	m := memfs.New()
	d, _ := openTest(t, m)
	if _, err := OpenDir(m, testDir, DirOptions{NodeID: 1}); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	if err := d.Close(1); err != nil {
		t.Fatal(err)
	}
	for _, o := range []DirOptions{{NodeID: 2}, {NodeID: 1, ClusterID: "other"}} {
		if _, err := OpenDir(m, testDir, o); !errors.Is(err, ErrForeign) || strings.Contains(err.Error(), "\n") {
			t.Fatal(err)
		}
	}
	if err := writeFile(m, testDir+"/"+fileFormat, []byte("2\n"), true); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(m, testDir, DirOptions{NodeID: 1}); !errors.Is(err, ErrFormat) {
		t.Fatal(err)
	}
	for _, name := range []string{"../x", "", ".", "..", "a/b", strings.Repeat("x", 250)} {
		if _, err := d.Create(tp(name, 0), topicID(1), smallConfig(), 0); err == nil {
			t.Fatalf("topic %q got a folder", name)
		}
	}
}
