package producer

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// The bytes drawn in docs/format/producer-snapshot.md are what Snapshot writes and Load reads.
func TestTheDrawnBytesAreTheFormat(t *testing.T) {
	text, err := os.ReadFile("../../docs/format/producer-snapshot.md")
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
	var tab, again Table
	tab.Update(data(fields{"id": 1000, "epoch": 2, "seq": 7, "n": 3, "ts": 1700000000000, "txn": 1}, 42))
	got := tab.Snapshot(nil)
	if hex.EncodeToString(got) != digits.String() {
		t.Fatalf("drawn   %s\nwritten %x", digits.String(), got)
	}
	if err := again.Load(got); err != nil {
		t.Fatal(err)
	}
}
