package meta

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"testing"
)

func uid(n byte) (u UUID) { u[15] = n; return u }

func config(t *testing.T, r Resource, k, v string) Change {
	t.Helper()
	c, err := PutConfig(r, map[string]string{k: v})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func drawn(t *testing.T) []Change {
	return []Change{
		PutBroker(&Broker{ID: 1, Incarnation: uid(1), Endpoints: []Endpoint{{"PLAINTEXT", "127.0.0.1", 9092, "PLAINTEXT"}}, Rack: "r1", Dirs: []UUID{uid(2)}, Fenced: true}),
		config(t, Resource{ResourceBroker, ""}, "message.max.bytes", "2000000"),
		config(t, Resource{ResourceGroup, "a/b"}, "consumer.session.timeout.ms", "50000"),
		config(t, Resource{ResourceTopic, "letters"}, "cleanup.policy", "compact"),
		PutController(ControllerRecord{Epoch: 3, Broker: 1, Incarnation: uid(1)}),
		PutCluster(ClusterRecord{ID: uid(7).String(), Format: 1, Features: map[string]int16{"metadata.version": 30}}),
		PutPartition(uid(9), 0, &Partition{Replicas: []int32{1, 2}, ISR: []int32{1}, Leader: 1, LeaderEpoch: 4, PartitionEpoch: 7}),
		PutProducerIDs(ProducerIDRecord{Next: 2000, Broker: 1, Epoch: 17}),
		PutTopic("letters", TopicRecord{ID: uid(9), Partitions: 1}),
	}
}

func TestFormatIsAsDrawn(t *testing.T) {
	doc, err := os.ReadFile("../../docs/format/meta.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(doc), "```\n")
	block, _, ok := strings.Cut(block, "```")
	if !ok {
		t.Fatal("no drawn records in the document")
	}
	var got strings.Builder
	for _, c := range drawn(t) {
		got.WriteString(c.Key + " " + string(c.Value) + "\n")
	}
	if got.String() != block {
		t.Errorf("written:\n%s\ndrawn:\n%s", got.String(), block)
	}
}

func TestDrawnRecordsRead(t *testing.T) {
	im, d, err := Empty().Apply(drawn(t), 17)
	if err != nil {
		t.Fatal(err)
	}
	b := im.Broker(1)
	if b == nil || b.Epoch != 17 || b.Endpoints[0].Port != 9092 || b.Dirs[0] != uid(2) || len(im.Alive()) != 0 {
		t.Errorf("broker: %+v", b)
	}
	if tp := im.Topic("letters"); tp == nil || tp.ID != uid(9) || tp.Partitions[0].LeaderEpoch != 4 || im.TopicByID(uid(9)) != tp {
		t.Errorf("topic: %+v", tp)
	}
	if id, epoch := im.Controller(); id != 1 || epoch != 3 || im.ClusterID() != uid(7).String() || im.ProducerIDs().Next != 2000 || im.Features()["metadata.version"] != 30 {
		t.Error("controller, cluster or producer ids read wrong")
	}
	if im.Config(Resource{ResourceGroup, "a/b"})["consumer.session.timeout.ms"] != "50000" || im.Config(Resource{ResourceBroker, ""}) == nil {
		t.Error("configs read wrong")
	}
	if got := im.Resources(ResourceGroup); !slices.Equal(got, []string{"a/b"}) {
		t.Errorf("groups: %q", got)
	}
	if len(d.Topics) != 1 || len(d.Brokers) != 1 || len(d.Configs) != 3 || !d.Controller || !d.Features {
		t.Errorf("delta: %+v", d)
	}
	want := drawn(t)
	slices.SortFunc(want, func(a, b Change) int { return cmp.Compare(a.Key, b.Key) })
	for i, c := range im.Changes() {
		w := want[i]
		if w.Key == "b/1" {
			w.Value = []byte(strings.Replace(string(w.Value), `"epoch":0`, `"epoch":17`, 1))
		}
		if c.Key != w.Key || string(c.Value) != string(w.Value) {
			t.Errorf("spelled again: %s %s, want %s %s", c.Key, c.Value, w.Key, w.Value)
		}
	}
}

func TestBadRecordsAreRefusedAndChangeNothing(t *testing.T) {
	im, _, err := Empty().Apply(drawn(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	before := im.Changes()
	for _, c := range []Change{
		{Key: "x", Value: []byte("1{}")},
		{Key: "t/", Value: []byte("1{}")},
		{Key: "b/-1", Value: []byte("1{}")},
		{Key: "b/01", Value: []byte("1{}")},
		{Key: "b/2", Value: []byte(`1{"id":3}`)},
		{Key: "b/4294967297", Value: []byte(`1{}`)},
		{Key: "p/short/0", Value: []byte("1{}")},
		{Key: "p/AAAAAAAAAAAAAAAAAAAACQ/", Value: []byte("1{}")},
		{Key: "p/AAAAAAAAAAAAAAAAAAAACQ/2147483647", Value: []byte(`1{"replicas":[1],"isr":[1],"leader":1,"leaderEpoch":0,"partitionEpoch":0}`)},
		{Key: "p/AAAAAAAAAAAAAAAAAAAACQ/0", Value: []byte(`1{"replicas":[],"isr":[1],"leader":1,"leaderEpoch":0,"partitionEpoch":0}`)},
		{Key: "p/AAAAAAAAAAAAAAAAAAAACQ/0", Value: []byte(`1{"replicas":[2],"isr":[1],"leader":1,"leaderEpoch":0,"partitionEpoch":0}`)},
		{Key: "p/AAAAAAAAAAAAAAAAAAAACQ/0"}, // deletes a record of a visible topic
		{Key: "t/letters", Value: []byte(`1{"id":"AAAAAAAAAAAAAAAAAAAACQ","partitions":2147483647}`)},
		{Key: "t/letters", Value: []byte(`1{"id":"AAAAAAAAAAAAAAAAAAAACQ","partitions":2}`)}, // the second is missing
		{Key: "t/other", Value: []byte(`1{"id":"AAAAAAAAAAAAAAAAAAAACQ","partitions":1}`)},
		{Key: "t/letters", Value: []byte(`2{"id":"AAAAAAAAAAAAAAAAAAAACQ","partitions":1}`)},
		{Key: "t/letters", Value: []byte(`1{"id":"AAAAAAAAAAAAAAAAAAAACQ","partitions":1,"new":1}`)},
		{Key: "t/letters", Value: []byte(`1{"id":"AAAAAAAAAAAAAAAAAAAACQ","partitions":1}{}`)},
		{Key: "t/letters", Value: []byte{}},
		{Key: "meta"},
		{Key: "ctl"},
		{Key: "cfg/topic"},
		{Key: "cfg/nope/x", Value: []byte("1{}")},
	} {
		if _, _, err := im.Apply([]Change{c}, 2); err == nil {
			t.Errorf("%s %s: applied", c.Key, c.Value)
		}
	}
	if after := im.Changes(); len(after) != len(before) {
		t.Error("a refused change changed the image")
	}
}

func FuzzApply(f *testing.F) {
	for _, c := range drawn(&testing.T{}) {
		f.Add(c.Key, c.Value)
	}
	base, _, err := Empty().Apply(drawn(&testing.T{}), 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		for _, im := range []*Image{Empty(), base} {
			next, d, err := im.Apply([]Change{{Key: key, Value: value}}, 2)
			if err != nil {
				continue
			}
			again, _, err := Empty().Apply(next.Changes(), 2)
			if err != nil || !again.Equal(next) {
				t.Fatalf("%s %s: the image does not survive being spelled: %v", key, value, err)
			}
			if d.Empty() && !next.Equal(im) && key != KeyProducerIDs && len(next.Orphans()) == len(im.Orphans()) {
				t.Fatalf("%s %s: changed without a delta", key, value)
			}
		}
	})
}
