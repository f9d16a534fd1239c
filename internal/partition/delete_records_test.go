package partition

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// TestDeleteRecordsByPolicy: refused where only compaction applies; an empty cleanup.policy keeps everything but what
// DeleteRecords names (kafka.md 3.5, 3.10).
func TestDeleteRecordsByPolicy(t *testing.T) {
	w := newWorld(t, memfs.New(), 1).start().run()
	w.apply(newTopic("t", 1, 1)...)
	p := w.get("t", 0)
	w.produce(p, "one", "two")
	for at, c := range []struct {
		policy string
		err    error
	}{{"compact", kerr.PolicyViolation}, {"", nil}, {"compact,delete", nil}} {
		w.apply(topicConfig(t, "t", map[string]string{"cleanup.policy": c.policy}))
		low, err := p.DeleteRecords(int64(at), 0)
		if !errors.Is(err, c.err) || (err == nil && low != int64(at)) {
			t.Errorf("cleanup.policy=%q: low watermark %d, error %v", c.policy, low, err)
		}
	}
}
