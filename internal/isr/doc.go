// Package isr decides the replication of one partition: which offset is the high watermark.
//
// It owns the rule of kafka.md 3.9 and 4.2: the high watermark is the smallest durable end over the
// maximal in-sync set, it never falls while this broker leads, and it stands still while the set is
// smaller than min.insync.replicas.
//
// It never reads a clock, a file or a socket, never locks, never starts a goroutine. Progress and
// assignments are values that go in; the new high watermark is a value that comes out.
//
// Whoever holds the lock of the partition steps it (package partition); a Leader is not safe for
// concurrent use.
//
// Invariants: HW <= flushed <= end of the leader's own log; HW never decreases; no replica outside
// the assignment counts.
//
// Read leader.go first; testdata/ holds the transcripts.
package isr
