// Program franz proves what franz-go (twmb/franz-go) sees of the broker.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/milena-mq/milena/test/clients/go/proof"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var ctx = context.Background()

func client(opts ...kgo.Opt) *kgo.Client {
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(proof.Broker()), kgo.MetadataMinAge(50 * time.Millisecond), kgo.RecordRetries(8)}, opts...)...)
	if err != nil {
		panic(err)
	}
	return c
}

func topic(name string, parts int32, conf map[string]string) string {
	adm := kadm.NewClient(client())
	defer adm.Close()
	m := map[string]*string{}
	for k, v := range conf {
		m[k] = &v
	}
	name = proof.Name(name)
	r, err := adm.CreateTopic(ctx, parts, proof.Factor(), m, name)
	if err == nil {
		err = r.Err
	}
	if err != nil {
		panic(fmt.Sprintf("create topic %s: %v", name, err))
	}
	return name
}

// read returns n records of a topic from its start, or an error after 15 s.
func read(n int, opts ...kgo.Opt) ([]*kgo.Record, error) {
	c := client(append([]kgo.Opt{kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(300 * time.Millisecond)}, opts...)...)
	defer c.Close()
	return poll(c, n, 15*time.Second)
}

func poll(c *kgo.Client, n int, limit time.Duration) ([]*kgo.Record, error) {
	t, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var rs []*kgo.Record
	for len(rs) < n {
		fs := c.PollFetches(t)
		if err := fs.Err0(); err != nil {
			return rs, fmt.Errorf("%d of %d records: %w", len(rs), n, err)
		}
		for _, e := range fs.Errors() {
			return rs, fmt.Errorf("%s/%d after %d records: %w", e.Topic, e.Partition, len(rs), e.Err)
		}
		rs = append(rs, fs.Records()...)
	}
	return rs, nil
}

func main() {
	proof.Client = "franz-go"
	codecs()
	proof.That("nulls", nulls)
	proof.That("big", big)
	proof.That("timestamps", timestamps)
	proof.That("offsets-by-time", byTime)
	proof.That("seek", seek)
	proof.That("idempotent", idempotent)
	proof.That("recompress", recompress)
	proof.That("group", group)
	proof.That("static", static)
	proof.That("admin", admin)
	proof.That("names", names)
	proof.That("groups-admin", groupsAdmin)
	proof.That("unknown-topic", unknownTopic)
	proof.That("long-poll", longPoll)
	proof.Done()
}

func codecs() {
	for name, codec := range map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()} {
		proof.That("codec-"+name, func() (string, error) {
			t := topic("codec-"+name, 2, nil)
			c := client(kgo.ProducerBatchCompression(codec), kgo.DefaultProduceTopic(t), kgo.RecordPartitioner(kgo.ManualPartitioner()))
			defer c.Close()
			var rs []*kgo.Record
			for i := range 500 {
				rs = append(rs, &kgo.Record{Partition: int32(i % 2), Key: fmt.Appendf(nil, "k%d", i), Value: proof.Text(uint64(i), 400), Headers: []kgo.RecordHeader{{Key: "n", Value: fmt.Append(nil, i)}, {Key: "n", Value: []byte("again")}}})
			}
			if err := c.ProduceSync(ctx, rs...).FirstErr(); err != nil {
				return "", err
			}
			got, err := read(500, kgo.ConsumeTopics(t))
			if err != nil {
				return "", err
			}
			next := map[int32]int64{}
			for _, r := range got {
				i := int(r.Offset)*2 + int(r.Partition)
				if r.Offset != next[r.Partition] {
					return "", fmt.Errorf("partition %d: offset %d, want %d", r.Partition, r.Offset, next[r.Partition])
				}
				next[r.Partition]++
				if string(r.Key) != fmt.Sprintf("k%d", i) || !bytes.Equal(r.Value, proof.Text(uint64(i), 400)) || len(r.Headers) != 2 || string(r.Headers[0].Value) != fmt.Sprint(i) || string(r.Headers[1].Value) != "again" {
					return "", fmt.Errorf("record %d came back different", i)
				}
			}
			return "500 records with keys and two headers came back equal and in order", nil
		})
	}
}

func nulls() (string, error) {
	t := topic("nulls", 1, nil)
	c := client(kgo.DefaultProduceTopic(t))
	defer c.Close()
	in := []*kgo.Record{{Key: nil, Value: nil}, {Key: []byte{}, Value: nil}, {Key: nil, Value: []byte{}}, {Key: []byte("k"), Value: nil, Headers: []kgo.RecordHeader{{Key: "null"}, {Key: "empty", Value: []byte{}}, {Key: ""}}}}
	if err := c.ProduceSync(ctx, in...).FirstErr(); err != nil {
		return "", err
	}
	out, err := read(4, kgo.ConsumeTopics(t))
	if err != nil {
		return "", err
	}
	for i, r := range out {
		if (r.Key == nil) != (in[i].Key == nil) || (r.Value == nil) != (in[i].Value == nil) || len(r.Headers) != len(in[i].Headers) {
			return "", fmt.Errorf("record %d: key %v value %v", i, r.Key, r.Value)
		}
		for j, h := range r.Headers {
			if (h.Value == nil) != (in[i].Headers[j].Value == nil) {
				return "", fmt.Errorf("record %d header %q: null became %v", i, h.Key, h.Value)
			}
		}
	}
	return "null and empty keys, values, header values stay apart", nil
}

func big() (string, error) {
	t := topic("big", 1, map[string]string{"max.message.bytes": "2000000"})
	c := client(kgo.DefaultProduceTopic(t), kgo.ProducerBatchMaxBytes(2000000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	defer c.Close()
	for i := range 4 {
		if err := c.ProduceSync(ctx, &kgo.Record{Value: proof.Noise(uint64(i), 1<<20)}).FirstErr(); err != nil {
			return "", err
		}
	}
	// fetch.max.bytes and the partition limit are below one record: KIP-74 wants the first batch whole all the same.
	got, err := read(4, kgo.ConsumeTopics(t), kgo.FetchMaxBytes(100000), kgo.FetchMaxPartitionBytes(50000))
	if err != nil {
		return "", err
	}
	for i, r := range got {
		if !bytes.Equal(r.Value, proof.Noise(uint64(i), 1<<20)) {
			return "", fmt.Errorf("record %d came back different", i)
		}
	}
	small := topic("big-default", 1, nil)
	err = c.ProduceSync(ctx, &kgo.Record{Topic: small, Value: proof.Noise(1, 1<<20)}).FirstErr()
	if !errors.Is(err, kerr.MessageTooLarge) {
		return "", fmt.Errorf("1 MiB value on a topic with the default max.message.bytes: got %v, want MESSAGE_TOO_LARGE", err)
	}
	return "4 values of 1 MiB passed with fetch limits below one record; a default topic refused one with MESSAGE_TOO_LARGE", nil
}

func timestamps() (string, error) {
	t := topic("ts", 1, nil)
	c := client(kgo.DefaultProduceTopic(t))
	defer c.Close()
	want := time.UnixMilli(1600000000123)
	if err := c.ProduceSync(ctx, &kgo.Record{Timestamp: want, Value: []byte("a")}).FirstErr(); err != nil {
		return "", err
	}
	got, err := read(1, kgo.ConsumeTopics(t))
	if err != nil {
		return "", err
	}
	if !got[0].Timestamp.Equal(want) || got[0].Attrs.TimestampType() != 0 {
		return "", fmt.Errorf("create time: got %v type %d", got[0].Timestamp, got[0].Attrs.TimestampType())
	}
	la := topic("ts-append", 1, map[string]string{"message.timestamp.type": "LogAppendTime"})
	before := time.Now().Add(-time.Second)
	if err := c.ProduceSync(ctx, &kgo.Record{Topic: la, Timestamp: want, Value: []byte("a")}).FirstErr(); err != nil {
		return "", err
	}
	if got, err = read(1, kgo.ConsumeTopics(la)); err != nil {
		return "", err
	}
	if got[0].Timestamp.Before(before) || got[0].Attrs.TimestampType() != 1 {
		return "", fmt.Errorf("log append time: got %v type %d", got[0].Timestamp, got[0].Attrs.TimestampType())
	}
	fut := c.ProduceSync(ctx, &kgo.Record{Topic: t, Timestamp: time.Now().Add(3 * time.Hour), Value: []byte("a")}).FirstErr()
	if !errors.Is(fut, kerr.InvalidTimestamp) {
		return "", fmt.Errorf("three hours ahead: got %v, want INVALID_TIMESTAMP (message.timestamp.after.max.ms is one hour)", fut)
	}
	return "create time kept to the millisecond, append time set by the broker, three hours ahead refused", nil
}

func byTime() (string, error) {
	t := topic("bytime", 1, nil)
	c := client(kgo.DefaultProduceTopic(t))
	defer c.Close()
	base := time.Now().Add(-time.Hour).UnixMilli()
	for i := range int64(50) {
		if err := c.ProduceSync(ctx, &kgo.Record{Timestamp: time.UnixMilli(base + i*1000), Value: []byte("v")}).FirstErr(); err != nil {
			return "", err
		}
	}
	adm := kadm.NewClient(c)
	for _, q := range []struct{ ms, want int64 }{{base - 5000, 0}, {base, 0}, {base + 1, 1}, {base + 20000, 20}, {base + 20500, 21}, {base + 49000, 49}} {
		l, err := adm.ListOffsetsAfterMilli(ctx, q.ms, t)
		if err != nil {
			return "", err
		}
		if o, _ := l.Lookup(t, 0); o.Offset != q.want || o.Err != nil {
			return "", fmt.Errorf("time base+%d: offset %d (%v), want %d", q.ms-base, o.Offset, o.Err, q.want)
		}
	}
	// The protocol says -1 for a time after the last record; kadm hides that by asking for the end.
	for _, q := range []struct{ ts, want int64 }{{base + 49001, -1}, {-1, 50}, {-2, 0}, {-3, 49}} {
		o, ts, err := listOffset(c, t, q.ts)
		if err != nil || o != q.want {
			return "", fmt.Errorf("ListOffsets timestamp %d: offset %d (%v), want %d", q.ts, o, err, q.want)
		}
		if q.ts == -3 && ts != base+49000 {
			return "", fmt.Errorf("ListOffsets max timestamp: %d, want %d", ts, base+49000)
		}
	}
	got, err := read(1, kgo.ConsumeTopics(t), kgo.ConsumeResetOffset(kgo.NewOffset().AfterMilli(base+20500)))
	if err != nil || got[0].Offset != 21 {
		return "", fmt.Errorf("consuming from a time: %v %v", got, err)
	}
	return "before, exact, between, last, after the end, earliest, latest, max timestamp", nil
}

func listOffset(c *kgo.Client, t string, ts int64) (int64, int64, error) {
	return listOffsetP(c, t, 0, ts)
}

func listOffsetP(c *kgo.Client, t string, part int32, ts int64) (int64, int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = t
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Timestamp, rp.Partition = ts, part
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, c)
	if err != nil {
		return 0, 0, err
	}
	p := resp.Topics[0].Partitions[0]
	return p.Offset, p.Timestamp, kerr.ErrorForCode(p.ErrorCode)
}

func fill(t string, n int) error {
	c := client(kgo.DefaultProduceTopic(t), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	defer c.Close()
	var rs []*kgo.Record
	for i := range n {
		rs = append(rs, &kgo.Record{Value: fmt.Append(nil, i)})
	}
	return c.ProduceSync(ctx, rs...).FirstErr()
}

func seek() (string, error) {
	t := topic("seek", 1, nil)
	if err := fill(t, 100); err != nil {
		return "", err
	}
	c := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{t: {0: kgo.NewOffset().At(90)}}))
	defer c.Close()
	for _, at := range []int64{90, 0, 55, 99} {
		c.SetOffsets(map[string]map[int32]kgo.EpochOffset{t: {0: {Epoch: -1, Offset: at}}})
		got, err := poll(c, 1, 10*time.Second)
		if err != nil || got[0].Offset != at || string(got[0].Value) != fmt.Sprint(at) {
			return "", fmt.Errorf("seek to %d: %v %v", at, got, err)
		}
	}
	r := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{t: {0: kgo.NewOffset().At(5000)}}), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer r.Close()
	got, err := poll(r, 100, 10*time.Second)
	if err != nil || got[0].Offset != 0 {
		return "", fmt.Errorf("offset 5000 is out of range and should reset to the start: %v", err)
	}
	return "seeks to 90, 0, 55, 99; offset 5000 answered OFFSET_OUT_OF_RANGE and reset to the start", nil
}

func idempotent() (string, error) {
	t := topic("idem", 3, nil)
	c := client(kgo.DefaultProduceTopic(t), kgo.ProducerLinger(time.Millisecond))
	defer c.Close()
	errs := make(chan error, 3000)
	for i := range 3000 {
		c.Produce(ctx, &kgo.Record{Key: fmt.Append(nil, i%7), Value: fmt.Append(nil, i)}, func(_ *kgo.Record, err error) { errs <- err })
	}
	for range 3000 {
		if err := <-errs; err != nil {
			return "", err
		}
	}
	got, err := read(3000, kgo.ConsumeTopics(t))
	if err != nil {
		return "", err
	}
	seen := map[string]bool{}
	for _, r := range got {
		if seen[string(r.Value)] || r.ProducerID < 0 {
			return "", fmt.Errorf("value %s twice, or without a producer id", r.Value)
		}
		seen[string(r.Value)] = true
	}
	id, epoch, err := c.ProducerID(ctx)
	if err != nil || id < 0 {
		return "", fmt.Errorf("producer id %d epoch %d: %v", id, epoch, err)
	}
	adm := kadm.NewClient(c)
	var s kadm.TopicsSet
	s.Add(t, 0, 1, 2)
	d, err := adm.DescribeProducers(ctx, s)
	if err != nil {
		return "", fmt.Errorf("DescribeProducers: %w", err)
	}
	n := 0
	d.EachProducer(func(p kadm.DescribedProducer) {
		if p.ProducerID == id {
			n++
		}
	})
	if n != 3 {
		return "", fmt.Errorf("DescribeProducers names producer %d in %d of 3 partitions", id, n)
	}
	return "3000 pipelined records once each, the producer is listed in all 3 partitions", nil
}

func recompress() (string, error) {
	t := topic("recomp", 1, map[string]string{"compression.type": "zstd"})
	c := client(kgo.DefaultProduceTopic(t), kgo.ProducerBatchCompression(kgo.GzipCompression()))
	defer c.Close()
	var rs []*kgo.Record
	for i := range 100 {
		rs = append(rs, &kgo.Record{Value: proof.Text(uint64(i), 300)})
	}
	if err := c.ProduceSync(ctx, rs...).FirstErr(); err != nil {
		return "", err
	}
	got, err := read(100, kgo.ConsumeTopics(t))
	if err != nil {
		return "", err
	}
	for i, r := range got {
		if r.Attrs.CompressionType() != 4 || !bytes.Equal(r.Value, proof.Text(uint64(i), 300)) {
			return "", fmt.Errorf("record %d: codec %d, want 4 (zstd)", i, r.Attrs.CompressionType())
		}
	}
	return "gzip batches became zstd on a topic with compression.type=zstd", nil
}

// wait polls cond for at most limit.
func wait(limit time.Duration, cond func() (bool, string)) error {
	end := time.Now().Add(limit)
	for {
		ok, s := cond()
		if ok {
			return nil
		}
		if time.Now().After(end) {
			return errors.New(s)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func unknownTopic() (string, error) {
	c := client(kgo.UnknownTopicRetries(0), kgo.DefaultProduceTopic(proof.Name("nowhere")))
	defer c.Close()
	adm := kadm.NewClient(c)
	m, err := adm.Metadata(ctx, proof.Name("nowhere"))
	if err != nil {
		return "", err
	}
	if e := m.Topics[proof.Name("nowhere")].Err; !errors.Is(e, kerr.UnknownTopicOrPartition) {
		return "", fmt.Errorf("metadata of a missing topic: %v, want UNKNOWN_TOPIC_OR_PARTITION", e)
	}
	auto := client(kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic(proof.Name("auto")))
	defer auto.Close()
	if err := auto.ProduceSync(ctx, &kgo.Record{Value: []byte("x")}).FirstErr(); err != nil {
		return "", fmt.Errorf("auto creation: %w", err)
	}
	return "a missing topic is UNKNOWN_TOPIC_OR_PARTITION, and created when the client allows it", nil
}

func longPoll() (string, error) {
	t := topic("poll", 1, nil)
	c := client(kgo.ConsumeTopics(t), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(5*time.Second), kgo.FetchMinBytes(1))
	defer c.Close()
	p := client(kgo.DefaultProduceTopic(t), kgo.ProducerLinger(0))
	defer p.Close()
	if err := p.ProduceSync(ctx, &kgo.Record{Value: []byte("first")}).FirstErr(); err != nil {
		return "", err
	}
	if _, err := poll(c, 1, 10*time.Second); err != nil {
		return "", err
	}
	time.Sleep(600 * time.Millisecond) // the consumer now waits inside the broker
	begin := time.Now()
	if err := p.ProduceSync(ctx, &kgo.Record{Value: []byte("second")}).FirstErr(); err != nil {
		return "", err
	}
	if _, err := poll(c, 1, 10*time.Second); err != nil {
		return "", err
	}
	if d := time.Since(begin); d > time.Second {
		return "", fmt.Errorf("a waiting fetch got a new record after %v", d)
	}
	return fmt.Sprintf("a waiting fetch got a new record in %v", time.Since(begin).Round(time.Millisecond)), nil
}
