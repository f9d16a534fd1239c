package partition

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/isr"
	"github.com/milena-mq/milena/internal/meta"
)

// view is what a Set derives from an image for all its partitions; written under apply.
type view struct {
	// present says that the image shows this very process under its node id. An image that is older than our
	// registration may name us as leader of an epoch in which our former incarnation wrote records that a power
	// cut took: leading it again would give their offsets to other records (invariant I2).
	present bool
	// unfenced says that it also takes part. A registration comes in several steps: the first one shows the new
	// incarnation, fenced, beside the old leader epochs.
	unfenced bool
	brokers  []isr.Broker
	lag      time.Duration
}

// look reads the view out of an image.
func (s *Set) look(im *meta.Image) view {
	free := s.o.Incarnation.IsZero()
	v := view{present: free, unfenced: free}
	for _, b := range im.Brokers() {
		v.brokers = append(v.brokers, isr.Broker{ID: b.ID, Epoch: b.Epoch, Active: !b.Fenced && !b.Draining})
		if b.ID == s.o.NodeID && b.Incarnation == s.o.Incarnation {
			v.present, v.unfenced = true, !b.Fenced || free
		}
	}
	v.lag = time.Duration(min(config.ReplicaLagTimeMaxMs.Of(*s.broker.Load()), int64(1<<62/time.Millisecond))) * time.Millisecond
	return v
}

func (s *Set) instant() det.Instant { return det.At(s.o.Clock()) }

// assignment is a partition's record as the machine wants it.
func (v *view) assignment(rec *meta.Partition, minISR int32) isr.Assignment {
	return isr.Assignment{
		Replicas: rec.Replicas, ISR: rec.ISR, LeaderEpoch: rec.LeaderEpoch,
		PartitionEpoch: rec.PartitionEpoch, MinISR: minISR, Lag: v.lag, Brokers: v.brokers,
	}
}

// role is what a broker does for a partition.
type role uint8

const (
	roleNone role = iota
	roleLead
	roleFollow
)

func (v *view) role(self int32, rec *meta.Partition) role {
	switch {
	case !v.present || rec.Leader < 0 || rec.Leader == self && !v.unfenced:
		return roleNone
	case rec.Leader == self:
		return roleLead
	}
	return roleFollow
}

func (p *Partition) roleLocked() role {
	switch {
	case p.mu.leader != nil:
		return roleLead
	case p.mu.follower != nil:
		return roleFollow
	}
	return roleNone
}

// assign carries out what the image says about the partition; changed says that the role or the epoch is
// another one now. self is this broker. Set.carry does the same for many, with one sync for all.
func (p *Partition) assign(self int32, v *view, rec *meta.Partition) (changed bool, err error) {
	want, changed := p.resign(self, v, rec)
	if !changed {
		return false, nil
	}
	if want == roleLead {
		if err := p.log.AssignEpoch(rec.LeaderEpoch, p.log.End()); err != nil {
			p.set.storageError(p, err)
			return true, err
		}
	}
	p.take(self, v, rec, want)
	return true, nil
}

// resign ends the role that the partition has, unless the image leaves it as it is. It has no role then, until take.
func (p *Partition) resign(self int32, v *view, rec *meta.Partition) (want role, changed bool) {
	to := v.assignment(rec, p.topic.cfg.Load().MinISR)
	want = v.role(self, rec)
	p.app.Lock()
	defer p.app.Unlock()
	p.mu.Lock()
	p.mu.elr = rec.ELR
	if p.mu.epoch == rec.LeaderEpoch && p.roleLocked() == want || p.mu.gone != nil {
		p.stepAndUnlock(isr.In{Kind: isr.Assigned, To: to})
		return want, false
	}
	elected := p.mu.leader != nil && rec.Leader >= 0 && rec.Leader != self
	// The old role ends first: an append of the old epoch must not slip in behind the new epoch's start.
	p.mu.leader, p.mu.follower, p.mu.epoch = nil, nil, rec.LeaderEpoch
	p.mu.starts, p.mu.told = nil, nil
	p.app.guards = nil // a marker that another leader writes meanwhile is not seen by them
	due := p.endLocked(elected)
	p.mu.Unlock()
	if elected {
		due = sendLater(due)
	}
	endAll(due, kerr.NotLeaderForPartition)
	return want, true
}

// sendLater ends the waits of producers after handover, by when the new leader has heard that it leads: sent away at once, a
// producer comes to it too early and rests for its backoff. The waits of this broker's own coordinators are returned:
// they have to let go now.
func sendLater(due []wait) (now []wait) {
	var later []wait
	for _, w := range due {
		if w.w == nil {
			now = append(now, w)
		} else {
			later = append(later, w)
		}
	}
	if len(later) > 0 {
		time.AfterFunc(handover, func() { endAll(later, kerr.NotLeaderForPartition) })
	}
	return now
}

// take begins the new role. The epoch of a leader is durable already.
func (p *Partition) take(self int32, v *view, rec *meta.Partition, want role) {
	p.app.Lock()
	defer p.app.Unlock()
	switch want {
	case roleLead:
		p.lead(self, v.assignment(rec, p.topic.cfg.Load().MinISR))
	case roleFollow:
		p.follow(rec)
	}
}

// lead begins a leader epoch. It runs under app.
func (p *Partition) lead(self int32, to isr.Assignment) {
	end := p.log.End()
	flushed := p.durableEnd()
	l := isr.NewLeader(self, to, p.log.HW(), flushed, end)
	p.mu.Lock()
	p.mu.leader = l
	p.mu.sizes = sizes{}
	p.start.Store(end)
	p.hw.Store(l.HW())
	p.stepAndUnlock(isr.In{Kind: isr.Tick})
	if flushed < end {
		p.dir.flusher.mark(p)
	}
}

// durableEnd is up to where the log counts as durable: the disk's word, or the log end for a topic that
// does not wait for its disk (flush.messages above 1).
func (p *Partition) durableEnd() int64 {
	if p.topic.cfg.Load().Durable() {
		return p.log.Flushed()
	}
	return p.log.End()
}

// stepAndUnlock steps the leader, if there is one, and releases mu before anybody is told.
func (p *Partition) stepAndUnlock(in isr.In) {
	l := p.mu.leader
	if l == nil {
		p.mu.Unlock()
		return
	}
	due := p.raisedLocked(l.Step(p.set.instant(), in), nil)
	var late []wait
	if in.Kind == isr.Assigned && l.BelowMin() {
		// The high watermark stands still until the set has grown again. A producer learns now that its record
		// is written and not replicated enough; sent again, an idempotent one is not written twice.
		late = p.mu.commit.clients(nil)
	}
	if in.Kind == isr.Assigned && !p.mu.low.empty() {
		due = p.mu.low.due(p.lowLocked(), due) // a replica that is gone holds nothing up
	}
	p.mu.Unlock()
	endAll(due, nil)
	endAll(late, kerr.NotEnoughReplicasAfterAppend)
	p.publishHW()
}

// refresh tells the leader of changed brokers, or of a changed configuration.
func (p *Partition) refresh(v *view) {
	p.mu.Lock()
	l := p.mu.leader
	if l == nil || p.mu.gone != nil {
		p.mu.Unlock()
		return
	}
	to := l.Assignment()
	to.MinISR, to.Lag, to.Brokers = p.topic.cfg.Load().MinISR, v.lag, v.brokers
	p.stepAndUnlock(isr.In{Kind: isr.Assigned, To: to})
}

// tick tells the leader that time has passed.
func (p *Partition) tick() {
	p.mu.Lock()
	if l := p.mu.leader; l == nil || p.mu.gone != nil || l.Wake() > p.set.instant() {
		p.mu.Unlock()
		return
	}
	p.stepAndUnlock(isr.In{Kind: isr.Tick})
}
