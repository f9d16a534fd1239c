package coord

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"time"
)

// RemoteOptions is what a client of a store elsewhere needs to know.
type RemoteOptions struct {
	Endpoints []string    // host:port: peer addresses of the quorum, or client addresses of an external etcd
	TLS       *tls.Config // nil: in the clear
	Local     net.IP      // source address of connections, nil for the system's choice
	Identity  Identity    // written into the controller record; used with Elect only
	Log       *slog.Logger
	// Elect: the store is an external etcd and this broker may become controller. Without it the store
	// lives in other brokers, Lead blocks until its context ends, and endpoints are learned from the members.
	Elect bool
	// Name sets clusters apart that share an external etcd; "" for one that has it alone. Used with Elect only.
	Name       string
	QuotaBytes int64         // size at which the store refuses writes, for what is said about it; 0: unknown
	Open       time.Duration // how long OpenRemote waits for the first answer; 0: 10 s
}

// Remote is a store elsewhere.
type Remote struct{ Store }

// OpenRemote connects to a store elsewhere. It fails when no endpoint answers within RemoteOptions.Open.
func OpenRemote(o RemoteOptions) (*Remote, error) {
	return nil, errors.New("coordination store elsewhere: not built yet")
}
