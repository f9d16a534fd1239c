package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/milena-mq/milena/internal/config"
	"github.com/twmb/franz-go/pkg/kfake"
)

var rewrite = flag.Bool("rewrite", false, "write golden files again")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", name, got)
	}
}

// shell runs command lines and keeps a transcript.
type shell struct {
	t         *testing.T
	env       []string
	log       strings.Builder
	serve     Serve
	in        string
	out, errs bytes.Buffer
}

// unstable are parts of answers that differ from run to run.
var unstable = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d{4,5}`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`"port": \d+`), `"port": PORT`},
	{regexp.MustCompile(`(Id  +|"id": ")[A-Za-z0-9_-]{22}\b`), "${1}ID"},
	{regexp.MustCompile(`in \d+\.\d s`), "in TIME"},
	{regexp.MustCompile(`"seconds": [0-9.e-]+`), `"seconds": TIME`},
	{regexp.MustCompile(`\d+(\.\d+)? [KMGTP]?i?B/s`), "RATE"},
	{regexp.MustCompile(`\b1[789]\d{11}\b`), "MS"},
	{regexp.MustCompile(`go1\.[0-9.a-z]+|(linux|darwin)/[a-z0-9]+`), "GO"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`), "WHEN"},
}

func stable(s string) string {
	for _, u := range unstable {
		s = u.re.ReplaceAllString(s, u.with)
	}
	return s
}

func (s *shell) run(line ...string) int {
	s.t.Helper()
	s.out.Reset()
	s.errs.Reset()
	code := run(s.t.Context(), line, IO{strings.NewReader(s.in), &s.out, &s.errs, s.env, time.Millisecond}, "1.2.3", s.serve)
	fmt.Fprintf(&s.log, "$ milena %s\n%s", strings.Join(line, " "), stable(s.out.String()))
	if s.errs.Len() > 0 {
		fmt.Fprintf(&s.log, "! %s\n", strings.ReplaceAll(strings.TrimSuffix(stable(s.errs.String()), "\n"), "\n", "\n! "))
	}
	fmt.Fprintf(&s.log, "-> %d\n\n", code)
	return code
}

func cluster(t *testing.T, seeded ...string) *shell {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ClusterID("MkU3OEVBNTcwNTJENDM2Q"), kfake.SleepOutOfOrder(), kfake.SeedTopics(1, seeded...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &shell{t: t, env: []string{"MILENA_BOOTSTRAP=" + c.ListenAddrs()[0]}}
}

func TestCommandsAgainstACluster(t *testing.T) {
	s := cluster(t)
	for _, line := range []string{
		"topic list",
		"topic create letters -p 3 -c retention.ms=86400000",
		"topic create letters",
		"topic create letters --if-not-exists",
		"topic create diary -p 1 -o json",
		"topic list",
		"topic list -o json",
		"topic describe diary",
		"topic describe diary -o json",
		"topic alter letters -c retention.ms=1000 --unset cleanup.policy",
		"config get topic letters retention.ms",
		"config get topic letters retension.ms",
		"config set topic letters retention.ms=2000",
		"config unset topic letters retention.ms",
		"config set broker all log.retention.ms=1000",
		"config get broker all",
		"topic add-partitions diary 2",
		"topic add-partitions diary --total 4 -o json",
		"topic add-partitions diary --total 1",
		"cluster describe",
		"cluster brokers -o json",
		"group list",
		"group describe nobody",
		"consume nothere",
		"topic delete letters",
		"topic delete letters -y",
		"topic delete letters -y",
		"topic delete letters -y --if-exists",
	} {
		s.run(strings.Fields(line)...)
	}
	golden(t, "cluster.txt", s.log.String())
}

func TestRecordsGoInAndComeOut(t *testing.T) {
	s := cluster(t)
	s.run("topic", "create", "letters", "-p", "1")
	s.in = "a:one\nb:two\r\nno key\nc:\n:empty key\nlast without end"
	s.run("produce", "letters", "-s", ":", "-H", "from=Prague", "--empty-null", "-c", "zstd", "--timestamp", "1000")
	s.in = "x\n\ny\n"
	s.run("produce", "letters", "-", "-k", "K", "-a", "1", "-o", "json")
	s.run("produce", "letters", "--acks", "0", "-q")
	file := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(file, []byte("from a file\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := s.log.String()
	s.run("produce", "letters", file, "-q")
	s.log.Reset()
	s.log.WriteString(out)
	s.in = ""
	s.run("consume", "letters", "-f", `%t %p %o %T %K[%k] %V[%v] %h %%\t.\n`)
	s.run("consume", "letters", "-o", "json", "-n", "2")
	s.run("consume", "letters", "--from=-1")
	s.run("consume", "letters", "--from", "1", "--to", "3", "-k")
	s.run("consume", "letters", "--from", "@1001", "-n", "1")
	s.run("consume", "letters", "--from", "end")
	s.run("consume", "letters", "-p", "7")
	s.run("consume", "letters", "-g", "readers", "-n", "4")
	s.run("group", "list")
	s.run("group", "describe", "readers")
	s.run("consume", "letters", "-g", "readers", "-n", "1", "-f", `%o\n`)
	s.run("group", "reset-offsets", "readers", "--to=-2", "--dry-run")
	s.run("group", "reset-offsets", "readers", "--to", "start")
	s.run("group", "describe", "readers", "-o", "json")
	s.run("group", "delete", "readers", "-y")
	s.run("group", "list", "-o", "json")
	golden(t, "records.txt", s.log.String())
}

func TestWrongUseEndsWithTwo(t *testing.T) {
	s := &shell{t: t}
	for _, line := range []string{
		"topik list", "topic lst", "topic create", "topic create a b", "topic list -o xml", "topic list --frob", "topic create x -c noequals",
		"topic alter x", "topic add-partitions x", "topic add-partitions x 1.5", "topic add-partitions x 2 --total 3", "topic delete x",
		"config get nothing x", "config set topic x noequals", "produce x --codec zip", "produce x --acks 2", "produce x -H bad", "produce x -k a -s :",
		"produce x --timestamp yesterday", "consume x --from yesterday", "consume x --from @yesterday", "consume x -f %q", `consume x -f \q`, "consume x --isolation none",
		"consume x y -p 1", "consume x -F --to end", "consume x -g g --to end", "consume x -g g --from 5", "consume x -n -1", "group reset-offsets g",
		"group reset-offsets g --to x", "serve extra", "serve --set log.retension.hours=1", "serve --set num.partitions=x", "serve --config /nowhere/x",
		"serve --listen 127.0.0.1:1 --set listeners=PLAINTEXT://:2", "serve --listen 127.0.0.1", "version x", "topic list --timeout 0s", "cluster frob",
		"cluster decommission", "cluster decommission x", "cluster decommission -- -1", "cluster rebalance now", "cluster rebalance --throttle fast", "cluster rebalance --parallel 0",
		"cluster quorum remove x", "cluster quorum add 2", "cluster quorum remove 2", "cluster certs x", "cluster certs x a:9092", "cluster certs x ../a", "cluster certs x a --days 0", "topic reassign", "topic reassign x",
		"topic reassign x --factor 2 --brokers 1", "topic reassign --factor 2", "topic reassign x --plan y", "topic reassign x --to 0", "topic reassign x --to 0=a", "topic reassign x --to 0=1,1",
		"topic reassign x --factor -1", "topic reassign x --brokers 1,b", "topic elect-leaders", "topic elect-leaders x --all", "topic elect-leaders x y -p 1", "topic elect-leaders x --unclean",
		"topic describe", "demo now", "demo --brokers 2", "demo --rate 0", "demo --every 1ms", "serve --peer 127.0.0.1:1 --set peer.listener=127.0.0.1:2",
	} {
		if code := s.run(strings.Fields(line)...); code != exitUsage {
			t.Errorf("%s: code %d", line, code)
		}
		if s.out.Len() > 0 || strings.Count(s.errs.String(), "\n") != 2 {
			t.Errorf("%s: want one line and a hint, got %q %q", line, s.out.String(), s.errs.String())
		}
	}
	golden(t, "usage.txt", s.log.String())
}

func TestHelpPages(t *testing.T) {
	s := &shell{t: t}
	for _, line := range []string{"--help", "topic", "topic create --help", "produce --help", "consume --help", "group reset-offsets --help", "config --help", "serve --help", "cluster", "cluster status --help", "cluster add-broker --help", "cluster decommission --help", "cluster rebalance --help", "cluster quorum --help", "cluster certs --help", "topic reassign --help", "topic elect-leaders --help", "topic describe --help", "demo --help", "version", "version -o json"} {
		if code := s.run(strings.Fields(line)...); code != 0 {
			t.Errorf("%s: code %d", line, code)
		}
	}
	for _, l := range strings.Split(s.log.String(), "\n") {
		if len(l) > 140 {
			t.Errorf("a line of help is too long: %s", l)
		}
	}
	golden(t, "help.txt", s.log.String())
}

func TestConfigKeysNeedsNoBroker(t *testing.T) {
	s := &shell{t: t}
	if code := s.run("config", "keys", "topic", "retention", "-o", "json"); code != 0 || !strings.Contains(s.out.String(), `"retention.ms"`) {
		t.Errorf("code %d, %s", code, s.out.String())
	}
	if code := s.run("config", "keys", "broker"); code != 0 || !strings.Contains(s.out.String(), "log.dir.reserve.bytes") {
		t.Errorf("code %d, %s", code, s.out.String())
	}
}

func TestNoBrokerIsOneFriendlyLine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s := &shell{t: t}
	for _, line := range []string{"topic list", "produce x", "consume x", "group list"} {
		if code := s.run(append(strings.Fields(line), "-b", addr)...); code != exitFailed {
			t.Errorf("%s: code %d", line, code)
		}
		want := "milena: no broker answers at " + addr + " (connection refused): start one with milena serve, or name another with --bootstrap\n"
		if s.errs.String() != want {
			t.Errorf("%s: %q", line, s.errs.String())
		}
	}
}

// Something that accepts and says nothing, or closes, must not hold a command for ever.
func TestAStrangeServerEndsInTime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.Copy(io.Discard, io.LimitReader(c, 1))
			c.Close()
		}
	}()
	s := &shell{t: t}
	if code := s.run("topic", "list", "--timeout", "300ms", "-b", l.Addr().String()); code != exitFailed || strings.Count(s.errs.String(), "\n") != 1 {
		t.Errorf("code %d: %s", code, s.errs.String())
	}
}

// closed is a pipe whose reader has gone after n bytes.
type closed struct{ n int }

func (c *closed) Write(p []byte) (int, error) {
	if c.n -= len(p); c.n < 0 {
		return 0, &os.PathError{Op: "write", Path: "|1", Err: syscall.EPIPE}
	}
	return len(p), nil
}

func TestAPipeClosedEarlyIsNoError(t *testing.T) {
	s := cluster(t, "letters")
	s.in = strings.Repeat(strings.Repeat("x", 100)+"\n", 3000)
	if code := s.run("produce", "letters", "-q"); code != 0 {
		t.Fatal(s.errs.String())
	}
	var errs bytes.Buffer
	code := run(t.Context(), []string{"consume", "letters"}, IO{strings.NewReader(""), &closed{n: 70000}, &errs, s.env, 0}, "", nil)
	if code != exitOK || errs.Len() > 0 {
		t.Errorf("code %d, %s", code, errs.String())
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	s := cluster(t, "letters")
	s.in = "one\ntwo\n"
	s.run("produce", "letters", "-q")
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan int)
	go func() {
		code := run(ctx, []string{"consume", "letters", "-F"}, IO{strings.NewReader(""), w, io.Discard, s.env, 0}, "", nil)
		w.Close()
		done <- code
	}()
	buf := make([]byte, 8)
	if _, err := io.ReadFull(r, buf); err != nil || string(buf) != "one\ntwo\n" {
		t.Errorf("%q, %v", buf, err)
	}
	cancel()
	if code := <-done; code != exitOK {
		t.Errorf("code %d", code)
	}
}

func TestServeGetsItsSettings(t *testing.T) {
	var got *config.Static
	s := &shell{t: t, env: []string{"MILENA_NUM_PARTITIONS=7", "MILENA_BOOTSTRAP=x"}}
	s.serve = func(_ context.Context, c *config.Static, out io.Writer) error {
		got = c
		_, err := fmt.Fprintln(out, "ready")
		return err
	}
	file := filepath.Join(t.TempDir(), "server.properties")
	if err := os.WriteFile(file, []byte("num.partitions=3\nlog.retention.hours=5\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code := s.run("serve", "--config", file, "-l", "127.0.0.1:7777", "-d", "/a,/b", "--node-id", "4", "-s", "default.replication.factor=2"); code != 0 {
		t.Fatal(s.errs.String())
	}
	want := map[string]string{"num.partitions": "7", "log.retention.hours": "5", "listeners": "PLAINTEXT://127.0.0.1:7777", "log.dirs": "/a,/b", "node.id": "4", "default.replication.factor": "2"}
	for k, v := range want {
		if x, _ := got.Get(k); x != v {
			t.Errorf("%s = %q, want %q", k, x, v)
		}
	}
	s.serve = func(context.Context, *config.Static, io.Writer) error { return errors.New("data directory in use") }
	if code := s.run("serve"); code != exitFailed || s.errs.String() != "milena: data directory in use\n" {
		t.Errorf("code %d, %q", code, s.errs.String())
	}
}

func TestCompletionKnowsTopicsGroupsAndKeys(t *testing.T) {
	s := cluster(t)
	s.run("topic", "create", "letters")
	s.run("topic", "create", "other")
	for line, want := range map[string]string{
		"topic describe l":              "letters\n",
		"consume letters o":             "other\n",
		"config get topic let":          "letters\n",
		"config set topic x segment.ms": "segment.ms=\n",
		"topic alter x -c retention.m":  "retention.ms=\n",
		"serve --set num.part":          "num.partitions=\n",
	} {
		if code := s.run(append([]string{"__complete"}, strings.Split(line, " ")...)...); code != 0 || !strings.HasPrefix(s.out.String(), want) {
			t.Errorf("%s: code %d, %q", line, code, s.out.String())
		}
	}
	s.env = []string{"MILENA_BOOTSTRAP=127.0.0.1:1"}
	if code := s.run("__complete", "topic", "describe", "l"); code != 0 || !strings.HasPrefix(s.out.String(), ":4") {
		t.Errorf("without a broker: code %d, %q", code, s.out.String())
	}
}

func TestParseTime(t *testing.T) {
	now := time.UnixMilli(10_000_000)
	for s, want := range map[string]int64{"1234": 1234, "1970-01-01T00:00:01Z": 1000, "-1s": 9_999_000, "0": 0} {
		if got, err := parseTime(s, now); err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "1h", "-5", "31.1.2026"} {
		if _, err := parseTime(s, now); err == nil {
			t.Errorf("%q is taken for a time", s)
		}
	}
}

func TestTableKeepsTheTerminalSafe(t *testing.T) {
	var b strings.Builder
	tb := newTable("NAME", ">N")
	tb.row("a\x1b[31mb\nc\u009b", 5)
	tb.row("Ünicode", 12345)
	if err := tb.write(&b); err != nil {
		t.Fatal(err)
	}
	if want := "NAME            N\na?[31mb?c?      5\nÜnicode     12345\n"; b.String() != want {
		t.Errorf("got %q", b.String())
	}
}

func TestSizesAndCounts(t *testing.T) {
	for n, want := range map[int64]string{-1: "-", 0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1 << 20: "1.0 MiB", 1<<20 - 1: "1.0 MiB", 3 << 40: "3.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("size %d: %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int64]string{-1: "-", 0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("count %d: %s, want %s", n, got, want)
		}
	}
}

func FuzzFormat(f *testing.F) {
	f.Add(`%t %p %o\t%k=%v %h\n`)
	f.Add(`%`)
	f.Add(`\`)
	r := &admin.Record{Topic: "t", Key: []byte("k"), Headers: []admin.Header{{Key: "a"}}}
	f.Fuzz(func(t *testing.T, s string) {
		pieces, err := compileFormat(s)
		if err != nil {
			return
		}
		var b []byte
		for _, p := range pieces {
			b = p(b, r)
		}
		if !strings.ContainsAny(s, `%\`) && string(b) != s {
			t.Errorf("%q prints as %q", s, b)
		}
	})
}

func BenchmarkVersion(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		run(b.Context(), []string{"version"}, IO{strings.NewReader(""), io.Discard, io.Discard, nil, 0}, "", nil)
	}
}
