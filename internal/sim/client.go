package sim

import (
	"slices"
	"strconv"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
)

const producersOfEach = 2

// client is one idempotent producer of one partition: one record at a time, sent again until somebody
// confirms it.
type client struct {
	w     *World
	n     int32
	pid   int64
	seq   int32
	value uint64
	try   int
	floor int64 // highest confirmed offset of the partition when the record was first sent
	last  det.Instant
}

// work starts the clients: producers, consumers, and somebody who asks what the end of the log is.
func (w *World) work() {
	for n := range w.parts {
		for range producersOfEach {
			c := &client{w: w, n: int32(n), pid: int64(1000 + len(w.clients)), last: w.now}
			w.clients = append(w.clients, c)
			w.after(w.between(60, 120), c.fresh)
		}
	}
	w.after(ms(150), w.consume)
}

func (c *client) fresh() {
	c.w.n++
	c.value = c.w.n
	c.floor = c.w.parts[c.n].acks
	c.send()
}

// target is whom a client takes for the leader: whoever says that it leads, zombies included, or anybody.
func (w *World) target(n int32) *broker {
	b := w.brokers[w.rand.Intn(len(w.brokers))]
	for _, x := range w.brokers {
		if x.up && x.replicas[n] != nil && x.replicas[n].leader != nil && w.rand.Intn(3) > 0 {
			b = x
		}
	}
	return b
}

func (c *client) send() {
	w := c.w
	c.try++
	try, seq, value := c.try, c.seq, c.value
	b := w.target(c.n)
	done := false
	answer := func(a reply) {
		if c.seq != seq || done {
			return
		}
		switch {
		case a.ok:
			done = true
			c.confirmed(a)
		case c.try == try:
			done = true
			w.Stats.Retried++
			w.after(w.between(5, 30), func() {
				if c.seq == seq && c.try == try {
					c.send()
				}
			})
		}
	}
	w.after(w.between(0, 3), func() {
		w.deliver(b.id, func() {
			r := b.replicas[c.n]
			if r == nil {
				answer(reply{})
				return
			}
			if p := w.store.topic().Partitions[c.n]; r.leader != nil && r.epoch < p.LeaderEpoch {
				w.Stats.Zombie++
			}
			r.produced(value, c.pid, seq, func(a reply) {
				if w.rand.Intn(30) > 0 { // or the answer is lost
					w.after(w.between(0, 3), func() { answer(a) })
				}
			})
		})
	})
	w.after(w.between(100, 200), func() {
		if c.seq == seq && c.try == try && !done {
			w.Stats.Retried++
			c.send()
		}
	})
}

func (c *client) confirmed(a reply) {
	if a.e.pid != c.pid || a.e.seq != c.seq {
		c.w.fail("one value per offset", "producer %d sequence %d was confirmed at %d, where %v is", c.pid, c.seq, a.offset, a.e)
	}
	if a.offset < c.floor && !c.w.parts[c.n].unclean {
		c.w.fail("offsets follow real time", "producer %d sequence %d was confirmed at %d, when it was sent %d had been", c.pid, c.seq, a.offset, c.floor-1)
	}
	c.seq++
	c.last = c.w.now
	pause := c.w.between(5, 30)
	if c.w.rand.Intn(40) == 0 {
		pause = c.w.between(20, 300)
	}
	c.w.after(pause, c.fresh)
}

// consume reads somewhere, at any replica.
func (w *World) consume() {
	w.after(w.between(10, 40), w.consume)
	b := w.brokers[w.rand.Intn(len(w.brokers))]
	r := b.replicas[w.rand.Intn(len(w.parts))]
	if !b.up || r == nil || b.frozen > w.now {
		return
	}
	end := r.log.End()
	r.consumed(max(r.log.Start(), end-int64(w.rand.Intn(20))))
}

// delete asks the leader to delete records.
func (w *World) delete() {
	t := w.parts[w.rand.Intn(len(w.parts))]
	r := w.target(t.n).replicas[t.n]
	if r == nil || r.leader == nil || !r.b.up || r.b.frozen > w.now || r.leader.HW() <= r.log.Start() {
		return
	}
	o := r.log.Start() + 1 + int64(w.rand.Intn(int(r.leader.HW()-r.log.Start())))
	w.tell("client: delete records of %d below %d at broker %d", t.n, o, r.b.id)
	r.deleteRecords(o, func() {
		w.Stats.Deleted++
		t.deleted = max(t.deleted, o)
		w.tell("client: records of %d below %d are deleted", t.n, o)
	})
}

// admin is an operator's request to the controller.
func (w *World) admin(plan func(*control.Cluster) (control.Plan, error), done func()) {
	for _, b := range w.brokers {
		if b.up && b.frozen <= w.now && b.ctl.serving {
			b.ctl.do(op{plan: plan, done: func(_ int64, err error) {
				if err == nil && done != nil {
					done()
				}
			}})
			return
		}
	}
}

// reassign gives a partition other replicas: fewer, more, another order.
func (w *World) reassign() {
	n := w.rand.Intn(len(w.parts))
	size := max(int(w.o.MinISR), w.o.Factor-w.rand.Intn(2))
	var target []int32
	for len(target) < size {
		if id := int32(w.rand.Intn(len(w.brokers))); !slices.Contains(target, id) {
			target = append(target, id)
		}
	}
	w.admin(func(cl *control.Cluster) (control.Plan, error) {
		p, errs := cl.Reassign([]control.Reassignment{{Topic: topicName, Partition: int32(n), Target: target}}, true)
		if errs[0] != nil {
			return control.Plan{}, errs[0]
		}
		return p, nil
	}, func() { w.tell("operator: partition %d to %v", n, target) })
}

// minISR changes min.insync.replicas.
func (w *World) minISR() {
	value := strconv.Itoa(1 + w.rand.Intn(w.o.Factor))
	r := meta.Resource{Type: meta.ResourceTopic, Name: topicName}
	if w.shape.ELR {
		r = meta.Resource{Type: meta.ResourceBroker}
	}
	w.admin(func(cl *control.Cluster) (control.Plan, error) {
		return alterConfig(cl, r, config.MinInsyncReplicas.Name, value)
	}, func() {
		w.Stats.MinChanges++
		w.tell("operator: min.insync.replicas %s", value)
	})
}

// prefer moves leaderships, as an operator would.
func (w *World) prefer() {
	w.admin(func(cl *control.Cluster) (control.Plan, error) {
		p, _, err := cl.SweepPreferred()
		return p, err
	}, nil)
}
