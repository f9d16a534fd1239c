package control

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/milena-mq/milena/internal/meta"
)

// dirs reads directory ids of one letter each.
func dirs(v string) []meta.UUID {
	var out []meta.UUID
	for _, r := range v {
		out = append(out, meta.UUID{0: byte(r), 15: 0xdd})
	}
	return out
}

func ints(v string) []int32 {
	var out []int32
	for _, w := range strings.Split(v, ",") {
		if n, err := strconv.Atoi(w); err == nil {
			out = append(out, int32(n))
		}
	}
	return out
}

// spots reads t/0; a list of them is separated by commas.
func spots(v string) []meta.TopicPartition {
	if v == "" {
		return nil
	}
	var out []meta.TopicPartition
	for _, w := range strings.Split(v, ",") {
		t, n, _ := strings.Cut(w, "/")
		i, _ := strconv.Atoi(n)
		out = append(out, meta.TopicPartition{Topic: t, Partition: int32(i)})
	}
	return out
}

// cluster2 is the commands about several brokers.
func (s *stage) cluster2(c *Cluster, cmd, name string, args map[string]string, num func(string, int) int) {
	switch cmd {
	case "feature":
		r := s.im.Cluster()
		r.Features = map[string]int16{FeatureELR: int16(num("elr", 1))}
		s.apply(Plan{Steps: [][]meta.Change{{meta.PutCluster(r)}}})
	case "alter":
		s.alterPartition(c, name, args, num)
	case "reassign":
		w := Reassignment{}
		tp := spots(name)[0]
		w.Topic, w.Partition = tp.Topic, tp.Partition
		if v, ok := args["to"]; ok {
			if w.Target = ints(v); w.Target == nil {
				w.Target = []int32{}
			}
		}
		p, errs := c.Reassign([]Reassignment{w}, num("otherFactor", 1) == 1)
		s.refusal(errs[0])
		s.apply(p)
	case "reassigning":
		for _, m := range c.Reassigning(spots(name)) {
			fmt.Fprintf(&s.out, "%s-%d replicas %v adding %v removing %v\n", m.Topic, m.Partition, m.Replicas, m.Adding, m.Removing)
		}
	case "elect":
		p, out, err := c.ElectLeaders(ElectionType(num("type", 0)), spots(name))
		for _, e := range out {
			if e.Err == nil {
				fmt.Fprintf(&s.out, "%s: elected\n", e.TopicPartition)
			} else {
				fmt.Fprintf(&s.out, "%s: %s: %s\n", e.TopicPartition, e.Err.Code.Message, e.Err.Message)
			}
		}
		s.done(p, err)
	case "prefer", "offline", "room":
		fn := map[string]func() (Plan, bool, error){"prefer": c.SweepPreferred, "offline": c.SweepOffline, "room": c.SweepFull}[cmd]
		p, more, err := fn()
		fmt.Fprintf(&s.out, "%d elections, more %v\n", p.Len(), more)
		s.done(p, err)
	case "losedirs":
		id := int32(num("id", 1))
		s.done(c.LoseDirs(id, s.im.Broker(id).Epoch, dirs(args["dirs"])))
	case "unregister":
		s.done(c.Unregister(int32(num("id", 1))))
	case "place":
		// The replicas of a partition get directories: what AssignReplicasToDirs will do.
		tp := spots(name)[0]
		t := s.im.Topic(tp.Topic)
		p := *t.Partitions[tp.Partition]
		p.Dirs = dirs(args["dirs"])
		p.PartitionEpoch++
		s.apply(Plan{Steps: [][]meta.Change{{meta.PutPartition(t.ID, tp.Partition, &p)}}})
	case "assign":
		// id says that its replicas live in dir.
		var ws []DirAssignment
		for _, tp := range spots(name) {
			ws = append(ws, DirAssignment{Dir: dirs(args["dir"])[0], Topic: s.im.Topic(tp.Topic).ID, Partition: tp.Partition})
		}
		id := int32(num("id", 1))
		p, errs, err := c.AssignDirs(id, s.im.Broker(id).Epoch, ws)
		for _, e := range errs {
			s.refusal(e)
		}
		s.done(p, err)
	case "throttle":
		var ms []Reassignment
		for _, tp := range spots(name) {
			ms = append(ms, Reassignment{Topic: tp.Topic, Partition: tp.Partition, Target: ints(args["to"])})
		}
		s.done(c.Throttle(ms, int64(num("rate", 1000))))
	case "update":
		ws := []FeatureUpdate{{Name: name, Level: int16(num("level", 0)), Type: UpgradeType(num("type", 1))}}
		if v, ok := args["and"]; ok {
			ws = append(ws, FeatureUpdate{Name: v, Level: int16(num("level", 0)), Type: UpgradeType(num("type", 1))})
		}
		p, errs := c.UpdateFeatures(ws, num("dry", 0) == 1)
		for _, e := range errs {
			s.refusal(e)
		}
		s.done(p, nil)
	case "unthrottle":
		s.done(c.Unthrottle())
	case "balance":
		s.balance(c, args, num)
	case "state":
		s.state(name)
	default:
		s.lively(cmd, args, num)
	}
}

// state prints partitions in one line each.
func (s *stage) state(only string) {
	for _, t := range s.im.Topics() {
		for n, p := range t.Partitions {
			if only != "" && t.Name != only {
				continue
			}
			fmt.Fprintf(&s.out, "%s-%d replicas %v isr %v elr %v last %v leader %d epochs %d %d recovery %d\n", t.Name, n, p.Replicas, p.ISR, p.ELR, p.LastKnownELR, p.Leader, p.LeaderEpoch, p.PartitionEpoch, p.Recovery)
		}
	}
}

func (s *stage) refusal(e *Error) {
	if e != nil {
		fmt.Fprintf(&s.out, "%s: %s\n", e.Code.Message, e.Message)
	}
}

// alterPartition proposes an ISR: members are id or id:epoch, epochs default to those of the record.
func (s *stage) alterPartition(c *Cluster, name string, args map[string]string, num func(string, int) int) {
	var chs []ISRChange
	for _, tp := range spots(name) {
		ch := ISRChange{Partition: tp.Partition}
		old := s.im.Partition(tp.Topic, tp.Partition)
		if t := s.im.Topic(tp.Topic); t != nil {
			ch.Topic = t.ID
		}
		if old == nil {
			old = &meta.Partition{}
		}
		le, pe := args["le"], args["pe"]
		ch.LeaderEpoch, ch.PartitionEpoch, ch.Recovery = old.LeaderEpoch, old.PartitionEpoch, Recovered
		if le != "" {
			n, _ := strconv.Atoi(le)
			ch.LeaderEpoch += int32(n)
		}
		if pe != "" {
			n, _ := strconv.Atoi(pe)
			ch.PartitionEpoch += int32(n)
		}
		if args["recovery"] == "1" {
			ch.Recovery = Recovering
		}
		for _, w := range strings.Split(args["isr"], ",") {
			id, epoch, ok := strings.Cut(w, ":")
			m := ISRMember{Epoch: -1}
			n, _ := strconv.Atoi(id)
			m.ID = int32(n)
			if e, err := strconv.Atoi(epoch); ok && err == nil {
				m.Epoch = int64(e)
			} else if b := s.im.Broker(m.ID); b != nil {
				m.Epoch = b.Epoch
			}
			ch.ISR = append(ch.ISR, m)
		}
		chs = append(chs, ch)
	}
	id := int32(num("id", 1))
	epoch := int64(-1)
	if b := s.im.Broker(id); b != nil {
		epoch = b.Epoch
	}
	epoch += int64(num("be", 0))
	p, out, err := c.AlterPartition(id, epoch, chs)
	for _, a := range out {
		s.refusal(a.Err)
		if a.State != nil {
			fmt.Fprintf(&s.out, "leader %d epochs %d %d isr %v recovery %d\n", a.State.Leader, a.State.LeaderEpoch, a.State.PartitionEpoch, a.State.ISR, a.State.Recovery)
		}
	}
	for _, ch := range chs {
		for _, m := range ch.ISR {
			s.proposed = append(s.proposed, m.ID)
		}
	}
	s.done(p, err)
	s.proposed = nil
}

// lively is the commands of the liveness machine.
func (s *stage) lively(cmd string, args map[string]string, num func(string, int) int) {
	id := int32(num("id", 1))
	epoch := int64(-1)
	if b := s.im.Broker(id); b != nil {
		epoch = b.Epoch
	}
	epoch += int64(num("be", 0))
	switch cmd {
	case "watch":
		s.now = int64(num("at", int(s.now)))
		s.live = NewLiveness(int64(num("session", 9000)))
		s.live.Sync(s.im, s.now)
	case "beat":
		s.now = int64(num("at", int(s.now)))
		pulse, err := s.live.Beat(s.im, Beat{ID: id, Epoch: epoch, Seen: int64(num("seen", int(s.im.Revision()))), Conn: uint64(num("conn", 1)),
			Fence: num("fence", 0) == 1, Shutdown: num("shutdown", 0) == 1, LostDirs: dirs(args["lost"]), FullDirs: dirs(args["full"])}, s.now)
		s.refusal(err)
		if err == nil {
			fmt.Fprintf(&s.out, "caught up %v, fenced %v, shutdown %v\n", pulse.CaughtUp, pulse.Fenced, pulse.Shutdown)
		}
	case "slow":
		s.now = int64(num("at", int(s.now)))
		fmt.Fprintf(&s.out, "%v\n", s.live.Slow(id, s.now))
	case "begin":
		s.now = int64(num("at", int(s.now)))
		s.live.Begin(s.now)
	case "closed":
		s.now = int64(num("at", int(s.now)))
		s.live.Closed(id, uint64(num("conn", 1)), s.now)
	case "again":
		r := Registration{ID: id, Incarnation: meta.UUID{99}}
		if args["same"] == "1" {
			r.Incarnation = s.im.Broker(id).Incarnation
		}
		s.now = int64(num("at", int(s.now)))
		s.refusal(s.live.CheckRegistration(s.im, r, s.now))
	case "decide":
		s.now = int64(num("at", int(s.now)))
		s.decide()
	default:
		s.t.Fatalf("no command %q", cmd)
	}
}

// decide carries out what the machine decides, as the controller will, until it has no more to say.
func (s *stage) decide() {
	s.live.Sync(s.im, s.now)
	for range 20 {
		ds := s.live.Decide(s.im, s.now)
		if len(ds) == 0 {
			at, ok := s.live.Next(s.im)
			if ok {
				fmt.Fprintf(&s.out, "quiet until %d\n", at)
			} else {
				s.out.WriteString("quiet\n")
			}
			return
		}
		d := ds[0]
		fmt.Fprintf(&s.out, "%s %d: %s\n", d.Verdict, d.ID, d.Reason)
		c := s.cluster()
		var p Plan
		var err error
		switch d.Verdict {
		case VerdictFence:
			p, err = c.Fence(d.ID, d.Epoch)
		case VerdictUnfence:
			p, err = c.Unfence(d.ID, d.Epoch)
		case VerdictLoseDirs:
			p, err = c.LoseDirs(d.ID, d.Epoch, d.Dirs)
		case VerdictDrain:
			if p, err = c.Drain(d.ID, d.Epoch); err == nil && p.Len() == 0 {
				s.live.Drained(d.ID, d.Epoch, s.im.Revision())
			}
		}
		if err != nil {
			s.t.Fatal(err)
		}
		quiet := slices.Clone([]byte(s.out.String()))
		s.apply(p)
		s.out.Reset()
		s.out.Write(quiet)
		s.live.Sync(s.im, s.now)
	}
	s.t.Fatal("decisions do not end")
}
