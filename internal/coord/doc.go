// Package coord owns the coordination store: one history of keyed changes with one writer at a
// time, behind the interface Store. Its engine is etcd inside the broker process; memstore is the
// same contract in memory, for tests and for the simulator.
//
// It never decides anything about the cluster and never reads a value, except the record that says
// who the controller is.
//
// One goroutine follows the history for each Tail; Close stops and joins them all. A Store is safe
// for concurrent use.
//
// Invariants: an Append is atomic and is seen by every Tail as one Batch, in order; an Append under
// a term that is not the newest changes nothing; no error but ErrUnknown leaves the outcome open.
//
// Read store.go first, then etcd.go; coordtest is the contract as tests.
package coord
