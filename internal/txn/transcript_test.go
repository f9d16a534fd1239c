package txn

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts instead of comparing them")

// TestTranscripts plays testdata/*.txt: each line is a command, the lines behind "->" all that came of it. After every
// file a machine that replays what was emitted must agree with the one that emitted it.
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
			p := newPlayer()
			got := p.play(t, string(raw))
			p.checkReplay(t)
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(raw) {
				t.Errorf("transcript differs, got:\n%s", got)
			}
		})
	}
}

// player drives a machine with a clock and a log of its own.
type player struct {
	cfg   Config
	m     *Machine
	now   det.Instant
	log   []Record
	fresh int64
	token Token
	out   strings.Builder
}

func newPlayer() *player {
	p := &player{cfg: DefaultConfig(), now: det.Milli(1_000_000), fresh: 100}
	p.cfg.Epoch = 7
	p.m = New(p.cfg)
	return p
}

func (p *player) play(t *testing.T, script string) string {
	t.Helper()
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "->") || strings.HasPrefix(line, "   ") {
			continue
		}
		p.out.WriteString(line + "\n")
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		args := map[string]string{}
		for _, a := range f[1:] {
			k, v, _ := strings.Cut(a, "=")
			args[k] = v
		}
		p.command(t, f[0], args)
	}
	return p.out.String()
}

func num(args map[string]string, k string, def int64) int64 {
	v, ok := args[k]
	if !ok {
		return def
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// parts reads t-0,t-1,u-3.
func parts(s string) []meta.TopicPartition {
	var out []meta.TopicPartition
	for _, x := range strings.Split(s, ",") {
		i := strings.LastIndexByte(x, '-')
		if i < 0 {
			continue
		}
		n, _ := strconv.Atoi(x[i+1:])
		out = append(out, meta.TopicPartition{Topic: x[:i], Partition: int32(n)})
	}
	return out
}

func (p *player) command(t *testing.T, cmd string, args map[string]string) {
	t.Helper()
	id := args["id"]
	if id == "" {
		id = "x"
	}
	switch cmd {
	case "init":
		r := kmsg.NewPtrInitProducerIDRequest()
		r.Version, r.TransactionalID = int16(num(args, "v", 5)), &id
		r.TransactionTimeoutMillis = int32(num(args, "timeout", 60000))
		r.ProducerID, r.ProducerEpoch = num(args, "pid", -1), int16(num(args, "epoch", -1))
		p.step(t, Init{Request: r, FreshID: -1})
	case "add":
		p.step(t, Add{TxnID: id, ProducerID: num(args, "pid", 100), Epoch: int16(num(args, "epoch", 0)), Partitions: parts(args["parts"]), Verify: args["verify"] != "", V2: args["v2"] != ""})
	case "end":
		r := kmsg.NewPtrEndTxnRequest()
		r.Version, r.TransactionalID, r.ProducerID, r.ProducerEpoch = int16(num(args, "v", 5)), id, num(args, "pid", 100), int16(num(args, "epoch", 0))
		r.Commit = args["commit"] != ""
		p.step(t, End{Request: r, FreshID: -1})
	case "written":
		p.step(t, Written{TxnID: id, ProducerID: num(args, "pid", 100), Epoch: int16(num(args, "epoch", 0)), Partitions: parts(args["parts"])})
	case "fenced":
		p.step(t, Fenced{TxnID: id, ProducerID: num(args, "pid", 100), Epoch: int16(num(args, "epoch", 0))})
	case "describe":
		p.step(t, Describe{TxnID: id})
	case "list":
		r := kmsg.NewPtrListTransactionsRequest()
		r.Version = 2
		r.DurationFilterMillis = num(args, "older", -1)
		if s := args["state"]; s != "" {
			r.StateFilters = strings.Split(s, ",")
		}
		if n := num(args, "pid", -1); n >= 0 {
			r.ProducerIDFilters = []int64{n}
		}
		if s := args["match"]; s != "" {
			r.TransactionalIDPattern = &s
		}
		p.step(t, List{Request: r})
	case "wait":
		p.now = p.now.Add(time.Duration(num(args, "ms", 0)) * time.Millisecond)
		p.step(t, Tick{})
	case "version":
		p.m.SetVersion(int16(num(args, "is", 2)))
	case "epoch": // the id's epoch as if it had been raised many times
		x := p.m.ids[id]
		x.epoch = int16(num(args, "is", 0))
		p.m.begin(p.now)
		p.m.emit(x)
		p.take(p.m.out)
	case "reload":
		p.cfg.Epoch++
		p.m = p.replayed(t)
		p.show(p.m.Loaded(p.now))
	default:
		t.Fatalf("unknown command %q", cmd)
	}
}

func (p *player) step(t *testing.T, ev Event) {
	t.Helper()
	if p.m.NeedsID(ev) {
		ev = WithID(ev, p.fresh)
	}
	p.token++
	out := p.m.Step(p.now, In{Token: p.token, Event: ev})
	if out.FreshUsed {
		p.fresh++
	}
	p.show(out)
}

func (p *player) take(out Out) { p.log = append(p.log, out.Records...) }

func code(c int16) string {
	if e := kerr.TypedErrorForCode(c); e != nil {
		return e.Message
	}
	return "ok"
}

func (p *player) show(out Out) {
	p.take(out)
	w := &p.out
	for _, r := range out.Records {
		fmt.Fprintf(w, "-> record %s\n", p.record(r))
	}
	for _, m := range out.Markers {
		fmt.Fprintf(w, "-> marker %s %d/%d coordinator=%d commit=%v version=%d %v\n", m.TxnID, m.ProducerID, m.Epoch, m.CoordinatorEpoch, m.Commit, m.Version, m.Partitions)
	}
	for _, a := range out.Answers {
		s := ""
		switch r := a.Response.(type) {
		case *kmsg.InitProducerIDResponse:
			s = fmt.Sprintf("%s %d/%d", code(r.ErrorCode), r.ProducerID, r.ProducerEpoch)
		case *kmsg.EndTxnResponse:
			s = fmt.Sprintf("%s %d/%d", code(r.ErrorCode), r.ProducerID, r.ProducerEpoch)
		case []int16:
			for _, c := range r {
				s += code(c) + " "
			}
			s = strings.TrimSpace(s)
		default:
			b, _ := json.Marshal(r)
			s = string(b)
		}
		if a.Parked {
			s += " (parked)"
		}
		fmt.Fprintf(w, "-> answer %s\n", s)
	}
	if len(out.Completed) > 0 {
		fmt.Fprintf(w, "-> completed %v\n", out.Completed)
	}
}

func (p *player) record(r Record) string {
	var k kmsg.TxnMetadataKey
	if err := k.ReadFrom(r.Key); err != nil {
		return err.Error()
	}
	if r.Value == nil {
		return k.TransactionalID + " tombstone"
	}
	v := kmsg.NewTxnMetadataValue()
	if err := v.ReadFrom(r.Value); err != nil {
		return err.Error()
	}
	s := fmt.Sprintf("%s v%d %d/%d %s", k.TransactionalID, v.Version, v.ProducerID, v.ProducerEpoch, State(v.State))
	if v.PreviousProducerID >= 0 || v.NextProducerID >= 0 {
		s += fmt.Sprintf(" previous=%d next=%d", v.PreviousProducerID, v.NextProducerID)
	}
	for _, t := range v.Topics {
		s += fmt.Sprintf(" %s%v", t.Topic, t.Partitions)
	}
	return s
}

func (p *player) replayed(t *testing.T) *Machine {
	t.Helper()
	m := New(p.cfg)
	m.SetVersion(p.m.cfg.Version)
	for _, r := range p.log {
		if err := m.Replay(r.Key, r.Value); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// facts is what of a machine its records carry. The epoch before the last raise is not among them, nor which of the
// markers stand already: whoever loads writes them all again.
func facts(m *Machine) string {
	var b strings.Builder
	for _, name := range det.SortedKeys(m.ids) {
		t := m.ids[name]
		parts := fmt.Sprint(t.parts)
		if t.state.prepared() {
			parts = "to be marked"
		}
		fmt.Fprintf(&b, "%s %d/%d prev=%d next=%d %s v%d timeout=%d start=%d update=%d %s\n",
			name, t.producer, t.epoch, t.previous, t.next, t.state, t.version, t.timeoutMs, t.startMs, t.updateMs, parts)
	}
	return b.String()
}

func (p *player) checkReplay(t *testing.T) {
	t.Helper()
	if a, b := facts(p.m), facts(p.replayed(t)); a != b {
		t.Errorf("replay differs\nlive:\n%s\nreplayed:\n%s", a, b)
	}
}
