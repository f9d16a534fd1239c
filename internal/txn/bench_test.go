package txn

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
)

func initOf(id string) Init {
	r := kmsg.NewPtrInitProducerIDRequest()
	r.Version, r.TransactionalID, r.TransactionTimeoutMillis = 5, &id, 60_000
	return Init{Request: r}
}

func endOf(id string, producer int64, epoch int16) End {
	r := kmsg.NewPtrEndTxnRequest()
	r.Version, r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.Commit = 5, id, producer, epoch, true
	return End{Request: r, FreshID: noID}
}

// whole is one transaction over the partitions, from the first Produce to the last marker.
func whole(m *Machine, now det.Instant, id string, producer int64, epoch int16, parts []meta.TopicPartition) {
	m.Step(now, In{Token: 1, Event: Add{TxnID: id, ProducerID: producer, Epoch: epoch, Partitions: parts, V2: true}})
	m.Step(now, In{Token: 2, Event: endOf(id, producer, epoch)})
	m.Step(now, In{Event: Written{TxnID: id, ProducerID: producer, Epoch: epoch + 1, Partitions: parts}})
}

func twoParts() []meta.TopicPartition {
	return []meta.TopicPartition{{Topic: "orders", Partition: 3}, {Topic: "payments", Partition: 1}}
}

// TestMemoryOfManyIDs: 100,000 ids, each in its second transaction, in less than 200 MiB; and a week of transactions with
// pauses between them leaves no timers behind.
func TestMemoryOfManyIDs(t *testing.T) {
	const ids = 100_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	m := New(DefaultConfig())
	now, parts := det.Milli(1_000_000), twoParts()
	for i := range ids {
		name := fmt.Sprintf("payments-service-transaction-%06d", i)
		ev := initOf(name)
		ev.FreshID = int64(i)
		m.Step(now, In{Token: 1, Event: ev})
		whole(m, now, name, int64(i), 0, parts)
		m.Step(now, In{Token: 1, Event: Add{TxnID: name, ProducerID: int64(i), Epoch: 1, Partitions: parts, V2: true}})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := float64(after.HeapAlloc-before.HeapAlloc) / (1 << 20)
	t.Logf("%d ids, each with an open transaction: %.1f MiB", m.Len(), used)
	if m.Len() != ids || used > 200 {
		t.Errorf("%d ids take %.1f MiB", m.Len(), used)
	}

	m = New(DefaultConfig())
	ev := initOf("x")
	ev.FreshID = 1
	m.Step(now, In{Token: 1, Event: ev})
	for n := range int16(10_000) { // every minute one, for a week
		whole(m, now, "x", 1, n, parts)
		now = now.Add(61 * time.Second)
		m.Step(now, In{Event: Tick{}})
	}
	if n := len(m.timers.q); n > 2000 {
		t.Errorf("%d timers for one id", n)
	}
	runtime.KeepAlive(m)
}

// BenchmarkTransaction is the coordinator's part of one transaction over two partitions.
func BenchmarkTransaction(b *testing.B) {
	m := New(DefaultConfig())
	now, parts := det.Milli(1_000_000), twoParts()
	var producer int64
	fresh := func() {
		producer++
		ev := initOf("x")
		ev.FreshID = producer
		m = New(DefaultConfig())
		m.Step(now, In{Token: 1, Event: ev})
	}
	b.ReportAllocs()
	for i := range b.N {
		epoch := int16(i % 30_000)
		if epoch == 0 {
			fresh()
		}
		whole(m, now, "x", producer, epoch, parts)
	}
}

// BenchmarkLoad is the replay of one id's record.
func BenchmarkLoad(b *testing.B) {
	m := New(DefaultConfig())
	now := det.Milli(1_000_000)
	ev := initOf("payments-service-transaction")
	ev.FreshID = 1
	m.Step(now, In{Token: 1, Event: ev})
	out := m.Step(now, In{Token: 1, Event: Add{TxnID: "payments-service-transaction", ProducerID: 1, Partitions: twoParts(), V2: true}})
	r := out.Records[0]
	b.ReportAllocs()
	for range b.N {
		if err := m.Replay(r.Key, r.Value); err != nil {
			b.Fatal(err)
		}
	}
}
