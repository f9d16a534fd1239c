package history

import (
	"fmt"
	"slices"
	"strings"
)

// Result says how one promise was kept.
type Result struct {
	Promise  string // as in "I1"
	What     string
	Checked  int64 // facts that were compared; 0: the history says nothing about this promise
	Breaches int64
	Examples []string // at most maxExamples
}

func (r *Result) String() string {
	s := fmt.Sprintf("%s %s: %d checked, %d breaches", r.Promise, r.What, r.Checked, r.Breaches)
	if len(r.Examples) > 0 {
		s += ": " + strings.Join(r.Examples, "; ")
	}
	return s
}

// promises in the order of the report.
var promises = [][2]string{
	{"I1", "every acknowledged value is at its acknowledged offset"},
	{"I2", "one value at every offset, on every replica and for every reader"},
	{"I3", "what was read once stays"},
	{"I4", "nothing is read that nobody sent, no byte changed, nothing that was refused"},
	{"I5", "no value of an idempotent producer is there twice"},
	{"I6", "offsets follow the order of each producer"},
	{"I7", "what was sent after an acknowledgement lies behind it"},
	{"I8", "readers see rising offsets without a gap"},
	{"I9", "the high watermark never goes back, whoever answers"},
	{"I11", "one leader acknowledges in an epoch; epochs never fall"},
	{"I20", "the log start never goes back"},
	{"I31", "a group's committed offset never falls back"},
	{"I39", "the logs of all replicas are equal byte by byte"},
}

type checker struct {
	r       *Recorder
	results map[string]*Result
}

func (c *checker) bad(promise, format string, args ...any) {
	res := c.results[promise]
	if res == nil {
		res = &Result{Promise: promise}
		c.results[promise] = res
	}
	res.Breaches++
	// The first, and then ever rarer ones, so that they are not all of one moment.
	if n := res.Breaches; n <= 3 || n&(n-1) == 0 && len(res.Examples) < maxExamples {
		res.Examples = append(res.Examples, fmt.Sprintf(format, args...))
	}
}

const maxExamples = 12

func (c *checker) checked(promise string, n int64) { c.results[promise].Checked += n }

// Check compares everything with everything. The first replica added is the final log that clients' views
// are compared with; the others are compared with it.
func (r *Recorder) Check() []*Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &checker{r: r, results: map[string]*Result{}}
	for _, p := range promises {
		c.results[p[0]] = &Result{Promise: p[0], What: p[1]}
	}
	for _, b := range r.early {
		c.bad(b.promise, "%s", b.text)
	}
	for _, k := range r.consumers {
		c.checked("I8", k.seen)
	}
	if len(r.replicas) > 0 {
		c.acks()
		c.reads()
		c.logs()
		c.replicas()
		c.leaders()
	}
	c.realTime()
	c.monotone(HighWatermark, "I9", false)
	c.monotone(LogStart, "I20", false)
	c.monotone(LeaderEpoch, "I11", true)
	c.monotone(Committed, "I31", false)
	c.afterAcks()
	out := make([]*Result, 0, len(c.results))
	for _, p := range promises {
		out = append(out, c.results[p[0]])
		delete(c.results, p[0])
	}
	rest := make([]*Result, 0, len(c.results))
	for _, res := range c.results {
		rest = append(rest, res)
	}
	slices.SortFunc(rest, func(a, b *Result) int { return strings.Compare(a.Promise, b.Promise) })
	return append(out, rest...)
}

// acks: I1, and that what was refused for certain is nowhere (I4).
func (c *checker) acks() {
	final := c.r.replicas[0]
	there := c.where(final)
	for _, w := range c.r.writers {
		for seq := range w.ops {
			o := &w.ops[seq]
			v := newID(w.id, uint64(seq))
			switch o.state {
			case acked:
				c.checked("I1", 1)
				if got := final.parts[o.part].value(o.offset); got != v {
					at := "nowhere"
					if p, ok := there[v]; ok {
						at = fmt.Sprintf("at partition %d offset %d", p.part, p.offset)
					}
					c.bad("I1", "%s seq %d acknowledged at partition %d offset %d: there is %v, the value is %s", w.name, seq, o.part, o.offset, got, at)
				}
			case refused:
				c.checked("I4", 1)
				if p, ok := there[v]; ok {
					c.bad("I4", "%s seq %d was refused for certain and is at partition %d offset %d", w.name, seq, p.part, p.offset)
				}
			}
		}
	}
}

type place struct {
	part   int32
	offset int64
}

// where finds the values that somebody will ask about: those refused, and those acknowledged that are not
// at their offset. A map of all values of a long run would cost more memory than the run.
func (c *checker) where(rep *Replica) map[id]place {
	out := map[id]place{}
	for p := range rep.parts {
		part := &rep.parts[p]
		for i, v := range part.values {
			if v == 0 || int(v.writer()) >= len(c.r.writers) {
				continue
			}
			w := c.r.writers[v.writer()]
			if v.seq() >= uint64(len(w.ops)) {
				continue
			}
			o := &w.ops[v.seq()]
			offset := part.start + int64(i)
			if o.state == refused || o.state == acked && (int(o.part) != p || o.offset != offset) {
				out[v] = place{int32(p), offset}
			}
		}
	}
	return out
}

// reads: I3.
func (c *checker) reads() {
	final := c.r.replicas[0]
	for p, seen := range c.r.polled {
		part := &final.parts[p]
		for off, v := range seen.at {
			if v == 0 || int64(off) < part.start {
				continue
			}
			c.checked("I3", 1)
			if got := part.value(int64(off)); got != v {
				c.bad("I3", "partition %d offset %d was read as %v and is %v in the end", p, off, v, got)
			}
		}
	}
}

// logs: I4, I5 and I6 over the final log.
func (c *checker) logs() {
	final := c.r.replicas[0]
	seen := make([][]bool, len(c.r.writers)) // by writer and sequence
	for i, w := range c.r.writers {
		seen[i] = make([]bool, len(w.ops))
	}
	for p := range final.parts {
		part := &final.parts[p]
		last := map[uint32]int64{}
		for i, v := range part.values {
			off := part.start + int64(i)
			if v == 0 {
				continue // a hole or a bad value, noted when it was read
			}
			c.checked("I4", 1)
			w, seq := v.writer(), v.seq()
			if int(w) >= len(seen) || seq >= uint64(len(seen[w])) || c.r.writers[w].ops[seq].part != int32(p) {
				c.bad("I4", "partition %d offset %d holds %v, which was not sent there", p, off, v)
				continue
			}
			if c.r.writers[w].idempotent {
				c.checked("I5", 1)
				if seen[w][seq] {
					c.bad("I5", "%v is twice in partition %d, again at offset %d (%s)", v, p, off, part.batchOf(off))
					continue
				}
				if before, ok := last[w]; ok {
					c.checked("I6", 1)
					if int64(seq) <= before {
						c.bad("I6", "partition %d offset %d: %v lies behind seq %d", p, off, v, before)
					}
				}
				last[w] = int64(seq)
			}
			seen[w][seq] = true
		}
		c.triples(int32(p), part)
	}
}

// triples: one (producer id, epoch, sequence) may be in a partition once. The same one twice is the broker's
// fault; the same value with different ones was sent twice by the client.
func (c *checker) triples(p int32, part *replicaPart) {
	type key struct {
		producer int64
		epoch    int16
		seq      int32
	}
	seen := map[key]int64{}
	for _, b := range part.batches {
		if b.producer < 0 {
			continue
		}
		k := key{b.producer, b.prodEpoch, b.baseSeq}
		if was, ok := seen[k]; ok {
			c.bad("I5", "partition %d: producer %d epoch %d sequence %d is at offset %d and at %d: the broker took a batch twice", p, k.producer, k.epoch, k.seq, was, b.base)
		}
		seen[k] = b.base
	}
}

func (p *replicaPart) batchOf(offset int64) string {
	i, ok := slices.BinarySearchFunc(p.batches, offset, func(b batchHead, off int64) int {
		switch {
		case b.last < off:
			return -1
		case b.base > off:
			return 1
		}
		return 0
	})
	if !ok {
		return "no batch"
	}
	b := p.batches[i]
	return fmt.Sprintf("producer %d epoch %d sequence %d", b.producer, b.prodEpoch, b.baseSeq)
}

// replicas: I2 by value and I39 by bytes, each replica against the first.
func (c *checker) replicas() {
	first := c.r.replicas[0]
	for _, rep := range c.r.replicas[1:] {
		for p := range rep.parts {
			a, b := &first.parts[p], &rep.parts[p]
			from, to := max(a.start, b.start), min(a.end(), b.end())
			c.checked("I2", max(0, to-from))
			for off := from; off < to; off++ {
				if x, y := a.value(off), b.value(off); x != y {
					c.bad("I2", "partition %d offset %d: %s has %v, %s has %v", p, off, first.name, x, rep.name, y)
				}
			}
			c.bytes(int32(p), first, rep)
		}
	}
}

func (c *checker) bytes(p int32, first, rep *Replica) {
	a, b := &first.parts[p], &rep.parts[p]
	c.checked("I39", int64(len(a.batches)))
	if a.end() != b.end() {
		c.bad("I39", "partition %d ends at %d on %s and at %d on %s", p, a.end(), first.name, b.end(), rep.name)
	}
	// Logs may start at different offsets: retention is each replica's own.
	from := max(a.start, b.start)
	skip := func(bs []batchHead) []batchHead {
		i, _ := slices.BinarySearchFunc(bs, from, func(h batchHead, off int64) int { return int(min(1, max(-1, h.base-off))) })
		return bs[i:]
	}
	x, y := skip(a.batches), skip(b.batches)
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			c.bad("I39", "partition %d: from offset %d on %s and %s differ (epochs %d and %d, sums %x and %x)", p, x[i].base, first.name, rep.name, x[i].epoch, y[i].epoch, x[i].sum, y[i].sum)
			return
		}
	}
}

// leaders: I11: of the writers that talk to one broker, those that were acknowledged in one epoch talked to one.
func (c *checker) leaders() {
	type key struct{ part, epoch int32 }
	who := map[key]int32{}
	final := c.r.replicas[0]
	for _, w := range c.r.writers {
		if w.broker < 0 {
			continue
		}
		for seq := range w.ops {
			o := &w.ops[seq]
			if o.state != acked {
				continue
			}
			part := &final.parts[o.part]
			i, ok := slices.BinarySearchFunc(part.batches, o.offset, func(b batchHead, off int64) int { return int(min(1, max(-1, b.base-off))) })
			if !ok && i > 0 {
				i--
			}
			if len(part.batches) == 0 || o.offset > part.batches[i].last {
				continue // lost: I1 says so
			}
			c.checked("I11", 1)
			k := key{o.part, part.batches[i].epoch}
			if was, ok := who[k]; ok && was != w.broker {
				c.bad("I11", "partition %d epoch %d: both broker %d and broker %d acknowledged (offset %d)", k.part, k.epoch, was, w.broker, o.offset)
			}
			who[k] = w.broker
		}
	}
}
