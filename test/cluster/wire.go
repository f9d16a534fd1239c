package main

import (
	"io"
	"net"
	"sync"
	"time"
)

// wire is every network cable of the cluster: a proxy before each address of each broker. Cutting stops bytes
// without closing anything, as a pulled cable does: what was sent waits and arrives when the cable is back,
// the end of a connection too.
type wire struct {
	mu        sync.Mutex
	rules     []rule
	changed   chan struct{} // closed and replaced at every change of rules
	listeners []net.Listener
	conns     map[net.Conn]bool
	closed    bool
}

// kind is what a connection carries.
type kind uint8

const (
	kindClient kind = 1 << iota // of clients
	kindPeer                    // between brokers: not known yet which of the two below
	kindKafka                   // Kafka's frames between brokers
	kindCoord                   // HTTP of the coordination store
)

// rule stops the bytes from one broker to another. from 0 is clients, -1 is anybody; to likewise.
type rule struct {
	from, to int32
	kinds    kind
}

func newWire() *wire { return &wire{changed: make(chan struct{}), conns: map[net.Conn]bool{}} }

// cut adds rules.
func (w *wire) cut(rules ...rule) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rules = append(w.rules, rules...)
	w.changedLocked()
}

// heal removes all rules.
func (w *wire) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rules = nil
	w.changedLocked()
}

func (w *wire) changedLocked() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// both is a cable between two brokers, cut in both directions.
func both(a, b int32, kinds kind) []rule { return []rule{{a, b, kinds}, {b, a, kinds}} }

const anyPeer = kindPeer | kindKafka | kindCoord

func (w *wire) blocked(from, to int32, k kind) (bool, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.rules {
		if (r.from == from || r.from == -1) && (r.to == to || r.to == -1) && r.kinds&k != 0 {
			return true, w.changed
		}
	}
	return w.closed, w.changed
}

// listen opens a proxy on host in front of target, an address of broker id, and returns its address.
func (w *wire) listen(id int32, host, target string, k kind) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	w.mu.Lock()
	w.listeners = append(w.listeners, l)
	w.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.serve(c.(*net.TCPConn), id, target, k)
		}
	}()
	return l.Addr().String(), nil
}

func (w *wire) track(c net.Conn, on bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if on && w.closed {
		return false
	}
	if on {
		w.conns[c] = true
	} else {
		delete(w.conns, c)
	}
	return true
}

// serve carries one connection. The first byte tells coordination from replication; nothing is dialled before it,
// because a connection that is cut must not reach the broker at all.
func (w *wire) serve(in *net.TCPConn, to int32, target string, k kind) {
	defer in.Close()
	if !w.track(in, true) {
		return
	}
	defer w.track(in, false)
	from := broker(in.RemoteAddr())
	first := make([]byte, 1)
	n := 0
	if k == kindPeer {
		var err error
		if n, err = in.Read(first); err != nil {
			return
		}
		k = kindCoord
		if first[0] <= 6 {
			k = kindKafka
		}
	}
	if !w.wait(from, to, k) {
		return
	}
	c, err := net.DialTimeout("tcp", target, 3*time.Second)
	if err != nil {
		in.SetLinger(0) // the caller sees a reset, as from a port where nobody listens
		return
	}
	out := c.(*net.TCPConn)
	defer out.Close()
	if !w.track(out, true) {
		return
	}
	defer w.track(out, false)
	if _, err := out.Write(first[:n]); err != nil {
		return
	}
	done := make(chan struct{})
	go func() { defer close(done); w.pump(in, out, from, to, k) }()
	w.pump(out, in, to, from, k)
	<-done
}

// wait returns when bytes may flow; false when everything ends.
func (w *wire) wait(from, to int32, k kind) bool {
	for {
		stop, changed := w.blocked(from, to, k)
		w.mu.Lock()
		closed := w.closed
		w.mu.Unlock()
		if closed {
			return false
		}
		if !stop {
			return true
		}
		<-changed
	}
}

// pump copies one direction. What was read before a cut waits here, and so does the end of the connection.
func (w *wire) pump(src, dst *net.TCPConn, from, to int32, k kind) {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if !w.wait(from, to, k) {
			return
		}
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				src.Close() // the other pump ends too
				return
			}
		}
		if err != nil {
			if err != io.EOF {
				dst.SetLinger(0)
				dst.Close()
				return
			}
			dst.CloseWrite()
			return
		}
	}
}

func (w *wire) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, l := range w.listeners {
		l.Close()
	}
	for c := range w.conns {
		c.Close()
	}
	w.changedLocked()
}
