package group

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// newMemberJoinTimeoutMs is how long a first join may stay parked. A new member cannot heartbeat, and one
// whose client gave up and came again would otherwise stay for the whole of a long rebalance.
const newMemberJoinTimeoutMs = 5 * 60 * 1000

func ms(n int32) time.Duration { return time.Duration(n) * time.Millisecond }

// stepJoin is JoinGroup, kafka.md 5.3.
func (m *Machine) stepJoin(t Token, ev Join) {
	req := ev.Request
	if req.Group == "" {
		m.refuseJoin(t, req, req.MemberID, kerr.InvalidGroupID)
		return
	}
	if !storable(req) {
		m.refuseJoin(t, req, "", kerr.InvalidRequest)
		return
	}
	session := ms(req.SessionTimeoutMillis)
	if session < m.cfg.MinSessionTimeout || session > m.cfg.MaxSessionTimeout {
		m.refuseJoin(t, req, "", kerr.InvalidSessionTimeout)
		return
	}
	if _, foreign := m.foreign[req.Group]; foreign {
		// The log holds a group of a kind that is not served here; a classic group under the same name
		// would tear it apart for whoever serves it later.
		m.refuseJoin(t, req, "", kerr.InconsistentGroupProtocol)
		return
	}
	g := m.groups[req.Group]
	if g == nil {
		if req.MemberID != "" {
			m.refuseJoin(t, req, req.MemberID, kerr.UnknownMemberID)
			return
		}
		if req.ProtocolType == "" || len(req.Protocols) == 0 {
			m.refuseJoin(t, req, "", kerr.InconsistentGroupProtocol) // before a record is spent on it
			return
		}
		g = m.createGroup(req.Group)
	}
	if !m.accepts(g, req.MemberID) {
		m.removeMember(g, req.MemberID)
		m.refuseJoin(t, req, "", kerr.GroupMaxSizeReached)
		m.maybeCompleteJoin(g)
		return
	}
	ps := copyProtocols(req.Protocols)
	switch {
	case !g.supports(req.ProtocolType, ps):
		m.refuseJoin(t, req, req.MemberID, kerr.InconsistentGroupProtocol)
	case req.MemberID == "" && req.InstanceID != nil:
		m.joinStatic(t, ev, g, ps)
	case req.MemberID == "" && req.Version >= 4:
		m.handOutID(t, ev, g)
	case req.MemberID == "":
		m.addMember(t, ev, g, memberID(ev.ClientID, ev.NewID), ps)
	case g.pending[req.MemberID] != nil:
		if req.InstanceID != nil { // ids are handed out to dynamic members only
			m.refuseJoin(t, req, req.MemberID, kerr.UnknownMemberID)
			return
		}
		m.addMember(t, ev, g, g.pending[req.MemberID].id, ps)
	default:
		m.rejoin(t, ev, g, ps)
	}
}

// createGroup begins a group and puts an empty group record into the log: a group that was shown to anybody exists after a
// reload, too.
func (m *Machine) createGroup(id string) *grp {
	g := newGroup(strings.Clone(id), m.now.UnixMilli())
	m.groups[g.id] = g
	m.armSweep()
	m.emitGroup(g, false)
	return g
}

// accepts applies group.max.size. In PreparingRebalance only those who have joined count, so that the
// last to rejoin are the ones turned away when the limit was lowered.
func (m *Machine) accepts(g *grp, id string) bool {
	mb := g.members[id]
	switch g.state {
	case PreparingRebalance:
		return mb != nil && mb.joinReq != nil || g.joining < m.cfg.MaxSize
	case CompletingRebalance, Stable:
		return mb != nil || len(g.order) < m.cfg.MaxSize
	}
	return true
}

// handOutID answers MEMBER_ID_REQUIRED (KIP-394): a client that gives up before it hears its id leaves
// nothing behind that could hold up a rebalance for long.
func (m *Machine) handOutID(t Token, ev Join, g *grp) {
	p := &pendingMember{id: memberID(ev.ClientID, ev.NewID)}
	p.session = newTimer(timerSession, g)
	p.session.handed = p
	if g.pending == nil {
		g.pending = map[string]*pendingMember{}
	}
	g.pending[p.id] = p
	m.timers.set(&p.session, m.now.Add(ms(ev.Request.SessionTimeoutMillis)))
	m.refuseJoin(t, ev.Request, p.id, kerr.MemberIDRequired)
}

func (m *Machine) addMember(t Token, ev Join, g *grp, id string, ps []protocol) {
	req := ev.Request
	mb := &member{
		id: id, clientID: strings.Clone(ev.ClientID), clientHost: strings.Clone(ev.ClientHost),
		rebalanceMs: rebalanceMs(req), sessionMs: req.SessionTimeoutMillis, protocols: ps, fresh: true,
	}
	if req.InstanceID != nil {
		mb.static, mb.instance = true, strings.Clone(*req.InstanceID)
	}
	mb.session = newTimer(timerSession, g)
	mb.session.member = mb
	if g.state == PreparingRebalance && g.previous == Empty {
		g.arrived = true
	}
	m.dropPending(g, id)
	if len(g.order) == 0 {
		g.protocolType = strings.Clone(req.ProtocolType)
	}
	g.add(mb)
	m.parkJoin(t, req, g, mb)
	m.timers.set(&mb.session, m.now.Add(ms(newMemberJoinTimeoutMs)))
	m.rebalanceOrComplete(g)
}

// rejoin is a join of somebody who already has a member id.
func (m *Machine) rejoin(t Token, ev Join, g *grp, ps []protocol) {
	req := ev.Request
	if err := g.check(req.MemberID, req.InstanceID); err != nil {
		m.refuseJoin(t, req, req.MemberID, err)
		return
	}
	mb := g.members[req.MemberID]
	same := slices.EqualFunc(mb.protocols, ps, func(a, b protocol) bool { return a.name == b.name && bytes.Equal(a.metadata, b.metadata) })
	switch {
	case g.state == CompletingRebalance && same, g.state == Stable && same && g.leader != mb.id:
		// It missed the answer, or a follower asks again: the generation stands. The leader of a stable
		// group forces a new one, which is how it reacts to changed topics.
		m.touch(mb)
		m.answer(t, m.joined(req, g, mb))
	default:
		m.updateMember(t, req, g, mb, ps)
		m.rebalanceOrComplete(g)
	}
}

func (m *Machine) updateMember(t Token, req *kmsg.JoinGroupRequest, g *grp, mb *member, ps []protocol) {
	g.speak(mb, ps)
	mb.rebalanceMs, mb.sessionMs = rebalanceMs(req), req.SessionTimeoutMillis
	m.parkJoin(t, req, g, mb)
}

// joinStatic is the join of an instance id without a member id (KIP-345): a newcomer, or the restarted holder
// of a place, who takes it over at once.
func (m *Machine) joinStatic(t Token, ev Join, g *grp, ps []protocol) {
	req := ev.Request
	newID := memberID(*req.InstanceID, ev.NewID)
	oldID, known := g.static[*req.InstanceID]
	if !known {
		m.addMember(t, ev, g, newID, ps)
		return
	}
	oldLeader := g.leader
	mb := g.members[oldID]
	m.replaceStatic(g, mb, newID)
	m.updateMember(t, req, g, mb, ps)
	m.touch(mb)
	switch {
	case g.state == Stable && g.vote() == g.protocol && g.recordSize() <= m.cfg.MaxRecordBytes:
		// The new holder gets the place as it is: no rebalance. The record comes first, or a reload would bring
		// the old member id back.
		g.refreshSubscribed()
		m.emitGroup(g, true)
		resp := m.joined(req, g, mb)
		if req.Version >= 9 {
			resp.SkipAssignment = g.leader == mb.id
		} else {
			// An old client that found itself leader would compute an assignment for a stable group; it is
			// told the former leader's id, which is nobody's now, and only fetches its own part.
			resp.LeaderID, resp.Members = oldLeader, []kmsg.JoinGroupResponseMember{}
		}
		m.unparkJoin(g, mb, resp)
	case g.state == Stable:
		m.rebalanceOrComplete(g)
	case g.state == CompletingRebalance:
		// The leader may already be computing with the old member id.
		m.prepareRebalance(g)
	default:
		m.maybeCompleteJoin(g)
	}
}

func (m *Machine) replaceStatic(g *grp, mb *member, newID string) {
	m.fence(g, mb)
	delete(g.members, mb.id)
	if g.leader == mb.id {
		g.leader = newID
	}
	mb.id = newID
	g.members[newID] = mb
	g.static[mb.instance] = newID
}

// fence answers the twin that still waits under the old member id.
func (m *Machine) fence(g *grp, mb *member) {
	if mb.joinReq != nil {
		resp := joinRefusal(mb.joinReq, mb.id, kerr.FencedInstanceID)
		m.unparkJoin(g, mb, resp)
	}
	m.unparkSync(mb, syncRefusal(mb.syncReq, kerr.FencedInstanceID))
}

func (m *Machine) parkJoin(t Token, req *kmsg.JoinGroupRequest, g *grp, mb *member) {
	if mb.joinReq != nil {
		// The client came again, usually on a new connection, while its join is parked. Kafka forgets the
		// older one; here nobody waits for ever.
		m.answer(mb.joinToken, joinRefusal(mb.joinReq, mb.id, kerr.RebalanceInProgress))
	} else {
		g.joining++
	}
	mb.joinToken, mb.joinReq = t, &kmsg.JoinGroupRequest{Version: req.Version}
}

func (m *Machine) unparkJoin(g *grp, mb *member, resp *kmsg.JoinGroupResponse) bool {
	if mb.joinReq == nil {
		return false
	}
	m.answer(mb.joinToken, resp)
	mb.joinReq, mb.joinToken = nil, 0
	g.joining--
	return true
}

// joined is the answer that lets a member go on in the current generation.
func (m *Machine) joined(req *kmsg.JoinGroupRequest, g *grp, mb *member) *kmsg.JoinGroupResponse {
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.Version = req.Version
	resp.Generation = g.generation
	resp.ProtocolType = kmsg.StringPtr(g.protocolType)
	resp.Protocol = kmsg.StringPtr(g.protocol)
	resp.LeaderID, resp.MemberID = g.leader, mb.id
	resp.Members = []kmsg.JoinGroupResponseMember{}
	if g.leader == mb.id {
		for _, o := range g.order {
			r := kmsg.NewJoinGroupResponseMember()
			r.MemberID, r.InstanceID = o.id, o.instanceID()
			r.ProtocolMetadata, _ = o.metadata(g.protocol)
			resp.Members = append(resp.Members, r)
		}
	}
	return resp
}

func (m *Machine) refuseJoin(t Token, req *kmsg.JoinGroupRequest, id string, err *kerr.Error) {
	m.answer(t, joinRefusal(req, id, err))
}

func joinRefusal(req *kmsg.JoinGroupRequest, id string, err *kerr.Error) *kmsg.JoinGroupResponse {
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.Version = req.Version
	resp.ErrorCode, resp.Generation = err.Code, -1
	resp.MemberID = strings.Clone(id)
	resp.Members = []kmsg.JoinGroupResponseMember{}
	if req.Version < 7 {
		resp.Protocol = kmsg.StringPtr("") // not nullable before v7
	}
	return resp
}

// rebalanceMs is the member's rebalance timeout; version 0 has none and means its session timeout.
func rebalanceMs(req *kmsg.JoinGroupRequest) int32 {
	if req.Version == 0 {
		return req.SessionTimeoutMillis
	}
	return max(req.RebalanceTimeoutMillis, 0)
}

// copyProtocols takes the protocols out of the request's buffer, the first of each name.
func copyProtocols(ps []kmsg.JoinGroupRequestProtocol) []protocol {
	out := make([]protocol, 0, len(ps))
	seen := make(map[string]struct{}, len(ps))
	for i := range ps {
		if _, twice := seen[ps[i].Name]; twice {
			continue
		}
		seen[ps[i].Name] = struct{}{}
		out = append(out, protocol{name: strings.Clone(ps[i].Name), metadata: bytes.Clone(ps[i].Metadata)})
	}
	return out
}

// memberID is Kafka's form, cut where it would not fit a string of the old request versions.
func memberID(prefix, id string) string { return prefix[:min(len(prefix), maxString-64)] + "-" + id }

// storable says that the record and the answers can hold the request's strings. Compact strings of newer
// versions can be longer on the wire; Kafka refuses those while decoding.
func storable(req *kmsg.JoinGroupRequest) bool {
	long := len(req.Group) > maxString || len(req.ProtocolType) > maxString || len(deref(req.InstanceID)) > maxString
	for i := range req.Protocols {
		long = long || len(req.Protocols[i].Name) > maxString
	}
	return !long
}
