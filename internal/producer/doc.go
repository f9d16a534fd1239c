// Package producer owns what one partition knows of its idempotent and transactional producers: the last five batches of
// each, epochs, open transactions, and the snapshot file of it.
//
// It never reads a clock, does input or output, or talks to a coordinator: whether a partition belongs to a transaction is
// decided elsewhere; the table sees only batches and markers.
//
// A Table is not safe for concurrent use. It lives under its log's lock, which calls Check before an append and Update after it,
// and Update alone on replay and on a follower.
//
// Invariants: Update of the same batches gives the same table, live, by replay, and by way of a snapshot (which keeps all five
// batches, in a place where Kafka, that keeps one, looks no more); a duplicate of one of the last five batches is answered with its first offset; FirstUnstable never
// passes the first offset of an open transaction. Rules: kafka.md 3.3 and 3.7.
//
// Read table.go first, then txn.go and snapshot.go.
package producer
