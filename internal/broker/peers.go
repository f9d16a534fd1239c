package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/coord/zookeeper"
	"github.com/milena-mq/milena/internal/member"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/peer"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/vfs"
)

// peering is how this broker reaches others and is reached.
type peering struct {
	config.Peering
	incarnation meta.UUID
	addr        string       // advertised peer address, "" for a broker without company
	mux         *peer.Muxer  // nil with it
	dialer      *peer.Dialer // never nil: a broker that is only reached by nobody may still be told to forward
	pool        *peer.Pool
	client      *tls.Config // nil: in the clear
}

// openPeers opens the address for other brokers, where there is one. Nothing is answered there yet.
func (b *Broker) openPeers(ctx context.Context) error {
	l := config.Layers{Static: b.o.Static}
	p, err := config.ParsePeering(l, b.nodeID)
	if err != nil {
		return err
	}
	b.peers = peering{Peering: p, incarnation: newUUID()}
	var serverTLS *tls.Config
	if p.TLS.On() {
		if serverTLS, b.peers.client, err = peer.TLS(p.TLS.Certificate, p.TLS.Key, p.TLS.CA); err != nil {
			return err
		}
	}
	b.peers.dialer = &peer.Dialer{TLS: b.peers.client, ClientID: "broker-" + strconv.Itoa(int(b.nodeID))}
	b.peers.pool = peer.NewPool(b.peers.dialer)
	if p.Listen == "" {
		return nil
	}
	s, err := server.Listen(ctx, p.Listen, config.NetworkCongestionControl.Of(l))
	if err != nil {
		return fmt.Errorf("listen for other brokers at %s: %w", p.Listen, err)
	}
	b.peers.addr = p.Advertised
	if b.peers.addr == "" {
		host, _, _ := net.SplitHostPort(p.Listen)
		b.peers.addr = net.JoinHostPort(host, strconv.Itoa(int(portOf(s))))
	}
	// Connections to others come from the address at which they reach this broker.
	if a, ok := s.Addr().(*net.TCPAddr); ok && !a.IP.IsUnspecified() {
		b.peers.dialer.Local = a.IP
	}
	if serverTLS != nil {
		s = tls.NewListener(s, serverTLS)
	}
	b.peers.mux = peer.Mux(s)
	return nil
}

func (p *peering) close() error {
	var errs []error
	if p.pool != nil {
		errs = append(errs, p.pool.Close())
	}
	if p.mux != nil {
		errs = append(errs, p.mux.Close())
	}
	return errors.Join(errs...)
}

// openStore starts the coordination store, or connects to the one there is. known is the cluster that the data
// directories belong to, "" for none.
func (b *Broker) openStore(ctx context.Context, known string) (coord.Store, error) {
	p := &b.peers
	id := coord.Identity{NodeID: b.nodeID, Incarnation: p.incarnation, Peer: p.addr}
	if (p.Engine != "" || p.Join != nil) && p.mux != nil {
		// This broker holds no metadata: whoever thinks so should hear it at once.
		_, _ = p.mux.HTTP().Close(), p.mux.GRPC().Close()
	}
	switch {
	case p.Engine == "zookeeper":
		return zookeeper.Open(zookeeper.Options{Servers: p.Servers, Path: p.Path, Identity: id, Log: b.log})
	case p.Engine != "":
		return coord.OpenRemote(coord.RemoteOptions{Endpoints: p.Servers, Name: p.Path, Identity: id, Log: b.log, Elect: true, Start: ctx})
	case p.Join != nil:
		return coord.OpenRemote(coord.RemoteOptions{Endpoints: p.Join, TLS: p.client, Local: p.dialer.Local, Identity: id, Log: b.log, Start: ctx})
	}
	o := coord.EtcdOptions{
		Dir: filepath.Join(b.dirs[0], "coord"), FS: vfs.OS, Log: b.log, Identity: id, Local: p.dialer.Local, Start: ctx, Known: known,
	}
	for _, m := range p.Members {
		o.Cluster = append(o.Cluster, coord.Peer{Node: m.ID, Addr: m.Addr})
	}
	if p.mux != nil {
		o.HTTP, o.GRPC = p.mux.HTTP(), p.mux.GRPC()
	}
	if p.TLS.On() {
		o.TLS = &coord.TLS{Certificate: p.TLS.Certificate, Key: p.TLS.Key, CA: p.TLS.CA, Client: p.client}
	}
	s, err := coord.OpenEtcd(o)
	if err != nil {
		return nil, err // not s: a nil *Etcd in a Store is not a nil Store
	}
	return s, nil
}

// quorum is the store's members where they are brokers, nil elsewhere.
func (b *Broker) quorum() coord.Quorum {
	q, _ := b.store.(coord.Quorum)
	return q
}

// newMember is this broker's membership in the cluster.
func (b *Broker) newMember() *member.Member {
	o := member.Options{
		NodeID: b.nodeID, Leads: b.ctl.Leads, Proven: b.ctl.Proven, Image: b.ctl.Image, Registration: b.registration,
		Local:  func(ctx context.Context, req kmsg.Request) kmsg.Response { return b.ctl.Handle(ctx, 0, req) },
		Static: b.o.Static, Log: b.log, Failed: b.fail,
		LostDirs: b.set.LostDirs, FullDirs: b.set.FullDirs,
	}
	if b.peers.addr != "" {
		o.Pool, o.Dialer, o.Seeds = b.peers.pool, b.peers.dialer, b.seeds
	}
	for _, d := range b.open {
		c, err := member.NewCanary(vfs.OS, d.Path())
		if err != nil {
			b.log.Warn("no canary in the data directory", "dir", d.Path(), "err", err)
			continue
		}
		o.Canaries = append(o.Canaries, c)
	}
	return member.New(o)
}

// registration is this broker's word about itself.
func (b *Broker) registration() control.Registration {
	r := control.Registration{
		ID: b.nodeID, Incarnation: b.peers.incarnation, ClusterID: b.clusterID, Endpoints: b.ends,
		Rack: config.BrokerRack.Static(b.o.Static), PreviousEpoch: -1,
	}
	lost := b.set.LostDirs()
	r.Intact = len(lost) == 0 && len(b.open) == len(b.dirs)
	for _, d := range b.open {
		r.Intact = r.Intact && len(d.Quarantined()) == 0
		if slices.Contains(lost, d.ID()) {
			continue
		}
		r.Dirs = append(r.Dirs, d.ID())
		// One directory without the mark, a new one too, and the end was not clean for all of them.
		e, ok := d.CleanEpoch()
		switch {
		case !ok:
			e = -1
		case len(r.Dirs) == 1:
			r.PreviousEpoch = e
		}
		if r.PreviousEpoch != e {
			r.PreviousEpoch = -1
		}
	}
	return r
}

// seeds is where the controller may be: the members of the quorum, those of today and those that were given; with a
// store elsewhere every broker.
func (b *Broker) seeds() []string {
	out := slices.Clone(b.peers.Join)
	for _, m := range b.peers.Members {
		out = append(out, m.Addr)
	}
	if q, ok := b.store.(interface{ Endpoints() []string }); ok && b.peers.Engine == "" {
		out = append(out, q.Endpoints()...)
	}
	for _, x := range b.ctl.Image().Brokers() {
		if e, ok := x.Endpoint(config.PeerListenerName); ok && b.peers.Engine != "" {
			out = append(out, e.Address())
		}
	}
	return out
}

// endpoint is the peer address as a registration carries it.
func (p *peering) endpoint() (meta.Endpoint, bool) {
	host, port, err := net.SplitHostPort(p.addr)
	if err != nil {
		return meta.Endpoint{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return meta.Endpoint{}, false
	}
	protocol := config.Plaintext
	if p.TLS.On() {
		protocol = "SSL"
	}
	return meta.Endpoint{Listener: config.PeerListenerName, Host: host, Port: int32(n), Protocol: protocol}, true
}
