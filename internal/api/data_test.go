package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/metric"
	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/session"
	"github.com/milena-mq/milena/internal/storage"
	"github.com/milena-mq/milena/internal/vfs"
)

// dataBroker is the data path of a broker: a server on a socket, the dispatcher, a partition set on a
// temporary directory and an image made by hand. It has no controller and no coordinator.
type dataBroker struct {
	t    testing.TB
	addr string
	peer string // address of the listener for other brokers
	im   atomic.Pointer[meta.Image]
	set  *partition.Set
	env  *Env
	rev  int64
}

func newDataBroker(t testing.TB, set ...string) *dataBroker { return newDataBrokerOn(t, 1, set...) }

// newDataBrokerOn has several log directories.
func newDataBrokerOn(t testing.TB, disks int, set ...string) *dataBroker {
	b := &dataBroker{t: t}
	keys := map[string]string{}
	for i := 0; i+1 < len(set); i += 2 {
		keys[set[i]] = set[i+1]
	}
	static := config.StaticOf(keys)
	var dirs []*storage.Dir
	for n := range disks {
		dir, err := storage.OpenDir(vfs.OS, t.TempDir(), storage.DirOptions{NodeID: 1, ClusterID: "c", NewID: func() meta.UUID { return meta.UUID{byte(n + 1)} }})
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	b.set = partition.NewSet(partition.Options{NodeID: 1, Dirs: dirs, Static: static, Clock: time.Now, Log: log})
	if err := b.set.Load(nil); err != nil {
		t.Fatal(err)
	}
	b.im.Store(meta.Empty())
	b.set.Apply(b.im.Load(), nil)
	b.set.Start()
	ids := int64(1000)
	env := &Env{
		NodeID: 1, Image: b.im.Load, Partitions: b.set, Static: static, Log: log, Metrics: metric.New(), Clock: time.Now,
		Sessions:    session.New(session.Options{Slots: 16, NewID: rand.Int32}),
		ProducerIDs: NewProducerIDs(func(context.Context) (int64, int32, error) { ids += 2; return ids - 2, 2, nil }),
	}
	b.env = env
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr, b.peer = ln.Addr().String(), pl.Addr().String()
	srv := server.New(server.Options{Handler: New(env), Log: log, Metrics: env.Metrics, MemoryBudget: 64 << 20,
		Listeners: []server.ListenerOptions{{Name: "PLAINTEXT", Listener: ln}, {Name: config.PeerListenerName, Listener: pl, Peer: true}}})
	srv.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := b.set.Close(1); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	b.apply(meta.PutBroker(&meta.Broker{ID: 1, Epoch: 1, Endpoints: []meta.Endpoint{{Listener: "PLAINTEXT", Host: "one.example", Port: 9092}}}),
		meta.PutBroker(&meta.Broker{ID: 2, Epoch: 1, Rack: "r", Endpoints: []meta.Endpoint{{Listener: "PLAINTEXT", Host: "two.example", Port: 9093}}}))
	return b
}

func (b *dataBroker) apply(cs ...meta.Change) {
	b.t.Helper()
	b.rev++
	im, d, err := b.im.Load().Apply(cs, b.rev)
	if err != nil {
		b.t.Fatal(err)
	}
	b.set.Apply(im, d)
	b.im.Store(im)
}

// topic creates a topic of n partitions that this broker leads in epoch 3.
func (b *dataBroker) topic(name string, id byte, n int32) meta.UUID {
	u := meta.UUID{0: id, 15: 1}
	cs := []meta.Change{meta.PutTopic(name, meta.TopicRecord{ID: u, Partitions: n, Internal: name == "__consumer_offsets"})}
	for i := range n {
		cs = append(cs, meta.PutPartition(u, i, &meta.Partition{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1, LeaderEpoch: 3}))
	}
	b.apply(cs...)
	return u
}

// client is one raw connection.
type client struct {
	t    testing.TB
	c    net.Conn
	corr int32
	id   string
}

func (b *dataBroker) dial() *client { return b.dialAt(b.addr) }

func (b *dataBroker) dialAt(addr string) *client {
	b.t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	return &client{t: b.t, c: c, id: "test"}
}

func (c *client) send(req kmsg.Request) {
	c.t.Helper()
	c.corr++
	out := kmsg.NewRequestFormatter(kmsg.FormatterClientID(c.id)).AppendRequest(nil, req, c.corr)
	if _, err := c.c.Write(out); err != nil {
		c.t.Fatal(err)
	}
}

// receive reads the answer to req and checks that it is byte for byte what kmsg would have written.
func (c *client) receive(req kmsg.Request) (kmsg.Response, error) {
	c.t.Helper()
	if err := c.c.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	var head [4]byte
	if _, err := io.ReadFull(c.c, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(c.c, body); err != nil {
		return nil, err
	}
	body = body[4:]
	if req.IsFlexible() {
		body = body[1:]
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if err := resp.ReadFrom(body); err != nil {
		c.t.Fatalf("read answer of key %d version %d: %v", req.Key(), req.GetVersion(), err)
	}
	if again := resp.AppendTo(nil); !bytes.Equal(again, body) {
		c.t.Errorf("key %d version %d: answer\n%x\nkmsg writes\n%x", req.Key(), req.GetVersion(), body, again)
	}
	return resp, nil
}

func (c *client) do(req kmsg.Request) kmsg.Response {
	c.t.Helper()
	c.send(req)
	resp, err := c.receive(req)
	if err != nil {
		c.t.Fatalf("key %d version %d: %v", req.Key(), req.GetVersion(), err)
	}
	return resp
}

func (c *client) closed(req kmsg.Request) {
	c.t.Helper()
	c.send(req)
	if r, err := c.receive(req); err == nil {
		c.t.Errorf("answered %+v instead of a closed connection", r)
	} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		c.t.Error("neither answered nor closed")
	}
}

func values(t testing.TB, raw []byte) []string {
	t.Helper()
	var out []string
	for len(raw) > 0 {
		b, rest, err := batch.Next(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.VerifyCRC(); err != nil {
			t.Error(err)
		}
		if err := b.Each(batch.Limits{}, func(r batch.Record) error { out = append(out, string(r.Value)); return nil }); err != nil {
			t.Fatal(err)
		}
		raw = rest
	}
	return out
}

func testBatch(t testing.TB, s batch.Spec, vals ...string) []byte {
	t.Helper()
	s.LeaderEpoch = -1
	b := batch.NewBuilder(s)
	for _, v := range vals {
		if err := b.Add(batch.Record{Timestamp: time.Now().UnixMilli(), Value: []byte(v)}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func newProduce(v, acks int16, topic string, id meta.UUID, parts map[int32][]byte) *kmsg.ProduceRequest {
	r := kmsg.NewPtrProduceRequest()
	r.Version, r.Acks, r.TimeoutMillis = v, acks, 5000
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.TopicID = topic, id
	for n := int32(-1); n < 100; n++ {
		if b, ok := parts[n]; ok {
			p := kmsg.NewProduceRequestTopicPartition()
			p.Partition, p.Records = n, b
			t.Partitions = append(t.Partitions, p)
		}
	}
	r.Topics = append(r.Topics, t)
	return r
}

func newFetch(v int16, topic string, id meta.UUID, at map[int32]int64) *kmsg.FetchRequest {
	r := kmsg.NewPtrFetchRequest()
	r.Version, r.MaxWaitMillis, r.MinBytes, r.MaxBytes = v, 0, 1, 50<<20
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic, id
	for n := int32(-1); n < 100; n++ {
		if o, ok := at[n]; ok {
			p := kmsg.NewFetchRequestTopicPartition()
			p.Partition, p.FetchOffset, p.PartitionMaxBytes = n, o, 1<<20
			t.Partitions = append(t.Partitions, p)
		}
	}
	if len(t.Partitions) > 0 {
		r.Topics = append(r.Topics, t)
	}
	return r
}

// newTestLog is a log with a few batches.
func newTestLog(t testing.TB) *storage.Log {
	d, err := storage.OpenDir(vfs.OS, t.TempDir(), storage.DirOptions{NodeID: 1, NewID: func() meta.UUID { return meta.UUID{1} }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Abandon() })
	l, err := d.Create(meta.TopicPartition{Topic: "t"}, meta.UUID{2}, storage.DefaultLogConfig(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"a", "bb", "ccc"} {
		if _, err := l.Append(testBatch(t, batch.Spec{}, v), 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	return l
}
