package storage

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// leadStory makes a broker the leader of many logs, twice; done is how often all of them were told to be durable.
func leadStory(e *errfs.FS, logs int) (done int, err error) {
	d, _, err := tryOpen(e)
	if err != nil {
		return 0, err
	}
	var all []*Log
	var epochs []int32
	for n := range logs {
		l, err := d.Create(tp("t", int32(n)), topicID(1), smallConfig(), 0)
		if err != nil {
			return 0, err
		}
		if _, err := l.Append(makeBatch(1, "x", 1, -1, -1), 1, 1); err != nil {
			return 0, err
		}
		all, epochs = append(all, l), append(epochs, 3)
	}
	if err := errors.Join(d.SyncMany(all, nil)...); err != nil {
		return 0, err
	}
	if err := errors.Join(d.AssignEpochs(all, epochs, nil)...); err != nil {
		return 0, err
	}
	done = 1
	for n := range epochs {
		epochs[n] = 6
	}
	if err := errors.Join(d.AssignEpochs(all, epochs, nil)...); err != nil {
		return done, err
	}
	return 2, nil
}

func TestEpochsOfManyLogsAreDurable(t *testing.T) {
	const logs = assignMany + 3
	e := errfs.New(memfs.New())
	if done, err := leadStory(e, logs); done != 2 || err != nil {
		t.Fatal(done, err)
	}
	syncs, from := 0, 0
	for i, op := range e.Trace() {
		if strings.HasPrefix(op, "syncfs") {
			syncs++
			if syncs == 1 {
				from = i // what comes before makes the logs
			}
		}
		if i > from && from > 0 && (strings.HasPrefix(op, "sync ") || strings.HasPrefix(op, "syncdir")) {
			t.Errorf("%s", op)
		}
	}
	if syncs != 5 {
		t.Errorf("%d syncs of the file system, not one for the records and two for each epoch", syncs)
	}
	for n := from; n <= e.Ops()+1; n++ {
		for _, keep := range []int{0, 50} {
			mem := memfs.New()
			e := errfs.New(mem)
			e.PowerOffAt(n)
			done, _ := leadStory(e, logs)
			if err := checkEpochs(mem.Crash(keep, det.NewRand(uint64(n))), done, logs); err != nil {
				t.Fatalf("cut at %d, %d%% kept, done %d: %v", n, keep, done, err)
			}
		}
	}
	// An error at any operation: either it is told, or all are durable.
	for n := from; n <= e.Ops(); n++ {
		mem := memfs.New()
		e := errfs.New(mem)
		e.Add(errfs.Rule{Ops: errfs.Any &^ errfs.Close, From: n, Err: errfs.ErrInjected})
		done, _ := leadStory(e, logs)
		if err := checkEpochs(mem.Crash(0, det.NewRand(uint64(n))), done, logs); err != nil {
			t.Fatalf("error at %d, done %d: %v", n, done, err)
		}
	}
	mem := memfs.New()
	mem.DisableVolumeSync()
	if done, err := leadStory(errfs.New(mem), logs); done != 2 || err != nil {
		t.Fatal(done, err)
	}
	if err := checkEpochs(mem.Crash(0, det.NewRand(1)), 2, logs); err != nil {
		t.Fatalf("without syncfs: %v", err)
	}
}

func checkEpochs(survivor *memfs.FS, done, logs int) error {
	d, back, err := tryOpen(survivor)
	if err != nil {
		return err
	}
	defer func() { _ = d.Abandon() }()
	if len(d.Quarantined()) > 0 || done > 0 && len(back) != logs {
		return fmt.Errorf("%d logs, quarantined %v", len(back), d.Quarantined())
	}
	for _, l := range back {
		if l.topic == (meta.UUID{}) || l.End() == 0 {
			continue // never acknowledged
		}
		want := map[int]int32{0: 1, 1: 3, 2: 6}[done]
		if epoch, _, _ := l.LatestEpoch(); epoch < want {
			return fmt.Errorf("%s: epoch %d, want %d", l.tp, epoch, want)
		}
		if _, err := readAll(l, l.End(), 1000); err != nil {
			return err
		}
	}
	return nil
}
