package zookeeper

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/milena-mq/milena/internal/meta"
)

// The nodes drawn in docs/format/zookeeper.md are what is written, byte for byte, and what is read.
func TestFormatIsAsDrawn(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/format/zookeeper.md")
	must(t, err)
	drawn := strings.Split(strings.TrimSpace(strings.Split(string(doc), "```")[1]), "\n")
	if len(drawn) != 4 {
		t.Fatalf("%d lines are drawn", len(drawn))
	}
	h := head{Rev: 301, First: 202, Bytes: 40709, Snap: &snapRef{252, ref{"00000000000000fc-00000001-s3", 2, 600000, 216608587}}}
	changes := []meta.Change{put("a", "b"), meta.Delete("c")}
	same := func(i int, got []byte, isHex bool) {
		t.Helper()
		want := drawn[i]
		if isHex {
			b, err := hex.DecodeString(strings.ReplaceAll(want, " ", ""))
			must(t, err)
			want = string(b)
		}
		if string(got) != want {
			t.Errorf("line %d: written %q, drawn %q (%x)", i+1, got, want, got)
		}
	}
	same(0, h.encode(), false)
	same(1, encodeInline(encodeChanges(changes, false)), true)
	same(2, encodeDistant(ref{"00000000000000fd-00000001-e4", 6, 2805000, 7}), false)
	same(3, encodeChanges([]meta.Change{{Key: "a", Value: []byte("b"), Rev: 300}}, true), true)
	if got, err := decodeHead([]byte(drawn[0]), 0); err != nil || got.Rev != 301 || *got.Snap != *h.Snap {
		t.Errorf("head read as %+v, %v", got, err)
	}
}
