package control

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/meta"
)

// ISRMember is a member that a leader proposes, with the broker epoch of the fetch that earned it
// the place (KIP-903); -1 when the leader does not know it.
type ISRMember struct {
	ID    int32
	Epoch int64
}

// ISRChange is a leader's proposal for one partition (AlterPartition).
type ISRChange struct {
	Topic          meta.UUID
	Partition      int32
	LeaderEpoch    int32
	PartitionEpoch int32 // the record the proposal starts from
	ISR            []ISRMember
	Recovery       int8
}

// ISRAnswer is what became of one proposal, in the order of the proposals.
type ISRAnswer struct {
	State *meta.Partition // as it will be; nil when refused before anything was granted
	Err   *Error          // NEW_LEADER_ELECTED: granted, and the sender leads no more
}

// AlterPartition plans what one leader proposes for its partitions; kafka.md 4.2 is the table of the
// answers. The error is about the sender, and then nothing is planned.
//
// A leader that is told of a smaller ISR must not move its high watermark by it before its own image
// has the revision of the grant: with an older min.insync.replicas it could acknowledge alone what the
// member that just became eligible (ELR) does not have.
func (c *Cluster) AlterPartition(id int32, epoch int64, changes []ISRChange) (Plan, []ISRAnswer, error) {
	if _, err := c.broker(id, epoch); err != nil {
		var e = as(err)
		if e.Code == kerr.BrokerIDNotRegistered {
			// A leader that is no longer registered is one whose epoch has passed.
			return Plan{}, nil, refuse(kerr.StaleBrokerEpoch, "%s", e.Message)
		}
		return Plan{}, nil, err
	}
	m, err := c.moves()
	if err != nil {
		return Plan{}, nil, err
	}
	type place struct {
		topic meta.UUID
		n     int32
	}
	granted := make(map[place]*meta.Partition) // a second proposal in one request sees the first
	out := make([]ISRAnswer, len(changes))
	var p packer
	for i := range changes {
		ch := &changes[i]
		t := c.Image.TopicByID(ch.Topic)
		if t == nil {
			out[i].Err = refuse(kerr.UnknownTopicID, "This server does not host this topic ID.")
			continue
		}
		if ch.Partition < 0 || int(ch.Partition) >= len(t.Partitions) {
			out[i].Err = refuse(kerr.UnknownTopicOrPartition, "This server does not host this topic-partition.")
			continue
		}
		old, at := t.Partitions[ch.Partition], place{ch.Topic, ch.Partition}
		if g := granted[at]; g != nil {
			old = g
		}
		if out[i].Err = m.checkISR(id, old, ch); out[i].Err != nil {
			continue
		}
		isr := make([]int32, len(ch.ISR))
		for k, member := range ch.ISR {
			isr[k] = member.ID
		}
		np := m.next(t.Name, old, isr, wantLeader, func(p *meta.Partition) { p.Recovery = ch.Recovery })
		if np == nil {
			out[i].State = old
			continue
		}
		granted[at], out[i].State = np, np
		p.whole([]meta.Change{meta.PutPartition(t.ID, ch.Partition, np)})
		if np.Leader != id {
			out[i].Err = refuse(kerr.NewLeaderElected, "The reassignment is complete and broker %d leads now.", np.Leader)
		}
	}
	return p.plan, out, nil
}

// checkISR refuses a proposal, in the order in which Kafka's controller looks.
func (m *moves) checkISR(sender int32, p *meta.Partition, ch *ISRChange) *Error {
	switch {
	case ch.LeaderEpoch > p.LeaderEpoch || ch.PartitionEpoch > p.PartitionEpoch:
		return refuse(kerr.NotController, "The proposal is of leader epoch %d and partition epoch %d, this controller knows %d and %d.", ch.LeaderEpoch, ch.PartitionEpoch, p.LeaderEpoch, p.PartitionEpoch)
	case ch.LeaderEpoch < p.LeaderEpoch:
		return refuse(kerr.FencedLeaderEpoch, "Leader epoch %d is over, it is %d now.", ch.LeaderEpoch, p.LeaderEpoch)
	case p.Leader != sender:
		return refuse(kerr.InvalidRequest, "Broker %d is not the leader.", sender)
	case ch.PartitionEpoch < p.PartitionEpoch:
		return refuse(kerr.InvalidUpdateVersion, "Partition epoch %d is over, it is %d now.", ch.PartitionEpoch, p.PartitionEpoch)
	case len(ch.ISR) > len(p.Replicas): // also bounds the search for duplicates below
		return refuse(kerr.InvalidRequest, "The ISR has more members than the partition has replicas.")
	}
	leads := false
	for i, a := range ch.ISR {
		leads = leads || a.ID == sender
		if !slices.Contains(p.Replicas, a.ID) {
			return refuse(kerr.InvalidRequest, "Broker %d of the ISR is no replica.", a.ID)
		}
		if slices.ContainsFunc(ch.ISR[:i], func(b ISRMember) bool { return b.ID == a.ID }) {
			return refuse(kerr.InvalidRequest, "Broker %d is twice in the ISR.", a.ID)
		}
	}
	switch {
	case !leads:
		return refuse(kerr.InvalidRequest, "The ISR lacks its leader.")
	case ch.Recovery != Recovered && ch.Recovery != Recovering:
		return refuse(kerr.InvalidRequest, "There is no leader recovery state %d.", ch.Recovery)
	case ch.Recovery == Recovering && len(ch.ISR) > 1:
		return refuse(kerr.InvalidRequest, "A leader that recovers is the only member of the ISR.")
	case ch.Recovery == Recovering && p.Recovery == Recovered:
		return refuse(kerr.InvalidRequest, "The leader has recovered and cannot go back.")
	}
	for _, a := range ch.ISR {
		b := m.image.Broker(a.ID)
		switch {
		case !active(b):
			return refuse(kerr.IneligibleReplica, "Broker %d is not registered, fenced or in controlled shutdown.", a.ID)
		case a.Epoch != -1 && a.Epoch != b.Epoch:
			// It restarted after the fetch: what it had then may be lost (invariant I16).
			return refuse(kerr.IneligibleReplica, "Broker %d has epoch %d, not %d.", a.ID, b.Epoch, a.Epoch)
		case !m.online(p, a.ID):
			// Its directory failed after the fetch.
			return refuse(kerr.IneligibleReplica, "The log directory of broker %d is offline.", a.ID)
		}
	}
	return nil
}
