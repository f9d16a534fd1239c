package history

import (
	"cmp"
	"slices"
)

// realTime: I7: a record sent after another one of its partition was acknowledged lies behind it. A sweep over
// the sends in time: the highest offset acknowledged before each.
func (c *checker) realTime() {
	type point struct{ at, offset int64 }
	sends := make([][]*op, c.r.parts)
	acks := make([][]point, c.r.parts)
	for _, w := range c.r.writers {
		for i := range w.ops {
			if o := &w.ops[i]; o.state == acked {
				sends[o.part] = append(sends[o.part], o)
				acks[o.part] = append(acks[o.part], point{o.done, o.offset})
			}
		}
	}
	for p := range sends {
		slices.SortFunc(sends[p], func(a, b *op) int { return cmp.Compare(a.sent, b.sent) })
		slices.SortFunc(acks[p], func(a, b point) int { return cmp.Compare(a.at, b.at) })
		next, highest := 0, int64(-1)
		for _, o := range sends[p] {
			for next < len(acks[p]) && acks[p][next].at < o.sent {
				highest = max(highest, acks[p][next].offset)
				next++
			}
			c.checked("I7", 1)
			if o.offset <= highest {
				c.bad("I7", "partition %d: offset %d was sent after offset %d was acknowledged", p, o.offset, highest)
			}
		}
	}
}

// monotone: of answers of one kind about one partition, one that began after another one had ended is not
// below it. each says that only the answers of one broker are compared with each other: metadata of
// different brokers may be of different age.
func (c *checker) monotone(kind Kind, promise string, each bool) {
	type key struct{ part, broker int32 }
	groups := map[key][]Answer{}
	for _, a := range c.r.answers {
		if a.Kind != kind || a.Part < 0 || int(a.Part) >= c.r.parts {
			continue
		}
		k := key{part: a.Part}
		if each {
			k.broker = a.Broker
		}
		groups[k] = append(groups[k], a)
	}
	keys := make([]key, 0, len(groups))
	for k := range groups {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int { return cmp.Or(cmp.Compare(a.part, b.part), cmp.Compare(a.broker, b.broker)) })
	for _, k := range keys {
		c.rising(promise, groups[k])
	}
}

func (c *checker) rising(promise string, as []Answer) {
	ended := slices.Clone(as)
	slices.SortFunc(as, func(a, b Answer) int { return cmp.Compare(a.Start, b.Start) })
	slices.SortFunc(ended, func(a, b Answer) int { return cmp.Compare(a.End, b.End) })
	next := 0
	highest := Answer{Offset: -1}
	for _, a := range as {
		for next < len(ended) && ended[next].End < a.Start {
			if ended[next].Offset > highest.Offset {
				highest = ended[next]
			}
			next++
		}
		c.checked(promise, 1)
		if a.Offset < highest.Offset {
			c.bad(promise, "partition %d: broker %d answered %d%s at %.3f s, broker %d had answered %d by %.3f s",
				a.Part, a.Broker, a.Offset, a.via(), seconds(a.Start), highest.Broker, highest.Offset, seconds(highest.End))
		}
	}
}

func (a Answer) via() string {
	if a.Fetch {
		return " by a Fetch"
	}
	return ""
}

func seconds(ns int64) float64 { return float64(ns) / 1e9 }

// afterAcks: I9 against acknowledgements: acks=all says that the high watermark has passed the record, so no later
// answer may name an end at or below it.
func (c *checker) afterAcks() {
	type point struct{ at, offset int64 }
	acks := make([][]point, c.r.parts)
	for _, w := range c.r.writers {
		for i := range w.ops {
			if o := &w.ops[i]; o.state == acked {
				acks[o.part] = append(acks[o.part], point{o.done, o.offset})
			}
		}
	}
	answers := make([][]Answer, c.r.parts)
	for _, a := range c.r.answers {
		if a.Kind == HighWatermark && a.Part >= 0 && int(a.Part) < c.r.parts {
			answers[a.Part] = append(answers[a.Part], a)
		}
	}
	for p := range acks {
		slices.SortFunc(acks[p], func(a, b point) int { return cmp.Compare(a.at, b.at) })
		slices.SortFunc(answers[p], func(a, b Answer) int { return cmp.Compare(a.Start, b.Start) })
		next, highest := 0, int64(-1)
		for _, a := range answers[p] {
			for next < len(acks[p]) && acks[p][next].at < a.Start {
				highest = max(highest, acks[p][next].offset)
				next++
			}
			c.checked("I9", 1)
			if a.Offset <= highest {
				c.bad("I9", "partition %d: broker %d answered the end %d%s at %.3f s, after offset %d was acknowledged", p, a.Broker, a.Offset, a.via(), seconds(a.Start), highest)
			}
		}
	}
}
