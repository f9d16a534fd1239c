package batch

import (
	"fmt"
	"testing"
)

func BenchmarkCheck(b *testing.B) {
	for _, shape := range []struct{ n, size int }{{900, 1024}, {160, 100}, {9000, 100}} {
		for _, c := range codecs {
			b.Run(fmt.Sprintf("%dx%d/%s", shape.n, shape.size, c), func(b *testing.B) {
				p := build(b, Spec{Codec: c}, testRecords(shape.n, shape.size))
				r := anyTime(Producer)
				b.ReportAllocs()
				b.SetBytes(int64(shape.n * shape.size))
				for b.Loop() {
					if _, bad := Check(p, r); bad != nil {
						b.Fatal(bad)
					}
				}
			})
		}
	}
}

func BenchmarkEach(b *testing.B) {
	for _, c := range codecs {
		b.Run(c.String(), func(b *testing.B) {
			p := build(b, Spec{Codec: c}, testRecords(900, 1024))
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Each(Limits{}, func(Record) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRebuild(b *testing.B) {
	for _, c := range codecs[1:] {
		b.Run(c.String(), func(b *testing.B) {
			p := build(b, Spec{}, testRecords(900, 1024))
			r := anyTime(c)
			b.ReportAllocs()
			for b.Loop() {
				if _, bad := Check(p, r); bad != nil {
					b.Fatal(bad)
				}
			}
		})
	}
}
