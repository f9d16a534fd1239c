package group

import (
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
)

// Config is the limits of one coordinator, from the broker's configuration (kafka.md 2.3).
type Config struct {
	MinSessionTimeout      time.Duration // group.min.session.timeout.ms, 6 s
	MaxSessionTimeout      time.Duration // group.max.session.timeout.ms, 30 min
	InitialRebalanceDelay  time.Duration // group.initial.rebalance.delay.ms, 3 s
	MaxSize                int           // group.max.size, members of one group
	OffsetMetadataMaxBytes int           // offset.metadata.max.bytes, 4096
	OffsetsRetention       time.Duration // offsets.retention.minutes, 7 days
	OffsetsCheckInterval   time.Duration // offsets.retention.check.interval.ms, 10 min
	MaxRecordBytes         int           // largest group metadata value worth appending; what the partition's max.message.bytes leaves room for
}

// DefaultConfig is Kafka 4.3's defaults.
func DefaultConfig() Config {
	return Config{
		MinSessionTimeout:      6 * time.Second,
		MaxSessionTimeout:      30 * time.Minute,
		InitialRebalanceDelay:  3 * time.Second,
		MaxSize:                1<<31 - 1,
		OffsetMetadataMaxBytes: 4096,
		OffsetsRetention:       7 * 24 * time.Hour,
		OffsetsCheckInterval:   10 * time.Minute,
		MaxRecordBytes:         1 << 20,
	}
}

// Token names one waiting caller. The shell chooses it; 0 means that nobody waits.
type Token uint64

// In is one input of a Machine.
type In struct {
	Token Token
	Event Event
}

// Event is what happened. The concrete types are the ones below; nothing outside adds one.
type Event interface{ event() }

// The requests of the classic protocol. The machine keeps no reference to the request after Step:
// its strings and bytes may lie in a buffer that is used again.
type (
	// Join asks for a place in the next generation. Answer: *kmsg.JoinGroupResponse, perhaps much later.
	Join struct {
		Request              *kmsg.JoinGroupRequest
		ClientID, ClientHost string
		NewID                string // a fresh random UUID, used when a member id has to be made
	}
	// Sync hands in or asks for the assignment. Answer: *kmsg.SyncGroupResponse, perhaps later.
	Sync struct{ Request *kmsg.SyncGroupRequest }
	// Heartbeat refreshes a session. Answer: *kmsg.HeartbeatResponse.
	Heartbeat struct{ Request *kmsg.HeartbeatRequest }
	// Leave removes members. Answer: *kmsg.LeaveGroupResponse.
	Leave struct{ Request *kmsg.LeaveGroupRequest }
)

// The requests about offsets.
type (
	// Commit stores offsets. The caller has filled in both Topic and TopicID of every topic (a zero id:
	// not known) and leaves only the partitions that exist. Answer: *kmsg.OffsetCommitResponse.
	Commit struct{ Request *kmsg.OffsetCommitRequest }
	// TxnCommit stores offsets that count once the producer's transaction commits (KIP-98, KIP-447). Request as for
	// Commit, with generation -1 where the client says none. The caller has seen to it that this partition is in
	// the transaction. Answer: *kmsg.OffsetCommitResponse.
	TxnCommit struct {
		Request    *kmsg.OffsetCommitRequest
		ProducerID int64
		Epoch      int16
	}
	// FetchOffsets reads committed offsets of one group; Group.Topics nil means all. Topic and TopicID of
	// each topic are filled in as for Commit. Answer: *kmsg.OffsetFetchResponseGroup, with topic ids
	// where stored.
	FetchOffsets struct {
		Group         kmsg.OffsetFetchRequestGroup
		RequireStable bool
	}
	// DeleteOffsets forgets offsets of topics the group is not subscribed to. Answer: *kmsg.OffsetDeleteResponse.
	DeleteOffsets struct{ Request *kmsg.OffsetDeleteRequest }
)

// The requests of operators.
type (
	// Describe shows one group. Answer: *kmsg.DescribeGroupsResponseGroup.
	Describe struct {
		Group   string
		Version int16 // of DescribeGroups; from 6 an unknown group is an error
	}
	// List names the groups of this machine that match; empty filters match all. States and types are
	// compared without regard to case. Answer: []kmsg.ListGroupsResponseGroup.
	List struct{ States, Types []string }
	// Delete removes an empty group with its offsets. Answer: *kmsg.DeleteGroupsResponseGroup.
	Delete struct{ Group string }
)

// What happens around the machine.
type (
	// TopicsDeleted tombstones the offsets of topics that are gone.
	TopicsDeleted struct{ Topics []DeletedTopic }
	// Tick carries only the time; the shell sends it when Wake has come.
	Tick struct{}
)

// DeletedTopic is one incarnation of a topic.
type DeletedTopic struct {
	Name string
	ID   meta.UUID
}

func (Join) event()          {}
func (Sync) event()          {}
func (Heartbeat) event()     {}
func (Leave) event()         {}
func (Commit) event()        {}
func (TxnCommit) event()     {}
func (FetchOffsets) event()  {}
func (DeleteOffsets) event() {}
func (Describe) event()      {}
func (List) event()          {}
func (Delete) event()        {}
func (TopicsDeleted) event() {}
func (Tick) event()          {}

// Record is one record for the partition's log. A nil Value is a tombstone. With Transactional it belongs into a
// transactional batch of the producer, alone or with others of the same one.
type Record struct {
	Key, Value    []byte
	Transactional bool
	ProducerID    int64
	Epoch         int16
}

// Answer is the reply for a token. It may be shown only when the log is committed up to the end of
// the records emitted by the same and all earlier steps.
type Answer struct {
	Token    Token
	Response any // see the event
}

// Out is the effects of one Step. Its slices belong to the caller until the next Step.
type Out struct {
	Records []Record
	Answers []Answer
}

// Machine is the group coordinator of one partition of __consumer_offsets. It belongs to one goroutine at a time.
type Machine struct {
	cfg     Config
	groups  map[string]*grp
	foreign map[string]int16 // groups of kinds not served here, by record type of their epoch
	txns    map[int64]*txn   // open transactions with pending offsets, by producer id

	timers timers
	sweep  timer
	now    det.Instant // of the step in progress
	next   int64       // offset of the next record emitted
	arena  []byte      // bytes of the records of the step in progress
	out    Out
}

var _ det.Machine[In, Out] = (*Machine)(nil)

// New makes an empty machine. Feed it the log with Replay and ReplayMarker, then call Loaded, then Step.
func New(cfg Config) *Machine {
	return &Machine{
		cfg: cfg, groups: map[string]*grp{}, foreign: map[string]int16{}, txns: map[int64]*txn{},
		sweep: newTimer(timerSweep, nil),
	}
}

// SetNext tells the machine which offset the next record it emits will get. The shell calls it after
// loading and whenever an append landed elsewhere than expected; offsets never go back.
func (m *Machine) SetNext(offset int64) { m.next = max(m.next, offset) }

// Next is the offset the next record is expected to get.
func (m *Machine) Next() int64 { return m.next }

// Loaded ends the replay: groups come up Empty or Stable, and every member's session begins anew.
func (m *Machine) Loaded(now det.Instant) Out {
	m.begin(now)
	for _, id := range det.SortedKeys(m.groups) {
		g := m.groups[id]
		g.restore()
		for _, mb := range g.order {
			m.touch(mb)
		}
		if len(g.order) > m.cfg.MaxSize {
			m.prepareRebalance(g) // the limit was lowered: the last to rejoin are turned away
		}
	}
	m.armSweep()
	return m.out
}

// Wake is the earliest moment at which a timer may be due, Never without timers.
func (m *Machine) Wake() det.Instant { return m.timers.next() }

func (m *Machine) begin(now det.Instant) {
	m.now = max(m.now, now) // a clock that steps back must not shorten a session
	m.arena = nil
	m.out.Records, m.out.Answers = m.out.Records[:0], m.out.Answers[:0]
}

// Step handles one input: first the timers that are due, then the event. See Out for what becomes of the result.
func (m *Machine) Step(now det.Instant, in In) Out {
	m.begin(now)
	for t := m.timers.expired(m.now); t != nil; t = m.timers.expired(m.now) {
		m.fire(t)
	}
	switch ev := in.Event.(type) {
	case Join:
		m.stepJoin(in.Token, ev)
	case Sync:
		m.stepSync(in.Token, ev.Request)
	case Heartbeat:
		m.stepHeartbeat(in.Token, ev.Request)
	case Leave:
		m.stepLeave(in.Token, ev.Request)
	case Commit:
		m.stepCommit(in.Token, ev.Request, nil)
	case TxnCommit:
		m.stepCommit(in.Token, ev.Request, &ev)
	case FetchOffsets:
		m.stepFetch(in.Token, ev)
	case DeleteOffsets:
		m.stepDeleteOffsets(in.Token, ev.Request)
	case Describe:
		m.answer(in.Token, m.describe(ev))
	case List:
		m.answer(in.Token, m.list(ev))
	case Delete:
		m.answer(in.Token, m.deleteGroup(ev.Group))
	case TopicsDeleted:
		m.topicsDeleted(ev.Topics)
	}
	return m.out
}

func (m *Machine) fire(t *timer) {
	switch t.kind {
	case timerSession:
		m.sessionDue(t)
	case timerJoin:
		m.joinDue(t.group)
	case timerSync:
		m.syncDue(t.group)
	case timerSweep:
		m.sweepOffsets()
	}
}

func (m *Machine) answer(t Token, response any) {
	if t != 0 {
		m.out.Answers = append(m.out.Answers, Answer{Token: t, Response: response})
	}
}

// armSweep makes sure that offsets are looked over while there are groups at all.
func (m *Machine) armSweep() {
	if m.sweep.due == det.Never && len(m.groups) > 0 {
		m.timers.set(&m.sweep, m.now.Add(m.cfg.OffsetsCheckInterval))
	}
}

func cloneString(s string) string { return strings.Clone(s) }

func cloneStringPtr(s *string) *string {
	if s == nil {
		return nil
	}
	return kmsg.StringPtr(strings.Clone(*s))
}
