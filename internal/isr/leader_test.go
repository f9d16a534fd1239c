package isr

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/det"
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
	var fo *Follower
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
		if strings.HasPrefix(f[0], "f:") {
			fo = playFollower(t, &out, fo, f[0][2:], args)
			continue
		}
		o := Out{}
		now := det.Instant(0)
		if args["now"] != "" {
			now = det.Milli(num("now"))
		}
		switch f[0] {
		case "lead":
			l = NewLeader(int32(num("self")), assignment(t, args), num("hw"), num("flushed"), num("end"))
			o = Out{HW: l.HW()}
			hw = l.HW()
		case "appended":
			o = l.Step(now, In{Kind: Appended, Offset: num("to")})
		case "flushed":
			o = l.Step(now, In{Kind: Flushed, Offset: num("to")})
		case "fetched":
			epoch := int64(-1)
			if args["epoch"] != "" {
				epoch = num("epoch")
			}
			o = l.Step(now, In{Kind: Fetched, Replica: int32(num("by")), Offset: num("at"), BrokerEpoch: epoch, Behind: args["behind"] == "yes"})
		case "tick":
			o = l.Step(now, In{Kind: Tick})
		case "answered":
			in := In{Kind: Answered, Seq: num("seq")}
			if args["committed"] == "yes" {
				in.Answer, in.To = Committed, assignment(t, args)
			} else {
				in.Answer = AnswerOf(int16(num("code")))
			}
			o = l.Step(now, in)
		case "assigned":
			o = l.Step(now, In{Kind: Assigned, To: assignment(t, args)})
		default:
			t.Fatalf("unknown command %q", line)
		}
		// The invariants that no transcript may show broken.
		if o.HW < hw || o.HW != l.HW() || o.Raised != (o.HW > hw) || o.HW > l.flushed && !l.BelowMin() && o.Raised || l.flushed > l.end {
			t.Errorf("%q: hw %d after %d, raised %v, flushed %d, end %d", line, o.HW, hw, o.Raised, l.flushed, l.end)
		}
		hw = o.HW
		fmt.Fprintf(&out, "-> hw=%d raised=%v belowMin=%v caughtUp=%v", o.HW, o.Raised, l.BelowMin(), l.CaughtUp())
		if p := o.Propose; p != nil {
			fmt.Fprintf(&out, " propose=%d isr=%v epoch=%d", p.Seq, p.ISR, p.PartitionEpoch)
		} else if p := l.Pending(); p != nil {
			fmt.Fprintf(&out, " pending=%d", p.Seq)
		}
		if w := l.Wake(); w != det.Never {
			fmt.Fprintf(&out, " wake=%d", w.UnixMilli())
		}
		fmt.Fprintln(&out)
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
	n := func(k string) int {
		v, err := strconv.Atoi(args[k])
		if err != nil && args[k] != "" {
			t.Fatal(err)
		}
		return v
	}
	var brokers []Broker
	for p := range strings.SplitSeq(args["brokers"], ",") { // id:epoch, id:epoch:off
		f := strings.Split(p, ":")
		if len(f) < 2 {
			continue
		}
		id, err1 := strconv.Atoi(f[0])
		e, err2 := strconv.Atoi(f[1])
		if err1 != nil || err2 != nil {
			t.Fatalf("broker %q", p)
		}
		brokers = append(brokers, Broker{ID: int32(id), Epoch: int64(e), Active: len(f) == 2})
	}
	m := n("min")
	return Assignment{PartitionEpoch: int32(n("pe")), Lag: time.Duration(n("lag")) * time.Millisecond, Brokers: brokers, Replicas: ids(args["replicas"]), ISR: ids(args["isr"]), MinISR: int32(m)}
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
