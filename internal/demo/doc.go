// Package demo owns milena demo: some brokers as child processes on this machine, real lines written and
// read through them, the busiest leader killed again and again, and a view of it that a newcomer understands.
//
// It never knows the broker's inside: the children are started by their command line, and everything else
// goes over the Kafka protocol, by franz-go and package admin.
//
// Run starts all its goroutines and has joined them, and ended all children, when it returns. Children end
// by themselves when this process dies, however that happens.
//
// Invariants: a record counts as acknowledged only when the cluster said so, as lost as soon as a reader
// has passed its offset without it, as duplicated when it is met at two offsets; the ledger is the only
// judge, and nothing is taken back from it.
//
// Read demo.go first, then ledger.go.
package demo
