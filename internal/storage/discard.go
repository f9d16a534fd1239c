package storage

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/milena-mq/milena/internal/meta"
)

// Discard gives up a log that Load refused to serve (see Quarantined), because the replica is to be fetched again from others: its
// folder is renamed out of the way, durably, and unlinked by Housekeep after keep milliseconds, or at the next start. The name is then
// free for Create. Whoever calls it must know that others hold every record that was acknowledged. ErrClosed when there is no such log.
func (d *Dir) Discard(tp meta.TopicPartition, now, keep int64) error {
	if err := d.Offline(); err != nil {
		return err
	}
	d.markMu.Lock() // the checkpoint lines that were kept for it go with it
	defer d.markMu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.mu.quarantined, func(q Quarantined) bool { return q.TopicPartition == tp })
	if i < 0 {
		return fmt.Errorf("discard log %s: %w", tp, ErrClosed)
	}
	id := spread(uint64(now)) ^ uint64(len(d.mu.trash)+1)
	suffix := fmt.Sprintf(".%016x%016x%s", spread(id), id, dirDelete)
	name := dirName(tp)
	name = name[:min(len(name), 255-len(suffix))] + suffix
	to := filepath.Join(d.path, name)
	if err := d.fs.Rename(d.mu.quarantined[i].Path, to); err != nil {
		return d.fail("discard log "+tp.String(), err)
	}
	if err := d.fs.SyncDir(d.path); err != nil {
		return d.goOffline("discard log "+tp.String(), err)
	}
	d.mu.quarantined = slices.Delete(d.mu.quarantined, i, i+1)
	for _, lines := range d.kept {
		delete(lines, tp)
	}
	// Its lines are still in the files: Create rewrites those first, and a start without the folder passes them over.
	d.mu.ghosts[tp] = true
	d.startsDirty.Store(true)
	d.hwDirty.Store(true)
	d.mu.trash = append(d.mu.trash, trash{to, now + keep, true})
	return nil
}
