package api

import "encoding/binary"

// The Produce answer is written by hand, since it is made for every produce request: kmsg's would cost
// three allocations and fifty bytes per partition. A test compares the bytes with kmsg's.

// enc appends Kafka's types; flex says that lengths are compact and structures end in tags.
type enc struct {
	b    []byte
	flex bool
}

func (e *enc) i16(v int16) { e.b = binary.BigEndian.AppendUint16(e.b, uint16(v)) }
func (e *enc) i32(v int32) { e.b = binary.BigEndian.AppendUint32(e.b, uint32(v)) }
func (e *enc) i64(v int64) { e.b = binary.BigEndian.AppendUint64(e.b, uint64(v)) }

func (e *enc) array(n int) {
	if e.flex {
		e.b = binary.AppendUvarint(e.b, uint64(n)+1)
		return
	}
	e.i32(int32(n))
}

func (e *enc) string(s string) {
	if e.flex {
		e.b = binary.AppendUvarint(e.b, uint64(len(s))+1)
	} else {
		e.i16(int16(len(s)))
	}
	e.b = append(e.b, s...)
}

// nullable writes a string, null when it is empty.
func (e *enc) nullable(s string) {
	switch {
	case s != "":
		e.string(s)
	case e.flex:
		e.b = append(e.b, 0)
	default:
		e.i16(-1)
	}
}

func (e *enc) tags() {
	if e.flex {
		e.b = append(e.b, 0)
	}
}

// currentLeader writes a tag section with the leader hint, or without it when there is none.
func (e *enc) currentLeader(tag byte, id, epoch int32) {
	if id < 0 && epoch < 0 {
		e.tags()
		return
	}
	e.b = append(e.b, 1, tag, 9)
	e.i32(id)
	e.i32(epoch)
	e.b = append(e.b, 0)
}

// endpoints writes a tag section with the addresses of the leaders named before, as tag 0.
func (e *enc) endpoints(list []leaderEndpoint) {
	if len(list) == 0 {
		e.tags()
		return
	}
	body := enc{flex: true}
	body.array(len(list))
	for _, x := range list {
		body.i32(x.id)
		body.string(x.host)
		body.i32(x.port)
		body.nullable(x.rack)
		body.tags()
	}
	e.b = append(e.b, 1, 0)
	e.b = binary.AppendUvarint(e.b, uint64(len(body.b)))
	e.b = append(e.b, body.b...)
}

// maxErrorMessage bounds a message in an answer; the length of a string has 15 bits.
const maxErrorMessage = 4096

func bounded(s string) string {
	if len(s) > maxErrorMessage {
		return s[:maxErrorMessage]
	}
	return s
}

// appendTo is the body of the answer. Items stand in the order of the request's topics.
func (w *produceWork) appendTo(dst []byte) []byte {
	v := w.req.Version
	e := &enc{b: dst, flex: v >= 9}
	e.array(len(w.req.Topics))
	items := w.items
	for i := range w.req.Topics {
		t := &w.req.Topics[i]
		if v >= 13 {
			e.b = append(e.b, t.TopicID[:]...)
		} else {
			e.string(t.Topic)
		}
		e.array(len(t.Partitions))
		for range t.Partitions {
			w.appendItem(e, &items[0])
			items = items[1:]
		}
		e.tags()
	}
	e.i32(0) // throttle_time_ms: the quota's gate mutes after the answer instead
	if v >= 10 {
		e.endpoints(w.hints.brokers)
	} else {
		e.tags()
	}
	return e.b
}

func (w *produceWork) appendItem(e *enc, it *produceItem) {
	v := w.req.Version
	base, logAppend, start := it.a.Base, it.a.LogAppendTimeMs, it.a.LogStart
	if it.code != 0 {
		base, logAppend = -1, -1
		if it.bad == nil {
			start = -1
		}
	}
	e.i32(it.partition)
	e.i16(it.code)
	e.i64(base)
	e.i64(logAppend)
	if v >= 5 {
		e.i64(start)
	}
	if v >= 8 {
		msg := ""
		if it.bad == nil {
			e.array(0)
		} else {
			e.array(len(it.bad.Records))
			for _, r := range it.bad.Records {
				e.i32(r.Index)
				e.nullable(bounded(r.Message))
				e.tags()
			}
			msg = bounded(it.bad.Message)
		}
		e.nullable(msg)
	}
	if v < 10 {
		e.tags()
		return
	}
	leader, epoch := int32(-1), int32(-1)
	if it.code != 0 {
		t := &w.req.Topics[it.topic]
		leader, epoch = w.hints.hint(w.c, w.c.topicOf(t.Topic, t.TopicID, v >= 13), it.partition, it.code)
	}
	e.currentLeader(0, leader, epoch)
}
