package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// PeerListenerName names the endpoint of a broker's registration at which other brokers reach it. No
// listener for clients may have this name.
const PeerListenerName = "PEER"

// ClusterMember is one entry of cluster.
type ClusterMember struct {
	ID   int32
	Addr string // host:port
}

// Peering is how this broker is one of several.
type Peering struct {
	Members    []ClusterMember // of cluster; nil: none is given
	Join       []string        // host:port each; nil: none is given
	Listen     string          // host:port to bind; "": other brokers cannot reach this one
	Advertised string          // host:port that others are told; "": the bound one
	Engine     string          // "", "etcd" or "zookeeper"
	Servers    []string        // of an external engine, host:port each
	Path       string          // of an external engine: the path after the servers, "" for none
	TLS        PeerTLS         // zero: in the clear, which only loopback may be
}

// PeerTLS is three PEM files.
type PeerTLS struct{ Certificate, Key, CA string }

// On says that TLS is configured.
func (t PeerTLS) On() bool { return t.Certificate != "" }

// ParsePeering reads cluster, join, coordinator and peer.*, and refuses what does not fit together; the
// error is one line. node is this broker's id.
func ParsePeering(l Layers, node int32) (Peering, error) {
	var p Peering
	var err error
	if p.Members, err = parseMembers(Cluster.Of(l)); err != nil {
		return Peering{}, fmt.Errorf("%s: %w", Cluster.Name, err)
	}
	for _, a := range Join.Of(l) {
		if err := checkAddr(a, false); err != nil {
			return Peering{}, fmt.Errorf("%s = %q: %w", Join.Name, a, err)
		}
		p.Join = append(p.Join, a)
	}
	if p.Engine, p.Servers, p.Path, err = parseCoordinator(Coordinator.Of(l)); err != nil {
		return Peering{}, fmt.Errorf("%s = %q: %w", Coordinator.Name, Coordinator.Of(l), err)
	}
	switch {
	case p.Members != nil && p.Join != nil:
		return Peering{}, fmt.Errorf("%s and %s exclude each other: the first brokers are named by %s, later ones join", Cluster.Name, Join.Name, Cluster.Name)
	case p.Engine != "" && (p.Members != nil || p.Join != nil):
		return Peering{}, fmt.Errorf("%s and %s exclude each other: with a coordinator of its own the cluster needs no list of brokers", Coordinator.Name, Cluster.Name+" or "+Join.Name)
	}
	p.Listen, p.Advertised = PeerListener.Of(l), PeerAdvertised.Of(l)
	if p.Members != nil {
		own := ""
		for _, m := range p.Members {
			if m.ID == node {
				own = m.Addr
			}
		}
		if own == "" {
			return Peering{}, fmt.Errorf("%s does not name node.id %d; a broker that comes later is started with %s", Cluster.Name, node, Join.Name)
		}
		if p.Listen == "" {
			p.Listen = own
		}
		if p.Advertised == "" {
			p.Advertised = own
		}
	}
	if p.Listen == "" && (p.Join != nil || p.Engine != "") {
		return Peering{}, fmt.Errorf("%s is not set: the other brokers have to reach this one", PeerListener.Name)
	}
	p.TLS = PeerTLS{PeerTLSCertificate.Of(l), PeerTLSKey.Of(l), PeerTLSCA.Of(l)}
	return p, p.check()
}

func (p *Peering) check() error {
	if p.Listen == "" {
		if p.Advertised != "" {
			return fmt.Errorf("%s is set, but %s is not", PeerAdvertised.Name, PeerListener.Name)
		}
		return nil
	}
	if err := checkAddr(p.Listen, true); err != nil {
		return fmt.Errorf("%s = %q: %w", PeerListener.Name, p.Listen, err)
	}
	if p.Advertised != "" {
		if err := checkAddr(p.Advertised, false); err != nil {
			return fmt.Errorf("%s = %q: %w", PeerAdvertised.Name, p.Advertised, err)
		}
	}
	host, _, _ := net.SplitHostPort(p.Listen)
	if p.Advertised == "" && (host == "" || unroutable(host)) {
		return fmt.Errorf("%s = %q: set %s: other brokers cannot connect to it", PeerListener.Name, p.Listen, PeerAdvertised.Name)
	}
	if n := len(p.TLS.parts()); n != 0 && n != 3 {
		return fmt.Errorf("%s, %s and %s belong together", PeerTLSCertificate.Name, PeerTLSKey.Name, PeerTLSCA.Name)
	}
	if !p.TLS.On() && !loopback(host) {
		return fmt.Errorf("%s = %q is not a loopback address: without %s anybody could take part in the cluster (milena cluster certs makes the files)", PeerListener.Name, p.Listen, PeerTLSCertificate.Name)
	}
	return nil
}

func (t PeerTLS) parts() []string {
	var out []string
	for _, s := range []string{t.Certificate, t.Key, t.CA} {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func parseMembers(texts []string) ([]ClusterMember, error) {
	var out []ClusterMember
	for _, text := range texts {
		id, addr, ok := strings.Cut(text, "@")
		n, err := strconv.ParseInt(id, 10, 32)
		if !ok || err != nil || n < 0 {
			return nil, fmt.Errorf("%q: want id@host:port", short(text))
		}
		if err := checkAddr(addr, false); err != nil {
			return nil, fmt.Errorf("%q: %w", short(text), err)
		}
		for _, m := range out {
			if m.ID == int32(n) || m.Addr == addr {
				return nil, fmt.Errorf("%q: %d@%s is there already", short(text), m.ID, m.Addr)
			}
		}
		out = append(out, ClusterMember{int32(n), addr})
	}
	if n := len(out); n != 0 && n != 1 && n != 3 && n != 5 {
		return nil, fmt.Errorf("%d brokers: a quorum has one, three or five; the others come with %s", n, Join.Name)
	}
	return out, nil
}

// checkAddr wants host:port. To listen, the host may be empty and the port 0.
func checkAddr(a string, listen bool) error {
	host, port, err := net.SplitHostPort(a)
	n, err2 := strconv.ParseUint(port, 10, 16)
	if err != nil || err2 != nil || !listen && (host == "" || n == 0) {
		return fmt.Errorf("want host:port")
	}
	return nil
}

func parseCoordinator(text string) (engine string, servers []string, path string, err error) {
	if text == "" {
		return "", nil, "", nil
	}
	engine, rest, ok := strings.Cut(text, "://")
	if !ok || engine != "etcd" && engine != "zookeeper" {
		return "", nil, "", fmt.Errorf("want etcd://host:port,... or zookeeper://host:port,.../path")
	}
	list, path, _ := strings.Cut(rest, "/")
	for _, s := range strings.Split(list, ",") {
		if err := checkAddr(s, false); err != nil {
			return "", nil, "", fmt.Errorf("server %q: %w", short(s), err)
		}
		servers = append(servers, s)
	}
	if path != "" {
		path = "/" + strings.Trim(path, "/")
	}
	return engine, servers, path, nil
}
