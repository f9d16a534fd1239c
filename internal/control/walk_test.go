package control

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
)

// walk is brokers with logs, of which only the length counts: what an ISR has acknowledged must be in
// the log of every leader that was elected cleanly.
type walk struct {
	*stage
	rnd  *rand.Rand
	down map[int32]bool // the process is gone, the controller may not know yet
	logs map[meta.TopicPartition]*shelf
	said []string

	durable bool           // what was in sync survives a crash of the process
	disk    map[int32]byte // how often the broker's disk was replaced
}

// shelf is one partition: acknowledged up to hw, each replica's log up to has.
type shelf struct {
	hw  int
	has map[int32]int
}

const walkers = 4

// Every order of crashes, fencing, returns, ISR changes, reassignments and changed minimums that a
// seed thinks of: no acknowledged record is lost by a clean election (I1, I15), a crash that loses the
// whole log included where ELR is on, and a replaced disk everywhere.
func TestWalkLosesNothing(t *testing.T) {
	for seed := range uint64(60) {
		for _, kind := range []int{0, 1, 2} {
			elr := int16(min(kind, 1))
			w := &walk{rnd: rand.New(rand.NewPCG(seed, uint64(kind))), durable: kind == 2, disk: map[int32]byte{}, down: map[int32]bool{}, logs: map[meta.TopicPartition]*shelf{}}
			w.stage = &stage{t: t, im: meta.Empty()}
			w.static("node.id=1")
			w.begin(elr)
			for range 400 {
				w.step()
				w.judge()
				if t.Failed() {
					for _, s := range w.said[max(0, len(w.said)-25):] {
						t.Log(s)
					}
					t.Fatalf("seed %d, elr %d, durable %v", seed, elr, w.durable)
				}
			}
		}
	}
}

func (w *walk) begin(elr int16) {
	p, err := w.cluster().Bootstrap("")
	w.must(p, err)
	r := w.im.Cluster()
	r.Features = map[string]int16{FeatureELR: elr}
	w.must(Plan{Steps: [][]meta.Change{{meta.PutCluster(r)}}}, nil)
	for id := int32(1); id <= walkers; id++ {
		w.register(id, -1)
		w.unfence(id)
	}
	two := "2"
	for i, f := range []int16{3, 2, 3} {
		n := NewTopic{Name: fmt.Sprint("t", i), Partitions: 2, Factor: f}
		if i != 1 {
			n.Configs = map[string]*string{"min.insync.replicas": &two}
		}
		p, res := w.cluster().CreateTopics([]NewTopic{n}, false)
		if res[0].Err != nil {
			w.t.Fatal(res[0].Err)
		}
		w.must(p, nil)
	}
}

func (w *walk) must(p Plan, err error) {
	if err != nil {
		w.t.Fatal(err)
	}
	w.apply(p)
	w.out.Reset()
}

func (w *walk) register(id int32, prev int64) {
	w.must(w.cluster().Register(Registration{ID: id, Incarnation: w.incarnation(), PreviousEpoch: prev, Intact: w.durable, Dirs: []meta.UUID{{byte(id), w.disk[id]}}, Endpoints: []meta.Endpoint{{Listener: "P", Host: "h", Port: 1, Protocol: "PLAINTEXT"}}}))
	w.down[id] = false
}

func (w *walk) incarnation() (u meta.UUID) {
	for i := range u {
		u[i] = byte(w.rnd.Uint32())
	}
	return u
}

func (w *walk) unfence(id int32) { w.must(w.cluster().Unfence(id, w.im.Broker(id).Epoch)) }

// step does one thing.
func (w *walk) step() {
	id := int32(w.rnd.IntN(walkers) + 1)
	b := w.im.Broker(id)
	ts := w.im.Topics()
	t := ts[w.rnd.IntN(len(ts))]
	n := int32(w.rnd.IntN(len(t.Partitions)))
	tp := meta.TopicPartition{Topic: t.Name, Partition: n}
	kind := w.rnd.IntN(20)
	w.said = append(w.said, fmt.Sprintf("%d: broker %d, %s: %+v %+v", kind, id, tp, *t.Partitions[n], w.shelf(tp)))
	switch kind {
	case 0: // crash
		w.down[id] = true
		switch w.rnd.IntN(6) {
		case 0, 1, 2: // what was not synced is gone: everything, or (durable) nothing that counts
			if w.im.Features()[FeatureELR] == 0 {
				break
			}
			if !w.durable {
				w.wipe(id)
			}
			w.register(id, -1)
		case 3: // it comes back with an empty disk
			w.wipe(id)
			w.disk[id]++
			w.replaced = true
			w.register(id, -1)
		}
	case 1: // silence
		switch {
		case w.rnd.IntN(3) == 0: // of all that are down, and of some that are not
			var ids []int32
			for i := range int32(walkers) {
				if w.down[i+1] || w.rnd.IntN(3) == 0 {
					ids = append(ids, i+1)
				}
			}
			w.must(w.cluster().FenceAll(ids))
		case w.down[id] || w.rnd.IntN(3) == 0:
			w.must(w.cluster().Fence(id, b.Epoch))
		}
	case 2, 3, 4: // return; a process that only was silent keeps its incarnation
		if w.down[id] {
			w.register(id, b.Epoch)
		}
		w.unfence(id)
	case 5:
		if !w.down[id] && w.rnd.IntN(2) == 0 {
			w.must(w.cluster().Drain(id, b.Epoch))
		}
	case 6:
		w.reassign(tp)
	case 7:
		v := fmt.Sprint(w.rnd.IntN(3) + 1)
		p, _ := w.cluster().AlterConfigs([]ConfigChange{{Resource: meta.Resource{Type: meta.ResourceTopic, Name: t.Name}, Ops: []ConfigOp{{Name: "min.insync.replicas", Value: &v}}}}, false)
		w.must(p, nil)
	case 8:
		p, _, err := w.cluster().ElectLeaders(ElectPreferred, nil)
		w.must(p, err)
	case 9, 10, 11:
		w.propose(tp)
	default:
		w.produce(tp)
	}
}

func (w *walk) wipe(id int32) {
	for _, s := range w.logs {
		s.has[id] = 0
	}
}

func (w *walk) shelf(tp meta.TopicPartition) *shelf {
	if w.logs[tp] == nil {
		w.logs[tp] = &shelf{has: map[int32]int{}}
	}
	return w.logs[tp]
}

func (w *walk) reassign(tp meta.TopicPartition) {
	r := Reassignment{Topic: tp.Topic, Partition: tp.Partition}
	if w.rnd.IntN(3) > 0 {
		for _, i := range w.rnd.Perm(walkers)[:1+w.rnd.IntN(3)] {
			r.Target = append(r.Target, int32(i+1))
		}
	}
	p, errs := w.cluster().Reassign([]Reassignment{r}, true)
	if errs[0] != nil && errs[0].Code != kerr.NoReassignmentInProgress && errs[0].Code != kerr.InvalidReplicaAssignment {
		w.t.Error(errs[0])
	}
	w.must(p, nil)
}

// propose lets the leader shrink or grow the ISR, as package partition does: in comes who has
// everything up to the high watermark.
func (w *walk) propose(tp meta.TopicPartition) {
	t, p, s := w.im.Topic(tp.Topic), w.im.Partition(tp.Topic, tp.Partition), w.shelf(tp)
	if p.Leader == meta.NoLeader || w.down[p.Leader] {
		return
	}
	ch := ISRChange{Topic: t.ID, Partition: tp.Partition, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch}
	for _, r := range p.Replicas {
		b := w.im.Broker(r)
		in := slices.Contains(p.ISR, r)
		if r != p.Leader && (in && w.rnd.IntN(3) == 0 || !in && (w.down[r] || s.has[r] < s.has[p.Leader] || s.has[r] < s.hw)) {
			continue
		}
		ch.ISR = append(ch.ISR, ISRMember{ID: r, Epoch: b.Epoch})
		w.proposed = append(w.proposed, r)
	}
	plan, out, err := w.cluster().AlterPartition(p.Leader, w.im.Broker(p.Leader).Epoch, []ISRChange{ch})
	if e := out[0].Err; e != nil && e.Code != kerr.IneligibleReplica && e.Code != kerr.NewLeaderElected {
		w.t.Errorf("%s: %v", tp, e)
	}
	w.must(plan, err)
	w.proposed = nil
}

// produce appends at the leader; followers that run copy it; with an ISR of the minimum whose members
// all have it, it is acknowledged.
func (w *walk) produce(tp meta.TopicPartition) {
	p, s := w.im.Partition(tp.Topic, tp.Partition), w.shelf(tp)
	if p.Leader == meta.NoLeader || w.down[p.Leader] {
		return
	}
	s.has[p.Leader]++
	end, all := s.has[p.Leader], true
	for _, r := range p.Replicas {
		if !w.down[r] && (slices.Contains(p.ISR, r) || w.rnd.IntN(2) == 0) {
			s.has[r] = end
		}
		all = all && (!slices.Contains(p.ISR, r) || s.has[r] >= end)
	}
	m, err := w.cluster().moves()
	if err != nil {
		w.t.Fatal(err)
	}
	if all && len(p.ISR) >= min(m.of(tp.Topic).minISR, len(p.Replicas)) {
		s.hw = max(s.hw, end)
	}
}

// judge looks at every leader that runs.
func (w *walk) judge() {
	for _, t := range w.im.Topics() {
		for n, p := range t.Partitions {
			tp := meta.TopicPartition{Topic: t.Name, Partition: int32(n)}
			s := w.shelf(tp)
			if p.Leader == meta.NoLeader || w.down[p.Leader] {
				continue
			}
			if s.has[p.Leader] < s.hw {
				if p.Recovery == Recovered {
					w.t.Errorf("%s: leader %d has %d of %d acknowledged: %+v", tp, p.Leader, s.has[p.Leader], s.hw, *p)
				}
				s.hw = s.has[p.Leader] // lost, and said so
			}
			for id, e := range s.has { // followers truncate to the leader
				if id != p.Leader && !w.down[id] {
					s.has[id] = min(e, s.has[p.Leader])
				}
			}
		}
	}
}

// A pass has an end, and the next goes on.
func TestSweepIsBounded(t *testing.T) {
	s := &stage{t: t, im: meta.Empty()}
	s.static("node.id=1")
	for _, cmd := range [][]string{{"bootstrap"}, {"register", "id=1"}, {"unfence", "id=1"}, {"register", "id=2"}, {"unfence", "id=2"}} {
		s.run(cmd)
	}
	as := map[int32][]int32{}
	for n := range int32(ElectionsPerPass + 200) {
		as[n] = []int32{1, 2}
	}
	p, _ := s.cluster().CreateTopics([]NewTopic{{Name: "t", Partitions: -1, Factor: -1, Assignment: as}}, false)
	s.apply(p)
	s.run([]string{"drain", "id=1"})
	s.run([]string{"fence", "id=1"})
	s.run([]string{"unfence", "id=1"})
	var chs []ISRChange
	for n, p := range s.im.Topic("t").Partitions {
		chs = append(chs, ISRChange{Topic: s.im.Topic("t").ID, Partition: int32(n), LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch, ISR: []ISRMember{{1, -1}, {2, -1}}})
	}
	p, _, err := s.cluster().AlterPartition(2, s.im.Broker(2).Epoch, chs)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(p)
	for i, want := range []int{ElectionsPerPass, 200, 0} {
		p, more, err := s.cluster().SweepPreferred()
		if err != nil || p.Len() != want || more != (i == 0) {
			t.Fatalf("pass %d: %d elections, more %v, %v", i, p.Len(), more, err)
		}
		s.apply(p)
	}
}

// One broker of three goes, with 3,000 partitions of factor 3: what a failover costs in planning.
func BenchmarkFence(b *testing.B) {
	s := &stage{im: meta.Empty()}
	s.st = config.StaticOf(nil)
	var cs []meta.Change
	for id := int32(1); id <= 3; id++ {
		cs = append(cs, meta.PutBroker(&meta.Broker{ID: id, Incarnation: meta.UUID{1}, Epoch: 1, Endpoints: []meta.Endpoint{{Listener: "P", Host: "h", Port: 1, Protocol: "PLAINTEXT"}}}))
	}
	cs = append(cs, meta.PutTopic("t", meta.TopicRecord{ID: meta.UUID{2}, Partitions: 3000}))
	for n := range int32(3000) {
		rs := []int32{n%3 + 1, (n+1)%3 + 1, (n+2)%3 + 1}
		cs = append(cs, meta.PutPartition(meta.UUID{2}, n, &meta.Partition{Replicas: rs, ISR: rs, Leader: rs[0]}))
	}
	im, _, err := s.im.Apply(cs, 1)
	if err != nil {
		b.Fatal(err)
	}
	s.im = im
	b.ReportAllocs()
	for b.Loop() {
		if p, err := s.cluster().Fence(2, 1); err != nil || p.Len() != 3001 {
			b.Fatal(p.Len(), err)
		}
	}
}
