// Package storage owns log directories: segments in Kafka's format, their indexes, producer snapshots, leader epochs,
// checkpoints, recovery, retention and deletion, and the group commit that makes appends durable.
//
// It never starts a goroutine, reads a clock or talks to other brokers: time and parallelism (Runner) are passed in, and
// what to append, flush and truncate is decided by the replication machine above it.
//
// Any goroutine may call it. A Log has one lock for its state and one (syncMu) that admits a single sync at a time; the
// sync itself runs under neither the log's nor any other appender's lock. Order: Dir.markMu, Dir.manyMu, Log.syncMu, Log.mu, Dir.mu.
//
// Invariants: Flushed never passes what a successful fdatasync or syncfs covered; after one failed write or sync the directory
// is offline for ever (ErrOffline), only a full disk (ErrReserve) may be tried again; nothing past the recovery point is trusted
// at start, it is cut at the first bad batch and synced before it is served; below it a bad batch is ErrCorrupt and nothing is
// cut; the log start never falls but by TruncateFully. A replacement of segments (compaction) takes Dir.markMu, touches only closed segments that end
// at or below the recovery point, follows the steps in swap.go, and resets the position hints.
//
// Read log.go first, then flush.go, marks.go and load.go. The formats are drawn in docs/format.
package storage
