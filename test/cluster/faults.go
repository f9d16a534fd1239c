package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/milena-mq/milena/internal/history"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// run is a cluster under load with one fault after the other.
type run struct {
	s    settings
	c    *cluster
	l    *load
	r    *report
	hold time.Duration // how long a fault lasts
}

// fault breaks something, waits, mends it, and says what it did. What clients see is checked by others.
type fault struct {
	name string
	do   func(x *run) (string, error)
}

var allFaults = []fault{
	{"kill-leader", func(x *run) (string, error) { return x.killed(x.leader()) }},
	{"kill-follower", func(x *run) (string, error) { return x.killed(x.follower()) }},
	{"kill-controller", func(x *run) (string, error) { return x.killed(x.controller()) }},
	{"kill-two", func(x *run) (string, error) { a := x.leader(); return x.killed(a, a%3+1) }},
	{"kill-all", func(x *run) (string, error) { return x.killed(x.ids()...) }},
	{"kill-again", (*run).killAgain},
	{"freeze-leader", func(x *run) (string, error) { return x.frozen(x.leader()) }},
	{"freeze-controller", func(x *run) (string, error) { return x.frozen(x.controller()) }},
	{"freeze-all", (*run).frozenAll},
	{"cut-leader-from-peers", func(x *run) (string, error) { a := x.leader(); return x.cutOff(a, alone(a, anyPeer)) }},
	{"cut-leader-from-all", func(x *run) (string, error) {
		a := x.leader()
		return x.cutOff(a, append(alone(a, anyPeer), both(0, a, kindClient)...))
	}},
	{"cut-controller", func(x *run) (string, error) { a := x.controller(); return x.cutOff(a, alone(a, anyPeer)) }},
	{"cut-follower", func(x *run) (string, error) { a := x.follower(); return x.cutOff(a, alone(a, anyPeer)) }},
	{"cut-leader-mute", func(x *run) (string, error) { a := x.leader(); return x.cutOff(a, []rule{{a, -1, anyPeer}}) }},
	{"cut-leader-deaf", func(x *run) (string, error) { a := x.leader(); return x.cutOff(a, []rule{{-1, a, anyPeer}}) }},
	{"cut-coordination-only", func(x *run) (string, error) { a := x.controller(); return x.cutOff(a, alone(a, kindCoord)) }},
	{"cut-kafka-only", func(x *run) (string, error) { a := x.leader(); return x.cutOff(a, alone(a, kindKafka)) }},
	{"cut-one-pair", func(x *run) (string, error) { a := x.leader(); return x.cutOff(a, both(a, a%3+1, anyPeer)) }},
	{"cut-all", func(x *run) (string, error) { return x.cutOff(0, []rule{{-1, -1, anyPeer}}) }},
	{"disk-full", (*run).diskFull},
	{"disk-slow", (*run).diskSlow},
	{"disk-hung", (*run).diskHung},
	{"rolling-restart", (*run).rolling},
	{"wiped-disk", (*run).wiped},
}

// shortFaults are those that differ most, for every change of the code.
var shortFaults = pickFaults("kill-leader", "kill-controller", "kill-all", "freeze-leader", "cut-leader-from-peers", "cut-leader-mute", "cut-coordination-only", "cut-kafka-only", "disk-full", "rolling-restart", "wiped-disk")

func pickFaults(names ...string) []fault {
	var out []fault
	for _, f := range allFaults {
		if slices.Contains(names, f.name) {
			out = append(out, f)
		}
	}
	return out
}

// runFaults is one run: one cluster, one history, all faults, each of which lasts for hold.
func runFaults(s settings, r *report, faults []fault, hold time.Duration) {
	if s.only != nil {
		faults = pickFaults(s.only...)
	}
	o := options{bin: s.bin, brokers: s.brokers, proxies: true, keys: keys()}
	if err := canMount(); err == nil {
		o.disks = 3 << 30
	} else {
		note("no file systems of their own for the brokers: %v", err)
	}
	c, err := newCluster(o)
	if err != nil {
		r.say(false, "prepare", "%v", err)
		return
	}
	failed := r.failed
	defer func() { c.destroy(s.keep || r.failed > failed) }()
	begin := time.Now()
	if err := c.start(); err != nil {
		r.say(false, "start", "%v", err)
		return
	}
	r.say(true, "start", "%d brokers serve after %.2f s", s.brokers, time.Since(begin).Seconds())
	l, err := newLoad(c, s.producers, s.rate, nil)
	if err != nil {
		r.say(false, "load", "%v", err)
		return
	}
	x := &run{s: s, c: c, l: l, r: r, hold: hold}
	if _, err := l.moves(30 * time.Second); err != nil {
		r.say(false, "load", "%v: %s", err, l.answers())
		return
	}
	if s.only == nil || slices.Contains(s.only, "bad") {
		x.bad()
	}
	for range s.repeat {
		for _, f := range faults {
			x.one(f)
		}
	}
	for begin := time.Now(); l.hist.Tally().Acked < s.target && time.Since(begin) < 10*time.Minute; {
		time.Sleep(50 * time.Millisecond)
	}
	l.finish(r)
	if t := l.hist.Tally(); s.target > 0 {
		r.say(t.Acked >= s.target, "records", "%d acknowledged in one run, at least %d wanted", t.Acked, s.target)
	}
}

// keys are settings of every cluster here: log files small enough that they roll under load.
func keys() map[string]string { return map[string]string{"log.segment.bytes": "16777216"} }

// one runs a fault and says how clients fared.
func (x *run) one(f fault) {
	before := x.l.hist.Tally().Acked
	x.l.hush.reset()
	what, err := f.do(x)
	x.mend()
	mended := time.Now()
	if err != nil {
		x.r.say(false, f.name, "%s: %v", what, err)
	}
	moving, merr := x.l.moves(healLimit)
	ack, poll := x.l.hush.longest()
	_, werr := x.l.whole(healLimit - min(healLimit, time.Since(mended)))
	if merr != nil || werr != nil {
		x.r.say(false, f.name, "%s; after the end of the fault: %v", what, errors.Join(merr, werr))
		return
	}
	if err == nil {
		x.r.say(true, f.name, "%s; longest silence of a partition: %.2f s between acknowledgements, %.2f s between reads; all partitions move %.2f s after the end of the fault, whole after %.2f s; %d acknowledged meanwhile",
			what, ack.Seconds(), poll.Seconds(), moving.Seconds(), time.Since(mended).Seconds(), x.l.hist.Tally().Acked-before)
	}
}

// mend ends whatever a fault left: the next one starts from a cluster that could be whole.
func (x *run) mend() {
	if x.c.wire != nil {
		x.c.wire.heal()
	}
	for _, n := range x.c.nodes {
		if n.disk != nil {
			n.disk.thaw()
		}
		if n.frozen {
			n.thaw()
		}
		if !n.running() {
			if err := x.c.start(n.id); err != nil {
				x.r.say(false, "restart", "%v", err)
			}
		}
	}
}

// view is the newest metadata of any broker that answers.
func (x *run) view(but ...int32) (*view, error) {
	var newest *view
	var errs []error
	for _, n := range x.c.nodes {
		if !n.running() || n.frozen || slices.Contains(but, n.id) {
			continue
		}
		v, err := metadata(n.client.real, topic, time.Second)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if newest == nil || sum(v.epoch) > sum(newest.epoch) {
			newest = v
		}
	}
	if newest == nil {
		return nil, errors.Join(errs...)
	}
	return newest, nil
}

func sum(m map[int32]int32) (n int64) {
	for _, v := range m {
		n += int64(v)
	}
	return n
}

// led counts the partitions that each broker leads.
func (x *run) led() []int32 {
	n := make([]int32, len(x.c.nodes)+1)
	if v, err := x.view(); err == nil {
		for _, b := range v.leader {
			if b > 0 && int(b) < len(n) {
				n[b]++
			}
		}
	}
	return n
}

func (x *run) ids() []int32 {
	var out []int32
	for _, n := range x.c.nodes {
		out = append(out, n.id)
	}
	return out
}

// leader is the broker that leads most partitions, follower the one that leads fewest.
func (x *run) leader() int32 {
	n := x.led()
	return slices.MaxFunc(x.ids(), func(a, b int32) int { return cmp.Compare(n[a], n[b]) })
}

func (x *run) follower() int32 {
	n := x.led()
	return slices.MinFunc(x.ids(), func(a, b int32) int { return cmp.Compare(n[a], n[b]) })
}

// controller is the broker that leads the store, by the word of whoever answers.
func (x *run) controller() int32 {
	for range 100 {
		for _, n := range x.c.nodes {
			if id, err := storeLeader(n.client.real, time.Second); err == nil && id >= 1 && id <= 3 {
				return id
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return 1
}

func (x *run) killed(ids ...int32) (string, error) {
	led, ctl := x.led(), x.controller()
	what := ""
	var gone sync.WaitGroup
	for _, id := range ids {
		what += fmt.Sprintf("broker %d (leads %d%s) ", id, led[id], map[bool]string{true: ", controller"}[id == ctl])
		gone.Go(x.c.node(id).kill)
	}
	gone.Wait()
	time.Sleep(x.hold)
	return what + "killed", x.c.start(ids...)
}

// killAgain kills one broker three times, each time shortly after it is back.
func (x *run) killAgain() (string, error) {
	id := x.leader()
	for range 3 {
		x.c.node(id).kill()
		if err := x.c.start(id); err != nil {
			return fmt.Sprintf("broker %d killed again", id), err
		}
		time.Sleep(300 * time.Millisecond)
	}
	return fmt.Sprintf("broker %d killed three times, 0.3 s after it was ready each time", id), nil
}

// frozen freezes a broker beyond its session; when its partitions have new leaders, requests are sent to the frozen one and to the
// new leaders, and it is thawed: it reads them before it can know that it was replaced.
func (x *run) frozen(id int32) (string, error) {
	n := x.c.node(id)
	before, err := x.view()
	if err != nil {
		return "", err
	}
	var parts []int32
	for p, b := range before.leader {
		if b == id {
			parts = append(parts, p)
		}
	}
	slices.Sort(parts)
	var old []*asked
	for _, p := range parts {
		a, err := x.asked(n, p)
		if err != nil {
			return "", err
		}
		old = append(old, a)
	}
	n.freeze()
	begin := time.Now()
	var after *view
	moved := func() bool {
		after, err = x.view(id)
		return err == nil && !slices.ContainsFunc(parts, func(p int32) bool { return after.leader[p] == id || after.leader[p] < 0 })
	}
	for !moved() && time.Since(begin) < 10*time.Second {
		time.Sleep(5 * time.Millisecond)
	}
	took := time.Since(begin)
	if !moved() {
		return fmt.Sprintf("broker %d frozen", id), fmt.Errorf("its %d partitions had no other leaders after %v", len(parts), took)
	}
	time.Sleep(max(0, x.hold-time.Since(begin)))
	var fresh []*asked
	for i, p := range parts {
		a, err := x.asked(x.c.node(after.leader[p]), p)
		if err != nil {
			return "", err
		}
		fresh = append(fresh, a)
		old[i].send()
		a.send()
	}
	n.thaw()
	zombie, new := acksOf(old), acksOf(fresh)
	what := fmt.Sprintf("broker %d (led %d) frozen for %.1f s, new leaders after %.2f s; of %d requests sent to the frozen one before it was thawed it acknowledged %d, the new leaders %d",
		id, len(parts), time.Since(begin).Seconds(), took.Seconds(), len(parts), zombie, new)
	if zombie > 0 {
		return what, errors.New("a broker that had been replaced acknowledged acks=all")
	}
	return what, nil
}

// asked is one Produce to one broker whose answer is awaited later.
type asked struct {
	l    *load
	w    *history.Writer
	conn *rawConn
	part int32
	seq  uint64
	req  *kmsg.ProduceRequest
	err  error
}

func (x *run) asked(n *node, part int32) (*asked, error) {
	conn, err := dialRaw(n.client.real, time.Second)
	return &asked{l: x.l, w: x.l.hist.Writer(fmt.Sprintf("zombie-%d-%d", n.id, part), n.id, false), conn: conn, part: part}, err
}

func (a *asked) send() {
	var value []byte
	a.seq, value = a.w.Send(a.part, valueSize, clock())
	a.req = produceRequest(topic, a.part, value, 5*time.Second)
	a.err = a.conn.send(a.req, rawWait)
}

// acksOf reads all answers and counts the acknowledgements.
func acksOf(as []*asked) (n int) {
	for _, a := range as {
		resp, err := kmsg.Response(nil), a.err
		if err == nil {
			resp, err = a.conn.receive(a.req)
		}
		a.conn.close()
		if err != nil {
			a.w.Failed(a.seq, false, clock())
			continue
		}
		p := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		if p.ErrorCode != 0 {
			a.l.count("after a freeze: " + errorName(p.ErrorCode))
			a.w.Failed(a.seq, definite(p.ErrorCode), clock())
			continue
		}
		a.w.Acked(a.seq, p.BaseOffset, clock())
		n++
	}
	return n
}

func (x *run) frozenAll() (string, error) {
	for _, n := range x.c.nodes {
		n.freeze()
	}
	time.Sleep(x.hold)
	for _, n := range x.c.nodes {
		n.thaw()
	}
	return "all three frozen and thawed", nil
}

// alone is one broker whose cables to all others are cut.
func alone(a int32, kinds kind) []rule {
	var out []rule
	for b := int32(1); b <= 3; b++ {
		if b != a {
			out = append(out, both(a, b, kinds)...)
		}
	}
	return out
}

func (x *run) cutOff(id int32, rules []rule) (string, error) {
	led, ctl := x.led(), x.controller()
	x.c.wire.cut(rules...)
	time.Sleep(x.hold)
	what := fmt.Sprintf("cables cut for %v", x.hold)
	if id > 0 {
		what = fmt.Sprintf("broker %d (led %d%s) cut off for %v", id, led[id], map[bool]string{true: ", controller"}[id == ctl], x.hold)
	}
	x.c.wire.heal()
	return what, nil
}

// diskFull takes every free byte of one leader's disk. Where file systems cannot be mounted the broker is started with
// log.dir.reserve.bytes above what is free, which is the same to it.
func (x *run) diskFull() (string, error) {
	id := x.leader()
	n := x.c.node(id)
	led := x.led()[id]
	if n.disk == nil {
		return fmt.Sprintf("broker %d (led %d) restarted with log.dir.reserve.bytes above the free space, and back", id, led), x.reserved(n)
	}
	if err := n.disk.fill(); err != nil {
		return "", err
	}
	time.Sleep(x.hold)
	return fmt.Sprintf("no byte free on the disk of broker %d (led %d) for %v", id, led, x.hold), n.disk.release()
}

func (x *run) reserved(n *node) error {
	if _, err := n.stop(stopLimit); err != nil {
		return err
	}
	x.c.keys["log.dir.reserve.bytes"] = fmt.Sprint(int64(math.MaxInt64 / 2))
	err := x.c.configure(n)
	delete(x.c.keys, "log.dir.reserve.bytes")
	if err == nil {
		err = x.c.start(n.id)
	}
	if err != nil {
		return err
	}
	time.Sleep(x.hold)
	if _, err := n.stop(stopLimit); err != nil {
		return err
	}
	return errors.Join(x.c.configure(n), x.c.start(n.id))
}

// diskSlow lets one leader's disk write for 50 ms of every 250 ms.
func (x *run) diskSlow() (string, error) {
	id := x.leader()
	n := x.c.node(id)
	led := x.led()[id]
	// Without the right to mount the whole process is stopped in the same pulses: what it waits for is the same.
	stop, resume := n.freeze, n.thaw
	how := "the process stopped"
	if n.disk != nil {
		stop, resume = func() { n.disk.freeze() }, func() { n.disk.thaw() }
		how = "writes and syncs held"
	}
	for begin := time.Now(); time.Since(begin) < x.hold; {
		stop()
		time.Sleep(200 * time.Millisecond)
		resume()
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Sprintf("broker %d (led %d): %s for 200 ms of every 250 ms", id, led, how), nil
}

// diskHung holds every write of one leader's disk for longer than a session.
func (x *run) diskHung() (string, error) {
	id := x.leader()
	n := x.c.node(id)
	led := x.led()[id]
	if n.disk == nil {
		return "no disk of its own: the process is frozen instead", func() error { _, err := x.frozen(id); return err }()
	}
	if err := n.disk.freeze(); err != nil {
		return "", err
	}
	time.Sleep(x.hold)
	return fmt.Sprintf("every write of the disk of broker %d (led %d) held for %v", id, led, x.hold), n.disk.thaw()
}

// rolling restarts one broker after the other, each when the cluster is whole again.
func (x *run) rolling() (string, error) {
	what := "restarted one after the other, stops took"
	for _, n := range x.c.nodes {
		d, err := n.stop(stopLimit)
		if err != nil {
			return what, err
		}
		what += fmt.Sprintf(" %.2f", d.Seconds())
		if err := x.c.start(n.id); err != nil {
			return what, err
		}
		if _, err := x.l.whole(healLimit); err != nil {
			return what, err
		}
	}
	return what + " s", nil
}

// wiped takes a broker's whole data directory away. Its member of the quorum has forgotten whom it voted for, so it must not
// come back by itself: it says so in one line, is replaced by command, and is filled again by the others.
func (x *run) wiped() (string, error) {
	id := x.follower()
	n, other := x.c.node(id), x.c.node(id%3+1)
	n.kill()
	if err := os.RemoveAll(n.data); err != nil {
		return "", err
	}
	what := fmt.Sprintf("data of broker %d removed", id)
	if err := n.launch(); err != nil {
		return what, err
	}
	if _, err := n.ready(startLimit); err == nil {
		return what, errors.New("it began again as if nothing had happened")
	}
	n.kill()
	if !strings.Contains(n.said(), "quorum remove") {
		return what, fmt.Errorf("it does not say what to do: %s", n.tail())
	}
	for _, args := range [][]string{{"remove", fmt.Sprint(id), "--yes"}, {"add", fmt.Sprint(id), n.peer.told}} {
		args = append(append([]string{"cluster", "quorum"}, args...), "--bootstrap", other.client.real)
		if out, err := exec.Command(n.bin, args...).CombinedOutput(); err != nil {
			return what, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return what + ", refused, replaced by command, started again", x.c.start(id)
}

// runPower cuts the power: every file system forgets what was not synced, at one moment, and all processes die.
func runPower(s settings, r *report) {
	if err := canMount(); err != nil {
		r.say(false, "power", "needs the right to mount: %v; the simulator and the power-cut sweeps of internal/storage cover it", err)
		return
	}
	c, err := newCluster(options{bin: s.bin, brokers: 3, disks: 2 << 30, keys: keys()})
	if err != nil {
		r.say(false, "power", "%v", err)
		return
	}
	failed := r.failed
	defer func() { c.destroy(s.keep || r.failed > failed) }()
	if err := c.start(); err != nil {
		r.say(false, "power", "%v", err)
		return
	}
	l, err := newLoad(c, s.producers, s.rate, nil)
	if err != nil {
		r.say(false, "power", "%v", err)
		return
	}
	x := &run{s: s, c: c, l: l, r: r, hold: 3 * time.Second}
	cut := func(ids ...int32) func(x *run) (string, error) {
		return func(x *run) (string, error) { return fmt.Sprintf("power cut of brokers %v", ids), x.power(ids...) }
	}
	for _, f := range []fault{{"power-all", cut(1, 2, 3)}, {"power-one", cut(2)}, {"power-two", cut(1, 3)}, {"power-all-again", cut(1, 2, 3)}, {"power-all-third", cut(1, 2, 3)}} {
		if s.only != nil && !slices.Contains(s.only, f.name) {
			continue
		}
		if _, err := l.moves(30 * time.Second); err != nil {
			r.say(false, f.name, "before: %v", err)
			return
		}
		time.Sleep(x.hold)
		x.one(f)
	}
	l.finish(r)
}

// power: frozen first, so that the disks of all lose power at one moment of the brokers' time and nothing is said in between.
func (x *run) power(ids ...int32) error {
	nodes := x.c.pick(ids)
	for _, n := range nodes {
		n.freeze()
	}
	for _, n := range nodes {
		if err := n.disk.cutPower(); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		n.kill()
	}
	for _, n := range nodes {
		if err := errors.Join(n.disk.unplug(), n.disk.open()); err != nil {
			return err
		}
	}
	return x.c.start(ids...)
}

// runTeeth shows that a loss is found: one broker whose topic is told not to sync loses its power.
func runTeeth(s settings, r *report) {
	if err := canMount(); err != nil {
		r.say(false, "teeth", "needs the right to mount: %v", err)
		return
	}
	c, err := newCluster(options{bin: s.bin, brokers: 1, disks: 1 << 30, keys: keys()})
	if err != nil {
		r.say(false, "teeth", "%v", err)
		return
	}
	defer c.destroy(s.keep)
	if err := c.start(); err != nil {
		r.say(false, "teeth", "%v", err)
		return
	}
	l, err := newLoad(c, s.producers, s.rate, map[string]string{"flush.messages": fmt.Sprint(int64(math.MaxInt64))})
	if err != nil {
		r.say(false, "teeth", "%v", err)
		return
	}
	x := &run{s: s, c: c, l: l, r: &report{}}
	if _, err := l.moves(30 * time.Second); err != nil {
		r.say(false, "teeth", "%v", err)
		return
	}
	time.Sleep(time.Second)
	if err := x.power(1); err != nil {
		r.say(false, "teeth", "%v", err)
		return
	}
	l.endWrites(20 * time.Second)
	l.stopRead()
	l.reading.Wait()
	c.node(1).stop(stopLimit)
	readReplica(l.hist.Replica("broker 1"), c.node(1).data)
	lost := int64(0)
	for _, res := range l.hist.Check() {
		if res.Promise == "I1" {
			lost = res.Breaches
		}
	}
	r.say(lost > 0, "teeth", "a topic that does not sync lost %d acknowledged records to a power cut, and the checker says so", lost)
}
