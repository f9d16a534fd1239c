// Program sarama proves what IBM/sarama sees of the broker.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/milena-mq/milena/test/clients/go/proof"
)

var brokers []string

func conf() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.Producer.Return.Successes = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.MaxWaitTime = 200 * time.Millisecond
	c.Consumer.Group.Heartbeat.Interval = 200 * time.Millisecond
	c.Consumer.Offsets.AutoCommit.Interval = 100 * time.Millisecond
	c.Consumer.Group.Rebalance.Retry.Backoff = 200 * time.Millisecond
	return c
}

func try(err error) {
	if err != nil {
		panic(err)
	}
}

func must[T any](v T, err error) T { try(err); return v }

func adm() sarama.ClusterAdmin { return must(sarama.NewClusterAdmin(brokers, conf())) }

func topic(name string, parts int32, entries map[string]string) string {
	a := adm()
	defer a.Close()
	m := map[string]*string{}
	for k, v := range entries {
		m[k] = &v
	}
	name = proof.Name(name)
	try(a.CreateTopic(name, &sarama.TopicDetail{NumPartitions: parts, ReplicationFactor: proof.Factor(), ConfigEntries: m}, false))
	return name
}

func producer(c *sarama.Config) sarama.SyncProducer { return must(sarama.NewSyncProducer(brokers, c)) }

func read(t string, part int32, from int64, n int) ([]*sarama.ConsumerMessage, error) {
	c := must(sarama.NewConsumer(brokers, conf()))
	defer c.Close()
	p, err := c.ConsumePartition(t, part, from)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var ms []*sarama.ConsumerMessage
	limit := time.After(15 * time.Second)
	for len(ms) < n {
		select {
		case m := <-p.Messages():
			ms = append(ms, m)
		case <-limit:
			return ms, fmt.Errorf("%d of %d records after 15 s", len(ms), n)
		}
	}
	return ms, nil
}

func main() {
	proof.Client = "sarama"
	brokers = []string{proof.Broker()}
	sarama.Logger = log.New(io.Discard, "", 0)
	for name, codec := range map[string]sarama.CompressionCodec{"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD} {
		proof.That("codec-"+name, func() (string, error) { return codecs(name, codec) })
	}
	proof.That("old-versions", oldVersions)
	proof.That("nulls", nulls)
	proof.That("big", big)
	proof.That("timestamps", timestamps)
	proof.That("offsets-by-time", byTime)
	proof.That("seek", seek)
	proof.That("idempotent", idempotent)
	proof.That("group", group)
	proof.That("static", static)
	proof.That("admin", admin)
	proof.Done()
}

func codecs(name string, codec sarama.CompressionCodec) (string, error) {
	t := topic("codec-"+name, 1, nil)
	c := conf()
	c.Producer.Compression = codec
	p := producer(c)
	defer p.Close()
	var ms []*sarama.ProducerMessage
	for i := range 300 {
		ms = append(ms, &sarama.ProducerMessage{Topic: t, Key: sarama.StringEncoder(fmt.Sprint(i)), Value: sarama.ByteEncoder(proof.Text(uint64(i), 300)), Headers: []sarama.RecordHeader{{Key: []byte("n"), Value: fmt.Append(nil, i)}}})
	}
	if err := p.SendMessages(ms); err != nil {
		return "", err
	}
	got, err := read(t, 0, sarama.OffsetOldest, 300)
	for i, m := range got {
		if m.Offset != int64(i) || string(m.Key) != fmt.Sprint(i) || !bytes.Equal(m.Value, proof.Text(uint64(i), 300)) || string(m.Headers[0].Value) != fmt.Sprint(i) {
			return "", fmt.Errorf("record %d came back different", i)
		}
	}
	return "300 records with keys and headers came back equal", err
}

// oldVersions: clients that speak older versions of each API, down to the oldest that Kafka 4 still serves.
func oldVersions() (string, error) {
	for _, v := range []sarama.KafkaVersion{sarama.V2_1_0_0, sarama.V2_4_0_0, sarama.V2_8_0_0, sarama.V3_3_0_0} {
		c := conf()
		c.Version = v
		a, err := sarama.NewClusterAdmin(brokers, c)
		if err != nil {
			return "", fmt.Errorf("%v: %w", v, err)
		}
		t := proof.Name("old-" + v.String())
		err = a.CreateTopic(t, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false)
		a.Close()
		if err != nil {
			return "", fmt.Errorf("%v: %w", v, err)
		}
		p, err := sarama.NewSyncProducer(brokers, c)
		if err != nil {
			return "", fmt.Errorf("%v: %w", v, err)
		}
		_, _, err = p.SendMessage(&sarama.ProducerMessage{Topic: t, Value: sarama.StringEncoder(v.String())})
		p.Close()
		if err != nil {
			return "", fmt.Errorf("produce as %v: %w", v, err)
		}
		k, err := sarama.NewConsumer(brokers, c)
		if err != nil {
			return "", err
		}
		pc, err := k.ConsumePartition(t, 0, sarama.OffsetOldest)
		if err != nil {
			return "", fmt.Errorf("consume as %v: %w", v, err)
		}
		select {
		case m := <-pc.Messages():
			if string(m.Value) != v.String() {
				err = fmt.Errorf("as %v: got %q", v, m.Value)
			}
		case <-time.After(10 * time.Second):
			err = fmt.Errorf("as %v: nothing after 10 s", v)
		}
		pc.Close()
		k.Close()
		if err != nil {
			return "", err
		}
	}
	return "create, produce, consume as a client of 2.1, 2.4, 2.8, 3.3", nil
}

func nulls() (string, error) {
	t := topic("nulls", 1, nil)
	p := producer(conf())
	defer p.Close()
	try(p.SendMessages([]*sarama.ProducerMessage{{Topic: t}, {Topic: t, Key: sarama.ByteEncoder{}, Value: nil}, {Topic: t, Key: nil, Value: sarama.ByteEncoder{}}}))
	got, err := read(t, 0, 0, 3)
	if err != nil {
		return "", err
	}
	if got[0].Key != nil || got[0].Value != nil || got[1].Value != nil || got[2].Key != nil || len(got[2].Value) != 0 {
		return "", fmt.Errorf("nulls changed: %v %v %v", got[0], got[1], got[2])
	}
	return "null keys and values stay null", nil
}

func big() (string, error) {
	t := topic("big", 1, map[string]string{"max.message.bytes": "2000000"})
	c := conf()
	c.Producer.MaxMessageBytes = 2000000
	p := producer(c)
	defer p.Close()
	_, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: t, Value: sarama.ByteEncoder(proof.Noise(1, 1<<20))})
	if err != nil {
		return "", err
	}
	got, err := read(t, 0, 0, 1)
	if err != nil || !bytes.Equal(got[0].Value, proof.Noise(1, 1<<20)) {
		return "", fmt.Errorf("1 MiB came back different: %v", err)
	}
	small := topic("big-default", 1, nil)
	_, _, err = p.SendMessage(&sarama.ProducerMessage{Topic: small, Value: sarama.ByteEncoder(proof.Noise(1, 1<<20))})
	if !errors.Is(err, sarama.ErrMessageSizeTooLarge) {
		return "", fmt.Errorf("default topic: %v, want MESSAGE_TOO_LARGE", err)
	}
	return "1 MiB record passed; a default topic refused it", nil
}

func timestamps() (string, error) {
	t := topic("ts", 1, nil)
	p := producer(conf())
	defer p.Close()
	want := time.UnixMilli(1700000000777)
	_, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: t, Value: sarama.StringEncoder("x"), Timestamp: want})
	if err != nil {
		return "", err
	}
	got, err := read(t, 0, 0, 1)
	if err != nil || !got[0].Timestamp.Equal(want) {
		return "", fmt.Errorf("got %v (%v)", got, err)
	}
	return "create time kept to the millisecond", nil
}

func fill(t string, parts int32, n int, at func(i int) time.Time) error {
	c := conf()
	c.Producer.Partitioner = sarama.NewManualPartitioner
	p := producer(c)
	defer p.Close()
	var ms []*sarama.ProducerMessage
	for i := range n {
		m := &sarama.ProducerMessage{Topic: t, Partition: int32(i) % parts, Value: sarama.StringEncoder(fmt.Sprint(i))}
		if at != nil {
			m.Timestamp = at(i)
		}
		ms = append(ms, m)
	}
	return p.SendMessages(ms)
}

func byTime() (string, error) {
	t := topic("bytime", 1, nil)
	base := time.Now().Add(-time.Hour).UnixMilli()
	for i := range 20 { // one batch each
		try(fill(t, 1, 1, func(int) time.Time { return time.UnixMilli(base + int64(i)*1000) }))
	}
	c := must(sarama.NewClient(brokers, conf()))
	defer c.Close()
	for _, q := range []struct{ ts, want int64 }{{base, 0}, {base + 1, 1}, {base + 10500, 11}, {base + 19001, -1}, {sarama.OffsetNewest, 20}, {sarama.OffsetOldest, 0}} {
		o, err := c.GetOffset(t, 0, q.ts)
		if err != nil || o != q.want {
			return "", fmt.Errorf("time %d: %d (%v), want %d", q.ts-base, o, err, q.want)
		}
	}
	return "exact, between, after the end, newest, oldest", nil
}

func seek() (string, error) {
	t := topic("seek", 1, nil)
	try(fill(t, 1, 100, nil))
	for _, at := range []int64{70, 3, 99} {
		got, err := read(t, 0, at, 1)
		if err != nil || got[0].Offset != at {
			return "", fmt.Errorf("from %d: %v (%v)", at, got, err)
		}
	}
	c := must(sarama.NewConsumer(brokers, conf()))
	defer c.Close()
	if _, err := c.ConsumePartition(t, 0, 101); !errors.Is(err, sarama.ErrOffsetOutOfRange) {
		return "", fmt.Errorf("from 101 of 100: %v, want OFFSET_OUT_OF_RANGE", err)
	}
	return "from 70, 3, 99; 101 of 100 is out of range", nil
}

func idempotent() (string, error) {
	t := topic("idem", 1, nil)
	c := conf()
	c.Producer.Idempotent = true
	c.Net.MaxOpenRequests = 1
	p := producer(c)
	defer p.Close()
	for k := range 20 {
		var ms []*sarama.ProducerMessage
		for i := range 50 {
			ms = append(ms, &sarama.ProducerMessage{Topic: t, Value: sarama.StringEncoder(fmt.Sprint(k*50 + i))})
		}
		try(p.SendMessages(ms))
	}
	got, err := read(t, 0, 0, 1000)
	for i, m := range got {
		if string(m.Value) != fmt.Sprint(i) {
			return "", fmt.Errorf("at offset %d value %s", i, m.Value)
		}
	}
	return "1000 records in order, once each", err
}

// member is a group member; it counts what it saw.
type member struct {
	cg     sarama.ConsumerGroup
	cancel context.CancelFunc
	done   chan struct{}
	mu     sync.Mutex
	seen   map[string]int
	own    int
	setups int
}

func (m *member) Setup(s sarama.ConsumerGroupSession) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.own, m.setups = 0, m.setups+1
	for _, ps := range s.Claims() {
		m.own += len(ps)
	}
	return nil
}
func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (m *member) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	for {
		select {
		case r, ok := <-c.Messages():
			if !ok {
				return nil
			}
			m.mu.Lock()
			m.seen[string(r.Value)]++
			m.mu.Unlock()
			s.MarkMessage(r, "")
		case <-s.Context().Done():
			return nil
		}
	}
}

func join(g, t, instance string) *member {
	c := conf()
	c.Consumer.Group.InstanceId = instance
	m := &member{cg: must(sarama.NewConsumerGroup(brokers, g, c)), seen: map[string]int{}, done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go func() {
		defer close(m.done)
		for ctx.Err() == nil {
			if err := m.cg.Consume(ctx, []string{t}, m); err != nil {
				time.Sleep(100 * time.Millisecond)
			}
		}
	}()
	return m
}

func (m *member) get() (own, setups, seen int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.own, m.setups, len(m.seen)
}

func (m *member) close() { m.cancel(); <-m.done; m.cg.Close() }

func wait(cond func() bool, what func() string) {
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			panic("after 20 s: " + what())
		}
	}
}

func group() (string, error) {
	t, g := topic("group", 4, nil), proof.Name("g")
	try(fill(t, 4, 400, nil))
	a := join(g, t, "")
	wait(func() bool { o, _, n := a.get(); return o == 4 && n == 400 }, func() string { o, _, n := a.get(); return fmt.Sprint(o, " partitions, records ", n) })
	b := join(g, t, "")
	wait(func() bool { x, _, _ := a.get(); y, _, _ := b.get(); return x == 2 && y == 2 }, func() string { return "not 2 and 2 partitions" })
	a.close()
	wait(func() bool { y, _, _ := b.get(); return y == 4 }, func() string { return "not 4 partitions after the other left" })
	try(fill(t, 4, 4, nil))
	wait(func() bool { _, _, n := b.get(); return n == 4 }, func() string { _, _, n := b.get(); return fmt.Sprint("4 new records expected, records seen: ", n) })
	b.close()
	return "4, 2+2, 4 partitions; committed offsets carried over", nil
}

func static() (string, error) {
	t, g := topic("static", 2, nil), proof.Name("g-static")
	a, b := join(g, t, "one"), join(g, t, "two")
	defer func() { b.close() }()
	wait(func() bool { x, _, _ := a.get(); y, _, _ := b.get(); return x == 1 && y == 1 }, func() string { return "not 1 and 1 partitions" })
	_, before, _ := b.get()
	a.close()
	a = join(g, t, "one")
	defer func() { a.close() }()
	wait(func() bool { x, _, _ := a.get(); return x == 1 }, func() string { return "the static member did not come back" })
	if _, after, _ := b.get(); after != before {
		return "", fmt.Errorf("the other member was rebalanced")
	}
	return "a static member came back without a rebalance of the other", nil
}

func admin() (string, error) {
	a := adm()
	defer a.Close()
	v := "100000"
	t := topic("admin", 2, map[string]string{"retention.ms": v})
	if err := a.CreateTopic(t, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false); !errors.Is(err, sarama.ErrTopicAlreadyExists) {
		return "", fmt.Errorf("create twice: %v", err)
	}
	try(a.CreatePartitions(t, 4, nil, false))
	wait(func() bool { d, err := a.DescribeTopics([]string{t}); return err == nil && len(d[0].Partitions) == 4 }, func() string { return "not 4 partitions" })
	w := "200000"
	try(a.IncrementalAlterConfig(sarama.TopicResource, t, map[string]sarama.IncrementalAlterConfigsEntry{"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &w}}, false))
	one := func() ([]sarama.ConfigEntry, error) {
		//lint:ignore SA1019 the call of most programs that exist
		return a.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: t, ConfigNames: []string{"retention.ms"}})
	}
	// Another broker of several may hear of a change a moment later.
	wait(func() bool { es, err := one(); return err == nil && len(es) == 1 && es[0].Value == w }, func() string { return "retention.ms was not altered" })
	try(a.AlterConfig(sarama.TopicResource, t, map[string]*string{"segment.bytes": &w2}, false))
	wait(func() bool {
		//lint:ignore SA1019 the call of most programs that exist
		es, err := a.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: t})
		return err == nil && len(es) > 0 && !slices.ContainsFunc(es, func(e sarama.ConfigEntry) bool {
			return e.Name == "retention.ms" && e.Value != "604800000" || e.Name == "segment.bytes" && e.Value != w2
		})
	}, func() string { return "AlterConfigs did not replace all" })
	bs, id, err := a.DescribeCluster()
	if err != nil || len(bs) != int(proof.Factor()) || !slices.ContainsFunc(bs, func(b *sarama.Broker) bool { return b.ID() == id }) {
		return "", fmt.Errorf("describe cluster: %v controller %d (%v)", bs, id, err)
	}
	try(fill(t, 4, 40, nil))
	try(a.DeleteRecords(t, map[int32]int64{0: 5}))
	got, err := read(t, 0, sarama.OffsetOldest, 1)
	if err != nil || got[0].Offset != 5 {
		return "", fmt.Errorf("oldest after DeleteRecords: %v (%v)", got, err)
	}
	dirs, err := a.DescribeLogDirs([]int32{bs[0].ID()})
	if err != nil || len(dirs[bs[0].ID()]) == 0 {
		return "", fmt.Errorf("describe log dirs: %v (%v)", dirs, err)
	}
	try(a.DeleteTopic(t))
	wait(func() bool { l, err := a.ListTopics(); _, there := l[t]; return err == nil && !there }, func() string { return "still listed" })
	return "create, partitions, incremental and whole config changes, cluster, delete records, log dirs, delete", nil
}

var w2 = "3000000"
