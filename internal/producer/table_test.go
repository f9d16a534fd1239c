package producer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"flag"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/twmb/franz-go/pkg/kerr"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts anew")

// machine runs transcript commands against a table, as a log would: check, then assign offsets, then update.
type machine struct {
	t    Table
	end  int64
	snap []byte
}

// fields reads "k=v" words; missing keys are def.
type fields map[string]int64

func (f fields) get(k string, def int64) int64 {
	if v, ok := f[k]; ok {
		return v
	}
	return def
}

func data(f fields, base int64) batch.Batch {
	b := batch.NewBuilder(batch.Spec{BaseOffset: base, Transactional: f.get("txn", 0) == 1,
		Producer: &batch.ProducerInfo{ID: f.get("id", 1), Epoch: int16(f.get("epoch", 0)), Sequence: int32(f.get("seq", 0))}})
	for range f.get("n", 1) {
		_ = b.Add(batch.Record{Timestamp: f.get("ts", 0)})
	}
	out, _ := b.Build()
	return out
}

func marker(f fields, base int64, kind batch.ControlType) batch.Batch {
	b := batch.BuildMarker(f.get("id", 1), int16(f.get("epoch", 0)), batch.Marker{Type: kind, CoordinatorEpoch: int32(f.get("coord", 0)), TimestampMs: f.get("ts", 0)})
	b.SetBaseOffset(base)
	return b
}

func (m *machine) run(line string) string {
	words := strings.Fields(line)
	f := fields{}
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return "bad line: " + err.Error()
		}
		f[k] = n
	}
	switch words[0] {
	case "append":
		return m.append(data(f, m.end))
	case "follow":
		b := data(f, m.end)
		m.end = b.NextOffset()
		m.t.Update(b)
		return "ok"
	case "commit", "abort":
		kind := batch.Commit
		if words[0] == "abort" {
			kind = batch.Abort
		}
		b := marker(f, m.end, kind)
		if err := m.t.CheckMarker(b, int16(f.get("tv", 1))); err != nil {
			return err.Error()
		}
		m.end = b.NextOffset()
		txn, ok := m.t.Update(b)
		return fmt.Sprintf("completed=%v %+v", ok, txn)
	case "hw":
		m.t.Replicated(f.get("to", 0))
		fallthrough
	case "unstable":
		o, ok := m.t.FirstUnstable()
		return fmt.Sprint(o, ok)
	case "expire":
		m.t.Expire(f.get("now", 0), f.get("age", 0))
		return fmt.Sprint(m.t.Len(), " left")
	case "restart":
		m.snap = m.t.Snapshot(nil)
		if err := m.t.Load(m.snap); err != nil {
			return err.Error()
		}
		return fmt.Sprint(len(m.snap), " bytes")
	case "show":
		var out []string
		for _, s := range m.t.Active() {
			out = append(out, fmt.Sprintf("%+v", s))
		}
		return strings.Join(out, "\n")
	}
	return "unknown command"
}

func (m *machine) append(b batch.Batch) string {
	v, err := m.t.Check(b, 0)
	if err != nil {
		return err.Error()
	}
	if v.Duplicate {
		return fmt.Sprintf("duplicate of %d..%d", v.BaseOffset, v.LastOffset)
	}
	m.end = b.NextOffset()
	m.t.Update(b)
	return fmt.Sprintf("offsets %d..%d", b.BaseOffset(), b.LastOffset())
}

// The transcripts: one blank line between commands, the answer indented below its command, "reset" by file.
func TestTranscripts(t *testing.T) {
	files, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".txt") {
			continue
		}
		name := "testdata/" + file.Name()
		old, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		m := &machine{}
		for _, line := range strings.Split(strings.TrimRight(string(old), "\n"), "\n") {
			if strings.HasPrefix(line, "    ") {
				continue
			}
			out.WriteString(line + "\n")
			if line == "" || line[0] == '#' {
				continue
			}
			for _, l := range strings.Split(m.run(line), "\n") {
				out.WriteString("    " + l + "\n")
			}
		}
		if out.String() == string(old) {
			continue
		}
		if *rewrite {
			if err := os.WriteFile(name, []byte(out.String()), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		t.Errorf("%s differs; run with -rewrite and read the difference. Now:\n%s", name, out.String())
	}
}

func TestSequencesWrapAround(t *testing.T) {
	m := &machine{}
	if got := m.append(data(fields{"seq": math.MaxInt32 - 1, "n": 3}, 0)); got != "offsets 0..2" {
		t.Fatal(got)
	}
	if got := m.append(data(fields{"seq": 1}, 3)); got != "offsets 3..3" {
		t.Fatal(got)
	}
	if got := m.append(data(fields{"seq": math.MaxInt32 - 1, "n": 3}, 4)); got != "duplicate of 0..2" {
		t.Fatal(got)
	}
	m = &machine{}
	m.append(data(fields{"seq": math.MaxInt32}, 0))
	if got := m.append(data(fields{"seq": 0}, 1)); got != "offsets 1..1" {
		t.Fatal(got)
	}
}

func TestErrorsCarryKafkasCode(t *testing.T) {
	var tab Table
	tab.Update(data(fields{"epoch": 2, "seq": 5}, 0))
	for seqEpoch, want := range map[[2]int64]error{{0, 1}: kerr.InvalidProducerEpoch, {9, 2}: kerr.OutOfOrderSequenceNumber, {1, 3}: kerr.OutOfOrderSequenceNumber} {
		if _, err := tab.Check(data(fields{"epoch": seqEpoch[1], "seq": seqEpoch[0]}, 0), 0); !errors.Is(err, want) {
			t.Error(seqEpoch, err)
		}
	}
}

// A snapshot with any byte flipped, or cut anywhere, must be refused: a wrong table acknowledges what it does not have.
func TestACorruptSnapshotIsRefused(t *testing.T) {
	var tab Table
	for i := range int64(9) { // three batches of each: the older ones lie behind the entries
		id := i % 3
		tab.Update(data(fields{"id": id, "seq": i / 3, "txn": id % 2}, i))
	}
	good := tab.Snapshot(nil)
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 4
		if err := tab.Load(bad); !errors.Is(err, ErrSnapshot) || tab.Len() != 0 {
			t.Fatalf("byte %d: %v, %d producers", i, err, tab.Len())
		}
		if err := tab.Load(good[:i]); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if err := tab.Load(good); err != nil || string(tab.Snapshot(nil)) != string(good) {
		t.Fatal("a good snapshot does not come back the same:", err)
	}
}

// What was repeated after a restart was refused as out of order, and the client sent it again under a new epoch (I5).
func TestTheWholeWindowSurvivesASnapshot(t *testing.T) {
	var tab, back Table
	for i := range int64(8) {
		tab.Update(data(fields{"seq": i}, 10+i))
	}
	if err := back.Load(tab.Snapshot(nil)); err != nil {
		t.Fatal(err)
	}
	for i := range int64(8) {
		v, err := back.Check(data(fields{"seq": i}, 30), 0)
		if i < 3 && !errors.Is(err, kerr.OutOfOrderSequenceNumber) {
			t.Errorf("sequence %d has left the window of five: %+v %v", i, v, err)
		}
		if i >= 3 && (err != nil || !v.Duplicate || v.BaseOffset != 10+i) {
			t.Errorf("sequence %d: %+v %v", i, v, err)
		}
	}
	kafkas := tab.Snapshot(nil)[:headSize+entrySize]
	binary.BigEndian.PutUint32(kafkas[2:], crc32.Checksum(kafkas[6:], castagnoli))
	if err := back.Load(kafkas); err != nil || back.Len() != 1 {
		t.Errorf("a file without older batches: %v", err)
	}
	for _, bad := range []func(b []byte){
		func(b []byte) { b[len(b)-olderSize] = 9 },     // of a producer that is not there
		func(b []byte) { b[len(b)-olderSize+12] = 9 },  // above the newest
		func(b []byte) { b[headSize+entrySize+3] = 3 }, // one more than there are
	} {
		b := tab.Snapshot(nil)
		bad(b)
		binary.BigEndian.PutUint32(b[2:], crc32.Checksum(b[6:], castagnoli))
		if err := back.Load(b); !errors.Is(err, ErrSnapshot) || back.Len() != 0 {
			t.Errorf("%v, %d producers", err, back.Len())
		}
	}
}

func TestAHundredThousandProducersAreCheap(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var tab Table
	for id := range int64(100_000) {
		b := data(fields{"id": id}, id)
		tab.Update(b)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := (after.HeapAlloc - before.HeapAlloc) / 100_000
	if per > 200 {
		t.Errorf("%d bytes per producer", per)
	}
	if tab.Len() != 100_000 {
		t.Fatal(tab.Len())
	}
	t.Log(per, "bytes per producer")
}

func FuzzLoad(f *testing.F) {
	var tab Table
	tab.Update(data(fields{}, 0))
	f.Add(tab.Snapshot(nil))
	tab.Update(data(fields{"seq": 1}, 1))
	f.Add(tab.Snapshot(nil))
	f.Fuzz(func(t *testing.T, p []byte) {
		var tab Table
		if tab.Load(p) == nil && string(tab.Snapshot(nil)) != string(p) && tab.Len() > 1<<20 {
			t.Fatal("more producers than bytes")
		}
	})
}

func BenchmarkCheckAndUpdate(b *testing.B) {
	var tab Table
	p := data(fields{"n": 10}, 0)
	tab.Update(p)
	b.ReportAllocs()
	for b.Loop() {
		v, err := tab.Check(p, 0)
		if err != nil || !v.Duplicate {
			b.Fatal(err)
		}
		tab.Update(p)
	}
}
