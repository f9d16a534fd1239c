package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/metric"
)

// Keys that the test handler understands.
const (
	kEcho     = iota // answers its own body
	kWait            // answers its body once released
	kSilent          // no answer
	kPanic           // panics in Serve
	kPanicEnc        // panics in Encode
	kHangUp
	kRaw    // body by reference
	kFile   // the whole test file
	kSerial // as kWait, Serial
	kErr    // Encode fails after writing something
	kShort  // promises more of the file than there is
	kMute   // answers, then is muted for 50 ms
	kAside  // answered by a goroutine of the connection once released
	kAsideP // whose goroutine panics
)

// toy is a Handler whose answers the test controls.
type toy struct {
	mu       sync.Mutex
	gates    map[int32]chan struct{}
	served   chan int32 // correlation ids, as Serve is called
	closed   atomic.Int32
	finished atomic.Int32
	dropped  atomic.Int32
	released atomic.Int32
	file     File
	size     int64
}

func newToy() *toy { return &toy{gates: map[int32]chan struct{}{}, served: make(chan int32, 4096)} }

// gate is the channel that releases the request of that id.
func (h *toy) gate(id int32) chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.gates[id]
	if g == nil {
		g = make(chan struct{})
		h.gates[id] = g
	}
	return g
}

func (h *toy) Finish(_ int64, err error) {
	h.finished.Add(1)
	if err != nil {
		h.dropped.Add(1)
	}
}

func (h *toy) Closed(*Conn) { h.closed.Add(1) }

func (h *toy) Serve(c *Conn, f *Frame) Reply {
	b := f.Bytes()
	key, id := int(binary.BigEndian.Uint16(b)), int32(binary.BigEndian.Uint32(b[4:]))
	if key == kSilent {
		h.served <- id
		return Reply{Kind: None, Finish: h}
	}
	body := bytes.Clone(b[8:])
	echo := func(o *Out) error { o.Bytes(body); return nil }
	r := Reply{Correlation: id, Encode: echo, Finish: h}
	switch key {
	case kWait:
		r.Ready = h.gate(id)
	case kSerial:
		r.Ready, r.Serial = h.gate(id), true
	case kPanic:
		panic("toy")
	case kPanicEnc:
		r.Encode = func(*Out) error { panic("toy encode") }
	case kHangUp:
		r.Kind, r.Err = HangUp, errors.New("toy")
	case kRaw:
		r.Encode = func(o *Out) error {
			o.Bytes([]byte("<"))
			o.Raw(body, func() { h.released.Add(1) })
			o.Bytes([]byte(">"))
			return nil
		}
	case kFile, kShort:
		n := h.size
		if key == kShort {
			n += 10
		}
		r.Encode = func(o *Out) error {
			o.Bytes([]byte("<"))
			o.File(h.file, 0, n, func() { h.released.Add(1) })
			o.Bytes([]byte(">"))
			return nil
		}
	case kErr:
		r.Encode = func(o *Out) error {
			o.Bytes([]byte("half an answer"))
			o.Raw(make([]byte, 4096), func() { h.released.Add(1) })
			return errors.New("toy")
		}
	case kMute:
		r.Mute = 50
	case kAside, kAsideP:
		done := make(chan struct{})
		gate := h.gate(id)
		r.Ready = done
		if key == kAsideP {
			r.Encode = func(*Out) error { return errPanic }
		}
		c.Go(key == kAsideP, func(ctx context.Context) {
			defer close(done)
			select {
			case <-gate:
			case <-ctx.Done():
			}
			if key == kAsideP {
				panic("toy aside")
			}
		})
	}
	h.served <- id
	return r
}

type rig struct {
	t    testing.TB
	h    *toy
	s    *Server
	addr string
	m    *metric.Catalog
}

func start(t testing.TB, o Options) *rig {
	t.Helper()
	l, err := Listen(context.Background(), "127.0.0.1:0", "cubic")
	if err != nil {
		t.Fatal(err)
	}
	h := newToy()
	o.Handler = h
	o.Metrics = metric.New()
	if len(o.Listeners) == 0 {
		o.Listeners = []ListenerOptions{{Name: "PLAINTEXT"}}
	}
	o.Listeners[0].Listener = l
	if o.Grace == 0 {
		o.Grace = 200 * time.Millisecond
	}
	s := New(o)
	s.Start()
	r := &rig{t: t, h: h, s: s, addr: l.Addr().String(), m: o.Metrics}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if n := s.budget.used.Load(); n != 0 {
			t.Errorf("%d bytes of the memory budget were not given back", n)
		}
	})
	return r
}

func (r *rig) dial() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

func frame(key int, id int32, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(id))
	return append(b, body...)
}

func send(t testing.TB, c net.Conn, frames ...[]byte) {
	t.Helper()
	if _, err := c.Write(bytes.Join(frames, nil)); err != nil {
		t.Fatal(err)
	}
}

// recv reads one answer.
func recv(t testing.TB, c net.Conn) (int32, []byte) {
	t.Helper()
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		t.Fatalf("read answer: %v", err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:])-4)
	if _, err := io.ReadFull(c, body); err != nil {
		t.Fatalf("read body: %v", err)
	}
	return int32(binary.BigEndian.Uint32(head[4:])), body
}

func want(t testing.TB, c net.Conn, id int32, body string) {
	t.Helper()
	gotID, got := recv(t, c)
	if gotID != id || string(got) != body {
		t.Fatalf("answer %d %.60q, want %d %.60q", gotID, got, id, body)
	}
}

// wantClosed demands that the server closes the connection without another byte, within 2 s.
func wantClosed(t testing.TB, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	n, err := c.Read(make([]byte, 64))
	var ne net.Error
	if n != 0 || err == nil || errors.As(err, &ne) && ne.Timeout() {
		t.Fatalf("connection gave %d bytes, %v; want it closed", n, err)
	}
}

// eventually polls a condition of another goroutine.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(5 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

func TestEchoAndPipelining(t *testing.T) {
	r := start(t, Options{})
	c := r.dial()
	send(t, c, frame(kEcho, 1, []byte("one")))
	want(t, c, 1, "one")
	var all [][]byte
	for i := range int32(300) {
		all = append(all, frame(kEcho, i, []byte(strings.Repeat("x", int(i)*7))))
	}
	send(t, c, all...)
	for i := range int32(300) {
		want(t, c, i, strings.Repeat("x", int(i)*7))
	}
	if n := r.h.finished.Load(); n != 301 {
		t.Fatalf("%d requests finished", n)
	}
}

// TestAnswersLeaveInOrder: what is ready waits behind what is not.
func TestAnswersLeaveInOrder(t *testing.T) {
	r := start(t, Options{})
	c := r.dial()
	send(t, c, frame(kWait, 1, []byte("poll")), frame(kEcho, 2, []byte("b")), frame(kWait, 3, []byte("c")), frame(kSilent, 4, nil), frame(kEcho, 5, []byte("e")))
	for range 5 {
		<-r.h.served // all were looked at while the first still waits
	}
	close(r.h.gate(3))
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatal("an answer overtook the long poll")
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	close(r.h.gate(1))
	want(t, c, 1, "poll")
	want(t, c, 2, "b")
	want(t, c, 3, "c")
	want(t, c, 5, "e")
}

func TestSerialHoldsTheNextRequest(t *testing.T) {
	r := start(t, Options{})
	c := r.dial()
	send(t, c, frame(kSerial, 1, []byte("a")), frame(kEcho, 2, []byte("b")))
	<-r.h.served
	select {
	case id := <-r.h.served:
		t.Fatalf("request %d was served before the serial one was answered", id)
	case <-time.After(30 * time.Millisecond):
	}
	close(r.h.gate(1))
	want(t, c, 1, "a")
	want(t, c, 2, "b")
}

// TestQueueIsBounded: a client that does not wait for answers is read no further than the bound.
func TestQueueIsBounded(t *testing.T) {
	r := start(t, Options{MaxPipeline: 4})
	c := r.dial()
	for i := range int32(20) {
		send(t, c, frame(kWait, i, nil))
	}
	// One is with the writer, four are queued, one stands before the queue.
	for range 6 {
		<-r.h.served
	}
	select {
	case id := <-r.h.served:
		t.Fatalf("request %d was served although the queue is full", id)
	case <-time.After(30 * time.Millisecond):
	}
	for i := range int32(20) {
		close(r.h.gate(i))
		want(t, c, i, "")
	}
}

func TestMuteAfterTheAnswer(t *testing.T) {
	r := start(t, Options{})
	c := r.dial()
	begin := time.Now()
	send(t, c, frame(kMute, 1, []byte("x")), frame(kEcho, 2, nil))
	want(t, c, 1, "x")
	answered := time.Since(begin)
	want(t, c, 2, "")
	if all := time.Since(begin); all < 50*time.Millisecond || answered > all {
		t.Fatalf("answered after %v, next after %v", answered, all)
	}
}

// TestBadInput: every malformed frame closes its own connection at once, and no other.
func TestBadInput(t *testing.T) {
	r := start(t, Options{Listeners: []ListenerOptions{{Name: "PLAINTEXT", MaxFrame: 1 << 20}}})
	other := r.dial()
	send(t, other, frame(kWait, 1, []byte("still here")))
	<-r.h.served
	size := func(n int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }
	cases := map[string][]byte{
		"negative length": size(-1),
		"most negative":   size(-1 << 31),
		"zero length":     size(0),
		"seven bytes":     append(size(7), make([]byte, 7)...),
		"one byte over":   size(1<<20 + 1),
		"largest int":     size(1<<31 - 1),
		"http":            []byte("GET / HTTP/1.1\r\n\r\n"),
		"tls hello":       {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
		"handler refuses": frame(kHangUp, 9, nil),
	}
	for name, b := range cases {
		c := r.dial()
		send(t, c, b)
		t.Run(name, func(t *testing.T) { wantClosed(t, c) })
	}
	eventually(t, "all but one connection closed", func() bool { return r.s.Connections() == 1 })
	close(r.h.gate(1))
	want(t, other, 1, "still here")
	if n := r.s.m.malformed.Value(); n != int64(len(cases)-1) {
		t.Errorf("%d connections were counted as malformed", n)
	}
	if n := r.s.m.panics.Value(); n != 0 {
		t.Errorf("%d panics", n)
	}
}

// TestPreLoginBound: before login a frame may have 512 KiB at most, afterwards 100 MiB.
func TestPreLoginBound(t *testing.T) {
	r := start(t, Options{Listeners: []ListenerOptions{{Name: "SASL", PreLogin: 1024}}})
	c := r.dial()
	send(t, c, frame(kEcho, 1, make([]byte, 1016)))
	recv(t, c)
	send(t, c, frame(kEcho, 2, make([]byte, 1017)))
	wantClosed(t, c)
}

// TestPanicClosesOnlyItsSocket, in Serve and in Encode, with answers before it still delivered.
func TestPanicClosesOnlyItsSocket(t *testing.T) {
	for _, key := range []int{kPanic, kPanicEnc, kErr} {
		t.Run(fmt.Sprint(key), func(t *testing.T) {
			r := start(t, Options{})
			other := r.dial()
			send(t, other, frame(kWait, 1, []byte("unharmed")))
			<-r.h.served
			c := r.dial()
			send(t, c, frame(kEcho, 5, []byte("before")))
			want(t, c, 5, "before")
			send(t, c, frame(key, 6, nil))
			wantClosed(t, c)
			// Behind an answer that waits, on the writer goroutine.
			c = r.dial()
			send(t, c, frame(kWait, 7, []byte("first")), frame(key, 8, nil))
			if key == kPanic {
				wantClosed(t, c)
			} else {
				close(r.h.gate(7))
				want(t, c, 7, "first")
				wantClosed(t, c)
			}
			close(r.h.gate(1))
			want(t, other, 1, "unharmed")
			eventually(t, "closed twice", func() bool { return r.h.closed.Load() == 2 })
			if n := r.s.m.panics.Value(); (n == 2) != (key != kErr) {
				t.Errorf("%d panics counted", n)
			}
			if key == kErr && r.h.released.Load() != 2 {
				t.Errorf("released %d times", r.h.released.Load())
			}
		})
	}
}

// TestSlowLoris: a frame that stops in the middle is given up; memory follows what has arrived.
func TestSlowLoris(t *testing.T) {
	r := start(t, Options{FrameStall: 30 * time.Millisecond, Sweep: 10 * time.Millisecond})
	c := r.dial()
	send(t, c, binary.BigEndian.AppendUint32(nil, 90<<20), []byte{0, 0, 0, 0})
	eventually(t, "frame begun", func() bool { return r.s.budget.used.Load() > 0 })
	if n := r.s.budget.used.Load(); n > 64<<10 {
		t.Errorf("%d bytes held for a frame of which 4 bytes came", n)
	}
	wantClosed(t, c)
	part := r.dial()
	send(t, part, []byte{0, 0}) // not even a length
	c = r.dial()
	send(t, c, frame(kEcho, 1, []byte("fine")))
	want(t, c, 1, "fine")
	eventually(t, "counted as idle", func() bool { return r.s.m.idle.Value() >= 1 })
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	r := start(t, Options{MaxIdle: 60 * time.Millisecond, Sweep: 5 * time.Millisecond})
	waiting := r.dial()
	send(t, waiting, frame(kWait, 1, []byte("long poll")))
	<-r.h.served
	idle := r.dial()
	wantClosed(t, idle)
	// Whoever waits for an answer is not idle.
	select {
	case <-time.After(150 * time.Millisecond):
	case <-r.s.stopping:
	}
	close(r.h.gate(1))
	want(t, waiting, 1, "long poll")
}

// TestHalfClose: answers owed to a client that has shut down its sending side are still sent.
func TestHalfClose(t *testing.T) {
	r := start(t, Options{Grace: time.Second})
	c := r.dial()
	send(t, c, frame(kEcho, 1, []byte("a")), frame(kWait, 2, []byte("b")))
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	want(t, c, 1, "a")
	close(r.h.gate(2))
	want(t, c, 2, "b")
	wantClosed(t, c)
}

// TestClientLeaves: an answer nobody will read is dropped, its owner told, its connection forgotten.
func TestClientLeaves(t *testing.T) {
	r := start(t, Options{Grace: 20 * time.Millisecond})
	c := r.dial()
	send(t, c, frame(kWait, 1, nil), frame(kWait, 2, nil))
	<-r.h.served
	<-r.h.served
	_ = c.Close()
	eventually(t, "forgotten", func() bool { return r.s.Connections() == 0 })
	if r.h.dropped.Load() != 2 || r.h.closed.Load() != 1 {
		t.Errorf("dropped %d closed %d", r.h.dropped.Load(), r.h.closed.Load())
	}
}

func TestLargeFramesGrow(t *testing.T) {
	r := start(t, Options{})
	c := r.dial()
	for _, n := range []int{firstStep - 8, firstStep - 7, firstStep + 1, 1 << 20, 3 << 20, 20 << 20} {
		body := bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
		go func() { _, _ = c.Write(frame(kRaw, int32(n), body)) }()
		id, got := recv(t, c)
		if id != int32(n) || string(got) != "<"+string(body)+">" {
			t.Fatalf("%d bytes came back as %d", n, len(got))
		}
	}
	eventually(t, "released", func() bool { return r.h.released.Load() == 6 })
}

// TestBudgetHoldsBack: with the budget used up, others wait, and go on when it is free again.
func TestBudgetHoldsBack(t *testing.T) {
	r := start(t, Options{MemoryBudget: 100 << 10})
	big := r.dial()
	send(t, big, frame(kEcho, 1, make([]byte, 200<<10))[:1000])
	wantClosedAfterSending(t, big)
	if err := r.s.budget.acquire(context.Background(), 100<<10); err != nil {
		t.Fatal(err)
	}
	c := r.dial()
	send(t, c, frame(kEcho, 2, make([]byte, 1000)))
	eventually(t, "waiting", func() bool { return r.s.m.budgetWaits.Value() == 1 })
	r.s.budget.release(100 << 10)
	if id, _ := recv(t, c); id != 2 {
		t.Fatal(id)
	}
}

// wantClosedAfterSending: a frame that can never fit is refused when it asks for more than the budget.
func wantClosedAfterSending(t *testing.T, c net.Conn) {
	t.Helper()
	_, _ = c.Write(make([]byte, 70<<10))
	wantClosed(t, c)
}

func TestConnectionLimits(t *testing.T) {
	r := start(t, Options{MaxPerIP: 2})
	a, b := r.dial(), r.dial()
	for i, c := range []net.Conn{a, b} {
		send(t, c, frame(kEcho, int32(i), nil))
		want(t, c, int32(i), "")
	}
	wantClosed(t, r.dial())
	_ = a.Close()
	eventually(t, "room", func() bool { return r.s.Connections() == 1 })
	c := r.dial()
	send(t, c, frame(kEcho, 3, nil))
	want(t, c, 3, "")

	r = start(t, Options{MaxConnections: 1})
	a = r.dial()
	send(t, a, frame(kEcho, 1, nil))
	want(t, a, 1, "")
	b = r.dial() // waits in the backlog
	send(t, b, frame(kEcho, 2, []byte("later")))
	_ = a.Close()
	want(t, b, 2, "later")

	r = start(t, Options{MaxRate: 20})
	begin := time.Now()
	for i := range int32(24) {
		c := r.dial()
		send(t, c, frame(kEcho, i, nil))
		want(t, c, i, "")
	}
	if d := time.Since(begin); d < 100*time.Millisecond {
		t.Errorf("24 connections at 20 a second with a burst of 20 took %v", d)
	}
}

// TestShutdownDrains: what is ready is sent, what is not is cut off after the grace, new clients find no
// door, and no goroutine stays (Shutdown joins them).
func TestShutdownDrains(t *testing.T) {
	r := start(t, Options{Grace: 100 * time.Millisecond})
	soon, never, idle := r.dial(), r.dial(), r.dial()
	send(t, soon, frame(kWait, 1, []byte("made it")))
	send(t, never, frame(kWait, 2, nil))
	send(t, idle, frame(kEcho, 3, nil))
	want(t, idle, 3, "")
	<-r.h.served
	<-r.h.served
	<-r.h.served
	done := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		done <- r.s.Shutdown(ctx)
	}()
	wantClosed(t, idle)
	close(r.h.gate(1))
	want(t, soon, 1, "made it")
	wantClosed(t, soon)
	wantClosed(t, never)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", r.addr); err == nil {
		_ = c.Close()
		t.Fatal("a client was let in after shutdown")
	}
	if r.h.closed.Load() != 3 {
		t.Errorf("closed %d", r.h.closed.Load())
	}
}

type osFile struct{ f *os.File }

func (f osFile) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }
func (f osFile) SysFile() *os.File                       { return f.f }

func testFile(t testing.TB, n int) (File, []byte) {
	t.Helper()
	b := bytes.Repeat([]byte("the quick brown fox. "), n/21+1)[:n]
	p := filepath.Join(t.TempDir(), "segment")
	if err := os.WriteFile(p, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return osFile{f}, b
}

// TestFilePieces: below the sendfile threshold, at it, far above, and for a connection that is not TCP.
func TestFilePieces(t *testing.T) {
	r := start(t, Options{})
	for i, n := range []int{1, 1000, sendfileFrom - 1, sendfileFrom, 1 << 20, 9 << 20} {
		f, b := testFile(t, n)
		r.h.file, r.h.size = f, int64(n)
		c := r.dial()
		send(t, c, frame(kFile, 1, nil), frame(kFile, 2, nil), frame(kEcho, 3, []byte("after")))
		want(t, c, 1, "<"+string(b)+">")
		want(t, c, 2, "<"+string(b)+">")
		want(t, c, 3, "after")
		eventually(t, "released", func() bool { return int(r.h.released.Load()) == 2*(i+1) })
	}
}

// TestFileShorterThanPromised: the answer's length is out already, so the connection must go.
func TestFileShorterThanPromised(t *testing.T) {
	for _, n := range []int{1000, 1 << 20} {
		r := start(t, Options{})
		r.h.file, _ = testFile(t, n)
		r.h.size = int64(n)
		c := r.dial()
		send(t, c, frame(kShort, 1, nil))
		got, err := io.ReadAll(c)
		if err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
			t.Fatal(err)
		}
		if len(got) > n+9+4 {
			t.Fatalf("%d bytes of %d", len(got), n)
		}
		eventually(t, "released", func() bool { return r.h.released.Load() == 1 })
	}
}

// TestFilesWithoutTCP takes the way of a TLS connection: pread in pieces.
func TestFilesWithoutTCP(t *testing.T) {
	f, b := testFile(t, 1<<20)
	h := newToy()
	h.file, h.size = f, int64(len(b))
	s := New(Options{Handler: h, Grace: 100 * time.Millisecond, Listeners: []ListenerOptions{{Name: "TLS", Listener: &pipeListener{make(chan net.Conn), make(chan struct{}), sync.Once{}}}}})
	s.Start()
	ours, theirs := net.Pipe()
	s.o.Listeners[0].Listener.(*pipeListener).conns <- theirs
	go func() { _, _ = ours.Write(frame(kFile, 1, nil)) }()
	want(t, ours, 1, "<"+string(b)+">")
	_ = ours.Close()
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
}

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// TestRetainKeepsTheBytes: a frame's buffer is not given to another request while it is retained.
func TestRetainKeepsTheBytes(t *testing.T) {
	s := New(Options{Handler: newToy()})
	if err := s.budget.acquire(context.Background(), 1000); err != nil {
		t.Fatal(err)
	}
	f := &Frame{budget: s.budget, buf: getBuffer(1000), n: 1000, charge: 1000}
	f.refs.Store(1)
	f.Retain()
	f.Release()
	if f.buf == nil || s.budget.used.Load() != 1000 {
		t.Fatal("released too early")
	}
	f.Release()
	if f.buf != nil || s.budget.used.Load() != 0 {
		t.Fatal("not released")
	}
}

// TestHalfAnAnswerIsNeverSent: bytes that an Encode wrote before it failed or panicked are taken back, also
// when the answers around it are written together.
func TestHalfAnAnswerIsNeverSent(t *testing.T) {
	for _, fail := range []func() error{
		func() error { return errors.New("fails") },
		func() error { panic("toy") },
	} {
		released := 0
		s := New(Options{Handler: newToy()})
		c := &Conn{srv: s, lst: &ListenerOptions{}, nc: pipeEnd{}, out: new(Out)}
		f := &Frame{budget: s.budget}
		ok := pending{frame: f, Reply: Reply{Correlation: 1, Encode: func(o *Out) error { o.Bytes([]byte("whole")); return nil }}}
		bad := pending{frame: f, Reply: Reply{Correlation: 2, Encode: func(o *Out) error {
			o.Bytes([]byte("half"))
			o.Raw(make([]byte, 5000), func() { released++ })
			o.Bytes([]byte("half"))
			return fail()
		}}}
		if err := c.emit(&ok); err != nil {
			t.Fatal(err)
		}
		if err := c.emit(&bad); err == nil {
			t.Fatal("no error")
		}
		if err := c.emit(&ok); err != nil {
			t.Fatal(err)
		}
		c.out.seal()
		var got []byte
		for _, p := range c.out.parts {
			got = append(got, c.out.buf[p.off:p.end]...)
		}
		want := "\x00\x00\x00\x09\x00\x00\x00\x01whole"
		if string(got) != want+want || released != 1 {
			t.Fatalf("%q, released %d", got, released)
		}
	}
}

// pipeEnd is a connection that is only asked for its address.
type pipeEnd struct{ net.Conn }

func (pipeEnd) RemoteAddr() net.Addr { return &net.UnixAddr{Name: "test"} }
