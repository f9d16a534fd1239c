// Program kafkago proves what segmentio/kafka-go sees of the broker.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/milena-mq/milena/test/clients/go/proof"
	"github.com/segmentio/kafka-go"
)

var client *kafka.Client

func limit(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	context.AfterFunc(ctx, cancel)
	return ctx
}

func topic(name string, parts int, conf ...kafka.ConfigEntry) string {
	name = proof.Name(name)
	r, err := client.CreateTopics(limit(20*time.Second), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: name, NumPartitions: parts, ReplicationFactor: int(proof.Factor()), ConfigEntries: conf}}})
	if err == nil {
		err = r.Errors[name]
	}
	if err != nil {
		panic(fmt.Sprintf("create %s: %v", name, err))
	}
	return name
}

func produce(t string, codec kafka.Compression, ms ...kafka.Message) error {
	w := &kafka.Writer{Addr: kafka.TCP(proof.Broker()), Topic: t, Compression: codec, RequiredAcks: kafka.RequireAll, BatchTimeout: 10 * time.Millisecond, BatchBytes: 2000000, Balancer: &kafka.RoundRobin{}}
	defer w.Close()
	return w.WriteMessages(limit(20*time.Second), ms...)
}

func read(t string, from int64, n int) ([]kafka.Message, error) {
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{proof.Broker()}, Topic: t, MaxWait: 200 * time.Millisecond, MaxBytes: 5000000})
	defer r.Close()
	if err := r.SetOffset(from); err != nil {
		return nil, err
	}
	ctx := limit(15 * time.Second)
	var ms []kafka.Message
	for len(ms) < n {
		m, err := r.ReadMessage(ctx)
		if err != nil {
			return ms, fmt.Errorf("%d of %d records: %w", len(ms), n, err)
		}
		ms = append(ms, m)
	}
	return ms, nil
}

func main() {
	proof.Client = "kafka-go"
	client = &kafka.Client{Addr: kafka.TCP(proof.Broker()), Timeout: 20 * time.Second}
	for name, codec := range map[string]kafka.Compression{"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd} {
		proof.That("codec-"+name, func() (string, error) { return codecs(name, codec) })
	}
	proof.That("nulls", nulls)
	proof.That("big", big)
	proof.That("timestamps-and-offsets-by-time", byTime)
	proof.That("seek", seek)
	proof.That("group", group)
	proof.That("admin", admin)
	proof.Done()
}

func codecs(name string, codec kafka.Compression) (string, error) {
	t := topic("codec-"+name, 1)
	var ms []kafka.Message
	for i := range 300 {
		ms = append(ms, kafka.Message{Key: fmt.Append(nil, "k", i), Value: proof.Text(uint64(i), 300), Headers: []kafka.Header{{Key: "n", Value: fmt.Append(nil, i)}}})
	}
	if err := produce(t, codec, ms...); err != nil {
		return "", err
	}
	got, err := read(t, 0, 300)
	for i, m := range got {
		if m.Offset != int64(i) || !bytes.Equal(m.Key, ms[i].Key) || !bytes.Equal(m.Value, ms[i].Value) || len(m.Headers) != 1 || string(m.Headers[0].Value) != fmt.Sprint(i) {
			return "", fmt.Errorf("record %d came back different", i)
		}
	}
	return "300 records with keys and headers came back equal", err
}

func nulls() (string, error) {
	t := topic("nulls", 1)
	if err := produce(t, 0, kafka.Message{}, kafka.Message{Key: []byte("k")}, kafka.Message{Value: []byte("v")}); err != nil {
		return "", err
	}
	got, err := read(t, 0, 3)
	if err != nil {
		return "", err
	}
	if got[0].Key != nil || got[0].Value != nil || got[1].Value != nil || got[2].Key != nil {
		return "", fmt.Errorf("nulls changed: %v", got)
	}
	return "null keys and values stay null", nil
}

func big() (string, error) {
	t := topic("big", 1, kafka.ConfigEntry{ConfigName: "max.message.bytes", ConfigValue: "2000000"})
	if err := produce(t, 0, kafka.Message{Value: proof.Noise(1, 1<<20)}); err != nil {
		return "", err
	}
	got, err := read(t, 0, 1)
	if err != nil || !bytes.Equal(got[0].Value, proof.Noise(1, 1<<20)) {
		return "", fmt.Errorf("1 MiB came back different: %v", err)
	}
	if err := produce(topic("big-default", 1), 0, kafka.Message{Value: proof.Noise(1, 1<<20)}); err == nil || !strings.Contains(err.Error(), "[10]") { // WriteErrors does not unwrap
		return "", fmt.Errorf("default topic: %v, want MESSAGE_TOO_LARGE", err)
	}
	return "1 MiB passed; a default topic refused it", nil
}

func byTime() (string, error) {
	t := topic("bytime", 1)
	base := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	for i := range 10 {
		if err := produce(t, 0, kafka.Message{Time: base.Add(time.Duration(i) * time.Second), Value: []byte("v")}); err != nil {
			return "", err
		}
	}
	got, err := read(t, 0, 10)
	if err != nil || !got[9].Time.Equal(base.Add(9*time.Second)) {
		return "", fmt.Errorf("times changed: %v", err)
	}
	r, err := client.ListOffsets(limit(10*time.Second), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{t: {kafka.FirstOffsetOf(0), kafka.LastOffsetOf(0), kafka.TimeOffsetOf(0, base.Add(4500*time.Millisecond))}}})
	if err != nil {
		return "", err
	}
	p := r.Topics[t][0]
	if p.Error != nil || p.FirstOffset != 0 || p.LastOffset != 10 || len(p.Offsets) != 1 {
		return "", fmt.Errorf("list offsets: %+v", p)
	}
	for o := range p.Offsets {
		if o != 5 {
			return "", fmt.Errorf("base+4.5 s: offset %d, want 5", o)
		}
	}
	return "create time kept, first, last, between two times", nil
}

func fill(t string, n int) error {
	var ms []kafka.Message
	for i := range n {
		ms = append(ms, kafka.Message{Value: fmt.Append(nil, i)})
	}
	return produce(t, 0, ms...)
}

func seek() (string, error) {
	t := topic("seek", 1)
	if err := fill(t, 100); err != nil {
		return "", err
	}
	for _, at := range []int64{33, 0, 99, kafka.FirstOffset} {
		got, err := read(t, at, 1)
		if err != nil || got[0].Offset != max(at, 0) {
			return "", fmt.Errorf("from %d: %v (%v)", at, got, err)
		}
	}
	return "from 33, 0, 99, first", nil
}

type member struct {
	r    *kafka.Reader
	mu   sync.Mutex
	seen map[string]int
	stop context.CancelFunc
	done chan struct{}
}

func join(g, t string) *member {
	ctx, stop := context.WithCancel(context.Background())
	m := &member{seen: map[string]int{}, stop: stop, done: make(chan struct{})}
	m.r = kafka.NewReader(kafka.ReaderConfig{Brokers: []string{proof.Broker()}, GroupID: g, Topic: t, MaxWait: 200 * time.Millisecond, HeartbeatInterval: 300 * time.Millisecond, StartOffset: kafka.FirstOffset, RebalanceTimeout: 5 * time.Second, JoinGroupBackoff: 300 * time.Millisecond})
	go func() {
		defer close(m.done)
		for {
			r, err := m.r.ReadMessage(ctx)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.seen[string(r.Value)]++
			m.mu.Unlock()
		}
	}()
	return m
}

func (m *member) n() int { m.mu.Lock(); defer m.mu.Unlock(); return len(m.seen) }
func (m *member) leave() { m.stop(); <-m.done; m.r.Close() }

func wait(cond func() bool, what func() string) error {
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("after 20 s: " + what())
		}
	}
	return nil
}

func owned(g string) (state string, perMember []int) {
	r, err := client.DescribeGroups(limit(5*time.Second), &kafka.DescribeGroupsRequest{GroupIDs: []string{g}})
	if err != nil || len(r.Groups) == 0 {
		return fmt.Sprint(err), nil
	}
	for _, m := range r.Groups[0].Members {
		n := 0
		for _, t := range m.MemberAssignments.Topics {
			n += len(t.Partitions)
		}
		perMember = append(perMember, n)
	}
	return r.Groups[0].GroupState, perMember
}

func group() (string, error) {
	t, g := topic("group", 4), proof.Name("g")
	if err := fill(t, 400); err != nil {
		return "", err
	}
	is := func(want ...int) func() bool {
		return func() bool { s, o := owned(g); return s == "Stable" && fmt.Sprint(o) == fmt.Sprint(want) }
	}
	say := func() string { s, o := owned(g); return fmt.Sprint("the group is ", s, o) }
	a := join(g, t)
	if err := wait(func() bool { return is(4)() && a.n() == 400 }, say); err != nil {
		return "", fmt.Errorf("one member: %w, %d records", err, a.n())
	}
	b := join(g, t)
	if err := wait(is(2, 2), say); err != nil {
		return "", fmt.Errorf("two members: %w", err)
	}
	a.leave()
	if err := wait(is(4), say); err != nil {
		return "", fmt.Errorf("one left: %w", err)
	}
	if err := fill(t, 8); err != nil {
		return "", err
	}
	if err := wait(func() bool { return b.n() == 8 }, func() string { return fmt.Sprint(b.n(), " of 8 new records") }); err != nil {
		return "", err
	}
	b.leave()
	return "4, 2+2, 4 partitions as the coordinator describes them; committed offsets carried over", nil
}

func admin() (string, error) {
	t := topic("admin", 2)
	ctx := limit(30 * time.Second)
	r, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: t, NumPartitions: 1, ReplicationFactor: 1}}})
	if err != nil || !errors.Is(r.Errors[t], kafka.TopicAlreadyExists) {
		return "", fmt.Errorf("create twice: %v %v", err, r)
	}
	p, err := client.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: t, Count: 3}}})
	if err != nil || p.Errors[t] != nil {
		return "", fmt.Errorf("create partitions: %v %v", err, p)
	}
	c, err := client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: t, Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "retention.ms", Value: "222222", ConfigOperation: kafka.ConfigOperationSet}}}}})
	if err != nil || c.Resources[0].Error != nil {
		return "", fmt.Errorf("alter configs: %v %v", err, c)
	}
	if err := wait(func() bool {
		d, err := client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: t, ConfigNames: []string{"retention.ms"}}}})
		m, e2 := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{t}})
		return err == nil && e2 == nil && len(d.Resources[0].ConfigEntries) == 1 && d.Resources[0].ConfigEntries[0].ConfigValue == "222222" && len(m.Topics[0].Partitions) == 3
	}, func() string { return "retention.ms=222222 and 3 partitions are not described" }); err != nil {
		return "", err
	}
	d, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{t}})
	if err != nil || d.Errors[t] != nil {
		return "", fmt.Errorf("delete: %v %v", err, d)
	}
	return "create, exists, grow, incremental configs, describe, delete", wait(func() bool {
		m, err := client.Metadata(ctx, &kafka.MetadataRequest{})
		for _, x := range m.Topics {
			if x.Name == t {
				return false
			}
		}
		return err == nil
	}, func() string { return "still listed" })
}
