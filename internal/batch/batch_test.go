package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var codecs = []Codec{None, Gzip, Snappy, LZ4, Zstd}

func testRecords(n, size int) []Record {
	rng := rand.New(rand.NewPCG(1, 2))
	rs := make([]Record, n)
	for i := range rs {
		v := make([]byte, size)
		for j := range v {
			v[j] = "abcdefgh0123    "[rng.IntN(16)]
		}
		rs[i] = Record{Offset: int64(i), Timestamp: 1000 + int64(i%7), Key: []byte(fmt.Sprint("key", i%10)), Value: v}
		switch i % 5 {
		case 1:
			rs[i].Headers = []Header{{Key: []byte("h"), Value: []byte("x")}, {Key: []byte(""), Value: nil}}
		case 2:
			rs[i].Value = nil
		case 3:
			rs[i].Value = []byte{}
		}
	}
	return rs
}

func build(t testing.TB, s Spec, rs []Record) Batch {
	t.Helper()
	b := NewBuilder(s)
	for _, r := range rs {
		if err := b.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func read(t testing.TB, b Batch) []Record {
	t.Helper()
	var out []Record
	err := b.Each(Limits{}, func(r Record) error {
		c := Record{Offset: r.Offset, Timestamp: r.Timestamp, Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value)}
		for _, h := range r.Headers {
			c.Headers = append(c.Headers, Header{Key: bytes.Clone(h.Key), Value: bytes.Clone(h.Value)})
		}
		out = append(out, c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func same(t testing.TB, got, want []Record) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range got {
		if g, w := fmt.Sprintf("%#v", got[i]), fmt.Sprintf("%#v", want[i]); g != w {
			t.Fatalf("record %d\n got %s\nwant %s", i, g, w)
		}
	}
}

func anyTime(c Codec) Rules {
	return Rules{Codec: c, NowMs: 1_000_000, BeforeMaxMs: math.MaxInt64, AfterMaxMs: 3_600_000, Version: 9}
}

func TestEveryCodecBringsBackTheSameRecords(t *testing.T) {
	for _, c := range codecs {
		for _, size := range []int{0, 10, 1000, 200_000} {
			rs := testRecords(12, size)
			b := build(t, Spec{Codec: c}, rs)
			if b.Codec() != c || b.Count() != 12 || b.LastOffset() != 11 || b.MaxTimestamp() != 1006 || b.BaseTimestamp() != 1000 || b.HasProducer() {
				t.Fatalf("%s: header %x", c, b[:HeaderSize])
			}
			same(t, read(t, b), rs)
			if _, bad := Check(b, anyTime(Producer)); bad != nil {
				t.Fatalf("%s %d: %v", c, size, bad)
			}
		}
	}
}

// A second implementation of the format, kmsg, must read what the builder wrote.
func TestAnotherImplementationReadsTheBuilder(t *testing.T) {
	rs := testRecords(20, 30)
	b := build(t, Spec{BaseOffset: 7, LeaderEpoch: 3, Producer: &ProducerInfo{ID: 9, Epoch: 2, Sequence: 5}}, rs)
	var k kmsg.RecordBatch
	if err := k.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	if k.FirstOffset != 7 || k.PartitionLeaderEpoch != 3 || k.ProducerID != 9 || k.ProducerEpoch != 2 || k.FirstSequence != 5 ||
		k.NumRecords != 20 || uint32(k.CRC) != b.CRC() || k.LastOffsetDelta != 19 || k.Length != int32(len(b)-12) {
		t.Fatalf("%+v", k)
	}
	in := k.Records
	for i := range rs {
		n, w := binary.Varint(in)
		var r kmsg.Record
		if err := r.ReadFrom(in[:w+int(n)]); err != nil {
			t.Fatal(err)
		}
		in = in[w+int(n):]
		if !bytes.Equal(r.Key, rs[i].Key) || !bytes.Equal(r.Value, rs[i].Value) || (r.Value == nil) != (rs[i].Value == nil) || len(r.Headers) != len(rs[i].Headers) {
			t.Fatalf("record %d: %+v", i, r)
		}
	}
}

func TestSequencesWrap(t *testing.T) {
	b := build(t, Spec{Producer: &ProducerInfo{ID: 1, Epoch: 0, Sequence: math.MaxInt32 - 1}}, testRecords(4, 1))
	if s := b.LastSequence(); s != 1 {
		t.Fatal(s)
	}
	if s := SubSequence(1, 3); s != math.MaxInt32-1 {
		t.Fatal(s)
	}
}

// edit changes the header and seals it again.
func edit(b Batch, fn func(Batch)) Batch {
	c := Batch(bytes.Clone(b))
	fn(c)
	c.Seal()
	return c
}

func TestCheckRefusesWhatKafkaRefuses(t *testing.T) {
	be := binary.BigEndian
	good := build(t, Spec{}, testRecords(5, 20))
	idem := build(t, Spec{Producer: &ProducerInfo{ID: 4, Epoch: 0, Sequence: 0}}, testRecords(5, 20))
	zs := build(t, Spec{Codec: Zstd}, testRecords(5, 20))
	nokey := build(t, Spec{}, []Record{{Timestamp: 1000, Key: []byte("k")}, {Timestamp: 1000}, {Timestamp: 1000}})
	late := build(t, Spec{}, []Record{{Timestamp: 1000}, {Timestamp: 9_000_000}, {Timestamp: NoTimestamp}})
	rules := anyTime(Producer)
	with := func(fn func(*Rules)) Rules { r := rules; fn(&r); return r }
	for _, c := range []struct {
		name string
		b    []byte
		r    Rules
		code *kerr.Error
		bad  []int32
	}{
		{"none", nil, rules, kerr.InvalidRecord, nil},
		{"two", append(bytes.Clone(good), good...), rules, kerr.InvalidRecord, nil},
		{"short", good[:len(good)-1], rules, kerr.CorruptMessage, nil},
		{"tiny", good[:10], rules, kerr.CorruptMessage, nil},
		{"magic", edit(good, func(b Batch) { b[posMagic] = 1 }), rules, kerr.InvalidRecord, nil},
		{"length", edit(good, func(b Batch) { be.PutUint32(b[posLength:], 3) }), rules, kerr.CorruptMessage, nil},
		{"negative length", edit(good, func(b Batch) { be.PutUint32(b[posLength:], 1<<31) }), rules, kerr.CorruptMessage, nil},
		{"size", good, with(func(r *Rules) { r.MaxBytes = len(good) - 1 }), kerr.MessageTooLarge, nil},
		{"segment", good, with(func(r *Rules) { r.SegmentBytes = len(good) - 1 }), kerr.RecordListTooLarge, nil},
		{"crc", func() []byte { b := bytes.Clone(good); b[len(b)-1] ^= 1; return b }(), rules, kerr.CorruptMessage, nil},
		{"base offset", edit(good, func(b Batch) { b.SetBaseOffset(1) }), rules, kerr.InvalidRecord, nil},
		{"count", edit(good, func(b Batch) { be.PutUint32(b[posCount:], 4) }), rules, kerr.InvalidRecord, nil},
		{"count and delta", edit(good, func(b Batch) { be.PutUint32(b[posCount:], 4); be.PutUint32(b[posLastOffsetDelta:], 3) }), rules, kerr.InvalidRecord, nil},
		{"too many", edit(good, func(b Batch) { be.PutUint32(b[posCount:], 6); be.PutUint32(b[posLastOffsetDelta:], 5) }), rules, kerr.InvalidRecord, nil},
		{"huge count", edit(good, func(b Batch) {
			be.PutUint32(b[posCount:], math.MaxInt32)
			be.PutUint32(b[posLastOffsetDelta:], math.MaxInt32-1)
		}), rules, kerr.InvalidRecord, nil},
		{"empty", edit(good, func(b Batch) { be.PutUint32(b[posCount:], 0); be.PutUint32(b[posLastOffsetDelta:], math.MaxUint32) }), rules, kerr.InvalidRecord, nil},
		{"control", BuildMarker(1, 0, Marker{Type: Commit}), rules, kerr.InvalidRecord, nil},
		{"horizon", edit(good, func(b Batch) { b[posAttributes+1] |= attrDeleteHorizn }), rules, kerr.InvalidRecord, nil},
		{"epoch", edit(idem, func(b Batch) { be.PutUint16(b[posProducerEpoch:], math.MaxUint16) }), rules, kerr.InvalidRecord, nil},
		{"sequence", edit(idem, func(b Batch) { be.PutUint32(b[posBaseSequence:], math.MaxUint32) }), rules, kerr.InvalidRecord, nil},
		{"transaction without producer", edit(good, func(b Batch) { b[posAttributes+1] |= attrTransaction }), rules, kerr.InvalidRecord, nil},
		{"codec", edit(good, func(b Batch) { b[posAttributes+1] |= 7 }), rules, kerr.UnsupportedCompressionType, nil},
		{"old zstd", zs, with(func(r *Rules) { r.Version = 6 }), kerr.UnsupportedCompressionType, nil},
		{"not gzip", edit(good, func(b Batch) { b[posAttributes+1] |= 1 }), rules, kerr.CorruptMessage, nil},
		{"no key", nokey, with(func(r *Rules) { r.Compacted = true }), kerr.InvalidRecord, []int32{1, 2}},
		{"future", late, rules, kerr.InvalidTimestamp, []int32{1}},
		{"past", late, with(func(r *Rules) { r.BeforeMaxMs = 10; r.AfterMaxMs = math.MaxInt64 }), kerr.InvalidTimestamp, []int32{0}},
		{"append time by client", edit(good, func(b Batch) { b[posAttributes+1] |= attrLogAppend }), with(func(r *Rules) { r.LogAppendTime = true }), kerr.InvalidTimestamp, []int32{0, 1, 2, 3, 4}},
	} {
		_, bad := Check(bytes.Clone(c.b), c.r)
		if bad == nil || bad.Code != c.code || !errors.Is(bad, c.code) {
			t.Errorf("%s: %v, want %v", c.name, bad, c.code)
			continue
		}
		var idx []int32
		for _, r := range bad.Records {
			idx = append(idx, r.Index)
		}
		if fmt.Sprint(idx) != fmt.Sprint(c.bad) {
			t.Errorf("%s: bad records %v, want %v", c.name, idx, c.bad)
		}
	}
}

func TestCheckKeepsTheBytesUnlessItMustNot(t *testing.T) {
	for _, c := range codecs {
		b := build(t, Spec{Codec: c, Producer: &ProducerInfo{ID: 4, Epoch: 1, Sequence: 9}}, testRecords(5, 20))
		before := bytes.Clone(b)
		got, bad := Check(b, anyTime(c))
		if bad != nil || &got.Batch[0] != &b[0] || !bytes.Equal(before, b) || got.MaxTimestamp != 1004 || got.LogAppendTimeMs != -1 {
			t.Fatalf("%s: %v %+v", c, bad, got)
		}
		lying := edit(b, func(b Batch) { b.setTimestamp(math.MaxInt64, false) })
		got, bad = Check(lying, anyTime(c))
		if bad != nil || !bytes.Equal(got.Batch, before) {
			t.Fatalf("%s: a false largest timestamp stays: %v", c, bad)
		}
		r := anyTime(c)
		r.LogAppendTime = true
		got, bad = Check(b, r)
		if bad != nil || got.MaxTimestamp != r.NowMs || got.LogAppendTimeMs != r.NowMs || !got.Batch.IsLogAppendTime() || got.Batch.VerifyCRC() != nil {
			t.Fatalf("%s: %v %+v", c, bad, got)
		}
		for _, rec := range read(t, got.Batch) {
			if rec.Timestamp != r.NowMs {
				t.Fatal("a record kept its own time")
			}
		}
	}
}

func TestCheckRebuildsWithTheTopicsCodec(t *testing.T) {
	rs := testRecords(9, 50)
	for _, from := range codecs {
		for _, to := range codecs {
			b := build(t, Spec{Codec: from, Transactional: true, Producer: &ProducerInfo{ID: 4, Epoch: 1, Sequence: 9}}, rs)
			got, bad := Check(b, anyTime(to))
			if bad != nil {
				t.Fatalf("%s to %s: %v", from, to, bad)
			}
			h := got.Batch
			if h.Codec() != to || h.ProducerID() != 4 || h.ProducerEpoch() != 1 || h.BaseSequence() != 9 || !h.IsTransactional() || h.VerifyCRC() != nil {
				t.Fatalf("%s to %s: %x", from, to, h[:HeaderSize])
			}
			same(t, read(t, h), rs)
		}
	}
}

func TestCheckMakesOffsetsDense(t *testing.T) {
	for _, c := range codecs {
		b := NewBuilder(Spec{Codec: c})
		for i := range 3 {
			if err := b.AddAt(int64(i*10), Record{Timestamp: 1000, Value: []byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
		gaps, _ := b.Build()
		gaps = edit(gaps, func(b Batch) { binary.BigEndian.PutUint32(b[posLastOffsetDelta:], 2) })
		got, bad := Check(gaps, anyTime(Producer))
		if bad != nil {
			t.Fatal(bad)
		}
		for i, r := range read(t, got.Batch) {
			if r.Offset != int64(i) {
				t.Fatalf("%s: offset %d at %d", c, r.Offset, i)
			}
		}
		if got.Batch.Codec() != c {
			t.Fatal(got.Batch.Codec())
		}
	}
}

func TestRawSnappyIsReadToo(t *testing.T) {
	rs := testRecords(9, 50)
	plain := build(t, Spec{}, rs)
	b := append(bytes.Clone(plain[:HeaderSize]), snappy.Encode(nil, plain.Payload())...)
	binary.BigEndian.PutUint32(b[posLength:], uint32(len(b)-LogOverhead))
	raw := edit(b, func(b Batch) { b[posAttributes+1] |= byte(Snappy) })
	if _, bad := Check(raw, anyTime(Producer)); bad != nil {
		t.Fatal(bad)
	}
	same(t, read(t, raw), rs)
}

// bomb is a batch whose one record has a value of n zeros.
func bomb(t testing.TB, c Codec, n int) Batch {
	t.Helper()
	return build(t, Spec{Codec: c}, []Record{{Timestamp: 1000, Value: make([]byte, n)}})
}

func TestBombsAreRefusedWithoutHoldingThem(t *testing.T) {
	for _, c := range codecs[1:] {
		b := bomb(t, c, 6<<20)
		r := anyTime(Producer)
		r.MaxInflated = 3 << 20
		var bad *Invalid
		Check(bytes.Clone(b), r) // fills the pools
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, bad = Check(b, r)
		runtime.ReadMemStats(&after)
		bytesPer := after.TotalAlloc - before.TotalAlloc
		if bad == nil || bad.Code != kerr.MessageTooLarge {
			t.Fatalf("%s: %v", c, bad)
		}
		if bytesPer > 2<<20 {
			t.Errorf("%s: %d bytes allocated for a bomb of 6 MiB", c, bytesPer)
		}
		if err := b.Each(Limits{MaxBytes: 1 << 20}, func(Record) error { return nil }); !errors.Is(err, ErrInflated) {
			t.Errorf("%s: %v", c, err)
		}
		r = anyTime(None)
		r.MaxBytes = 1 << 20
		if _, bad = Check(b, r); bad == nil || bad.Code != kerr.MessageTooLarge {
			t.Errorf("%s to none: %v", c, bad)
		}
	}
}

func TestALargeZstdWindowIsReadAndAHugeOneRefused(t *testing.T) {
	rs := testRecords(4, 1000)
	plain := build(t, Spec{}, rs)
	for window, ok := range map[int]bool{64 << 20: true, 256 << 20: false} {
		var buf bytes.Buffer
		w, err := zstd.NewWriter(&buf, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(false))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(plain.Payload()[:10])
		_ = w.Flush() // before the end is known: the header carries the window
		_, _ = w.Write(plain.Payload()[10:])
		_ = w.Close()
		b := append(bytes.Clone(plain[:HeaderSize]), buf.Bytes()...)
		binary.BigEndian.PutUint32(b[posLength:], uint32(len(b)-LogOverhead))
		z := edit(b, func(b Batch) { b[posAttributes+1] |= byte(Zstd) })
		if _, bad := Check(z, anyTime(Producer)); (bad == nil) != ok {
			t.Errorf("window %d: %v", window, bad)
		}
	}
}

func TestALongZstdStreamPassesTheWindowLimit(t *testing.T) {
	b := bomb(t, Zstd, 12<<20)
	if _, bad := Check(b, anyTime(Producer)); bad != nil {
		t.Fatal(bad)
	}
}

func TestMarkers(t *testing.T) {
	b := BuildMarker(5, 3, Marker{Type: Commit, CoordinatorEpoch: 8, TimestampMs: 77})
	m, ok, err := b.Marker()
	if err != nil || !ok || m != (Marker{Commit, 8, 77}) || !b.IsControl() || !b.IsTransactional() || b.BaseSequence() != -1 || b.Count() != 1 {
		t.Fatal(m, ok, err)
	}
	if _, bad := Check(b, Rules{Codec: Gzip, Coordinator: true, BeforeMaxMs: math.MaxInt64, AfterMaxMs: math.MaxInt64}); bad != nil {
		t.Fatal(bad)
	}
}

func TestAnEmptiedBatchKeepsWhatFencingNeeds(t *testing.T) {
	for _, base := range []int64{0, 10} {
		full := build(t, Spec{BaseOffset: base, LeaderEpoch: 3, Codec: Gzip, Producer: &ProducerInfo{ID: 1, Epoch: 0, Sequence: 5}}, testRecords(10, 5))
		b := full.Empty()
		if b.BaseOffset() != base || b.LastOffset() != base+9 || b.Count() != 0 || b.LastSequence() != 14 || len(b) != HeaderSize || b.LeaderEpoch() != 3 ||
			b.MaxTimestamp() != full.MaxTimestamp() || b.Codec() != None || b.VerifyCRC() != nil || b.Size() != HeaderSize {
			t.Fatalf("%x", b)
		}
		if got := read(t, b); len(got) != 0 {
			t.Fatal(got)
		}
	}
}

func TestFilterKeepsOffsetsTimesAndSequences(t *testing.T) {
	for _, c := range codecs {
		rs := testRecords(10, 30)
		b := build(t, Spec{BaseOffset: 100, LeaderEpoch: 4, Codec: c, Transactional: true, Producer: &ProducerInfo{ID: 1, Epoch: 2, Sequence: 7}}, rs)
		var want []Record
		for i := range rs {
			rs[i].Offset += 100
			if i%3 == 1 {
				want = append(want, rs[i])
			}
		}
		odd := func(r Record) bool { return (r.Offset-100)%3 == 1 }
		out, n, err := b.Filter(0, 0, odd)
		if err != nil || n != 3 || out.LastOffset() != 109 || out.BaseOffset() != 100 || out.BaseSequence() != 7 || out.LastSequence() != 16 ||
			out.LeaderEpoch() != 4 || out.Codec() != c || !out.IsTransactional() || out.VerifyCRC() != nil {
			t.Fatal(c, n, err)
		}
		same(t, read(t, out), want)
		// A delete horizon takes the place of the base timestamp; the records keep their times, and a later filter keeps the horizon.
		out, _, err = out.Filter(0, 9_999_999, func(Record) bool { return true })
		if h, ok := out.DeleteHorizon(); err != nil || !ok || h != 9_999_999 || out.MaxTimestamp() != 1004 {
			t.Fatal(h, ok, err)
		}
		same(t, read(t, out), want)
		out, _, _ = out.Filter(0, 0, func(r Record) bool { return r.Offset != want[0].Offset })
		if h, ok := out.DeleteHorizon(); !ok || h != 9_999_999 {
			t.Fatal("the horizon is lost")
		}
		same(t, read(t, out), want[1:])
	}
}

func TestNextWalksAndStops(t *testing.T) {
	one, two := build(t, Spec{}, testRecords(1, 5)), build(t, Spec{}, testRecords(2, 5))
	b, rest, err := Next(append(bytes.Clone(one), two...))
	if err != nil || !bytes.Equal(b, one) || !bytes.Equal(rest, two) {
		t.Fatal(err)
	}
	if _, _, err := Next(rest[:len(rest)-1]); !errors.Is(err, ErrShort) {
		t.Fatal(err)
	}
	if _, _, err := Next(make([]byte, 100)); !errors.Is(err, ErrMagic) {
		t.Fatal(err)
	}
}

func TestEachMayNest(t *testing.T) {
	for _, c := range codecs {
		b := build(t, Spec{Codec: c}, testRecords(5, 10))
		n := 0
		err := b.Each(Limits{}, func(Record) error {
			return b.Each(Limits{}, func(Record) error { n++; return nil })
		})
		if err != nil || n != 25 {
			t.Fatal(c, n, err)
		}
		if err := b.Each(Limits{}, func(Record) error { return io.EOF }); err != io.EOF {
			t.Fatal("the callback's own error must come back as it is:", err)
		}
	}
}

// Every flipped byte must be found: by the frame, or by the checksum; offset and epoch lie outside it.
func TestEveryFlippedByteIsFound(t *testing.T) {
	b := build(t, Spec{Codec: LZ4}, testRecords(5, 20))
	for i := range b {
		if i >= posLeaderEpoch && i < posMagic {
			continue // any epoch from a client is overwritten
		}
		c := bytes.Clone(b)
		c[i] ^= 0x10
		if _, bad := Check(c, anyTime(Producer)); bad == nil {
			t.Errorf("byte %d", i)
		}
	}
}

func TestCheckAllocatesNothingPerRecord(t *testing.T) {
	for _, c := range codecs {
		b := build(t, Spec{Codec: c}, testRecords(1000, 100))
		r := anyTime(Producer)
		Check(b, r)
		if n := testing.AllocsPerRun(20, func() { Check(b, r) }); n > 100 { // a pool may be emptied in between, so not exactly none
			t.Errorf("%s: %v allocations for 1000 records", c, n)
		}
	}
}

// The fast decoder reads s2's repeats; a client does not. Literal "a", then a repeat of it.
func TestSnappyRepeatsOfS2AreRefused(t *testing.T) {
	in := []byte{9, 0, 'a', 1 | 0<<2 | 0<<5, 1, 1, 0}
	if plainSnappy(in) || !plainSnappy(in[:5]) {
		t.Fatal("a copy with offset 0 must be found, one with offset 1 is fine")
	}
	for _, size := range []int{1, 59, 60, 61, 255, 256, 257, 70_000} {
		p := make([]byte, size)
		for i := range p {
			p[i] = byte(rand.Uint32())
		}
		p = append(p, p...)
		if !plainSnappy(snappy.Encode(nil, p)) {
			t.Fatal(size)
		}
	}
}

// A tiny batch may ask for a window of 64 MiB, as zstd -22 does, or lie about its content: neither takes the memory.
func TestATinyZstdFrameTakesLittleMemory(t *testing.T) {
	for name, frame := range map[string][]byte{
		"window":  {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x80, 0x01, 0x00, 0x00},                                  // 64 MiB window, one empty last block
		"content": {0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0x00, 0x00, 0x00, 0x06, 0x01, 0x00, 0x00, 0x00, 0x00, 0}, // 96 MiB content claimed
	} {
		b := append(bytes.Clone(build(t, Spec{}, testRecords(1, 1))[:HeaderSize]), frame...)
		binary.BigEndian.PutUint32(b[posLength:], uint32(len(b)-LogOverhead))
		z := edit(b, func(b Batch) { b[posAttributes+1] |= byte(Zstd) })
		Check(bytes.Clone(z), anyTime(Producer))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, bad := Check(z, anyTime(Producer))
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; bad == nil || n > 1<<20 {
			t.Errorf("%s: %v, %d bytes", name, bad, n)
		}
	}
}
