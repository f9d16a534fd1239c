package batch

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// The bytes drawn in docs/format/record-batch.md are what the builder writes and what Each reads.
func TestTheDrawnBytesAreTheFormat(t *testing.T) {
	text, err := os.ReadFile("../../docs/format/record-batch.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(text), "```hex\n")
	block, _, _ = strings.Cut(block, "```")
	var digits strings.Builder
	for _, line := range strings.Split(block, "\n") {
		line, _, _ = strings.Cut(line, "|")
		digits.WriteString(strings.ReplaceAll(line, " ", ""))
	}
	drawn, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	b := build(t, Spec{BaseOffset: 42, LeaderEpoch: 5, Producer: &ProducerInfo{ID: 1000, Epoch: 2, Sequence: 7}}, []Record{
		{Timestamp: 1700000000000, Key: []byte("key"), Value: []byte("value"), Headers: []Header{{Key: []byte("h"), Value: nil}}},
		{Timestamp: 1700000000005, Key: []byte("key"), Value: nil},
	})
	if got := hex.EncodeToString(b); got != hex.EncodeToString(drawn) {
		t.Fatalf("drawn  %x\nwritten %s", drawn, got)
	}
}
