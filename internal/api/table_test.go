package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/metric"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/storage"
	"github.com/milena-mq/milena/internal/wire"
)

var rewrite = flag.Bool("rewrite", false, "write the expected files anew")

// TestTableIsSound: by key, once each, versions that kmsg can read, every column filled.
func TestTableIsSound(t *testing.T) {
	last := int16(-1)
	for i := range table {
		r := &table[i]
		if r.Key <= last {
			t.Errorf("%s stands after key %d", r.Name(), last)
		}
		last = r.Key
		if r.Min < 0 || r.Max < r.Min || r.Max > wire.MaxVersion(r.Key) {
			t.Errorf("%s: versions %d-%d, kmsg reads up to %d", r.Name(), r.Min, r.Max, wire.MaxVersion(r.Key))
		}
		if r.serve == nil || r.On == 0 {
			t.Errorf("%s: serve or On is missing", r.Name())
		}
		if r.Alias != (r.Key == keyProduce) {
			t.Errorf("%s: only Produce may leave its bytes in the frame", r.Name())
		}
		if r.announced() != r.Min && r.Key != keyProduce {
			t.Errorf("%s announces %d", r.Name(), r.announced())
		}
	}
}

// TestEveryKeyIsARowOrAbsent: nothing of the protocol is forgotten silently.
func TestEveryKeyIsARowOrAbsent(t *testing.T) {
	rows := map[int16]bool{}
	for i := range table {
		rows[table[i].Key] = true
	}
	for k := int16(0); k <= kmsg.MaxKey; k++ {
		why, gone := absent[k]
		switch {
		case rows[k] && gone:
			t.Errorf("key %d %s is a row and absent", k, wire.Name(k))
		case !rows[k] && !gone:
			t.Errorf("key %d %s is neither a row nor absent", k, wire.Name(k))
		case gone && !strings.HasPrefix(why, wire.Name(k)+": "):
			t.Errorf("absent key %d: %q does not begin with its name %s", k, why, wire.Name(k))
		}
	}
	for k := range absent {
		if k < 0 || k > kmsg.MaxKey {
			t.Errorf("absent key %d is none of the protocol", k)
		}
	}
}

// kafka43 is the version range that Apache Kafka 4.3 serves (kafka.md 1) for the keys of issue 3.
var kafka43 = map[int16][2]int16{
	0: {3, 13}, 1: {4, 18}, 2: {1, 11}, 3: {0, 13}, 8: {2, 10}, 9: {1, 10}, 10: {0, 6}, 11: {0, 9}, 12: {0, 4}, 13: {0, 5}, 14: {0, 5},
	15: {0, 6}, 16: {0, 5}, 18: {0, 4}, 19: {2, 7}, 20: {1, 6}, 21: {0, 2}, 22: {0, 5}, 23: {2, 4}, 24: {0, 5}, 25: {0, 4}, 26: {0, 5}, 27: {1, 2}, 28: {0, 5}, 32: {1, 4}, 33: {0, 2}, 34: {1, 2}, 35: {1, 5},
	37: {0, 3}, 42: {0, 2}, 43: {0, 2}, 44: {0, 1}, 45: {0, 1}, 46: {0, 0}, 47: {0, 0}, 55: {0, 2}, 56: {2, 3}, 57: {0, 2}, 60: {0, 2}, 61: {0, 0}, 62: {0, 4}, 63: {0, 2}, 64: {0, 0}, 65: {0, 0}, 66: {0, 2}, 67: {0, 0}, 73: {0, 0}, 74: {0, 1}, 75: {0, 0}, 80: {0, 1}, 81: {0, 0},
}

// TestVersionsAreKafkas: a row serves exactly what Kafka 4.3 serves.
func TestVersionsAreKafkas(t *testing.T) {
	for i := range table {
		r := &table[i]
		if want, ok := kafka43[r.Key]; !ok || want != [2]int16{r.Min, r.Max} {
			t.Errorf("%s serves %d-%d, Kafka 4.3 %v", r.Name(), r.Min, r.Max, want)
		}
	}
}

func TestDocumentIsPrintedFromTheTable(t *testing.T) {
	const path = "../../docs/apis.md"
	if *rewrite {
		if err := os.WriteFile(path, []byte(Document()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != Document() {
		t.Errorf("docs/apis.md is not what the table says (%v); run with -rewrite", err)
	}
}

func TestErrorCode(t *testing.T) {
	wrapped := fmt.Errorf("append: %w", fmt.Errorf("deeper: %w", storage.ErrOffline))
	for _, c := range []struct {
		err  error
		want int16
	}{
		{nil, 0},
		{kerr.NotLeaderForPartition, 6},
		{fmt.Errorf("x: %w", kerr.MessageTooLarge), 10},
		{errors.Join(errors.New("a"), kerr.InvalidRecord), 87},
		{wrapped, kerr.KafkaStorageError.Code},
		{storage.ErrOutOfRange, 1},
		{storage.ErrReserve, kerr.KafkaStorageError.Code},
		{coord.ErrFenced, kerr.NotController.Code},
		{context.DeadlineExceeded, kerr.RequestTimedOut.Code},
		{errors.New("surprise"), -1},
	} {
		if got := errorCode(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

// wireRig is the dispatcher behind a real socket, without anything below it: ApiVersions and the gate
// need nothing more.
type wireRig struct {
	t    *testing.T
	addr [2]string // client, peer
	m    *metric.Catalog
	srv  *server.Server
}

func startWire(t *testing.T) *wireRig {
	t.Helper()
	r := &wireRig{t: t, m: metric.New()}
	api := New(&Env{Metrics: r.m, Clock: time.Now})
	o := server.Options{Handler: api, Metrics: r.m, Grace: 100 * time.Millisecond}
	for i, name := range []string{"PLAINTEXT", "PEER"} {
		l, err := server.Listen(context.Background(), "127.0.0.1:0", "")
		if err != nil {
			t.Fatal(err)
		}
		r.addr[i] = l.Addr().String()
		o.Listeners = append(o.Listeners, server.ListenerOptions{Name: name, Peer: i == 1, Listener: l})
	}
	r.srv = server.New(o)
	r.srv.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := r.srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if n := r.m.Counter("milena_server_panics_total", "").Value(); n != 0 {
			t.Errorf("%d panics", n)
		}
	})
	return r
}

func (r *wireRig) dial(listener int) net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr[listener])
	if err != nil {
		r.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// request is a whole frame; an unknown version gets the header of a known one.
func request(req kmsg.Request, correlation int32) []byte {
	b := kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, correlation)
	return b
}

// answer reads one answer and decodes it into resp; tags says whether the header has tagged fields.
func answer(t *testing.T, c net.Conn, correlation int32, resp kmsg.Response) []byte {
	t.Helper()
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		t.Fatalf("read answer: %v", err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:])-4)
	if _, err := io.ReadFull(c, body); err != nil {
		t.Fatal(err)
	}
	if got := int32(binary.BigEndian.Uint32(head[4:])); got != correlation {
		t.Fatalf("correlation id %d, want %d", got, correlation)
	}
	if resp.IsFlexible() && resp.Key() != keyApiVersions {
		if body[0] != 0 {
			t.Fatalf("response header tags %x", body[0])
		}
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		t.Fatalf("decode %T version %d: %v", resp, resp.GetVersion(), err)
	}
	if again := resp.AppendTo(nil); !bytes.Equal(again, body) {
		t.Fatalf("%T version %d: %d bytes, encoded again %d", resp, resp.GetVersion(), len(body), len(again))
	}
	return body
}

func closedAtOnce(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second)) // a machine may be busy; an open connection stays open for ever
	n, err := c.Read(make([]byte, 16))
	var ne net.Error
	if n > 0 || err == nil || errors.As(err, &ne) && ne.Timeout() {
		t.Fatalf("got %d bytes, %v; want the connection closed", n, err)
	}
}

// TestApiVersions at every version: the table, response header version 0, features from v3.
func TestApiVersions(t *testing.T) {
	r := startWire(t)
	for listener := range 2 {
		c := r.dial(listener)
		for v := int16(0); v <= 4; v++ {
			req := kmsg.NewPtrApiVersionsRequest()
			req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = v, "tester", "1.0-rc.1"
			resp := kmsg.NewPtrApiVersionsResponse()
			resp.Version = v
			if _, err := c.Write(request(req, int32(v))); err != nil {
				t.Fatal(err)
			}
			answer(t, c, int32(v), resp)
			if resp.ErrorCode != 0 {
				t.Fatalf("version %d: error %d", v, resp.ErrorCode)
			}
			n := 0
			for i := range table {
				row := &table[i]
				if !row.allowedOn(listener == 1) {
					continue
				}
				if n >= len(resp.ApiKeys) {
					t.Fatalf("%d keys", n)
				}
				k := resp.ApiKeys[n]
				n++
				low := row.Min
				if row.Key == 0 {
					low = 0
				}
				if k.ApiKey != row.Key || k.MinVersion != low || k.MaxVersion != row.Max {
					t.Errorf("version %d: %+v, row %s %d-%d", v, k, row.Name(), row.Min, row.Max)
				}
			}
			if n != len(resp.ApiKeys) {
				t.Errorf("version %d: %d keys announced, %d served", v, len(resp.ApiKeys), n)
			}
			if (len(resp.SupportedFeatures) > 0) != (v >= 3) {
				t.Errorf("version %d: features %+v", v, resp.SupportedFeatures)
			}
			for _, f := range resp.SupportedFeatures {
				if v < 4 && f.MinVersion == 0 || f.Name == "group.version" || f.Name == "share.version" {
					t.Errorf("version %d announces %+v", v, f)
				}
			}
		}
	}
}

// TestApiVersionsOfTheFuture gets a v0 body with error 35, and the connection lives on.
func TestApiVersionsOfTheFuture(t *testing.T) {
	r := startWire(t)
	c := r.dial(0)
	for i, v := range []int16{5, 6, 99, 32767} {
		b := []byte{0, 0, 0, 0, 0, 18, byte(v >> 8), byte(v), 0, 0, 0, byte(i), 0xff, 0xff, 0, 2, 'x', 2, 'y', 0}
		binary.BigEndian.PutUint32(b, uint32(len(b)-4))
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		resp := kmsg.NewPtrApiVersionsResponse()
		answer(t, c, int32(i), resp)
		if resp.ErrorCode != 35 || len(resp.ApiKeys) != 1 || resp.ApiKeys[0].ApiKey != 18 || resp.ApiKeys[0].MinVersion != 0 || resp.ApiKeys[0].MaxVersion != 4 {
			t.Fatalf("version %d: %+v", v, resp)
		}
	}
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = 3, "bad name!", "1"
	if _, err := c.Write(request(req, 9)); err != nil {
		t.Fatal(err)
	}
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.Version = 3
	answer(t, c, 9, resp)
	if resp.ErrorCode != kerr.InvalidRequest.Code {
		t.Fatalf("software name with spaces: %d", resp.ErrorCode)
	}
}

// TestProduceBelow3IsRefused in its own shape, though announced.
func TestProduceBelow3IsRefused(t *testing.T) {
	r := startWire(t)
	c := r.dial(0)
	for v := int16(0); v < 3; v++ {
		req := kmsg.NewPtrProduceRequest()
		req.Version, req.Acks = v, 1
		req.Topics = []kmsg.ProduceRequestTopic{{Topic: "t", Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: 3, Records: []byte("old")}}}}
		if _, err := c.Write(request(req, int32(v))); err != nil {
			t.Fatal(err)
		}
		resp := kmsg.NewPtrProduceResponse()
		resp.Version = v
		answer(t, c, int32(v), resp)
		if len(resp.Topics) != 1 || resp.Topics[0].Topic != "t" || resp.Topics[0].Partitions[0].ErrorCode != 35 || resp.Topics[0].Partitions[0].Partition != 3 {
			t.Fatalf("version %d: %+v", v, resp)
		}
	}
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks = 2, 0
	if _, err := c.Write(request(req, 7)); err != nil {
		t.Fatal(err)
	}
	closedAtOnce(t, c)
}

// TestBadRequestsCloseTheirConnection and no other: keys and versions nobody serves, bodies that are not
// what they say, a client's API on the peers' listener.
func TestBadRequestsCloseTheirConnection(t *testing.T) {
	r := startWire(t)
	other := r.dial(0)
	framed := func(b ...byte) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
	}
	produce := func(body ...byte) []byte {
		return framed(append([]byte{0, 0, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0}, body...)...)
	}
	dense := binary.AppendUvarint([]byte{0, 0, 1, 0, 0, 0, 1}, 1<<19+1)
	for range 1 << 19 {
		dense = append(dense, 1, 1, 0)
	}
	cases := map[string][]byte{
		"unknown key":          framed(0x30, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff),
		"negative key":         framed(0xff, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff),
		"absent key":           framed(0, 4, 0, 0, 0, 0, 0, 1, 0xff, 0xff),
		"produce 99":           framed(0, 0, 0, 99, 0, 0, 0, 1, 0xff, 0xff),
		"negative version":     framed(0, 18, 0xff, 0xff, 0, 0, 0, 1, 0xff, 0xff),
		"header cut":           framed(0, 0, 0, 9, 0, 0, 0, 1),
		"client id beyond":     framed(0, 0, 0, 9, 0, 0, 0, 1, 0x7f, 0xff, 'x'),
		"empty body":           produce(),
		"array beyond":         produce(0, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x0f),
		"garbage":              produce(bytes.Repeat([]byte{0xa5}, 500)...),
		"half a million tiny":  produce(dense...),
		"api versions garbage": framed(0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0, 0xff, 0xff, 0xff),
	}
	for name, b := range cases {
		t.Run(name, func(t *testing.T) {
			c := r.dial(0)
			if _, err := c.Write(b); err != nil {
				t.Fatal(err)
			}
			closedAtOnce(t, c)
		})
	}
	t.Run("client API on the peer listener", func(t *testing.T) {
		c := r.dial(1)
		req := kmsg.NewPtrProduceRequest()
		req.Version = 9
		if _, err := c.Write(request(req, 1)); err != nil {
			t.Fatal(err)
		}
		closedAtOnce(t, c)
	})
	req := kmsg.NewPtrApiVersionsRequest()
	if _, err := other.Write(request(req, 1)); err != nil {
		t.Fatal(err)
	}
	answer(t, other, 1, kmsg.NewPtrApiVersionsResponse())
}

// TestRefusalHasTheShapeOfTheAPI: for every row and version the refusal of the whole request can be
// encoded and read back.
func TestRefusalHasTheShapeOfTheAPI(t *testing.T) {
	for i := range table {
		for v := int16(0); v <= table[i].Max; v++ {
			req := kmsg.RequestForKey(table[i].Key)
			req.SetVersion(v)
			resp := refusal(req, 35)
			if resp == nil {
				continue
			}
			if err := req.ResponseKind().ReadFrom(resp.AppendTo(nil)); err != nil {
				t.Errorf("%s version %d: %v", table[i].Name(), v, err)
			}
		}
	}
}

func BenchmarkApiVersions(b *testing.B) {
	a := New(&Env{Metrics: metric.New(), Clock: time.Now})
	c := &Call{Env: a.env, api: a, row: a.rows[18], meter: a.meters[18], Conn: &server.Conn{}, Header: wire.Header{Key: 18}}
	req := kmsg.NewPtrApiVersionsRequest()
	c.Request = req
	var o server.Out
	b.ReportAllocs()
	for b.Loop() {
		_ = c
		resp := kmsg.NewPtrApiVersionsResponse()
		resp.ApiKeys = a.announced(false)
		_ = c.ready(resp).Encode(&o)
		o = server.Out{}
	}
}
