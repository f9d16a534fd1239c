package group

import (
	"errors"
	"testing"

	"github.com/milena-mq/milena/internal/det"
)

// FuzzReplay: no record of the log, whoever wrote it, may panic or bring the machine into a state it cannot be
// loaded from, described in or stepped on.
func FuzzReplay(f *testing.F) {
	p := newPlayer(DefaultConfig())
	p.step("", Join{Request: p.join(func(_ string, d int64) int64 { return d }, args{"v": "3"}, "g").(Join).Request, ClientID: "c", NewID: "1"})
	p.step("", Commit{commitRequest(func(_ string, d int64) int64 { return d }, args{}, "s")})
	for _, r := range p.log {
		f.Add(r.Key, r.Value, true, int64(-1))
	}
	f.Add([]byte{0, 3, 0, 1, 'g'}, []byte{0, 0}, true, int64(4))
	f.Add([]byte{0, 2, 0, 1, 'g'}, []byte{0, 4, 2, 'c', 0, 0, 0, 1, 2, 'r', 2, 'l', 0, 0, 0, 0, 0, 0, 0, 0, 1, 0}, true, int64(-1))
	f.Fuzz(func(t *testing.T, key, value []byte, hasValue bool, producer int64) {
		m := New(DefaultConfig())
		if !hasValue {
			value = nil
		}
		r := Replayed{Offset: 1, ProducerID: producer, Transactional: producer >= 0, Key: key, Value: value}
		if err := m.Replay(r); err != nil && !errors.Is(err, ErrRecord) {
			t.Fatal(err)
		}
		m.ReplayMarker(2, producer, true)
		m.Loaded(det.Milli(1))
		for _, id := range det.SortedKeys(m.groups) {
			m.Step(det.Milli(2), In{Token: 1, Event: Describe{Group: id}})
			m.Step(det.Milli(2), In{Token: 2, Event: Delete{Group: id}})
		}
		m.Step(det.Milli(1_000_000_000), In{Event: Tick{}})
		m.Step(det.Never, In{Token: 3, Event: List{}})
	})
}

// FuzzSubscription: a member's metadata is any bytes.
func FuzzSubscription(f *testing.F) {
	f.Add(subscribe("a", "b"))
	f.Add([]byte{0, 1, 0x7f, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		topics, ok := subscription(b)
		if ok && len(topics) > len(b) {
			t.Fatalf("%d topics from %d bytes", len(topics), len(b))
		}
	})
}
