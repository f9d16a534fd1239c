package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/milena-mq/milena/internal/admin"
)

// Options says how the demo runs.
type Options struct {
	Program string        // this program's file: the brokers are started from it
	For     time.Duration // how long; 0: until the context ends
	Every   time.Duration // from one kill to the next
	Down    time.Duration // how long a killed broker stays down
	Rate    int           // lines per second
	Brokers int           // 1, 3 or 5
	Parts   int           // partitions of the topic
	Keep    bool          // leave the data directory
	Text    string        // lines, where Go's source is not installed
	Set     []string      // key=value for each broker
	Out     io.Writer
	Size    func() (columns, rows int) // of the terminal; nil: Out is none, print lines
	Colour  bool
	Plain   bool // no characters beyond ASCII

	bootstrap []string
}

// Tally is what came out.
type Tally struct {
	Seconds      float64 `json:"seconds"`
	Acknowledged int64   `json:"acknowledged"`
	Read         int64   `json:"read"`
	Lost         int64   `json:"lost"`
	Duplicated   int64   `json:"duplicated"`
	Wrong        int64   `json:"wrong"`                 // read with other bytes or in another place
	Again        int64   `json:"read_again"`            // delivered to the group twice from the same place
	Unanswered   int64   `json:"unanswered"`            // sent, and the cluster said neither yes nor no
	Kills        int     `json:"kills"`                 // with SIGKILL
	Crashes      int     `json:"crashes"`               // brokers that ended by themselves
	WriteSilence float64 `json:"write_silence_seconds"` // longest time a partition acknowledged nothing
	ReadSilence  float64 `json:"read_silence_seconds"`
	Cut          bool    `json:"cut_short,omitempty"` // counting ended before everything was answered and read
	Dir          string  `json:"dir,omitempty"`       // where the data is, if kept
}

// Good says that the cluster kept its promises.
func (t *Tally) Good() bool {
	return t.Lost == 0 && t.Duplicated == 0 && t.Wrong == 0 && t.Unanswered == 0 && t.Crashes == 0 && t.Acknowledged > 0
}

// topicName is the demo's topic.
const topicName = "letters"

var errNotBegun = errors.New("interrupted before the demo began")

// patience is how long the demo waits for brokers to start, and at the end for what is missing.
const patience = 60 * time.Second

// Run runs the demo until its time is over or ctx ends, and tells what came out. An error means that it
// could not be run, not that records were lost.
func Run(ctx context.Context, o Options) (Tally, error) {
	dir, err := os.MkdirTemp("", "milena-demo-")
	if err != nil {
		return Tally{}, err
	}
	d := &show{o: o, dir: dir, ledger: newLedger(o.Parts), begun: time.Now(), restart: map[int]time.Time{}, died: map[int]int{}}
	defer func() {
		if !o.Keep {
			_ = os.RemoveAll(dir) // below the system's temporary directory: what stays is cleaned up there
		}
	}()
	if d.fleet, err = newFleet(o.Program, dir, o.Brokers, o.Set); err != nil {
		return Tally{}, err
	}
	d.o.bootstrap = d.fleet.addresses()
	defer d.fleet.stop(5 * time.Second)
	d.screen = newScreen(&d.o)
	defer d.screen.close()
	if err := d.raise(ctx); err != nil {
		return Tally{}, err
	}
	defer d.admin.Close()
	d.traffic = &traffic{o: d.o, ledger: d.ledger, lines: realLines(o.Text), topic: topicName}
	defer d.traffic.close()
	if err := d.traffic.begin(ctx); err != nil {
		if ctx.Err() != nil {
			err = errNotBegun
		}
		return Tally{}, err
	}
	d.run(ctx)
	return d.end(), nil
}

// show is one demo under way. One goroutine runs it; the ledger and the watcher are told by others.
type show struct {
	o       Options
	dir     string
	fleet   *fleet
	admin   *admin.Client
	watch   *watcher
	ledger  *ledger
	traffic *traffic
	screen  *screen

	begun    time.Time // of the traffic, once there is some
	phase    string
	events   []event
	kills    int
	crashes  int
	victim   int         // index of the broker that was killed last; valid while struck is set
	struck   time.Time   // when; zero: nothing to be measured
	led      []int32     // what it led then
	died     map[int]int // number of the kill that a broker died of last
	restart  map[int]time.Time
	whole    bool // all copies were in sync when last looked
	nextKill time.Time
	rates    rates
	late     bool // not everything was answered and read when counting ended
}

// event is one line of what happened.
type event struct {
	at   time.Duration
	text string
	kind kind
}

type kind int8

const (
	note kind = iota
	bad
	good
)

func (d *show) say(k kind, format string, args ...any) {
	e := event{time.Since(d.begun), fmt.Sprintf(format, args...), k}
	d.events = append(d.events, e)
	if len(d.events) > 200 {
		d.events = d.events[100:]
	}
	d.screen.event(e)
}

// raise starts the brokers and makes the topic.
func (d *show) raise(ctx context.Context) error {
	d.phase = "starting"
	// A group waits for more members before its first round; here all of them come at once.
	d.fleet.settings = append([]string{"group.initial.rebalance.delay.ms=100"}, d.fleet.settings...)
	d.say(note, "Starting %s on this machine, data in %s", count(d.o.Brokers, "broker"), d.dir)
	for i := range d.fleet.brokers {
		if err := d.fleet.start(i); err != nil {
			return err
		}
	}
	d.admin = admin.New(admin.Options{Bootstrap: d.o.bootstrap, ClientID: "milena-demo", Timeout: 2 * time.Second})
	deadline := time.Now().Add(patience)
	factor := int16(min(3, d.o.Brokers))
	least := map[string]string{"min.insync.replicas": fmt.Sprint(min(2, d.o.Brokers))}
	for {
		err := d.serving(ctx)
		if err == nil {
			_, err = d.admin.CreateTopic(ctx, admin.NewTopic{Name: topicName, Partitions: int32(d.o.Parts), Replicas: factor, Configs: least})
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return errNotBegun
		}
		if e := d.dead(); e != nil {
			return e
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the brokers do not serve after %s: %w; their logs say: %s", patience, err, d.fleet.brokers[0].lastWords())
		}
		wait(ctx, 50*time.Millisecond)
	}
	d.say(good, "%s up after %.1f s; topic %s: %d partitions, %s each", count(d.o.Brokers, "broker"), time.Since(d.begun).Seconds(), topicName, d.o.Parts, copies(int(factor)))
	return nil
}

// serving says what is missing until all brokers take part.
func (d *show) serving(ctx context.Context) error {
	up, err := d.admin.BrokersUp(ctx)
	if err == nil && up < d.o.Brokers {
		err = fmt.Errorf("%d of %d brokers are up", up, d.o.Brokers)
	}
	return err
}

// dead is the error of a broker that ended during the start.
func (d *show) dead() error {
	for _, c := range d.fleet.brokers {
		if !c.running() {
			return fmt.Errorf("broker %d ended: %s", c.id, c.lastWords())
		}
	}
	return nil
}

func wait(ctx context.Context, t time.Duration) {
	x := time.NewTimer(t)
	defer x.Stop()
	select {
	case <-x.C:
	case <-ctx.Done():
	}
}

func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// frame is how often the picture is drawn.
const frame = 200 * time.Millisecond

// run is the demo's middle: traffic flows, brokers die and come back.
func (d *show) run(ctx context.Context) {
	d.phase = ""
	d.begun = time.Now()
	d.nextKill = d.begun.Add(d.o.Every)
	if d.o.Brokers == 1 {
		d.say(note, "one broker alone: while it is down nothing is written, but nothing is lost")
	}
	d.watch = watchTopic(d.admin, topicName)
	defer d.watch.close()
	tick := time.NewTicker(frame)
	defer tick.Stop()
	for ctx.Err() == nil && (d.o.For == 0 || time.Since(d.begun) < d.o.For) {
		select {
		case <-ctx.Done():
		case i := <-d.fleet.ended:
			d.ended(i)
		case <-tick.C:
			d.step(time.Now())
			d.draw()
		}
	}
	d.drain()
}

// step does what is due.
func (d *show) step(now time.Time) {
	v := d.watch.latest()
	d.settle(v, now)
	for i, at := range d.restart {
		if now.After(at) {
			delete(d.restart, i)
			if err := d.fleet.start(i); err != nil {
				d.say(bad, "%v", err)
				d.restart[i] = now.Add(d.o.Down)
				continue
			}
			d.say(note, "broker %d is started again", d.fleet.brokers[i].id)
		}
	}
	last := d.o.For > 0 && now.Add(d.o.Down+time.Second).After(d.begun.Add(d.o.For))
	if now.Before(d.nextKill) || last {
		return
	}
	if !d.ready(v) {
		return // never a second broker while copies are missing: that would show less, not more
	}
	d.kill(v, now)
}

// ready says that every broker is up and every copy in sync.
func (d *show) ready(v view) bool {
	for _, c := range d.fleet.brokers {
		if !c.running() {
			return false
		}
	}
	return v.whole(d.o.Parts, min(3, d.o.Brokers)) && d.struck.IsZero()
}

// kill ends the broker that leads the most partitions, the way a power failure would.
func (d *show) kill(v view, now time.Time) {
	leads := map[int32][]int32{}
	for _, p := range v.parts {
		leads[p.Leader] = append(leads[p.Leader], p.Partition)
	}
	// Of several that lead as many it is the one that has lived longest: each has its turn.
	best := 0
	for i, c := range d.fleet.brokers {
		old := d.fleet.brokers[best]
		if cmp.Or(cmp.Compare(len(leads[c.id]), len(leads[old.id])), cmp.Compare(d.died[best], d.died[i])) > 0 {
			best = i
		}
	}
	c := d.fleet.brokers[best]
	d.died[best] = d.kills + 1
	d.victim, d.led, d.struck, d.whole = best, leads[c.id], now, false
	d.ledger.mark(d.led)
	c.signal(syscall.SIGKILL)
	d.kills++
	d.restart[best] = now.Add(d.o.Down)
	d.nextKill = now.Add(d.o.Every)
	what := ""
	if v.controller == c.id {
		what = " and the controller"
	}
	d.say(bad, "broker %d is killed (SIGKILL): leader of %s%s", c.id, count(len(d.led), "partition"), what)
}

// settle tells when a failure is over: first that writing goes on, then that all copies are back.
func (d *show) settle(v view, now time.Time) {
	if !d.struck.IsZero() {
		longest, heard := d.ledger.sinceMark(d.led, now)
		moved := d.o.Brokers == 1 || !slices.ContainsFunc(v.parts, func(p admin.PartitionState) bool {
			return p.Leader < 0 || p.Leader == d.fleet.brokers[d.victim].id && v.at.Before(d.struck.Add(d.o.Down))
		})
		if heard && moved && v.at.After(d.struck) && now.Sub(d.struck) > 300*time.Millisecond {
			d.say(good, "its partitions are written again; the longest silence was %.2f s", longest.Seconds())
			d.struck = time.Time{}
		}
	}
	whole := v.whole(d.o.Parts, min(3, d.o.Brokers))
	if whole && !d.whole && d.struck.IsZero() && len(d.restart) == 0 && d.kills > 0 {
		d.say(good, "every copy is in sync again")
	}
	if d.struck.IsZero() && len(d.restart) == 0 {
		d.whole = whole
	}
}

// ended is told of a broker that is gone, for a reason or for none.
func (d *show) ended(i int) {
	c := d.fleet.brokers[i]
	if c.byUs() || c.running() {
		return
	}
	d.crashes++
	d.restart[i] = time.Now().Add(d.o.Down)
	d.say(bad, "broker %d ended by itself: %s", c.id, c.lastWords())
}

// drain waits for what is under way. It has its own time: the run's context may be what ended it. A second
// interrupt cuts it short.
func (d *show) drain() {
	d.phase = "counting"
	d.say(note, "counting: reading what is left")
	ctx, cut := context.WithCancel(context.Background())
	defer cut()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		d.late = !d.traffic.finish(ctx, patience/2)
	})
	defer wg.Wait()
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	tick := time.NewTicker(frame)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-again:
			cut()
		case i := <-d.fleet.ended:
			d.ended(i)
		case <-tick.C:
			now := time.Now()
			for i, at := range d.restart { // a broker that is down comes back, or what only it has is missed
				if now.After(at) {
					delete(d.restart, i)
					_ = d.fleet.start(i) // said already when it failed before; the count shows it
				}
			}
			d.draw()
		}
	}
}

// end makes the tally and tells it.
func (d *show) end() Tally {
	now := time.Now()
	a := d.ledger.close(now)
	t := Tally{
		Seconds: now.Sub(d.begun).Seconds(), Acknowledged: a.acked, Read: a.read, Lost: a.lost, Duplicated: a.dup, Wrong: a.wrong, Again: a.again,
		Unanswered: a.inFlight + a.failed, Kills: d.kills, Crashes: d.crashes, WriteSilence: a.writes.Seconds(), ReadSilence: a.reads.Seconds(), Cut: d.late,
	}
	if d.o.Keep {
		t.Dir = d.dir
	}
	return t
}
