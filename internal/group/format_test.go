package group

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
)

// The records drawn in docs/format/consumer-offsets.md are what the machine emits, byte for byte, and what Replay reads.
func TestDrawnRecords(t *testing.T) {
	text, err := os.ReadFile("../../docs/format/consumer-offsets.md")
	if err != nil {
		t.Fatal(err)
	}
	var drawn []string
	for i, block := range strings.Split(string(text), "```") {
		if i%2 == 0 {
			continue
		}
		var b strings.Builder
		for line := range strings.Lines(strings.TrimPrefix(block, "hex\n")) {
			h, _, _ := strings.Cut(line, "|")
			b.WriteString(strings.ReplaceAll(strings.TrimSpace(h), " ", ""))
		}
		drawn = append(drawn, b.String())
	}
	m := New(DefaultConfig())
	now := det.Milli(1_700_000_000_000)
	var emitted []string
	var log []Replayed
	take := func(o Out) {
		for _, r := range o.Records {
			emitted = append(emitted, hex.EncodeToString(r.Key), hex.EncodeToString(r.Value))
			log = append(log, Replayed{Offset: int64(len(log)), ProducerID: -1, Key: r.Key, Value: r.Value})
		}
	}
	offset := func(version int16, id byte, retention int64) {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = 2, 42, 5, kmsg.StringPtr("m")
		r := kmsg.NewPtrOffsetCommitRequest()
		r.Version, r.Group, r.Generation, r.RetentionTimeMillis = version, "g", -1, retention
		r.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", TopicID: testID(int64(id)), Partitions: []kmsg.OffsetCommitRequestTopicPartition{p}}}
		take(m.Step(now, In{Event: Commit{r}}))
	}
	offset(9, 7, -1)
	offset(9, 0, -1)
	offset(3, 7, 1000)
	g := newGroup("g", 0)
	g.generation, g.protocolType, g.protocol, g.leader, g.sinceMs = 3, "consumer", "range", "c-1", now.UnixMilli()
	g.add(&member{id: "c-1", static: true, instance: "i", clientID: "c", clientHost: "/h", rebalanceMs: 60000, sessionMs: 10000,
		protocols: []protocol{{"range", []byte{0xaa}}}, assignment: []byte{0xbb}})
	m.begin(now)
	m.emitGroup(g, true)
	take(m.out)
	m.begin(now)
	m.emitGroupTombstone("g")
	take(m.out)
	// The key of an offset is drawn once.
	want := []string{drawn[0], drawn[1], drawn[0], drawn[2], drawn[0], drawn[3], drawn[4], drawn[5], drawn[4], ""}
	for i := range want {
		if emitted[i] != want[i] {
			t.Errorf("part %d: emitted %s, drawn %s", i, emitted[i], want[i])
		}
	}
	if live, again := durable(m), durable(replayed(DefaultConfig(), log)); live != again {
		t.Errorf("live %s, replayed %s", live, again)
	}
}
