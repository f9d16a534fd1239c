package storage

import (
	"testing"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// TestNewDirectoryIsDurable: a fresh data directory survives a power cut with its parents although nothing but its own files was
// ever synced; also when the first start was killed at any operation, and the second one found the folders already there.
func TestNewDirectoryIsDurable(t *testing.T) {
	const path = "/a/b/data"
	o := DirOptions{NodeID: 1, SyncFSAbove: -1}
	for n := 1; ; n++ {
		disk := memfs.New()
		e := errfs.New(disk)
		e.PowerOffAt(n) // the process ends here, the machine goes on
		first, err := OpenDir(e, path, o)
		if first != nil {
			_ = first.Abandon()
		}
		d, err2 := OpenDir(disk, path, o)
		if err2 != nil {
			t.Fatalf("killed at operation %d: %v", n, err2)
		}
		survivor := disk.Crash(0, det.NewRand(1))
		_ = d.Abandon()
		if _, err := survivor.Stat(path + "/" + fileProps); err != nil {
			t.Fatalf("killed at operation %d, then a power cut: %v", n, err)
		}
		if err == nil {
			if n < 10 {
				t.Fatalf("only %d operations", n)
			}
			return
		}
	}
}
