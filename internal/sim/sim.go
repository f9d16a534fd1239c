package sim

import (
	"container/heap"
	"fmt"
	"strings"
	"time"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/isr"
	"github.com/milena-mq/milena/internal/producer"
	"github.com/milena-mq/milena/internal/storage"
	"github.com/milena-mq/milena/internal/vfs"
)

// Rules are the decisions between the machines and the disk, as the shell around them makes them.
// Tests replace one to prove that its absence is noticed.
type Rules struct {
	// Durable is what a follower takes for durable of its log.
	Durable func(*storage.Log) int64
	// BeforeFollow is done to the log of a broker that begins to follow.
	BeforeFollow func(*storage.Log) error
	// FetchEpoch is the broker epoch that a fetch carries.
	FetchEpoch func(epoch int64) int64
	// Recover is the file system that recovery works on; done is called when it has ended.
	Recover func(vfs.FS) (fsys vfs.FS, done func())
	// MinISR is what a leader is told of min.insync.replicas.
	MinISR func(int32) int32
	// Unclean is unclean.leader.election.enable as the controller is given it.
	Unclean func(bool) bool
	// Present says whether a broker carries out an image that shows (or not) this very process.
	Present func(bool) bool
	// Granted is how a leader takes the answer to its proposal.
	Granted func(isr.Answer) isr.Answer
	// Fence says whether the store takes a write under token mine when the newest term's is newest.
	Fence func(mine, newest int64) bool
	// Known is the verdict on a producer's batch.
	Known func(producer.Verdict, error) (producer.Verdict, error)
	// Readable is up to where a replica answers consumers.
	Readable func(*storage.Log) int64
	// Low is the low watermark that an answer to DeleteRecords waits for: own is the leader's log start, all the
	// smallest of the live replicas'.
	Low func(own, all int64) int64
	// Overtaken is what a controller makes of an image that shows another one.
	Overtaken func(bool) bool
	// Behind is what a leader makes of a follower whose log begins below its own.
	Behind func(bool) bool
	// Strange is what a leader makes of a follower that comes to the beginning of its log from an epoch that it has
	// forgotten.
	Strange func(bool) bool
	// Unseen is what a follower makes of a leader whose log begins above its own.
	Unseen func(bool) bool
}

// Right is the rules as they are.
func Right() Rules {
	return Rules{
		Durable:      (*storage.Log).Flushed,
		BeforeFollow: func(*storage.Log) error { return nil },
		FetchEpoch:   func(e int64) int64 { return e },
		Recover:      func(f vfs.FS) (vfs.FS, func()) { return f, func() {} },
		MinISR:       func(n int32) int32 { return n },
		Unclean:      func(u bool) bool { return u },
		Present:      func(p bool) bool { return p },
		Granted: func(a isr.Answer) isr.Answer {
			if a == isr.Committed {
				return isr.Superseded // it counts when the image shows it
			}
			return a
		},
		Fence:     func(mine, newest int64) bool { return mine == newest },
		Known:     func(v producer.Verdict, err error) (producer.Verdict, error) { return v, err },
		Readable:  (*storage.Log).HW,
		Low:       func(_, all int64) int64 { return all },
		Overtaken: func(o bool) bool { return o },
		Behind:    func(b bool) bool { return b },
		Strange:   func(s bool) bool { return s },
		Unseen:    func(u bool) bool { return u },
	}
}

// Shape is what a run has beside power cuts, kills, freezes, cut networks and replaced disks.
type Shape struct {
	Partitions int
	ELR        bool // eligible leader replicas are on (KIP-966)
	Unclean    bool // unclean elections are allowed: records may be lost, nothing else
	Reassign   bool // partitions get other replicas
	MinISR     bool // min.insync.replicas changes
	Deletes    bool // records are deleted
	Disks      bool // log directories fail
	Controller bool // the store's leader moves, answers of the store get lost
	Drain      bool // brokers shut down in order
}

// Options of a run.
type Options struct {
	Brokers int           // 0: 3
	Factor  int           // 0: 3
	MinISR  int32         // 0: 2
	Faults  time.Duration // virtual time with faults; 0: 4 s
	Calm    time.Duration // virtual time to heal in; 0: 3 s
	Rules   Rules
	Shape   *Shape // nil: drawn from the seed
}

// Stats say what happened in a run, so that a test can see that something did.
type Stats struct {
	Events, Acked, Refused, Retried, Duplicates, Reads                int
	Elections, Unclean, Expands, Shrinks, Cuts, Stale                 int
	PowerCuts, Kills, Freezes, NetCuts, Repeated                      int
	Replaced, DirsFailed, Drained, Terms, StaleWrites, Unknown        int
	Reassigned, MinChanges, Deleted, Restarts, NotEnoughAfter, Zombie int
	Lost                                                              int // acknowledged records that an unclean election took
}

// Breach is a broken promise.
type Breach struct {
	Name  string // of the invariant
	What  string
	Seed  uint64
	Story string
}

func (b *Breach) Error() string {
	return fmt.Sprintf("seed %d: %s: %s\n%s", b.Seed, b.Name, b.What, b.Story)
}

// World is one run.
type World struct {
	seed    uint64
	o       Options
	shape   Shape
	rand    *det.Rand
	now     det.Instant
	queue   events
	n       uint64
	ids     uint64
	story   []string
	brokers []*broker
	store   *store
	net     network
	parts   []*truth
	clients []*client
	breach  *Breach
	calm    bool
	Stats   Stats
}

type event struct {
	at det.Instant
	n  uint64 // order among equals
	do func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].n < e[j].n
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	o := *e
	x := o[len(o)-1]
	o[len(o)-1] = event{}
	*e = o[:len(o)-1]
	return x
}

// draw makes a shape from the seed: each run has some of everything, and many have little, so that rare
// orders of few events are met as well.
func (w *World) draw() Shape {
	one := func(in int) bool { return w.rand.Intn(in) == 0 }
	return Shape{
		Partitions: 1 + w.rand.Intn(2), ELR: one(3), Unclean: one(12), Reassign: one(3), MinISR: one(4),
		Deletes: one(3), Disks: one(3), Controller: one(2), Drain: one(2),
	}
}

// Run plays one seed; the error is a *Breach, or a fault of the simulator itself.
func Run(seed uint64, o Options) (Stats, error) {
	if o.Brokers == 0 {
		o.Brokers = 3
	}
	if o.Factor == 0 {
		o.Factor = 3
	}
	if o.MinISR == 0 {
		o.MinISR = 2
	}
	if o.Faults == 0 {
		o.Faults = 4 * time.Second
	}
	if o.Calm == 0 {
		o.Calm = 3 * time.Second
	}
	w := &World{seed: seed, o: o, rand: det.NewRand(seed), now: begin}
	if o.Shape != nil {
		w.shape = *o.Shape
	} else {
		w.shape = w.draw()
	}
	w.tell("shape %+v", w.shape)
	w.net.init(o.Brokers + 1)
	for range w.shape.Partitions {
		w.parts = append(w.parts, newTruth(w, int32(len(w.parts))))
	}
	w.store = newStore(w)
	for id := range o.Brokers {
		w.brokers = append(w.brokers, newBroker(w, int32(id)))
	}
	for _, b := range w.brokers {
		b.boot()
	}
	w.store.tick()
	w.work()
	w.after(ms(400), w.fault)
	end := w.now.Add(o.Faults)
	w.until(end)
	if w.breach == nil {
		w.heal()
		w.until(end.Add(o.Calm))
	}
	if w.breach == nil {
		w.final()
	}
	if w.breach != nil {
		return w.Stats, w.breach
	}
	return w.Stats, nil
}

var begin = det.Milli(1_000_000)

func (w *World) until(end det.Instant) {
	for len(w.queue) > 0 && w.queue[0].at <= end && w.breach == nil {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		w.Stats.Events++
		e.do()
		w.check()
	}
	w.now = max(w.now, end)
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func (w *World) after(d time.Duration, do func()) {
	w.n++
	heap.Push(&w.queue, event{w.now.Add(d), w.n, do})
}

// between is a time in [a, b) milliseconds, to the microsecond.
func (w *World) between(a, b int) time.Duration {
	return time.Duration(a*1000+w.rand.Intn((b-a)*1000)) * time.Microsecond
}

func (w *World) tell(format string, args ...any) {
	at := w.now.Sub(begin)
	w.story = append(w.story, fmt.Sprintf("%9.3f ", at.Seconds())+fmt.Sprintf(format, args...))
}

func (w *World) fail(name, format string, args ...any) {
	if w.breach != nil {
		return
	}
	w.tell("BREACH of %q: %s", name, fmt.Sprintf(format, args...))
	w.breach = &Breach{Name: name, What: fmt.Sprintf(format, args...), Seed: w.seed, Story: strings.Join(w.story, "\n")}
}

// network is the faults between nodes; the coordination store is the last node.
type network struct {
	cut  [][]bool // cut[a][b]: what a sends to b is lost
	loss int      // percent
	dup  int      // percent
}

func (n *network) init(nodes int) {
	n.cut = make([][]bool, nodes)
	for i := range n.cut {
		n.cut[i] = make([]bool, nodes)
	}
	n.loss, n.dup = 1, 2
}

// send delivers a message after a while, never, or twice. to < 0 is the store.
func (w *World) send(from, to int32, do func()) {
	times := 1
	if w.rand.Intn(100) < w.net.dup {
		times, w.Stats.Repeated = 2, w.Stats.Repeated+1
	}
	for range times {
		w.sendOnce(from, to, do)
	}
}

// sendOnce delivers a message after a while or never.
func (w *World) sendOnce(from, to int32, do func()) {
	last := int32(len(w.net.cut) - 1)
	if from < 0 {
		from = last
	}
	if to < 0 {
		to = last
	}
	if w.net.cut[from][to] || w.rand.Intn(100) < w.net.loss {
		return
	}
	d := w.between(0, 3)
	if !w.calm && w.rand.Intn(50) == 0 {
		d = w.between(3, 400) // a packet that took the long way
	}
	w.after(d, func() { w.deliver(to, do) })
}

func (w *World) deliver(to int32, do func()) {
	if int(to) >= len(w.brokers) {
		do()
		return
	}
	switch b := w.brokers[to]; {
	case !b.up:
	case b.frozen > w.now:
		w.after(b.frozen.Sub(w.now), func() { w.deliver(to, do) })
	default:
		do()
	}
}
