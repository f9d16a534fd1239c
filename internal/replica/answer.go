package replica

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/partition"
)

// landed takes the answer of the oldest request.
func (f *fetcher) landed() {
	fl := f.flights[0]
	f.flights = f.flights[1:]
	now := f.m.o.Clock()
	resp, buf, err := fl.call.Answer()
	if err != nil {
		f.flights = append([]flight{fl}, f.flights...) // what it asked for is asked again
		f.broken(now, err)
		return
	}
	f.redials = 0
	switch r := resp.(type) {
	case *kmsg.FetchResponse:
		f.fetched(now, &fl, r)
		f.settle()
		if cap(buf) <= keepBytes || len(buf) > cap(buf)/4 {
			f.free = append(f.free, buf)
		}
	case *kmsg.ListOffsetsResponse:
		f.bounded(&fl, r)
		f.settle()
	default:
		f.broken(now, fmt.Errorf("answer %T to a fetch", resp))
	}
}

// keepBytes is the largest buffer that is kept when answers are small again.
const keepBytes = 2 << 20

// fetched takes the answer of a Fetch.
func (f *fetcher) fetched(now time.Time, fl *flight, r *kmsg.FetchResponse) {
	f.m.stats.fetches.Add(1)
	if r.ErrorCode != 0 {
		f.refused(now, fl, r.ErrorCode)
		return
	}
	switch {
	case fl.full && r.SessionID != 0:
		f.session, f.epoch = r.SessionID, 1
	case fl.full:
		f.session, f.epoch = 0, 0 // no slot was free: full fetches it is
	case r.SessionID == 0:
		f.session, f.epoch = 0, 0 // all it had was forgotten
	}
	for i := range r.Topics {
		t := &r.Topics[i]
		for j := range t.Partitions {
			f.take(fl, t.TopicID, &t.Partitions[j])
		}
	}
}

// refused handles an error of the whole request.
func (f *fetcher) refused(now time.Time, fl *flight, code int16) {
	if code == kerr.InvalidFetchSessionEpoch.Code {
		for i := range f.flights {
			if f.flights[i].n > fl.n && f.flights[i].bounds == nil {
				return // it was overtaken: the other one will be answered
			}
		}
	}
	f.epoch = 0
	switch code {
	case kerr.FetchSessionIDNotFound.Code:
		f.session = 0
	case kerr.InvalidFetchSessionEpoch.Code, kerr.FetchSessionTopicIDError.Code:
	default:
		f.m.log.Warn("leader refuses to be fetched from", "leader", f.source.leader, "err", kerr.ErrorForCode(code))
		f.hold = now.Add(lastRedial)
		return
	}
	f.hold = now.Add(firstPause)
}

// take gives one partition's answer to its Follower.
func (f *fetcher) take(fl *flight, id [16]byte, r *kmsg.FetchResponseTopicPartition) {
	p := f.parts[key{id, r.Partition}]
	if p == nil {
		return
	}
	if p.state != asked || p.askedIn > fl.n {
		// Two requests asked the same, and the other one's answer has been taken. The leader will not repeat
		// its high watermark in this session.
		if r.ErrorCode == 0 && r.DivergingEpoch.EndOffset < 0 {
			p.f.Heard(r.HighWatermark)
		}
		return
	}
	a := partition.Answer{
		Code: r.ErrorCode, HW: r.HighWatermark, LogStart: r.LogStartOffset, Records: r.RecordBatches,
		Diverging: r.DivergingEpoch.EndOffset >= 0, DivEpoch: r.DivergingEpoch.Epoch, DivEnd: r.DivergingEpoch.EndOffset,
	}
	n, err := p.f.Take(a)
	f.m.stats.bytes.Add(int64(len(a.Records)))
	switch {
	case err != nil:
		f.m.stats.failures.Add(1)
		if p.failed&(p.failed-1) != 0 {
			break // at the first time, the second, the fourth: what stays wrong does not fill the log
		}
		f.m.log.Warn("fetch from leader not taken", "partition", p.f.Partition().TopicPartition().String(), "leader", f.source.leader, "err", err)
	case a.Code != 0:
		f.m.stats.failures.Add(1)
		if p.failed == 8 {
			f.m.log.Warn("fetch from leader fails", "partition", p.f.Partition().TopicPartition().String(), "leader", f.source.leader, "err", kerr.ErrorForCode(a.Code))
		}
	default:
		p.failed = 0
		f.widen(p, len(a.Records))
	}
	f.step(p, n)
	f.throttle(p, len(a.Records), r.HighWatermark)
}

// widen notes whether a partition's answers are full.
func (f *fetcher) widen(p *part, n int) {
	wide := n > leastBulk/2 && n >= int(p.size)/2
	if wide == p.wide {
		return
	}
	p.wide = wide
	if wide {
		f.wide++
	} else {
		f.wide--
	}
}

// throttle pauses a throttled partition that is behind while the rate is exceeded (KIP-73).
func (f *fetcher) throttle(p *part, bytes int, hw int64) {
	if !p.f.Partition().FollowerThrottled() {
		return
	}
	now := f.m.o.Clock()
	taking := &f.m.o.Set.Taking
	taking.Passed(int64(bytes), now.UnixMilli())
	if p.state == due && p.next.Step == partition.Ask && p.next.Offset < hw && taking.Left(now.UnixMilli()) == 0 {
		f.pause(p, throttlePause)
		p.held = true
	}
}

// The timestamps of ListOffsets that ask for a log's two ends.
const (
	latest   = -1
	earliest = -2
)

// askBounds asks for the log starts and ends of partitions whose offset is out of the leader's range.
func (f *fetcher) askBounds(now time.Time) bool {
	list := f.bounds
	f.bounds = nil
	for _, ends := range []bool{false, true} {
		ts := int64(earliest)
		if ends {
			ts = latest
		}
		call, err := f.link.Start(f.m.ctx, boundsRequest(f.m.o.NodeID, list, ts), nil)
		if err != nil {
			f.flights = append(f.flights, flight{bounds: list})
			f.broken(now, err)
			return false
		}
		f.flights = append(f.flights, flight{n: f.n, call: call, bounds: list, ends: ends, until: now.Add(answerTimeout)})
	}
	return true
}

// bounded takes one of the two answers.
func (f *fetcher) bounded(fl *flight, r *kmsg.ListOffsetsResponse) {
	type place struct {
		topic string
		n     int32
	}
	got := map[place]*kmsg.ListOffsetsResponseTopicPartition{}
	for i := range r.Topics {
		for j := range r.Topics[i].Partitions {
			x := &r.Topics[i].Partitions[j]
			got[place{r.Topics[i].Topic, x.Partition}] = x
		}
	}
	for _, p := range fl.bounds {
		if p.state != bound || f.parts[p.key] != p {
			continue
		}
		x := got[place{p.f.Partition().TopicPartition().Topic, p.key.n}]
		switch {
		case x == nil:
			f.answerBound(p, partition.Answer{Code: -1})
		case x.ErrorCode != 0:
			f.answerBound(p, partition.Answer{Code: x.ErrorCode})
		case !fl.ends:
			p.start = x.Offset
		default:
			p.end = x.Offset
		}
		if p.state == bound && p.start >= 0 && p.end >= 0 {
			f.answerBound(p, partition.Answer{Code: kerr.OffsetOutOfRange.Code, Known: true, LogStart: p.start, LogEnd: p.end})
		}
	}
}

func (f *fetcher) answerBound(p *part, a partition.Answer) {
	n, err := p.f.Take(a)
	if err != nil {
		f.m.log.Warn("bounds of leader not taken", "partition", p.f.Partition().TopicPartition().String(), "leader", f.source.leader, "err", err)
	}
	p.state = rests // step files it
	f.step(p, n)
}
