package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/milena-mq/milena/internal/history"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// healLimit is how long after the end of a fault everything has to be whole again (I38).
const healLimit = 30 * time.Second

// whole waits until every broker that runs says that every partition has a leader and all its replicas in sync.
func (l *load) whole(limit time.Duration) (time.Duration, error) {
	begin := time.Now()
	var why error
	for time.Since(begin) < limit {
		if why = l.isWhole(); why == nil {
			return time.Since(begin), nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return limit, fmt.Errorf("not whole after %v: %w", limit, why)
}

func (l *load) isWhole() error {
	for _, n := range l.c.nodes {
		v, err := metadata(n.client.real, topic, time.Second)
		if err != nil {
			return fmt.Errorf("broker %d: %w", n.id, err)
		}
		if v.topicErr != 0 || len(v.leader) != partitions {
			return fmt.Errorf("broker %d: topic error %s, %d partitions", n.id, errorName(v.topicErr), len(v.leader))
		}
		for p := range int32(partitions) {
			if v.leader[p] < 0 || len(v.isr[p]) != len(v.replicas[p]) {
				return fmt.Errorf("broker %d says partition %d: leader %d, in sync %v of %v", n.id, p, v.leader[p], v.isr[p], v.replicas[p])
			}
		}
	}
	return nil
}

// moves waits until every partition has accepted and delivered a record sent after this moment.
func (l *load) moves(limit time.Duration) (time.Duration, error) {
	begin, now := time.Now(), clock()
	for time.Since(begin) < limit {
		if l.hush.since(now) {
			return time.Since(begin), nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return limit, fmt.Errorf("not every partition accepted and delivered a record within %v", limit)
}

// finish ends the load, reads everything back by a client, stops the brokers, reads the logs of all replicas and checks.
func (l *load) finish(r *report) {
	l.endWrites(40 * time.Second)
	if d, err := l.whole(healLimit); err != nil {
		r.say(false, "I38", "%v", err)
	} else {
		r.say(true, "I38", "every partition led and fully in sync on every broker %.1f s after the last fault", d.Seconds())
	}
	ends, err := l.ends()
	if err != nil {
		r.say(false, "ends", "%v", err)
	}
	total := int64(0)
	for _, e := range ends {
		total += e
	}
	l.readToEnd(r, ends, total)
	r.say(l.lagGone(ends, healLimit), "I34", "the group of two has read and committed everything within %v", healLimit)
	time.Sleep(500 * time.Millisecond) // the watcher of the group sees the last commits too
	l.stopRead()
	l.reading.Wait()
	for _, n := range l.c.nodes {
		d, err := n.stop(stopLimit)
		if err != nil {
			r.say(false, "stop", "%v", err)
			continue
		}
		r.say(true, fmt.Sprint("stop-", n.id), "SIGTERM, status 0 after %.1f s", d.Seconds())
	}
	for _, n := range l.c.nodes {
		if _, err := os.Stat(filepath.Join(n.data, topic+"-0")); err != nil {
			r.say(false, "logs", "broker %d: %v", n.id, err) // and it is not what clients' views are compared with
			continue
		}
		if err := readReplica(l.hist.Replica(fmt.Sprint("broker ", n.id)), n.data); err != nil {
			r.say(false, "logs", "broker %d: %v", n.id, err)
		}
	}
	for _, res := range l.hist.Check() {
		if res.Breaches == 0 && res.Checked == 0 && res.Promise != "I20" {
			r.say(false, res.Promise, "%s: nothing was checked", res.What)
			continue
		}
		text := fmt.Sprintf("%s: %d checked, %d breaches", res.What, res.Checked, res.Breaches)
		if len(res.Examples) > 0 {
			text += ": " + strings.Join(res.Examples, "; ")
		}
		r.say(res.Breaches == 0, res.Promise, "%s", text)
	}
	l.mu.Lock()
	for i, s := range l.resets {
		if i < 10 {
			note("%s", s)
		}
	}
	l.mu.Unlock()
	t := l.hist.Tally()
	fmt.Printf("   %d records sent, %d acknowledged, %d unknown, %d refused, %d in the logs; answers: %s\n", t.Sent, t.Acked, t.Unknown, t.Refused, total, l.answers())
}

// answers lists how often each error was answered to raw requests and clients.
func (l *load) answers() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for k, n := range l.codes {
		out = append(out, fmt.Sprintf("%s %d", k, n))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (l *load) ends() (map[int32]int64, error) {
	cl, err := kgo.NewClient(l.common()...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), healLimit)
	defer cancel()
	listed, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	ends := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	if err == nil && len(ends) != partitions {
		err = fmt.Errorf("ends of %d partitions", len(ends))
	}
	return ends, err
}

// readToEnd waits for the readers that were there all the time, and lets a third read everything from the start.
func (l *load) readToEnd(r *report, ends map[int32]int64, total int64) {
	if err := l.consumer("final reader"); err != nil {
		r.say(false, "final-read", "%v", err)
		return
	}
	deadline := time.Now().Add(2 * time.Minute)
	for {
		behind := ""
		for i, c := range l.consumers {
			for p, end := range ends {
				if at := c.Position(p); at < end {
					behind = fmt.Sprintf("reader %d stands at %d of %d in partition %d", i, at, end, p)
				}
			}
		}
		if behind == "" {
			r.say(true, "final-read", "three readers have read all %d records", total)
			return
		}
		if time.Now().After(deadline) {
			r.say(false, "final-read", "%s", behind)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (l *load) lagGone(ends map[int32]int64, limit time.Duration) bool {
	cl, err := kgo.NewClient(l.common()...)
	if err != nil {
		return false
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	for begin := time.Now(); time.Since(begin) < limit; time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		offsets, err := adm.FetchOffsets(ctx, group)
		cancel()
		behind := err != nil
		for p, end := range ends {
			o, ok := offsets.Lookup(topic, p)
			behind = behind || end > 0 && (!ok || o.At < end)
		}
		if !behind {
			return true
		}
	}
	return false
}

// readReplica reads the segments of all partitions of the topic from a data directory.
func readReplica(rep *history.Replica, data string) error {
	var errs []error
	for p := range int32(partitions) {
		files, err := filepath.Glob(filepath.Join(data, fmt.Sprintf("%s-%d", topic, p), "*.log"))
		if err != nil || len(files) == 0 {
			errs = append(errs, fmt.Errorf("partition %d has no segments (%v)", p, err))
			continue
		}
		slices.Sort(files) // base offsets have twenty digits
		for _, f := range files {
			if err := readSegment(rep, p, f); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", f, err))
			}
		}
	}
	return errors.Join(errs...)
}

const batchHeader = 61

// readSegment takes a segment to pieces by the format alone (kafka.md 3.1), not by the broker's code: that is under test.
func readSegment(rep *history.Replica, part int32, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for at := 0; at < len(b); {
		if len(b)-at < batchHeader {
			return fmt.Errorf("%d bytes behind the last batch at byte %d", len(b)-at, at)
		}
		size := int(binary.BigEndian.Uint32(b[at+8:])) + 12
		if size < batchHeader || size > len(b)-at || b[at+16] != 2 {
			return fmt.Errorf("no batch at byte %d", at)
		}
		raw := b[at : at+size]
		at += size
		if crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(raw[17:]) {
			return fmt.Errorf("wrong checksum of the batch at byte %d", at-size)
		}
		base := int64(binary.BigEndian.Uint64(raw))
		sum := fnv.New64a()
		sum.Write(raw)
		out := history.Batch{
			Base: base, Last: base + int64(int32(binary.BigEndian.Uint32(raw[23:]))), Epoch: int32(binary.BigEndian.Uint32(raw[12:])),
			Producer: int64(binary.BigEndian.Uint64(raw[43:])), ProdEpoch: int16(binary.BigEndian.Uint16(raw[51:])), BaseSeq: int32(binary.BigEndian.Uint32(raw[53:])), Sum: sum.Sum64(),
		}
		n := int(int32(binary.BigEndian.Uint32(raw[57:])))
		if attrs := binary.BigEndian.Uint16(raw[21:]); attrs&7 != 0 || attrs&0x20 != 0 {
			return fmt.Errorf("batch at offset %d is compressed or a control batch", base)
		}
		if out.Values, err = recordValues(raw[batchHeader:], n); err != nil {
			return fmt.Errorf("batch at offset %d: %w", base, err)
		}
		rep.Batch(part, out)
	}
	return nil
}

func recordValues(b []byte, n int) ([][]byte, error) {
	var out [][]byte
	for range n {
		size, k := binary.Varint(b)
		if k <= 0 || size < 0 || size > int64(len(b)-k) {
			return nil, errors.New("a record without a length")
		}
		var rec kmsg.Record
		if err := rec.ReadFrom(b[:k+int(size)]); err != nil {
			return nil, err
		}
		out = append(out, rec.Value)
		b = b[k+int(size):]
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%d bytes behind the last record", len(b))
	}
	return out, nil
}
