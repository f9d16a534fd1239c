// Package marker writes the end of transactions into every partition that they touched: the coordinator's
// decision, as WriteTxnMarkers to the leaders of those partitions (kafka.md 5.7).
//
// It never decides an outcome and never touches a log; what it writes was committed by the coordinator before.
//
// One goroutine for each leader broker that there ever was something for, started by Put and joined by Close. A
// Writer is safe for concurrent use.
//
// Invariants: a marker is tried until it stands, or its topic is gone, or another coordinator's counts, or the one
// that decided is forgotten (Forget): the one after it hands all of them over again. One
// request in flight for each broker, and everything that waits rides the next one.
//
// Read writer.go.
package marker
