// Package partition runs the partitions that this broker hosts: a log, its replication state and the
// requests that wait for either, behind one lock per partition.
//
// It owns appending as a leader, the group commit that makes appends durable, reads with their bounds,
// offset look-ups, DeleteRecords, and the housekeeping of the log directories (retention, checkpoints,
// expiry of producers, compaction). It never parses a request and never answers one: it hands results
// and waiters to package api.
//
// Goroutines: one flusher and one cleaner per log directory, one housekeeper per Set; started by
// Set.Start, stopped and joined by Set.Close. During a flush or a load up to eight more run and are
// joined before it returns. Appends and reads run on the goroutine of the caller. Set.Apply is called
// by one goroutine at a time, in the order of the image's revisions.
//
// Invariants: nothing is acknowledged before the disk says so (unless flush.messages allows it); the
// high watermark never falls; an append never waits for a sync in progress; whoever waits is called
// exactly once, also when the leadership ends, the partition is deleted or the disk fails. Locks are
// taken in the order Set, Partition, flusher; callbacks run with none of them held.
//
// Read partition.go first, then set.go, flush.go and wait.go.
package partition
