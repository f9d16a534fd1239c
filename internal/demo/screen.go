package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// screen is what a person sees: a picture that is drawn again, or lines where nobody's terminal is.
type screen struct {
	w      io.Writer
	size   func() (columns, rows int) // nil: lines
	colour bool
	plain  bool
	open   bool
	said   time.Duration // when the last line of numbers was printed
}

func newScreen(o *Options) *screen {
	return &screen{w: o.Out, size: o.Size, colour: o.Colour, plain: o.Plain}
}

// The terminal's other page keeps what was there before; nothing of the picture stays when it is closed.
const (
	otherPage = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J"
	firstPage = "\x1b[?25h\x1b[?1049l"
)

func (s *screen) close() {
	if s.open {
		s.open = false
		fmt.Fprint(s.w, firstPage)
	}
}

// event prints what happened, where there is no picture that shows it.
func (s *screen) event(e event) {
	if s.size == nil {
		fmt.Fprintf(s.w, "%s  %s\n", clock(e.at), e.text)
	} else if !s.open {
		fmt.Fprintln(s.w, e.text) // what takes a while before there is a picture
	}
}

// draw shows the present.
func (s *screen) draw(p *picture) {
	if s.size == nil {
		if p.elapsed-s.said >= 2*time.Second || p.elapsed < s.said {
			s.said = p.elapsed
			fmt.Fprintf(s.w, "%s  acknowledged %s (%s/s), read %s, lost %d, duplicated %d, leaders %s, longest silence %.2f s\n", clock(p.elapsed), group3(p.acked), group3(int64(p.ackRate)), group3(p.read), p.lost, p.dup, p.leaders(), p.writes.Seconds())
		}
		return
	}
	columns, rows := s.size()
	var b strings.Builder
	if !s.open {
		s.open = true
		b.WriteString(otherPage)
	}
	b.WriteString("\x1b[H")
	ink := ink{s.colour, s.plain}
	for i, line := range p.lines(ink, columns, rows) {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(fit(line, columns))
		b.WriteString("\x1b[K")
	}
	b.WriteString("\x1b[J")
	_, _ = io.WriteString(s.w, b.String()) // a terminal that is gone ends the process by SIGHUP
}

// picture is everything that is shown at one moment.
type picture struct {
	elapsed, total time.Duration // total 0: no end
	every          time.Duration
	phase          string
	brokers        []brokerPicture
	parts          []partPicture
	copies         int
	acked, read    int64
	ackRate        float64
	readRate       float64
	ackBars        []float64 // of half a second each, the latest last
	readBars       []float64
	lost, dup      int64
	again, wrong   int64
	rate           float64 // lines per second that are wanted
	waiting        int64   // sent and not answered
	kills          int
	writes, reads  time.Duration
	events         []event
}

type brokerPicture struct {
	id         int32
	state      state
	leads      int
	inSync     int
	holds      int
	addr       string
	back       time.Duration // until it is started again
	controller bool
}

type state int8

const (
	up state = iota
	starting
	killed
)

type partPicture struct {
	number int32
	leader int32 // -1: none
	epoch  int32
	copies []int32
	inSync map[int32]bool
	lag    int64
}

func (p *picture) leaders() string {
	var out []string
	for _, b := range p.brokers {
		if b.state == killed {
			out = append(out, "x")
		} else {
			out = append(out, fmt.Sprint(b.leads))
		}
	}
	return strings.Join(out, "/")
}

// roomy is the number of rows from which the partitions stand below each other.
const roomy = 34

// lines makes the whole picture for a terminal of that size; what does not fit is left out at the bottom.
func (p *picture) lines(k ink, columns, rows int) []string {
	out := []string{p.title(k, columns), ""}
	for i := range p.brokers {
		out = append(out, p.brokers[i].line(k))
	}
	out = append(out, "", k.dim(fmt.Sprintf("  topic %s: %d partitions, %s each, acks=all, idempotent, min ISR %d", topicName, len(p.parts), copies(p.copies), min(2, p.copies))))
	per := (len(p.parts) + 1) / 2
	if rows >= roomy {
		per = len(p.parts)
	}
	// What was promised is shown before where it lies.
	const below = 8 // rows of the figures, and at least two of what happened
	if len(out)+per+1+below <= rows {
		out = append(out, p.table(k, per)...)
	}
	room := max(8, columns-44)
	out = append(out, "",
		fmt.Sprintf("  acknowledged %s %9s/s  %s", k.bold(pad(group3(p.acked), 13)), group3(int64(p.ackRate)), k.bars(p.ackBars, p.rate, room)),
		fmt.Sprintf("  read         %s %9s/s  %s", k.bold(pad(group3(p.read), 13)), group3(int64(p.readRate)), k.bars(p.readBars, p.rate, room)))
	verdict := fmt.Sprintf("  lost %s   duplicated %s   kills %s   longest silence %s s   unanswered %s", k.verdict(p.lost), k.verdict(p.dup), k.bold(fmt.Sprint(p.kills)), k.bold(fmt.Sprintf("%.2f", p.writes.Seconds())), group3(p.waiting))
	if p.wrong > 0 {
		verdict += "   wrong " + k.verdict(p.wrong)
	}
	out = append(out, "", verdict, "")
	left := max(0, rows-len(out))
	from := max(0, len(p.events)-left)
	for _, e := range p.events[from:] {
		out = append(out, k.event(e))
	}
	return out[:min(len(out), max(1, rows))]
}

func (p *picture) title(k ink, columns int) string {
	left := fmt.Sprintf(" Milena demo   %s, the busiest leader is killed every %s", count(len(p.brokers), "broker"), short(p.every))
	right := clock(p.elapsed) + " "
	if p.total > 0 {
		right = clock(min(p.elapsed, p.total)) + " of " + clock(p.total) + " "
	}
	if p.phase != "" {
		right = p.phase + " "
	}
	gap := max(1, columns-utf8.RuneCountInString(left)-utf8.RuneCountInString(right))
	return k.bar(left + strings.Repeat(" ", gap) + right)
}

func (b *brokerPicture) line(k ink) string {
	name := k.broker(b.id, fmt.Sprintf("  broker %d", b.id))
	switch b.state {
	case killed:
		return name + "  " + k.red(k.glyph("✖", "x")+" killed") + k.dim(fmt.Sprintf("    back in %d s", int(b.back.Seconds()+0.99)))
	case starting:
		return name + "  " + k.yellow(k.glyph("◌", "o")+" returning") + fmt.Sprintf("  leads %2d  in sync %2d of %-2d  %s", b.leads, b.inSync, b.holds, k.dim(b.addr))
	}
	note := ""
	if b.controller {
		note = "  controller"
	}
	return name + "  " + k.green(k.glyph("●", "*")+" up") + fmt.Sprintf("         leads %2d  in sync %2d of %-2d  %s%s", b.leads, b.inSync, b.holds, k.dim(b.addr), k.dim(note))
}

// table shows the partitions, per of them below each other.
func (p *picture) table(k ink, per int) []string {
	if per < 1 {
		return nil
	}
	cols := (len(p.parts) + per - 1) / per
	head := fmt.Sprintf("  %4s  %6s  %-9s  %8s", "PART", "LEADER", "IN SYNC", "LAG")
	if cols == 1 {
		head = fmt.Sprintf("  %4s  %6s  %-9s  %8s  %6s", "PART", "LEADER", "IN SYNC", "LAG", "EPOCH")
	}
	out := []string{k.dim(strings.Repeat(head+"   ", cols))}
	for row := range per {
		line := ""
		for c := range cols {
			if i := c*per + row; i < len(p.parts) {
				line += p.parts[i].cell(k, cols == 1) + "   "
			}
		}
		out = append(out, line)
	}
	return out
}

func (x *partPicture) cell(k ink, wide bool) string {
	leader := k.red(pad("none", 6))
	if x.leader >= 0 {
		leader = k.broker(x.leader, pad(fmt.Sprint(x.leader), 6))
	}
	copies, width := "", 0
	for _, id := range x.copies {
		if x.inSync[id] {
			copies += k.broker(id, fmt.Sprint(id)) + " "
		} else {
			copies += k.dim(strings.Repeat(k.glyph("·", "-"), len(fmt.Sprint(id)))) + " "
		}
		width += len(fmt.Sprint(id)) + 1
	}
	copies += strings.Repeat(" ", max(0, 9-width))
	s := fmt.Sprintf("  %4d  %s  %s  %8s", x.number, leader, copies, group3(x.lag))
	if wide {
		s += fmt.Sprintf("  %6d", x.epoch)
	}
	return s
}

// ink colours, where colours are wanted.
type ink struct{ colour, plain bool }

func (k ink) with(code, s string) string {
	if !k.colour || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (k ink) dim(s string) string    { return k.with("2", s) }
func (k ink) bold(s string) string   { return k.with("1", s) }
func (k ink) red(s string) string    { return k.with("1;31", s) }
func (k ink) green(s string) string  { return k.with("32", s) }
func (k ink) yellow(s string) string { return k.with("33", s) }
func (k ink) bar(s string) string    { return k.with("7", s) }

// broker gives each broker its colour, so that one sees leaders wander.
func (k ink) broker(id int32, s string) string {
	codes := []string{"36", "35", "33", "34", "32"}
	if id < 1 {
		return s
	}
	return k.with(codes[int(id-1)%len(codes)], s)
}

// verdict is green for the only good number.
func (k ink) verdict(n int64) string {
	if n == 0 {
		return k.with("1;32", "0")
	}
	return k.with("1;31", group3(n))
}

func (k ink) event(e event) string {
	s := clock(e.at) + "  " + e.text
	switch e.kind {
	case bad:
		s = k.with("31", s)
	case good:
		s = k.with("32", s)
	}
	return "  " + s
}

func (k ink) glyph(nice, plain string) string {
	if k.plain {
		return plain
	}
	return nice
}

// bars is a small chart of the last values. What is wanted stands at two thirds: above it one sees how what
// was held up comes through, and a silence is red.
func (k ink) bars(v []float64, wanted float64, width int) string {
	if len(v) > width {
		v = v[len(v)-width:]
	}
	top := max(1, 1.5*wanted)
	steps := []rune("▁▂▃▄▅▆▇█")
	if k.plain {
		steps = []rune("_.-=+*#@")
	}
	var b strings.Builder
	for _, x := range v {
		i := min(len(steps)-1, int(x/top*float64(len(steps))))
		if x == 0 {
			b.WriteString(k.red(string(steps[0])))
			continue
		}
		b.WriteString(k.with("36", string(steps[max(0, i)])))
	}
	return b.String()
}

// pad sets s to the right in n columns.
func pad(s string, n int) string {
	return strings.Repeat(" ", max(0, n-utf8.RuneCountInString(s))) + s
}

// fit cuts a line to what a terminal shows, escapes not counted, and ends every colour it began.
func fit(s string, columns int) string {
	var b strings.Builder
	n, escape := 0, false
	for _, r := range s {
		switch {
		case escape:
			escape = r != 'm'
		case r == '\x1b':
			escape = true
		case n == columns:
			if strings.Contains(b.String(), "\x1b") {
				b.WriteString("\x1b[0m")
			}
			return b.String()
		default:
			n++
		}
		b.WriteRune(r)
	}
	return b.String()
}

func copies(n int) string {
	if n == 1 {
		return "1 copy"
	}
	return fmt.Sprintf("%d copies", n)
}

// clock is minutes and seconds.
func clock(d time.Duration) string {
	s := int(max(0, d).Seconds())
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// short is a duration as people write it.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return s
}

// group3 is a number with groups of three.
func group3(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Text is the tally for people.
func (t *Tally) Text(colour bool) string {
	k := ink{colour: colour}
	var b strings.Builder
	times := fmt.Sprintf("%d times", t.Kills)
	if t.Kills == 1 {
		times = "once"
	}
	fmt.Fprintf(&b, "Milena demo: %.0f s, the busiest leader was killed %s\n\n", t.Seconds, times)
	row := func(name, value, more string) { fmt.Fprintf(&b, "  %-16s %s%s\n", name, value, more) }
	row("acknowledged", k.bold(pad(group3(t.Acknowledged), 12)), "  lines")
	row("read", k.bold(pad(group3(t.Read), 12)), "")
	for _, x := range []struct {
		name   string
		n      int64
		always bool
		more   string
	}{
		{"lost", t.Lost, true, ""}, {"duplicated", t.Duplicated, true, ""}, {"wrong", t.Wrong, false, "  read with other bytes, or in another place than acknowledged"},
		{"unanswered", t.Unanswered, false, "  the cluster said neither yes nor no"}, {"crashes", int64(t.Crashes), false, "  brokers that ended by themselves: see their logs with --keep"},
	} {
		if x.always || x.n != 0 {
			row(x.name, strings.Repeat(" ", max(0, 12-len(group3(x.n))))+k.verdict(x.n), x.more)
		}
	}
	if t.Again > 0 {
		row("read again", pad(group3(t.Again), 12), "  delivered twice to the group, from the same place in the log")
	}
	if t.Cut {
		row("", "", "counting was cut short: lost are acknowledged lines that were not read until then")
	}
	row("longest silence", pad(fmt.Sprintf("%.2f s", t.WriteSilence), 12), "  without an acknowledgement, in a partition with lines to write")
	row("", pad(fmt.Sprintf("%.2f s", t.ReadSilence), 12), "  of a reader with something to read")
	if t.Dir != "" {
		row("data", "  "+t.Dir, "")
	}
	if t.Good() {
		b.WriteString("\nMore brokers, lines or time: milena demo --help. A cluster of your own: milena serve --help\n")
	}
	return b.String()
}
