package sim

import (
	"slices"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/isr"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/twmb/franz-go/pkg/kerr"
)

// controller is the model of package control: one that never fails, behind the same network.
type controller struct {
	w       *World
	version int64
	part    *meta.Partition
	regs    []registration
	plans   *plans // nil: the model decides
}

type registration struct {
	epoch       int64
	incarnation int
	fenced      bool
	beat        det.Instant
}

func newController(w *World) *controller {
	c := &controller{w: w, part: &meta.Partition{Leader: meta.NoLeader}}
	for id := range w.o.Brokers {
		c.part.Replicas = append(c.part.Replicas, int32(id))
		c.part.ISR = append(c.part.ISR, int32(id))
		c.regs = append(c.regs, registration{fenced: true})
	}
	if w.o.Plans {
		st, err := config.Parse([]string{"node.id=0"}, nil, nil)
		if err != nil {
			w.fail("the controller plans", "%v", err)
			return c
		}
		c.plans = &plans{c: c, static: st, im: meta.Empty()}
		c.plans.begin()
	}
	return c
}

func (c *controller) active(id int32) bool { return !c.regs[id].fenced }

func (c *controller) image() image {
	im := image{version: c.version, part: c.part}
	for id, r := range c.regs {
		im.brokers = append(im.brokers, isr.Broker{ID: int32(id), Epoch: r.epoch, Active: !r.fenced})
	}
	return im
}

// publish sends the newest image to everybody.
func (c *controller) publish() {
	im := c.image()
	for _, b := range c.w.brokers {
		b.receive(im)
	}
}

func (c *controller) register(id int32, incarnation int) int64 {
	r := &c.regs[id]
	if r.incarnation >= incarnation {
		return r.epoch
	}
	if incarnation != c.w.brokers[id].life {
		return 0 // of a process that has ended since; its successor's disk may be another one
	}
	c.version++
	c.w.brokers[id].replaced = false
	if c.plans != nil {
		r.incarnation, r.beat = incarnation, c.w.now
		c.plans.do(c.plans.cluster().Register(c.plans.registration(id)))
		c.publish()
		return r.epoch
	}
	*r = registration{epoch: c.version, incarnation: incarnation, fenced: true, beat: c.w.now}
	c.leave(id)
	c.publish()
	return r.epoch
}

func (c *controller) heartbeat(id int32, epoch, seen int64) {
	r := &c.regs[id]
	if r.epoch != epoch || c.w.brokers[id].replaced {
		return // replaced: the heartbeat of a broker that was unregistered since
	}
	r.beat = c.w.now
	if r.fenced && seen >= epoch {
		if c.plans != nil {
			c.plans.do(c.plans.cluster().Unfence(id, epoch))
			c.publish()
			return
		}
		r.fenced = false
		c.version++
		c.w.tell("controller: %d unfenced", id)
		c.elect(*c.part)
		c.publish()
	}
}

func (c *controller) tick() {
	for id := range c.regs {
		if r := &c.regs[id]; !r.fenced && c.w.now.Sub(r.beat) > ms(250) {
			if c.plans != nil {
				c.plans.do(c.plans.cluster().Fence(int32(id), r.epoch))
				c.publish()
				continue
			}
			r.fenced = true
			c.version++
			c.w.tell("controller: %d fenced", id)
			c.leave(int32(id))
			c.publish()
		}
	}
	c.w.after(ms(25), c.tick)
}

// unregister is an operator's word that a broker's disk is gone; false when the partition cannot do
// without it.
func (c *controller) unregister(id int32) bool {
	if !slices.ContainsFunc(c.part.ISR, func(x int32) bool { return x != id }) {
		// Also when nobody is in sync: with ELR it may be the last known leader, and its disk the only copy.
		return false
	}
	if c.plans != nil {
		if !c.regs[id].fenced {
			c.plans.do(c.plans.cluster().Fence(id, c.regs[id].epoch))
			c.publish()
		}
		return true
	}
	c.regs[id].fenced = true
	c.version++
	c.w.tell("controller: %d unregistered", id)
	c.leave(id)
	c.publish()
	return true
}

// leave takes a broker out of the set; the last member stays, without leader.
func (c *controller) leave(id int32) {
	p := *c.part
	if rest := slices.DeleteFunc(slices.Clone(p.ISR), func(x int32) bool { return x == id }); len(rest) > 0 {
		p.ISR = rest
	}
	if p.Leader == id {
		p.Leader = meta.NoLeader
		p.LeaderEpoch++
	}
	c.elect(p)
}

// elect fills an empty place and writes the record if anything has changed.
func (c *controller) elect(p meta.Partition) {
	if p.Leader == meta.NoLeader {
		if l := c.w.o.Rules.Elect(&p, c.active); l >= 0 {
			p.Leader = l
			p.LeaderEpoch++
			if !slices.Contains(p.ISR, l) {
				p.ISR = []int32{l}
			}
			c.w.Stats.Elections++
		}
	}
	if p.Leader != c.part.Leader || p.LeaderEpoch != c.part.LeaderEpoch || !slices.Equal(p.ISR, c.part.ISR) {
		c.write(p)
	}
}

func (c *controller) write(p meta.Partition) {
	p.PartitionEpoch++
	c.version++
	c.part = &p
	c.w.tell("controller: leader %d epoch %d isr %v partition epoch %d", p.Leader, p.LeaderEpoch, p.ISR, p.PartitionEpoch)
	if p.Leader != meta.NoLeader && !slices.Contains(p.ISR, p.Leader) {
		c.w.fail("the leader is in sync", "leader %d, isr %v", p.Leader, p.ISR)
	}
}

func electISR(p *meta.Partition, alive func(int32) bool) int32 {
	for _, id := range p.Replicas {
		if slices.Contains(p.ISR, id) && alive(id) {
			return id
		}
	}
	return meta.NoLeader
}

// prefer moves the leadership to another member of the set, as an operator or a shutdown would.
func (c *controller) prefer() {
	if c.plans != nil {
		plan, _, err := c.plans.cluster().SweepPreferred()
		c.plans.do(plan, err)
		c.publish()
		return
	}
	for _, id := range c.part.ISR {
		if id != c.part.Leader && c.part.Leader != meta.NoLeader && c.active(id) {
			p := *c.part
			p.Leader, p.LeaderEpoch = id, p.LeaderEpoch+1
			c.w.Stats.Elections++
			c.write(p)
			c.publish()
			return
		}
	}
}

// alter is AlterPartition with the checks of kafka.md 4.2 in their order.
func (c *controller) alter(from int32, epoch int64, p *isr.Proposal) (int16, image) {
	if c.plans != nil {
		if code := c.plans.alter(from, epoch, p); code != 0 {
			if code == kerr.IneligibleReplica.Code {
				c.w.Stats.Stale++
			}
			return code, image{}
		}
		im := c.image()
		c.publish()
		return 0, im
	}
	cur := c.part
	ids := make([]int32, 0, len(p.ISR))
	for _, m := range p.ISR {
		ids = append(ids, m.ID)
	}
	switch {
	case c.regs[from].epoch != epoch:
		return kerr.StaleBrokerEpoch.Code, image{}
	case p.LeaderEpoch > cur.LeaderEpoch || p.PartitionEpoch > cur.PartitionEpoch:
		return kerr.NotController.Code, image{}
	case p.LeaderEpoch < cur.LeaderEpoch:
		return kerr.FencedLeaderEpoch.Code, image{}
	case cur.Leader != from || !slices.Contains(ids, from):
		return kerr.InvalidRequest.Code, image{}
	case p.PartitionEpoch < cur.PartitionEpoch:
		return kerr.InvalidUpdateVersion.Code, image{}
	}
	for _, m := range p.ISR {
		if r := c.regs[m.ID]; r.fenced || m.Epoch >= 0 && m.Epoch != r.epoch {
			c.w.Stats.Stale++
			return kerr.IneligibleReplica.Code, image{}
		}
	}
	np := *cur
	np.ISR = ids
	c.write(np)
	c.count(cur.ISR)
	im := c.image()
	c.publish()
	return 0, im
}

// count notes what a granted proposal has changed, and checks who joined.
func (c *controller) count(had []int32) {
	for _, id := range c.part.ISR {
		if !slices.Contains(had, id) {
			c.w.joined(id)
			c.w.Stats.Expands++
		}
	}
	if len(c.part.ISR) < len(had) {
		c.w.Stats.Shrinks++
	}
}
