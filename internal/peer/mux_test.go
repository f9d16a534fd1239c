package peer

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

func port(t testing.TB, wrap func(net.Listener) net.Listener, limits ...any) *Muxer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if wrap != nil {
		l = wrap(l)
	}
	open, n := openTime, maxOpening
	for _, x := range limits {
		switch x := x.(type) {
		case time.Duration:
			open = x
		case int:
			n = x
		}
	}
	m := mux(l, open, n)
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func dial(t testing.TB, m *Muxer, first string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", m.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := c.Write([]byte(first)); err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// take accepts one connection and reads n bytes of it.
func take(t testing.TB, l net.Listener, n int) (net.Conn, string) {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return c, string(b)
}

func gone(t testing.TB, c net.Conn, what string) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, errTimeout(err)) {
		t.Errorf("%s: %d bytes, %v; want a closed connection", what, n, err)
	}
}

// errTimeout is err when it is a timeout, and an error that nothing is otherwise.
func errTimeout(err error) error {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return err
	}
	return io.ErrNoProgress
}

func TestEachProtocolFindsItsListener(t *testing.T) {
	m := port(t, nil)
	for _, c := range []struct {
		first string
		l     net.Listener
	}{
		{"\x00\x00\x00\x10", m.Kafka()},
		{"\x06\xff\xff\xff", m.Kafka()},
		{"GET /raft/stream", m.HTTP()},
		{"POST /raft HTTP/1.1", m.HTTP()},
		{"PUT /x HTTP/1.1", m.HTTP()},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", m.GRPC()},
	} {
		cl := dial(t, m, c.first)
		got, text := take(t, c.l, len(c.first))
		if text != c.first {
			t.Errorf("%q arrived as %q", c.first, text)
		}
		if _, ok := got.(*net.TCPConn); !ok {
			t.Errorf("%q arrived as %T: files are sent to TCP connections only", c.first, got)
		}
		if _, err := got.Write([]byte("ok")); err != nil {
			t.Error(err)
		}
		b := make([]byte, 2)
		if _, err := io.ReadFull(cl, b); err != nil || string(b) != "ok" {
			t.Errorf("answer %q, %v", b, err)
		}
	}
}

// The second letter may come late: POST and PRI begin alike.
func TestLettersThatComeOneByOne(t *testing.T) {
	m := port(t, nil)
	c := dial(t, m, "P")
	d := dial(t, m, "P")
	for _, x := range []net.Conn{c, d} {
		// Nothing may be handed over yet; that something was would show below as a wrong listener.
		if _, err := x.Write([]byte(map[net.Conn]string{c: "R", d: "O"}[x])); err != nil {
			t.Fatal(err)
		}
	}
	if _, text := take(t, m.GRPC(), 2); text != "PR" {
		t.Errorf("gRPC got %q", text)
	}
	if _, text := take(t, m.HTTP(), 2); text != "PO" {
		t.Errorf("HTTP got %q", text)
	}
}

func TestWhatNobodySpeaksIsClosed(t *testing.T) {
	m := port(t, nil)
	for _, first := range []string{"\x16\x03\x01\x02", "\xff", "get /", "\x07\x00\x00\x00", "\n", "~"} {
		gone(t, dial(t, m, first), fmt.Sprintf("%q", first))
	}
}

func TestWhoSaysNothingIsClosed(t *testing.T) {
	m := port(t, nil, 50*time.Millisecond)
	gone(t, dial(t, m, ""), "silence")
	gone(t, dial(t, m, "P"), "half a word")
	gone(t, dial(t, m, "\x00\x00"), "a protocol that nobody accepts here")
	c := dial(t, m, "P")
	_ = c.(*net.TCPConn).CloseWrite()
	gone(t, c, "half a word and an end")
}

// A flood of silent connections pushes out itself, and not those that speak.
func TestSilentFloodKeepsNobodyOut(t *testing.T) {
	m := port(t, nil, time.Hour, 4)
	var silent []net.Conn
	for range 20 {
		silent = append(silent, dial(t, m, ""))
	}
	dial(t, m, "\x00\x00\x00\x01")
	if _, text := take(t, m.Kafka(), 4); text != "\x00\x00\x00\x01" {
		t.Errorf("got %q", text)
	}
	for i, c := range silent[:15] {
		gone(t, c, fmt.Sprint("silent connection ", i))
	}
	m.mu.Lock()
	n := m.mu.opening.Len()
	m.mu.Unlock()
	if n > 4 {
		t.Errorf("%d connections wait to speak, at most 4", n)
	}
}

func TestCloseEndsListenersAndOpeners(t *testing.T) {
	m := port(t, nil)
	c := dial(t, m, "")
	d := dial(t, m, "GET /")
	errs := make(chan error, 1)
	go func() { _, err := m.Kafka().Accept(); errs <- err }()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := <-errs; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	if _, err := m.HTTP().Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	gone(t, c, "silent")
	gone(t, d, "not accepted")
	if _, err := net.Dial("tcp", m.Addr().String()); err == nil {
		t.Error("the port is open")
	}
}

func TestOneProtocolEndsAlone(t *testing.T) {
	m := port(t, nil)
	if err := errors.Join(m.GRPC().Close(), m.GRPC().Close()); err != nil {
		t.Error(err)
	}
	gone(t, dial(t, m, "PRI *"), "a protocol that has ended")
	dial(t, m, "\x00\x00\x00\x01")
	take(t, m.Kafka(), 4)
}

// The first bytes may be anything; what is handed over has lost none of them.
func FuzzFirstBytes(f *testing.F) {
	for _, s := range []string{"", "P", "PR", "PO", "\x00", "GET", "\x16\x03", "Z"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, first []byte) {
		if len(first) > 1<<12 {
			return
		}
		a, b := net.Pipe()
		go func() {
			_, _ = a.Write(first)
			_ = a.Close()
		}()
		m := &Muxer{ctx: t.Context()}
		m.kafka, m.http, m.grpc = newBranch(m), newBranch(m), newBranch(m)
		br, c, err := m.sniff(b, time.Now().Add(10*time.Second))
		defer c.Close()
		if err != nil || br == nil {
			return
		}
		want := m.http
		switch {
		case first[0] <= 6:
			want = m.kafka
		case bytes.HasPrefix(first, []byte("PR")):
			want = m.grpc
		}
		got, err := io.ReadAll(c)
		if br != want || err != nil || !bytes.Equal(got, first) {
			t.Errorf("%q: branch %v, read %q, %v", first, br == want, got, err)
		}
	})
}

func TestTLSPort(t *testing.T) {
	d := newPKI(t)
	server, client, err := TLS(d.cert, d.key, d.ca)
	if err != nil {
		t.Fatal(err)
	}
	m := port(t, func(l net.Listener) net.Listener { return tls.NewListener(l, server) })
	client.ServerName = "127.0.0.1"
	for _, first := range []string{"\x00\x00\x00\x10", "PRI * HTTP/2.0", "POST /raft"} {
		c, err := tls.Dial("tcp", m.Addr().String(), client)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(first)); err != nil {
			t.Fatal(err)
		}
		l := map[byte]net.Listener{0: m.Kafka(), 'R': m.GRPC(), 'O': m.HTTP()}[first[1]]
		if _, text := take(t, l, len(first)); text != first {
			t.Errorf("%q arrived as %q", first, text)
		}
	}
	// In the clear, or without a certificate, nothing gets in.
	gone(t, dial(t, m, "\x00\x00\x00\x10\x00\x12\x00\x00"), "no TLS")
	bare := &tls.Config{RootCAs: client.RootCAs, ServerName: "127.0.0.1"}
	c, err := tls.Dial("tcp", m.Addr().String(), bare)
	if err == nil { // TLS 1.3 tells the client with its first read
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = c.Write([]byte("\x00\x00\x00\x10"))
		gone(t, c, "no certificate")
	}
	foreign := newPKI(t)
	_, theirs, err := TLS(foreign.cert, foreign.key, d.ca)
	if err != nil {
		t.Fatal(err)
	}
	theirs.ServerName = "127.0.0.1"
	if c, err = tls.Dial("tcp", m.Addr().String(), theirs); err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = c.Write([]byte("\x00\x00\x00\x10"))
		gone(t, c, "a certificate of somebody else")
	}
	old := client.Clone()
	old.MaxVersion, old.MinVersion = tls.VersionTLS12, tls.VersionTLS12
	if c, err := tls.Dial("tcp", m.Addr().String(), old); err == nil {
		c.Close()
		t.Error("TLS 1.2 is spoken")
	}
	client.ServerName = "127.0.0.2"
	if c, err := tls.Dial("tcp", m.Addr().String(), client); err == nil {
		c.Close()
		t.Error("the certificate of another host is taken")
	}
}
