package group

import (
	"cmp"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
)

// offset is one committed offset.
type offset struct {
	partition   int32
	leaderEpoch int32 // -1: unknown
	offset      int64
	commitMs    int64
	expireMs    int64 // explicit expiry of old clients; -1: none
	record      int64 // offset of the record in __consumer_offsets: the later record wins
	topicID     meta.UUID
	metadata    string
}

// topicOffsets is a group's offsets of one topic, by partition.
type topicOffsets struct {
	name  string
	parts []offset
}

func (t *topicOffsets) find(partition int32) (int, bool) {
	if n := len(t.parts); int(partition) < n && partition >= 0 && t.parts[partition].partition == partition {
		return int(partition), true // the usual case: all partitions from 0 on
	}
	return slices.BinarySearchFunc(t.parts, partition, func(o offset, p int32) int { return cmp.Compare(o.partition, p) })
}

func (g *grp) offset(topic string, partition int32) *offset {
	t := g.offsets[topic]
	if t == nil {
		return nil
	}
	if i, ok := t.find(partition); ok {
		return &t.parts[i]
	}
	return nil
}

// txn is the pending offsets of one open transaction, per group.
type txn struct {
	groups map[string]map[string]*topicOffsets
}

// applyOffset stores an offset; one that was written later than o stays (trap 17).
func (m *Machine) applyOffset(groupID, topic string, o offset) {
	g := m.groups[groupID]
	if g == nil {
		// Offsets without membership: Kafka's simple group.
		g = newGroup(strings.Clone(groupID), -1)
		m.groups[g.id] = g
	}
	if g.offsets == nil {
		g.offsets = map[string]*topicOffsets{}
	}
	putOffset(g.offsets, topic, o)
}

func putOffset(all map[string]*topicOffsets, topic string, o offset) {
	t := all[topic]
	if t == nil {
		t = &topicOffsets{name: strings.Clone(topic)}
		all[t.name] = t
	}
	i, ok := t.find(o.partition)
	switch {
	case !ok:
		o.metadata = strings.Clone(o.metadata)
		t.parts = slices.Insert(t.parts, i, o)
	case t.parts[i].record <= o.record:
		if t.parts[i].metadata == o.metadata {
			o.metadata = t.parts[i].metadata
		} else {
			o.metadata = strings.Clone(o.metadata)
		}
		t.parts[i] = o
	}
}

func dropOffset(all map[string]*topicOffsets, topic string, partition int32) {
	t := all[topic]
	if t == nil {
		return
	}
	if i, ok := t.find(partition); ok {
		t.parts = slices.Delete(t.parts, i, i+1)
	}
	if len(t.parts) == 0 {
		delete(all, topic)
	}
}

// applyOffsetTombstone forgets an offset, pending ones included.
func (m *Machine) applyOffsetTombstone(groupID, topic string, partition int32) {
	g := m.groups[groupID]
	if g == nil {
		return
	}
	dropOffset(g.offsets, topic, partition)
	for id := range g.txns {
		if t := m.txns[id]; t != nil {
			dropOffset(t.groups[groupID], topic, partition)
		}
	}
}

func (m *Machine) applyPendingOffset(producer int64, groupID, topic string, o offset) {
	g := m.groups[groupID]
	if g == nil {
		g = newGroup(strings.Clone(groupID), -1)
		m.groups[g.id] = g
	}
	t := m.txns[producer]
	if t == nil {
		t = &txn{groups: map[string]map[string]*topicOffsets{}}
		m.txns[producer] = t
	}
	if t.groups[g.id] == nil {
		t.groups[g.id] = map[string]*topicOffsets{}
	}
	putOffset(t.groups[g.id], topic, o)
	if g.txns == nil {
		g.txns = map[int64]struct{}{}
	}
	g.txns[producer] = struct{}{}
}

func (m *Machine) applyMarker(producer int64, commit bool) {
	t := m.txns[producer]
	if t == nil {
		return
	}
	delete(m.txns, producer)
	for _, id := range det.SortedKeys(t.groups) {
		if g := m.groups[id]; g != nil {
			delete(g.txns, producer)
		}
		if !commit {
			continue
		}
		for _, to := range t.groups[id] {
			for _, o := range to.parts {
				m.applyOffset(id, to.name, o)
			}
		}
	}
}

// unstable says that a transaction which may still commit has an offset for the partition.
func (m *Machine) unstable(g *grp, topic string, partition int32) bool {
	for id := range g.txns {
		if t := m.txns[id]; t != nil {
			if to := t.groups[g.id][topic]; to != nil {
				if _, ok := to.find(partition); ok {
					return true
				}
			}
		}
	}
	return false
}

// stepCommit is OffsetCommit, kafka.md 5.2; with txn it is TxnOffsetCommit.
func (m *Machine) stepCommit(t Token, req *kmsg.OffsetCommitRequest, txn *TxnCommit) {
	_, known := m.groups[req.Group]
	g, err := m.checkCommit(req, txn != nil)
	resp := kmsg.NewPtrOffsetCommitResponse()
	resp.Version = req.Version
	resp.Topics = make([]kmsg.OffsetCommitResponseTopic, len(req.Topics))
	expire := int64(-1)
	if req.Version >= 2 && req.Version <= 4 && req.RetentionTimeMillis >= 0 {
		expire = m.now.UnixMilli() + req.RetentionTimeMillis
	}
	for i := range req.Topics {
		rt, at := &req.Topics[i], &resp.Topics[i]
		at.TopicID = rt.TopicID
		at.Partitions = make([]kmsg.OffsetCommitResponseTopicPartition, len(rt.Partitions))
		for j := range rt.Partitions {
			p := &rt.Partitions[j]
			at.Partitions[j].Partition = p.Partition
			code := err
			if code == nil && (p.Metadata != nil && len(*p.Metadata) > min(m.cfg.OffsetMetadataMaxBytes, maxString)) {
				code = kerr.OffsetMetadataTooLarge
			}
			if code != nil {
				at.Partitions[j].ErrorCode = code.Code
				continue
			}
			o := offset{
				partition: p.Partition, leaderEpoch: leaderEpoch(req.Version, p), offset: p.Offset, commitMs: m.now.UnixMilli(),
				expireMs: expire, topicID: rt.TopicID, metadata: deref(p.Metadata),
			}
			if txn != nil {
				m.emitPending(g, rt.Topic, o, txn)
			} else {
				m.emitOffset(g, rt.Topic, o)
			}
		}
		if g != nil && g.offsets[rt.Topic] != nil {
			at.Topic = g.offsets[rt.Topic].name
		} else {
			at.Topic = strings.Clone(rt.Topic)
		}
	}
	if !known && g != nil && len(g.offsets) == 0 && len(g.txns) == 0 {
		m.forget(g) // nothing of a first commit was good: the group was never there
	}
	m.answer(t, resp)
}

func leaderEpoch(version int16, p *kmsg.OffsetCommitRequestTopicPartition) int32 {
	if version < 6 {
		return -1
	}
	return p.LeaderEpoch
}

// checkCommit says who may commit; it creates the group of a first simple commit.
func (m *Machine) checkCommit(req *kmsg.OffsetCommitRequest, txn bool) (*grp, *kerr.Error) {
	if len(req.Group) > maxString {
		return nil, kerr.InvalidGroupID
	}
	for i := range req.Topics {
		if len(req.Topics[i].Topic) > maxString {
			return nil, kerr.InvalidTopicException
		}
	}
	if _, foreign := m.foreign[req.Group]; foreign {
		return nil, kerr.UnknownMemberID
	}
	g := m.groups[req.Group]
	if g == nil {
		switch {
		case req.Generation < 0:
			g = newGroup(strings.Clone(req.Group), m.now.UnixMilli())
			m.groups[g.id] = g
			m.armSweep()
			return g, nil
		case req.Version >= 9:
			return nil, kerr.GroupIDNotFound
		}
		return nil, kerr.IllegalGeneration // what clients before version 9 understand
	}
	if req.Generation < 0 && g.state == Empty {
		return g, nil
	}
	if req.Generation < 0 && req.MemberID == "" && req.InstanceID == nil {
		if txn {
			return g, nil // producers before KIP-447 do not say who consumes
		}
		return nil, kerr.UnknownMemberID // a stranger may not move the offsets of a living group
	}
	if err := g.check(req.MemberID, req.InstanceID); err != nil {
		return nil, err
	}
	if req.Generation != g.generation {
		return nil, kerr.IllegalGeneration
	}
	if g.state == CompletingRebalance && !txn {
		return nil, kerr.RebalanceInProgress
	}
	m.touch(g.members[req.MemberID])
	return g, nil
}

// stepFetch is one group of OffsetFetch. An unknown partition has offset -1 and no error.
func (m *Machine) stepFetch(t Token, ev FetchOffsets) {
	resp := kmsg.NewOffsetFetchResponseGroup()
	resp.Group = strings.Clone(ev.Group.Group)
	resp.Topics = []kmsg.OffsetFetchResponseGroupTopic{}
	g := m.groups[ev.Group.Group]
	if ev.Group.Topics != nil {
		resp.Topics = make([]kmsg.OffsetFetchResponseGroupTopic, len(ev.Group.Topics))
		for i := range ev.Group.Topics {
			rt, at := &ev.Group.Topics[i], &resp.Topics[i]
			at.Topic, at.TopicID = strings.Clone(rt.Topic), rt.TopicID
			at.Partitions = make([]kmsg.OffsetFetchResponseGroupTopicPartition, len(rt.Partitions))
			for j, p := range rt.Partitions {
				at.Partitions[j] = m.fetched(g, at.Topic, rt.TopicID, p, ev.RequireStable)
			}
		}
	} else if g != nil {
		for _, name := range det.SortedKeys(g.offsets) {
			to := g.offsets[name]
			at := kmsg.NewOffsetFetchResponseGroupTopic()
			at.Topic, at.TopicID = name, to.parts[0].topicID
			for i := range to.parts {
				at.Partitions = append(at.Partitions, m.fetched(g, name, meta.UUID{}, to.parts[i].partition, ev.RequireStable))
			}
			resp.Topics = append(resp.Topics, at)
		}
	}
	m.answer(t, &resp)
}

func (m *Machine) fetched(g *grp, topic string, id meta.UUID, partition int32, stable bool) kmsg.OffsetFetchResponseGroupTopicPartition {
	p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
	p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = partition, -1, -1, kmsg.StringPtr("")
	if g == nil {
		return p
	}
	if stable && m.unstable(g, topic, partition) {
		p.ErrorCode = kerr.UnstableOffsetCommit.Code
		return p
	}
	o := g.offset(topic, partition)
	if o == nil || !o.topicID.IsZero() && !id.IsZero() && o.topicID != id {
		return p // of an earlier topic of that name, if any
	}
	p.Offset, p.LeaderEpoch = o.offset, o.leaderEpoch
	if o.metadata != "" {
		p.Metadata = kmsg.StringPtr(o.metadata)
	}
	return p
}

// stepDeleteOffsets is OffsetDelete (KIP-496).
func (m *Machine) stepDeleteOffsets(t Token, req *kmsg.OffsetDeleteRequest) {
	resp := kmsg.NewPtrOffsetDeleteResponse()
	resp.Version = req.Version
	resp.Topics = []kmsg.OffsetDeleteResponseTopic{}
	g := m.groups[req.Group]
	switch {
	case req.Group == "":
		resp.ErrorCode = kerr.InvalidGroupID.Code
	case g == nil:
		resp.ErrorCode = kerr.GroupIDNotFound.Code
	case g.state != Empty && g.protocolType != consumerType:
		resp.ErrorCode = kerr.NonEmptyGroup.Code // nobody can say what its members read
	default:
		for i := range req.Topics {
			resp.Topics = append(resp.Topics, m.deleteTopicOffsets(g, &req.Topics[i]))
		}
	}
	m.answer(t, resp)
}

func (m *Machine) deleteTopicOffsets(g *grp, rt *kmsg.OffsetDeleteRequestTopic) kmsg.OffsetDeleteResponseTopic {
	at := kmsg.NewOffsetDeleteResponseTopic()
	at.Topic = strings.Clone(rt.Topic)
	for i := range rt.Partitions {
		p := kmsg.NewOffsetDeleteResponseTopicPartition()
		p.Partition = rt.Partitions[i].Partition
		if g.subscribes(rt.Topic) {
			p.ErrorCode = kerr.GroupSubscribedToTopic.Code
		} else if g.offset(rt.Topic, p.Partition) != nil || m.unstable(g, rt.Topic, p.Partition) {
			m.emitOffsetTombstone(g, at.Topic, p.Partition)
		}
		at.Partitions = append(at.Partitions, p)
	}
	return at
}

// topicsDeleted tombstones the offsets of topics that are gone. A topic that was created again under the
// name keeps what was committed for it.
func (m *Machine) topicsDeleted(topics []DeletedTopic) {
	for _, id := range det.SortedKeys(m.groups) {
		g := m.groups[id]
		for _, gone := range topics {
			m.forgetTopic(g, gone, g.offsets)
			for _, producer := range det.SortedKeys(g.txns) {
				m.forgetTopic(g, gone, m.txns[producer].groups[id])
			}
		}
	}
}

func (m *Machine) forgetTopic(g *grp, gone DeletedTopic, all map[string]*topicOffsets) {
	to := all[gone.Name]
	if to == nil {
		return
	}
	for _, o := range slices.Clone(to.parts) {
		if o.topicID.IsZero() || gone.ID.IsZero() || o.topicID == gone.ID {
			m.emitOffsetTombstone(g, to.name, o.partition)
		}
	}
}
