package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sort"
	"strconv"

	"github.com/milena-mq/milena/internal/vfs"
)

// epochEntry: the leader epoch and the first offset it wrote.
type epochEntry struct {
	epoch int32
	start int64
}

// epochs is the leader epoch list of a log (kafka.md 3.7), sorted by epoch and by start.
type epochs []epochEntry

func (e epochs) latest() (epochEntry, bool) {
	if len(e) == 0 {
		return epochEntry{epoch: -1}, false
	}
	return e[len(e)-1], true
}

// assign adds (epoch, start). Entries that start at or after start belong to epochs that wrote nothing
// there, so the new one takes their place: two entries with one start would make the older end where it begins twice.
func (e epochs) assign(epoch int32, start int64) (epochs, bool) {
	if last, _ := e.latest(); epoch <= last.epoch { // -1 is no epoch
		return e, false
	}
	for len(e) > 0 && e[len(e)-1].start >= start {
		e = e[:len(e)-1]
	}
	return append(e, epochEntry{epoch, start}), true
}

// truncateEnd drops entries that start at or after end.
func (e epochs) truncateEnd(end int64) (epochs, bool) {
	n := len(e)
	for len(e) > 0 && e[len(e)-1].start >= end {
		e = e[:len(e)-1]
	}
	return e, len(e) != n
}

// truncateStart drops entries that end at or before start and lets the one that covers it begin there.
func (e epochs) truncateStart(start int64) (epochs, bool) {
	i := sort.Search(len(e), func(i int) bool { return e[i].start > start }) // first entry wholly kept
	if i == 0 || (i == 1 && e[0].start == start) {
		return e, false
	}
	kept := append(epochs{{e[i-1].epoch, start}}, e[i:]...)
	return kept, true
}

// endOf answers OffsetForLeaderEpoch: the largest known epoch not above the one asked, and where it ends; -1, -1 when unknown.
func (e epochs) endOf(epoch int32, logEnd int64) (int32, int64) {
	last, ok := e.latest()
	switch {
	case !ok || epoch < 0 || epoch > last.epoch:
		return -1, -1
	case epoch == last.epoch:
		return epoch, logEnd
	}
	i := sort.Search(len(e), func(i int) bool { return e[i].epoch > epoch })
	if i == 0 {
		return epoch, e[0].start
	}
	return e[i-1].epoch, e[i].start
}

// at is the epoch of the record at an offset, -1 when unknown.
func (e epochs) at(offset int64) int32 {
	i := sort.Search(len(e), func(i int) bool { return e[i].start > offset })
	if i == 0 {
		return -1
	}
	return e[i-1].epoch
}

func (e epochs) encode() []byte {
	b := append([]byte("0\n"), strconv.Itoa(len(e))...)
	b = append(b, '\n')
	for _, x := range e {
		b = strconv.AppendInt(b, int64(x.epoch), 10)
		b = append(b, ' ')
		b = strconv.AppendInt(b, x.start, 10)
		b = append(b, '\n')
	}
	return b
}

// readEpochs reads the list. A malformed file is an error that wraps errCheckpoint; the list can be
// rebuilt from the batches, at the price of reading the log.
func readEpochs(fsys vfs.FS, name string) (epochs, error) {
	raw, err := vfs.ReadFile(fsys, name, maxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rows, err := checkpointRows(raw, 2)
	if err != nil {
		return nil, err
	}
	var e epochs
	for _, r := range rows {
		ep, err1 := strconv.ParseInt(r[0], 10, 32)
		st, err2 := strconv.ParseInt(r[1], 10, 64)
		last, ok := e.latest()
		if err1 != nil || err2 != nil || ep < 0 || st < 0 || (ok && (int32(ep) <= last.epoch || st < last.start)) {
			return nil, fmt.Errorf("%w: line %q", errCheckpoint, r)
		}
		e = append(e, epochEntry{int32(ep), st})
	}
	return e, nil
}

func (l *Log) epochsPath() string { return filepath.Join(l.mu.path, fileEpochs) }
