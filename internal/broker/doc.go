// Package broker owns the whole process: it opens the data directories and the coordination store,
// recovers the logs, builds every other package with what it needs, opens the sockets last, and on the
// way out does the same backwards.
//
// It never serves a request itself and decides nothing about a partition, a group or the metadata.
//
// One goroutine waits for the end of the controller's term and for a log directory that fails; the
// goroutines of the packages it builds are theirs. Start returns a running Broker or nothing: what was
// opened before an error is closed again.
//
// Invariants: no socket is open before the logs are recovered and the broker is registered; on the way
// out no append is accepted after the groups were flushed, and the clean mark is written last, so that
// whatever ends the process earlier is seen as a crash.
//
// Read start.go first, then stop.go.
package broker
