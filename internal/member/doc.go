// Package member owns one broker's membership in its cluster: its registration, its heartbeats to every member of the
// quorum, its controlled shutdown, the canaries that show whether its disks still answer, and the way to the active
// controller for everybody else in the broker.
//
// It never decides anything about the cluster, never changes an image, and never makes a connection look alive whose
// broker is not: without a disk that answers it asks to be fenced.
//
// One goroutine beats for each address of the quorum, one for this broker's own controller, one for each log
// directory's canary. Register starts them, Close ends and joins them. A Member is safe for concurrent use.
//
// Invariants: at most one heartbeat is under way on a connection; a request whose bytes have left is sent again only
// where a second time changes nothing; after another broker has taken the id, nothing is registered any more.
//
// Read member.go first, then beat.go and find.go.
package member
