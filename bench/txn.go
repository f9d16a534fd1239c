package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// txns: transactions a second of one franz-go producer, one after the other, of 10 and of 100 records of 100 bytes over 4
// partitions. Both brokers run at once and take turns, so that a busy machine slows both: the ratio is what counts.
// Milena syncs before every answer, Apache Kafka has its defaults.
func txns() {
	seconds := time.Duration(envInt("TXN_SECONDS", 5)) * time.Second
	rounds := envInt("TXN_ROUNDS", 3)
	var names []string
	brokers := map[string]*broker{}
	for _, k := range []string{"milena", "kafka"} {
		b, err := newBroker(k, root)
		try(err)
		_, err = b.start(60 * time.Second)
		try(err)
		defer b.remove()
		names = append(names, k)
		brokers[k] = b
		createTopic(b, "txn", 4)
	}
	for _, size := range []int{10, 100} {
		rate, p50, p99 := map[string][]float64{}, map[string][]time.Duration{}, map[string][]time.Duration{}
		for range rounds {
			for _, k := range names {
				ds := transactions(brokers[k], size, seconds)
				rate[k] = append(rate[k], float64(len(ds))/seconds.Seconds())
				p := percentiles(ds)
				p50[k], p99[k] = append(p50[k], p(50)), append(p99[k], p(99))
			}
		}
		for _, k := range names {
			fmt.Printf("bench %-12s txn: %d records each: %.0f transactions/s (median of %d rounds, %.0f to %.0f), p50 %s, p99 %s\n", k, size,
				median(rate[k]), rounds, slices.Min(rate[k]), slices.Max(rate[k]), median(p50[k]).Round(10*time.Microsecond), median(p99[k]).Round(10*time.Microsecond))
		}
		fmt.Printf("bench %-12s txn: %d records each: %.1f times Apache Kafka's rate\n", "ratio", size, median(rate["milena"])/median(rate["kafka"]))
	}
}

func median[T float64 | time.Duration](s []T) T {
	s = slices.Sorted(slices.Values(s))
	return s[len(s)/2]
}

// transactions runs one after the other for a while, and returns how long each took from begin to committed.
func transactions(b *broker, size int, d time.Duration) []time.Duration {
	c := client(b, kgo.TransactionalID("bench"), kgo.DefaultProduceTopic("txn"), kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	defer c.Close()
	value := noise(100)
	one := func() {
		try(c.BeginTransaction())
		for range size {
			c.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
				if err != nil {
					fmt.Println("produce:", err)
				}
			})
		}
		try(c.Flush(ctx))
		try(c.EndTransaction(ctx, kgo.TryCommit))
	}
	for range 3 { // the id is fenced, connections and files are there when the clock starts
		one()
	}
	var out []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end); {
		at := time.Now()
		one()
		out = append(out, time.Since(at))
	}
	return out
}
