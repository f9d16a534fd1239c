package group

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
)

// rebalanceOrComplete begins a rebalance, or ends the join phase of the one that is on when everybody has come.
func (m *Machine) rebalanceOrComplete(g *grp) {
	if g.state != PreparingRebalance {
		m.prepareRebalance(g)
	} else {
		m.maybeCompleteJoin(g)
	}
}

func (m *Machine) prepareRebalance(g *grp) {
	if g.state == CompletingRebalance {
		for _, mb := range g.order {
			mb.assignment = nil
			if m.unparkSync(mb, syncRefusal(mb.syncReq, kerr.RebalanceInProgress)) {
				m.touch(mb)
			}
		}
	}
	m.endSyncPhase(g)
	first := g.state == Empty
	g.transition(PreparingRebalance, m.now)
	switch {
	case first:
		// Nobody owns anything yet: wait for the others of a starting fleet, or each arrival would
		// cost a generation.
		g.initial, g.arrived = true, false
		g.delay = int32(m.cfg.InitialRebalanceDelay.Milliseconds())
		g.remaining = max(g.rebalanceMs()-g.delay, 0)
		m.timers.set(&g.join, m.now.Add(ms(g.delay)))
	case g.allJoined():
		m.completeJoin(g)
	default:
		m.timers.set(&g.join, m.now.Add(ms(g.rebalanceMs())))
	}
}

// joinDue ends the join phase because its time is up, or prolongs an initial rebalance in which somebody
// has arrived since the delay was set.
func (m *Machine) joinDue(g *grp) {
	if g.state != PreparingRebalance {
		return
	}
	if g.initial && g.arrived && g.remaining > 0 {
		g.arrived = false
		next := min(int32(m.cfg.InitialRebalanceDelay.Milliseconds()), g.remaining)
		g.remaining = max(g.remaining-g.delay, 0)
		g.delay = next
		m.timers.set(&g.join, m.now.Add(ms(next)))
		return
	}
	m.completeJoin(g)
}

// maybeCompleteJoin ends the join phase early when everybody has come. An initial rebalance always waits
// its time.
func (m *Machine) maybeCompleteJoin(g *grp) {
	if g.state == PreparingRebalance && g.previous != Empty && g.allJoined() {
		m.completeJoin(g)
	}
}

// completeJoin ends the join phase: dynamic members who did not come are removed, static ones stay; the
// generation rises and everybody who waits is answered.
func (m *Machine) completeJoin(g *grp) {
	m.timers.clear(&g.join)
	for _, mb := range slices.Clone(g.order) {
		if mb.joinReq == nil && !mb.static {
			m.removeMember(g, mb.id)
		}
	}
	if len(g.order) > 0 && !g.electJoined() {
		// Only static members are left and none has come: nobody could compute an assignment. Wait on;
		// their sessions end it.
		m.timers.set(&g.join, m.now.Add(ms(g.rebalanceMs())))
		return
	}
	g.initial, g.arrived = false, false
	g.generation++
	if len(g.order) == 0 {
		g.protocol, g.leader = "", ""
		g.refreshSubscribed()
		g.transition(Empty, m.now)
		m.emitGroup(g, false)
		return
	}
	g.protocol = g.vote()
	g.refreshSubscribed()
	g.transition(CompletingRebalance, m.now)
	for _, mb := range g.order {
		if mb.joinReq != nil {
			m.unparkJoin(g, mb, m.joined(mb.joinReq, g, mb))
		}
		m.touch(mb)
		mb.fresh = false
		mb.unsynced = true
	}
	g.unsynced = len(g.order)
	m.timers.set(&g.sync, m.now.Add(ms(g.rebalanceMs())))
}

// electJoined makes sure that the leader is somebody who waits for the answer.
func (g *grp) electJoined() bool {
	if mb := g.members[g.leader]; mb != nil && mb.joinReq != nil {
		return true
	}
	for _, mb := range g.order {
		if mb.joinReq != nil {
			g.leader = mb.id
			return true
		}
	}
	return false
}

// endSyncPhase forgets who still owes a sync.
func (m *Machine) endSyncPhase(g *grp) {
	for _, mb := range g.order {
		mb.unsynced = false
	}
	g.unsynced = 0
	m.timers.clear(&g.sync)
}

func (m *Machine) synced(g *grp, mb *member) {
	if mb.unsynced {
		mb.unsynced = false
		g.unsynced--
	}
	if g.unsynced == 0 {
		m.timers.clear(&g.sync)
	}
}

// syncDue removes the members that took the join answer and never asked for their part.
func (m *Machine) syncDue(g *grp) {
	if g.state != CompletingRebalance && g.state != Stable || g.unsynced == 0 {
		return
	}
	for _, mb := range slices.Clone(g.order) {
		if mb.unsynced {
			m.removeMember(g, mb.id)
		}
	}
	m.prepareRebalance(g)
}

// sessionDue removes a silent member. One that waits for our answer is not silent, except in its first
// join, see newMemberJoinTimeoutMs.
func (m *Machine) sessionDue(t *timer) {
	g := t.group
	if t.handed != nil {
		if g.pending[t.handed.id] == t.handed {
			delete(g.pending, t.handed.id)
			if g.state == PreparingRebalance && g.allJoined() {
				m.completeJoin(g)
			}
		}
		return
	}
	mb := t.member
	if g.members[mb.id] != mb || !mb.fresh && (mb.joinReq != nil || mb.syncReq != nil) {
		return
	}
	m.removeMember(g, mb.id)
	m.afterRemoval(g)
}

// afterRemoval lets the others go on without whoever was removed.
func (m *Machine) afterRemoval(g *grp) {
	switch {
	case g.state == Stable || g.state == CompletingRebalance:
		m.prepareRebalance(g)
	case g.state == PreparingRebalance && g.allJoined():
		m.completeJoin(g)
	}
}

// removeMember takes a member or a handed-out id out of the group and answers what it waits for:
// UNKNOWN_MEMBER_ID, so that a client that is alive after all comes back as a new one.
func (m *Machine) removeMember(g *grp, id string) {
	m.dropPending(g, id)
	mb := g.members[id]
	if mb == nil {
		return
	}
	if mb.joinReq != nil {
		m.unparkJoin(g, mb, joinRefusal(mb.joinReq, "", kerr.UnknownMemberID))
	}
	m.unparkSync(mb, syncRefusal(mb.syncReq, kerr.UnknownMemberID))
	m.synced(g, mb)
	m.timers.clear(&mb.session)
	g.speak(mb, nil)
	delete(g.members, id)
	g.order = slices.DeleteFunc(g.order, func(o *member) bool { return o == mb })
	if mb.static {
		delete(g.static, mb.instance)
	}
	if g.leader == id {
		g.leader = ""
		if len(g.order) > 0 {
			g.leader = g.order[0].id
		}
	}
}

func (m *Machine) dropPending(g *grp, id string) {
	if p := g.pending[id]; p != nil {
		m.timers.clear(&p.session)
		delete(g.pending, id)
	}
}

// touch begins a member's session anew.
func (m *Machine) touch(mb *member) { m.timers.set(&mb.session, m.now.Add(ms(mb.sessionMs))) }
