package storage

import (
	"path/filepath"
)

// segment is one segment of a log; everything in it is protected by the log's lock. It is kept small:
// a broker may hold hundreds of thousands.
type segment struct {
	base int64
	size int64 // bytes of the .log file that count; the file may be longer after a refused write
	f    *file // nil while not open

	maxTs    int64 // largest timestamp so far, -1 none
	maxTsOff int64 // last offset of the batch that has it
	firstTs  int64 // largest timestamp of the first batch; -1 unknown or none
	created  int64 // ms; stands for the file's age when records have no timestamps

	index sparse // offset index
	times sparse // time index

	sinceIndex int64 // bytes since the last index entry
	written    int64 // where write-back was last started
	dirty      bool  // the .log has bytes that were not synced
	counted    bool  // f counts against the directory's limit of open closed segments
	torn       bool  // the file may be longer than size: a write was refused halfway
	lazy       bool  // the .log does not exist yet: it is made by the first append
	known      bool  // timestamps have been read (closed segments are read when first needed)
	checked    bool  // the indexes have passed the sanity check
	used       bool  // read since the last housekeeping
	txnDirty   bool  // the .txnindex has entries that were not synced
	txn        int8  // the .txnindex: 0 not looked, 1 exists, -1 absent
}

func newSegment(base, now int64) *segment {
	return &segment{base: base, created: now, maxTs: -1, firstTs: -1, maxTsOff: base,
		index: sparse{width: offsetEntry}, times: sparse{width: timeEntry, last: -1}}
}

func (l *Log) segPath(base int64, ext string) string {
	return filepath.Join(l.mu.path, segName(base, ext))
}

// addTime adds the time index entry for the largest timestamp so far, if it grew.
func (s *segment) addTime() {
	if s.maxTs > s.times.last {
		s.times.add(uint64(s.maxTs), uint32(s.maxTsOff-s.base))
		s.times.last = s.maxTs
	}
}

// note accounts for a batch at position pos that has just been written or re-read.
func (s *segment) note(pos, size, last, maxTs int64, interval int64) {
	if maxTs > s.maxTs {
		s.maxTs, s.maxTsOff = maxTs, last
	}
	if pos == 0 {
		s.firstTs = maxTs
	}
	if s.sinceIndex > interval {
		s.index.add(uint64(last-s.base), uint32(pos))
		s.addTime()
		s.sinceIndex = 0
	}
	s.sinceIndex += size
}

// writeIndexesLocked moves the index tails of a segment into their files.
func (l *Log) writeIndexesLocked(s *segment) error {
	if err := s.index.write(l.dir.fs, l.segPath(s.base, extIndex)); err != nil {
		return err
	}
	return s.times.write(l.dir.fs, l.segPath(s.base, extTime))
}

// closeFile gives up the segment's own reference. A failed close loses nothing: what had to be durable was synced before.
func (l *Log) closeFile(s *segment) {
	if s.f != nil {
		_ = s.f.release()
		s.f = nil
	}
	if s.counted {
		l.dir.sealedOpen.Add(-1)
		s.counted = false
	}
}
