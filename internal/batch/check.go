package batch

import (
	"errors"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Rules is what a partition demands of a batch (kafka.md 3.2).
type Rules struct {
	MaxBytes      int   // max.message.bytes; 0 is no limit
	SegmentBytes  int   // segment.bytes; 0 is no limit
	Compacted     bool  // every record needs a key
	LogAppendTime bool  // message.timestamp.type
	BeforeMaxMs   int64 // message.timestamp.before.max.ms
	AfterMaxMs    int64 // message.timestamp.after.max.ms
	NowMs         int64
	Codec         Codec // compression.type; Producer keeps what the producer chose
	Level         int   // compression.<codec>.level; 0 is the codec's default
	Version       int16 // Produce version; 0 when the batch did not come by Produce
	Coordinator   bool  // built by this broker: control batches are allowed
	MaxInflated   int   // bound on decompressed bytes; 0 is DefaultMaxInflated
}

// Checked is an accepted batch.
type Checked struct {
	Batch           Batch // the bytes given to Check, patched in place, unless they had to be rebuilt
	MaxTimestamp    int64 // -1 when no record has a timestamp
	LogAppendTimeMs int64 // -1 for CreateTime: what the Produce answer carries
}

// Invalid says why a batch was refused. It is an error whose chain holds Kafka's code.
type Invalid struct {
	Code    *kerr.Error
	Message string
	Records []RecordError // KIP-467; at most maxRecordErrors
}

func (i *Invalid) Error() string { return i.Code.Message + ": " + i.Message }

// Unwrap gives Kafka's error.
func (i *Invalid) Unwrap() error { return i.Code }

func invalid(code *kerr.Error, format string, args ...any) *Invalid {
	return &Invalid{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Check validates the records of one partition of a Produce request: exactly one batch, and rows 2 and 9-15 of kafka.md
// 3.2. b may be patched in place (timestamps, checksum) even when it is refused later. For an uncompressed batch, or one that
// already has the topic's codec, it allocates nothing per record.
func Check(b []byte, r Rules) (Checked, *Invalid) {
	h, bad := frame(b, r)
	if bad != nil {
		return Checked{}, bad
	}
	if err := h.VerifyCRC(); err != nil {
		return Checked{}, invalid(kerr.CorruptMessage, "%v", err)
	}
	if bad := header(h, r); bad != nil {
		return Checked{}, bad
	}
	target := r.Codec
	if target == Producer || h.IsControl() {
		target = h.Codec()
	}
	w, bad := walk(h, r)
	if bad != nil {
		return Checked{}, bad
	}
	if target != h.Codec() || !w.dense {
		if h, bad = rebuild(h, target, r); bad != nil {
			return Checked{}, bad
		}
	}
	return finish(h, w, r)
}

// frame checks that b is exactly one batch of a servable format and size.
func frame(b []byte, r Rules) (Batch, *Invalid) {
	if len(b) == 0 {
		return nil, invalid(kerr.InvalidRecord, "a produce request needs exactly one record batch per partition, found none")
	}
	h, rest, err := Next(b)
	switch {
	case errors.Is(err, ErrMagic):
		return nil, invalid(kerr.InvalidRecord, "only record format version 2 is accepted: %v", err)
	case err != nil:
		return nil, invalid(kerr.CorruptMessage, "%v", err)
	case len(rest) > 0:
		return nil, invalid(kerr.InvalidRecord, "a produce request needs exactly one record batch per partition, found %d bytes after the first", len(rest))
	}
	if r.MaxBytes > 0 && len(h) > r.MaxBytes {
		return nil, tooLarge(len(h), r)
	}
	if r.SegmentBytes > 0 && len(h) > r.SegmentBytes {
		return nil, invalid(kerr.RecordListTooLarge, "the record batch has %d bytes, a segment holds %d", len(h), r.SegmentBytes)
	}
	return h, nil
}

func tooLarge(n int, r Rules) *Invalid {
	return invalid(kerr.MessageTooLarge, "the record batch has %d bytes, max.message.bytes is %d", n, r.MaxBytes)
}

// header checks the fixed fields; everything it reads is under the checksum but base offset.
func header(h Batch, r Rules) *Invalid {
	if c := h.Codec(); !c.known() {
		return invalid(kerr.UnsupportedCompressionType, "unknown compression codec %d", int8(c))
	}
	if h.Codec() == Zstd && r.Version > 0 && r.Version < 7 {
		return invalid(kerr.UnsupportedCompressionType, "zstd needs Produce version 7 or later, this is version %d", r.Version)
	}
	if n := h.Count(); n <= 0 || int64(h.LastOffsetDelta())+1 != int64(n) {
		return invalid(kerr.InvalidRecord, "record count %d does not agree with last offset delta %d", n, h.LastOffsetDelta())
	}
	if r.Coordinator {
		return nil
	}
	if o := h.BaseOffset(); o != 0 {
		return invalid(kerr.InvalidRecord, "base offset must be 0, it is %d", o)
	}
	if h.IsControl() {
		return invalid(kerr.InvalidRecord, "clients are not allowed to write control records")
	}
	if _, ok := h.DeleteHorizon(); ok {
		return invalid(kerr.InvalidRecord, "clients are not allowed to set a delete horizon")
	}
	if h.HasProducer() && (h.ProducerEpoch() < 0 || h.BaseSequence() < 0) {
		return invalid(kerr.InvalidRecord, "producer %d with epoch %d and sequence %d: both must not be negative",
			h.ProducerID(), h.ProducerEpoch(), h.BaseSequence())
	}
	if h.IsTransactional() && !h.HasProducer() {
		return invalid(kerr.InvalidRecord, "transactional batch without a producer id")
	}
	return nil
}

// walked is what one pass over the records found.
type walked struct {
	maxTs   int64
	dense   bool // offset deltas are 0, 1, 2, ...
	noKey   int  // records without a key, total
	badTime int
	records []RecordError
}

func walk(h Batch, r Rules) (walked, *Invalid) {
	w := walked{maxTs: NoTimestamp, dense: true}
	lo, hi := timeRange(r)
	base := h.BaseTimestamp()
	clientAppend := h.IsLogAppendTime() && !r.Coordinator
	visit := func(i int32, m recordMeta) {
		w.dense = w.dense && m.offDelta == i
		ts := base + m.tsDelta
		w.maxTs = max(w.maxTs, ts)
		if r.Compacted && !m.hasKey {
			w.noKey++
			w.note(i, "compacted topic cannot accept message without key")
			return
		}
		if clientAppend {
			w.badTime++
			w.note(i, "producer must not set the timestamp type to LogAppendTime")
		} else if !r.LogAppendTime && ts != NoTimestamp && (ts < lo || ts > hi) {
			w.badTime++
			w.noteTime(i, ts, lo, hi)
		}
	}
	limit := Limits{MaxBytes: r.MaxInflated}.max()
	if err := h.scan(limit, visit); err != nil {
		return w, refuse(err)
	}
	return w, w.verdict()
}

func (w *walked) note(i int32, msg string) {
	if len(w.records) < maxRecordErrors {
		w.records = append(w.records, RecordError{Index: i, Message: msg})
	}
}

func (w *walked) noteTime(i int32, ts, lo, hi int64) {
	if len(w.records) < maxRecordErrors {
		w.note(i, fmt.Sprintf("timestamp %d is out of range: it should be within [%d, %d]", ts, lo, hi))
	}
}

func (w *walked) verdict() *Invalid {
	switch {
	case w.noKey+w.badTime == 0:
		return nil
	case w.noKey == 0:
		return &Invalid{Code: kerr.InvalidTimestamp, Records: w.records,
			Message: fmt.Sprintf("%d records have been rejected due to invalid timestamps", w.badTime)}
	}
	return &Invalid{Code: kerr.InvalidRecord, Records: w.records,
		Message: fmt.Sprintf("%d records have been rejected", w.noKey+w.badTime)}
}

// timeRange is [now - before.max, now + after.max] without overflow.
func timeRange(r Rules) (lo, hi int64) {
	lo, hi = r.NowMs-r.BeforeMaxMs, math.MaxInt64
	if r.BeforeMaxMs >= r.NowMs {
		lo = math.MinInt64 // before.max is "no limit" by default
	}
	if r.AfterMaxMs < math.MaxInt64-r.NowMs {
		hi = r.NowMs + r.AfterMaxMs
	}
	return lo, hi
}

// refuse turns an error of reading the records into Kafka's.
func refuse(err error) *Invalid {
	if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrInflated) {
		return invalid(kerr.MessageTooLarge, "%v", err)
	}
	if errors.Is(err, ErrCodec) {
		return invalid(kerr.CorruptMessage, "%v", err)
	}
	return invalid(kerr.InvalidRecord, "%v", err)
}

// rebuild writes the records again with the topic's codec and dense offset deltas; producer fields and bits stay.
func rebuild(h Batch, codec Codec, r Rules) (Batch, *Invalid) {
	s := Spec{BaseOffset: h.BaseOffset(), LeaderEpoch: h.LeaderEpoch(), Codec: codec, Level: r.Level,
		Transactional: h.IsTransactional(), Control: h.IsControl(), MaxBytes: r.MaxBytes}
	if h.ProducerID() != NoProducer {
		s.Producer = &ProducerInfo{ID: h.ProducerID(), Epoch: h.ProducerEpoch(), Sequence: h.BaseSequence()}
	}
	limit := maxRebuild
	if r.MaxInflated > 0 {
		limit = min(limit, r.MaxInflated)
	}
	b := NewBuilder(s)
	err := h.Each(Limits{MaxBytes: limit}, b.Add)
	out, err2 := b.Build()
	if err == nil {
		err = err2
	}
	if err != nil {
		return nil, refuse(err)
	}
	if r.SegmentBytes > 0 && len(out) > r.SegmentBytes {
		return nil, invalid(kerr.RecordListTooLarge, "the rebuilt record batch has %d bytes, a segment holds %d", len(out), r.SegmentBytes)
	}
	return out, nil
}

// finish makes the timestamp fields true. A client's maxTimestamp is not trusted: retention and offsets by time live on it.
func finish(h Batch, w walked, r Rules) (Checked, *Invalid) {
	c := Checked{Batch: h, MaxTimestamp: w.maxTs, LogAppendTimeMs: -1}
	logAppend := r.LogAppendTime && !h.IsControl()
	if logAppend {
		c.MaxTimestamp, c.LogAppendTimeMs = r.NowMs, r.NowMs
	}
	if h.MaxTimestamp() != c.MaxTimestamp || h.IsLogAppendTime() != logAppend {
		h.setTimestamp(c.MaxTimestamp, logAppend)
		h.Seal()
	}
	return c, nil
}
