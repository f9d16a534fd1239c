package coord

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"github.com/milena-mq/milena/internal/vfs"
)

// EtcdOptions is what the embedded engine needs to know.
type EtcdOptions struct {
	Dir        string   // its own directory, "coord" below the data directory
	FS         vfs.FS   // for the lock on Dir; etcd itself always uses the operating system
	Identity   Identity // written into the controller record
	Log        *slog.Logger
	QuotaBytes int64 // size at which etcd refuses writes; 0: 2 GiB
	NoSync     bool  // for tests only: loses data in a crash

	// Cluster is the members that begin the store together, this broker among them; Identity.Peer is its
	// own entry. Empty for a broker that began alone; with Identity.Peer set others may join that one.
	Cluster []Peer
	// HTTP and GRPC carry raft and the client API, both at Identity.Peer: two shares of one port. Closed by
	// Close. Nil for a broker without a peer address.
	HTTP, GRPC net.Listener
	TLS        *TLS   // towards other members; nil: in the clear
	Local      net.IP // source address of connections, nil for the system's choice
	// Tick and ElectionTicks are raft's, used when there is a peer address. 0: 50 ms and 6. Networks with
	// slower round trips need more; an election takes one to two times their product.
	Tick          time.Duration
	ElectionTicks int
	// Known is the cluster id that the data directories of this broker have; "" for none. With one, a store
	// that would begin anew is refused with ErrWiped: it would be a cluster that has forgotten its topics.
	Known string
	// Start bounds the wait of a member that has no data yet for the others; nil: as long as it takes.
	Start context.Context

	maxOps, maxBytes uint // for tests of clients; 0: what an append needs
}

// TLS is how members of the store reach each other: files, because etcd's transport reads them itself, and
// the same as a configuration of the dialling side.
type TLS struct {
	Certificate, Key, CA string
	Client               *tls.Config
}
