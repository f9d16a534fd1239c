package storage

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"sort"

	"github.com/milena-mq/milena/internal/producer"
	"github.com/milena-mq/milena/internal/vfs"
)

// txnEntry is the size of an entry of a .txnindex file: version int16, producer id, first offset, last offset, last stable offset.
const txnEntry = 34

// AbortedTxn is an aborted transaction as a fetch answer lists it.
type AbortedTxn struct {
	ProducerID  int64
	FirstOffset int64
	LastOffset  int64 // of the marker
	LastStable  int64 // last stable offset of the log when the marker was written
}

// addAbortedLocked notes an aborted transaction in the segment that holds its marker. It is rare, so it is written at once.
func (l *Log) addAbortedLocked(s *segment, t producer.Txn) error {
	b := make([]byte, 2, txnEntry)
	for _, v := range []int64{t.ProducerID, t.FirstOffset, t.LastOffset, t.LastStable} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	f, err := l.dir.fs.OpenFile(l.segPath(s.base, extTxn), vfs.ReadWrite|vfs.Create, filePerm)
	if err != nil {
		return err
	}
	n, err := f.Size()
	if err == nil {
		_, err = f.WriteAt(b, n-n%txnEntry)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		s.txn, s.txnDirty = 1, true
		l.mu.dirDirty = true
	}
	return err
}

// readAborted reads a whole .txnindex file; a damaged tail is left out.
func readAborted(fsys vfs.FS, name string) ([]AbortedTxn, error) {
	raw, err := vfs.ReadFile(fsys, name, 1<<31)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []AbortedTxn
	for ; len(raw) >= txnEntry; raw = raw[txnEntry:] {
		if binary.BigEndian.Uint16(raw) != 0 {
			break
		}
		v := func(i int) int64 { return int64(binary.BigEndian.Uint64(raw[2+8*i:])) }
		out = append(out, AbortedTxn{v(0), v(1), v(2), v(3)})
	}
	return out, nil
}

// Aborted lists the aborted transactions that a read_committed reader of [from, upper) must know (kafka.md 3.4).
func (l *Log) Aborted(from, upper int64) ([]AbortedTxn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	segs := l.mu.segs
	i := max(0, sort.Search(len(segs), func(i int) bool { return segs[i].base > from })-1)
	var out []AbortedTxn
	for _, s := range segs[i:] {
		if s.txn < 0 {
			continue
		}
		list, err := readAborted(l.dir.fs, l.segPath(s.base, extTxn))
		if err != nil {
			return nil, err
		}
		s.txn = 1
		if list == nil {
			s.txn = -1
		}
		for _, a := range list {
			if a.LastOffset >= from && a.FirstOffset < upper {
				out = append(out, a)
			}
			if a.LastStable >= upper {
				return out, nil
			}
		}
	}
	return out, nil
}
