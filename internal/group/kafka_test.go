package group

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
)

// TestKafkasOwnRecords loads what Apache Kafka 4.3.1 wrote, and writes the same bytes for the same state.
func TestKafkasOwnRecords(t *testing.T) {
	raw, err := os.ReadFile("testdata/kafka-4.3.1.hex")
	if err != nil {
		t.Fatal(err)
	}
	m := New(DefaultConfig())
	n := int64(0)
	offsets := map[string][]byte{}
	var group []byte
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		k, v, _ := strings.Cut(strings.TrimSpace(line), " ")
		r := Replayed{Offset: n, ProducerID: -1}
		n++
		if r.Key, err = hex.DecodeString(k); err != nil {
			t.Fatal(err)
		}
		if v != "null" {
			if r.Value, err = hex.DecodeString(v); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Replay(r); err != nil {
			t.Fatal(err)
		}
		switch int16(r.Key[1]) {
		case typeOffset:
			offsets[string(r.Key)] = r.Value
		case typeGroup:
			group = r.Value
		}
	}
	m.Loaded(det.Milli(1_800_000_000_000))
	g := m.groups["jg"]
	if g == nil || g.state != Stable || g.generation != 2 || len(g.order) != 1 || !g.order[0].static || g.protocol != "range" {
		t.Fatalf("jg: %+v", g)
	}
	if again := g.stored.AppendTo(nil); string(again) != string(group) {
		t.Errorf("group: Kafka wrote %x, we %x", group, again)
	}
	for _, id := range []string{"jg", "newg"} {
		for part, want := range []int64{27, 39, 34} {
			o := m.groups[id].offset("t3", int32(part))
			if o == nil || o.offset != want || o.leaderEpoch != 0 {
				t.Fatalf("%s t3-%d: %+v", id, part, o)
			}
			key := appendOffsetKey(nil, id, "t3", int32(part))
			v := kmsg.OffsetCommitValue{Version: 4, Offset: o.offset, LeaderEpoch: o.leaderEpoch, Metadata: o.metadata, CommitTimestamp: o.commitMs, TopicID: o.topicID}
			if again := v.AppendTo(nil); string(again) != string(offsets[string(key)]) {
				t.Errorf("%s t3-%d: Kafka wrote %x, we %x", id, part, offsets[string(key)], again)
			}
		}
	}
	if m.foreign["newg"] != typeConsumer {
		t.Errorf("newg is no consumer group: %v", m.foreign)
	}
}
