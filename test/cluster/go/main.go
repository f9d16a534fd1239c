// Program go is a franz-go client that produces one record to each partition every 20 ms, reads everything, and prints
// a line for each acknowledgement ("a PARTITION NANOSECONDS"), each record read ("c ...") and each record given up ("e ...").
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: go BOOTSTRAP TOPIC PARTITIONS [TIMEOUT-MS]")
		os.Exit(2)
	}
	topic := os.Args[2]
	parts, _ := strconv.Atoi(os.Args[3])
	timeout := 0
	if len(os.Args) > 4 {
		timeout, _ = strconv.Atoi(os.Args[4])
	}
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	say := func(what string, part int32, text any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(out, what, part, text)
		out.Flush()
	}
	from := map[int32]kgo.Offset{}
	for p := range int32(parts) {
		from[p] = kgo.NewOffset().AtEnd()
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(os.Args[1], ",")...),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		// The library's own pause between two metadata refreshes is longer than what is measured here.
		kgo.MetadataMinAge(100 * time.Millisecond),
		// It notices that a connection has been closed when it uses it the next time, and rests for a second then: one to a
		// broker that was restarted and led nothing since must not be kept for its 20 s.
		kgo.ConnIdleTimeout(time.Second),
	}
	if timeout > 0 { // of a whole request: what the broker may take and what the network may take beside it
		half := time.Duration(timeout) * time.Millisecond / 2
		opts = append(opts, kgo.ProduceRequestTimeout(half), kgo.FetchMaxWait(half), kgo.RequestTimeoutOverhead(half))
	}
	if os.Getenv("SILENCE_DEBUG") != "" {
		opts = append(opts, kgo.WithLogger(kgo.BasicLogger(os.Stderr, kgo.LogLevelDebug, func() string { return time.Now().Format("15:04:05.000 ") })))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		for {
			fs := cl.PollFetches(context.Background())
			now := time.Now().UnixNano()
			fs.EachRecord(func(r *kgo.Record) { say("c", r.Partition, now) })
		}
	}()
	for range time.Tick(20 * time.Millisecond) {
		for p := range int32(parts) {
			cl.Produce(context.Background(), &kgo.Record{Topic: topic, Partition: p, Value: []byte("letter")}, func(_ *kgo.Record, err error) {
				if err != nil {
					say("e", p, err)
					return
				}
				say("a", p, time.Now().UnixNano())
			})
		}
	}
}
