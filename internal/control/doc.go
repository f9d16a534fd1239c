// Package control owns the cluster's own decisions: the life of topics, partitions and
// configurations, the registration of brokers, who leads a partition when brokers come and go, the
// blocks of producer ids.
//
// It never writes, waits, logs or reads a clock: an image and a wish go in, the changes that grant
// it come out, as a Plan of atomic steps. New ids and random starts are inputs.
//
// Package controller runs it, one call after the other, on the image that all steps before have
// made. It has no state.
//
// Invariants: after each single step of a plan the cluster is usable: a topic is visible with all
// its partitions or not at all; no leader epoch or partition epoch ever falls; a leader is in the
// ISR of its partition.
//
// Read control.go first.
package control
