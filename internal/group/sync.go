package group

import (
	"bytes"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// stepSync is SyncGroup, kafka.md 5.3.
func (m *Machine) stepSync(t Token, req *kmsg.SyncGroupRequest) {
	g := m.groups[req.Group]
	if err := m.checkSync(g, req); err != nil {
		m.answer(t, syncRefusal(req, err))
		return
	}
	mb := g.members[req.MemberID]
	switch g.state {
	case PreparingRebalance:
		m.answer(t, syncRefusal(req, kerr.RebalanceInProgress))
	case CompletingRebalance:
		if mb.syncReq != nil { // as in parkJoin: the older request is answered, not forgotten
			m.answer(mb.syncToken, syncRefusal(mb.syncReq, kerr.RebalanceInProgress))
		}
		mb.syncToken, mb.syncReq = t, &kmsg.SyncGroupRequest{Version: req.Version}
		m.synced(g, mb)
		m.touch(mb)
		if g.leader == mb.id {
			m.assign(g, req.GroupAssignment)
		}
	default:
		m.synced(g, mb)
		m.touch(mb)
		m.answer(t, assigned(req, g, mb))
	}
}

func (m *Machine) checkSync(g *grp, req *kmsg.SyncGroupRequest) *kerr.Error {
	if req.Group == "" {
		return kerr.InvalidGroupID
	}
	if req.Version >= 5 && (req.ProtocolType == nil || req.Protocol == nil) {
		return kerr.InconsistentGroupProtocol
	}
	if g == nil || g.state == Empty {
		return kerr.UnknownMemberID
	}
	if err := g.check(req.MemberID, req.InstanceID); err != nil {
		return err
	}
	if req.Generation != g.generation {
		return kerr.IllegalGeneration
	}
	if req.ProtocolType != nil && *req.ProtocolType != g.protocolType ||
		// While a new generation is being prepared the group's choice may be gone already; Kafka compares
		// only what both sides have.
		req.Protocol != nil && g.protocol != "" && *req.Protocol != g.protocol {
		return kerr.InconsistentGroupProtocol
	}
	return nil
}

// assign takes the leader's assignment: a member it forgot gets an empty one. The record goes to the log
// in this step, so every answer below waits for it.
func (m *Machine) assign(g *grp, parts []kmsg.SyncGroupRequestGroupAssignment) {
	byID := make(map[string][]byte, len(parts))
	for i := range parts {
		byID[parts[i].MemberID] = parts[i].MemberAssignment
	}
	for _, mb := range g.order {
		mb.assignment = byID[mb.id]
	}
	if g.recordSize() > m.cfg.MaxRecordBytes {
		// The partition would refuse the record. Kafka finds out by trying and answers
		// UNKNOWN_SERVER_ERROR; so do we, before anything was appended.
		for _, mb := range g.order {
			mb.assignment = nil
			m.unparkSync(mb, syncRefusal(mb.syncReq, kerr.UnknownServerError))
		}
		m.prepareRebalance(g)
		return
	}
	for _, mb := range g.order {
		mb.assignment = bytes.Clone(mb.assignment) // out of the request's buffer
	}
	g.transition(Stable, m.now)
	m.emitGroup(g, true)
	for _, mb := range g.order {
		if mb.syncReq != nil {
			m.unparkSync(mb, assigned(mb.syncReq, g, mb))
			m.touch(mb)
		}
	}
}

func (m *Machine) unparkSync(mb *member, resp *kmsg.SyncGroupResponse) bool {
	if mb.syncReq == nil {
		return false
	}
	m.answer(mb.syncToken, resp)
	mb.syncReq, mb.syncToken = nil, 0
	return true
}

func assigned(req *kmsg.SyncGroupRequest, g *grp, mb *member) *kmsg.SyncGroupResponse {
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.Version = req.Version
	resp.ProtocolType, resp.Protocol = kmsg.StringPtr(g.protocolType), kmsg.StringPtr(g.protocol)
	resp.MemberAssignment = mb.assignment
	if resp.MemberAssignment == nil {
		resp.MemberAssignment = []byte{}
	}
	return resp
}

// syncRefusal answers nil for a nil request, so that it can be built for a member that may not be waiting.
func syncRefusal(req *kmsg.SyncGroupRequest, err *kerr.Error) *kmsg.SyncGroupResponse {
	if req == nil {
		return nil
	}
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.Version, resp.ErrorCode, resp.MemberAssignment = req.Version, err.Code, []byte{}
	return resp
}

// stepHeartbeat is Heartbeat, kafka.md 5.3.
func (m *Machine) stepHeartbeat(t Token, req *kmsg.HeartbeatRequest) {
	resp := kmsg.NewPtrHeartbeatResponse()
	resp.Version = req.Version
	if err := m.heartbeat(req); err != nil {
		resp.ErrorCode = err.Code
	}
	m.answer(t, resp)
}

func (m *Machine) heartbeat(req *kmsg.HeartbeatRequest) *kerr.Error {
	if req.Group == "" {
		return kerr.InvalidGroupID
	}
	g := m.groups[req.Group]
	if g == nil {
		return kerr.UnknownMemberID
	}
	if err := g.check(req.MemberID, req.InstanceID); err != nil {
		return err
	}
	if req.Generation != g.generation {
		return kerr.IllegalGeneration
	}
	m.touch(g.members[req.MemberID])
	if g.state == PreparingRebalance {
		return kerr.RebalanceInProgress
	}
	// Also in CompletingRebalance: clients heartbeat before they sync, and an error would send them back
	// into a rebalance for ever (trap 34).
	return nil
}

// stepLeave is LeaveGroup: several members from version 3 on, static ones by their instance id alone.
func (m *Machine) stepLeave(t Token, req *kmsg.LeaveGroupRequest) {
	resp := kmsg.NewPtrLeaveGroupResponse()
	resp.Version = req.Version
	resp.Members = []kmsg.LeaveGroupResponseMember{}
	if req.Group == "" {
		resp.ErrorCode = kerr.InvalidGroupID.Code
		m.answer(t, resp)
		return
	}
	who := req.Members
	if req.Version < 3 {
		one := kmsg.NewLeaveGroupRequestMember()
		one.MemberID = req.MemberID
		who = []kmsg.LeaveGroupRequestMember{one}
	}
	g := m.groups[req.Group]
	left := false
	for i := range who {
		r := kmsg.NewLeaveGroupResponseMember()
		r.MemberID = cloneString(who[i].MemberID)
		r.InstanceID = cloneStringPtr(who[i].InstanceID)
		if err := m.leave(g, &who[i]); err != nil {
			r.ErrorCode = err.Code
		} else {
			left = true
		}
		resp.Members = append(resp.Members, r)
	}
	if req.Version < 3 { // the old answer has one code for its one member
		resp.ErrorCode, resp.Members = resp.Members[0].ErrorCode, nil
	}
	if left {
		m.afterLeaving(g)
	}
	m.answer(t, resp)
}

func (m *Machine) leave(g *grp, who *kmsg.LeaveGroupRequestMember) *kerr.Error {
	if g == nil {
		return kerr.UnknownMemberID
	}
	id := who.MemberID
	if id == "" {
		if who.InstanceID == nil || g.static[*who.InstanceID] == "" {
			return kerr.UnknownMemberID
		}
		id = g.static[*who.InstanceID]
	} else if g.pending[id] == nil {
		if err := g.check(id, who.InstanceID); err != nil {
			return err
		}
	}
	m.removeMember(g, id)
	return nil
}

func (m *Machine) afterLeaving(g *grp) {
	if g.state == Stable || g.state == CompletingRebalance {
		m.prepareRebalance(g)
	} else {
		m.maybeCompleteJoin(g)
	}
}
