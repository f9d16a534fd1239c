package sim

import (
	"container/heap"
	"fmt"
	"strings"
	"time"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/isr"
	"github.com/milena-mq/milena/internal/meta"
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
	// Elect picks a leader among the alive; -1: nobody.
	Elect func(p *meta.Partition, alive func(int32) bool) int32
	// Recover is the file system that recovery works on; done is called when it has ended.
	Recover func(vfs.FS) (fsys vfs.FS, done func())
	// MinISR is what a leader is told of min.insync.replicas.
	MinISR func(int32) int32
}

// Right is the rules as they are.
func Right() Rules {
	return Rules{
		Durable:      (*storage.Log).Flushed,
		BeforeFollow: func(*storage.Log) error { return nil },
		FetchEpoch:   func(e int64) int64 { return e },
		Elect:        electISR,
		Recover:      func(f vfs.FS) (vfs.FS, func()) { return f, func() {} },
		MinISR:       func(n int32) int32 { return n },
	}
}

// Options of a run.
type Options struct {
	Brokers int           // 0: 3
	MinISR  int32         // 0: 2
	Faults  time.Duration // virtual time with faults; 0: 4 s
	Calm    time.Duration // virtual time to heal in; 0: 3 s
	Rules   Rules
	Plans   bool // package control decides, not the model; Rules.Elect is not asked
	ELR     bool // with Plans: eligible leader replicas are on (KIP-966)
}

// Stats say what happened in a run, so that a test can see that something did.
type Stats struct {
	Events, Acked, Refused, Elections, Expands, Shrinks, Cuts, PowerCuts, Kills, Freezes, NetCuts, Duplicates, Stale, Disks int
	Healed                                                                                                                  bool
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
	rand    *det.Rand
	now     det.Instant
	queue   events
	n       uint64
	story   []string
	brokers []*broker
	ctl     *controller
	net     network
	truth   truth
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

// Run plays one seed; the error is a *Breach, or a fault of the simulator itself.
func Run(seed uint64, o Options) (Stats, error) {
	if o.Brokers == 0 {
		o.Brokers = 3
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
	w := &World{seed: seed, o: o, rand: det.NewRand(seed), now: det.Milli(1_000_000)}
	w.net.init(o.Brokers + 1)
	w.truth.leaders = map[int32]int32{}
	w.ctl = newController(w)
	for id := range o.Brokers {
		b := newBroker(w, int32(id))
		w.brokers = append(w.brokers, b)
		b.boot()
	}
	w.after(ms(20), w.ctl.tick)
	w.after(ms(100), w.produce)
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
	at := w.now.Sub(det.Milli(1_000_000))
	w.story = append(w.story, fmt.Sprintf("%9.3f ", at.Seconds())+fmt.Sprintf(format, args...))
}

func (w *World) fail(name, format string, args ...any) {
	if w.breach != nil {
		return
	}
	w.tell("BREACH of %q: %s", name, fmt.Sprintf(format, args...))
	w.breach = &Breach{Name: name, What: fmt.Sprintf(format, args...), Seed: w.seed, Story: strings.Join(w.story, "\n")}
}

// network is the faults between nodes; the controller is the last node.
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

// send delivers a message after a while, never, or twice. to < 0 is the controller.
func (w *World) send(from, to int32, do func()) {
	ctl := int32(len(w.net.cut) - 1)
	if from < 0 {
		from = ctl
	}
	if to < 0 {
		to = ctl
	}
	if w.net.cut[from][to] || w.rand.Intn(100) < w.net.loss {
		return
	}
	times := 1
	if w.rand.Intn(100) < w.net.dup {
		times, w.Stats.Duplicates = 2, w.Stats.Duplicates+1
	}
	for range times {
		d := w.between(0, 3)
		if !w.calm && w.rand.Intn(50) == 0 {
			d = w.between(3, 400) // a packet that took the long way
		}
		w.after(d, func() { w.deliver(to, do) })
	}
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

// image is what the controller has said, at one version.
type image struct {
	version int64
	part    *meta.Partition
	brokers []isr.Broker
}
