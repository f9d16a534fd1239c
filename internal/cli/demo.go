package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/milena-mq/milena/internal/demo"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func (a *app) demoCommand() *cobra.Command {
	o := demo.Options{Parts: 12}
	c := &cobra.Command{
		Use:   "demo",
		Short: "See a cluster on this machine survive the death of its brokers",
		Long: `Start three brokers on this machine, write and read real lines through a topic of 12 partitions with three
copies each, and kill the busiest leader with SIGKILL every ten seconds. Every line is numbered: at the end
stands how many were acknowledged, read, lost and duplicated.

Everything lies in a temporary directory and on free ports of 127.0.0.1, and is gone afterwards.`,
		Example: `  milena demo
  milena demo --for 5m --rate 20000
  milena demo --brokers 5 --every 5s`,
		Args: args(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.demo(cmd, o) },
	}
	p := c.Flags()
	p.DurationVar(&o.For, "for", time.Minute, "how long; 0 is until Ctrl-C")
	p.DurationVar(&o.Every, "every", 10*time.Second, "time from one kill to the next")
	p.DurationVar(&o.Down, "down", 4*time.Second, "how long a killed broker stays down")
	p.IntVar(&o.Rate, "rate", 5000, "lines per second")
	p.IntVar(&o.Brokers, "brokers", 3, "number of brokers: 1, 3 or 5")
	p.BoolVar(&o.Keep, "keep", false, "keep the data and the brokers' logs")
	p.StringArrayVarP(&o.Set, "set", "s", nil, "key=value for each broker; may be repeated")
	return c
}

func (a *app) demo(cmd *cobra.Command, o demo.Options) error {
	switch {
	case o.For < 0 || o.Every < time.Second || o.Down < 0:
		return usagef("want --for of nothing or more, --every of a second or more, --down of nothing or more")
	case o.Rate < 1 || o.Rate > 1000000:
		return usagef("--rate %d: want 1 to 1000000", o.Rate)
	case o.Brokers != 1 && o.Brokers != 3 && o.Brokers != 5:
		return usagef("--brokers %d: want 1, 3 or 5", o.Brokers)
	}
	var err error
	if o.Program, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program's file: %w", err)
	}
	o.Text = allHelp(cmd.Root())
	// As JSON the result alone goes to standard output.
	o.Out = a.io.Out
	if a.output == "json" {
		o.Out = a.io.Err
	}
	if f, ok := o.Out.(*os.File); ok && terminal(f) {
		o.Colour, o.Plain = a.colours(f), !a.unicode()
		o.Size = func() (int, int) {
			columns, rows, err := term.GetSize(int(f.Fd()))
			if err != nil || columns < 1 || rows < 1 {
				return 80, 24
			}
			return columns, rows
		}
	}
	t, err := demo.Run(cmd.Context(), o)
	if err != nil {
		return err
	}
	if a.output == "json" {
		err = a.show(t, nil)
	} else {
		_, err = fmt.Fprint(a.io.Out, t.Text(o.Colour))
	}
	if !t.Good() {
		err = errors.Join(err, fmt.Errorf("the cluster did not keep its promises: lost %d, duplicated %d, wrong %d, unanswered %d, crashes %d", t.Lost, t.Duplicated, t.Wrong, t.Unanswered, t.Crashes))
	}
	return err
}

// unicode says whether the terminal shows more than ASCII, going by the usual variables.
func (a *app) unicode() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := a.env(name, ""); v != "" {
			v = strings.ToUpper(v)
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return true
}

// allHelp is what all commands say about themselves: real text of which there is always enough.
func allHelp(c *cobra.Command) string {
	var b strings.Builder
	b.WriteString(c.Short + "\n" + c.Long + "\n" + c.UsageString() + "\n")
	for _, sub := range c.Commands() {
		b.WriteString(allHelp(sub))
	}
	return b.String()
}
