package sim

import (
	"errors"
	"slices"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
)

// controller is what package controller does on one broker: while the broker leads the store's engine it
// carries out plans of package control, one after the other, each step under the token of its term.
type controller struct {
	b       *broker
	term    int   // counts the terms tried, so that answers to an earlier one are known
	token   int64 // of the term; 0: none
	serving bool  // the own image shows the take-over
	ahead   *meta.Image
	queue   []op
	busy    bool
	asking  bool // for the lead
	offline int  // ticks to the next sweep
}

// op is a wish on its way through the controller. done hears the revision from which on an image shows it.
type op struct {
	plan func(*control.Cluster) (control.Plan, error)
	done func(rev int64, err error)
}

var errNotController = errors.New("not the controller")

func (c *controller) cluster() *control.Cluster {
	return &control.Cluster{Image: c.ahead, Static: c.b.w.store.static, NodeID: c.b.id, NewID: c.b.w.id, Rand: c.b.w.rand.Intn}
}

// lead is the engine's word that this broker leads it.
func (c *controller) lead() {
	if c.token != 0 || c.asking || c.b.im == nil {
		return
	}
	c.asking = true
	c.term++
	term, life := c.term, c.b.life
	s := c.b.w.store
	c.b.w.sendOnce(c.b.id, -1, func() {
		token, ok := s.take(c.b.id, c.b.uuid)
		c.b.w.sendOnce(-1, c.b.id, func() {
			if c.b.life != life || c.term != term {
				return
			}
			c.asking = false
			if ok {
				c.token = token
				c.b.await(token, func() { c.serve(token) })
			}
		})
	})
	c.b.local(200, func() {
		if c.term == term && c.token == 0 {
			c.asking = false
		}
	})
}

// serve begins when the own image is complete up to the take-over.
func (c *controller) serve(token int64) {
	if c.token != token {
		return
	}
	c.ahead, c.serving, c.busy, c.offline = c.b.im, true, false, 0
	c.b.w.tell("broker %d: controller, token %d", c.b.id, token)
	c.do(op{plan: func(cl *control.Cluster) (control.Plan, error) { return cl.Sweep(), nil }})
	c.tick(token)
}

// lost ends the term; whoever waits is told.
func (c *controller) lost() {
	if c.token != 0 {
		c.b.w.tell("broker %d: no longer controller", c.b.id)
	}
	c.token, c.serving, c.asking = 0, false, false
	c.term++
	q := c.queue
	c.queue, c.busy = nil, false
	for _, o := range q {
		if o.done != nil {
			o.done(0, errNotController)
		}
	}
}

// do takes a wish.
func (c *controller) do(o op) {
	if !c.serving {
		if o.done != nil {
			o.done(0, errNotController)
		}
		return
	}
	c.queue = append(c.queue, o)
	c.run()
}

func (c *controller) run() {
	if c.busy || !c.serving || len(c.queue) == 0 {
		return
	}
	c.busy = true
	o := c.queue[0]
	plan, err := o.plan(c.cluster())
	finish := func(err error) {
		c.queue, c.busy = c.queue[1:], false
		if o.done != nil {
			o.done(c.ahead.Revision(), err)
		}
		c.run()
	}
	if err != nil {
		finish(err)
		return
	}
	c.carry(plan.Steps, func() { finish(nil) })
}

// carry appends steps in order. A refusal or no answer ends the term: the next one begins by looking at what
// is there.
func (c *controller) carry(steps [][]meta.Change, done func()) {
	if len(steps) == 0 {
		done()
		return
	}
	term, token, life := c.term, c.token, c.b.life
	current := func() bool { return c.b.life == life && c.term == term && c.token == token }
	answered := false
	s := c.b.w.store
	c.b.w.sendOnce(c.b.id, -1, func() {
		rev, ok := s.append(token, steps[0])
		c.b.w.sendOnce(-1, c.b.id, func() {
			if !current() || answered {
				return
			}
			answered = true
			if !ok {
				c.lost()
				return
			}
			im, _, err := c.ahead.Apply(steps[0], rev)
			if err != nil {
				c.b.w.fail("the controller's own picture is right", "broker %d: %v", c.b.id, err)
				return
			}
			c.ahead = im
			c.carry(steps[1:], done)
		})
	})
	c.b.local(150, func() {
		if current() && !answered {
			c.b.w.Stats.Unknown++
			c.lost()
		}
	})
}

// tick acts on the verdicts about the brokers, and elects where there is no leader.
func (c *controller) tick(token int64) {
	if c.token != token || !c.serving {
		return
	}
	if len(c.queue) == 0 {
		now := c.b.w.now.UnixMilli()
		c.b.live.Sync(c.ahead, now)
		c.judge(c.b.live.Decide(c.ahead, now))
		if c.offline--; c.offline < 0 {
			c.offline = 8
			c.do(op{plan: func(cl *control.Cluster) (control.Plan, error) {
				p, _, err := cl.SweepOffline()
				return p, err
			}})
		}
	}
	c.b.local(15, func() { c.tick(token) })
}

// judge carries verdicts out. The dead go together: see control.FenceAll.
func (c *controller) judge(ds []control.Decision) {
	var dead []int32
	for _, d := range ds {
		if d.Verdict == control.VerdictFence {
			dead = append(dead, d.ID)
			c.b.w.tell("controller %d: fences broker %d: %s", c.b.id, d.ID, d.Reason)
		}
	}
	if len(dead) > 0 {
		c.do(op{plan: func(cl *control.Cluster) (control.Plan, error) { return cl.FenceAll(dead) }})
	}
	for _, d := range ds {
		if d.Verdict != control.VerdictFence {
			c.verdict(d)
		}
	}
}

func (c *controller) verdict(d control.Decision) {
	empty := false
	c.do(op{
		plan: func(cl *control.Cluster) (p control.Plan, err error) {
			switch d.Verdict {
			case control.VerdictLoseDirs:
				p, err = cl.LoseDirs(d.ID, d.Epoch, d.Dirs)
			case control.VerdictDrain:
				p, err = cl.Drain(d.ID, d.Epoch)
			case control.VerdictUnfence:
				p, err = cl.Unfence(d.ID, d.Epoch)
			}
			empty = err == nil && p.Len() == 0
			return p, err
		},
		done: func(rev int64, err error) {
			if err == nil && !empty {
				c.b.w.tell("controller %d: %v broker %d: %s", c.b.id, d.Verdict, d.ID, d.Reason)
			}
			if err == nil && empty && d.Verdict == control.VerdictDrain {
				c.b.live.Drained(d.ID, d.Epoch, rev)
			}
		},
	})
}

// register is BrokerRegistration; answer hears the broker epoch, 0 for a refusal.
func (c *controller) register(from *broker, life int, r control.Registration, answer func(int64)) {
	if from.life != life {
		return // of a process that has ended since; its successor's disk may be another one
	}
	if !c.serving || c.b.live.CheckRegistration(c.ahead, r, c.b.w.now.UnixMilli()) != nil {
		answer(0)
		return
	}
	c.do(op{
		plan: func(cl *control.Cluster) (control.Plan, error) {
			if from.life != life {
				return control.Plan{}, errNotController
			}
			if b := cl.Image.Broker(r.ID); b != nil && b.Incarnation == r.Incarnation {
				return control.Plan{}, nil // its answer was lost
			}
			return cl.Register(r)
		},
		done: func(rev int64, err error) {
			if err != nil {
				answer(0)
				return
			}
			c.b.await(rev, func() {
				if b := c.b.im.Broker(r.ID); b != nil && b.Incarnation == r.Incarnation {
					answer(b.Epoch)
				}
			})
		},
	})
}

// alter is AlterPartition for one partition; answer hears the error code, and -1 for no answer at all.
func (c *controller) alter(from int32, epoch int64, ch control.ISRChange, answer func(code int16)) {
	var out []control.ISRAnswer
	c.do(op{
		plan: func(cl *control.Cluster) (p control.Plan, err error) {
			p, out, err = cl.AlterPartition(from, epoch, []control.ISRChange{ch})
			return p, err
		},
		done: func(rev int64, err error) {
			var ce *control.Error
			switch {
			case errors.As(err, &ce):
				answer(ce.Code.Code)
			case err != nil:
				answer(-1)
			case out[0].Err != nil:
				answer(out[0].Err.Code.Code)
			default:
				c.b.await(rev, func() { answer(0) })
			}
		},
	})
}

// decided looks at each change of a partition's record.
func (w *World) decided(n int32, old, p *meta.Partition) {
	w.tell("partition %d: replicas %v leader %d epoch %d isr %v elr %v %v partition epoch %d", n, p.Replicas, p.Leader, p.LeaderEpoch, p.ISR, p.ELR, p.LastKnownELR, p.PartitionEpoch)
	switch {
	case p.LeaderEpoch < old.LeaderEpoch || p.PartitionEpoch <= old.PartitionEpoch:
		w.fail("epochs never fall", "partition %d: %+v, then %+v", n, *old, *p)
	case p.Leader != old.Leader && p.LeaderEpoch == old.LeaderEpoch:
		w.fail("one leader per epoch", "partition %d: %+v, then %+v", n, *old, *p)
	case p.Leader != meta.NoLeader && !slices.Contains(p.ISR, p.Leader):
		w.fail("the leader is in sync", "partition %d: leader %d, isr %v", n, p.Leader, p.ISR)
	}
	if p.LeaderEpoch != old.LeaderEpoch && p.Leader != meta.NoLeader {
		w.Stats.Elections++
	}
	t := w.parts[n]
	for _, id := range p.ISR {
		if !slices.Contains(old.ISR, id) {
			w.Stats.Expands++
			t.joined(id)
		}
	}
	if len(p.ISR) < len(old.ISR) {
		w.Stats.Shrinks++
	}
	if !slices.Equal(p.Replicas, old.Replicas) {
		w.Stats.Reassigned++
	}
}
