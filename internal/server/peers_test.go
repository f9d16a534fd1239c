package server

import (
	"context"
	"net"
	"testing"
	"time"
)

// TestPeersHaveTheirOwnLimits: clients that take every connection and all memory keep no other broker out, and a broker's
// connection is not closed for being quiet.
func TestPeersHaveTheirOwnLimits(t *testing.T) {
	r := start(t, Options{Listeners: []ListenerOptions{{Name: "PEER", Peer: true, MaxFrame: 1 << 20}}, MemoryBudget: 1 << 20,
		MaxPerIP: 1, MaxConnections: 1, MaxRate: 1, MaxIdle: time.Millisecond, Sweep: time.Millisecond})
	if err := r.s.budget.acquire(context.Background(), 1<<20); err != nil {
		t.Fatal(err)
	}
	defer r.s.budget.release(1 << 20)
	conns := []net.Conn{r.dial(), r.dial(), r.dial()}
	for range 3 {
		for i, c := range conns {
			send(t, c, frame(kWait, int32(i), make([]byte, 1000)))
			<-r.h.served
		}
		for i, c := range conns {
			close(r.h.gate(int32(i)))
			recv(t, c)
		}
		r.h.mu.Lock()
		clear(r.h.gates)
		r.h.mu.Unlock()
	}
	if n := r.s.m.idle.Value(); n != 0 {
		t.Errorf("%d connections closed as idle", n)
	}
}

// TestBrokerThatIsGoneIsToldAtOnce: an answer that is still owed does not delay the news.
func TestBrokerThatIsGoneIsToldAtOnce(t *testing.T) {
	r := start(t, Options{Listeners: []ListenerOptions{{Name: "PEER", Peer: true}}, Grace: time.Hour})
	c := r.dial()
	send(t, c, frame(kWait, 1, nil))
	<-r.h.served
	_ = c.Close()
	eventually(t, "told", func() bool { return r.h.closed.Load() == 1 })
}

// TestAside: a request that is served aside holds nobody up, and one that panics there ends its own connection.
func TestAside(t *testing.T) {
	r := start(t, Options{})
	c, other := r.dial(), r.dial()
	send(t, c, frame(kAside, 1, []byte("slow")), frame(kEcho, 2, []byte("quick")))
	<-r.h.served
	<-r.h.served // the reader came to the second one
	close(r.h.gate(1))
	want(t, c, 1, "slow")
	want(t, c, 2, "quick")
	send(t, c, frame(kAsideP, 3, nil))
	close(r.h.gate(3))
	wantClosed(t, c)
	send(t, other, frame(kEcho, 4, []byte("fine")))
	want(t, other, 4, "fine")
	if n := r.s.m.panics.Value(); n != 1 {
		t.Errorf("%d panics counted", n)
	}
	left := r.dial()
	send(t, left, frame(kAside, 5, nil))
	<-r.h.served
	_ = left.Close() // its goroutine ends with it: Shutdown waits for that
	eventually(t, "forgotten", func() bool { return r.s.Connections() == 2 || r.s.Connections() == 1 })
}
