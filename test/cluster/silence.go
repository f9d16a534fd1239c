package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// silentParts is how many partitions each client's topic has: each broker leads two.
const silentParts = 6

// silent is one client program of its own process, and when it heard what.
type silent struct {
	name string
	cmd  *exec.Cmd

	mu     sync.Mutex
	acks   [silentParts][]int64 // unix nanoseconds
	reads  [silentParts][]int64
	errors []string
}

// programs are the clients by name; TIMEOUT stands for the request timeout in milliseconds or nothing.
func programs(root string) map[string][]string {
	return map[string][]string{
		"java": {"java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xlog:disable", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off",
			"-cp", filepath.Join(root, ".cache/cluster/java") + ":" + filepath.Join(root, ".cache/kafka-4.3.1/*"), "Silence"},
		"librdkafka": {filepath.Join(root, ".cache/py/bin/python"), filepath.Join(root, "test/cluster/python/silence.py")},
		"franz-go":   {filepath.Join(root, ".cache/cluster/silent-go")},
	}
}

// silentNames are the clients as they are listened to. One that is called tuned has its own pauses lowered, which its
// program names; where one by the same maker is not tuned, that one is shown and not judged.
var silentNames = []string{"java", "librdkafka", "librdkafka-tuned", "franz-go"}

// judged are the clients that the limits are for.
func judged(name string) bool { return name != "librdkafka" }

func startSilent(root, name string, c *cluster, timeout int) (*silent, error) {
	program, tuned := strings.CutSuffix(name, "-tuned")
	args := append(programs(root)[program], strings.Join(c.bootstrap(), ","), "silence-"+name, strconv.Itoa(silentParts), strconv.Itoa(timeout))
	if tuned {
		args = append(args, "tuned")
	}
	s := &silent{name: name, cmd: exec.Command(args[0], args[1:]...)}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go s.listen(out)
	return s, nil
}

func (s *silent) listen(out io.Reader) {
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		f := strings.SplitN(sc.Text(), " ", 3)
		if len(f) != 3 {
			continue
		}
		part, _ := strconv.Atoi(f[1])
		at, err := strconv.ParseInt(f[2], 10, 64)
		s.mu.Lock()
		switch {
		case f[0] == "e" || err != nil || part < 0 || part >= silentParts:
			s.errors = append(s.errors, sc.Text())
		case f[0] == "a":
			s.acks[part] = append(s.acks[part], at)
		case f[0] == "c":
			s.reads[part] = append(s.reads[part], at)
		}
		s.mu.Unlock()
	}
}

func (s *silent) end() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// alive says whether every partition was acknowledged and read after a moment.
func (s *silent) alive(since time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range silentParts {
		for what, ts := range map[string][]int64{"acknowledged": s.acks[p], "read": s.reads[p]} {
			if len(ts) == 0 || ts[len(ts)-1] < since.UnixNano() {
				return fmt.Errorf("%s: nothing of partition %d %s; errors: %.300s", s.name, p, what, strings.Join(s.errors, "; "))
			}
		}
	}
	return nil
}

// gap is the longest silence that touches the time from begin to end, of the partitions given.
func gap(ts *[silentParts][]int64, parts []int32, begin, end time.Time) (longest time.Duration) {
	for _, p := range parts {
		all := ts[p]
		slices.Sort(all)
		i, _ := slices.BinarySearch(all, begin.UnixNano())
		last := begin.UnixNano()
		if i > 0 {
			last = all[i-1]
		}
		for ; i < len(all) && last < end.UnixNano(); i++ {
			longest = max(longest, time.Duration(all[i]-last))
			last = all[i]
		}
		if i == len(all) && last < end.UnixNano() {
			longest = max(longest, time.Duration(end.UnixNano()-last))
		}
	}
	return longest
}

func (s *silent) gaps(parts []int32, begin, end time.Time) (acks, reads time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return gap(&s.acks, parts, begin, end), gap(&s.reads, parts, begin, end)
}

// trouble is one kind of end of a leader.
type trouble struct {
	name          string
	store         bool // the victim leads the coordination store too
	timeout       int  // request timeout of the clients in milliseconds; 0: their defaults
	median, worst time.Duration
	accept        time.Duration // the new leader accepts within; 0: only shown
	window        time.Duration // how long clients are watched from the beginning
	do            func(x *quiet, n *node) error
	mend          func(x *quiet, n *node) error
}

var (
	killIt  = func(_ *quiet, n *node) error { n.kill(); return nil }
	startIt = func(x *quiet, n *node) error { return x.c.start(n.id) }
	stopIt  = func(x *quiet, n *node) error {
		if _, err := n.stop(stopLimit); err != nil {
			return err
		}
		return x.c.start(n.id)
	}
	freezeIt = func(_ *quiet, n *node) error { n.freeze(); return nil }
	thawIt   = func(_ *quiet, n *node) error { n.thaw(); return nil }
	cutIt    = func(x *quiet, n *node) error {
		x.c.wire.cut(append(alone(n.id, anyPeer), both(0, n.id, kindClient)...)...)
		return nil
	}
	healIt  = func(x *quiet, _ *node) error { x.c.wire.heal(); return nil }
	nothing = func(*quiet, *node) error { return nil }
)

var troubles = []trouble{
	{"kill", false, 0, 500 * time.Millisecond, 2 * time.Second, 0, 4 * time.Second, killIt, startIt},
	{"kill-store", true, 0, 500 * time.Millisecond, 2 * time.Second, 0, 4 * time.Second, killIt, startIt},
	{"freeze", false, 1000, 2 * time.Second, 4 * time.Second, time.Second, 6 * time.Second, freezeIt, thawIt},
	{"freeze-store", true, 1000, 2 * time.Second, 4 * time.Second, time.Second, 6 * time.Second, freezeIt, thawIt},
	{"restart", false, 0, 200 * time.Millisecond, 200 * time.Millisecond, 0, 3 * time.Second, stopIt, nothing},
	{"restart-store", true, 0, 200 * time.Millisecond, 200 * time.Millisecond, 0, 3 * time.Second, stopIt, nothing},
	{"cut", false, 1000, 2 * time.Second, 4 * time.Second, time.Second, 6 * time.Second, cutIt, healIt},
	{"cut-store", true, 1000, 2 * time.Second, 4 * time.Second, time.Second, 6 * time.Second, cutIt, healIt},
}

// quiet is a cluster whose clients are listened to.
type quiet struct {
	s       settings
	c       *cluster
	clients []*silent
}

// runSilence measures each trouble with all three clients at once, each with a topic of its own.
func runSilence(s settings, r *report) {
	for _, proxies := range []bool{false, true} { // a cut needs proxies, all others are measured without
		for _, timeout := range []int{0, 1000} {
			var todo []trouble
			for _, t := range troubles {
				if strings.HasPrefix(t.name, "cut") == proxies && t.timeout == timeout && (s.only == nil || slices.Contains(s.only, t.name)) {
					todo = append(todo, t)
				}
			}
			if len(todo) > 0 {
				silence(s, r, todo, proxies, timeout)
			}
		}
	}
}

func silence(s settings, r *report, todo []trouble, proxies bool, timeout int) {
	c, err := newCluster(options{bin: s.bin, brokers: 3, proxies: proxies})
	if err != nil {
		r.say(false, "silence", "%v", err)
		return
	}
	failed := r.failed
	defer func() { c.destroy(s.keep || r.failed > failed) }()
	if err := c.start(); err != nil {
		r.say(false, "silence", "%v", err)
		return
	}
	x := &quiet{s: s, c: c}
	for _, name := range append([]string{"probe"}, x.s.clients...) {
		if err := createTopic(c, "silence-"+name, silentParts, 3, nil); err != nil {
			r.say(false, "silence", "topic: %v", err)
			return
		}
	}
	for _, name := range s.clients {
		cl, err := startSilent(s.root, name, c, timeout)
		if err != nil {
			r.say(false, "silence", "%s: %v", name, err)
			return
		}
		x.clients = append(x.clients, cl)
		defer cl.end()
	}
	for _, t := range todo {
		x.measure(r, t)
	}
}

// measure does the trials of one trouble.
func (x *quiet) measure(r *report, t trouble) {
	acks, reads := map[string][]time.Duration{}, map[string][]time.Duration{}
	var accepts []time.Duration
	for i := range x.s.trials {
		if err := x.settle(); err != nil {
			r.say(false, "silence-"+t.name, "before trial %d: %v", i+1, err)
			return
		}
		n, err := x.victim(t.store)
		if err != nil {
			r.say(false, "silence-"+t.name, "trial %d: %v", i+1, err)
			return
		}
		led := map[string][]int32{}
		for _, name := range append([]string{"probe"}, x.s.clients...) {
			v, err := metadata(n.client.real, "silence-"+name, time.Second)
			if err != nil {
				r.say(false, "silence-"+t.name, "trial %d: %v", i+1, err)
				return
			}
			for p := range int32(silentParts) {
				if v.leader[p] == n.id {
					led[name] = append(led[name], p)
				}
			}
		}
		begin := time.Now()
		accepted := make(chan time.Duration, 1)
		go func() { accepted <- x.firstAccepted(n, led["probe"], begin, t.window) }()
		if err := t.do(x, n); err != nil {
			r.say(false, "silence-"+t.name, "trial %d: %v", i+1, err)
			return
		}
		time.Sleep(time.Until(begin.Add(t.window)))
		end := time.Now()
		accepts = append(accepts, <-accepted)
		for _, c := range x.clients {
			a, c2 := c.gaps(led[c.name], begin, end)
			acks[c.name], reads[c.name] = append(acks[c.name], a), append(reads[c.name], c2)
		}
		if err := t.mend(x, n); err != nil {
			r.say(false, "silence-"+t.name, "trial %d: %v", i+1, err)
			return
		}
	}
	x.judge(r, t, acks, reads, accepts)
}

func (x *quiet) judge(r *report, t trouble, acks, reads map[string][]time.Duration, accepts []time.Duration) {
	am, aw := middle(accepts)
	for _, c := range x.clients {
		m, w := middle(acks[c.name])
		rm, rw := middle(reads[c.name])
		c.mu.Lock()
		errs := c.errors
		c.errors = nil
		c.mu.Unlock()
		ok := m <= t.median && rm <= t.median && w <= t.worst && rw <= t.worst && len(errs) == 0
		say := r.say
		if !judged(c.name) {
			say = func(_ bool, name, format string, args ...any) { note("shown only: "+name+" "+format, args...) }
		}
		say(ok, "silence-"+t.name+"-"+c.name, "%d trials, longest silence in s, median and worst: acknowledgements %.2f %.2f, records read %.2f %.2f (at most %.2f %.2f); new leader accepts after %.2f %.2f; records given up %d %.200s",
			len(accepts), m.Seconds(), w.Seconds(), rm.Seconds(), rw.Seconds(), t.median.Seconds(), t.worst.Seconds(), am.Seconds(), aw.Seconds(), len(errs), strings.Join(errs, "; "))
		note("%s %s acknowledgements %s", t.name, c.name, list(acks[c.name]))
		note("%s %s records read %s", t.name, c.name, list(reads[c.name]))
	}
	note("%s new leader accepts %s; load average %s", t.name, list(accepts), loadAverage())
	if t.accept > 0 {
		r.say(aw <= t.accept, "silence-"+t.name+"-leader", "%d trials, the new leader accepts after %.2f s in the median, %.2f s at worst (at most %.2f)", len(accepts), am.Seconds(), aw.Seconds(), t.accept.Seconds())
	}
}

func list(ds []time.Duration) string {
	var out []string
	for _, d := range ds {
		out = append(out, fmt.Sprintf("%.2f", d.Seconds()))
	}
	return strings.Join(out, " ")
}

// middle is the median and the worst.
func middle(ds []time.Duration) (median, worst time.Duration) {
	if len(ds) == 0 {
		return 0, 0
	}
	s := slices.Sorted(slices.Values(ds))
	return s[len(s)/2], s[len(s)-1]
}

// settle waits until everything is whole, moves leaders back to their preferred brokers, and lets the clients see that.
func (x *quiet) settle() error {
	deadline := time.Now().Add(60 * time.Second)
	var why error
	for time.Now().Before(deadline) {
		if why = x.settled(); why == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if why != nil {
		return why
	}
	since := time.Now()
	for time.Now().Before(deadline) {
		why = nil
		for _, c := range x.clients {
			why = errors.Join(why, c.alive(since.Add(500*time.Millisecond)))
		}
		if why == nil {
			time.Sleep(time.Second) // the last election's own silence must not be counted
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return why
}

func (x *quiet) settled() error {
	for _, name := range append([]string{"probe"}, x.s.clients...) {
		for _, n := range x.c.nodes {
			v, err := metadata(n.client.real, "silence-"+name, time.Second)
			if err != nil {
				return err
			}
			moved := false
			for p := range int32(silentParts) {
				if len(v.replicas[p]) != 3 || len(v.isr[p]) != 3 {
					return fmt.Errorf("broker %d says %s-%d: in sync %v of %v", n.id, name, p, v.isr[p], v.replicas[p])
				}
				moved = moved || v.leader[p] != v.replicas[p][0]
			}
			if moved {
				return errors.Join(fmt.Errorf("%s is not led by its preferred brokers", name), preferred(n, "silence-"+name))
			}
		}
	}
	return nil
}

// preferred asks for an election of the preferred leaders of a topic.
func preferred(n *node, topic string) error {
	req := kmsg.NewPtrElectLeadersRequest()
	req.TimeoutMillis = 5000
	t := kmsg.NewElectLeadersRequestTopic()
	t.Topic = topic
	for p := range int32(silentParts) {
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	resp, err := ask[*kmsg.ElectLeadersResponse](n.client.real, req, 2, 10*time.Second)
	if err != nil {
		return err
	}
	if resp.ErrorCode != 0 {
		return errors.New("ElectLeaders: " + errorName(resp.ErrorCode))
	}
	return nil
}

// victim is a broker that leads partitions and also leads the store, or one that does not.
func (x *quiet) victim(store bool) (*node, error) {
	ctl, err := int32(0), error(nil)
	for range 50 {
		if ctl, err = storeLeader(x.c.nodes[0].client.real, time.Second); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return nil, err
	}
	if store {
		return x.c.node(ctl), nil
	}
	others := slices.DeleteFunc(slices.Clone(x.c.nodes), func(n *node) bool { return n.id == ctl })
	// In turn, by time: both get their trials.
	return slices.MinFunc(others, func(a, b *node) int { return cmp.Compare(a.begun.UnixNano(), b.begun.UnixNano()) }), nil
}

// firstAccepted asks the other brokers all the time to take a record for each partition the victim led, and returns when
// the last of these partitions accepted its first one.
func (x *quiet) firstAccepted(victim *node, parts []int32, begin time.Time, window time.Duration) time.Duration {
	ctx, cancel := context.WithDeadline(context.Background(), begin.Add(window))
	defer cancel()
	var mu sync.Mutex
	first := map[int32]time.Duration{}
	var wg sync.WaitGroup
	for _, p := range parts {
		for _, n := range x.c.nodes {
			if n == victim {
				continue
			}
			wg.Go(func() {
				conn, err := dialRaw(n.client.real, time.Second)
				if err != nil {
					return
				}
				defer conn.close()
				for ctx.Err() == nil {
					resp, err := conn.do(produceRequest("silence-probe", p, []byte("letter"), time.Second), window)
					if err != nil {
						return
					}
					ts := resp.(*kmsg.ProduceResponse).Topics
					mu.Lock()
					_, done := first[p]
					if ok := len(ts) == 1 && len(ts[0].Partitions) == 1 && ts[0].Partitions[0].ErrorCode == 0; ok && !done {
						first[p], done = time.Since(begin), true
					}
					mu.Unlock()
					if done {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
	}
	wg.Wait()
	if len(first) < len(parts) {
		return window
	}
	last := time.Duration(0)
	for _, d := range first {
		last = max(last, d)
	}
	return last
}
