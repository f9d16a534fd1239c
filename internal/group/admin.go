package group

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
)

// classicType is the type of every group served here, as ListGroups spells it.
const classicType = "classic"

// describe is one group of DescribeGroups. An unknown group is Dead; from version 6 (KIP-1043) also an error.
func (m *Machine) describe(ev Describe) *kmsg.DescribeGroupsResponseGroup {
	r := kmsg.NewDescribeGroupsResponseGroup()
	r.Group, r.Members = strings.Clone(ev.Group), []kmsg.DescribeGroupsResponseGroupMember{}
	g := m.groups[ev.Group]
	_, foreign := m.foreign[ev.Group]
	if g == nil || foreign {
		r.State = "Dead"
		if ev.Version >= 6 {
			r.ErrorCode = kerr.GroupIDNotFound.Code
			why := "Group " + r.Group + " not found."
			if foreign {
				why = "Group " + r.Group + " is not a classic group."
			}
			r.ErrorMessage = &why
		}
		return &r
	}
	r.State, r.ProtocolType = g.state.String(), g.protocolType
	if g.state == Stable {
		r.Protocol = g.protocol
	}
	for _, mb := range g.order {
		d := kmsg.NewDescribeGroupsResponseGroupMember()
		d.MemberID, d.InstanceID, d.ClientID, d.ClientHost = mb.id, mb.instanceID(), mb.clientID, mb.clientHost
		d.ProtocolMetadata, d.MemberAssignment = []byte{}, []byte{}
		if g.state == Stable { // only then metadata and assignment belong together
			if md, ok := mb.metadata(g.protocol); ok && md != nil {
				d.ProtocolMetadata = md
			}
			if mb.assignment != nil {
				d.MemberAssignment = mb.assignment
			}
		}
		r.Members = append(r.Members, d)
	}
	return &r
}

// list names the groups that match, in order of their names.
func (m *Machine) list(ev List) []kmsg.ListGroupsResponseGroup {
	out := []kmsg.ListGroupsResponseGroup{}
	if len(ev.Types) > 0 && !containsFold(ev.Types, classicType) {
		return out
	}
	for _, id := range det.SortedKeys(m.groups) {
		g := m.groups[id]
		if _, foreign := m.foreign[id]; foreign || len(ev.States) > 0 && !containsFold(ev.States, g.state.String()) {
			continue
		}
		r := kmsg.NewListGroupsResponseGroup()
		r.Group, r.ProtocolType, r.GroupState, r.GroupType = id, g.protocolType, g.state.String(), classicType
		out = append(out, r)
	}
	return out
}

func containsFold(all []string, s string) bool {
	return slices.ContainsFunc(all, func(a string) bool { return strings.EqualFold(a, s) })
}

// deleteGroup is one group of DeleteGroups.
func (m *Machine) deleteGroup(id string) *kmsg.DeleteGroupsResponseGroup {
	r := kmsg.NewDeleteGroupsResponseGroup()
	r.Group = strings.Clone(id)
	g := m.groups[id]
	_, foreign := m.foreign[id]
	switch {
	case g == nil && !foreign:
		r.ErrorCode = kerr.GroupIDNotFound.Code
	case foreign || g.state != Empty:
		r.ErrorCode = kerr.NonEmptyGroup.Code
	default:
		for _, topic := range det.SortedKeys(g.offsets) {
			for _, o := range slices.Clone(g.offsets[topic].parts) {
				m.emitOffsetTombstone(g, topic, o.partition)
			}
		}
		m.dropPendingOffsets(g)
		m.emitGroupTombstone(g.id)
	}
	return &r
}

// dropPendingOffsets tombstones what open transactions hold for the group, or their commit would bring a
// deleted group back.
func (m *Machine) dropPendingOffsets(g *grp) {
	for _, producer := range det.SortedKeys(g.txns) {
		topics := m.txns[producer].groups[g.id]
		for _, topic := range det.SortedKeys(topics) {
			for _, o := range slices.Clone(topics[topic].parts) {
				m.emitOffsetTombstone(g, topic, o.partition)
			}
		}
	}
}

// sweepOffsets tombstones expired offsets, and groups that have neither members nor offsets left.
func (m *Machine) sweepOffsets() {
	for _, id := range det.SortedKeys(m.groups) {
		if _, foreign := m.foreign[id]; foreign {
			continue
		}
		g := m.groups[id]
		left := m.expireOffsets(g)
		if !left && g.state == Empty && len(g.txns) == 0 && len(g.pending) == 0 {
			m.emitGroupTombstone(g.id)
		}
	}
	m.armSweep()
}

// expireOffsets applies kafka.md 5.2, expiry, and says whether offsets are left.
func (m *Machine) expireOffsets(g *grp) bool {
	nowMs, keepMs := m.now.UnixMilli(), m.cfg.OffsetsRetention.Milliseconds()
	simple := g.protocolType == ""
	living := g.state == Stable && g.protocolType == consumerType && g.subsKnown
	if !simple && !living && g.state != Empty {
		return len(g.offsets) > 0
	}
	for _, topic := range det.SortedKeys(g.offsets) {
		if g.subscribes(topic) {
			continue
		}
		for _, o := range slices.Clone(g.offsets[topic].parts) {
			from := o.commitMs
			if !simple && g.state == Empty && g.sinceMs >= 0 {
				from = g.sinceMs
			}
			old := nowMs-from >= keepMs
			if o.expireMs >= 0 {
				old = nowMs >= o.expireMs
			}
			if old && !m.unstable(g, topic, o.partition) {
				m.emitOffsetTombstone(g, topic, o.partition)
			}
		}
	}
	return len(g.offsets) > 0
}

// subscribes says whether a member may be reading the topic. A consumer group whose subscriptions could
// not be read is taken to read everything.
func (g *grp) subscribes(topic string) bool {
	if !g.subsKnown {
		return g.protocolType == consumerType
	}
	_, ok := g.subscribed[topic]
	return ok
}

// refreshSubscribed reads the members' subscriptions, the only bytes of clients the coordinator looks into.
func (g *grp) refreshSubscribed() {
	g.subscribed, g.subsKnown = nil, false
	if g.protocolType != consumerType || len(g.order) > 0 && g.protocol == "" {
		return
	}
	all := map[string]struct{}{}
	for _, mb := range g.order {
		md, _ := mb.metadata(g.protocol)
		topics, ok := subscription(md)
		if !ok {
			return
		}
		for _, t := range topics {
			all[t] = struct{}{}
		}
	}
	g.subscribed, g.subsKnown = all, true
}

// subscription reads the topics of a ConsumerProtocolSubscription. Every version begins with version 0's fields.
func subscription(b []byte) ([]string, bool) {
	r := kbin.Reader{Src: b}
	r.Int16()
	n := r.ArrayLen() // bounded by the bytes that are there
	topics := make([]string, 0, max(min(int(n), len(b)/2), 0))
	for ; n > 0 && r.Ok(); n-- {
		topics = append(topics, r.String())
	}
	return topics, r.Ok()
}
