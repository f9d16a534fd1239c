package batch

import (
	"bytes"
	"testing"
)

func seeds(f *testing.F) {
	for _, c := range codecs {
		f.Add([]byte(build(f, Spec{Codec: c}, testRecords(3, 40))))
	}
	f.Add([]byte(BuildMarker(1, 2, Marker{})))
}

// FuzzCheck seals whatever comes, so that the fuzzer gets past the checksum; an accepted batch must then satisfy its own reader.
func FuzzCheck(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, target := range []Codec{Producer, None, Zstd} {
			b := bytes.Clone(p)
			if h, _, err := Next(b); err == nil {
				h.Seal()
			}
			r := anyTime(target)
			r.MaxBytes, r.MaxInflated = 1<<20, 4<<20
			got, bad := Check(b, r)
			if bad != nil {
				if bad.Code == nil {
					t.Fatal("no code")
				}
				continue
			}
			if err := got.Batch.VerifyCRC(); err != nil {
				t.Fatal(err)
			}
			next := got.Batch.BaseOffset()
			err := got.Batch.Each(Limits{MaxBytes: 8 << 20}, func(r Record) error {
				if r.Offset != next {
					t.Fatalf("offset %d, want %d", r.Offset, next)
				}
				next++
				return nil
			})
			if err != nil || next != got.Batch.NextOffset() {
				t.Fatal(err, next, got.Batch.NextOffset())
			}
		}
	})
}

// FuzzEach reads bytes that no one has checked.
func FuzzEach(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, p []byte) {
		h, _, err := Next(p)
		if err != nil {
			return
		}
		n := 0
		err = h.Each(Limits{MaxBytes: 4 << 20}, func(r Record) error {
			n += len(r.Key) + len(r.Value)
			return nil
		})
		if err == nil && n > 4<<20 && h.Codec() != None {
			t.Fatal("more bytes than the bound")
		}
		_, _, _ = h.Marker()
	})
}
