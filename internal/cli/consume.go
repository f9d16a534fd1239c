package cli

import (
	"bufio"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/spf13/cobra"
)

type consumeFlags struct {
	from, to, group, format string
	partitions              []int32
	follow, keys            bool
	isolation               string
	max                     int64
}

func (a *app) consumeCommand() *cobra.Command {
	var f consumeFlags
	c := &cobra.Command{
		Use:   "consume TOPIC...",
		Short: "Read records and print them",
		Long: `Read records and print one line for each. Without --follow it ends at what is the end now.
With --group it reads on as a member of the group and commits what it printed, until it is interrupted or
has printed --max records.

` + positionHelp + `
  -N             N records before the end, in each partition

` + formatHelp,
		Example: `  milena consume letters
  milena consume letters --from=-10 --follow --keys
  milena consume letters --from @-1h -f '%o %d %k: %v\n'
  milena consume letters --group readers --max 100 -o json`,
		Args:              args(1, -1, "the name of a topic"),
		ValidArgsFunction: a.completeTopics(false),
		RunE:              func(cmd *cobra.Command, got []string) error { return a.consume(cmd, got, f) },
	}
	p := c.Flags()
	p.StringVar(&f.from, "from", "start", "where to begin")
	p.StringVar(&f.to, "to", "", "where to end; without it, at what is the end now")
	p.Int32SliceVarP(&f.partitions, "partition", "p", nil, "only these partitions of the topic")
	p.StringVarP(&f.group, "group", "g", "", "read as a member of this group and commit")
	p.BoolVarP(&f.follow, "follow", "F", false, "wait for further records")
	p.StringVarP(&f.format, "format", "f", "", `form of a line (default "%v\n")`)
	p.BoolVarP(&f.keys, "keys", "k", false, `print key, tab, value: the same as -f '%k\t%v\n'`)
	p.StringVar(&f.isolation, "isolation", "committed", "committed hides records of aborted and open transactions; uncommitted shows them")
	p.Int64VarP(&f.max, "max", "n", 0, "end after so many records")
	must(c.RegisterFlagCompletionFunc("group", a.completeGroups(false)))
	must(c.RegisterFlagCompletionFunc("isolation", cobra.FixedCompletions([]string{"committed", "uncommitted"}, cobra.ShellCompDirectiveNoFileComp)))
	must(c.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]string{"start", "end"}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

func (f consumeFlags) options(topics []string) (admin.ConsumeOptions, error) {
	o := admin.ConsumeOptions{Topics: topics, Partitions: f.partitions, Group: f.group, Follow: f.follow, Max: f.max}
	var err error
	if o.From, err = parsePosition(f.from, false); err != nil {
		return o, usagef("--from %w", err)
	}
	if f.to != "" {
		to, err := parsePosition(f.to, false)
		if err != nil {
			return o, usagef("--to %w", err)
		}
		o.To = &to
	}
	switch {
	case f.isolation != "committed" && f.isolation != "uncommitted":
		return o, usagef("--isolation %s: want committed or uncommitted", f.isolation)
	case len(f.partitions) > 0 && len(topics) > 1:
		return o, usagef("--partition needs a single topic")
	case f.max < 0:
		return o, usagef("--max %d: want 1 or more", f.max)
	case f.follow && f.to != "":
		return o, usagef("--follow never ends, so --to has no meaning with it")
	case f.keys && f.format != "":
		return o, usagef("give either --keys or --format")
	case f.group != "" && (f.to != "" || len(f.partitions) > 0):
		return o, usagef("a group chooses partitions and has no end: --to and --partition do not go with --group")
	case f.group != "" && (o.From.Kind == admin.AtOffset || o.From.Kind == admin.BeforeEnd):
		return o, usagef("with --group, --from is where a group without offsets begins: start, end or @TIME")
	}
	o.Committed = f.isolation == "committed"
	return o, nil
}

func (a *app) consume(cmd *cobra.Command, topics []string, f consumeFlags) error {
	o, err := f.options(topics)
	if err != nil {
		return err
	}
	format := f.format
	switch {
	case f.keys:
		format = `%k\t%v\n`
	case format == "":
		format = `%v\n`
	}
	pieces, err := compileFormat(format)
	if err != nil {
		return usagef("--format %w", err)
	}
	w := bufio.NewWriterSize(a.io.Out, 64<<10)
	live := o.Follow || o.Group != "" || terminal(a.io.Out)
	var line []byte
	err = a.client().Consume(cmd.Context(), o, func(r *admin.Record) error {
		line = line[:0]
		if a.output == "json" {
			var err error
			if line, err = recordJSON(line, r); err != nil {
				return err
			}
		} else {
			for _, p := range pieces {
				line = p(line, r)
			}
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
		if live {
			// Somebody waits for this line; and a group must not commit what was not printed.
			return w.Flush()
		}
		return nil
	})
	if f := w.Flush(); err == nil {
		err = f
	}
	return a.meantTopic(cmd, err, topics...)
}
