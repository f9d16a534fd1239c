package txn

import (
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/producer"
)

// part is a partition as far as transactions go: a log, the real producer table, guards as package partition has them.
type part struct {
	w       *world
	n       int
	log     []batch.Batch // one record each; the offset is the index
	values  []int         // 0: a marker
	hw      int64
	table   *producer.Table
	aborted []producer.Txn
	guards  map[int64]*guard
	waits   []partWait
	owners  map[int]int // value: transaction
}

type guard struct {
	epoch  int16
	lowest int32
}

// partWait is what waits for an offset to be committed. lost is what happens when it never will.
type partWait struct {
	end      int64
	ok, lost func()
}

func newPart(w *world, n int) *part {
	return &part{w: w, n: n, table: &producer.Table{}, guards: map[int64]*guard{}, owners: map[int]int{}}
}

func (p *part) end() int64 { return int64(len(p.log)) }

func (p *part) raise(hw int64) {
	p.hw = hw
	p.table.Replicated(hw)
	var due []partWait
	p.waits = slices.DeleteFunc(p.waits, func(x partWait) bool {
		if x.end <= hw {
			due = append(due, x)
		}
		return x.end <= hw
	})
	for _, x := range due {
		x.ok()
	}
}

// crash is a change of leader: what is not committed may be lost.
func (p *part) crash() {
	keep := p.hw + int64(p.w.r.IntN(int(p.end()-p.hw)+1))
	p.w.say("partition %d loses its leader: %d of %d are left, committed %d", p.n, keep, p.end(), p.hw)
	p.w.tally.Lost += int(p.end() - keep)
	p.log, p.values = p.log[:keep], p.values[:keep]
	p.table, p.aborted, p.guards = &producer.Table{}, nil, map[int64]*guard{}
	for _, b := range p.log {
		p.update(b)
	}
	p.table.Replicated(p.hw)
	waits := p.waits
	p.waits = nil
	for _, x := range waits {
		x.lost() // nobody is told whether it was written
	}
}

func (p *part) update(b batch.Batch) {
	if done, ok := p.table.Update(b); ok && done.Aborted {
		p.aborted = append(p.aborted, done)
	}
}

func (p *part) append(b batch.Batch, value int) {
	b.SetBaseOffset(p.end())
	p.log, p.values = append(p.log, b), append(p.values, value)
	p.update(b)
}

// produce is Produce 12 of a producer of version 2, or 11 of one of version 1.
func (p *part) produce(q *call) {
	w := p.w
	if p.table.Open(q.pid, q.epoch) {
		p.write(q, nil)
		return
	}
	g := p.guards[q.pid]
	if g == nil || g.epoch != q.epoch {
		g = &guard{q.epoch, q.seq}
		p.guards[q.pid] = g
	}
	g.lowest = min(g.lowest, q.seq)
	w.later(func() {
		ev := Add{TxnID: q.c.id, ProducerID: q.pid, Epoch: q.epoch, Partitions: []meta.TopicPartition{{Topic: "t", Partition: int32(p.n)}}, Verify: !q.c.v2, V2: true}
		w.ask(ev, func(v any) {
			code := v.([]int16)[0]
			w.later(func() {
				if code != 0 {
					w.later(func() { w.answered(q, code, 0, 0) })
					return
				}
				p.write(q, g)
			})
		})
	})
}

func (p *part) write(q *call, g *guard) {
	w := p.w
	answer := func(e *kerr.Error) {
		code := int16(0)
		if e != nil {
			code = e.Code
		}
		w.later(func() { w.answered(q, code, 0, 0) })
	}
	bld := batch.NewBuilder(batch.Spec{LeaderEpoch: 1, Transactional: true, Producer: &batch.ProducerInfo{ID: q.pid, Epoch: q.epoch, Sequence: q.seq}})
	_ = bld.Add(batch.Record{Value: []byte("x")})
	b, err := bld.Build()
	if err != nil {
		w.fail("build: %v", err)
		return
	}
	v, err := p.table.Check(b, 0)
	var refused *kerr.Error
	switch {
	case errors.As(err, &refused):
		answer(refused)
		return
	case v.Duplicate:
		p.wait(v.LastOffset+1, func() { answer(nil) })
		return
	case !p.table.Open(q.pid, q.epoch) && (g == nil || p.guards[q.pid] != g):
		answer(kerr.InvalidTxnState)
		return
	case !p.table.Open(q.pid, q.epoch) && (q.seq > g.lowest || q.c.v2 && q.seq != 0):
		answer(kerr.OutOfOrderSequenceNumber)
		return
	}
	delete(p.guards, q.pid)
	w.say("partition %d offset %d: value %d %d/%d", p.n, p.end(), q.value, q.pid, q.epoch)
	p.append(b, q.value)
	p.wait(p.end(), func() { answer(nil) })
}

func (p *part) wait(end int64, ok func()) {
	if end <= p.hw {
		ok()
		return
	}
	p.waits = append(p.waits, partWait{end, ok, func() {}})
}

// mark is a marker that arrives; it comes again until it stands.
func (p *part) mark(m Marker) {
	w := p.w
	typ := batch.Abort
	if m.Commit {
		typ = batch.Commit
	}
	b := batch.BuildMarker(m.ProducerID, m.Epoch, batch.Marker{Type: typ, CoordinatorEpoch: m.CoordinatorEpoch})
	if err := p.table.CheckMarker(b, m.Version); err != nil {
		w.say("partition %d refuses marker %d/%d: %v", p.n, m.ProducerID, m.Epoch, err)
		w.later(func() {
			w.take(w.m.Step(w.now, In{Event: Fenced{TxnID: m.TxnID, ProducerID: m.ProducerID, Epoch: m.Epoch}}))
		})
		return
	}
	if g := p.guards[m.ProducerID]; g != nil && (g.epoch < m.Epoch || g.epoch == m.Epoch && m.Version < 2) {
		delete(p.guards, m.ProducerID)
	}
	w.say("partition %d offset %d: marker %d/%d commit=%v", p.n, p.end(), m.ProducerID, m.Epoch, m.Commit)
	p.append(b, 0)
	written := func() {
		w.later(func() {
			w.take(w.m.Step(w.now, In{Event: Written{TxnID: m.TxnID, ProducerID: m.ProducerID, Epoch: m.Epoch, Partitions: []meta.TopicPartition{{Topic: "t", Partition: int32(p.n)}}}}))
		})
	}
	if p.end() <= p.hw {
		written()
		return
	}
	p.waits = append(p.waits, partWait{p.end(), written, func() { w.later(func() { p.mark(m) }) }})
}

func (p *part) lso() int64 {
	if first, ok := p.table.FirstUnstable(); ok {
		return min(p.hw, first)
	}
	return p.hw
}

// visible is what a reader of committed records sees, by the rules of Kafka's clients: how often each value.
func (p *part) visible(overHW bool) map[int]int {
	bound := p.lso()
	if overHW {
		bound = p.hw
	}
	var list []producer.Txn
	for _, a := range p.aborted {
		if a.FirstOffset < bound {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b producer.Txn) int { return int(a.FirstOffset - b.FirstOffset) })
	out, dropping := map[int]int{}, map[int64]bool{}
	for at := int64(0); at < bound; at++ {
		for len(list) > 0 && list[0].FirstOffset <= at {
			dropping[list[0].ProducerID] = true
			list = list[1:]
		}
		b := p.log[at]
		if m, ok, _ := b.Marker(); b.IsControl() {
			if ok && m.Type == batch.Abort {
				delete(dropping, b.ProducerID())
			}
			continue
		}
		if !dropping[b.ProducerID()] {
			out[p.values[at]]++
		}
	}
	return out
}
