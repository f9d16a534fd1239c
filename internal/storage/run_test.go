package storage

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/vfs"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// leaderBytes is a leader's log: batches of several sizes and epochs, with gaps as compaction leaves them.
func leaderBytes(n int) (raw []byte, starts map[int64]int) {
	starts = map[int64]int{}
	off := int64(0)
	for i := range n {
		b := makeBatch(1+i%3, fmt.Sprint(i, strings.Repeat("z", i%5*20)), int64(i*10), 7, int32(2*i))
		b.SetBaseOffset(off)
		b.SetLeaderEpoch(int32(1 + i/9))
		starts[off] = len(raw)
		raw = append(raw, b...)
		off += int64(1 + i%3 + i%4/3)
	}
	return raw, starts
}

// feed gives a follower answers of at most size bytes until it has all.
func feed(l *Log, raw []byte, starts map[int64]int, size int, each func() error) error {
	for {
		at := -1
		for o, p := range starts {
			if o >= l.End() && (at < 0 || p < at) {
				at = p
			}
		}
		if at < 0 {
			return nil
		}
		before := l.End()
		if err := l.AppendFollower(slices.Clone(raw[at:min(len(raw), at+size)]), 100, 0); err != nil {
			return err
		}
		if l.End() == before {
			return fmt.Errorf("nothing came at %d", before)
		}
		if err := each(); err != nil {
			return err
		}
	}
}

// files is what is in a log's folder.
func files(t *testing.T, m *memfs.FS) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name := range m.Files() {
		if strings.Contains(name, "/t-0/") {
			b, err := vfs.ReadFile(m, name, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			out[name] = string(b)
		}
	}
	return out
}

// Batches that come in one answer make the same files as batches that come one by one.
func TestManyBatchesAtOnceMakeTheSameLog(t *testing.T) {
	raw, starts := leaderBytes(70)
	var want map[string]string
	for _, size := range []int{1, 600, 1000, 5000, len(raw)} {
		m := memfs.New()
		d, _ := openTest(t, m)
		c := smallConfig()
		c.SegmentMs = 150 // so that a segment also ends by time, in the middle of a write
		l, err := d.Create(tp("t", 0), topicID(1), c, 0)
		if err != nil {
			t.Fatal(err)
		}
		if size == 1 {
			for rest := raw; len(rest) > 0; {
				var b batch.Batch
				if b, rest, err = batch.Next(rest); err == nil {
					err = l.AppendFollower(b, 100, 0)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		} else if err := feed(l, raw, starts, size, func() error { return nil }); err != nil {
			t.Fatal(size, err)
		}
		if err := d.checkpoint(true); err != nil {
			t.Fatal(err)
		}
		got := files(t, m)
		if want == nil {
			want = got
			if len(l.Segments()) < 12 {
				t.Fatalf("%d segments", len(l.Segments()))
			}
			continue
		}
		for name, b := range want {
			if got[name] != b {
				t.Errorf("answers of %d bytes: %s differs", size, name)
			}
		}
		if len(got) != len(want) {
			t.Errorf("answers of %d bytes: %d files, want %d", size, len(got), len(want))
		}
	}
}

func followAll(e *errfs.FS, raw []byte, starts map[int64]int) (acked int64, err error) {
	d, _, err := tryOpen(e)
	if err != nil {
		return 0, err
	}
	c := smallConfig()
	c.SegmentMs = 150
	l, err := d.Create(tp("t", 0), topicID(1), c, 0)
	if err != nil {
		return 0, err
	}
	n := 0
	err = feed(l, raw, starts, 1500, func() error {
		if n++; n%3 == 0 {
			if err := l.Flush(); err != nil {
				return err
			}
			acked = l.Flushed()
		}
		if n == 4 {
			return d.checkpoint(true)
		}
		return nil
	})
	return acked, err
}

func TestPowerCutWhileManyBatchesAreWritten(t *testing.T) {
	raw, starts := leaderBytes(36)
	e := errfs.New(memfs.New())
	if _, err := followAll(e, raw, starts); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= e.Ops()+1; n++ {
		for _, keep := range []int{0, 50, 100} {
			m := memfs.New()
			e := errfs.New(m)
			e.PowerOffAt(n)
			acked, _ := followAll(e, raw, starts)
			d, logs, err := tryOpen(m.Crash(keep, det.NewRand(uint64(n))))
			if err != nil || len(d.Quarantined()) > 0 {
				t.Fatalf("cut at %d, %d%%: %v %v", n, keep, err, d.Quarantined())
			}
			end := int64(0)
			if len(logs) > 0 {
				end = logs[0].End()
				pos := 0
				for at := int64(0); at < end; {
					s, err := logs[0].Read(at, 400, end, true)
					if err != nil {
						t.Fatalf("cut at %d, %d%%: %v", n, keep, err)
					}
					got, err := s.Bytes(nil)
					s.Release()
					if err != nil || len(got) == 0 || string(got) != string(raw[pos:pos+len(got)]) {
						t.Fatalf("cut at %d, %d%%: differs from the leader's log at %d (%v)", n, keep, at, err)
					}
					at, pos = s.Next, pos+len(got)
				}
			}
			if end < acked {
				t.Fatalf("cut at %d, %d%%: log end %d, acknowledged %d", n, keep, end, acked)
			}
			_ = d.Abandon()
		}
	}
}

// A refused batch stops the answer there; what came before it is in the log. A full disk refuses the whole write, and after it the
// same answer is taken.
func TestAnswersThatAreRefusedInTheMiddle(t *testing.T) {
	raw, starts := leaderBytes(12)
	var at []int64
	for o := range starts {
		at = append(at, o)
	}
	slices.Sort(at)
	broken := func(i int, change func(b batch.Batch)) []byte {
		b := slices.Clone(raw)
		change(b[starts[at[i]]:])
		return b
	}
	for name, c := range map[string]struct {
		answer []byte
		max    int32
		want   error
	}{
		"checksum":     {broken(5, func(b batch.Batch) { b[70]++ }), 100, batch.ErrCRC},
		"offset":       {broken(5, func(b batch.Batch) { b.SetBaseOffset(1) }), 100, ErrOrder},
		"epoch":        {broken(5, func(b batch.Batch) { b.SetLeaderEpoch(0) }), 100, ErrOrder},
		"magic":        {broken(5, func(b batch.Batch) { b[16] = 1 }), 100, batch.ErrMagic},
		"future epoch": {broken(5, func(b batch.Batch) { b.SetLeaderEpoch(9) }), 8, nil},
		"half":         {raw[:starts[at[5]]+20], 100, nil},
	} {
		d, _ := openTest(t, memfs.New())
		l, err := d.Create(tp("t", 0), topicID(1), smallConfig(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.AppendFollower(c.answer, c.max, 0); !errors.Is(err, c.want) || (c.want == nil && err != nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		last := at[4]
		if e := l.End(); e <= last || e > at[5] {
			t.Errorf("%s: log end %d, the batch at %d was good and that at %d was not", name, e, last, at[5])
		}
	}
	for n := 1; n < 8; n++ {
		e := errfs.New(memfs.New())
		d, _ := openTest(t, e)
		l, err := d.Create(tp("t", 0), topicID(1), smallConfig(), 0)
		if err != nil {
			t.Fatal(err)
		}
		e.Add(errfs.Rule{Ops: errfs.Write, From: n, Err: syscall.ENOSPC, Short: n%2 == 0})
		refused := 0
		for err = errors.New("again"); err != nil; {
			if err = feed(l, raw, starts, 800, func() error { return nil }); err != nil && !errors.Is(err, ErrReserve) {
				t.Fatal(n, err)
			}
			if err != nil {
				refused++
			}
		}
		got, err := readAllGaps(l)
		if err != nil || string(got) != string(raw) || refused != 1 {
			t.Fatalf("full at write %d: %d bytes of %d, refused %d times, %v", n, len(got), len(raw), refused, err)
		}
	}
}

func readAllGaps(l *Log) (out []byte, err error) {
	for at := l.Start(); at < l.End(); {
		s, err := l.Read(at, 500, l.End(), true)
		if err == nil {
			out, err = s.Bytes(out)
		}
		s.Release()
		if err != nil || s.Next <= at {
			return out, fmt.Errorf("at %d: %w", at, err)
		}
		at = s.Next
	}
	return out, nil
}
