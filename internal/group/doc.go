// Package group owns the group coordinator as a pure machine: the members, generations and
// assignments of classic groups, the committed offsets of every group of one partition of
// __consumer_offsets, and the record formats in which they are stored (kafka.md 5.0 to 5.3).
//
// It never reads a clock, draws a random number, sends, writes, locks or starts a goroutine, and it
// never looks inside an assignment or a subscription except to learn the topic names that a
// "consumer" group subscribes to (for offset expiry and OffsetDelete). Consumer (KIP-848), share and
// streams groups are later work: their records are kept out of harm's way on replay.
//
// internal/shard runs one Machine per partition, on one goroutine at a time: replay, then Step for
// every input, records appended in the order emitted, answers released when the log is committed up
// to where they were made.
//
// Invariants: state that has to survive changes only in apply, from a record that Step emitted or
// that replay read, so replaying what was emitted gives the same machine; every token is answered
// exactly once; a generation never falls; a member id owns its place until it leaves, expires or is
// replaced by its static twin; an older generation changes nothing.
//
// Read machine.go first, then classic.go, then offsets.go.
package group
