package demo

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
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

// struck is a picture with one broker dead, one coming back and one that leads everything.
func struck() *picture {
	p := &picture{
		elapsed: 23 * time.Second, total: time.Minute, every: 10 * time.Second, copies: 3, rate: 5000, acked: 1234567, read: 1234000, ackRate: 4012.4, readRate: 3987,
		waiting: 567, kills: 2, writes: 480 * time.Millisecond, reads: 610 * time.Millisecond,
	}
	for i := range 30 {
		p.ackBars, p.readBars = append(p.ackBars, float64(i%7)*1200), append(p.readBars, 5000)
	}
	p.brokers = []brokerPicture{
		{id: 1, state: up, leads: 11, inSync: 12, holds: 12, addr: "127.0.0.1:40001", controller: true},
		{id: 2, state: killed, holds: 12, addr: "127.0.0.1:40002", back: 2300 * time.Millisecond},
		{id: 3, state: starting, inSync: 4, holds: 12, addr: "127.0.0.1:40003"},
	}
	for n := range int32(12) {
		p.parts = append(p.parts, partPicture{number: n, leader: 1, epoch: n, copies: []int32{1, 2, 3}, inSync: map[int32]bool{1: true, 3: n%3 == 0}, lag: int64(n) * 1000})
	}
	p.parts[5].leader, p.parts[5].inSync = -1, nil
	for i := range 9 {
		p.events = append(p.events, event{time.Duration(i*3) * time.Second, fmt.Sprint("event ", i), kind(i % 3)})
	}
	return p
}

func TestPicturesAreAsLargeAsTheTerminal(t *testing.T) {
	var b strings.Builder
	for _, size := range [][2]int{{80, 24}, {120, 40}} {
		lines := struck().lines(ink{}, size[0], size[1])
		fmt.Fprintf(&b, "%d x %d\n", size[0], size[1])
		for _, l := range lines {
			b.WriteString("|" + strings.TrimRight(fit(l, size[0]), " ") + "\n")
		}
	}
	golden(t, "pictures.txt", b.String())
	for columns := 1; columns < 130; columns += 3 {
		for _, rows := range []int{1, 2, 10, 24, 40, 60} {
			for _, k := range []ink{{}, {colour: true}, {plain: true}} {
				lines := struck().lines(k, columns, rows)
				if len(lines) > rows {
					t.Fatalf("%d lines in %d rows", len(lines), rows)
				}
				for _, l := range lines {
					if n := shown(fit(l, columns)); n > columns {
						t.Fatalf("%d characters in %d columns: %q", n, columns, l)
					}
				}
			}
		}
	}
}

// shown counts what a terminal shows of s.
func shown(s string) int {
	n := 0
	for s != "" {
		if strings.HasPrefix(s, "\x1b[") {
			i := strings.IndexByte(s, 'm')
			s = s[i+1:]
			continue
		}
		_, w := utf8.DecodeRuneInString(s)
		s, n = s[w:], n+1
	}
	return n
}

func TestAPlainTerminalGetsASCII(t *testing.T) {
	for _, l := range struck().lines(ink{plain: true}, 120, 40) {
		for _, r := range l {
			if r > 0x7e {
				t.Fatalf("%q in %q", r, l)
			}
		}
	}
}

func TestThePictureLeavesTheTerminalAsItWas(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&Options{Out: &b, Size: func() (int, int) { return 80, 24 }, Colour: true})
	s.event(event{0, "before the picture", note})
	s.draw(struck())
	s.draw(struck())
	s.event(event{0, "not between", note})
	s.close()
	s.close()
	out := b.String()
	if strings.Count(out, otherPage) != 1 || strings.Count(out, firstPage) != 1 || !strings.HasSuffix(out, firstPage) {
		t.Errorf("pages are not turned once each way: %q", out)
	}
	if !strings.HasPrefix(out, "before the picture\n") || strings.Contains(out, "not between") {
		t.Errorf("events stand where the picture is: %q", out)
	}
}

func TestWithoutTerminalThereAreLines(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&Options{Out: &b})
	s.event(event{12 * time.Second, "broker 2 is killed", bad})
	for _, at := range []int{1, 2, 3, 4} {
		p := struck()
		p.elapsed = time.Duration(at) * time.Second
		s.draw(p)
	}
	s.close()
	want := `0:12  broker 2 is killed
0:02  acknowledged 1,234,567 (4,012/s), read 1,234,000, lost 0, duplicated 0, leaders 11/x/0, longest silence 0.48 s
0:04  acknowledged 1,234,567 (4,012/s), read 1,234,000, lost 0, duplicated 0, leaders 11/x/0, longest silence 0.48 s
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
}

func TestTallies(t *testing.T) {
	var b strings.Builder
	for _, x := range []Tally{
		{Seconds: 60.2, Acknowledged: 301234, Read: 301234, Kills: 5, WriteSilence: 0.481, ReadSilence: 0.62},
		{Seconds: 12, Acknowledged: 1000, Read: 990, Lost: 10, Duplicated: 2, Wrong: 1, Again: 7, Unanswered: 3, Kills: 1, Crashes: 1, WriteSilence: 31, ReadSilence: 30, Cut: true, Dir: "/tmp/milena-demo-1"},
	} {
		fmt.Fprintf(&b, "%s-> good %v\n\n", x.Text(false), x.Good())
	}
	golden(t, "tallies.txt", b.String())
}

func TestRatesLookBackTwoSeconds(t *testing.T) {
	var r rates
	for i := range 50 {
		r.add(sample{at(i * 200), int64(i) * 100, int64(i) * 50})
	}
	a, b := r.now()
	if a != 500 || b != 250 {
		t.Errorf("%v and %v per second", a, b)
	}
	if len(r.ackBars) != 16 || r.ackBars[3] != 500 {
		t.Errorf("%d bars: %v", len(r.ackBars), r.ackBars)
	}
	for i := range 5000 {
		r.add(sample{at(10000 + i*500), 0, 0})
	}
	if len(r.ackBars) > 400 {
		t.Errorf("%d bars are kept", len(r.ackBars))
	}
}

func TestLinesNeverEnd(t *testing.T) {
	l := &lines{all: split([]byte("one\r\n\n  two\n" + strings.Repeat("x", 10000)))}
	var got []string
	for range 4 {
		got = append(got, string(l.line()))
	}
	if len(got[2]) != longestLine || got[0] != "one" || got[1] != "  two" || got[3] != "one" {
		t.Errorf("%q", got)
	}
	if l := realLines(""); len(l.all) == 0 || l.from == "" {
		t.Error("no text without a fallback")
	}
}

func TestShortDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{10 * time.Second: "10s", time.Minute: "1m", 90 * time.Second: "1m30s", 5 * time.Minute: "5m", 1500 * time.Millisecond: "1.5s"} {
		if got := short(d); got != want {
			t.Errorf("%s: %s", want, got)
		}
	}
}
