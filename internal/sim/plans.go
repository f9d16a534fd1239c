package sim

import (
	"encoding/binary"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/isr"
	"github.com/milena-mq/milena/internal/meta"
)

// plans lets package control decide in place of the model.
type plans struct {
	c      *controller
	static *config.Static
	im     *meta.Image
	ids    uint64
}

func (p *plans) id() (u meta.UUID) {
	p.ids++
	binary.BigEndian.PutUint64(u[8:], p.ids)
	return u
}

func (p *plans) cluster() *control.Cluster {
	return &control.Cluster{Image: p.im, Static: p.static, NewID: p.id, Rand: p.c.w.rand.Intn}
}

// begin makes the cluster, its brokers and the topic.
func (p *plans) begin() {
	p.do(p.cluster().Bootstrap(""))
	r := p.im.Cluster()
	r.Features = map[string]int16{control.FeatureELR: 0}
	if p.c.w.o.ELR {
		r.Features[control.FeatureELR] = 1
	}
	p.do(control.Plan{Steps: [][]meta.Change{{meta.PutCluster(r)}}}, nil)
	for id := range p.c.regs {
		p.do(p.cluster().Register(p.registration(int32(id))))
		p.do(p.cluster().Unfence(int32(id), p.im.Broker(int32(id)).Epoch))
	}
	min := string(rune('0' + p.c.w.o.MinISR))
	plan, res := p.cluster().CreateTopics([]control.NewTopic{{Name: topic.Topic, Partitions: -1, Factor: -1,
		Assignment: map[int32][]int32{0: p.c.part.Replicas}, Configs: map[string]*string{"min.insync.replicas": &min}}}, false)
	if res[0].Err != nil {
		p.c.w.fail("the controller plans", "create: %v", res[0].Err)
		return
	}
	p.do(plan, nil)
}

func (p *plans) registration(id int32) control.Registration {
	return control.Registration{ID: id, Incarnation: p.id(), PreviousEpoch: -1,
		Endpoints: []meta.Endpoint{{Listener: "P", Host: "h", Port: 1, Protocol: "PLAINTEXT"}}}
}

// do carries a plan out and shows the model's fields what has become of it.
func (p *plans) do(plan control.Plan, err error) {
	c := p.c
	if err != nil {
		c.w.fail("the controller plans", "%v", err)
		return
	}
	for _, step := range plan.Steps {
		c.version++
		im, _, err := p.im.Apply(step, c.version)
		if err != nil {
			c.w.fail("the controller plans", "%v", err)
			return
		}
		p.im = im
	}
	for _, b := range p.im.Brokers() {
		c.regs[b.ID].epoch, c.regs[b.ID].fenced = b.Epoch, b.Fenced
	}
	t := p.im.Topic(topic.Topic)
	if t == nil || t.Partitions[0] == c.part {
		return
	}
	if t.Partitions[0].LeaderEpoch != c.part.LeaderEpoch {
		c.w.Stats.Elections++
	}
	c.part = t.Partitions[0]
	c.w.tell("control: leader %d epoch %d isr %v elr %v partition epoch %d", c.part.Leader, c.part.LeaderEpoch, c.part.ISR, c.part.ELR, c.part.PartitionEpoch)
}

// alter is AlterPartition.
func (p *plans) alter(from int32, epoch int64, pr *isr.Proposal) int16 {
	ch := control.ISRChange{Topic: p.im.Topic(topic.Topic).ID, LeaderEpoch: pr.LeaderEpoch, PartitionEpoch: pr.PartitionEpoch}
	for _, m := range pr.ISR {
		ch.ISR = append(ch.ISR, control.ISRMember{ID: m.ID, Epoch: m.Epoch})
	}
	plan, out, err := p.cluster().AlterPartition(from, epoch, []control.ISRChange{ch})
	if err != nil {
		return 77 // STALE_BROKER_EPOCH is the only one
	}
	if out[0].Err != nil {
		return out[0].Err.Code.Code
	}
	had := p.c.part.ISR
	p.do(plan, nil)
	p.c.count(had)
	return 0
}
