package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/spf13/cobra"
)

// moveFlags are what all commands that move replicas have in common.
type moveFlags struct {
	throttle string
	parallel int
	dry, yes bool
}

func (f *moveFlags) add(c *cobra.Command) {
	p := c.Flags()
	p.StringVar(&f.throttle, "throttle", "50MiB", "bytes per second that each broker sends and takes for this; 0 is no limit")
	p.IntVar(&f.parallel, "parallel", 20, "partitions that move at a time")
	p.BoolVar(&f.dry, "dry-run", false, "print the plan with its reasons, change nothing")
	p.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
}

func (f *moveFlags) options() (admin.CarryOptions, error) {
	n, err := parseSize(f.throttle)
	if err != nil {
		return admin.CarryOptions{}, usagef("--throttle %w", err)
	}
	if f.parallel < 1 {
		return admin.CarryOptions{}, usagef("--parallel %d: want 1 or more", f.parallel)
	}
	return admin.CarryOptions{Throttle: n, Parallel: f.parallel}, nil
}

// parseSize reads bytes with an optional unit: 1000, 64KiB, 50MB, 1G.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGTiBkb")
	unit := strings.TrimSuffix(strings.ToUpper(s[len(digits):]), "B")
	binary := int64(1024)
	if strings.HasSuffix(s, "B") && !strings.HasSuffix(s, "iB") && len(unit) == 1 {
		binary = 1000 // MB are decimal, MiB and the short M are not
	}
	factor := int64(1)
	switch strings.TrimSuffix(unit, "I") {
	case "":
	case "K":
		factor = binary
	case "M":
		factor = binary * binary
	case "G":
		factor = binary * binary * binary
	case "T":
		factor = binary * binary * binary * binary
	default:
		return 0, fmt.Errorf("%q: want a number of bytes such as 1000, 64KiB or 50MiB", s)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/factor {
		return 0, fmt.Errorf("%q: want a number of bytes such as 1000, 64KiB or 50MiB", s)
	}
	return n * factor, nil
}

// planLines prints a plan for people: every move with its reason.
func planLines(w io.Writer, p admin.Plan) error {
	if len(p.Moves) > 0 {
		t := newTable("TOPIC", ">PARTITION", "FROM", "TO", ">COPY", "WHY")
		for _, m := range p.Moves {
			bytes := "-"
			if n := len(m.Copies()); n > 0 {
				bytes = size(m.Bytes)
			}
			t.row(m.Topic, m.Partition, ids(m.From), ids(m.To), bytes, m.Reason)
		}
		if err := t.write(w); err != nil {
			return err
		}
		fmt.Fprintf(w, "\n%s: %s to copy (%s), %s to lead elsewhere\n", plural(int64(len(p.Moves)), "partition"), plural(int64(p.Copies), "replica"), size(p.Bytes), plural(int64(p.Leads), "partition"))
	}
	return nil
}

// carry asks, carries a plan out and shows how far it is. Interrupted, it says what goes on.
func (a *app) carry(cmd *cobra.Command, plan admin.Plan, f *moveFlags, again string) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	if a.output != "json" {
		if err := planLines(a.io.Err, plan); err != nil {
			return err
		}
	}
	if err := a.confirm(f.yes, "move %s (%s to copy)", plural(int64(len(plan.Moves)), "partition"), size(plan.Bytes)); err != nil {
		return err
	}
	show := a.moving(time.Now())
	o.Progress, o.Every = show.step, a.io.Look
	err = a.client().Carry(cmd.Context(), plan, o)
	show.end()
	return goOnWith(err, again)
}

// goOnWith says what goes on after an interruption, and how to go on from there.
func goOnWith(err error, again string) error {
	var cut *admin.Interrupted
	if !errors.As(err, &cut) {
		return err
	}
	note := ""
	if cut.Throttled {
		note = ", under the throttle, which milena topic reassign --status takes away once they are there"
	}
	return fmt.Errorf("interrupted after %d of %s; %s moving by themselves%s. To go on: %s", cut.Done, plural(int64(cut.Moves), "partition"), goOn(cut.Moving), note, again)
}

func goOn(n int) string {
	if n == 1 {
		return "1 goes on"
	}
	return strconv.Itoa(n) + " go on"
}

// moving shows the progress of moves on standard error: one line that is drawn again on a terminal, else a
// line every ten seconds and whenever a partition is done.
type moving struct {
	w     io.Writer
	live  bool
	begun time.Time
	said  time.Time
	last  admin.Progress
	drawn bool
}

func (a *app) moving(now time.Time) *moving {
	return &moving{w: a.io.Err, live: terminal(a.io.Err), begun: now, said: now}
}

func (m *moving) step(p admin.Progress) {
	now := time.Now()
	text := fmt.Sprintf("%d of %s done, %d moving", p.Done, plural(int64(p.Moves), "partition"), p.Moving)
	if p.Bytes > 0 {
		rate := float64(p.Copied) / since(m.begun)
		text += fmt.Sprintf(", %s of %s copied, %s/s", size(p.Copied), size(p.Bytes), size(int64(rate)))
	}
	switch {
	case m.live:
		const width = 24
		share := 1.0
		if p.Bytes > 0 {
			share = float64(p.Copied) / float64(p.Bytes)
		} else if p.Moves > 0 {
			share = float64(p.Done) / float64(p.Moves)
		}
		full := max(0, min(width, int(share*width)))
		fmt.Fprintf(m.w, "\r\x1b[K[%s%s] %s", strings.Repeat("#", full), strings.Repeat(".", width-full), text)
		m.drawn = true
	case p.Done != m.last.Done || now.Sub(m.said) >= 10*time.Second:
		fmt.Fprintln(m.w, text)
		m.said = now
	}
	m.last = p
}

func (m *moving) end() {
	if m.drawn {
		fmt.Fprint(m.w, "\r\x1b[K")
	}
}
