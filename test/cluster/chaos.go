package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// runChaos breaks several things at once, in an order and with delays that a seed decides, and lets the cluster heal now and
// then. What every fault by itself shows is tested elsewhere; here they meet.
func runChaos(s settings, r *report) {
	c, err := newCluster(options{bin: s.bin, brokers: 3, proxies: true, disks: 3 << 30, keys: keys()})
	if err != nil {
		r.say(false, "chaos", "%v", err)
		return
	}
	failed := r.failed
	defer func() { c.destroy(s.keep || r.failed > failed) }()
	if err := c.start(); err != nil {
		r.say(false, "chaos", "%v", err)
		return
	}
	l, err := newLoad(c, s.producers, s.rate, nil)
	if err == nil {
		_, err = l.moves(30 * time.Second)
	}
	if err != nil {
		r.say(false, "chaos", "%v", err)
		return
	}
	x := &run{s: s, c: c, l: l, r: r}
	for round := range s.repeat {
		x.one(fault{fmt.Sprintf("chaos-%d-%d", s.seed, round+1), func(x *run) (string, error) { return x.storm(s.seed, uint64(round)) }})
	}
	l.finish(r)
}

// storm is ten seconds of faults. Each broker has its own sequence of them; cables are cut and mended by a fourth hand.
func (x *run) storm(seed, round uint64) (string, error) {
	var mu sync.Mutex
	var story []string
	var errs []error
	begin := time.Now()
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		story = append(story, fmt.Sprintf("%.1f ", time.Since(begin).Seconds())+fmt.Sprintf(format, args...))
	}
	end := begin.Add(10 * time.Second)
	var wg sync.WaitGroup
	for _, n := range x.c.nodes {
		rng := rand.New(rand.NewPCG(seed, round<<8|uint64(n.id)))
		wg.Go(func() {
			for time.Now().Before(end) {
				time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
				long := time.Duration(rng.IntN(2500)) * time.Millisecond
				if err := x.blow(n, rng.IntN(6), long, say); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
					return
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, round<<8))
	for time.Now().Before(end) {
		time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
		from, to := int32(rng.IntN(4)), int32(rng.IntN(5)-1)
		kinds := []kind{anyPeer, anyPeer | kindClient, kindCoord, kindKafka}[rng.IntN(4)]
		rules := []rule{{from, to, kinds}}
		if rng.IntN(2) == 0 {
			rules = append(rules, rule{to, from, kinds})
		}
		say("cut %v", rules)
		x.c.wire.cut(rules...)
		if rng.IntN(2) == 0 {
			time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
			say("healed")
			x.c.wire.heal()
		}
	}
	x.c.wire.heal()
	wg.Wait()
	return strings.Join(story, ", "), errors.Join(errs...)
}

// blow is one fault of one broker, with its end.
func (x *run) blow(n *node, what int, long time.Duration, say func(string, ...any)) error {
	up := func() error {
		if err := n.launch(); err != nil {
			return err
		}
		// A broker that is cut off from the others is not ready before the cut ends, which is all right.
		for deadline := time.Now().Add(startLimit); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if strings.Contains(n.said(), readyLine) {
				return nil
			}
			if !n.running() {
				return fmt.Errorf("broker %d ended at its start: %s", n.id, n.tail())
			}
		}
		return fmt.Errorf("broker %d was not ready within %v: %s", n.id, startLimit, n.tail())
	}
	switch what {
	case 0:
		say("kill %d", n.id)
		n.kill()
		time.Sleep(long)
		return up()
	case 1:
		say("freeze %d", n.id)
		n.freeze()
		time.Sleep(long)
		n.thaw()
	case 2:
		say("stop %d", n.id)
		if _, err := n.stop(stopLimit); err != nil {
			return err
		}
		time.Sleep(long)
		return up()
	case 3:
		say("hang disk %d", n.id)
		if err := n.disk.freeze(); err != nil {
			return err
		}
		time.Sleep(long)
		return n.disk.thaw()
	case 4:
		say("fill disk %d", n.id)
		if err := n.disk.fill(); err != nil {
			return err
		}
		time.Sleep(long)
		err := n.disk.release()
		if err == nil && !n.running() {
			// The coordination store ends its process when it cannot write at all; a supervisor would start it again.
			say("%d had ended", n.id)
			err = up()
		}
		return err
	case 5:
		say("power %d", n.id)
		n.freeze()
		if err := n.disk.cutPower(); err != nil {
			return err
		}
		n.kill()
		time.Sleep(long)
		if err := errors.Join(n.disk.unplug(), n.disk.open()); err != nil {
			return err
		}
		return up()
	}
	return nil
}
