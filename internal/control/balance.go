package control

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/milena-mq/milena/internal/meta"
)

// Relocation is one step that the balancer proposes: other replicas for a partition, or the same in
// another order, which moves no data but the preferred leader.
type Relocation struct {
	meta.TopicPartition
	From, To []int32
	Bytes    int64 // that have to be copied; 0 where only the order changes
	Reason   string
}

// Balancing is what the balancer is asked for.
type Balancing struct {
	Leaving []int32                         // brokers to be emptied (decommission)
	Bytes   func(meta.TopicPartition) int64 // size of one replica; nil: not known, all count as 0
	Moves   int                             // most partitions whose data moves; 0: no limit
}

// Balance plans, in this order: replicas off the brokers that leave, partitions over as many racks as
// there can be, as many replicas and then bytes on each broker, as many preferred leaders. It only
// proposes: a dry run prints it, Reassign carries it out. Replicas on fenced brokers stay, since a
// broker that restarts is not worth a copy; partitions that are being reassigned are left alone.
// A replica that has nowhere to go stays, on a broker that leaves, too: whoever empties one looks whether
// it is empty. The same image gives the same plan; an image as planned gives an empty one, apart from what Moves cut off.
func (c *Cluster) Balance(b Balancing) []Relocation {
	w := newScale(c, b)
	for _, step := range []func() bool{w.empty, w.racks, w.replicas, w.weights} {
		for !w.full() && step() {
		}
	}
	for w.leaders() {
	}
	return w.relocations()
}

// scale is the cluster as the moves so far will leave it.
type scale struct {
	b       Balancing
	rack    map[int32]string
	targets []int32 // brokers that may take replicas
	parts   []*weight
	count   map[int32]int
	bytes   map[int32]int64
	first   map[int32]int
	moved   int
}

type weight struct {
	tp       meta.TopicPartition
	bytes    int64
	from, to []int32
	reason   string
	moves    bool // data moves
}

func newScale(c *Cluster, b Balancing) *scale {
	w := &scale{b: b, rack: map[int32]string{}, count: map[int32]int{}, bytes: map[int32]int64{}, first: map[int32]int{}}
	for _, br := range c.Image.Brokers() {
		w.rack[br.ID] = br.Rack
		if active(br) && !slices.Contains(b.Leaving, br.ID) {
			w.targets = append(w.targets, br.ID)
		}
	}
	for _, t := range c.Image.Topics() {
		for n, p := range t.Partitions {
			x := &weight{tp: meta.TopicPartition{Topic: t.Name, Partition: int32(n)}, from: p.Replicas, to: slices.Clone(p.Replicas)}
			if b.Bytes != nil {
				x.bytes = b.Bytes(x.tp)
			}
			for _, r := range p.Replicas {
				w.count[r]++
				w.bytes[r] += x.bytes
			}
			w.first[p.Replicas[0]]++
			if len(p.Adding) == 0 && len(p.Removing) == 0 {
				w.parts = append(w.parts, x)
			}
		}
	}
	return w
}

func (w *scale) full() bool { return w.b.Moves > 0 && w.moved >= w.b.Moves }

// replace puts a replica on another broker.
func (w *scale) replace(x *weight, from, to int32, reason string) {
	i := slices.Index(x.to, from)
	x.to[i] = to
	w.count[from]--
	w.count[to]++
	w.bytes[from] -= x.bytes
	w.bytes[to] += x.bytes
	if i == 0 {
		w.first[from]--
		w.first[to]++
	}
	if !x.moves {
		x.moves = true
		w.moved++
	}
	x.because(reason)
}

func (x *weight) because(reason string) {
	if x.reason != "" {
		x.reason += "; "
	}
	x.reason += reason
}

// crowd is how many other replicas of a partition are in the rack of a broker.
func (w *scale) crowd(x *weight, id, but int32) int {
	n := 0
	for _, r := range x.to {
		if r != but && w.rack[id] != "" && w.rack[r] == w.rack[id] {
			n++
		}
	}
	return n
}

// roomy finds the best new place of a replica: the emptiest rack, then the fewest replicas, then bytes.
func (w *scale) roomy(x *weight, from int32) (int32, bool) {
	best, found := int32(0), false
	for _, id := range w.targets {
		if slices.Contains(x.to, id) {
			continue
		}
		if !found || cmp.Or(cmp.Compare(w.crowd(x, id, from), w.crowd(x, best, from)), cmp.Compare(w.count[id], w.count[best]), cmp.Compare(w.bytes[id], w.bytes[best])) < 0 {
			best, found = id, true
		}
	}
	return best, found
}

func (w *scale) empty() bool {
	for _, x := range w.parts {
		for _, r := range x.to {
			if !slices.Contains(w.b.Leaving, r) {
				continue
			}
			if to, ok := w.roomy(x, r); ok {
				w.replace(x, r, to, fmt.Sprintf("broker %d leaves", r))
				return true
			}
		}
	}
	return false
}

func (w *scale) racks() bool {
	for _, x := range w.parts {
		for _, r := range slices.Backward(x.to) {
			if w.crowd(x, r, r) == 0 || !slices.Contains(w.targets, r) {
				continue
			}
			if to, ok := w.roomy(x, r); ok && w.crowd(x, to, r) < w.crowd(x, r, r) {
				w.replace(x, r, to, fmt.Sprintf("two replicas are in rack %s", w.rack[r]))
				return true
			}
		}
	}
	return false
}

// replicas moves one replica from a broker to one with at least two fewer; of all that may move, a small one.
func (w *scale) replicas() bool {
	order := slices.Clone(w.targets)
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(w.count[a], w.count[b]) })
	for _, high := range slices.Backward(order) {
		for _, low := range order {
			if w.count[high]-w.count[low] < 2 {
				break
			}
			var best *weight
			for _, x := range w.parts {
				if slices.Contains(x.to, high) && !slices.Contains(x.to, low) && w.crowd(x, low, high) <= w.crowd(x, high, high) && (best == nil || x.bytes < best.bytes) {
					best = x
				}
			}
			if best != nil {
				w.replace(best, high, low, fmt.Sprintf("broker %d has %d replicas, broker %d has %d", high, w.count[high], low, w.count[low]))
				return true
			}
		}
	}
	return false
}

// weights exchanges two replicas between the heaviest and the lightest broker, where that takes at
// least a twentieth off the difference: less is not worth two copies.
func (w *scale) weights() bool {
	if len(w.targets) < 2 || w.b.Moves > 0 && w.moved+2 > w.b.Moves {
		return false
	}
	by := func(a, b int32) int { return cmp.Or(cmp.Compare(w.bytes[a], w.bytes[b]), cmp.Compare(a, b)) }
	high, low := slices.MaxFunc(w.targets, by), slices.MinFunc(w.targets, by)
	diff := w.bytes[high] - w.bytes[low]
	var light []*weight // what the light broker could give, by size
	for _, x := range w.parts {
		if slices.Contains(x.to, low) && !slices.Contains(x.to, high) && w.crowd(x, high, low) <= w.crowd(x, low, low) {
			light = append(light, x)
		}
	}
	slices.SortStableFunc(light, func(a, b *weight) int { return cmp.Compare(a.bytes, b.bytes) })
	var give, take *weight
	left := diff - max(diff/20, 1) // what is left of the difference at most
	for _, x := range w.parts {
		if !slices.Contains(x.to, high) || slices.Contains(x.to, low) || w.crowd(x, low, high) > w.crowd(x, high, high) {
			continue
		}
		at, _ := slices.BinarySearchFunc(light, x.bytes-diff/2, func(y *weight, v int64) int { return cmp.Compare(y.bytes, v) })
		for _, i := range []int{at - 1, at} {
			if i < 0 || i >= len(light) {
				continue
			}
			if d := diff - 2*(x.bytes-light[i].bytes); max(d, -d) <= left {
				give, take, left = x, light[i], max(d, -d)-1
			}
		}
	}
	if give == nil {
		return false
	}
	why := fmt.Sprintf("broker %d has %d bytes, broker %d has %d", high, w.bytes[high], low, w.bytes[low])
	w.replace(give, high, low, why)
	w.replace(take, low, high, why)
	return true
}

// leaders changes the order of one partition's replicas, from a broker that is first in many to one
// that is in at least two fewer.
func (w *scale) leaders() bool {
	var best *weight
	at, gain := 0, 1
	for _, x := range w.parts {
		if !slices.Contains(w.targets, x.to[0]) {
			continue
		}
		for i, r := range x.to[1:] {
			if d := w.first[x.to[0]] - w.first[r]; d > gain && slices.Contains(w.targets, r) {
				best, at, gain = x, i+1, d
			}
		}
	}
	if best == nil {
		return false
	}
	best.because(fmt.Sprintf("broker %d is preferred leader of %d, broker %d of %d", best.to[0], w.first[best.to[0]], best.to[at], w.first[best.to[at]]))
	w.first[best.to[0]]--
	w.first[best.to[at]]++
	best.to[0], best.to[at] = best.to[at], best.to[0]
	return true
}

func (w *scale) relocations() []Relocation {
	var out []Relocation
	for _, x := range w.parts {
		if slices.Equal(x.from, x.to) {
			continue
		}
		r := Relocation{TopicPartition: x.tp, From: x.from, To: x.to, Reason: x.reason}
		for _, id := range x.to {
			if !slices.Contains(x.from, id) {
				r.Bytes += x.bytes
			}
		}
		out = append(out, r)
	}
	return out
}
