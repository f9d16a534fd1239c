package control

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/milena-mq/milena/internal/meta"
)

// balance is the transcript's command: a dry run; with go=1 the plan is carried out, and the copies
// arrive at once.
func (s *stage) balance(c *Cluster, args map[string]string, num func(string, int) int) {
	b := Balancing{Leaving: ints(args["leaving"]), Moves: num("moves", 0)}
	if v, ok := args["bytes"]; ok { // t/0:100,t/1:5
		b.Bytes = func(tp meta.TopicPartition) int64 {
			var n int64
			for _, w := range strings.Split(v, ",") {
				if name, size, _ := strings.Cut(w, ":"); spots(name)[0] == tp {
					fmt.Sscan(size, &n)
				}
			}
			return n
		}
	}
	plan := c.Balance(b)
	for _, r := range plan {
		fmt.Fprintf(&s.out, "%s %v -> %v, %d bytes: %s\n", r.TopicPartition, r.From, r.To, r.Bytes, r.Reason)
	}
	if num("go", 0) == 1 {
		s.relocate(plan)
	}
}

func (s *stage) relocate(plan []Relocation) {
	said := s.out.String()
	for _, r := range plan {
		p, errs := s.cluster().Reassign([]Reassignment{{Topic: r.Topic, Partition: r.Partition, Target: r.To}}, true)
		if errs[0] != nil {
			s.t.Error(errs[0])
		}
		s.apply(p)
		old := s.im.Partition(r.Topic, r.Partition)
		ch := ISRChange{Topic: s.im.Topic(r.Topic).ID, Partition: r.Partition, LeaderEpoch: old.LeaderEpoch, PartitionEpoch: old.PartitionEpoch}
		for _, id := range old.Replicas {
			ch.ISR = append(ch.ISR, ISRMember{ID: id, Epoch: -1})
		}
		s.proposed = old.Replicas
		p, out, err := s.cluster().AlterPartition(old.Leader, s.im.Broker(old.Leader).Epoch, []ISRChange{ch})
		if err != nil || out[0].State == nil {
			s.t.Error(err, out)
		}
		s.apply(p)
		s.proposed = nil
	}
	s.out.Reset()
	s.out.WriteString(said)
}

// Any cluster that is carried through its plan is even, spread over racks, and asks for nothing more.
func TestBalanceIsEvenAndSettles(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		s := &stage{t: t, im: meta.Empty()}
		s.static("node.id=1")
		s.run([]string{"bootstrap"})
		n, racks := 2+rnd.IntN(5), 1+rnd.IntN(3)
		for id := 1; id <= n; id++ {
			s.run([]string{"register", fmt.Sprint("id=", id), fmt.Sprint("rack=r", id%racks)})
			s.run([]string{"unfence", fmt.Sprint("id=", id)})
		}
		sizes := map[meta.TopicPartition]int64{}
		for topic := range 3 {
			f := 1 + rnd.IntN(min(n, 3))
			as := map[int32][]int32{}
			for p := range int32(5 + rnd.IntN(12)) {
				for _, b := range rnd.Perm(n)[:f] {
					as[p] = append(as[p], int32(b+1))
				}
				sizes[meta.TopicPartition{Topic: fmt.Sprint("t", topic), Partition: p}] = int64(rnd.IntN(1000))
			}
			p, res := s.cluster().CreateTopics([]NewTopic{{Name: fmt.Sprint("t", topic), Partitions: -1, Factor: -1, Assignment: as}}, false)
			if res[0].Err != nil {
				t.Fatal(res[0].Err)
			}
			s.apply(p)
		}
		b := Balancing{Bytes: func(tp meta.TopicPartition) int64 { return sizes[tp] }}
		if limited := s.cluster().Balance(Balancing{Moves: 3}); moving(limited) > 3 {
			t.Errorf("seed %d: %d partitions move, 3 may", seed, moving(limited))
		}
		s.relocate(s.cluster().Balance(b))
		if again := s.cluster().Balance(b); len(again) != 0 {
			t.Errorf("seed %d: not settled: %+v", seed, again)
		}
		s.even(seed, n, racks)
	}
}

func moving(rs []Relocation) int {
	n := 0
	for _, r := range rs {
		if !subset(r.To, r.From) {
			n++
		}
	}
	return n
}

func (s *stage) even(seed uint64, n, racks int) {
	count := make([]int, n)
	for _, t := range s.im.Topics() {
		for i, p := range t.Partitions {
			seen := map[string]bool{}
			for _, r := range p.Replicas {
				count[r-1]++
				seen[s.im.Broker(r).Rack] = true
			}
			if len(seen) != min(len(p.Replicas), racks, n) {
				s.t.Errorf("seed %d: %s-%d: %v in %d racks", seed, t.Name, i, p.Replicas, len(seen))
			}
		}
	}
	// Racks of different sizes cannot be even: each has to hold its share.
	if n%racks == 0 && slices.Max(count)-slices.Min(count) > 1 {
		s.t.Errorf("seed %d: replicas %v", seed, count)
	}
}
