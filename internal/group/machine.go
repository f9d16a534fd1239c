package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

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
func (FetchOffsets) event()  {}
func (DeleteOffsets) event() {}
func (Describe) event()      {}
func (List) event()          {}
func (Delete) event()        {}
func (TopicsDeleted) event() {}
func (Tick) event()          {}

// Record is one record for the partition's log. A nil Value is a tombstone.
type Record struct{ Key, Value []byte }

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
