package partition

import (
	"testing"

	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// TestNobodyReadsAsTheLeaderItself: the leader does not fetch from itself, so a fetch with its own replica id comes from a
// client. Answered as a follower's, it would show records that are not on disk yet.
func TestNobodyReadsAsTheLeaderItself(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	w.apply(newTopic("t", 1, 1)...)
	p := w.get("t", 0)
	entered := w.g.close()
	w.append(p, AcksAll, "one")
	<-entered
	for _, epoch := range []int32{-1, 0} {
		r, err := p.Read(ReadRequest{MaxBytes: 1 << 20, AtLeastOne: true, Epoch: epoch, LastEpoch: -1, Replica: 1, BrokerEpoch: -1})
		n := r.Slice.Len
		r.Slice.Release()
		if err == nil || n > 0 {
			t.Errorf("epoch %d: %d bytes that are not durable, error %v", epoch, n, err)
		}
	}
	w.g.open()
}
