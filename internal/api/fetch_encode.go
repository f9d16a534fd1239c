package api

import (
	"encoding/binary"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/storage"
)

// The Fetch answer is written by hand because kmsg would copy every record into its buffer (measured.md
// A 6). A test compares the bytes with kmsg's for every version.

// sink is the part of server.Out that the encoder needs.
type sink interface {
	Append(fn func(dst []byte) []byte)
	File(f server.File, pos, n int64, release func())
}

// fetchAnswer is one Fetch response.
type fetchAnswer struct {
	version int16
	code    int16 // for the whole request, v7 and later
	session int32
	topics  []fetchedTopic
	brokers []leaderEndpoint // v16 and later (KIP-951)
}

type fetchedTopic struct {
	name  string
	id    meta.UUID
	parts []fetchedPartition
}

// fetchedPartition is one partition of the response. The zero value is not useful: see failedFetch.
type fetchedPartition struct {
	partition      int32
	code           int16
	hw, lso, start int64
	diverging      bool
	divergingEpoch int32
	divergingEnd   int64
	leaderID       int32 // -1: no hint
	leaderEpoch    int32
	preferred      int32 // the replica to read from instead of this one (KIP-392); -1: none
	committed      bool  // the list of aborted transactions is present, if empty
	aborted        []storage.AbortedTxn
	records        storage.Slice
}

// leaderEndpoint is where a leader named in the answer listens.
type leaderEndpoint struct {
	id   int32
	host string
	port int32
	rack string
}

// failedFetch is the answer for a partition that could not be read.
func failedFetch(partition int32, code int16) fetchedPartition {
	return fetchedPartition{partition: partition, code: code, hw: -1, lso: -1, start: -1, leaderID: -1, leaderEpoch: -1, preferred: -1}
}

// release lets go of the records of an answer that is not sent.
func (a *fetchAnswer) release() {
	for i := range a.topics {
		for j := range a.topics[i].parts {
			p := &a.topics[i].parts[j]
			if p.records.Len > 0 {
				p.records.Release()
				p.records = storage.Slice{}
			}
		}
	}
}

// fetchEncoder walks an answer. Its methods are handed to the sink as functions made once per answer,
// so that a partition costs no allocation.
type fetchEncoder struct {
	a    *fetchAnswer
	flex bool
	t    *fetchedTopic
	p    *fetchedPartition
}

// encode writes the answer. Records go by reference and are released by the sink.
func (a *fetchAnswer) encode(o sink) {
	e := &fetchEncoder{a: a, flex: a.version >= 12}
	topic, part, tail := e.topic, e.part, e.partTail
	o.Append(e.head)
	for i := range a.topics {
		e.t = &a.topics[i]
		o.Append(topic)
		for j := range e.t.parts {
			e.p = &e.t.parts[j]
			o.Append(part)
			if r := e.p.records; r.Len > 0 {
				e.p.records = storage.Slice{} // the sink releases it from here on
				o.File(r.File, r.Pos, r.Len, r.Release)
			}
			if e.flex {
				o.Append(tail)
			}
		}
		if e.flex {
			o.Append(noTags)
		}
	}
	if e.flex {
		o.Append(e.tail)
	}
}

func noTags(b []byte) []byte { return append(b, 0) }

func (e *fetchEncoder) array(b []byte, n int) []byte {
	if e.flex {
		return binary.AppendUvarint(b, uint64(n)+1)
	}
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func (e *fetchEncoder) head(b []byte) []byte {
	v := e.a.version
	b = append(b, 0, 0, 0, 0) // throttle_time_ms: the quota's gate mutes after the answer instead
	if v >= 7 {
		b = binary.BigEndian.AppendUint16(b, uint16(e.a.code))
		b = binary.BigEndian.AppendUint32(b, uint32(e.a.session))
	}
	return e.array(b, len(e.a.topics))
}

func (e *fetchEncoder) topic(b []byte) []byte {
	switch {
	case e.a.version >= 13:
		b = append(b, e.t.id[:]...)
	case e.flex:
		b = appendCompactString(b, e.t.name)
	default:
		b = binary.BigEndian.AppendUint16(b, uint16(len(e.t.name)))
		b = append(b, e.t.name...)
	}
	return e.array(b, len(e.t.parts))
}

func (e *fetchEncoder) part(b []byte) []byte {
	v, p := e.a.version, e.p
	b = binary.BigEndian.AppendUint32(b, uint32(p.partition))
	b = binary.BigEndian.AppendUint16(b, uint16(p.code))
	b = binary.BigEndian.AppendUint64(b, uint64(p.hw))
	b = binary.BigEndian.AppendUint64(b, uint64(p.lso))
	if v >= 5 {
		b = binary.BigEndian.AppendUint64(b, uint64(p.start))
	}
	switch {
	case p.committed:
		b = e.array(b, len(p.aborted))
		for _, a := range p.aborted {
			b = binary.BigEndian.AppendUint64(b, uint64(a.ProducerID))
			b = binary.BigEndian.AppendUint64(b, uint64(a.FirstOffset))
			if e.flex {
				b = append(b, 0)
			}
		}
	case e.flex:
		b = append(b, 0)
	default:
		b = append(b, 0xff, 0xff, 0xff, 0xff)
	}
	if v >= 11 {
		b = binary.BigEndian.AppendUint32(b, uint32(p.preferred))
	}
	return e.array(b, int(p.records.Len))
}

func (e *fetchEncoder) partTail(b []byte) []byte {
	p := e.p
	n := byte(0)
	if p.diverging {
		n++
	}
	if p.leaderID >= 0 || p.leaderEpoch >= 0 {
		n++
	}
	b = append(b, n)
	if p.diverging {
		b = append(b, 0, 13)
		b = binary.BigEndian.AppendUint32(b, uint32(p.divergingEpoch))
		b = binary.BigEndian.AppendUint64(b, uint64(p.divergingEnd))
		b = append(b, 0)
	}
	if p.leaderID >= 0 || p.leaderEpoch >= 0 {
		b = append(b, 1, 9)
		b = binary.BigEndian.AppendUint32(b, uint32(p.leaderID))
		b = binary.BigEndian.AppendUint32(b, uint32(p.leaderEpoch))
		b = append(b, 0)
	}
	return b
}

func (e *fetchEncoder) tail(b []byte) []byte {
	if e.a.version < 16 || len(e.a.brokers) == 0 {
		return append(b, 0)
	}
	var body []byte
	body = binary.AppendUvarint(body, uint64(len(e.a.brokers))+1)
	for _, x := range e.a.brokers {
		body = binary.BigEndian.AppendUint32(body, uint32(x.id))
		body = appendCompactString(body, x.host)
		body = binary.BigEndian.AppendUint32(body, uint32(x.port))
		if x.rack == "" {
			body = append(body, 0)
		} else {
			body = appendCompactString(body, x.rack)
		}
		body = append(body, 0)
	}
	b = append(b, 1, 0)
	b = binary.AppendUvarint(b, uint64(len(body)))
	return append(b, body...)
}

func appendCompactString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s))+1)
	return append(b, s...)
}
