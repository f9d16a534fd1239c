package shard

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/det"
)

const (
	// parkFor bounds how long a request waits for something to end before it is refused after all. Clients ask
	// again after a pause of 20 to 100 ms; what they wait for takes a few.
	parkFor = 500 * time.Millisecond
	// parkLimit bounds the requests of one shard that wait so.
	parkLimit = 10_000
)

// parkedItem is one request that waits, and what is said when it has waited too long.
type parkedItem struct {
	it      item
	refusal Result
	name    string
	due     det.Instant
	gone    bool // taken out again
}

// parking is the requests that wait for something to end, by its name.
type parking struct {
	by    map[string][]*parkedItem
	queue []*parkedItem // in the order of their deadlines
	gone  int           // of queue, taken out again
}

// add parks a request; false: there are too many.
func (p *parking) add(name string, it item, refusal Result, now det.Instant) bool {
	if len(p.queue)-p.gone >= parkLimit {
		return false
	}
	if p.by == nil {
		p.by = map[string][]*parkedItem{}
	}
	// From the first time it was parked: one that is parked again must not wait twice as long.
	if it.parked == 0 {
		it.parked = now
	}
	x := &parkedItem{it: it, refusal: refusal, name: name, due: it.parked.Add(parkFor)}
	if x.due <= now {
		return false
	}
	p.by[name] = append(p.by[name], x)
	// One that is parked again has a deadline before those that came meanwhile.
	i := len(p.queue)
	for i > 0 && p.queue[i-1].due > x.due {
		i--
	}
	p.queue = slices.Insert(p.queue, i, x)
	return true
}

// take gives out what waits for the names.
func (p *parking) take(names []string) []*parkedItem {
	var out []*parkedItem
	for _, n := range names {
		for _, x := range p.by[n] {
			if !x.gone {
				x.gone = true
				p.gone++
				out = append(out, x)
			}
		}
		delete(p.by, n)
	}
	return out
}

// expire refuses what has waited too long. The refusal needs no commit of its own: the record that it speaks of was
// committed before, or is about to be, and a client that asks again is shown no more than that.
func (p *parking) expire(now det.Instant) {
	n := 0
	for ; n < len(p.queue); n++ {
		x := p.queue[n]
		if !x.gone && x.due > now {
			break
		}
		if x.gone {
			p.gone--
		} else {
			x.gone = true
			p.forget(x)
			x.it.w.finish(x.refusal)
		}
		p.queue[n] = nil
	}
	p.queue = p.queue[n:]
	if len(p.queue) == 0 {
		p.queue, p.by = nil, nil
	}
}

// forget takes one out from under its name: what it waits for may not end for hours, and its clients ask every time anew.
func (p *parking) forget(x *parkedItem) {
	left := slices.DeleteFunc(p.by[x.name], func(y *parkedItem) bool { return y == x })
	if p.by[x.name] = left; len(left) == 0 {
		delete(p.by, x.name)
	}
}

// end refuses everything.
func (p *parking) end(err *kerr.Error) {
	for _, x := range p.queue {
		if x != nil && !x.gone {
			x.it.w.finish(Result{Err: err})
		}
	}
	*p = parking{}
}

func (p *parking) wake() det.Instant {
	for _, x := range p.queue {
		if !x.gone {
			return x.due
		}
	}
	return det.Never
}
