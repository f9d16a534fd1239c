package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
)

// hostile makes requests that are almost right.
type hostile struct{ r *rand.Rand }

// fill puts random values into a kmsg structure: short names from a small set, so that requests meet one
// another's topics and groups, and numbers of every size.
func (h hostile) fill(v reflect.Value, top bool) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[kmsg.Tags]() {
			return
		}
		for i := range v.NumField() {
			if !top || v.Type().Field(i).Name != "Version" {
				h.fill(v.Field(i), false)
			}
		}
	case reflect.String:
		v.SetString([]string{"", "a", "b", "../x", ".", "consumer", "range", "__consumer_offsets", string(make([]byte, 300))}[h.r.IntN(9)])
	case reflect.Pointer:
		if h.r.IntN(3) > 0 || v.Type().Elem().Kind() == reflect.Struct {
			v.Set(reflect.New(v.Type().Elem()))
			h.fill(v.Elem(), false)
		}
	case reflect.Slice:
		n := h.r.IntN(4)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			h.fill(v.Index(i), false)
		}
	case reflect.Array:
		for i := range v.Len() {
			h.fill(v.Index(i), false)
		}
	case reflect.Bool:
		v.SetBool(h.r.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt([]int64{-2, -1, 0, 1, 2, 3, 100, 1<<31 - 1, -1 << 63, 1<<63 - 1}[h.r.IntN(10)])
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(h.r.Uint64())
	}
}

// request is one whole frame, with some bytes of its body changed half of the time.
func (h hostile) request(key, version int16) []byte {
	req := kmsg.RequestForKey(key)
	req.SetVersion(version)
	h.fill(reflect.ValueOf(req).Elem(), true)
	req.SetVersion(version)
	if t, ok := req.(kmsg.SetTimeoutRequest); ok {
		t.SetTimeout(10)
	}
	if f, ok := req.(*kmsg.FetchRequest); ok {
		f.MaxWaitMillis = 5
	}
	b := kmsg.NewRequestFormatter(kmsg.FormatterClientID("hostile")).AppendRequest(nil, req, 7)
	if h.r.IntN(2) == 0 && len(b) > 24 {
		for range 1 + h.r.IntN(3) {
			b[24+h.r.IntN(len(b)-24)] = byte(h.r.Uint32())
		}
	}
	return b
}

// ask sends one frame on a connection of its own and waits for an answer, for the broker to hang up, or
// for a moment (a JoinGroup may rightly wait for minutes).
func ask(t *testing.T, addr string, frame []byte) (answered bool) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return false
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := c.Write(frame); err != nil {
		return false
	}
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return false
	}
	n := int64(binary.BigEndian.Uint32(head[:])) - 4
	var ne net.Error
	if m, err := io.CopyN(io.Discard, c, n); m != n && !(errors.As(err, &ne) && ne.Timeout()) {
		t.Errorf("an answer of %d bytes ended after %d: %v", n, m, err)
	}
	return true
}

// TestHostileRequests sends random requests of every API at every version to a whole broker, at the address for clients
// and at the one for other brokers, where a neighbour that has gone mad must do no more harm. No request may make its handler panic, take memory out of
// proportion, or keep the broker from serving others.
func TestHostileRequests(t *testing.T) {
	rounds := 3
	if os.Getenv("MILENA_SOAK") != "" {
		rounds = 200
	}
	dir := t.TempDir()
	var log sharedBuffer
	b, err := Start(t.Context(), Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError})), Static: config.StaticOf(map[string]string{
		"log.dirs": dir + "/data", "listeners": "PLAINTEXT://127.0.0.1:0", "peer.listener": "127.0.0.1:0",
	})})
	if err != nil {
		t.Fatal(err)
	}
	addr := b.Addr()
	versions := kmsg.NewPtrApiVersionsRequest()
	hello := kmsg.NewRequestFormatter().AppendRequest(nil, versions, 1)
	peer := b.peers.addr
	keys := map[string][]kmsg.ApiVersionsResponseApiKey{addr: announced(t, addr, hello), peer: announced(t, peer, hello)}
	if len(keys[peer]) < 15 || len(keys[addr]) <= len(keys[peer]) {
		t.Errorf("%d APIs for clients, %d for brokers", len(keys[addr]), len(keys[peer]))
	}
	var wg sync.WaitGroup
	answered := make([]int, 4)
	for w := range answered {
		at := []string{addr, peer}[w%2]
		wg.Go(func() {
			h := hostile{rand.New(rand.NewPCG(11, uint64(w)))}
			for range rounds {
				for _, k := range keys[at] {
					for v := k.MinVersion; v <= k.MaxVersion; v++ {
						if ask(t, at, h.request(k.ApiKey, v)) {
							answered[w]++
						}
					}
				}
			}
		})
	}
	wg.Wait()
	if !ask(t, addr, hello) {
		t.Error("the broker answers no more")
	}
	n := 0
	for _, a := range answered {
		n += a
	}
	if n == 0 {
		t.Error("no request was answered: the test does not reach the handlers")
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%d answers, heap %d MiB", n, m.HeapInuse>>20)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	// An error in the log is a panic or an error that nobody foresaw: neither may come from a request.
	// etcd's lines about a fresh store, and about members that it refuses, are not ours.
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, "etcd: failed to update storage version") && !strings.Contains(line, "etcd: Validation on configuration change failed") {
			t.Errorf("the broker complains: %.2000s", line)
		}
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("files outside the data directory: %v %v", names, err)
	}
}

// sharedBuffer is a log that several goroutines write.
type sharedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *sharedBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *sharedBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// announced asks for the table over the wire.
func announced(t *testing.T, addr string, hello []byte) []kmsg.ApiVersionsResponseApiKey {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write(hello); err != nil {
		t.Fatal(err)
	}
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(c, body); err != nil {
		t.Fatal(err)
	}
	resp := kmsg.NewPtrApiVersionsResponse()
	if err := resp.ReadFrom(bytes.Clone(body[4:])); err != nil {
		t.Fatal(err)
	}
	return resp.ApiKeys
}
