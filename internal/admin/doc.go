// Package admin owns what an operator can ask of a cluster: topics, groups, configuration, brokers,
// producing and reading records, each as one call with a plain result that prints as JSON.
//
// It never prints, never reads a terminal, and knows nothing of the broker's inside: everything goes over
// the Kafka protocol, so it works against any Kafka.
//
// Anybody runs it. A Client connects at the first call and is safe for concurrent use; its goroutines are
// franz-go's and end with Close.
//
// Invariants: no call waits longer than the client's timeout for an answer except Produce and Consume,
// which end with their context; an error is one readable line; results are sorted.
//
// Read client.go first.
package admin
