// Package control owns the cluster's own decisions: the life of topics, partitions and
// configurations, the registration of brokers and whether they live, who leads a partition and who is
// in sync or eligible, reassignments, the blocks of producer ids, the balancer's proposals.
//
// It never writes, waits, logs or reads a clock: an image and a wish go in, the changes that grant
// it come out, as a Plan of atomic steps. New ids and random starts are inputs.
//
// Package controller runs it, one call after the other, on the image that all steps before have
// made. A Cluster has no state; Liveness is the one machine that has, and is told the time.
//
// Invariants: after each single step of a plan the cluster is usable: a topic is visible with all
// its partitions or not at all; no leader epoch or partition epoch ever falls; a leader is in the
// ISR of its partition; who leads RECOVERED has everything that was acknowledged.
//
// Read control.go first, then elect.go.
package control
