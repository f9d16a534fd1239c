// Package metric owns the catalogue of what the broker counts: families with a name, a help text and
// fixed label values, kept in plain atomics and printed in Prometheus' text format.
//
// It never opens a port, reads a clock or uses the process-wide registry of the Prometheus client: the
// embedded etcd registers 77 families there, which are not ours to publish.
//
// Anybody runs it. Counting is one atomic add; making a counter takes the catalogue's lock, so callers
// make theirs once and keep them. A scrape reads the atomics without stopping anybody.
//
// Invariants: asking twice for the same name and labels gives the same counter; the number of series is
// bounded by the code, never by a client's input (no client id, no topic name as a label unless the
// caller removes it again).
//
// Read catalog.go first.
package metric
