package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// raw: a client that costs almost nothing, with frames built beforehand, so that the broker is the wall.
// Ceilings (measured.md 10): durable produce 1.0-1.6 GB/s of the skeleton, raw fetch 3.7-4.0 GB/s.
func raw() {
	b := up()
	defer b.remove()
	total := int64(envInt("RAW_MB", 1024)) << 20
	for _, w := range []struct {
		name                   string
		size, conns, batchesOf int
	}{{"900 KB batches, 1 connection", 900 << 10, 1, 1}, {"900 KB batches, 4 connections", 900 << 10, 4, 1}, {"16 KB batches, 4 connections", 16 << 10, 4, 1}} {
		topic := fmt.Sprintf("raw-%d-%d", w.size, w.conns)
		createTopic(b, topic, w.conns)
		n := int(total / int64(w.size) / int64(w.conns))
		if w.size < 100<<10 {
			n /= 8 // small requests take longer for each byte
		}
		cpu, begin := b.cpu(), time.Now()
		each(w.conns, func(i int) error { return produceRaw(b.addr(), topic, int32(i), w.size, n) })
		d, used := time.Since(begin), b.cpu()-cpu
		bytes := float64(n) * float64(w.conns) * float64(w.size)
		say("raw-produce", "%s, acks=all, 8 in flight: %.0f MB/s, %.0f requests/s, %.2f broker cpu-s/GB, %.2f of the skeleton's durable 1.3 GB/s", w.name, bytes/1e6/d.Seconds(), float64(n*w.conns)/d.Seconds(), used.Seconds()/(bytes/1e9), bytes/1e9/d.Seconds()/1.3)
		if w.size < 100<<10 {
			continue
		}
		var read atomic.Int64
		cpu, begin = b.cpu(), time.Now()
		each(w.conns, func(i int) error { return fetchRaw(b.addr(), topic, int32(i), int64(n), &read) })
		d, used = time.Since(begin), b.cpu()-cpu
		gb := float64(read.Load()) / 1e9
		say("raw-fetch", "%d connections, 1 MiB pieces: %.0f MB/s, %.2f broker cpu-s/GB, %.2f of the skeleton's 3.85 GB/s", w.conns, gb*1e3/d.Seconds(), used.Seconds()/gb, gb/d.Seconds()/3.85)
	}
	pingpong(b)
}

func each(n int, fn func(i int) error) {
	var wg sync.WaitGroup
	errs := make(chan error, n)
	for i := range n {
		wg.Add(1)
		go func() { defer wg.Done(); errs <- fn(i) }()
	}
	wg.Wait()
	for range n {
		try(<-errs)
	}
}

// batch is one record batch, magic 2, with a single record of about size bytes and no producer id.
func batch(size int) []byte {
	value := noise(size)
	rec := binary.AppendVarint([]byte{0, 0, 0, 1}, int64(len(value))) // attributes, deltas of time and offset, null key (-1)
	rec = append(rec, value...)
	rec = append(rec, 0) // no headers
	rec = append(binary.AppendVarint(nil, int64(len(rec))), rec...)
	now := uint64(time.Now().UnixMilli())
	tail := binary.BigEndian.AppendUint16(nil, 0)                 // attributes
	tail = binary.BigEndian.AppendUint32(tail, 0)                 // last offset delta
	tail = binary.BigEndian.AppendUint64(tail, now)               // first and
	tail = binary.BigEndian.AppendUint64(tail, now)               // max timestamp
	tail = append(tail, 255, 255, 255, 255, 255, 255, 255, 255)   // no producer id,
	tail = append(tail, 255, 255, 255, 255, 255, 255, 0, 0, 0, 1) // epoch or sequence; one record
	tail = append(tail, rec...)
	b := binary.BigEndian.AppendUint64(nil, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(4+1+4+len(tail)))
	b = append(b, 0, 0, 0, 0, 2)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(tail, crc32.MakeTable(crc32.Castagnoli)))
	return append(b, tail...)
}

func frame(req kmsg.Request, correlation int32) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench")).AppendRequest(nil, req, correlation)
}

// inFlight sends frame n times, at most 8 unanswered, and checks each answer.
func inFlight(c net.Conn, frame []byte, n int, check func([]byte) error) error {
	slots, errs := make(chan struct{}, 8), make(chan error, 1)
	go func() {
		for range n {
			a, err := discardFrame(c)
			if err == nil {
				err = check(a)
			}
			if err != nil {
				errs <- err
				c.Close()
				return
			}
			<-slots
		}
		errs <- nil
	}()
	for range n {
		select {
		case slots <- struct{}{}:
		case err := <-errs:
			return err
		}
		if _, err := c.Write(frame); err != nil {
			select {
			case e := <-errs:
				return e
			default:
				return err
			}
		}
	}
	return <-errs
}

func produceFrame(topic string, part int32, size int) []byte {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(9)
	req.Acks, req.TimeoutMillis = -1, 30000
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = part, batch(size)
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return frame(req, 1)
}

func produceAnswer(a []byte) error {
	r := kmsg.NewPtrProduceResponse()
	r.SetVersion(9)
	if err := r.ReadFrom(a[5:]); err != nil { // correlation id and the empty tags of header 1
		return err
	}
	if code := r.Topics[0].Partitions[0].ErrorCode; code != 0 {
		return fmt.Errorf("produce: error code %d", code)
	}
	return nil
}

func produceRaw(addr, topic string, part int32, size, n int) error {
	c, err := dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return inFlight(c, produceFrame(topic, part, size), n, produceAnswer)
}

// fetchRaw reads a partition from 0 to end in pieces of at most 1 MiB and counts the bytes.
func fetchRaw(addr, topic string, part int32, end int64, read *atomic.Int64) error {
	c, err := dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 4<<20)
	for at := int64(0); at < end; {
		req := kmsg.NewPtrFetchRequest()
		req.SetVersion(11)
		req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = 500, 1, 1<<20, -1
		t := kmsg.NewFetchRequestTopic()
		t.Topic = topic
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = part, at, 1<<20, -1
		t.Partitions = append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
		if _, err := c.Write(frame(req, 2)); err != nil {
			return err
		}
		n, err := readFrame(c, buf)
		if err != nil {
			return err
		}
		r := kmsg.NewPtrFetchResponse()
		r.SetVersion(11)
		if err := r.ReadFrom(buf[4:n]); err != nil {
			return err
		}
		rp := r.Topics[0].Partitions[0]
		if rp.ErrorCode != 0 || len(rp.RecordBatches) == 0 {
			return fmt.Errorf("fetch at %d of %d: error code %d, %d bytes", at, end, rp.ErrorCode, len(rp.RecordBatches))
		}
		read.Add(int64(len(rp.RecordBatches)))
		for b := rp.RecordBatches; len(b) >= 27; {
			l := 12 + int(binary.BigEndian.Uint32(b[8:]))
			if l > len(b) {
				break
			}
			at = int64(binary.BigEndian.Uint64(b)) + int64(binary.BigEndian.Uint32(b[23:])) + 1
			b = b[l:]
		}
	}
	return nil
}

func readFrame(c net.Conn, buf []byte) (int, error) {
	var head [4]byte
	if _, err := readFull(c, head[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n > len(buf) {
		return 0, fmt.Errorf("a frame of %d bytes for a request of 1 MiB", n)
	}
	return readFull(c, buf[:n])
}

func readFull(c net.Conn, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = c.Read(b[n:])
		n += m
	}
	return n, err
}

// pingpong: one small record at a time on one connection: latency of a durable answer.
func pingpong(b *broker) {
	createTopic(b, "ping", 1)
	c, err := dial(b.addr())
	try(err)
	defer c.Close()
	f := produceFrame("ping", 0, 100)
	n := envInt("PINGS", 3000)
	ds := make([]time.Duration, 0, n)
	for range n {
		begin := time.Now()
		_, err := c.Write(f)
		try(err)
		a, err := discardFrame(c)
		try(err)
		try(produceAnswer(a))
		ds = append(ds, time.Since(begin))
	}
	p := percentiles(ds)
	say("one-record", "100 B, acks=all, one at a time: p50 %d us, p99 %d us, p99.9 %d us (skeleton durable 320-430 / 560-1200, target 450 / 1200)", p(50).Microseconds(), p(99).Microseconds(), p(99.9).Microseconds())
}
