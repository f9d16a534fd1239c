package control

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
)

// FeatureELR is the feature that keeps eligible leader replicas (KIP-966); level 1 turns them on.
const FeatureELR = "eligible.leader.replicas.version"

// want says when a partition's leader is chosen anew.
type want int8

const (
	wantLeader    want = iota // keep the leader where it can go on
	wantPreferred             // move to the first replica where that one is in sync and active
	wantUnclean               // as wantLeader, and any active replica is good enough
	wantRoom                  // as wantLeader, and a leader without room for records gives way to one with room
)

// moves turns partitions into their next record. image shows the brokers as they will be once the
// plan is carried out; was is the image the plan starts from.
type moves struct {
	c       *Cluster
	image   *meta.Image
	elr     bool
	unclean map[int32]bool // brokers that may have lost what they had not synced
	intact  bool           // ... and only that: of what they had synced nothing is missing
	// Of one broker: a directory whose replicas are begun anew in others; single: it had one directory, and now has
	// another, so that every replica of which no directory is known was in that.
	replaced int32
	missing  meta.UUID
	single   bool
	rules    map[string]*topicRules
}

// topicRules are a topic's values that matter to an election, read once per plan.
type topicRules struct {
	minISR  int
	unclean bool
	lossy   bool // records count before they are synced
}

// moves begins a plan; changed are brokers' records as the plan will have them.
func (c *Cluster) moves(changed ...meta.Change) (*moves, error) {
	m := &moves{c: c, image: c.Image, elr: c.Image.Features()[FeatureELR] >= 1}
	if len(changed) > 0 {
		im, _, err := c.Image.Apply(changed, c.Image.Revision()+1)
		if err != nil {
			return nil, err
		}
		m.image = im
	}
	return m, nil
}

func (m *moves) of(topic string) *topicRules {
	if r := m.rules[topic]; r != nil {
		return r
	}
	l := ResourceLayers(m.c.Image, m.c.Static, m.c.NodeID, meta.Resource{Type: meta.ResourceTopic, Name: topic})
	r := &topicRules{minISR: int(config.MinInsyncReplicas.Of(l)), unclean: config.UncleanLeaderElectionEnable.Of(l), lossy: config.FlushMessages.Of(l) != 1}
	if m.rules == nil {
		m.rules = make(map[string]*topicRules)
	}
	m.rules[topic] = r
	return r
}

// lost says that the log of a replica is gone with its directory.
func (m *moves) lost(p *meta.Partition, id int32) bool {
	if id != m.replaced {
		return false
	}
	dir := dirOf(p, id)
	if dir.IsZero() {
		return m.single
	}
	return dir == m.missing
}

// dirOf is the directory of a replica, zero when it is not known.
func dirOf(p *meta.Partition, id int32) meta.UUID {
	if i := slices.Index(p.Replicas, id); i >= 0 && i < len(p.Dirs) {
		return p.Dirs[i]
	}
	return meta.UUID{}
}

// forgot says that a replica may lack what it had when it was last in sync, so that it is not eligible.
func (m *moves) forgot(topic string, p *meta.Partition, id int32) bool {
	return m.lost(p, id) || m.unclean[id] && (!m.intact || m.of(topic).lossy)
}

// able says that a replica can lead: its broker is active and its directory is online.
func (m *moves) able(p *meta.Partition, id int32) bool {
	return active(m.image.Broker(id)) && m.online(p, id)
}

// online says that the directory of a replica is among those its broker has. A replica not yet told
// where to live, and a broker that named no directories, count as online (KIP-858).
func (m *moves) online(p *meta.Partition, id int32) bool {
	i := slices.Index(p.Replicas, id)
	b := m.image.Broker(id)
	if i < 0 || b == nil {
		return false
	}
	return i >= len(p.Dirs) || p.Dirs[i].IsZero() || len(b.Dirs) == 0 || slices.Contains(b.Dirs, p.Dirs[i])
}

// next is a partition whose ISR is to be isr: the reassignment is finished if that makes it complete,
// ELR and leader follow, epochs rise. nil: nothing changes. edit, where given, changes the
// assignment first.
func (m *moves) next(topic string, old *meta.Partition, isr []int32, w want, edit func(*meta.Partition)) *meta.Partition {
	p := *old
	p.ISR = isr
	if edit != nil {
		edit(&p)
	}
	finish(&p)
	m.eligible(topic, old, &p)
	m.elect(topic, old, &p, w)
	if samePartition(old, &p) {
		return nil
	}
	// A replica that left the assignment is fenced from the data path, too: it may still fetch with the
	// old epoch and would be taken for a follower (kafka.md 4.1).
	if p.Leader != old.Leader || !subset(old.Replicas, p.Replicas) {
		p.LeaderEpoch++
	}
	p.PartitionEpoch++
	return &p
}

// without is a partition whose brokers gone have left the ISR. Without ELR the last member stays in
// it, leader or not: it alone is known to have all the data, unless its log is gone.
func (m *moves) without(topic string, old *meta.Partition, gone ...int32) *meta.Partition {
	touched := slices.Contains(gone, old.Leader)
	for _, id := range gone {
		touched = touched || slices.Contains(old.ISR, id) || slices.Contains(old.ELR, id) && m.forgot(topic, old, id) ||
			slices.Contains(old.LastKnownELR, id) && m.lost(old, id)
	}
	if !touched {
		return nil
	}
	rest := slices.DeleteFunc(slices.Clone(old.ISR), func(id int32) bool { return slices.Contains(gone, id) })
	if len(rest) == 0 && !m.elr && !slices.ContainsFunc(old.ISR, func(id int32) bool { return m.lost(old, id) }) {
		rest = old.ISR
		if slices.Contains(old.ISR, old.Leader) {
			rest = []int32{old.Leader} // of several that go at once it saw every record that was acknowledged
		}
	}
	return m.next(topic, old, rest, wantLeader, nil)
}

// enough says that the ISR may acknowledge: the effective minimum is min.insync.replicas or all replicas.
func (m *moves) enough(topic string, p *meta.Partition) bool {
	return len(p.ISR) >= min(m.of(topic).minISR, len(p.Replicas))
}

// eligible sets ELR and the last known leader (KIP-966). A member that leaves while the ISR is below
// its minimum keeps everything below the high watermark, since that does not move down there.
func (m *moves) eligible(topic string, old, p *meta.Partition) {
	if !m.elr {
		return
	}
	if m.enough(topic, p) {
		p.ELR, p.LastKnownELR = nil, nil
		return
	}
	var elr []int32
	for _, id := range p.Replicas {
		was := slices.Contains(old.ISR, id) || slices.Contains(old.ELR, id)
		if was && !slices.Contains(p.ISR, id) && !m.forgot(topic, old, id) {
			elr = append(elr, id)
		}
	}
	p.ELR = elr
	switch {
	case len(p.ISR) > 0:
		p.LastKnownELR = nil
	case old.Leader != meta.NoLeader && m.lost(old, old.Leader), len(p.LastKnownELR) == 1 && m.lost(old, p.LastKnownELR[0]):
		p.LastKnownELR = nil
	case old.Leader != meta.NoLeader:
		p.LastKnownELR = []int32{old.Leader} // the last resort should the whole ELR prove unclean
	case len(p.LastKnownELR) == 0 && len(old.ISR) > 0 && !m.lost(old, old.ISR[0]):
		// In sync, and not led: nobody could lead when its leader left (a reassignment, a drain). Who leaves now was
		// the last to have everything, and would otherwise be forgotten should it prove unclean.
		p.LastKnownELR = []int32{old.ISR[0]}
	}
}

// forgetELR clears the ELR of the partitions whose min.insync.replicas changes with the new values of a
// resource (KIP-966). With a lower minimum the ISR of now may acknowledge alone, and who left it under
// the old one lacks that. A partition without leader acknowledges nothing: it keeps its ELR, since
// otherwise nobody could be elected.
func (c *Cluster) forgetELR(r meta.Resource, values map[string]string) []meta.Change {
	key := config.MinInsyncReplicas.Name
	if c.Image.Features()[FeatureELR] < 1 || values[key] == c.Image.Config(r)[key] {
		return nil
	}
	var cs []meta.Change
	for _, t := range c.Image.Topics() {
		if r.Type == meta.ResourceTopic && t.Name != r.Name || r.Type != meta.ResourceTopic && r.Type != meta.ResourceBroker {
			continue
		}
		for n, p := range t.Partitions {
			if p.Leader != meta.NoLeader && len(p.ELR) > 0 {
				np := *p
				np.ELR = nil
				np.PartitionEpoch++
				cs = append(cs, meta.PutPartition(t.ID, int32(n), &np))
			}
		}
	}
	return cs
}

// checkMinISR keeps min.insync.replicas one value for all brokers while ELR is on (KIP-966): the leader
// acknowledges by it and the controller judges eligibility by it, so they must not differ.
func (c *Cluster) checkMinISR(r meta.Resource, values map[string]string) *Error {
	if c.Image.Features()[FeatureELR] < 1 || r.Type != meta.ResourceBroker {
		return nil
	}
	key := config.MinInsyncReplicas.Name
	_, has := values[key]
	if has && r.Name != "" {
		return refuse(kerr.InvalidConfig, "Broker-level %s cannot be altered while ELR is enabled.", key)
	}
	if _, had := c.Image.Config(r)[key]; had && !has {
		return refuse(kerr.InvalidConfig, "Cluster-level %s cannot be removed while ELR is enabled.", key)
	}
	return nil
}

func (m *moves) slow(id int32) bool { return m.c.Slow != nil && m.c.Slow(id) }

// full says that a replica has no room for records.
func (m *moves) full(p *meta.Partition, id int32) bool { return m.c.full(p, id) }

func (c *Cluster) full(p *meta.Partition, id int32) bool {
	return c.Full != nil && c.Full(id, dirOf(p, id))
}

// hindrance is why a replica that can lead had better not: 0 nothing, 1 it could only serve reads, 2 it would not know that it leads.
func (m *moves) hindrance(p *meta.Partition, id int32) int {
	switch {
	case m.slow(id):
		return 2
	case m.full(p, id):
		return 1
	}
	return 0
}

// elect is kafka.md 4.3: ISR in the order of the assignment, ELR, last known leader, anyone if that
// is allowed, nobody.
func (m *moves) elect(topic string, old, p *meta.Partition, w want) {
	can := func(id int32, set []int32) bool {
		return slices.Contains(set, id) && slices.Contains(p.Replicas, id) && m.able(p, id)
	}
	// pick is the first of a set that can lead, one that is hindered only if there is no other.
	pick := func(set []int32) (best int32, found bool) {
		least := 0
		for _, id := range p.Replicas {
			if !can(id, set) {
				continue
			}
			if h := m.hindrance(p, id); !found || h < least {
				best, least, found = id, h, true
			}
		}
		return best, found
	}
	if first := p.Replicas[0]; w == wantPreferred && can(first, p.ISR) && m.hindrance(p, first) == 0 {
		p.Leader = first
		return
	}
	if w == wantRoom && m.full(p, old.Leader) {
		if id, ok := pick(p.ISR); ok && m.hindrance(p, id) == 0 {
			p.Leader = id
			return
		}
	}
	if can(old.Leader, p.ISR) {
		p.Leader = old.Leader
		return
	}
	if id, ok := pick(p.ISR); ok {
		p.Leader = id
		return
	}
	if m.elr && len(p.ISR) == 0 {
		if id, ok := pick(p.ELR); ok {
			p.Leader, p.ISR, p.ELR, p.LastKnownELR = id, []int32{id}, remove(p.ELR, id), nil
			if m.enough(topic, p) {
				p.ELR = nil // it may acknowledge alone from now on, and the others lack that
			}
			return
		}
		if len(p.ELR) == 0 && len(p.LastKnownELR) == 1 && can(p.LastKnownELR[0], p.Replicas) {
			m.dirty(p, p.LastKnownELR[0])
			return
		}
	}
	if w == wantUnclean || m.of(topic).unclean {
		if id, ok := pick(p.Replicas); ok {
			m.dirty(p, id)
			return
		}
	}
	p.Leader = meta.NoLeader
}

// dirty makes a leader that may lack acknowledged records; it says RECOVERED when it has settled.
func (m *moves) dirty(p *meta.Partition, id int32) {
	p.Leader, p.ISR, p.ELR, p.LastKnownELR, p.Recovery = id, []int32{id}, nil, nil, Recovering
}

// The leader recovery states.
const (
	Recovered  int8 = 0
	Recovering int8 = 1
)

func subset(a, b []int32) bool {
	for _, x := range a {
		if !slices.Contains(b, x) {
			return false
		}
	}
	return true
}

func samePartition(a, b *meta.Partition) bool {
	return a.Leader == b.Leader && a.Recovery == b.Recovery && slices.Equal(a.Replicas, b.Replicas) && slices.Equal(a.ISR, b.ISR) &&
		slices.Equal(a.Adding, b.Adding) && slices.Equal(a.Removing, b.Removing) && slices.Equal(a.Dirs, b.Dirs) &&
		slices.Equal(a.ELR, b.ELR) && slices.Equal(a.LastKnownELR, b.LastKnownELR)
}
