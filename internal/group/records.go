package group

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/meta"
)

// Record types of __consumer_offsets, the version in front of every key (kafka.md 5.1).
const (
	typeOffsetV0 int16 = 0
	typeOffset   int16 = 1
	typeGroup    int16 = 2
	// typeConsumer, typeShare and typeStreams are the epoch records of groups of other kinds: one exists as
	// long as the group does.
	typeConsumer int16 = 3
	typeShare    int16 = 11
	typeStreams  int16 = 17
)

// groupValueVersion is the highest version of a group record without tagged fields, which Kafka 4.3 writes.
const groupValueVersion = 3

// maxString is the longest string in a record that is not flexible, and the longest that Kafka reads.
const maxString = math.MaxInt16

// ErrRecord is a record of a known type that does not decode.
var ErrRecord = errors.New("malformed coordinator record")

// emitGroup writes the group as it stands and applies it; members says whether they belong into it.
func (m *Machine) emitGroup(g *grp, members bool) {
	v := kmsg.NewGroupMetadataValue()
	v.Version = groupValueVersion
	v.ProtocolType, v.Generation = g.protocolType, g.generation
	v.Protocol, v.Leader = notEmpty(g.protocol), notEmpty(g.leader)
	v.CurrentStateTimestamp = g.sinceMs
	if members {
		v.Members = make([]kmsg.GroupMetadataValueMember, len(g.order))
		for i, mb := range g.order {
			r := &v.Members[i]
			r.Default()
			r.MemberID, r.InstanceID, r.ClientID, r.ClientHost = mb.id, mb.instanceID(), mb.clientID, mb.clientHost
			r.RebalanceTimeoutMillis, r.SessionTimeoutMillis = mb.rebalanceMs, mb.sessionMs
			r.Subscription, _ = mb.metadata(g.protocol)
			r.Assignment = mb.assignment
		}
	}
	m.emit(groupKey(g.id), v.AppendTo(nil))
	m.applyGroup(g.id, &v)
}

func (m *Machine) emitGroupTombstone(id string) {
	m.emit(groupKey(id), nil)
	m.applyGroup(id, nil)
}

func groupKey(id string) []byte {
	k := kmsg.GroupMetadataKey{Version: typeGroup, Group: id}
	return k.AppendTo(make([]byte, 0, 4+len(id)))
}

func (m *Machine) emit(key, value []byte) {
	m.out.Records = append(m.out.Records, Record{Key: key, Value: value})
	m.next++
}

// emitOffset stores an offset. Kafka 4.3's versions: 4 with a topic id, 1 with an explicit expiry, else 3.
func (m *Machine) emitOffset(g *grp, topic string, o offset) {
	o = m.writeOffset(g, topic, o)
	m.applyOffset(g.id, topic, o)
}

// emitPending stores an offset that counts once the transaction commits.
func (m *Machine) emitPending(g *grp, topic string, o offset, txn *TxnCommit) {
	o = m.writeOffset(g, topic, o)
	r := &m.out.Records[len(m.out.Records)-1]
	r.Transactional, r.ProducerID, r.Epoch = true, txn.ProducerID, txn.Epoch
	m.applyPendingOffset(txn.ProducerID, g.id, topic, o)
}

// writeOffset emits the record of an offset and returns the offset as a reload would find it.
func (m *Machine) writeOffset(g *grp, topic string, o offset) offset {
	o.record = m.next
	from := len(m.arena)
	m.arena = appendOffsetKey(m.arena, g.id, topic, o.partition)
	mid := len(m.arena)
	v := kmsg.OffsetCommitValue{
		Version: 3, Offset: o.offset, LeaderEpoch: o.leaderEpoch, Metadata: o.metadata,
		CommitTimestamp: o.commitMs, ExpireTimestamp: o.expireMs,
	}
	switch {
	case o.expireMs >= 0:
		v.Version = 1
	case !o.topicID.IsZero():
		v.Version, v.TopicID = 4, o.topicID
	}
	if v.Version == 1 { // what a reload would find, so that live and replayed state agree
		o.topicID, o.leaderEpoch = meta.UUID{}, -1
	}
	m.arena = v.AppendTo(m.arena)
	end := len(m.arena)
	m.emit(m.arena[from:mid:mid], m.arena[mid:end:end])
	return o
}

func (m *Machine) emitOffsetTombstone(g *grp, topic string, partition int32) {
	from := len(m.arena)
	m.arena = appendOffsetKey(m.arena, g.id, topic, partition)
	m.emit(m.arena[from:len(m.arena):len(m.arena)], nil)
	m.applyOffsetTombstone(g.id, topic, partition)
}

func appendOffsetKey(dst []byte, group, topic string, partition int32) []byte {
	k := kmsg.OffsetCommitKey{Version: typeOffset, Group: group, Topic: topic, Partition: partition}
	return k.AppendTo(dst)
}

// Replayed is a record read from the log.
type Replayed struct {
	Offset        int64
	ProducerID    int64 // of the batch
	Transactional bool
	Key, Value    []byte // Value nil: tombstone
}

// Replay applies one record of the log, in order. Nothing of r is kept. Records of types that are not
// served here are left alone. A record that does not decode changes nothing and gives ErrRecord.
func (m *Machine) Replay(r Replayed) error {
	m.next = max(m.next, r.Offset+1)
	if len(r.Key) < 2 {
		return fmt.Errorf("%w: key of %d bytes at offset %d", ErrRecord, len(r.Key), r.Offset)
	}
	var err error
	switch typ := int16(binary.BigEndian.Uint16(r.Key)); typ {
	case typeOffsetV0, typeOffset:
		err = m.replayOffset(r)
	case typeGroup:
		err = m.replayGroup(r)
	case typeConsumer, typeShare, typeStreams:
		err = m.replayForeign(typ, r)
	}
	if err != nil {
		return fmt.Errorf("%w: offset %d: %v", ErrRecord, r.Offset, err)
	}
	return nil
}

func (m *Machine) replayOffset(r Replayed) error {
	var k kmsg.OffsetCommitKey
	if err := k.ReadFrom(r.Key); err != nil {
		return err
	}
	if r.Value == nil {
		m.applyOffsetTombstone(k.Group, k.Topic, k.Partition)
		return nil
	}
	v := kmsg.NewOffsetCommitValue()
	v.LeaderEpoch, v.ExpireTimestamp = -1, -1
	if err := readValue(r.Value, 4, v.ReadFrom); err != nil {
		return err
	}
	o := offset{
		partition: k.Partition, leaderEpoch: v.LeaderEpoch, offset: v.Offset, commitMs: v.CommitTimestamp,
		expireMs: v.ExpireTimestamp, topicID: v.TopicID, metadata: v.Metadata, record: r.Offset,
	}
	if v.Version < 3 {
		o.leaderEpoch = -1
	}
	if v.Version != 1 {
		o.expireMs = -1
	}
	if r.Transactional {
		m.applyPendingOffset(r.ProducerID, k.Group, k.Topic, o)
	} else {
		m.applyOffset(k.Group, k.Topic, o)
	}
	return nil
}

func (m *Machine) replayGroup(r Replayed) error {
	var k kmsg.GroupMetadataKey
	if err := k.ReadFrom(r.Key); err != nil {
		return err
	}
	if r.Value == nil {
		m.applyGroup(k.Group, nil)
		return nil
	}
	v := kmsg.NewGroupMetadataValue()
	if err := readValue(bytes.Clone(r.Value), 4, v.ReadFrom); err != nil { // members' bytes alias the clone
		return err
	}
	seen := make(map[string]struct{}, len(v.Members))
	for i := range v.Members {
		mb := &v.Members[i]
		if _, twice := seen[mb.MemberID]; twice || mb.MemberID == "" {
			return fmt.Errorf("member %q", mb.MemberID)
		}
		seen[mb.MemberID] = struct{}{}
		if mb.InstanceID != nil {
			// Distinguished from member ids by a byte no valid string holds.
			key := "\xff" + *mb.InstanceID
			if _, twice := seen[key]; twice {
				return fmt.Errorf("instance %q", *mb.InstanceID)
			}
			seen[key] = struct{}{}
		}
	}
	m.applyGroup(k.Group, &v)
	return nil
}

// replayForeign remembers which names belong to groups of other kinds.
func (m *Machine) replayForeign(typ int16, r Replayed) error {
	k := kmsg.GroupMetadataKey{} // the layout is the same: version, group
	if err := k.ReadFrom(r.Key); err != nil {
		return err
	}
	switch {
	case r.Value != nil:
		m.foreign[k.Group] = typ
	case m.foreign[k.Group] == typ:
		delete(m.foreign, k.Group)
	}
	return nil
}

// readValue decodes a value whose version lies within what is known.
func readValue(b []byte, highest int16, read func([]byte) error) error {
	if len(b) < 2 {
		return fmt.Errorf("value of %d bytes", len(b))
	}
	if v := int16(binary.BigEndian.Uint16(b)); v < 0 || v > highest {
		return fmt.Errorf("value version %d", v)
	}
	return read(b)
}

// ReplayMarker applies the end of a transaction.
func (m *Machine) ReplayMarker(offset, producerID int64, commit bool) {
	m.next = max(m.next, offset+1)
	m.applyMarker(producerID, commit)
}

// applyGroup makes v the stored state of the group, nil removes the group. The one place where it changes.
func (m *Machine) applyGroup(id string, v *kmsg.GroupMetadataValue) {
	g := m.groups[id]
	if v == nil {
		if g != nil {
			m.forget(g)
		}
		return
	}
	if g == nil {
		g = newGroup(strings.Clone(id), -1)
		m.groups[g.id] = g
	}
	g.stored = v
}

// forget removes a group. Offsets that a log holds without their group bring it back as a simple one.
func (m *Machine) forget(g *grp) {
	g.stored = nil
	for _, p := range g.pending {
		m.timers.clear(&p.session)
	}
	m.timers.clear(&g.join)
	m.timers.clear(&g.sync)
	if len(g.offsets) == 0 && len(g.txns) == 0 {
		delete(m.groups, g.id)
	}
}

// restore builds the volatile side from what is stored.
func (g *grp) restore() {
	v := g.stored
	if v == nil {
		return
	}
	g.generation, g.protocolType, g.sinceMs = v.Generation, v.ProtocolType, v.CurrentStateTimestamp
	g.protocol, g.leader = deref(v.Protocol), deref(v.Leader)
	for i := range v.Members {
		r := &v.Members[i]
		mb := &member{
			id: r.MemberID, clientID: r.ClientID, clientHost: r.ClientHost,
			rebalanceMs: r.RebalanceTimeoutMillis, sessionMs: r.SessionTimeoutMillis,
			protocols:  []protocol{{name: g.protocol, metadata: r.Subscription}},
			assignment: r.Assignment,
		}
		if mb.rebalanceMs < 0 {
			mb.rebalanceMs = mb.sessionMs // records before version 1
		}
		if r.InstanceID != nil {
			mb.static, mb.instance = true, *r.InstanceID
		}
		mb.session = newTimer(timerSession, g)
		mb.session.member = mb
		g.add(mb)
		g.state = Stable
	}
	g.refreshSubscribed()
}

func notEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return kmsg.StringPtr(s)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
