package coord

import (
	"path/filepath"

	"github.com/milena-mq/milena/internal/meta"
)

// Crash ends the store as a crash does, as far as the others can tell: nobody is told.
func (e *Etcd) Crash() error { return e.close(false) }

// Isolate stops everything that this member sends to other members of the engine, and what it takes from
// them over connections of its own.
func (e *Etcd) Isolate() {
	for _, m := range e.srv.Cluster().Members() {
		if m.ID != e.srv.MemberID() {
			e.srv.CutPeer(m.ID)
		}
	}
}

// Rejoin is the end of Isolate.
func (e *Etcd) Rejoin() {
	for _, m := range e.srv.Cluster().Members() {
		if m.ID != e.srv.MemberID() {
			e.srv.MendPeer(m.ID)
		}
	}
}

// EngineLeads says whether this member believes that it leads the engine.
func (e *Etcd) EngineLeads() bool { return e.srv.Leader() == e.srv.MemberID() }

// Compact throws away what lies before the present.
func (e *Etcd) Compact() error {
	_, err := e.cli.Compact(e.ctx, e.srv.KV().Rev())
	return err
}

var (
	Decide       = decide
	FoundersText = foundersText
)

type (
	BootAnswer = bootAnswer
	BootMember = bootMember
)

func (p *plan) Found() bool                { return p.found }
func (p *plan) Members() map[string]string { return p.members }

// CutFrom stops what this member sends to another one, and what it takes from it over connections of its own.
func (e *Etcd) CutFrom(o *Etcd) { e.srv.CutPeer(o.srv.MemberID()) }

// LowLimits makes a server as small as etcd's own defaults.
func LowLimits(ops, bytes uint) func(*EtcdOptions) {
	return func(o *EtcdOptions) { o.maxOps, o.maxBytes = ops, bytes }
}

// Vanish stops this broker's part in the election without a word to the store.
func (r *Remote) Vanish() {
	r.elect.mu.Lock()
	defer r.elect.mu.Unlock()
	r.elect.mu.lease, r.elect.mu.won = 0, false
}

// Overtake writes without a condition.
func (e *Etcd) Overtake(c meta.Change) error {
	_, err := e.cli.Put(e.ctx, string(prefix)+c.Key, string(c.Value))
	return err
}

// MemberID is the engine's own number of this member, as text.
func (e *Etcd) MemberID() string { return e.srv.MemberID().String() }

// MendTo is the end of CutFrom.
func (e *Etcd) MendTo(o *Etcd) { e.srv.MendPeer(o.srv.MemberID()) }

// HadSnapshot says whether this member has taken the whole store from another one.
func (e *Etcd) HadSnapshot() bool {
	fs, err := filepath.Glob(filepath.Join(e.srv.Cfg.SnapDir(), "*.snap"))
	return err == nil && len(fs) > 0
}

// Stand makes this member stand for election now.
func (e *Etcd) Stand() { e.stand(0) }
