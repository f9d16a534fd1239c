package api

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/session"
	"github.com/milena-mq/milena/internal/storage"
)

// Fetch (key 1), versions 4-18.
//
// A fetch is answered at once when its maximal wait is zero, it asks for nothing, enough bytes are there,
// or a partition has an error or a diverging epoch; otherwise it waits for bytes without a goroutine and
// reads again when they came or the time is up (kafka.md 3.9). Sizes are soft: the first batch of the first
// partition that has one is whole whatever it weighs (trap 15). Records go from the file to the socket.
//
//	v5   log start offset (KIP-107)     v7   sessions (KIP-227)
//	v9   leader epochs (KIP-320)        v10  zstd
//	v11  rack: the leader names a replica near the consumer, and followers serve consumers (KIP-392)
//	v12  diverging epochs (KIP-595)     v13  topic ids (KIP-516)
//	v15  replica state (KIP-903)        v16  the new leader (KIP-951)
//	v17, v18  tagged fields for controllers only
//
// A fetch with a broker's id is a follower's, and what it asks for is what it has on disk: it moves the high
// watermark. So it is taken on the peer listener only (CLUSTER_AUTHORIZATION_FAILED elsewhere). It reads to the log
// end, waits for appends, not for the high watermark, and its session is worth more than a consumer's.

// fetchRead is one partition of a fetch under way.
type fetchRead struct {
	p     *partition.Partition // nil when it could not be found
	topic *meta.Topic
	code  int16
	r     partition.ReadResult

	preferred int32 // the replica to be read from instead; -1: none
	had       bool  // too few bytes were found at the first look and given back
}

// fetchPartBytes is what one partition costs: twice its session entry, its read, its place in the long poll, its part of the answer.
const fetchPartBytes = 896

// fetchWork is one Fetch on its way.
type fetchWork struct {
	c        *Call
	req      *kmsg.FetchRequest
	ctx      *session.Context
	parts    []session.Partition
	reads    []fetchRead
	poll     *partition.LongPoll
	maxBytes int
	replica  int32
	at       det.Instant // the moment that counts for a follower's progress
	answer   fetchAnswer
}

func serveFetch(c *Call) server.Reply {
	req := c.Request.(*kmsg.FetchRequest)
	w := &fetchWork{c: c, req: req, replica: req.ReplicaID}
	if req.Version >= 15 {
		w.replica = req.ReplicaState.ID
	}
	if w.replica >= 0 && !c.Conn.Peer() {
		return c.refused(kerr.ClusterAuthorizationFailed)
	}
	w.at = det.At(c.Clock())
	ctx, err := c.Sessions.Open(c.Now.UnixMilli(), w.sessionRequest())
	if err != nil {
		w.answer.code = c.errorCode(err)
		return c.custom(server.Reply{Encode: w.encodeError})
	}
	w.ctx = ctx
	if err := c.reserve(ctx.Len(), fetchPartBytes); err != nil {
		return c.hangUp(err)
	}
	w.parts = ctx.Append(nil)
	w.reads = make([]fetchRead, len(w.parts))
	w.maxBytes = int(min(req.MaxBytes, config.FetchMaxBytes.Of(config.Layers{Static: c.Static})))
	have, now := w.read(false)
	missing := min(int64(req.MinBytes), int64(w.maxBytes)) - have
	if now || missing <= 0 || req.MaxWaitMillis <= 0 {
		return c.custom(server.Reply{Encode: w.encode, Finish: w})
	}
	w.wait(missing)
	// A follower that has something new to ask does not wait for what it asked before.
	ctx.OnSuperseded(w.poll.Close)
	return c.custom(server.Reply{Ready: w.poll.Ready(), Encode: w.encodeLater, Finish: w})
}

// sessionRequest turns the request into the session's terms. Before version 7 there are no sessions.
func (w *fetchWork) sessionRequest() session.Request {
	r := session.Request{Epoch: -1, UsesIDs: w.req.Version >= 13, Follower: w.replica >= 0}
	if w.req.Version >= 7 {
		r.ID, r.Epoch = w.req.SessionID, w.req.SessionEpoch
	}
	n := 0
	for i := range w.req.Topics {
		n += len(w.req.Topics[i].Partitions)
	}
	r.Partitions = make([]session.Partition, 0, n)
	for i := range w.req.Topics {
		t := &w.req.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			r.Partitions = append(r.Partitions, session.Partition{
				Key:         session.Key{ID: t.TopicID, Topic: t.Topic, Partition: p.Partition},
				FetchOffset: p.FetchOffset, LogStart: p.LogStartOffset, MaxBytes: p.PartitionMaxBytes,
				LeaderEpoch: p.CurrentLeaderEpoch, LastFetchedEpoch: p.LastFetchedEpoch,
			})
		}
	}
	for i := range w.req.ForgottenTopics {
		t := &w.req.ForgottenTopics[i]
		for _, p := range t.Partitions {
			r.Forgotten = append(r.Forgotten, session.Key{ID: t.TopicID, Topic: t.Topic, Partition: p})
		}
	}
	return r
}

// read reads every partition once, in the order of the session. now says that the answer must not wait; again, that
// this is the second look of a fetch that has waited.
func (w *fetchWork) read(again bool) (have int64, now bool) {
	now = len(w.parts) == 0
	left, any := int64(w.maxBytes), false
	byID := w.req.Version >= 13
	var mt *meta.Topic
	last := -1 // the partition that mt belongs to
	for i := range w.parts {
		sp, rd := &w.parts[i], &w.reads[i]
		if again && !rd.had && !w.poll.Touched(i) {
			continue // it is as it was
		}
		if last < 0 || sp.Topic != w.parts[last].Topic || sp.ID != w.parts[last].ID {
			mt, last = w.c.topicOf(sp.Topic, sp.ID, byID), i
		}
		*rd = fetchRead{topic: mt, preferred: -1}
		if mt == nil {
			rd.code, now = unknownTopic(byID), true
			continue
		}
		n, err := w.readOne(sp, rd, left, !any, again)
		if err != nil {
			rd.code, now = w.code(err), true
			continue
		}
		now = now || rd.r.Diverging || rd.preferred >= 0
		any = any || n > 0
		have += n
		left = max(left-n, 0)
	}
	if w.replica < 0 && !w.c.current() {
		now = w.disown() || now
	}
	return have, now
}

// disown refuses where nothing was found: another broker may lead by now, and be further than what lies here, and a
// consumer that waits here would not hear of it. Records below the high watermark stay what they are, whoever leads:
// they are served, so that a coordination store that is down does not stop consumers; only where it stands is not said.
func (w *fetchWork) disown() (refused bool) {
	for i := range w.reads {
		switch rd := &w.reads[i]; {
		case rd.code == kerr.OffsetOutOfRange.Code:
			rd.code = kerr.NotLeaderForPartition.Code // it may lie in the log of who leads now; told this, a consumer would start over
		case rd.code != 0:
		case rd.r.Slice.Len == 0:
			rd.code, rd.preferred = kerr.NotLeaderForPartition.Code, -1
			refused = true
		default:
			rd.r.HW, rd.r.LSO = -1, -1
		}
	}
	return refused
}

// settle is the last look at what a new leader found that cannot say yet where its high watermark stands: records, but not
// that, and otherwise OFFSET_NOT_AVAILABLE, which consumers know in Fetch since version 11 (KIP-392). Both numbers are
// -1 in every answer with an error, so that clients know that it means nothing.
func (w *fetchWork) settle(rd *fetchRead) {
	switch {
	case rd.code != 0 || !rd.r.Unsure || rd.r.Diverging:
	case rd.r.Slice.Len > 0:
		rd.r.HW, rd.r.LSO = -1, -1
	case w.req.Version < 11:
		rd.code = kerr.NotLeaderForPartition.Code
	default:
		rd.code = kerr.OffsetNotAvailable.Code
	}
}

func (w *fetchWork) readOne(sp *session.Partition, rd *fetchRead, left int64, first, again bool) (int64, error) {
	p, err := w.c.hosted(rd.topic, sp.Partition)
	if err != nil {
		return 0, err
	}
	r := partition.ReadRequest{
		Offset: sp.FetchOffset, MaxBytes: int(max(min(int64(sp.MaxBytes), left), 0)), AtLeastOne: first,
		Committed: w.req.IsolationLevel == 1, Epoch: sp.LeaderEpoch, LastEpoch: sp.LastFetchedEpoch,
		Replica: w.replica, BrokerEpoch: -1, LogStart: sp.LogStart, Again: again, Follower: w.req.Version >= 11, At: w.at,
	}
	if w.req.Version >= 15 {
		r.BrokerEpoch = w.req.ReplicaState.Epoch
	}
	preferred := int32(-1)
	if w.req.Rack != "" && w.replica < 0 {
		if preferred = p.PreferredReplica(w.req.Rack, sp.FetchOffset, w.c.rackOf); preferred >= 0 {
			r.MaxBytes, r.AtLeastOne = 0, false // the records come from there
		}
	}
	if rd.r, err = p.Read(r); err != nil {
		return 0, err
	}
	rd.p, rd.preferred = p, preferred
	return rd.r.Slice.Len, nil
}

// rackOf is the rack of a broker that the caller could read from; "" for one that it cannot reach.
func (c *Call) rackOf(id int32) string {
	b := c.Image.Broker(id)
	if b == nil || b.Fenced {
		return ""
	}
	if _, ok := c.endpoint(b); !ok {
		return ""
	}
	return b.Rack
}

// code translates an error for the version: clients of the first five versions know no storage errors.
func (w *fetchWork) code(err error) int16 {
	code := w.c.errorCode(err)
	if code == kerr.KafkaStorageError.Code && w.req.Version <= 5 {
		return kerr.NotLeaderForPartition.Code
	}
	return code
}

// wait gives the few bytes back that were found and waits for more on every partition.
func (w *fetchWork) wait(missing int64) {
	w.poll = partition.NewLongPoll(len(w.reads), missing)
	for i := range w.reads {
		rd := &w.reads[i]
		rd.had = rd.r.Slice.Len > 0
		rd.release()
		w.poll.Watch(rd.p, w.req.IsolationLevel == 1 && w.replica < 0, &rd.r)
	}
	w.poll.Arm(time.Duration(w.req.MaxWaitMillis) * time.Millisecond)
}

func (rd *fetchRead) release() {
	if rd.r.Slice.Len > 0 {
		rd.r.Slice.Release()
	}
	rd.r.Slice = storage.Slice{}
}

// Finish lets go of what the answer did not take, also when it was never encoded.
func (w *fetchWork) Finish(int64, error) {
	if w.poll != nil {
		w.poll.Close()
	}
	for i := range w.reads {
		w.reads[i].release()
	}
	w.answer.release()
}

func (w *fetchWork) encodeError(o *server.Out) error {
	w.answer.version = w.req.Version
	w.answer.encode(o)
	return nil
}

func (w *fetchWork) encodeLater(o *server.Out) error {
	w.poll.Close()
	w.read(true)
	return w.encode(o)
}

// encode tells the session what was found, and sends what is new.
func (w *fetchWork) encode(o *server.Out) error {
	a := &w.answer
	a.version = w.req.Version
	results := make([]session.Result, len(w.reads))
	for i := range w.reads {
		rd := &w.reads[i]
		w.settle(rd)
		results[i] = session.Result{
			Bytes: int(rd.r.Slice.Len), Failed: rd.code != 0, Diverging: rd.r.Diverging, PreferredReplica: rd.preferred >= 0, HW: rd.r.HW, LogStart: rd.r.LogStart,
		}
		if rd.code != 0 {
			results[i].HW, results[i].LogStart = -1, -1
		}
	}
	hints := leaderHints{}
	last := -1
	id, err := w.ctx.Finish(w.c.Now.UnixMilli(), w.parts, results, func(i int) {
		sp := &w.parts[i]
		if last < 0 || sp.Topic != w.parts[last].Topic || sp.ID != w.parts[last].ID {
			a.topics = append(a.topics, fetchedTopic{name: sp.Topic, id: sp.ID})
		}
		last = i
		t := &a.topics[len(a.topics)-1]
		t.parts = append(t.parts, w.result(i, &hints))
	})
	a.session, a.brokers = id, hints.brokers
	if err != nil {
		a.release()
		a.topics, a.session, a.code = nil, 0, w.c.errorCode(err)
	}
	a.encode(o)
	return nil
}

// result is one partition's part of the answer. The records change hands.
func (w *fetchWork) result(i int, hints *leaderHints) fetchedPartition {
	sp, rd := &w.parts[i], &w.reads[i]
	f := failedFetch(sp.Partition, rd.code)
	if rd.code != 0 {
		if w.req.Version >= 16 {
			f.leaderID, f.leaderEpoch = hints.hint(w.c, rd.topic, sp.Partition, rd.code)
		}
		return f
	}
	f.hw, f.lso, f.start = rd.r.HW, rd.r.LSO, rd.r.LogStart
	f.diverging, f.divergingEpoch, f.divergingEnd = rd.r.Diverging, rd.r.DivergingEpoch, rd.r.DivergingEnd
	f.preferred = rd.preferred
	f.committed, f.aborted = w.req.IsolationLevel == 1 && w.replica < 0, rd.r.Aborted
	f.records, rd.r.Slice = rd.r.Slice, storage.Slice{}
	return f
}
