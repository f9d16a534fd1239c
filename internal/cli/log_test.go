package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/milena-mq/milena/internal/batch"
)

// dataDir writes a data directory with one durable log of two batches.
func dataDir(t *testing.T) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, "letters-0", "00000000000000000000.log")
	var all []byte
	for i, v := range []string{"Dear Milena", "\x1b[2Jbad"} {
		b := batch.NewBuilder(batch.Spec{BaseOffset: int64(i)})
		if err := b.AddAt(int64(i), batch.Record{Key: []byte("k"), Value: []byte(v), Timestamp: 1000}); err != nil {
			t.Fatal(err)
		}
		p, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p...)
	}
	for name, content := range map[string]string{file: string(all), filepath.Join(dir, "recovery-point-offset-checkpoint"): "0\n1\nletters 0 2\n",
		filepath.Join(dir, "letters-0", "partition.metadata"): "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ\n"} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, file
}

func TestLogDumpAndVerify(t *testing.T) {
	s := &shell{t: t}
	dir, file := dataDir(t)
	s.run("log", "dump", dir, "--records")
	s.run("log", "dump", file, "-o", "json")
	if strings.Contains(s.out.String(), "\x1b") {
		t.Error("a record can steer the terminal")
	}
	s.run("log", "verify", dir)
	s.run("log", "verify", dir, "-o", "json")
	if code := s.run("log", "dump", dir, "--partition", "1"); code != exitUsage {
		t.Errorf("code %d", code)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw[70] ^= 1
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	if code := s.run("log", "verify", dir); code != exitFailed {
		t.Errorf("damage ends with code %d", code)
	}
	if code := s.run("log", "verify", filepath.Join(dir, "nothing")); code != exitFailed {
		t.Errorf("a path that is not there ends with code %d", code)
	}
	golden(t, "log.txt", strings.ReplaceAll(s.log.String(), dir, "DIR"))
}
