// Package isr decides the replication of one partition: which offset is the high watermark, who is
// in sync, and what a follower fetches, appends and cuts.
//
// It owns the rules of kafka.md 3.8, 3.9 and 4.2: the high watermark is the smallest durable end over
// the maximal in-sync set, it never falls while this broker leads, and it stands still while the set
// is smaller than min.insync.replicas; a follower cuts by diverging epochs alone, never to the high
// watermark, and acknowledges only what is on its disk.
//
// It never reads a clock, a file or a socket, never locks, never starts a goroutine. Progress,
// assignments and answers are values that go in; the new high watermark, a proposal to the controller
// or the follower's next act is a value that comes out.
//
// Whoever holds the lock of the partition steps it (package partition); a Leader or a Follower is not
// safe for concurrent use.
//
// Invariants: HW <= flushed <= end of the own log; a leader's HW never decreases; no replica outside
// the assignment counts, nor one that speaks as an earlier incarnation; one proposal at a time.
//
// Read leader.go first, then propose.go and follower.go; testdata/ holds the transcripts. Package sim
// plays the machines against each other.
package isr
