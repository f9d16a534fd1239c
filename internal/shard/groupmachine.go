package shard

import (
	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/group"
)

// groupMachine is package group's machine as a shard runs it.
type groupMachine struct{ m *group.Machine }

func (g *groupMachine) replay(b batch.Batch, r batch.Record) error {
	return g.m.Replay(group.Replayed{
		Offset: r.Offset, ProducerID: b.ProducerID(), Transactional: b.IsTransactional(), Key: r.Key, Value: r.Value,
	})
}

func (g *groupMachine) marker(offset int64, b batch.Batch, m batch.Marker) {
	g.m.ReplayMarker(offset, b.ProducerID(), m.Type == batch.Commit)
}

func (g *groupMachine) setNext(offset int64) { g.m.SetNext(offset) }
func (g *groupMachine) next() int64          { return g.m.Next() }
func (g *groupMachine) wake() det.Instant    { return g.m.Wake() }

func (g *groupMachine) loaded(now det.Instant, e *effects) { g.out(g.m.Loaded(now), e) }

func (g *groupMachine) step(now det.Instant, token uint64, ev any, e *effects) {
	event, ok := ev.(group.Event)
	if !ok {
		event = group.Tick{}
	}
	g.out(g.m.Step(now, group.In{Token: group.Token(token), Event: event}), e)
}

func (g *groupMachine) out(o group.Out, e *effects) {
	for _, r := range o.Records {
		x := record{key: r.Key, value: r.Value, producer: noProducer}
		if r.Transactional {
			x.producer, x.epoch = r.ProducerID, r.Epoch
		}
		e.records = append(e.records, x)
	}
	for _, a := range o.Answers {
		e.answers = append(e.answers, answer{token: uint64(a.Token), response: a.Response})
	}
}
