package storage

import (
	"encoding/hex"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/vfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

var drawing = regexp.MustCompile("(?s)```(hex|text) (\\S+)\n(.*?)```")

// drawings are the files drawn in docs/format: name to content; hex text keeps the letters CRC for bytes not drawn.
func drawings(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, doc := range []string{"segment.md", "index.md", "checkpoints.md"} {
		raw, err := os.ReadFile("../../docs/format/" + doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range drawing.FindAllStringSubmatch(string(raw), -1) {
			text := m[3]
			if m[1] == "hex" {
				text = strings.ReplaceAll(strings.Join(strings.Fields(strings.ReplaceAll(text, "CRC.CRC.CRC", "........")), ""), "\n", "")
			}
			out[m[2]] = text
		}
	}
	return out
}

func formatBatch(ts int64) batch.Batch {
	b := batch.NewBuilder(batch.Spec{})
	_ = b.Add(batch.Record{Timestamp: ts, Key: []byte("k"), Value: []byte("v")})
	out, _ := b.Build()
	return out
}

func TestFilesAreAsDrawn(t *testing.T) {
	want := drawings(t)
	m := memfs.New()
	d, _ := openTest(t, m)
	c := smallConfig()
	l, err := d.Create(tp("t", 0), topicID(1), c, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.TruncateFully(5); err != nil {
		t.Fatal(err)
	}
	for i := range int64(3) {
		if _, err := l.Append(formatBatch(1000+10*i), 3, 0); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			compareFile(t, m, want, "t-0/", "00000000000000000005.log")
		}
	}
	if err := l.RaiseStart(6, 0); err != nil {
		t.Fatal(err)
	}
	// A checkpoint of everything first: a clean stop spares the files of small logs.
	if err := errors.Join(d.checkpoint(true), d.Close(9)); err != nil {
		t.Fatal(err)
	}
	for name := range want {
		switch {
		case strings.HasSuffix(name, ".log"): // drawn after the first batch, above
		case strings.HasSuffix(name, "index"):
			compareFile(t, m, want, "t-0/", name)
		default:
			compareFile(t, m, want, "", name)
		}
	}
	if len(want) < 9 {
		t.Fatalf("%d drawings", len(want))
	}
}

func compareFile(t *testing.T, m *memfs.FS, want map[string]string, folder, name string) {
	t.Helper()
	raw, err := vfs.ReadFile(m, testDir+"/"+folder+name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	got, w := string(raw), want[name]
	if strings.HasSuffix(name, "index") || strings.HasSuffix(name, ".log") {
		got = hex.EncodeToString(raw)
		for i := range w {
			if w[i] == '.' && i < len(got) {
				got = got[:i] + "." + got[i+1:]
			}
		}
	}
	if strings.TrimSuffix(got, "\n") != strings.TrimSuffix(w, "\n") {
		t.Errorf("%s is\n%s\ndrawn as\n%s", name, got, w)
	}
}
