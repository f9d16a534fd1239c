package api

import (
	"encoding/binary"
	"fmt"
	"io"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/storage"
)

// void is a sink that keeps nothing.
type void struct{ b []byte }

func (v *void) Append(fn func([]byte) []byte)                  { v.b = fn(v.b) }
func (v *void) File(_ server.File, _, _ int64, release func()) { release() }

// BenchmarkFetchEncode is the answer without its records: 100 partitions with 16 KiB each.
func BenchmarkFetchEncode(b *testing.B) {
	for _, v := range []int16{11, 12, 16} {
		b.Run(fmt.Sprintf("v%d/100", v), func(b *testing.B) {
			a := fetchAnswer{version: v, topics: []fetchedTopic{{name: "orders", id: meta.UUID{1}}}}
			for n := range int32(100) {
				a.topics[0].parts = append(a.topics[0].parts, fetchedPartition{partition: n, hw: 10, leaderID: -1, leaderEpoch: -1})
			}
			out := &void{b: make([]byte, 0, 64<<10)}
			b.ReportAllocs()
			for b.Loop() {
				for i := range a.topics[0].parts {
					a.topics[0].parts[i].records = storage.Slice{Len: 16 << 10}
				}
				out.b = out.b[:0]
				a.encode(out)
			}
		})
	}
}

// exchange sends a request that never changes and discards the answers.
func exchange(b *testing.B, c *client, req kmsg.Request, bytes int64) {
	raw := kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench")).AppendRequest(nil, req, 1)
	head := make([]byte, 4)
	b.SetBytes(bytes)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.c.Write(raw); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c.c, head); err != nil {
			b.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, c.c, int64(binary.BigEndian.Uint32(head))); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkProduceRequest is one request at a time over loopback, client included, in page-cache mode: allocations per request
// must not grow with the records, and little with the partitions.
func BenchmarkProduceRequest(b *testing.B) {
	for _, parts := range []int32{1, 100} {
		for _, size := range []int{1 << 10, 16 << 10} {
			b.Run(fmt.Sprintf("partitions=%d/%dKiB", parts, size>>10), func(b *testing.B) {
				br := newDataBroker(b)
				cfg, err := meta.PutConfig(meta.Resource{Type: meta.ResourceTopic, Name: "t"}, map[string]string{"flush.messages": "1000000000", "segment.bytes": "134217728"})
				if err != nil {
					b.Fatal(err)
				}
				id := br.topic("t", 1, parts)
				br.apply(cfg)
				bs := map[int32][]byte{}
				for n := range parts {
					bs[n] = testBatch(b, batch.Spec{}, string(make([]byte, size)))
				}
				exchange(b, br.dial(), newProduce(9, -1, "t", id, bs), int64(size)*int64(parts))
			})
		}
	}
}

// BenchmarkFetchRequest reads 1 MiB from one partition, over loopback, one request at a time.
func BenchmarkFetchRequest(b *testing.B) {
	for _, v := range []int16{11, 16} {
		b.Run(fmt.Sprintf("v%d/1MiB", v), func(b *testing.B) {
			br := newDataBroker(b)
			id := br.topic("t", 1, 1)
			c := br.dial()
			for range 70 {
				c.produce("t", id, 0, string(make([]byte, 16<<10)))
			}
			exchange(b, c, newFetch(v, "t", id, map[int32]int64{0: 0}), 1<<20)
		})
	}
}
