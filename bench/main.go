// Program bench measures a running broker from outside: start, memory, connections, partitions, throughput.
// It prints figures, never verdicts on a clock; docs/benchmarks.md keeps those worth keeping, with the command.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	ctx  = context.Background()
	kind = env("BROKER", "milena")
	root string
)

func env(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

func envInt(name string, def int) int {
	n, err := strconv.Atoi(env(name, strconv.Itoa(def)))
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s=%s is not a number\n", name, os.Getenv(name))
		os.Exit(2)
	}
	return n
}

func say(name, format string, args ...any) {
	fmt.Printf("bench %-12s %s: %s\n", kind, name, fmt.Sprintf(format, args...))
}

func try(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	root, _ = filepath.Abs(env("ROOT", "."))
	all := []struct {
		name string
		fn   func()
	}{{"start", start}, {"conns", conns}, {"partitions", manyPartitions}, {"throughput", throughput}, {"raw", raw}, {"recovery", recovery}, {"txn", txns}}
	want, bad := os.Args[1:], 0
	for _, b := range all {
		if len(want) > 0 && !slices.Contains(want, b.name) {
			continue
		}
		func() {
			defer func() {
				if p := recover(); p != nil {
					bad++
					fmt.Printf("bench %-12s %s: FAILED: %v\n", kind, b.name, p)
				}
			}()
			b.fn()
		}()
	}
	if bad > 0 {
		os.Exit(1)
	}
}

func up(extra ...string) *broker {
	extra = append(extra, strings.Fields(os.Getenv("EXTRA"))...)
	b, err := newBroker(kind, root, extra...)
	try(err)
	_, err = b.start(60 * time.Second)
	try(err)
	return b
}

func client(b *broker, opts ...kgo.Opt) *kgo.Client {
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.addr()), kgo.MetadataMinAge(100 * time.Millisecond)}, opts...)...)
	try(err)
	return c
}

func createTopic(b *broker, name string, parts int) {
	c := client(b)
	defer c.Close()
	t, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	adm := kadm.NewClient(c)
	_, err := adm.CreateTopic(t, int32(parts), 1, nil, name)
	try(err)
	for { // Apache Kafka answers before its partitions lead
		l, err := adm.ListEndOffsets(t, name)
		if err == nil && l.Error() == nil && len(l[name]) == parts {
			return
		}
		try(t.Err())
		time.Sleep(20 * time.Millisecond)
	}
}

// start: ten times an empty directory to the first answered ApiVersions, then memory when idle.
func start() {
	var ds []time.Duration
	for i := range 10 {
		b, err := newBroker(kind, root)
		try(err)
		d, err := b.start(60 * time.Second)
		try(err)
		ds = append(ds, d)
		if i == 9 {
			before := b.cpu()
			time.Sleep(5 * time.Second)
			say("idle", "%.1f MiB resident, %.2f %% of a core over 5 s (target under 60 MiB)", float64(b.rss())/(1<<20), 100*(b.cpu()-before).Seconds()/5)
		}
		b.remove()
	}
	slices.Sort(ds)
	say("start", "empty broker to first ApiVersions: median %d ms, %d to %d, 10 runs (target under 400)", ds[5].Milliseconds(), ds[0].Milliseconds(), ds[9].Milliseconds())
}

// conns: CONNS connections that have said hello and wait; what each costs in memory.
func conns() {
	n := envInt("CONNS", 5000)
	b := up()
	defer b.remove()
	time.Sleep(time.Second)
	before := b.rss()
	var cs []net.Conn
	for range n {
		c, err := dial(b.addr())
		try(err)
		cs = append(cs, c)
	}
	time.Sleep(3 * time.Second)
	cpu := b.cpu()
	time.Sleep(5 * time.Second)
	say("conns", "%d idle connections: %.1f KiB each (%.1f MiB in all, target under 40 KiB), %.2f %% of a core", n, float64(b.rss()-before)/1024/float64(n), float64(b.rss())/(1<<20), 100*(b.cpu()-cpu).Seconds()/5)
	for _, c := range cs {
		c.Close()
	}
}

// manyPartitions: PARTITIONS partitions on one broker, idle.
func manyPartitions() {
	n := envInt("PARTITIONS", 10000)
	b := up()
	defer b.remove()
	time.Sleep(time.Second)
	before, begin := b.rss(), time.Now()
	for i := 0; i < n; i += 1000 {
		createTopic(b, fmt.Sprintf("many-%d", i/1000), min(1000, n-i))
	}
	took := time.Since(begin)
	time.Sleep(5 * time.Second)
	cpu := b.cpu()
	time.Sleep(10 * time.Second)
	used := b.cpu() - cpu
	say("partitions", "%d idle partitions (created in %.1f s): %.1f KiB each (target under 20), %.2f %% of a core over 10 s (target under 2)", n, took.Seconds(), float64(b.rss()-before)/1024/float64(n), 100*used.Seconds()/10)
	b.stop(syscall.SIGKILL)
	d, err := b.start(2 * time.Minute)
	try(err)
	say("partitions", "start after kill -9 with %d empty partitions: %d ms", n, d.Milliseconds())
	// Every partition is written just before the end: the worst case of a clean stop.
	c := client(b, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(20*time.Millisecond))
	for i := range n {
		c.Produce(ctx, &kgo.Record{Topic: fmt.Sprintf("many-%d", i/1000), Partition: int32(i % 1000), Value: []byte("one")}, func(_ *kgo.Record, err error) { try(err) })
	}
	try(c.Flush(ctx))
	c.Close()
	begin = time.Now()
	b.stop(syscall.SIGTERM)
	took = time.Since(begin)
	d, err = b.start(2 * time.Minute)
	try(err)
	say("partitions", "SIGTERM with %d partitions written just before: %.2f s (limit 5); start after it: %d ms", n, took.Seconds(), d.Milliseconds())
}

// noise is payload that does not compress: records take slices of it.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// throughput: RECORDS values of 1 KiB by one franz-go client, then read back, for several partition counts.
// The ceilings are those of the measured skeleton with a durable answer (measured.md 10 and part C), consume 0.77-1.36 M/s.
func throughput() {
	n := envInt("RECORDS", 500000)
	pool := noise(4 << 20)
	for _, f := range strings.Fields(env("PARTS", "1 12 100 1000")) {
		parts, err := strconv.Atoi(f)
		try(err)
		b := up()
		topic := "tp-" + f
		createTopic(b, topic, parts)
		c := client(b, kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(50000), kgo.ProducerBatchMaxBytes(1000000),
			kgo.RecordPartitioner(kgo.UniformBytesPartitioner(64<<10, false, false, nil)), kgo.ProducerLinger(5*time.Millisecond))
		send := func(n int) {
			for i := range n {
				at := (i * 1024) & (2<<20 - 1)
				c.Produce(ctx, &kgo.Record{Value: pool[at : at+1024]}, func(_ *kgo.Record, err error) {
					if err != nil {
						fmt.Println("produce:", err)
					}
				})
			}
			try(c.Flush(ctx))
		}
		send(n / 20) // connections, producer id and files exist when the clock starts
		cpu, begin := b.cpu(), time.Now()
		send(n)
		d, used := time.Since(begin), b.cpu()-cpu
		c.Close()
		gb := float64(n) * 1024 / 1e9
		top := ceiling(parts)
		say("produce", "%d partitions, %d x 1 KiB, acks=all: %.0f k records/s, %.0f MB/s, %.2f broker cpu-s/GB, %.2f of the skeleton's durable %.0f k/s", parts, n, float64(n)/d.Seconds()/1e3, gb*1e3/d.Seconds(), used.Seconds()/gb, float64(n)/d.Seconds()/top, top/1e3)
		cpu, begin = b.cpu(), time.Now()
		got := consume(b, topic, n)
		d, used = time.Since(begin), b.cpu()-cpu
		gb = float64(got) * 1024 / 1e9
		say("consume", "%d partitions, %d x 1 KiB: %.0f k records/s, %.0f MB/s, %.2f broker cpu-s/GB, %.2f of the skeleton's 1.0 M/s; broker %.0f MiB resident", parts, got, float64(got)/d.Seconds()/1e3, gb*1e3/d.Seconds(), used.Seconds()/gb, float64(got)/d.Seconds()/1e6, float64(b.rss())/(1<<20))
		b.remove()
	}
}

// ceiling is what the skeleton reached with fdatasync before the answer, in records/s (measured.md, part C and section 0).
func ceiling(parts int) float64 {
	switch {
	case parts <= 1:
		return 990e3
	case parts <= 12:
		return 901e3
	case parts <= 100:
		return 590e3
	}
	return 224e3
}

func consume(b *broker, topic string, n int) int {
	r := client(b, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxPartitionBytes(4<<20))
	defer r.Close()
	t, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	got := 0
	for got < n {
		fs := r.PollFetches(t)
		try(fs.Err0())
		got += fs.NumRecords()
	}
	return got
}

// recovery: PARTS_RECOVERY partitions with DATA_MB of data, kill -9, and how long until it serves: the first ApiVersions,
// then a record produced to, and one read from, a partition of the old data.
func recovery() {
	parts, mb := envInt("PARTS_RECOVERY", 1000), envInt("DATA_MB", 1024)
	b := up()
	defer b.remove()
	createTopic(b, "rec", parts)
	c := client(b, kgo.DefaultProduceTopic("rec"), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(2000), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.ProducerLinger(20*time.Millisecond))
	pool := noise(4 << 20)
	for i := range mb * 16 {
		at := (i * 64 << 10) & (2<<20 - 1)
		c.Produce(ctx, &kgo.Record{Value: pool[at : at+64<<10]}, nil)
	}
	try(c.Flush(ctx))
	c.Close()
	b.stop(syscall.SIGKILL)
	begin := time.Now()
	first, err := b.start(5 * time.Minute)
	try(err)
	p := client(b, kgo.DefaultProduceTopic("rec"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer p.Close()
	try(p.ProduceSync(ctx, &kgo.Record{Partition: int32(parts - 1), Value: []byte("after")}).FirstErr())
	wrote := time.Since(begin)
	consume(b, "rec", 1)
	say("recovery", "%d partitions, %d MiB, kill -9: first ApiVersions after %d ms, a durable write after %d ms, a read after %d ms (target under 3000 with 1000 partitions and 10 GiB); %.0f MiB resident", parts, mb, first.Milliseconds(), wrote.Milliseconds(), time.Since(begin).Milliseconds(), float64(b.rss())/(1<<20))
}
