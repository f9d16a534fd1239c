// Package zookeeper owns the coordination store's contract over an Apache ZooKeeper ensemble: a log of
// entries and a head that says how far it goes, advanced together in one multi, and a snapshot from time
// to time.
//
// It never trusts the clock or the session for safety: every write checks the version of the controller's
// node, which only a take-over changes. It never repeats a write whose outcome it does not know, and never
// reads a value except the controller's record.
//
// One goroutine for each Tail, one for each term, one that writes snapshots and removes what nobody needs,
// and one for each request under way; Close ends and joins them. A Store is safe for concurrent use.
//
// Invariants: an entry is there if and only if the head says so; an entry is never changed; what a
// snapshot covers is removed only after the head names the snapshot; a write under a term that is not the
// newest changes nothing, not even a piece that nobody sees.
//
// Read log.go first (layout, Load, Tail), then append.go, lead.go, compact.go; docs/format/zookeeper.md
// draws the nodes.
package zookeeper
