package storage

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// followerStory is the life of a follower that falls so far behind that it has to start again at its leader's log start.
// It tells which of the two logs must be there: dropped 0 the old one, 1 either, 2 the new one; acked is durable in it.
func followerStory(e *errfs.FS) (dropped int, acked int64, err error) {
	d, _, err := tryOpen(e)
	if err != nil {
		return 0, 0, err
	}
	l, err := d.Create(tp("t", 0), topicID(1), smallConfig(), 0)
	if err != nil {
		return 0, 0, err
	}
	add := func(off int64, epoch int32) error {
		b := makeBatch(2, fmt.Sprint(off), off, -1, -1)
		b.SetBaseOffset(off)
		b.SetLeaderEpoch(epoch)
		return l.AppendFollower(b, epoch, 0)
	}
	flush := func() {
		if err == nil {
			if err = l.Flush(); err == nil {
				acked = l.Flushed()
			}
		}
	}
	for i := range int64(12) {
		if err == nil {
			err = add(2*i, 1)
		}
		if i == 7 {
			flush()
			if err == nil {
				err = d.checkpoint(true)
			}
		}
	}
	flush()
	if err == nil {
		dropped = 1
		if err = l.TruncateFully(101); err == nil {
			dropped, acked = 2, 101
		}
	}
	for i := range int64(8) {
		if err == nil {
			err = add(100+2*i, 2)
		}
		if i%3 == 2 {
			flush()
		}
	}
	if err == nil {
		err = d.checkpoint(true)
	}
	flush()
	return dropped, acked, err
}

func TestPowerCutWhileAFollowerStartsAgain(t *testing.T) {
	e := errfs.New(memfs.New())
	if _, _, err := followerStory(e); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= e.Ops()+1; n++ {
		for _, keep := range []int{0, 50, 50, 100} {
			m := memfs.New()
			e := errfs.New(m)
			e.PowerOffAt(n)
			dropped, acked, _ := followerStory(e)
			d, logs, err := tryOpen(m.Crash(keep, det.NewRand(uint64(n*100+keep))))
			if err != nil || len(d.Quarantined()) > 0 {
				t.Fatalf("cut at %d, %d%%: %v %v", n, keep, err, d.Quarantined())
			}
			if len(logs) == 0 {
				if acked > 0 {
					t.Fatalf("cut at %d, %d%%: log is gone", n, keep)
				}
				continue
			}
			l := logs[0]
			isNew := l.Start() == 101
			if l.Start() != 0 && !isNew || (isNew && dropped == 0) || (!isNew && dropped == 2) || (dropped != 1 && l.End() < acked) || (!isNew && l.End() > 24) {
				t.Fatalf("cut at %d, %d%%: [%d, %d], dropped %d, acked %d", n, keep, l.Start(), l.End(), dropped, acked)
			}
			got, err := readAll(l, l.End(), 500)
			if err != nil {
				t.Fatalf("cut at %d, %d%%: %v", n, keep, err)
			}
			for _, b := range got {
				if want := int32(1 + b2i(isNew)); b.LeaderEpoch() != want {
					t.Fatalf("cut at %d, %d%%: epoch %d at %d", n, keep, b.LeaderEpoch(), b.BaseOffset())
				}
			}
			_ = d.Abandon()
		}
	}
}

// A full disk at any write refuses that operation and nothing else: tried again with room it succeeds, and nothing is lost or doubled.
func TestFullDiskAtEveryWriteIsSurvivedWithoutARestart(t *testing.T) {
	for n := 1; ; n++ {
		m := memfs.New()
		e := errfs.New(m)
		d, _ := openTest(t, e)
		l, err := d.Create(tp("t", 0), topicID(1), smallConfig(), 0)
		if err != nil {
			t.Fatal(err)
		}
		before := e.Ops()
		e.Add(errfs.Rule{Ops: errfs.Write, From: n, Count: 2, Err: syscall.ENOSPC, Short: n%2 == 0})
		refused := 0
		try := func(what string, f func() error) {
			for {
				err := f()
				if err == nil {
					return
				}
				if !errors.Is(err, ErrReserve) || refused > 5 {
					t.Fatalf("write %d: %s: %v (operations %s)", n, what, err, strings.Join(e.Trace()[before:], ", "))
				}
				refused++
			}
		}
		var want []batch.Batch
		for i := range 25 {
			b := makeBatch(2, fmt.Sprint(i), int64(i), 7, int32(2*i))
			try("append", func() error { _, err := l.Append(b, 0, 0); return err })
			want = append(want, b)
			if i%6 == 5 {
				try("flush", l.Flush)
				try("checkpoint", func() error { return d.checkpoint(true) })
			}
		}
		try("housekeeping", func() error { return d.Housekeep(1, (*Log).End) })
		try("checkpoint", func() error { return d.checkpoint(true) })
		_ = d.Abandon()
		_, logs := openTest(t, m.Crash(0, det.NewRand(1)))
		got, err := readAll(logs[0], logs[0].End(), 1000)
		if err != nil || len(got) != len(want) {
			t.Fatalf("write %d: %d batches of %d, %v", n, len(got), len(want), err)
		}
		for i := range got {
			if !same(got[i], want[i]) {
				t.Fatalf("write %d: batch %d differs", n, i)
			}
		}
		if refused == 0 {
			if n < 30 {
				t.Fatalf("only %d writes", n)
			}
			return
		}
	}
}
