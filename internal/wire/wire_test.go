package wire

import (
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fill puts random values into every field of a kmsg structure, strings never null where kmsg has no
// pointer, arrays of up to three elements.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeOf(kmsg.Tags{}) {
			if r.IntN(3) == 0 {
				t := v.Addr().Interface().(*kmsg.Tags)
				for range 1 + r.IntN(3) {
					t.Set(uint32(100+r.IntN(1000)), make([]byte, r.IntN(200)))
				}
			}
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).Name == "Version" && depth == 0 {
				continue
			}
			fill(r, v.Field(i), depth+1)
		}
	case reflect.String:
		v.SetString(string(make([]byte, r.IntN(200))))
	case reflect.Pointer:
		if r.IntN(2) == 0 || v.Type().Elem().Kind() == reflect.Struct {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem(), depth+1)
		}
	case reflect.Slice:
		n := r.IntN(4)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(int8(r.Uint64())))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.Uint64() & 0x7f)
	case reflect.Float64:
		v.SetFloat(r.Float64())
	}
}

// TestLayoutsMatchKmsg walks over what kmsg encodes, for every key and version: the walk must end
// exactly at the end, and one byte less must be an error.
func TestLayoutsMatchKmsg(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, k := range slices.Sorted(maps.Keys(layouts)) {
		for v := int16(0); v <= MaxVersion(k); v++ {
			for range 20 {
				req := kmsg.RequestForKey(k)
				req.SetVersion(v)
				fill(r, reflect.ValueOf(req).Elem(), 0)
				req.SetVersion(v)
				body := req.AppendTo(nil)
				w := walker{src: body, version: v, flexible: Flexible(k, v), left: 1 << 40, tags: -1}
				w.readStruct(schemaFor(k))
				if w.bad || len(w.src) != 0 {
					t.Fatalf("%s version %d: walk over %d bytes: bad %v, %d left", Name(k), v, len(body), w.bad, len(w.src))
				}
				if _, err := Cost(Header{Key: k, Version: v, Flexible: Flexible(k, v)}, body); err != nil {
					t.Fatalf("%s version %d: %v", Name(k), v, err)
				}
				if len(body) == 0 {
					continue
				}
				w = walker{src: body[:len(body)-1], version: v, flexible: Flexible(k, v), left: 1 << 40, tags: -1}
				w.readStruct(schemaFor(k))
				if !w.bad {
					t.Fatalf("%s version %d: walk over a body one byte short found nothing", Name(k), v)
				}
			}
		}
	}
}

// TestEveryKeyHasALayout but those that Kafka 4 removed and those after 4.3.
func TestEveryKeyHasALayout(t *testing.T) {
	for k := int16(0); k <= 92; k++ {
		if k >= 4 && k <= 7 || k == 59 || k == 82 { // for a Raft quorum of Kafka's own
			continue
		}
		if _, ok := layouts[k]; !ok {
			t.Errorf("no layout for key %d %s", k, Name(k))
		}
	}
}

// header makes a frame without a body.
func header(k, v int16, client string) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(k))
	b = binary.BigEndian.AppendUint16(b, uint16(v))
	b = binary.BigEndian.AppendUint32(b, 7)
	b = binary.BigEndian.AppendUint16(b, uint16(len(client)))
	b = append(b, client...)
	if Flexible(k, v) {
		b = append(b, 0)
	}
	return b
}

func TestParseHeader(t *testing.T) {
	for _, k := range []int16{0, 1, 3, 17, 18} {
		for v := int16(0); v <= MaxVersion(k); v++ {
			f := append(header(k, v, "me"), 'x')
			h, rest, err := ParseHeader(f)
			if err != nil || h.Key != k || h.Version != v || h.Correlation != 7 || h.ClientID != "me" || !h.KnownVersion || string(rest) != "x" {
				t.Fatalf("%s %d: %+v %q %v", Name(k), v, h, rest, err)
			}
			if h.ResponseTags() != (Flexible(k, v) && k != 18) {
				t.Fatalf("%s %d: response tags", Name(k), v)
			}
			for cut := range len(f) - 1 {
				if h, _, err := ParseHeader(f[:cut]); !errors.Is(err, ErrMalformed) {
					t.Fatalf("%s %d cut at %d: %+v %v", Name(k), v, cut, h, err)
				}
			}
		}
	}
	null := []byte{0, 3, 0, 0, 0, 0, 0, 1, 0xff, 0xff}
	if h, _, err := ParseHeader(null); err != nil || !h.ClientIDIsNil || h.ClientID != "" {
		t.Fatalf("null client id: %+v %v", h, err)
	}
	bad := map[string][]byte{
		"unknown key":           {0x7f, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff},
		"negative key":          {0xff, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff},
		"negative version":      {0, 3, 0xff, 0xff, 0, 0, 0, 1, 0xff, 0xff},
		"client id too long":    {0, 3, 0, 0, 0, 0, 0, 1, 0x7f, 0xff},
		"client id length -2":   {0, 3, 0, 0, 0, 0, 0, 1, 0xff, 0xfe},
		"tag count without end": {0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"varint without end":    {0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80},
	}
	for name, f := range bad {
		if h, _, err := ParseHeader(f); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v %v", name, h, err)
		}
	}
	// A version of ApiVersions that nobody knows yet: the correlation id is all that is read.
	if h, _, err := ParseHeader([]byte{0, 18, 0, 99, 0, 0, 0, 9}); err != nil || h.KnownVersion || h.Correlation != 9 {
		t.Errorf("ApiVersions 99: %+v %v", h, err)
	}
}

func TestCheckSize(t *testing.T) {
	for size, ok := range map[int32]bool{-1: false, -1 << 31: false, 0: false, 7: false, 8: true, MaxFrame: true, MaxFrame + 1: false, 1<<31 - 1: false} {
		if err := CheckSize(size, MaxFrame); (err == nil) != ok {
			t.Errorf("%d: %v", size, err)
		}
	}
}

// allocated measures what f allocates in bytes, other goroutines included.
func allocated(f func()) int64 {
	var a, b runtime.MemStats
	runtime.ReadMemStats(&a)
	f()
	runtime.ReadMemStats(&b)
	return int64(b.TotalAlloc - a.TotalAlloc)
}

// TestHostileArraysAreRefused sends, for every key and version, a megabyte of zeros and of ones behind a
// huge array length: kmsg alone would turn some of them into many times their size.
func TestHostileArraysAreRefused(t *testing.T) {
	refused := 0
	for k := range layouts {
		for v := int16(0); v <= MaxVersion(k); v++ {
			for _, fillByte := range []byte{0, 1, 2} {
				body := make([]byte, 256<<10)
				for i := range body {
					body[i] = fillByte
				}
				if checkCost(t, k, v, body) {
					refused++
				}
			}
		}
	}
	if refused == 0 {
		t.Fatal("nothing was refused")
	}
	// The worst that kmsg would do: a Produce of topics without name and partitions.
	body := []byte{0, 0, 0xff, 0xff, 0, 0, 0, 1}
	body = binary.AppendUvarint(body, 1<<20+1)
	for range 1 << 20 {
		body = append(body, 1, 1, 0)
	}
	if _, err := Cost(Header{Key: 0, Version: 9, Flexible: true}, body); !errors.Is(err, ErrTooDense) {
		t.Fatalf("a million empty topics: %v", err)
	}
}

// checkCost compares Cost's promise with what decoding takes; true when the body was refused.
func checkCost(t *testing.T, k, v int16, body []byte) bool {
	t.Helper()
	h := Header{Key: k, Version: v, Flexible: Flexible(k, v), KnownVersion: true}
	cost, err := Cost(h, body)
	if err != nil {
		return true
	}
	if limit := int64(costFactor*len(body) + costSlack + 4096); cost > limit {
		t.Fatalf("%s version %d: cost %d over %d", Name(k), v, cost, limit)
	}
	var derr error
	got := allocated(func() { _, derr = Decode(h, body) })
	// kmsg may still refuse: the walk does not look into the tagged fields that kmsg knows.
	if derr != nil && !errors.Is(derr, ErrMalformed) {
		t.Fatalf("%s version %d: %v", Name(k), v, derr)
	}
	if got > cost+16<<10 {
		t.Fatalf("%s version %d: decoding %d bytes took %d, promised %d", Name(k), v, len(body), got, cost)
	}
	return false
}

// TestProduceAliasesTheFrame: record bytes are never copied on the way in.
func TestProduceAliasesTheFrame(t *testing.T) {
	for v := int16(3); v <= 13; v++ {
		req := kmsg.NewProduceRequest()
		req.Version = v
		req.Topics = []kmsg.ProduceRequestTopic{{Topic: "t", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: []byte("records")}}}}
		body := req.AppendTo(nil)
		got, err := Decode(Header{Key: 0, Version: v, Flexible: v >= 9, KnownVersion: true}, body)
		if err != nil {
			t.Fatal(err)
		}
		for i := range body {
			body[i] ^= 0xff
		}
		if string(got.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records) == "records" {
			t.Errorf("version %d: records were copied", v)
		}
	}
}

// FuzzBody feeds bodies to every key and version: no panic, and memory within the promise.
func FuzzBody(f *testing.F) {
	f.Add(int16(0), int16(9), []byte{0, 0, 1, 0, 0, 0, 1, 2, 2, 't', 2, 0, 0, 0, 0, 1, 0, 0, 0})
	f.Add(int16(18), int16(3), []byte{2, 'a', 2, 'b', 0})
	f.Add(int16(1), int16(12), []byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0})
	f.Add(int16(75), int16(0), []byte{1, 0, 0, 0, 1, 0xff, 0})
	f.Fuzz(func(t *testing.T, k, v int16, body []byte) {
		if _, ok := layouts[k]; !ok || v < 0 || v > MaxVersion(k) {
			return
		}
		checkCost(t, k, v, body)
	})
}

// FuzzHeader: no frame makes the header parser panic.
func FuzzHeader(f *testing.F) {
	f.Add(header(0, 9, "x"))
	f.Add(header(18, 4, ""))
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, rest, err := ParseHeader(frame)
		if err == nil && len(rest) > len(frame) {
			t.Fatal(h)
		}
	})
}

// TestRandomBodies is the fuzz of every key and version that runs in each `go test`.
func TestRandomBodies(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, k := range slices.Sorted(maps.Keys(layouts)) {
		for v := int16(0); v <= MaxVersion(k); v++ {
			for range 10 {
				req := kmsg.RequestForKey(k)
				req.SetVersion(v)
				fill(r, reflect.ValueOf(req).Elem(), 0)
				req.SetVersion(v)
				body := req.AppendTo(nil)
				for range 1 + r.IntN(4) {
					if len(body) > 0 {
						body[r.IntN(len(body))] = byte(r.Uint32())
					}
				}
				checkCost(t, k, v, body)
			}
		}
	}
}

func BenchmarkCostProduce100(b *testing.B) {
	req := kmsg.NewProduceRequest()
	req.Version = 12
	for range 10 {
		topic := kmsg.NewProduceRequestTopic()
		topic.Topic = "topic-of-some-length"
		for p := range int32(10) {
			topic.Partitions = append(topic.Partitions, kmsg.ProduceRequestTopicPartition{Partition: p, Records: make([]byte, 16<<10)})
		}
		req.Topics = append(req.Topics, topic)
	}
	body := req.AppendTo(nil)
	h := Header{Key: 0, Version: 12, Flexible: true, KnownVersion: true}
	b.Run("cost", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Cost(h, body); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Decode(h, body); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestNamesAreKafkas(t *testing.T) {
	for k, want := range map[int16]string{0: "Produce", 4: "LeaderAndIsr", 17: "SaslHandshake", 22: "InitProducerId", 29: "DescribeAcls", 45: "AlterPartitionReassignments", 50: "DescribeUserScramCredentials", 67: "AllocateProducerIds", 1000: "Unknown", -1: "Unknown"} {
		if got := Name(k); got != want {
			t.Errorf("%d is %s, want %s", k, got, want)
		}
	}
}
