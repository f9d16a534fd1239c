package meta

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/milena-mq/milena/internal/det"
)

// world makes random but honest histories and remembers what the store would hold.
type world struct {
	r     *det.Rand
	store map[string]Change
	names map[string]UUID
	count map[UUID]int32
	next  byte
}

func part(r *det.Rand) *Partition {
	return &Partition{Replicas: []int32{1, 2}, ISR: []int32{1}, Leader: 1, LeaderEpoch: int32(r.Intn(3)), PartitionEpoch: int32(r.Intn(1000))}
}

func (w *world) step() []Change {
	var cs []Change
	name := fmt.Sprintf("t%d", w.r.Intn(5))
	id, have := w.names[name]
	switch k := w.r.Intn(9); {
	case k < 2 && !have:
		w.next++
		id, n := uid(w.next), int32(1+w.r.Intn(4))
		w.names[name], w.count[id] = id, n
		cs = append(cs, PutTopic(name, TopicRecord{ID: id, Partitions: n}))
		for i := range n {
			cs = append(cs, PutPartition(id, i, part(w.r)))
		}
	case k == 2 && have: // deleted, sometimes leaving its partitions behind, sometimes made again at once
		cs = append(cs, Delete(TopicKey(name)))
		if w.r.Intn(2) == 0 {
			for i := range w.count[id] {
				cs = append(cs, Delete(PartitionKey(id, i)))
			}
		}
		delete(w.names, name)
		if w.r.Intn(2) == 0 {
			w.next++
			id := uid(w.next)
			w.names[name], w.count[id] = id, 1
			cs[0] = PutTopic(name, TopicRecord{ID: id, Partitions: 1})
			cs = append(cs, PutPartition(id, 0, part(w.r)))
		}
	case k == 3 && have: // grows, sometimes in two steps
		n := w.count[id]
		cs = append(cs, PutPartition(id, n, part(w.r)))
		if w.r.Intn(2) == 0 {
			w.count[id] = n + 1
			cs = append(cs, PutTopic(name, TopicRecord{ID: id, Partitions: n + 1}))
		}
	case k < 6 && have:
		for i := range w.count[id] {
			if w.r.Intn(2) == 0 {
				cs = append(cs, PutPartition(id, i, part(w.r)))
			}
		}
	case k == 6:
		b := &Broker{ID: int32(w.r.Intn(3)), Incarnation: uid(byte(w.r.Intn(4))), Fenced: w.r.Intn(2) == 0}
		if w.r.Intn(4) == 0 {
			cs = append(cs, Delete(BrokerKey(b.ID)))
		} else {
			cs = append(cs, PutBroker(b))
		}
	case k == 7:
		m := map[string]string{"k": fmt.Sprint(w.r.Intn(2))}
		if w.r.Intn(3) == 0 {
			m = nil
		}
		c, _ := PutConfig(Resource{ResourceTopic, name}, m)
		cs = append(cs, c)
	default:
		cs = append(cs, PutProducerIDs(ProducerIDRecord{Next: int64(1 + w.r.Intn(100))}))
	}
	return cs
}

func (w *world) save(cs []Change, rev int64) {
	for _, c := range cs {
		c.Rev = rev
		if c.Value == nil {
			delete(w.store, c.Key)
		} else {
			w.store[c.Key] = c
		}
	}
}

func (w *world) all() []Change {
	var cs []Change
	for _, c := range w.store {
		cs = append(cs, c)
	}
	slices.SortFunc(cs, func(a, b Change) int { return cmp.Compare(a.Key, b.Key) })
	return cs
}

// differences is the delta by brute force.
func differences(a, b *Image) *Delta {
	d := &Delta{From: a.Revision(), To: b.Revision(), Topics: map[UUID]TopicDelta{}, Brokers: map[int32]BrokerDelta{}, Configs: map[Resource]struct{}{}}
	for _, t := range a.Topics() {
		if b.TopicByID(t.ID) == nil {
			d.Topics[t.ID] = TopicDelta{Old: t}
		}
	}
	for _, t := range b.Topics() {
		old := a.TopicByID(t.ID)
		td := TopicDelta{Old: old, New: t}
		for n, p := range t.Partitions {
			if old == nil || n >= len(old.Partitions) || !reflect.DeepEqual(old.Partitions[n], p) {
				td.Partitions = append(td.Partitions, int32(n))
			}
		}
		if td.Partitions != nil {
			d.Topics[t.ID] = td
		}
	}
	for id := range int32(3) {
		if !reflect.DeepEqual(a.Broker(id), b.Broker(id)) {
			d.Brokers[id] = BrokerDelta{a.Broker(id), b.Broker(id)}
		}
	}
	for i := range 5 {
		r := Resource{ResourceTopic, fmt.Sprintf("t%d", i)}
		if !reflect.DeepEqual(a.Config(r), b.Config(r)) {
			d.Configs[r] = struct{}{}
		}
	}
	return d
}

func normal(d *Delta) *Delta {
	n := *d
	if n.Topics == nil {
		n.Topics = map[UUID]TopicDelta{}
	}
	if n.Brokers == nil {
		n.Brokers = map[int32]BrokerDelta{}
	}
	if n.Configs == nil {
		n.Configs = map[Resource]struct{}{}
	}
	return &n
}

func TestApplyIsTheStoreStepByStep(t *testing.T) {
	for seed := range uint64(40) {
		w := &world{r: det.NewRand(seed), store: map[string]Change{}, names: map[string]UUID{}, count: map[UUID]int32{}}
		im := Empty()
		old := im
		for rev := int64(1); rev <= 60; rev++ {
			cs := w.step()
			w.save(cs, rev)
			if w.r.Intn(4) == 0 { // the order inside a batch means nothing
				slices.Reverse(cs)
			}
			was := im.Changes()
			next, d, err := im.Apply(cs, rev)
			if err != nil {
				t.Fatalf("seed %d revision %d: %v", seed, rev, err)
			}
			if !slices.EqualFunc(was, im.Changes(), func(a, b Change) bool { return a.Key == b.Key && string(a.Value) == string(b.Value) }) {
				t.Fatalf("seed %d revision %d: the older image changed", seed, rev)
			}
			if want := differences(im, next); !reflect.DeepEqual(normal(d), want) {
				t.Fatalf("seed %d revision %d: delta\n%+v\nwant\n%+v", seed, rev, d, want)
			}
			im = next
			whole, _, err := Empty().Apply(w.all(), rev)
			if err != nil || !whole.Equal(im) {
				t.Fatalf("seed %d revision %d: step by step and at once differ: %v", seed, rev, err)
			}
			if len(whole.Changes()) != len(w.store) || whole.NumPartitions() != im.NumPartitions() || whole.NumTopics() != im.NumTopics() {
				t.Fatalf("seed %d revision %d: %d records of %d", seed, rev, len(whole.Changes()), len(w.store))
			}
		}
		jumped, _, err := old.Apply(old.Replace(w.all()), 60)
		if err != nil || !jumped.Equal(im) {
			t.Fatalf("seed %d: catching up by a listing differs: %v", seed, err)
		}
		half, _, err := jumped.Apply(jumped.Replace(nil), 61)
		if err != nil || len(half.Changes()) != 0 {
			t.Fatalf("seed %d: an empty listing leaves %d records: %v", seed, len(half.Changes()), err)
		}
	}
}

func TestHalfATopicIsHidden(t *testing.T) {
	id := uid(9)
	p := func(n int32) Change {
		return PutPartition(id, n, &Partition{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1})
	}
	im := Empty()
	must := func(cs ...Change) *Delta {
		t.Helper()
		next, d, err := im.Apply(cs, im.Revision()+1)
		if err != nil {
			t.Fatal(err)
		}
		im = next
		return d
	}
	if d := must(p(0), p(2)); !d.Empty() || im.NumTopics() != 0 || len(im.Orphans()) != 2 {
		t.Fatalf("partitions without topic: %+v, orphans %v", d, im.Orphans())
	}
	if d := must(p(1), PutTopic("t", TopicRecord{ID: id, Partitions: 3})); len(d.Topics[id].Partitions) != 3 || len(im.Orphans()) != 0 || im.NumPartitions() != 3 {
		t.Fatalf("complete: %+v, orphans %v", d, im.Orphans())
	}
	if d := must(p(4), p(3)); !d.Empty() || len(im.Topic("t").Partitions) != 3 || len(im.Orphans()) != 2 {
		t.Fatalf("growing: %+v", d)
	}
	if d := must(PutTopic("t", TopicRecord{ID: id, Partitions: 5})); !slices.Equal(d.Topics[id].Partitions, []int32{3, 4}) {
		t.Fatalf("grown: %+v", d)
	}
	if d := must(Delete("t/t")); d.Topics[id].New != nil || im.TopicByID(id) != nil || len(im.Orphans()) != 5 || im.NumPartitions() != 0 {
		t.Fatalf("deleted: %+v, orphans %v", d, im.Orphans())
	}
	var gone []Change
	for _, k := range im.Orphans() {
		gone = append(gone, Delete(k))
	}
	if d := must(gone...); !d.Empty() || len(im.Changes()) != 0 {
		t.Fatalf("swept: %+v, left %v", d, im.Changes())
	}
}

func big(b testing.TB, topics, parts int) *Image {
	im := Empty()
	for i := range topics {
		u := UUID{1, byte(i >> 8), byte(i)}
		u[15] = byte(i * 7)
		cs := []Change{PutTopic(fmt.Sprintf("topic-%d", i), TopicRecord{ID: u, Partitions: int32(parts)})}
		for n := range parts {
			cs = append(cs, PutPartition(u, int32(n), &Partition{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1}))
		}
		next, _, err := im.Apply(cs, int64(i+1))
		if err != nil {
			b.Fatal(err)
		}
		im = next
	}
	return im
}

// The 10,000th topic must not cost more than a few times what the first did.
func BenchmarkCreateTopic(b *testing.B) {
	for _, n := range []int{0, 1000, 10_000} {
		im := big(b, n, 1)
		u := UUID{2}
		cs := []Change{PutTopic("new", TopicRecord{ID: u, Partitions: 1}), PutPartition(u, 0, &Partition{Replicas: []int32{1}, ISR: []int32{1}, Leader: 1})}
		b.Run(fmt.Sprintf("beside=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := im.Apply(cs, 1<<40); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkTopicByName(b *testing.B) {
	im := big(b, 10_000, 1)
	b.ReportAllocs()
	for b.Loop() {
		if im.Topic("topic-4711") == nil {
			b.Fatal("missing")
		}
	}
}
