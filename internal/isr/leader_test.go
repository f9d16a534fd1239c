package isr

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts instead of comparing them")

// TestTranscripts plays testdata/*.txt: each line is a command, the line below "->" what came of it.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(raw))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(raw) {
				t.Errorf("transcript differs, got:\n%s", got)
			}
		})
	}
}

func play(t *testing.T, script string) string {
	var out strings.Builder
	var l *Leader
	hw := int64(-1)
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "-> ") {
			continue
		}
		fmt.Fprintln(&out, line)
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		args := map[string]string{}
		for _, a := range f[1:] {
			k, v, _ := strings.Cut(a, "=")
			args[k] = v
		}
		num := func(k string) int64 {
			n, err := strconv.ParseInt(args[k], 10, 64)
			if err != nil {
				t.Fatalf("%q: %s: %v", line, k, err)
			}
			return n
		}
		o := Out{}
		switch f[0] {
		case "lead":
			l = NewLeader(int32(num("self")), assignment(t, args), num("hw"), num("flushed"), num("end"))
			o = Out{HW: l.HW()}
			hw = l.HW()
		case "appended":
			o = l.Step(0, In{Kind: Appended, Offset: num("to")})
		case "flushed":
			o = l.Step(0, In{Kind: Flushed, Offset: num("to")})
		case "fetched":
			o = l.Step(0, In{Kind: Fetched, Replica: int32(num("by")), Offset: num("at")})
		case "assigned":
			o = l.Step(0, In{Kind: Assigned, To: assignment(t, args)})
		default:
			t.Fatalf("unknown command %q", line)
		}
		// The invariants that no transcript may show broken.
		if o.HW < hw || o.HW != l.HW() || o.Raised != (o.HW > hw) || o.HW > l.flushed && !l.BelowMin() && o.Raised || l.flushed > l.end {
			t.Errorf("%q: hw %d after %d, raised %v, flushed %d, end %d", line, o.HW, hw, o.Raised, l.flushed, l.end)
		}
		hw = o.HW
		fmt.Fprintf(&out, "-> hw=%d raised=%v belowMin=%v caughtUp=%v\n", o.HW, o.Raised, l.BelowMin(), l.CaughtUp())
	}
	return out.String()
}

func assignment(t *testing.T, args map[string]string) Assignment {
	ids := func(s string) []int32 {
		var out []int32
		for p := range strings.SplitSeq(s, ",") {
			n, err := strconv.Atoi(p)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, int32(n))
		}
		return out
	}
	m, _ := strconv.Atoi(args["min"])
	return Assignment{Replicas: ids(args["replicas"]), ISR: ids(args["isr"]), MinISR: int32(m)}
}

// TestStepAllocatesNothing keeps the append path free of garbage.
func TestStepAllocatesNothing(t *testing.T) {
	l := NewLeader(1, Assignment{Replicas: []int32{1}, ISR: []int32{1}, MinISR: 1}, 0, 0, 0)
	n := int64(0)
	if a := testing.AllocsPerRun(100, func() {
		n++
		l.Step(0, In{Kind: Appended, Offset: n})
		l.Step(0, In{Kind: Flushed, Offset: n})
	}); a != 0 {
		t.Errorf("%v allocations per append", a)
	}
	if l.HW() != n {
		t.Errorf("hw %d, want %d", l.HW(), n)
	}
}
