package storage

import (
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// TestDeleteWaitsForTheSync: a folder renamed under a sync in progress made the sync fail, and that took the whole
// directory offline, the broker with it when it was the last (found by the broker's TestHostileRequests).
func TestDeleteWaitsForTheSync(t *testing.T) {
	d, _ := openTest(t, memfs.New())
	l, err := d.Create(tp("t", 0), topicID(1), smallConfig(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, 1, "a", 1000)
	l.syncMu.Lock()
	w, err := l.beginSync()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- d.Delete(l, 2000) }()
	select {
	case err := <-done:
		t.Fatalf("deleted during a sync: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if err := l.endSync(w, "sync", w.sync(d)); err != nil {
		t.Fatal(err)
	}
	l.syncMu.Unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := d.Offline(); err != nil {
		t.Fatal(err)
	}
}
