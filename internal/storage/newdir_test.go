package storage

import (
	"testing"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// TestNewDirectoryIsDurable: a fresh data directory survives a power cut with its parents although nothing
// but its own files was ever synced.
func TestNewDirectoryIsDurable(t *testing.T) {
	disk := memfs.New()
	d, err := OpenDir(disk, "/a/b/data", DirOptions{NodeID: 1, SyncFSAbove: -1})
	if err != nil {
		t.Fatal(err)
	}
	survivor := disk.Crash(0, det.NewRand(1))
	d.Abandon()
	if _, err := survivor.Stat("/a/b/data"); err != nil {
		t.Errorf("after a power cut: %v", err)
	}
}
