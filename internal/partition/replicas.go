package partition

import (
	"slices"

	"github.com/milena-mq/milena/internal/config"
)

// startedLocked notes a follower's log start and takes out whoever waited for the low watermark.
func (p *Partition) startedLocked(replica int32, start int64, due []wait) []wait {
	if start < 0 || p.mu.starts[replica] == start {
		if _, ok := p.mu.starts[replica]; ok || start < 0 {
			return due
		}
	}
	if p.mu.starts == nil {
		p.mu.starts = make(map[int32]int64, 2)
	}
	p.mu.starts[replica] = start
	return p.mu.low.due(p.lowLocked(), due)
}

// lowLocked is the low watermark: the smallest log start of the live replicas (kafka.md 3.10). A replica whose
// broker is not active does not hold it, unless it might lead next: in sync (it shuts down) or eligible (ELR, KIP-966).
// Else what is confirmed as deleted could be shown again. One that has not told its start yet counts as zero.
func (p *Partition) lowLocked() int64 {
	low := p.log.Start()
	if p.mu.leader == nil {
		return low
	}
	to := p.mu.leader.Assignment()
	for _, id := range to.Replicas {
		if id == p.set.o.NodeID {
			continue
		}
		for _, b := range to.Brokers {
			if b.ID == id && (b.Active || slices.Contains(to.ISR, id) || slices.Contains(p.mu.elr, id)) {
				low = min(low, p.mu.starts[id])
			}
		}
	}
	return low
}

// LowWatermark is the smallest log start of the live replicas.
func (p *Partition) LowWatermark() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lowLocked()
}

// WaitLow registers slot i of w until the low watermark has reached offset.
func (p *Partition) WaitLow(w *Waiter, i int, offset int64) {
	w.open(i, p)
	p.mu.Lock()
	err := p.leadsLocked(-1)
	over := err != nil || p.lowLocked() >= offset
	if !over {
		p.mu.low.push(wait{offset: offset, w: w, slot: i})
	}
	p.mu.Unlock()
	if over {
		w.done(i, err)
	}
}

// PreferredReplica is the replica that a consumer in a rack should read from instead of this leader (KIP-392),
// -1 for the leader itself: the most caught-up one in that rack that is in sync and has the offset. rackOf tells a
// broker's rack. It is always -1 without replica.selector.class.
func (p *Partition) PreferredReplica(rack string, offset int64, rackOf func(id int32) string) int32 {
	if rack == "" || !p.set.followersServe.Load() || rackOf(p.set.o.NodeID) == rack {
		return -1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.mu.leader
	if l == nil || p.mu.gone != nil {
		return -1
	}
	best, bestEnd := int32(-1), int64(-1)
	for _, id := range l.Assignment().ISR {
		start, told := p.mu.starts[id]
		if !told || rackOf(id) != rack || !l.Active(id) {
			continue
		}
		if end := l.EndOf(id); end > bestEnd && start <= offset && offset <= end {
			best, bestEnd = id, end
		}
	}
	return best
}

// InSync says that a broker is in the in-sync set as this leader knows it.
func (p *Partition) InSync(id int32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.leader != nil && slices.Contains(p.mu.leader.Assignment().ISR, id)
}

// BrokerLayers is the broker's own keys, as of the latest image.
func (s *Set) BrokerLayers() config.Layers { return *s.broker.Load() }
