package storage

import (
	"errors"
	"fmt"

	"github.com/milena-mq/milena/internal/vfs"
)

// assignMany: more logs than this are given their leader epochs by two syncs of the file system, fewer by two syncs each.
const assignMany = 16

// epochStep is one log's part in AssignEpochs.
type epochStep struct {
	i    int
	l    *Log
	was  int // entries of the list it was made from
	list epochs
}

// AssignEpochs notes for many logs that a leader epoch begins at their end, durably, as AssignEpoch does for one: epochs[i] in logs[i], an
// error for each. A broker that takes over a thousand partitions would otherwise wait for two thousand syncs before it serves the
// last one. Nobody else may append to the logs meanwhile.
func (d *Dir) AssignEpochs(logs []*Log, epochs []int32, run Runner) []error {
	errs := make([]error, len(logs))
	one := func(i int) { errs[i] = logs[i].AssignEpoch(epochs[i], logs[i].End()) }
	if len(logs) <= assignMany || d.syncFSAbove < 0 || d.volume == nil || d.noSyncFS.Load() {
		run.run(len(logs), one)
		return errs
	}
	// Checkpoints and truncations write the same lists.
	d.markMu.Lock()
	steps := make([]epochStep, len(logs))
	run.run(len(logs), func(i int) { steps[i], errs[i] = logs[i].stageEpoch(i, epochs[i]) })
	var due []epochStep
	for _, s := range steps {
		if s.l != nil {
			due = append(due, s)
		}
	}
	if len(due) == 0 {
		d.markMu.Unlock()
		return errs
	}
	// The contents first: a name that reaches the disk before them would replace a good list by an empty one.
	err := d.syncAll()
	if err == nil {
		run.run(len(due), func(i int) { errs[due[i].i] = due[i].l.installEpoch(due[i]) })
		err = d.syncAll()
	}
	d.markMu.Unlock()
	if errors.Is(err, vfs.ErrUnsupported) {
		run.run(len(logs), one)
		return errs
	}
	for _, s := range due {
		if errs[s.i] == nil {
			errs[s.i] = err
		}
	}
	return errs
}

// syncAll is one syncfs.
func (d *Dir) syncAll() error {
	// Two at a time are wrong: of a failed write-back the kernel tells only one of them.
	d.manyMu.Lock()
	defer d.manyMu.Unlock()
	if err := d.Offline(); err != nil {
		return err
	}
	err := d.volume.Sync()
	if errors.Is(err, vfs.ErrUnsupported) {
		d.noSyncFS.Store(true)
		return err
	}
	if err != nil {
		return d.goOffline("syncfs", err)
	}
	return nil
}

// stageEpoch writes the new list beside the old one. The step is empty when nothing has to be written.
func (l *Log) stageEpoch(i int, epoch int32) (epochStep, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return epochStep{}, err
	}
	was := len(l.mu.epochs)
	list, changed := append(epochs(nil), l.mu.epochs...).assign(epoch, l.end.Load())
	if !changed {
		return epochStep{}, nil
	}
	if l.mu.newborn { // see AssignEpoch
		l.mu.epochs, l.mu.epochsDirty = list, true
		return epochStep{}, nil
	}
	if err := writeFile(l.dir.fs, l.epochsPath()+extTemp, list.encode(), false); err != nil {
		return epochStep{}, l.dir.fail("write leader epochs of "+l.tp.String(), err)
	}
	return epochStep{i, l, was, list}, nil
}

func (l *Log) installEpoch(s epochStep) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usableLocked(); err != nil {
		return err
	}
	if len(l.mu.epochs) != s.was {
		return fmt.Errorf("write leader epochs of %s: %w: somebody else appends", l.tp, ErrOrder)
	}
	if err := l.dir.fs.Rename(l.epochsPath()+extTemp, l.epochsPath()); err != nil {
		return l.dir.fail("write leader epochs of "+l.tp.String(), err)
	}
	l.mu.epochs, l.mu.epochsDirty, l.mu.epochsFile = s.list, false, true
	return nil
}
