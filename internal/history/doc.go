// Package history remembers what clients of a cluster saw and checks it against the promises of the
// cluster: nothing acknowledged is lost, nothing is there twice, every offset holds one value for ever.
//
// It never opens a socket or a file, reads no clock and starts no goroutine: whoever runs clients tells it
// what was sent, answered and read, with times of one monotonic clock in nanoseconds.
//
// Writers, consumers and replicas may report from many goroutines at once; each has a lock of its own.
// Check is called once, after the last report.
//
// Invariant: a breach that is in the history is reported, and a correct history has none. Both are tested
// by histories that were edited by hand, one edit for each promise. The names I1 to I39 are those of the
// list of promises that every clustered log is measured by.
//
// Read record.go first, then check.go.
package history
