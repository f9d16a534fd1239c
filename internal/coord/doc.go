// Package coord owns the coordination store: one history of keyed changes with one writer at a
// time, behind the interface Store. Etcd is the engine inside the broker process, alone or as one of
// several members; Remote is a client of an etcd that exists, and Joiner one of a store that lives in
// other brokers. memstore is the same contract in memory, for tests and for the simulator; zookeeper is
// the same contract over an ensemble.
//
// It never decides anything about the cluster and never reads a value, except the record that says
// who the controller is. It opens no port: it is handed its share of the broker's peer address.
//
// One goroutine follows the history for each Tail. A member with a peer address also runs two servers,
// one goroutine that proves the term, and three that look after the quorum: announce tells the own
// address, steward promotes new members and makes room for another leader, sentinel watches the leader's
// process. A client runs a watchdog that leaves an endpoint which does not answer, and with an external
// etcd a guard that keeps the lease. Close stops and joins them all. A Store is safe for concurrent use.
//
// Invariants: an Append is atomic and is seen by every Tail as one Batch, in order; an Append under
// a term that is not the newest changes nothing, whoever believes to lead; no error but ErrUnknown leaves
// the outcome open; a member that took part and lost its log does not take part again under the same
// identity; elections may be hurried, never won without a majority.
//
// Read store.go first, then history.go (what is written), etcd.go and lead.go (the engine), boot.go (how a
// member begins), quorum.go, remote.go; coordtest is the contract as tests.
package coord
