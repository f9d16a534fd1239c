package controller

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/meta"
)

const (
	// settleFor is how long after the last preferred replica came into an ISR leadership goes back. One sweep moves what
	// one returning broker is preferred for, and not each partition by itself; and it comes when clients have closed
	// what they had open to that broker before: franz-go finds out that such a connection is dead when it uses it,
	// and rests for a second then (test/cluster/run silence restart: 1.3 s of silence in place of 0.1 s).
	settleFor = 30 * time.Second
	// settleAtMost bounds that wait, in settles, while more and more come back.
	settleAtMost = 4
	// balanceAfter is when a new controller looks at the balance for the first time, and when it looks again whether
	// what the balancer moves has arrived.
	balanceAfter = time.Second
	// growEvery is how often the topics of coordinators are compared with the brokers there are, beside the moments
	// at which a broker joins.
	growEvery = 5 * time.Second
	// fullEvery is how often it is looked for leaders to be moved while some disk is full. A full disk is heard of at once.
	fullEvery = 500 * time.Millisecond
	// tickAgain is the rest after something could not be carried out.
	tickAgain = 25 * time.Millisecond
	// tickLatest is how long the loop sleeps at most.
	tickLatest = time.Second
	// growAgain is when they are looked at again while some are on the way.
	growAgain = 500 * time.Millisecond
	// growAtOnce is how many partitions of coordinators' topics grow at the same time.
	growAtOnce = 10
)

// duties is what the controller does by itself. Times are those of the lead goroutine, apart from mu.
type duties struct {
	wake   chan struct{}
	settle time.Duration // see there; tests have less patience
	// When each comes next. The zero time is now.
	preferred, offline, grow, balance time.Time
	full                              time.Time // looked at while some disk is full
	hindered                          []int32   // whom elections pass over
	said                              string    // the last complaint
	saidAt                            time.Time

	mu struct {
		sync.Mutex
		homeFirst, homeLast time.Time // a preferred replica came into an ISR: first and last time since the sweep
		offline, grow       bool      // a reason came up
	}
}

// begin is for a new term: what the one before may have missed is looked for at once.
func (d *duties) begin(*reign) {
	now := time.Now()
	d.offline, d.grow = now, now
	d.preferred, d.balance = now.Add(d.settle), now.Add(d.soon())
}

func (d *duties) soon() time.Duration { return min(balanceAfter, d.settle) }

// see takes the reasons out of a change of the metadata.
func (d *duties) see(ch *meta.Delta) {
	grow, offline := len(ch.Brokers) > 0, false
	for r := range ch.Configs {
		// unclean.leader.election.enable may have become true.
		offline = offline || r.Type == meta.ResourceTopic || r.Type == meta.ResourceBroker
	}
	for _, t := range ch.Topics {
		grow = grow || t.New != nil && t.New.Internal
	}
	if !grow && !offline {
		return
	}
	d.mu.Lock()
	d.mu.grow, d.mu.offline = d.mu.grow || grow, d.mu.offline || offline
	d.mu.Unlock()
	d.nudge()
}

func (d *duties) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// wakePreferred notes that preferred replicas are in sync again and do not lead.
func (c *Controller) wakePreferred(answers []control.ISRAnswer) {
	home := slices.ContainsFunc(answers, func(a control.ISRAnswer) bool {
		return a.State != nil && a.State.Leader != a.State.Replicas[0] && slices.Contains(a.State.ISR, a.State.Replicas[0])
	})
	if home {
		c.due.comesHome()
	}
}

// comesHome notes that leadership can go back somewhere, now that the reason why it left is over.
func (d *duties) comesHome() {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.homeFirst.IsZero() {
		d.mu.homeFirst = now
		defer d.nudge() // the loop sleeps until something that was due before
	}
	d.mu.homeLast = now
}

// freed notes brokers that elections passed over (control.Liveness.Hindered) and that lead again like any other.
func (d *duties) freed(hindered []int32) {
	for _, id := range d.hindered {
		if !slices.Contains(hindered, id) {
			d.comesHome()
			break
		}
	}
	d.hindered = hindered
}

// take says what is due, and takes its reasons away.
func (d *duties) take(now time.Time) (offline, grow, preferred bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	offline, grow = d.mu.offline || !now.Before(d.offline), d.mu.grow || !now.Before(d.grow)
	d.mu.offline, d.mu.grow = false, false
	home := !d.mu.homeFirst.IsZero() && (now.Sub(d.mu.homeLast) >= d.settle || now.Sub(d.mu.homeFirst) >= settleAtMost*d.settle)
	if preferred = home || !now.Before(d.preferred); preferred {
		d.mu.homeFirst, d.mu.homeLast = time.Time{}, time.Time{}
	}
	return offline, grow, preferred
}

// next is the time until the first of them is due.
func (d *duties) next(now time.Time) time.Duration {
	first := now.Add(tickLatest)
	for _, t := range []time.Time{d.preferred, d.offline, d.grow, d.balance} {
		if t.Before(first) {
			first = t
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.mu.homeFirst.IsZero() {
		home := d.mu.homeLast.Add(d.settle)
		if most := d.mu.homeFirst.Add(settleAtMost * d.settle); most.Before(home) {
			home = most
		}
		if home.Before(first) {
			first = home
		}
	}
	return first.Sub(now)
}

// tick does what is due, verdicts first, since everything else elects among the brokers that live. It says when it
// wants to be called again.
func (c *Controller) tick(r *reign) time.Duration {
	if r.term.Ended() {
		return tickLatest
	}
	decisions, paused := c.pulses.decide(r.ahead)
	if paused && !c.proven(r) {
		return tickAgain
	}
	if err := c.judge(r, decisions); err != nil {
		c.complain("carry out a verdict", err)
		return tickAgain
	}
	c.due.freed(c.pulses.hindered())
	c.work(r, time.Now())
	wait := c.due.next(time.Now())
	if d, ok := c.pulses.next(r.ahead); ok {
		wait = min(wait, d)
	}
	return max(wait, time.Millisecond)
}

// judge carries verdicts out. The dead go together: see control.FenceAll.
func (c *Controller) judge(r *reign, decisions []control.Decision) error {
	var dead []control.Decision
	for len(decisions) > 0 && decisions[0].Verdict == control.VerdictFence {
		dead, decisions = append(dead, decisions[0]), decisions[1:]
	}
	if err := c.fence(r, dead); err != nil {
		return err
	}
	for _, d := range decisions {
		if err := c.execute(r, d); err != nil {
			return err
		}
	}
	return nil
}

// work does the duties that are due.
func (c *Controller) work(r *reign, now time.Time) {
	offline, grow, preferred := c.due.take(now)
	balance := !now.Before(c.due.balance)
	full := !now.Before(c.due.full) && c.pulses.anyFull()
	if !offline && !grow && !preferred && !balance && !full || r.term.Ended() {
		return
	}
	l := c.cluster(r).Layers()
	if offline {
		c.due.offline = now.Add(time.Duration(config.UncleanLeaderElectionIntervalMs.Of(l)) * time.Millisecond)
		c.sweep(r, "elect leaders where there are none", (*control.Cluster).SweepOffline)
	}
	if preferred {
		c.due.preferred = now.Add(time.Duration(config.LeaderImbalanceCheckIntervalSeconds.Of(l)) * time.Second)
		if config.AutoLeaderRebalanceEnable.Of(l) {
			c.sweep(r, "elect preferred leaders", (*control.Cluster).SweepPreferred)
		}
	}
	if full {
		c.due.full = now.Add(fullEvery)
		c.sweep(r, "move leaders off full disks", (*control.Cluster).SweepFull)
	}
	if grow {
		c.due.grow = now.Add(growEvery)
		c.growInternal(r)
	}
	if balance {
		c.due.balance = now.Add(time.Duration(config.BalancerIntervalSeconds.Of(l)) * time.Second)
		c.balance(r, config.BalancerEnable.Of(l))
	}
}

// complain says an error of something that will be tried again, the same one at most every second.
func (c *Controller) complain(what string, err error) {
	if err == nil || errors.Is(err, coord.ErrFenced) || errors.Is(err, coord.ErrClosed) {
		return
	}
	if text := what + err.Error(); text != c.due.said || time.Since(c.due.saidAt) > time.Second {
		c.due.said, c.due.saidAt = text, time.Now()
		c.log.Warn("controller: "+what, "error", err)
	}
}

// proven asks the store whether the term still holds, by an append of nothing.
func (c *Controller) proven(r *reign) bool {
	ctx, cancel := context.WithTimeout(c.ctx, storeTimeout)
	defer cancel()
	if _, err := c.o.Store.Append(ctx, r.term, nil); err != nil {
		r.term.End()
		return false
	}
	return true
}

// fence fences the brokers that are dead, or ask for it.
func (c *Controller) fence(r *reign, dead []control.Decision) error {
	if len(dead) == 0 {
		return nil
	}
	ids := make([]int32, len(dead)) // Decide speaks of the image's own registrations, so the epochs hold
	for i, d := range dead {
		ids[i] = d.ID
	}
	at := time.Now()
	plan, err := c.cluster(r).FenceAll(ids)
	if err != nil || plan.Len() == 0 {
		return err
	}
	if out := c.carryOut(r, plan); out.err != nil {
		return out.err
	}
	for _, d := range dead {
		c.log.Info("broker: "+d.Verdict.String(), "broker", d.ID, "because", d.Reason, "records", plan.Len(), "ms", time.Since(at).Milliseconds())
	}
	return nil
}

func (c *Controller) execute(r *reign, d control.Decision) error {
	cl := c.cluster(r)
	var plan control.Plan
	var err error
	switch d.Verdict {
	case control.VerdictLoseDirs:
		plan, err = cl.LoseDirs(d.ID, d.Epoch, d.Dirs)
	case control.VerdictDrain:
		plan, err = cl.Drain(d.ID, d.Epoch)
	case control.VerdictUnfence:
		plan, err = cl.Unfence(d.ID, d.Epoch)
	}
	if err != nil {
		return err
	}
	if plan.Len() == 0 {
		if d.Verdict == control.VerdictDrain {
			c.pulses.drained(d.ID, d.Epoch, r.ahead.Revision())
		}
		return nil
	}
	at := time.Now()
	if out := c.carryOut(r, plan); out.err != nil {
		return out.err
	}
	if d.Verdict == control.VerdictDrain {
		c.pulses.nudge() // what can move has moved: the next look says so
	}
	c.log.Info("broker: "+d.Verdict.String(), "broker", d.ID, "because", d.Reason, "records", plan.Len(), "ms", time.Since(at).Milliseconds())
	return nil
}

// sweep carries out one pass; a full one is followed by another.
func (c *Controller) sweep(r *reign, what string, pass func(*control.Cluster) (control.Plan, bool, error)) {
	for !r.term.Ended() {
		plan, more, err := pass(c.cluster(r))
		if err == nil && plan.Len() > 0 {
			err = c.carryOut(r, plan).err
		}
		if err != nil {
			c.complain(what, err)
			return
		}
		if plan.Len() > 0 {
			c.log.Info("controller: "+what, "partitions", plan.Len())
		}
		if !more || plan.Len() == 0 {
			return
		}
	}
}

// growInternal gives the topics of coordinators the replicas that a cluster begun with fewer brokers could not.
func (c *Controller) growInternal(r *reign) {
	plan, more := c.cluster(r).GrowInternal(growAtOnce)
	if plan.Len() > 0 {
		if err := c.carryOut(r, plan).err; err != nil {
			c.complain("grow the topics of coordinators", err)
			return
		}
		c.log.Debug("controller: topics of coordinators grow", "partitions", plan.Len())
	}
	if more {
		c.due.grow = time.Now().Add(growAgain) // as soon as those under way may have arrived
	}
}

// balance lets the balancer move a few partitions, once everything moved before is in place; on: it is wanted.
func (c *Controller) balance(r *reign, on bool) {
	cl := c.cluster(r)
	throttled := len(cl.Throttled()) > 0
	if !on && !throttled {
		return
	}
	if !cl.Calm() {
		if throttled {
			c.due.balance = time.Now().Add(c.due.soon()) // until what was moved has arrived
		}
		return
	}
	// What was moved has arrived: the throttles of that have done their duty, also those of a controller before.
	plan, err := cl.Unthrottle()
	if err == nil {
		err = c.carryOut(r, plan).err
	}
	if err != nil {
		c.complain("take the balancer's throttles away", err)
		return
	}
	if on {
		c.move(r)
	}
}

// move begins the balancer's next moves.
func (c *Controller) move(r *reign) {
	cl := c.cluster(r)
	moves := int(config.BalancerMaxMoves.Of(cl.Layers()))
	wishes := cl.Wishes(cl.Balance(control.Balancing{Leaving: cl.Leaving(), Bytes: c.o.Bytes, Moves: moves}), moves)
	if len(wishes) == 0 {
		// Everything is in its place; leaders may not be, where only the order of replicas has changed. Those of a
		// broker that has just returned come later: see settleFor.
		c.due.mu.Lock()
		returning := !c.due.mu.homeFirst.IsZero()
		c.due.mu.Unlock()
		if !returning && config.AutoLeaderRebalanceEnable.Of(cl.Layers()) {
			c.sweep(r, "elect preferred leaders", (*control.Cluster).SweepPreferred)
		}
		return
	}
	throttles, err := cl.Throttle(wishes, config.BalancerRate.Of(cl.Layers()))
	if err != nil {
		c.complain("throttle the balancer", err)
		return
	}
	plan, errs := cl.Reassign(wishes, true)
	for i, e := range errs {
		if e != nil {
			c.log.Warn("balancer: move refused", "topic", wishes[i].Topic, "partition", wishes[i].Partition, "error", e.Message)
		}
	}
	if plan.Len() == 0 {
		return
	}
	throttles.Steps = append(throttles.Steps, plan.Steps...)
	if err := c.carryOut(r, throttles).err; err != nil {
		c.complain("balance", err)
		return
	}
	c.due.balance = time.Now().Add(c.due.soon()) // they may be small: look soon whether they have arrived
	c.log.Info("balancer: moving", "partitions", plan.Len())
}
