// Package session owns the cache of incremental fetch sessions (KIP-227): which partitions a fetcher follows, what it was last told
// of each, and who has to leave when the cache is full.
//
// It never reads a log, a clock or a random source: time and new ids are given to it, results are described to it.
//
// A Cache is safe for concurrent use; it has no goroutine. Eight shards have a lock each, every session has its own, and a session's
// lock is never held while a shard's is taken.
//
// Invariants: at most Slots sessions; an incremental answer leaves out only partitions about which nothing changed; a session
// that two connections use at once fails for one of them by its epoch. Rules: kafka.md 4.6.
//
// Read cache.go first, then context.go.
package session
