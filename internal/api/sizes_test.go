package api

import (
	"testing"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/session"
)

// TestReservedBytesCoverThePartitions keeps the charges to the memory budget honest when the structures grow.
func TestReservedBytesCoverThePartitions(t *testing.T) {
	if n := unsafe.Sizeof(produceItem{}) + 64; n > produceItemBytes {
		t.Errorf("a partition of a produce takes %d bytes, %d are charged", n, produceItemBytes)
	}
	if n := 2*unsafe.Sizeof(session.Partition{}) + unsafe.Sizeof(fetchRead{}) + unsafe.Sizeof(session.Result{}) + unsafe.Sizeof(fetchedPartition{}) + 80; n > fetchPartBytes {
		t.Errorf("a partition of a fetch takes %d bytes, %d are charged", n, fetchPartBytes)
	}
}

// TestHugeRequestsAreRefused: more partitions than the memory budget has room for end the connection, nobody else's.
func TestHugeRequestsAreRefused(t *testing.T) {
	b := newDataBroker(t)
	id := b.topic("t", 1, 1)
	other := b.dial()
	other.produce("t", id, 0, "before")
	req := newFetch(12, "t", id, map[int32]int64{0: 0})
	p := req.Topics[0].Partitions[0]
	for range 1 << 18 {
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, p)
	}
	b.dial().closed(req)
	prod := newProduce(9, 1, "t", id, map[int32][]byte{0: nil})
	for range 1 << 18 {
		k := kmsg.NewProduceRequestTopicPartition()
		prod.Topics[0].Partitions = append(prod.Topics[0].Partitions, k)
	}
	b.dial().closed(prod)
	if got := b.must("t", 0).LogEnd(); got != 1 {
		t.Errorf("log end %d", got)
	}
	other.produce("t", meta.UUID{}, 0, "after")
}
