// Package partition runs the partitions that this broker hosts: a log, its replication state and the
// requests that wait for either, behind one lock per partition.
//
// It owns appending as a leader and as a follower, the group commit that makes appends durable, reads with their
// bounds for consumers and followers, offset look-ups, DeleteRecords, moves between log directories, and the
// housekeeping of the log directories (retention, checkpoints, expiry of producers, compaction). It never parses a
// request and never answers one: it hands results and waiters to package api, proposals and what followers want to
// ask to package replica.
//
// Goroutines: one flusher and one cleaner per log directory, one housekeeper, one ticker (the clock of all leaders) and
// one mover per Set; started by Set.Start, stopped and joined by Set.Close. During a flush or a load up to eight more run
// and are joined before it returns. Appends and reads run on the goroutine of the caller, a Follower's steps on its
// fetcher's. Set.Apply is called by one goroutine at a time, in the order of the image's revisions.
//
// Invariants: nothing is acknowledged before the disk says so (unless flush.messages allows it), neither to a producer nor
// to a leader; the high watermark never falls; nobody leads or follows but the process that the image shows as
// registered; an append of one role never slips in behind the next; an append never waits for a sync in progress; whoever
// waits is called exactly once, also when the leadership ends, the partition is deleted or the disk fails. Locks are
// taken in the order Set, Partition, flusher; callbacks run with none of them held.
//
// Read partition.go first, then set.go, role.go, follow.go, flush.go and wait.go.
package partition
