package partition

import (
	"fmt"
	"testing"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/storage"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// TestPartitionInTwoDirectories: a move between directories was cut short after the new log got its name, and the old one's disk was
// away meanwhile. The log that ends later is served, the other one is gone for good. Logs without a topic's id belong to none.
func TestPartitionInTwoDirectories(t *testing.T) {
	for newer := range 2 {
		disk := memfs.New()
		w := newWorld(t, disk, 2)
		for i, path := range w.names {
			d, err := storage.OpenDir(w.g, path, storage.DirOptions{NodeID: 1, ClusterID: "c", NewID: func() meta.UUID { return meta.UUID{0: byte(i + 1), 15: 7} }})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.Load(nil, 1, nil); err != nil {
				t.Fatal(err)
			}
			create := func(topic string, id meta.UUID, count int) {
				l, err := d.Create(meta.TopicPartition{Topic: topic}, id, storage.DefaultLogConfig(), 1)
				if err != nil {
					t.Fatal(err)
				}
				for n := range count {
					if _, err := l.Append(records(t, batch.Spec{LeaderEpoch: -1}, fmt.Sprint(n)), 0, 1); err != nil {
						t.Fatal(err)
					}
				}
				if err := l.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			more := 0
			if i == newer {
				more = 2
			}
			create("t", meta.UUID{0: 1, 15: 1}, 3+more)
			create(fmt.Sprint("nameless", i), meta.UUID{}, 1)
			if err := d.Abandon(); err != nil {
				t.Fatal(err)
			}
		}
		w.start()
		w.apply(newTopic("t", 1, 1)...)
		w.run()
		p := w.get("t", 0)
		if p.LogEnd() != 5 || p.dir.d.Path() != w.names[newer] {
			t.Errorf("newer %d: log of %d records in %s", newer, p.LogEnd(), p.dir.d.Path())
		}
		w.stop()
		for i, path := range w.names {
			if _, err := disk.Stat(path + "/t-0"); (err == nil) != (i == newer) {
				t.Errorf("newer %d, %s: %v", newer, path, err)
			}
			if _, err := disk.Stat(fmt.Sprintf("%s/nameless%d-0", path, i)); err == nil {
				t.Errorf("%s: a log of no topic is still there", path)
			}
		}
	}
}
