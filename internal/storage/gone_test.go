package storage

import (
	"testing"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/producer"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// All records of a producer are deleted, and a power cut takes the snapshot that was made after them: what an older
// snapshot says of the producer is not where it stopped. It must be let go on, not be refused for ever (found by sim).
func TestProducerWhoseRecordsAreGoneGoesOn(t *testing.T) {
	fs := memfs.New()
	d, _, err := tryOpen(fs)
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Create(tp("t", 0), topicID(1), smallConfig(), 0)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for seq := range int32(4) {
		_, err := l.Append(makeBatch(1, "v", 1, 7, seq), 0, 1)
		must(err)
		must(l.Flush())
		if seq == 0 {
			l.mu.sinceMark = markBytes // enough for a snapshot
			must(d.Checkpoint())
		}
	}
	l.SetHW(l.End())
	must(l.RaiseStart(l.End(), 0))
	must(d.CheckpointStarts())
	must(d.Housekeep(1, (*Log).HW))
	must(fs.SyncDir(l.path())) // as the next roll does
	seq := int32(-1)
	for keep := 0; keep <= 100; keep += 10 {
		d2, logs, err := tryOpen(fs.Crash(keep, det.NewRand(uint64(keep))))
		must(err)
		if len(logs) != 1 || logs[0].Start() != 4 {
			t.Fatalf("keep %d: %d logs", keep, len(logs))
		}
		logs[0].Producers(func(p *producer.Table) {
			_, err = p.Check(makeBatch(1, "v", 1, 7, 4), 2)
			for _, s := range p.Active() {
				seq = s.LastSequence
			}
		})
		if err != nil {
			t.Errorf("keep %d: sequence 4 after %d: %v", keep, seq, err)
		}
		must(d2.Abandon())
	}
}
