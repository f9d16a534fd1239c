// Package txn decides transactions: which producer epoch an id has, which partitions are in its
// transaction, and whether that is committed (kafka.md 5.7; KIP-98, KIP-360, KIP-890).
//
// It owns the states of transactional ids and the records of __transaction_state, in Kafka's formats. It
// never writes, sends, sleeps, locks or reads a clock: records, answers and markers are values that come out.
//
// Whoever runs a Machine (package shard) has it on one goroutine at a time, appends its records in order,
// releases answers and markers only when the records before them are committed, and reports written markers.
//
// Invariants: a producer epoch never falls; a transaction that is prepared to commit commits, and one that is
// prepared to abort aborts, whatever happens in between; the answer to EndTxn follows the record that decides;
// replaying what was emitted gives the same machine.
//
// Read machine.go first, then end.go; testdata/ holds the transcripts.
package txn
