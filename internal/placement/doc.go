// Package placement owns the arithmetic of where replicas go: which brokers hold a new partition,
// and in which order.
//
// It never reads the cluster's state and never draws a random number: brokers and the start come in.
//
// Anybody runs it; it has no state.
//
// Invariants: a partition's replicas are on different brokers, in different racks as long as there
// are racks left; leaders and followers are spread evenly over consecutive partitions.
//
// Read place.go.
package placement
