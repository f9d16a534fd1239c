package server

import (
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"testing"
)

// BenchmarkEcho is one small request at a time on one connection.
func BenchmarkEcho(b *testing.B) {
	r := start(b, Options{})
	c := r.dial()
	f := frame(kEcho, 1, make([]byte, 56))
	buf := make([]byte, 64)
	go drainServed(r)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(f); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

func drainServed(r *rig) {
	for {
		select {
		case <-r.h.served:
		case <-r.s.stopping:
			return
		}
	}
}

// BenchmarkEchoPipelined keeps eight small requests in flight on one connection.
func BenchmarkEchoPipelined(b *testing.B) {
	r := start(b, Options{})
	c := r.dial()
	go drainServed(r)
	var eight []byte
	for i := range int32(8) {
		eight = append(eight, frame(kEcho, i, make([]byte, 56))...)
	}
	buf := make([]byte, 64*8)
	b.ReportAllocs()
	for i := 0; i < b.N; i += 8 {
		if _, err := c.Write(eight); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReceive is a megabyte in, a few bytes out: the way of a produce request.
func BenchmarkReceive(b *testing.B) {
	r := start(b, Options{})
	r.h.size = 0
	r.h.file, _ = testFile(b, 0)
	c := r.dial()
	go drainServed(r)
	f := frame(kSilent, 1, make([]byte, 1<<20))
	last := frame(kEcho, 2, nil)
	buf := make([]byte, 8)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(f); err != nil {
			b.Fatal(err)
		}
	}
	send(b, c, last)
	if _, err := io.ReadFull(c, buf); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkOutFile is the way of a fetch: a header, a megabyte of a file, a trailing byte.
func BenchmarkOutFile(b *testing.B) {
	for _, n := range []int{16 << 10, 64 << 10, 1 << 20} {
		b.Run(strconv.Itoa(n>>10)+"KiB", func(b *testing.B) {
			r := start(b, Options{})
			r.h.file, _ = testFile(b, n)
			r.h.size = int64(n)
			c := r.dial()
			go drainServed(r)
			f := frame(kFile, 1, nil)
			buf := make([]byte, 256<<10)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(f); err != nil {
					b.Fatal(err)
				}
				for left := n + 8 + 2; left > 0; {
					m, err := c.Read(buf[:min(left, len(buf))])
					if err != nil {
						b.Fatal(err)
					}
					left -= m
				}
			}
		})
	}
}

// idleBytes opens n connections, has each ask one thing, and returns what each then takes in this process
// on the broker's side. The client's side is plain descriptors in another form: raw sockets would be
// needed to leave it out, so half of the figure may be the test's own.
func idleBytes(t testing.TB, n int) int64 {
	r := start(t, Options{})
	go drainServed(r)
	measure := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	before := measure()
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c
		send(t, c, frame(kEcho, int32(i), []byte("hello")))
		recv(t, c)
	}
	after := measure()
	if got := r.s.Connections(); got != n {
		t.Fatalf("%d connections", got)
	}
	for _, c := range conns {
		_ = c.Close()
	}
	eventually(t, "all gone", func() bool { return r.s.Connections() == 0 })
	return (after - before) / int64(n)
}

// TestIdleConnectionIsSmall: issue 3 asks for less than 40 KiB each with 5,000 of them. The ordinary run
// opens 500; MILENA_SOAK opens 5,000.
func TestIdleConnectionIsSmall(t *testing.T) {
	n := 500
	if os.Getenv("MILENA_SOAK") != "" {
		n = 5000
	}
	per := idleBytes(t, n)
	t.Logf("%d idle connections: %d bytes each, both ends", n, per)
	if per > 40<<10 {
		t.Errorf("an idle connection takes %d bytes, at most %d", per, 40<<10)
	}
}

func BenchmarkIdleConnections5000(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(float64(idleBytes(b, 5000)), "B/conn")
	}
}
