package txn

import (
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
)

// Config is the limits of one coordinator, from the broker's configuration.
type Config struct {
	MaxTimeout   time.Duration // transaction.max.timeout.ms, 15 min
	IDExpiration time.Duration // transactional.id.expiration.ms, 7 days
	// Epoch is the coordinator epoch that markers carry: the leader epoch of the partition.
	Epoch int32
	// Version is the finalised transaction.version, 0 to 2, until SetVersion.
	Version int16
}

// DefaultConfig is Kafka 4.3's defaults.
func DefaultConfig() Config {
	return Config{MaxTimeout: 15 * time.Minute, IDExpiration: 7 * 24 * time.Hour, Version: 2}
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

// The requests. The machine keeps no reference to them after Step.
type (
	// Init begins or goes on with a transactional id. FreshID is a producer id that nobody has, reserved by the
	// caller; Out.FreshUsed tells whether it was taken. Answer: *kmsg.InitProducerIDResponse.
	Init struct {
		Request *kmsg.InitProducerIDRequest
		FreshID int64
	}
	// Add puts partitions into the transaction, or with Verify only looks whether they are there. V2: the
	// partition's leader asks on behalf of a producer that never says it itself (AddPartitionsToTxn 4 and 5).
	// Answer: []int16, one error code for each partition.
	Add struct {
		TxnID      string
		ProducerID int64
		Epoch      int16
		Partitions []meta.TopicPartition
		Verify     bool
		V2         bool
	}
	// End commits or aborts. Version is that of EndTxn; from 5 on the epoch is raised with every end (KIP-890).
	// FreshID as for Init, for an epoch that is used up. Answer: *kmsg.EndTxnResponse.
	End struct {
		Request *kmsg.EndTxnRequest
		FreshID int64
	}
	// Describe shows one id. Answer: *kmsg.DescribeTransactionsResponseTransactionState.
	Describe struct{ TxnID string }
	// List shows the ids that match. Answer: []kmsg.ListTransactionsResponseTransactionState.
	List struct{ Request *kmsg.ListTransactionsRequest }
)

// What happens around the machine.
type (
	// Written says that the marker stands in these partitions, or that they exist no more. When none is left
	// the transaction is complete.
	Written struct {
		TxnID      string
		ProducerID int64
		Epoch      int16 // of the marker
		Partitions []meta.TopicPartition
	}
	// Fenced says that a partition's leader has heard of a newer coordinator: this one's word counts no more.
	// The shell gives the partition of __transaction_state up; the machine forgets the marker.
	Fenced struct {
		TxnID      string
		ProducerID int64
		Epoch      int16
	}
	// Tick carries only the time; the shell sends it when Wake has come.
	Tick struct{}
)

func (Init) event()     {}
func (Add) event()      {}
func (End) event()      {}
func (Describe) event() {}
func (List) event()     {}
func (Written) event()  {}
func (Fenced) event()   {}
func (Tick) event()     {}

// Record is one record for the partition's log. A nil Value is a tombstone.
type Record struct{ Key, Value []byte }

// Answer is the reply for a token. It may be shown only when the log is committed up to the end of
// the records emitted by the same and all earlier steps.
type Answer struct {
	Token    Token
	Response any // see the event
	// Parked: refused with CONCURRENT_TRANSACTIONS because markers of TxnID are being written. The shell may put
	// the same event in again once Out.Completed names the id, instead of showing the refusal.
	Parked bool
	TxnID  string // with Parked
}

// Marker is what the leaders of partitions are told about the end of a transaction. It may be sent only
// when the records of its step are committed.
type Marker struct {
	TxnID            string
	ProducerID       int64
	Epoch            int16
	CoordinatorEpoch int32
	Commit           bool
	Version          int16 // transaction version: 0 to 2
	Partitions       []meta.TopicPartition
}

// Out is the effects of one Step. Its slices belong to the caller until the next Step.
type Out struct {
	Records   []Record
	Answers   []Answer
	Markers   []Marker
	Completed []string // ids whose markers are all written, by this step
	FreshUsed bool     // the FreshID of the event was taken
}

// Machine is the transaction coordinator of one partition of __transaction_state. It belongs to one goroutine at a time.
type Machine struct {
	cfg    Config
	ids    map[string]*id
	timers timers
	now    det.Instant
	out    Out
}

var _ det.Machine[In, Out] = (*Machine)(nil)

// New makes an empty machine. Feed it the log with Replay, then call Loaded, then Step.
func New(cfg Config) *Machine { return &Machine{cfg: cfg, ids: map[string]*id{}} }

// SetVersion follows the finalised transaction.version: records are written as it says, and what the coordinator
// ends by itself ends by its rules.
func (m *Machine) SetVersion(v int16) { m.cfg.Version = v }

// Len is the number of transactional ids.
func (m *Machine) Len() int { return len(m.ids) }

// Wake is the earliest moment at which a timer may be due.
func (m *Machine) Wake() det.Instant { return m.timers.next() }

// Loaded ends the replay. Markers of every transaction that was decided go out again: nobody knows which of
// them the coordinator before this one has written, and writing one twice does no harm.
func (m *Machine) Loaded(now det.Instant) Out {
	m.begin(now)
	for _, name := range det.SortedKeys(m.ids) {
		t := m.ids[name]
		switch {
		case !t.state.prepared():
			m.arm(t)
		case len(t.parts) == 0:
			m.complete(t)
		default:
			m.mark(t)
		}
	}
	return m.out
}

func (m *Machine) begin(now det.Instant) {
	m.now = max(m.now, now) // a clock that steps back must not lengthen a transaction
	m.out.Records, m.out.Answers, m.out.Markers, m.out.Completed = m.out.Records[:0], m.out.Answers[:0], m.out.Markers[:0], m.out.Completed[:0]
	m.out.FreshUsed = false
}

// Step handles one input: first the timers that are due, then the event.
func (m *Machine) Step(now det.Instant, in In) Out {
	m.begin(now)
	for t := m.timers.expired(m.now); t != nil; t = m.timers.expired(m.now) {
		m.due(t)
	}
	switch ev := in.Event.(type) {
	case Init:
		m.init(in.Token, ev)
	case Add:
		m.add(in.Token, ev)
	case End:
		m.end(in.Token, ev)
	case Describe:
		m.answer(in.Token, m.describe(ev.TxnID))
	case List:
		m.answer(in.Token, m.list(ev.Request))
	case Written:
		m.written(ev)
	case Fenced:
		m.fenced(ev)
	}
	return m.out
}

func (m *Machine) answer(t Token, response any) {
	if t != 0 {
		m.out.Answers = append(m.out.Answers, Answer{Token: t, Response: response})
	}
}

// park is answer for what met markers that are being written.
func (m *Machine) park(t Token, txnID string, response any) {
	if t != 0 {
		m.out.Answers = append(m.out.Answers, Answer{Token: t, Response: response, Parked: true, TxnID: txnID})
	}
}
