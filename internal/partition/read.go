package partition

import (
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/isr"
	"github.com/milena-mq/milena/internal/producer"
	"github.com/milena-mq/milena/internal/storage"
)

// Consumer is the replica id of a reader that is no broker.
const Consumer int32 = -1

// ReadRequest asks for the batches from an offset on.
type ReadRequest struct {
	Offset      int64
	MaxBytes    int         // soft: see AtLeastOne; 0 reads nothing
	AtLeastOne  bool        // the first batch comes whole even when it is larger (trap 15)
	Committed   bool        // up to the last stable offset only, with the list of aborted transactions
	Epoch       int32       // the leader epoch the reader believes in, -1 for none
	LastEpoch   int32       // epoch of the last record it has, -1 for none
	Replica     int32       // a broker id: the fetch of a follower; below 0 a consumer
	BrokerEpoch int64       // of the replica, -1 for none
	LogStart    int64       // of the replica, -1 for none
	At          det.Instant // when the fetch came, by the Set's clock; 0: it is looked up
	// Again says that this is the second look of a fetch that waited: what the follower has was counted at
	// the first one, and it may have fetched again since, over another connection.
	Again bool
	// Follower says that a consumer may be answered by a follower (KIP-392, Fetch 11 and above).
	Follower bool
}

// ReadResult is what a read found. The slice holds its file until released.
type ReadResult struct {
	Slice    storage.Slice
	HW       int64 // -1 when unknown because of an error
	LSO      int64
	LogStart int64
	Epoch    int32 // leader epoch that answered
	Aborted  []storage.AbortedTxn

	// Diverging says that the reader's last record is not in this log; DivergingEpoch and DivergingEnd
	// are where to look next (KIP-595). Nothing is read then.
	Diverging      bool
	DivergingEpoch int32
	DivergingEnd   int64

	// Unsure says that this leader is new and its high watermark has not yet reached the start of its epoch: what lies below
	// it is as true as ever, but to tell a consumer where it stands would let it fall back (I9).
	Unsure bool

	replica bool  // it was read for a follower
	news    bool  // that follower has not been told this high watermark, and serves consumers up to it
	mark    int64 // cumulative bytes when it was read: readable ones, for a follower appended ones
}

// Read finds a range of whole batches. Between the bound and the log end it finds nothing, which is no
// error; outside [log start, log end] it answers OFFSET_OUT_OF_RANGE (traps 6 and 15). For a replica the
// offset asked for is its acknowledgement of everything below (kafka.md 4.6): it is counted before the read,
// so that the answer already carries the high watermark it caused.
func (p *Partition) Read(r ReadRequest) (ReadResult, error) {
	out, err := p.open(&r)
	if err != nil {
		return ReadResult{}, err
	}
	out.LSO = min(out.HW, p.unstable.Load())
	out.LogStart = p.log.Start()
	if r.LastEpoch >= 0 {
		if d, err := p.diverges(r, &out); d || err != nil {
			return out, err
		}
	}
	end := p.log.End()
	if r.Offset < out.LogStart || r.Offset > end {
		return ReadResult{}, kerr.OffsetOutOfRange
	}
	bound := out.HW
	switch {
	case r.Replica >= 0:
		if !r.Again {
			out.HW = p.fetched(&r, out.Epoch, out.HW)
		}
		out.news = p.told(r.Replica, out.HW)
		bound = end
		if n := p.allowed(&r); n == 0 {
			bound = r.Offset
		} else {
			r.MaxBytes = int(min(int64(r.MaxBytes), n))
		}
	case r.Committed:
		bound = out.LSO
	}
	if r.Offset < bound && (r.MaxBytes > 0 || r.AtLeastOne) {
		s, err := p.log.Read(r.Offset, r.MaxBytes, bound, r.AtLeastOne)
		if err != nil {
			p.set.storageError(p, err)
			return ReadResult{}, err
		}
		out.Slice = s
		p.sent(&r, s.Len)
	}
	if r.Committed && r.Replica < 0 {
		if err := p.aborted(r, &out, bound); err != nil {
			out.Slice.Release()
			return ReadResult{}, err
		}
	}
	return out, nil
}

// open checks who asks whom, and notes where the partition stands.
func (p *Partition) open(r *ReadRequest) (ReadResult, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.leadsLocked(r.Epoch)
	if err == kerr.NotLeaderForPartition && r.Follower && r.Replica < 0 && p.mu.follower != nil && p.set.followersServe.Load() {
		// Its high watermark never passes the leader's, so that the consumer sees nothing too early. Without a
		// replica selector nobody is sent here: whoever comes believes in an old leader, and would be shown an older
		// high watermark than before (invariant I9).
		err = nil
	}
	if err != nil {
		return ReadResult{}, err
	}
	out := ReadResult{HW: p.hw.Load(), Epoch: p.mu.epoch, mark: p.mu.bytes}
	if r.Replica < 0 {
		out.Unsure = p.mu.leader != nil && !p.mu.leader.CaughtUp()
		return out, nil
	}
	// The leader does not fetch from itself: its own id comes from a client, which would be shown what is not durable.
	if r.Replica == p.set.o.NodeID || !assigned(p.mu.leader.Assignment().Replicas, r.Replica) {
		if r.Epoch >= 0 {
			return ReadResult{}, kerr.UnknownLeaderEpoch // it knows an assignment that is still to come here
		}
		return ReadResult{}, kerr.NotLeaderForPartition
	}
	out.replica, out.mark = true, p.mu.written
	return out, nil
}

// fetched counts a follower's fetch and returns the high watermark after it.
func (p *Partition) fetched(r *ReadRequest, epoch int32, hw int64) int64 {
	p.mu.Lock()
	l := p.mu.leader
	if l == nil || p.mu.epoch != epoch {
		p.mu.Unlock()
		return hw
	}
	behind := r.LogStart >= 0 && r.LogStart < p.log.Start()
	at := r.At
	if at == 0 {
		at = p.set.instant()
	}
	due := p.raisedLocked(l.Step(at, isr.In{Kind: isr.Fetched, Replica: r.Replica, Offset: r.Offset, BrokerEpoch: r.BrokerEpoch, Behind: behind}), nil)
	due = p.startedLocked(r.Replica, r.LogStart, due)
	hw = l.HW()
	p.mu.Unlock()
	endAll(due, nil)
	if hw != p.log.HW() {
		p.publishHW()
	}
	return hw
}

// told notes that a follower is told a high watermark; true when that is news and consumers may read there.
func (p *Partition) told(replica int32, hw int64) bool {
	if !p.set.followersServe.Load() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if was, ok := p.mu.told[replica]; ok && was == hw {
		return false
	}
	if p.mu.told == nil {
		p.mu.told = make(map[int32]int64, 2)
	}
	p.mu.told[replica] = hw
	return true
}

// aborted lists the transactions that a reader of the range has to drop, nil when there are none.
func (p *Partition) aborted(r ReadRequest, out *ReadResult, bound int64) error {
	if out.Slice.Len == 0 {
		return nil
	}
	list, err := p.log.Aborted(r.Offset, min(out.Slice.Next, bound))
	if err != nil {
		p.set.storageError(p, err)
		return err
	}
	out.Aborted = list
	return nil
}

// diverges compares the reader's last epoch with this log (kafka.md 3.8).
func (p *Partition) diverges(r ReadRequest, out *ReadResult) (bool, error) {
	epoch, end := p.log.EpochEnd(r.LastEpoch)
	if epoch < 0 || end < 0 {
		// Nothing is known of any epoch up to that one: the reader is asked to look at its offset.
		return false, kerr.OffsetOutOfRange
	}
	if epoch < r.LastEpoch || end < r.Offset {
		out.Diverging, out.DivergingEpoch, out.DivergingEnd = true, epoch, end
		return true, nil
	}
	if start := p.log.Start(); r.Replica >= 0 && r.Offset == start && r.LastEpoch < p.log.EpochAt(start) {
		// The follower's records all lie below this log, and their epochs are forgotten here: it begins anew.
		return false, kerr.OffsetOutOfRange
	}
	return false, nil
}

func assigned(replicas []int32, id int32) bool {
	for _, r := range replicas {
		if r == id {
			return true
		}
	}
	return false
}

// The sentinels of ListOffsets.
const (
	Latest                int64 = -1
	Earliest              int64 = -2
	MaxTimestamp          int64 = -3
	EarliestLocal         int64 = -4
	LatestTiered          int64 = -5
	EarliestPendingUpload int64 = -6
)

// OffsetQuery asks ListOffsets' question of one partition.
type OffsetQuery struct {
	Timestamp int64 // ms, or a sentinel
	Committed bool
	Epoch     int32 // the leader epoch the client believes in, -1 for none
	Replica   int32 // below 0 a consumer
}

// Offset is its answer: -1 for what is not there.
type Offset struct {
	Offset, Timestamp int64
	Epoch             int32
}

// OffsetFor finds the offset for a timestamp. OFFSET_NOT_AVAILABLE means that this leader is new and
// its high watermark has not yet reached the start of its epoch, so that any offset it named might be
// lower than one named before (trap 14).
func (p *Partition) OffsetFor(q OffsetQuery) (Offset, error) {
	none := Offset{Offset: -1, Timestamp: -1, Epoch: -1}
	p.mu.Lock()
	if err := p.leadsLocked(q.Epoch); err != nil {
		p.mu.Unlock()
		return none, err
	}
	hw, epoch, caughtUp := p.mu.leader.HW(), p.mu.epoch, p.mu.leader.CaughtUp()
	p.mu.Unlock()
	bound := hw
	switch {
	case q.Replica >= 0:
		bound, caughtUp = p.log.End(), true
	case q.Committed:
		bound = min(hw, p.unstable.Load())
	}
	switch q.Timestamp {
	case Latest:
		if !caughtUp {
			return none, kerr.OffsetNotAvailable
		}
		return Offset{Offset: bound, Timestamp: -1, Epoch: epoch}, nil
	case Earliest, EarliestLocal:
		start := p.log.Start()
		return Offset{Offset: start, Timestamp: -1, Epoch: p.log.EpochAt(start)}, nil
	case LatestTiered, EarliestPendingUpload:
		return none, nil // nothing is tiered
	case MaxTimestamp:
		off, ts, e, ok, err := p.log.MaxTimestamp(bound)
		return p.found(off, ts, e, ok, err)
	}
	if q.Timestamp < 0 {
		return none, kerr.UnsupportedVersion
	}
	off, ts, e, ok, err := p.log.LookupTime(q.Timestamp, bound)
	if err == nil && !ok && !caughtUp {
		return none, kerr.OffsetNotAvailable // it may lie in what is not yet below the high watermark
	}
	return p.found(off, ts, e, ok, err)
}

func (p *Partition) found(off, ts int64, epoch int32, ok bool, err error) (Offset, error) {
	if err != nil {
		p.set.storageError(p, err)
	}
	if err != nil || !ok {
		return Offset{Offset: -1, Timestamp: -1, Epoch: -1}, err
	}
	return Offset{Offset: off, Timestamp: ts, Epoch: epoch}, nil
}

// EpochEnd answers OffsetForLeaderEpoch: the largest epoch not above the asked one and where it ends;
// -1, -1 when none is known (kafka.md 3.7).
func (p *Partition) EpochEnd(current, asked int32) (epoch int32, end int64, err error) {
	p.mu.Lock()
	err = p.leadsLocked(current)
	p.mu.Unlock()
	if err != nil {
		return -1, -1, err
	}
	epoch, end = p.log.EpochEnd(asked)
	return epoch, end, nil
}

// DeleteRecords raises the log start to offset, -1 for the high watermark, and returns the low
// watermark: the smallest log start of the live replicas, which on one broker is its own. Errors:
// OFFSET_OUT_OF_RANGE above the high watermark, POLICY_VIOLATION when the topic is compacted only
// (kafka.md 3.10). The new start is durable, and seen by others, after Set.SyncStarts.
func (p *Partition) DeleteRecords(offset, nowMs int64) (low int64, err error) {
	p.mu.Lock()
	err = p.leadsLocked(-1)
	p.mu.Unlock()
	if err != nil {
		return -1, err
	}
	if c := p.topic.cfg.Load().Log; c.Compact && !c.Delete {
		return -1, kerr.PolicyViolation // an empty cleanup.policy, which neither compacts nor deletes, does not refuse
	}
	hw := p.hw.Load()
	if offset == -1 {
		offset = hw
	}
	if offset < 0 || offset > hw {
		return -1, kerr.OffsetOutOfRange
	}
	if offset > p.log.Start() {
		if err := p.log.RaiseStart(offset, nowMs); err != nil {
			p.set.storageError(p, err)
			return -1, err
		}
	}
	return p.log.StartAsked(), nil
}

// Producers lists the producers the partition remembers, by id. Every replica has them: kafka-transactions asks brokers
// for the partitions of which they hold a replica (KIP-664).
func (p *Partition) Producers() ([]producer.State, error) {
	p.mu.Lock()
	err := p.mu.gone
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var out []producer.State
	p.log.Producers(func(t *producer.Table) { out = t.Active() })
	return out, nil
}
