// Package peer owns the connections between brokers: one port that carries everything, mutual TLS on
// it, and connections to other brokers that carry Kafka's own requests.
//
// It never decides anything, never looks into a request or an answer, and knows no broker by its id.
//
// Each Conn runs one goroutine that reads answers; each Muxer one that accepts and a short one for
// every connection that has not said yet what it is. Close stops and joins them. A Conn and a Pool are
// safe for concurrent use.
//
// Invariants: an answer goes to the request with its correlation id or the connection ends; a request
// fails at once when its connection does; no length from the other side is allocated before it was
// compared with the limit.
//
// Read conn.go first, then mux.go.
package peer
