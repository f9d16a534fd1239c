package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/producer"
	"github.com/milena-mq/milena/internal/vfs"
)

// InspectOptions say what Inspect reads and tells.
type InspectOptions struct {
	Topic     string // empty: all
	Partition int32  // -1: all; counts only with Topic
	Batches   bool   // tell batches
	Records   bool   // tell records (and batches)
	Indexes   bool   // tell entries of indexes, snapshots, epoch lists, checkpoints
	// Decode turns a record of an internal topic into words; nil or "" shows the bytes.
	Decode func(topic string, r batch.Record) string
}

// Severity of a problem.
type Severity string

// Damage is what recovery refuses to serve; Tail lies past the recovery point and is cut at the next start, as after any crash;
// Note is harmless.
const (
	Damage Severity = "damage"
	Tail   Severity = "tail"
	Note   Severity = "note"
)

// Problem is something that is not as it should be.
type Problem struct {
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`
}

// InspectItem is one thing found. Exactly one of the pointers is set.
type InspectItem struct {
	Log      string          `json:"log,omitempty"` // folder, topic-partition
	File     string          `json:"file"`
	Position int64           `json:"position"`
	Batch    *BatchView      `json:"batch,omitempty"`
	Record   *RecordView     `json:"record,omitempty"`
	Index    *IndexView      `json:"index,omitempty"`
	Aborted  *AbortedTxn     `json:"aborted,omitempty"`
	Producer *producer.State `json:"producer,omitempty"`
	Offset   *OffsetView     `json:"offset,omitempty"`
	Problem  *Problem        `json:"problem,omitempty"`
}

// BatchView is a batch header.
type BatchView struct {
	BaseOffset    int64  `json:"baseOffset"`
	LastOffset    int64  `json:"lastOffset"`
	Count         int32  `json:"count"`
	BaseSequence  int32  `json:"baseSequence"`
	LastSequence  int32  `json:"lastSequence"`
	ProducerID    int64  `json:"producerId"`
	ProducerEpoch int16  `json:"producerEpoch"`
	LeaderEpoch   int32  `json:"partitionLeaderEpoch"`
	Transactional bool   `json:"isTransactional"`
	Control       bool   `json:"isControl"`
	DeleteHorizon *int64 `json:"deleteHorizonMs,omitempty"`
	MaxTimestamp  int64  `json:"maxTimestamp"`
	TimestampType string `json:"timestampType"`
	Size          int    `json:"size"`
	Codec         string `json:"codec"`
	CRC           uint32 `json:"crc"`
	Valid         bool   `json:"valid"`
}

// RecordView is a record. Byte fields are nil for null.
type RecordView struct {
	Offset    int64        `json:"offset"`
	Timestamp int64        `json:"timestamp"`
	Sequence  int32        `json:"sequence"`
	Key       []byte       `json:"key"`
	Value     []byte       `json:"value"`
	Headers   []HeaderView `json:"headers,omitempty"`
	Decoded   string       `json:"decoded,omitempty"`
}

// HeaderView is a header of a record.
type HeaderView struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

// IndexView is an entry of an offset index (Timestamp nil) or a time index (FilePosition -1).
type IndexView struct {
	Offset       int64  `json:"offset"`
	FilePosition int64  `json:"filePosition"`
	Timestamp    *int64 `json:"timestamp,omitempty"`
}

// OffsetView is a line of a checkpoint or of a leader epoch list.
type OffsetView struct {
	Name   string `json:"name"` // topic-partition, or the epoch
	Offset int64  `json:"offset"`
}

// InspectSummary counts what was read.
type InspectSummary struct {
	Logs, Segments, Files   int
	Batches, Records, Bytes int64
	Damage, Tails, Notes    int
}

type inspection struct {
	fs   vfs.FS
	opts InspectOptions
	tell func(InspectItem) error
	sum  InspectSummary

	marks, starts map[meta.TopicPartition]int64
}

// Inspect reads a log directory, one partition's folder, or one .log file, without changing anything, and tells what it finds in
// order: every batch and record checked (checksum, lengths, offsets, epochs, timestamps), every index entry checked against the
// log, snapshots, epoch lists and checkpoints read. It is meant for a directory that no broker is using: on a live one the newest
// records and indexes may look torn. Problems are items, not errors; the error is tell's, or says that path cannot be read.
func Inspect(fsys vfs.FS, path string, o InspectOptions, tell func(InspectItem) error) (InspectSummary, error) {
	in := &inspection{fs: fsys, opts: o, tell: tell}
	st, err := fsys.Stat(path)
	if err != nil {
		return in.sum, fmt.Errorf("inspect %s: %w", path, err)
	}
	switch {
	case !st.IsDir():
		err = in.oneFile(path)
	case in.isLogFolder(path):
		in.readMarks(filepath.Dir(path))
		err = in.logFolder(path)
	default:
		err = in.directory(path)
	}
	return in.sum, err
}

func (in *inspection) isLogFolder(path string) bool {
	if _, ok := parseDirName(filepath.Base(path)); ok {
		return true
	}
	list, err := in.fs.ReadDir(path)
	return err == nil && slices.ContainsFunc(list, func(e fs.DirEntry) bool {
		_, ext, ok := parseSegName(e.Name())
		return ok && ext == extLog
	})
}

func (in *inspection) problem(log, file string, pos int64, sev Severity, format string, args ...any) error {
	switch sev {
	case Damage:
		in.sum.Damage++
	case Tail:
		in.sum.Tails++
	case Note:
		in.sum.Notes++
	}
	return in.tell(InspectItem{Log: log, File: file, Position: pos, Problem: &Problem{sev, fmt.Sprintf(format, args...)}})
}

// readMarks reads recovery points and log starts, silently: directory tells about their damage.
func (in *inspection) readMarks(dir string) {
	in.marks, _ = readOffsets(in.fs, filepath.Join(dir, fileRecovery))
	in.starts, _ = readOffsets(in.fs, filepath.Join(dir, fileLogStart))
}

func (in *inspection) directory(path string) error {
	list, err := in.fs.ReadDir(path)
	if err != nil {
		return fmt.Errorf("inspect %s: %w", path, err)
	}
	in.readMarks(path)
	found := map[meta.TopicPartition]bool{}
	known := []string{fileRecovery, fileLogStart, fileHW, fileCleaner, fileProps, fileClean, fileLock, fileFormat, fileCanary}
	for _, e := range list {
		name := e.Name()
		tp, isLog := parseDirName(name)
		switch {
		case e.IsDir() && isLog:
			found[tp] = true
			if in.opts.Topic == "" || in.opts.Topic == tp.Topic && (in.opts.Partition < 0 || in.opts.Partition == tp.Partition) {
				err = in.logFolder(filepath.Join(path, name))
			}
		case in.opts.Topic != "":
		case e.IsDir() && (strings.HasSuffix(name, dirDelete) || strings.HasSuffix(name, dirStray) || strings.HasSuffix(name, dirFuture)):
			if tp, ok := parseWaiting(name); ok {
				found[tp] = true // the lines of a checkpoint may still speak of it, or again
			}
			err = in.problem("", name, 0, Note, "folder is waiting to be removed or moved")
		case name == fileRecovery || name == fileLogStart || name == fileHW || name == fileCleaner:
			err = in.checkpoint(path, name)
		case !e.IsDir() && !slices.Contains(known, name):
			err = in.problem("", name, 0, Note, "not a file of this format")
		}
		if err != nil {
			return err
		}
	}
	for tp := range in.marks {
		if !found[tp] && in.opts.Topic == "" {
			if err := in.problem(tp.String(), fileRecovery, 0, Damage, "the recovery points name a log that has no folder"); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseWaiting is the partition of a folder that is being deleted or moved here. A long name was cut, and is not found.
func parseWaiting(name string) (meta.TopicPartition, bool) {
	if name, ok := strings.CutSuffix(name, dirDelete); ok {
		return parseFutureName(name + dirFuture)
	}
	return parseFutureName(name)
}

func (in *inspection) checkpoint(dir, name string) error {
	in.sum.Files++
	m, err := readOffsets(in.fs, filepath.Join(dir, name))
	if err != nil {
		return in.problem("", name, 0, Damage, "%v", err)
	}
	if !in.opts.Indexes {
		return nil
	}
	tps := make([]string, 0, len(m))
	byName := map[string]int64{}
	for tp, o := range m {
		tps = append(tps, tp.String())
		byName[tp.String()] = o
	}
	slices.Sort(tps)
	for _, tp := range tps {
		if err := in.tell(InspectItem{File: name, Offset: &OffsetView{tp, byName[tp]}}); err != nil {
			return err
		}
	}
	return nil
}

func (in *inspection) oneFile(path string) error {
	base, ext, ok := parseSegName(filepath.Base(path))
	if !ok || strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(ext, extDeleted), extSwap), extCleaned) != extLog {
		return fmt.Errorf("inspect %s: %w", path, errors.New("want a log directory, a topic-partition folder or a .log file"))
	}
	lg := &logWalk{in: in, dir: filepath.Dir(path), name: filepath.Base(filepath.Dir(path)), mark: -1, next: base}
	lg.tp, _ = parseDirName(lg.name)
	_, err := lg.segment(filepath.Base(path), base)
	return err
}
