package storage

import (
	"errors"
	"fmt"

	"github.com/milena-mq/milena/internal/meta"
)

// Errors a caller tells apart with errors.Is. The api package maps them to Kafka's codes.
var (
	// ErrOutOfRange: the offset is below the log start or above the log end.
	ErrOutOfRange = errors.New("offset out of range")
	// ErrOffline: a write or a sync of this log directory failed once; it serves no more writes until
	// the process is restarted. The cause is wrapped beside it.
	ErrOffline = errors.New("log directory is offline")
	// ErrReserve: the disk is full, or its free space is below the reserve. Nothing was written; it may be tried again.
	ErrReserve = errors.New("free disk space is below the reserve")
	// ErrCorrupt: bytes below the durable mark are not what was written. The log is set aside, not cut.
	ErrCorrupt = errors.New("log is corrupt below its durable mark")
	// ErrClosed: the log or directory has been closed or deleted.
	ErrClosed = errors.New("log is closed")
	// ErrExists: the directory already holds this partition.
	ErrExists = errors.New("partition already has a log")
	// ErrOrder: a batch whose offset or leader epoch does not follow what is there.
	ErrOrder = errors.New("batch does not follow the log end")
	// ErrLocked: another process uses the directory.
	ErrLocked = errors.New("log directory is in use by another process")
	// ErrForeign: the directory belongs to another node or another cluster.
	ErrForeign = errors.New("log directory belongs to another broker")
	// ErrFormat: the directory was written by a newer version, or its identity file is unreadable.
	ErrFormat = errors.New("log directory format is not supported")
)

// LogConfig is a topic's configuration as its logs need it. Times are in milliseconds, sizes in bytes.
type LogConfig struct {
	SegmentBytes       int32 // segment.bytes
	IndexIntervalBytes int32 // index.interval.bytes
	SegmentIndexBytes  int32 // segment.index.bytes
	SegmentMs          int64 // segment.ms
	SegmentJitterMs    int64 // segment.jitter.ms
	RetentionMs        int64 // retention.ms, -1: no limit
	RetentionBytes     int64 // retention.bytes, -1: no limit
	FileDeleteDelayMs  int64 // file.delete.delay.ms
	Delete, Compact    bool  // cleanup.policy

	DeleteRetentionMs      int64
	MinCompactionLagMs     int64
	MaxCompactionLagMs     int64
	MinCleanableDirtyRatio float64

	FlushMessages    int64 // flush.messages: 1 makes every append durable before it is acknowledged
	FlushMs          int64
	Preallocate      bool
	ProducerExpiryMs int64 // producer.id.expiration.ms
}

// DefaultLogConfig is Kafka's defaults, with flush.messages=1 (the durability contract).
func DefaultLogConfig() LogConfig {
	const day = int64(24 * 60 * 60 * 1000)
	return LogConfig{SegmentBytes: 1 << 30, IndexIntervalBytes: 4096, SegmentIndexBytes: 10 << 20, SegmentMs: 7 * day,
		RetentionMs: 7 * day, RetentionBytes: -1, FileDeleteDelayMs: 60_000, Delete: true,
		DeleteRetentionMs: day, MaxCompactionLagMs: 1<<63 - 1, MinCleanableDirtyRatio: 0.5,
		FlushMessages: 1, FlushMs: 1<<63 - 1, ProducerExpiryMs: day}
}

// Runner calls f(0) to f(n-1), some of them at the same time, and returns when all have returned. The
// package starts no goroutine itself; nil runs one after the other.
type Runner func(n int, f func(i int))

func (r Runner) run(n int, f func(i int)) {
	if r != nil && n > 1 {
		r(n, f)
		return
	}
	for i := range n {
		f(i)
	}
}

// DirOptions says who opens a log directory.
type DirOptions struct {
	NodeID    int32
	ClusterID string           // checked against meta.properties; empty: not known yet, not checked
	NewID     func() meta.UUID // directory.id of a fresh directory
	// Reserve is the free space, in bytes, below which Writable refuses.
	Reserve int64
	// MaxOpenSegments bounds the closed segments kept open for readers; 0: 1024.
	MaxOpenSegments int
	// SyncFSAbove: SyncMany uses one syncfs for more dirty logs than this; 0: 4, negative: never.
	SyncFSAbove int
}

// Quarantined is a log that Load refused to serve because bytes below its durable mark are damaged.
type Quarantined struct {
	TopicPartition meta.TopicPartition
	Path           string
	Err            error
}

// corrupt makes an ErrCorrupt, unless the cause is a disk that did not answer: that says nothing about the bytes.
func corrupt(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if !isData(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}
