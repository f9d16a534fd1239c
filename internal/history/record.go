package history

import (
	"fmt"
	"sync"
)

// Recorder is one history: everything that the clients of one topic saw.
type Recorder struct {
	parts int

	mu        sync.Mutex
	writers   []*Writer
	consumers []*Consumer
	replicas  []*Replica
	answers   []Answer
	early     []breach // seen while the history was recorded

	polled []*polled
}

// New returns an empty history of a topic with so many partitions.
func New(partitions int) *Recorder {
	r := &Recorder{parts: partitions, polled: make([]*polled, partitions)}
	for i := range r.polled {
		r.polled[i] = &polled{}
	}
	return r
}

// polled is what all consumers together were shown of one partition. Two consumers that are shown
// different values at one offset are a breach at once, whatever the log says at the end.
type polled struct {
	mu sync.Mutex
	at []id
}

// op is one record from its sending to its answer.
type op struct {
	sent, done int64 // nanoseconds; done is 0 while nothing was answered
	offset     int64
	part       int32
	state      state
}

type state uint8

const (
	open    state = iota // sent, no answer: may be in the log
	acked                // acknowledged at offset
	unknown              // an error after which the record may be in the log all the same
	refused              // an error that promises that the record is not in the log
)

// Writer is one producer.
type Writer struct {
	id         uint32
	name       string
	broker     int32
	idempotent bool

	mu  sync.Mutex
	ops []op
}

// Writer adds a producer. broker is the one that all its requests go to, or -1 when the client chooses: with it the
// history knows who acknowledged (I11). idempotent says that the client sends again without making
// duplicates, so that a value at two offsets is a breach (I5), and that it keeps its order (I6).
func (r *Recorder) Writer(name string, broker int32, idempotent bool) *Writer {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := &Writer{id: uint32(len(r.writers)), name: name, broker: broker, idempotent: idempotent}
	r.writers = append(r.writers, w)
	return w
}

// Send notes that a record goes to a partition now and returns its sequence and a value of size bytes (at
// least ValueSize) to send.
func (w *Writer) Send(part int32, size int, now int64) (seq uint64, value []byte) {
	w.mu.Lock()
	seq = uint64(len(w.ops))
	w.ops = append(w.ops, op{sent: now, part: part, offset: -1})
	w.mu.Unlock()
	return seq, encodeValue(w.id, seq, size)
}

// Acked notes that the record was acknowledged at an offset.
func (w *Writer) Acked(seq uint64, offset, now int64) { w.answer(seq, acked, offset, now) }

// Failed notes an error. definite: the error promises that the record is not in the log (kafka.md: too large,
// invalid, not enough replicas before the append); anything else may be in the log or not.
func (w *Writer) Failed(seq uint64, definite bool, now int64) {
	s := unknown
	if definite {
		s = refused
	}
	w.answer(seq, s, -1, now)
}

func (w *Writer) answer(seq uint64, s state, offset, now int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := &w.ops[seq]
	o.state, o.offset, o.done = s, offset, now
}

// Consumer is one reader that was given all the partitions it reads and is not moved by a group.
type Consumer struct {
	r    *Recorder
	name string

	mu   sync.Mutex
	next []int64 // per partition the offset that has to come next; -1 before the first record
	seen int64
}

// Consumer adds a reader.
func (r *Recorder) Consumer(name string) *Consumer {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &Consumer{r: r, name: name, next: make([]int64, r.parts)}
	for i := range c.next {
		c.next[i] = -1
	}
	r.consumers = append(r.consumers, c)
	return c
}

// Polled notes one record in the order in which the client handed it out. The topics of these tests hold
// no control records and are not compacted, so that offsets follow each other without a gap (I8).
func (c *Consumer) Polled(part int32, offset int64, value []byte) {
	c.mu.Lock()
	next := c.next[part]
	c.next[part] = offset + 1
	c.seen++
	c.mu.Unlock()
	switch {
	case next >= 0 && offset < next:
		c.r.breach("I8", "%s: partition %d went back from offset %d to %d", c.name, part, next-1, offset)
	case next >= 0 && offset > next:
		c.r.breach("I8", "%s: partition %d jumped from offset %d to %d", c.name, part, next-1, offset)
	}
	v, err := decodeValue(value)
	if err != nil {
		c.r.breach("I4", "%s: partition %d offset %d: %v", c.name, part, offset, err)
		return
	}
	p := c.r.polled[part]
	p.mu.Lock()
	for int64(len(p.at)) <= offset {
		p.at = append(p.at, 0)
	}
	was := p.at[offset]
	if was == 0 {
		p.at[offset] = v
	}
	p.mu.Unlock()
	if was != 0 && was != v {
		c.r.breach("I2", "%s: partition %d offset %d: was shown as %v before, now %v", c.name, part, offset, was, v)
	}
}

// Position is the offset that the consumer has to be shown next, 0 before the first record.
func (c *Consumer) Position(part int32) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(0, c.next[part])
}

// Seen is how many records the consumer was shown.
func (c *Consumer) Seen() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

// Kind says what an Answer is about.
type Kind uint8

const (
	HighWatermark Kind = iota // the end as ListOffsets(latest) or Fetch answered it (I9)
	LogStart                  // the start as ListOffsets(earliest) answered it (I20)
	LeaderEpoch               // the leader epoch that a broker's Metadata named (I11)
	Committed                 // the offset that a group has committed, as OffsetFetch answered it (I31)
)

// Answer is one answer of one broker about one partition. Start is before the request was sent, End after
// the answer was read: of two answers only those that do not overlap have an order.
type Answer struct {
	Start, End int64
	Offset     int64
	Part       int32
	Broker     int32
	Kind       Kind
	Fetch      bool // by a Fetch, not by ListOffsets: only said in examples
}

// Observe notes an answer without an error.
func (r *Recorder) Observe(a Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers = append(r.answers, a)
}

// Batch is one record batch as it lies in a replica's log.
type Batch struct {
	Base, Last int64
	Epoch      int32 // leader epoch
	Producer   int64 // -1: not idempotent
	ProdEpoch  int16
	BaseSeq    int32
	Sum        uint64   // of all its bytes
	Values     [][]byte // of its records, in order
}

// Replica is the log of all partitions on one broker, read after everything has ended.
type Replica struct {
	r     *Recorder
	name  string
	parts []replicaPart
}

type replicaPart struct {
	start   int64
	values  []id // from start on
	batches []batchHead
}

type batchHead struct {
	base, last int64
	sum        uint64
	producer   int64
	baseSeq    int32
	epoch      int32
	prodEpoch  int16
}

// Replica adds a broker's final logs.
func (r *Recorder) Replica(name string) *Replica {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := &Replica{r: r, name: name, parts: make([]replicaPart, r.parts)}
	r.replicas = append(r.replicas, rep)
	return rep
}

// Batch notes the next batch of a partition. Batches come in the order of the log, of one partition from one
// goroutine.
func (rep *Replica) Batch(part int32, b Batch) {
	p := &rep.parts[part]
	if len(p.batches) == 0 {
		p.start = b.Base
	}
	if end := p.start + int64(len(p.values)); b.Base != end {
		rep.r.breach("I39", "%s: partition %d: a batch at offset %d follows the end %d", rep.name, part, b.Base, end)
		// Offsets after a hole are kept where they are, so that the other checks still say something.
		for int64(len(p.values)) < b.Base-p.start {
			p.values = append(p.values, 0)
		}
	}
	if n := len(p.batches); n > 0 && p.batches[n-1].epoch > b.Epoch {
		rep.r.breach("I11", "%s: partition %d: epoch falls from %d to %d at offset %d", rep.name, part, p.batches[n-1].epoch, b.Epoch, b.Base)
	}
	p.batches = append(p.batches, batchHead{base: b.Base, last: b.Last, sum: b.Sum, producer: b.Producer, baseSeq: b.BaseSeq, epoch: b.Epoch, prodEpoch: b.ProdEpoch})
	if n := int64(len(b.Values)); n != b.Last-b.Base+1 {
		rep.r.breach("I4", "%s: partition %d: the batch at %d to %d holds %d records", rep.name, part, b.Base, b.Last, n)
	}
	for i, value := range b.Values {
		v, err := decodeValue(value)
		if err != nil {
			rep.r.breach("I4", "%s: partition %d offset %d: %v", rep.name, part, b.Base+int64(i), err)
		}
		p.values = append(p.values, v)
	}
}

func (p *replicaPart) end() int64 { return p.start + int64(len(p.values)) }

func (p *replicaPart) value(offset int64) id {
	if offset < p.start || offset >= p.end() {
		return 0
	}
	return p.values[offset-p.start]
}

type breach struct{ promise, text string }

// Breach notes a breach that the caller saw by itself, under the promise's name.
func (r *Recorder) Breach(promise, text string) { r.breach(promise, "%s", text) }

func (r *Recorder) breach(promise, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.early = append(r.early, breach{promise, fmt.Sprintf(format, args...)})
}

// Tally counts the records of all writers by what became of them.
type Tally struct{ Sent, Acked, Unknown, Refused, Open int64 }

// Tally counts now; it may be called while writers write.
func (r *Recorder) Tally() Tally {
	r.mu.Lock()
	writers := r.writers
	r.mu.Unlock()
	var t Tally
	for _, w := range writers {
		w.mu.Lock()
		t.Sent += int64(len(w.ops))
		for i := range w.ops {
			switch w.ops[i].state {
			case open:
				t.Open++
			case acked:
				t.Acked++
			case unknown:
				t.Unknown++
			case refused:
				t.Refused++
			}
		}
		w.mu.Unlock()
	}
	return t
}
