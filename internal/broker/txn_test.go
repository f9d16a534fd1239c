package broker

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/milena-mq/milena/internal/config"
)

// startBroker starts a lone broker on a free port, and stops it with the test.
func startBroker(t *testing.T) *Broker {
	t.Helper()
	b, err := Start(t.Context(), Options{Static: config.StaticOf(map[string]string{
		"log.dirs": t.TempDir(), "listeners": "PLAINTEXT://127.0.0.1:0", "log.dir.reserve.bytes": "0", "offsets.topic.num.partitions": "2", "transaction.state.log.num.partitions": "2",
	})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// readAll reads n records of a topic at an isolation level, or fails after a while.
func readAll(t *testing.T, addr, topic string, level kgo.IsolationLevel, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(level), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	var out []string
	for len(out) < n {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %d of %d records: %v", len(out), n, out)
		}
		fs.EachRecord(func(r *kgo.Record) { out = append(out, string(r.Value)) })
	}
	return out
}

func TestATransactionIsSeenWholeOrNotAtAll(t *testing.T) {
	b := startBroker(t)
	addr := b.Addr()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.TransactionalID("copier"), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic("letters"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i := range 6 {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for k := range 3 {
			cl.Produce(ctx, kgo.StringRecord(fmt.Sprintf("%d-%d", i, k)), func(_ *kgo.Record, err error) {
				if err != nil {
					t.Errorf("produce: %v", err)
				}
			})
		}
		if err := cl.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(ctx, kgo.TransactionEndTry(i%2 == 0)); err != nil {
			t.Fatalf("end %d: %v", i, err)
		}
	}
	got := fmt.Sprint(readAll(t, addr, "letters", kgo.ReadCommitted(), 9))
	if want := "[0-0 0-1 0-2 2-0 2-1 2-2 4-0 4-1 4-2]"; got != want {
		t.Errorf("read committed: %s, want %s", got, want)
	}
	if all := readAll(t, addr, "letters", kgo.ReadUncommitted(), 18); len(all) != 18 {
		t.Errorf("read uncommitted: %v", all)
	}
}
