package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Listener is one address the broker accepts connections at, or one that it tells clients.
type Listener struct {
	Name     string // in capitals
	Host     string // empty: every interface (or, told to clients: the name of this host)
	Port     int32  // 0 to 65535; 0 takes any free port
	Protocol string // PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL
}

// Address is host:port for net.Listen and net.Dial.
func (l Listener) Address() string { return net.JoinHostPort(l.Host, strconv.Itoa(int(l.Port))) }

func (l Listener) String() string { return l.Name + "://" + l.Address() }

// Plaintext is the only security protocol that is served today.
const Plaintext = "PLAINTEXT"

// ParseListeners reads listeners with their protocols. Listeners of Kafka's controllers
// (controller.listener.names) are left out. A protocol other than PLAINTEXT is an error: a listener that
// should be encrypted must not be opened in the clear.
func ParseListeners(l Layers) ([]Listener, error) {
	protocols, err := protocolMap(ListenerSecurityProtocolMap.Of(l))
	if err != nil {
		return nil, err
	}
	skip := ControllerListenerNames.Of(l)
	var out []Listener
	for _, text := range Listeners.Of(l) {
		x, err := parseListener(text)
		if err != nil {
			return nil, fmt.Errorf("%s = %q: %w", Listeners.Name, text, err)
		}
		if hasFold(skip, x.Name) {
			continue
		}
		if x.Name == PeerListenerName {
			return nil, fmt.Errorf("%s = %q: the name %s is taken by %s", Listeners.Name, text, x.Name, PeerListener.Name)
		}
		if x.Protocol = protocols[x.Name]; x.Protocol == "" {
			return nil, fmt.Errorf("%s = %q: %s has no protocol for listener %s", Listeners.Name, text, ListenerSecurityProtocolMap.Name, x.Name)
		}
		if x.Protocol != Plaintext {
			return nil, fmt.Errorf("%s = %q: listener %s needs %s, but %s", Listeners.Name, text, x.Name, x.Protocol, whyPlain)
		}
		for _, y := range out {
			if y.Name == x.Name {
				return nil, fmt.Errorf("%s: listener %s is named twice", Listeners.Name, x.Name)
			}
			if y.Port == x.Port && x.Port != 0 && (y.Host == x.Host || y.Host == "" || x.Host == "") {
				return nil, fmt.Errorf("%s: listeners %s and %s have the same port %d", Listeners.Name, y.Name, x.Name, x.Port)
			}
		}
		out = append(out, x)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no listener for clients is named", Listeners.Name)
	}
	if name := InterBrokerListenerName.Of(l); name != "" {
		for _, x := range out {
			if strings.EqualFold(x.Name, name) {
				return out, nil
			}
		}
		return nil, fmt.Errorf("%s = %q: %s has no such listener", InterBrokerListenerName.Name, name, Listeners.Name)
	}
	return out, nil
}

// ParseAdvertised reads what clients are told for each of the given listeners: advertised.listeners, or
// the listener itself. 0.0.0.0 and :: are refused as in Kafka: no client can connect to them.
func ParseAdvertised(l Layers, listeners []Listener) ([]Listener, error) {
	texts, ok := AdvertisedListeners.Lookup(l)
	if !ok {
		for _, x := range listeners {
			if unroutable(x.Host) {
				return nil, fmt.Errorf("%s: set %s: clients cannot connect to %s", Listeners.Name, AdvertisedListeners.Name, x.Host)
			}
		}
		return append([]Listener(nil), listeners...), nil
	}
	skip := ControllerListenerNames.Of(l)
	var out []Listener
	for _, text := range texts {
		x, err := parseListener(text)
		if err != nil {
			return nil, fmt.Errorf("%s = %q: %w", AdvertisedListeners.Name, text, err)
		}
		if hasFold(skip, x.Name) {
			continue
		}
		if unroutable(x.Host) {
			return nil, fmt.Errorf("%s = %q: clients cannot connect to %s", AdvertisedListeners.Name, text, x.Host)
		}
		for _, y := range listeners {
			if y.Name == x.Name {
				x.Protocol = y.Protocol
			}
		}
		if x.Protocol == "" {
			return nil, fmt.Errorf("%s = %q: %s has no listener %s", AdvertisedListeners.Name, text, Listeners.Name, x.Name)
		}
		out = append(out, x)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no listener for clients is named", AdvertisedListeners.Name)
	}
	return out, nil
}

func unroutable(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsUnspecified()
}

func parseListener(text string) (Listener, error) {
	name, rest, ok := strings.Cut(text, "://")
	if !ok {
		return Listener{}, fmt.Errorf("want NAME://host:port")
	}
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") != "" {
		return Listener{}, fmt.Errorf("listener name %q: want letters, digits and any of _ . -", name)
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		return Listener{}, fmt.Errorf("want NAME://host:port")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return Listener{}, fmt.Errorf("port %q: want a number from 0 to 65535", port)
	}
	return Listener{Name: strings.ToUpper(name), Host: host, Port: int32(n)}, nil
}

func protocolMap(text string) (map[string]string, error) {
	m := map[string]string{}
	for _, pair := range split(text) {
		name, protocol, ok := strings.Cut(pair, ":")
		name, protocol = strings.ToUpper(strings.TrimSpace(name)), strings.ToUpper(strings.TrimSpace(protocol))
		if !ok || name == "" || !has([]string{Plaintext, "SSL", "SASL_PLAINTEXT", "SASL_SSL"}, protocol) {
			return nil, fmt.Errorf("%s = %q: want NAME:PROTOCOL with PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL", ListenerSecurityProtocolMap.Name, short(pair))
		}
		m[name] = protocol
	}
	return m, nil
}

func hasFold(list []string, v string) bool {
	for _, x := range list {
		if strings.EqualFold(x, v) {
			return true
		}
	}
	return false
}
