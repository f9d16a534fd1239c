package demo

import (
	"slices"
	"time"
)

// rates turns growing counts into rates and bars.
type rates struct {
	samples  []sample
	barSince time.Time
	barFrom  sample
	ackBars  []float64
	readBars []float64
}

type sample struct {
	at          time.Time
	acked, read int64
}

// bar is what one bar stands for: short enough that a silence of half a second is seen.
const bar = 500 * time.Millisecond

func (r *rates) add(s sample) {
	r.samples = append(r.samples, s)
	for len(r.samples) > 2 && s.at.Sub(r.samples[0].at) > 2*time.Second {
		r.samples = r.samples[1:]
	}
	if r.barSince.IsZero() {
		r.barSince, r.barFrom = s.at, s
	}
	if span := s.at.Sub(r.barSince); span >= bar {
		r.ackBars = appendBar(r.ackBars, float64(s.acked-r.barFrom.acked)/span.Seconds())
		r.readBars = appendBar(r.readBars, float64(s.read-r.barFrom.read)/span.Seconds())
		r.barSince, r.barFrom = s.at, s
	}
}

func appendBar(list []float64, v float64) []float64 {
	const most = 400
	if len(list) == most {
		list = slices.Delete(list, 0, most/2)
	}
	return append(list, v)
}

func (r *rates) now() (acked, read float64) {
	a, b := r.samples[0], r.samples[len(r.samples)-1]
	span := b.at.Sub(a.at).Seconds()
	if span == 0 {
		return 0, 0
	}
	return float64(b.acked-a.acked) / span, float64(b.read-a.read) / span
}

// draw shows the present.
func (d *show) draw() {
	now := time.Now()
	a := d.ledger.accounts(now)
	d.rates.add(sample{now, a.acked, a.read})
	v := d.watch.latest()
	p := &picture{
		elapsed: now.Sub(d.begun), total: d.o.For, every: d.o.Every, phase: d.phase, copies: min(3, d.o.Brokers), rate: float64(d.o.Rate),
		acked: a.acked, read: a.read, ackBars: d.rates.ackBars, readBars: d.rates.readBars, lost: a.lost, dup: a.dup, again: a.again, wrong: a.wrong,
		waiting: a.inFlight, kills: d.kills, writes: a.writes, reads: a.reads, events: d.events,
	}
	p.ackRate, p.readRate = d.rates.now()
	d.addParts(p, v, a)
	d.addBrokers(p, v, now)
	d.screen.draw(p)
}

func (d *show) addParts(p *picture, v view, a accounts) {
	for n := range int32(d.o.Parts) {
		x := partPicture{number: n, leader: -1, lag: a.lag[n], inSync: map[int32]bool{}}
		if int(n) < len(v.parts) {
			s := &v.parts[n]
			x.leader, x.epoch = s.Leader, s.Epoch
			x.copies = slices.Sorted(slices.Values(s.Replicas))
			for _, id := range s.ISR {
				x.inSync[id] = true
			}
		}
		p.parts = append(p.parts, x)
	}
}

func (d *show) addBrokers(p *picture, v view, now time.Time) {
	for i, c := range d.fleet.brokers {
		b := brokerPicture{id: c.id, addr: c.client, controller: v.controller == c.id}
		for j := range p.parts {
			x := &p.parts[j]
			if x.leader == c.id {
				b.leads++
			}
			if slices.Contains(x.copies, c.id) {
				b.holds++
			}
			if x.inSync[c.id] {
				b.inSync++
			}
		}
		switch {
		case !c.running():
			b.state = killed
			b.back = max(0, d.restart[i].Sub(now))
		case b.inSync < b.holds:
			b.state = starting
		}
		p.brokers = append(p.brokers, b)
	}
}
