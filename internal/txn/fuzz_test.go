package txn

import (
	"testing"

	"github.com/milena-mq/milena/internal/det"
)

// FuzzReplay: records that somebody else wrote are refused or taken, and what is taken can be worked with.
func FuzzReplay(f *testing.F) {
	m := New(DefaultConfig())
	now := det.Milli(1_000_000)
	ev := initOf("x")
	ev.FreshID = 100
	for _, out := range []Out{
		m.Step(now, In{Token: 1, Event: ev}),
		m.Step(now, In{Token: 2, Event: Add{TxnID: "x", ProducerID: 100, Partitions: twoParts(), V2: true}}),
		m.Step(now, In{Token: 3, Event: endOf("x", 100, 0)}),
	} {
		f.Add(out.Records[0].Key, out.Records[0].Value)
	}
	f.Add([]byte{0, 0, 0, 1, 'x'}, []byte(nil))
	f.Add([]byte{0}, []byte{0, 1})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		m := New(DefaultConfig())
		if err := m.Replay(key, value); err != nil {
			return
		}
		m.Loaded(now)
		for name, x := range m.ids {
			for _, e := range []Event{initOf(name), endOf(name, x.producer, x.epoch), Describe{TxnID: name}, Written{TxnID: name, ProducerID: x.producer, Epoch: x.epoch, Partitions: x.parts}} {
				if m.NeedsID(e) {
					e = WithID(e, 500)
				}
				before := x.epoch
				m.Step(now, In{Token: 1, Event: e})
				if x.epoch < before && x.epoch != 0 {
					t.Fatalf("epoch of %q fell from %d to %d", name, before, x.epoch)
				}
			}
			if x.due != det.Never {
				m.Step(x.due, In{Event: Tick{}})
			}
		}
		if a := facts(m); a == "" && m.Len() > 0 {
			t.Fatal("ids without facts")
		}
	})
}
