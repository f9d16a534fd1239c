package partition

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// watchMoves is a channel that gets each Partition of a topic that leads; before the first image.
func (w *world) watchMoves(topic string) <-chan *Partition {
	c := make(chan *Partition, 100)
	w.set.OnLeadership(topic, func(l LeadershipChange) {
		if l.Leads {
			c <- l.Partition
		}
	})
	return c
}

// TestMoveBetweenDirectories: producers go on while their partition moves to the other log directory and back; nothing acknowledged is
// lost, nothing is there twice but what was sent twice, and after a power cut it is still so.
func TestMoveBetweenDirectories(t *testing.T) {
	for seed := range uint64(3) {
		disk := memfs.New()
		w := newWorld(t, disk, 2).start()
		leads := w.watchMoves("t")
		w.apply(newTopic("t", 1, 1)...)
		w.run()
		p := <-leads
		for n := range 20 {
			w.produce(p, fmt.Sprint("before ", n))
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		acked := make([][]string, 3)
		for k := range acked {
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					val := fmt.Sprint(k, " ", n)
					a, p, err := w.tryProduce(val)
					if err == nil {
						err = w.await(p, AcksAll, a)
					}
					if err == nil {
						acked[k] = append(acked[k], val)
					} else if !errors.Is(err, kerr.NotLeaderForPartition) {
						t.Errorf("produce: %v", err)
						return
					}
				}
			})
		}
		for n := range 4 {
			from := w.get("t", 0)
			to := w.names[0]
			if from.dir.d.Path() == to {
				to = w.names[1]
			}
			if err := w.set.Move("t", 0, to); err != nil {
				t.Fatal(err)
			}
			now := <-leads
			if now == from || now.dir.d.Path() != to || w.get("t", 0) != now {
				t.Fatalf("move %d: led in %s", n, now.dir.d.Path())
			}
		}
		close(stop)
		wg.Wait()
		check := func(w *world) {
			t.Helper()
			p := w.get("t", 0)
			vs := w.values(p)
			for k := range acked {
				for _, v := range acked[k] {
					if !slices.Contains(vs, v) {
						t.Errorf("%q was acknowledged and is gone", v)
					}
				}
			}
			if len(vs) < 20 || vs[19] != "before 19" || p.HW() != p.LogEnd() {
				t.Errorf("%d records, high watermark %d, end %d", len(vs), p.HW(), p.LogEnd())
			}
		}
		check(w)
		for i, d := range w.set.Dirs() {
			if len(d.Futures) != 0 || len(d.Partitions) != 1-i {
				t.Errorf("%s: %d partitions, %d copies", d.Path, len(d.Partitions), len(d.Futures))
			}
		}
		survivor := disk.Crash(int(seed)*50, det.NewRand(seed))
		w.stop()
		w2 := newWorld(t, survivor, 2)
		w2.im, w2.rev = w.im, w.rev
		w2.start().run()
		check(w2)
		w2.stop()
	}
}

func (w *world) tryProduce(val string) (Appended, *Partition, error) {
	p, err := w.set.Get("t", 0)
	if err != nil {
		return Appended{}, nil, err
	}
	a, err := p.Append(AppendRequest{Records: records(w.t, batch.Spec{LeaderEpoch: -1}, val), Acks: AcksAll, LeaderEpoch: -1, Version: 9, NowMs: w.clock.UnixMilli()})
	return a, p, err
}

// TestMoveSurvivesARestart: a copy that the end of the process left half made is completed by the next one, or removed when nobody
// needs it any more.
func TestMoveSurvivesARestart(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		disk := memfs.New()
		w := newWorld(t, disk, 2).start() // not run: nothing is copied
		w.apply(newTopic("t", 1, 1)...)
		w.set.Apply(w.im, nil)
		p := w.get("t", 0)
		w.append(p, AcksNone, "one", "two")
		if err := p.log.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := w.set.Move("t", 0, w.names[1]); err != nil {
			t.Fatal(err)
		}
		x := w.set.moves.get(p)
		if _, _, err := x.future.CopyFrom(p.log, 1, 0); err != nil {
			t.Fatal(err)
		}
		if err := x.future.Flush(); err != nil {
			t.Fatal(err)
		}
		if f := w.set.Dirs()[1].Futures; len(f) != 1 || f[0].Partition != p || f[0].Size == 0 || f[0].Lag != 0 {
			t.Errorf("%+v", f)
		}
		w.set = nil // killed
		survivor := disk.Crash(0, det.NewRand(1))
		w2 := newWorld(t, survivor, 2)
		w2.im, w2.rev = w.im, w.rev
		if deleted {
			w2.apply(dropTopic("t", 1, 1)...)
		}
		w2.start()
		leads := w2.watchMoves("t")
		w2.run()
		if deleted {
			w2.stop()
			for name := range survivor.Files() {
				if strings.Contains(name, "t-0") && !strings.Contains(name, "-delete/") {
					t.Errorf("%s is still there", name)
				}
			}
			continue
		}
		for p = <-leads; p.dir.d.Path() != w2.names[1]; p = <-leads {
		}
		if vs := w2.values(p); !slices.Equal(vs, []string{"one", "two"}) {
			t.Errorf("%q", vs)
		}
	}
}

func TestMovesRefusedAndGivenUp(t *testing.T) {
	w := newWorld(t, memfs.New(), 3).start() // not run: nothing is copied
	w.apply(newTopic("t", 1, 1)...)
	w.set.Apply(w.im, nil)
	p := w.get("t", 0)
	w.append(p, AcksNone, "one")
	for _, c := range []struct {
		topic, path string
		want        error
	}{
		{"t", "/nowhere", kerr.LogDirNotFound},
		{"u", w.names[1], kerr.ReplicaNotAvailable},
		{"t", w.names[0] + "/", nil}, // it is there
		{"t", w.names[1] + "/", nil},
		{"t", w.names[1], nil}, // on the way
		{"t", w.names[2], nil}, // somewhere else
	} {
		if err := w.set.Move(c.topic, 0, c.path); !errors.Is(err, c.want) {
			t.Errorf("%s to %s: %v, want %v", c.topic, c.path, err, c.want)
		}
	}
	copies := func() (out []int) {
		for _, d := range w.set.dirs {
			out = append(out, len(d.d.Futures()))
		}
		return out
	}
	if c := copies(); !slices.Equal(c, []int{0, 0, 1}) {
		t.Error(c)
	}
	if err := w.set.Move("t", 0, w.names[0]); err != nil || w.set.moves.get(p) != nil {
		t.Errorf("back: %v", err)
	}
	if c := copies(); !slices.Equal(c, []int{0, 0, 0}) {
		t.Error(c)
	}
	// The topic is deleted and created again while a copy of the old one was being made.
	if err := w.set.Move("t", 0, w.names[1]); err != nil {
		t.Fatal(err)
	}
	w.apply(dropTopic("t", 1, 1)...)
	if c := copies(); !slices.Equal(c, []int{0, 0, 0}) || len(w.set.moves.list()) != 0 {
		t.Error(c)
	}
	w.apply(newTopic("t", 2, 1)...)
	// The disk it moves to fails: the replica stays where it is.
	if err := w.set.Move("t", 0, w.names[1]); err != nil {
		t.Fatal(err)
	}
	p = w.get("t", 0)
	x := w.set.moves.get(p)
	w.append(p, AcksNone, "two")
	w.set.dirFailed(x.to, errDisk)
	<-w.failed
	w.set.moveOn(x)
	if w.set.moves.get(p) != nil || w.get("t", 0) != p || len(w.values(p)) != 0 {
		t.Error("the move goes on although its disk failed")
	}
	if err := w.set.Move("t", 0, x.to.d.Path()); !errors.Is(err, kerr.KafkaStorageError) {
		t.Error(err)
	}
}

// TestMoveIsToldToTheController: where the replica is counts, not where the image says.
func TestMoveIsToldToTheController(t *testing.T) {
	w := newWorld(t, memfs.New(), 2).start()
	leads := w.watchMoves("t")
	w.apply(newTopic("t", 1, 1)...)
	w.run()
	p := <-leads
	rec := led(0, alone, alone)
	rec.Dirs = []meta.UUID{p.dir.d.ID()}
	w.apply(meta.PutPartition(meta.UUID{0: 1, 15: 1}, 0, rec))
	if all := w.set.Placements(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	to := w.set.dirs[0]
	if p.dir == to {
		to = w.set.dirs[1]
	}
	if err := w.set.Move("t", 0, to.d.Path()); err != nil {
		t.Fatal(err)
	}
	<-leads
	if all := w.set.Placements(); len(all) != 1 || all[0].Dir != to.d.ID() {
		t.Errorf("%+v", all)
	}
}
