package partition

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// TestPowerCutKeepsWhatWasAcknowledged cuts the power under load and looks for every acknowledged record at exactly its offset (I1),
// with all, half and nothing of the unsynced bytes kept; and that what was read before the cut is still there (I3).
func TestPowerCutKeepsWhatWasAcknowledged(t *testing.T) {
	for seed := range uint64(4) {
		for _, keep := range []int{0, 50, 100} {
			t.Run(fmt.Sprintf("seed=%d/keep=%d", seed, keep), func(t *testing.T) { powerCut(t, memfs.New(), seed, keep) })
		}
	}
}

// TestPowerCutWithoutVolumeSync is the same where no syncfs ever covers the whole disk by the way: on a system without it, and
// on a busy machine whose rounds happen never to have more than four dirty logs. Every name on the path to a record, up to
// the root, then has to be synced by itself.
func TestPowerCutWithoutVolumeSync(t *testing.T) {
	for seed := range uint64(4) {
		for _, keep := range []int{0, 50} {
			t.Run(fmt.Sprintf("seed=%d/keep=%d", seed, keep), func(t *testing.T) {
				disk := memfs.New()
				disk.DisableVolumeSync()
				powerCut(t, disk, seed, keep)
			})
		}
	}
}

type acked struct {
	n      int32
	offset int64
}

func powerCut(t *testing.T, disk *memfs.FS, seed uint64, keep int) {
	const parts = 12 // above the bound for one syncfs
	w := newWorld(t, disk, 1).start().run()
	w.apply(append(newTopic("t", 1, parts), topicConfig(t, "t", map[string]string{"segment.bytes": "1048576"}))...)
	var mu sync.Mutex
	known := map[acked]string{}
	enough := make(chan struct{})
	var wg sync.WaitGroup
	for n := range int32(parts) {
		p := w.get("t", n)
		wg.Go(func() {
			r := det.NewRand(seed*100 + uint64(n))
			for i := 0; ; i++ {
				val := fmt.Sprintf("%d-%d-%0*d", n, i, r.Intn(20_000)+1, 0)
				a, err := p.Append(AppendRequest{Records: records(t, batch.Spec{LeaderEpoch: -1}, val), Acks: AcksAll, LeaderEpoch: -1, Version: 9, NowMs: 1_700_000_000_000})
				if err == nil {
					err = w.await(p, AcksAll, a)
				}
				if err != nil {
					if !errors.Is(err, kerr.NotLeaderForPartition) {
						t.Errorf("produce: %v", err)
					}
					return
				}
				mu.Lock()
				known[acked{n, a.Base}] = val
				if len(known) == 300 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	w.set.checkpoint()
	mu.Lock()
	promised := make(map[acked]string, len(known))
	for k, v := range known {
		promised[k] = v
	}
	mu.Unlock()
	survivor := disk.Crash(keep, det.NewRand(seed))
	w.stop()
	wg.Wait()
	w2 := newWorld(t, survivor, 1)
	w2.im, w2.rev = w.im, w.rev
	w2.start().run()
	got := map[acked]string{}
	for n := range int32(parts) {
		p := w2.get("t", n)
		at := p.LogStart()
		for _, v := range w2.values(p) { // one record a batch, so that offsets are dense
			got[acked{n, at}] = v
			at++
		}
		if p.HW() != p.LogEnd() || at != p.LogEnd() {
			t.Errorf("partition %d: log end %d, high watermark %d, %d records", n, p.LogEnd(), p.HW(), at)
		}
	}
	for k, v := range promised {
		if got[k] != v {
			t.Errorf("partition %d offset %d: acknowledged %.20q, found %.20q", k.n, k.offset, v, got[k])
		}
	}
}

// TestCompaction: the cleaner of a directory is driven by the set's clock and leaves the newest record of each key.
func TestCompaction(t *testing.T) {
	w := newWorld(t, memfs.New(), 1)
	// The pass below is the only one: a second cleaner on the same directory, which no broker has, would take the work away.
	w.static["log.cleaner.enable"] = "false"
	w.start().run()
	w.apply(append(newTopic("t", 1, 1), topicConfig(t, "t", map[string]string{
		"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "internal.segment.bytes": "50000",
	}))...)
	p := w.get("t", 0)
	for i := range 40 {
		w.produce(p, fmt.Sprintf("value %d %0*d", i, 20_000, 0))
	}
	w.set.checkpoint() // only what lies below the recovery point is cleaned
	c, err := p.Coordinator()
	if err != nil {
		t.Fatal(err)
	}
	cleaner := w.set.newCleaner(p.dir)
	w.set.clean(p.dir, cleaner)
	if s := cleaner.Stats(); s.Passes == 0 || s.Failures > 0 {
		t.Errorf("%+v", s)
	}
	n := 0
	if err := c.Replay(func(b batch.Batch) error { n += int(b.Count()); return nil }); err != nil {
		t.Fatal(err)
	}
	if n >= 40 || p.LogEnd() != 40 {
		t.Errorf("%d of 40 records of one key left, log end %d", n, p.LogEnd())
	}
	if vs := w.values(p); !strings.HasPrefix(vs[len(vs)-1], "value 39 ") {
		t.Errorf("last value %.20q", vs[len(vs)-1])
	}
}
