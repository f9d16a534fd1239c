package partition

import (
	"errors"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// TestLeadsWhenThereIsRoomAgain: with no byte free a new leader epoch cannot be written down, so that nobody leads here; when there is
// room the broker takes over by itself.
func TestLeadsWhenThereIsRoomAgain(t *testing.T) {
	e := errfs.New(memfs.New())
	w := newWorld(t, e, 1).start()
	w.apply(newTopic("t", 1, 2)...)
	w.run()
	for n := range int32(2) {
		w.produce(w.get("t", n), "one")
	}
	e.Add(errfs.Rule{Ops: errfs.Write, Suffix: "leader-epoch-checkpoint.tmp", Count: -1, Err: syscall.ENOSPC})
	for n := range int32(2) {
		w.apply(meta.PutPartition(meta.UUID{0: 1, 15: 1}, n, led(1, alone, alone)))
	}
	leads := func() (n int) {
		for i := range int32(2) {
			if _, ok := w.get("t", i).Leader(); ok {
				n++
			}
		}
		return n
	}
	w.set.retry()
	if leads() != 0 || !w.set.unled.Load() {
		t.Fatalf("%d led without a durable epoch", leads())
	}
	if _, _, err := w.tryProduce("refused"); !errors.Is(err, kerr.NotLeaderForPartition) {
		t.Fatal(err)
	}
	e.Clear()
	w.set.retry()
	if leads() != 2 || w.set.unled.Load() {
		t.Fatalf("%d led", leads())
	}
	w.produce(w.get("t", 0), "two")
}
