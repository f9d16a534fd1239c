package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/milena-mq/milena/internal/config"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
)

func (a *app) topicCommand() *cobra.Command {
	c := &cobra.Command{Use: "topic", Short: "Create, list, describe, change and delete topics", Aliases: []string{"topics"}}
	c.AddCommand(a.topicCreate(), a.topicList(), a.topicDescribe(), a.topicAlter(), a.topicDelete(), a.topicAddPartitions(), a.topicReassign(), a.topicElect())
	return c
}

func (a *app) topicCreate() *cobra.Command {
	var partitions int32
	var replicas int16
	var set []string
	var exists, dry bool
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a topic",
		Example: `  milena topic create letters
  milena topic create letters -p 12 -c retention.ms=604800000 -c cleanup.policy=compact`,
		Args: args(1, 1, "the name of one topic"),
		RunE: func(cmd *cobra.Command, got []string) error {
			configs, err := admin.ParsePairs(set)
			if err != nil {
				return usagef("--config %w", err)
			}
			t, err := a.client().CreateTopic(cmd.Context(), admin.NewTopic{Name: got[0], Partitions: partitions, Replicas: replicas, Configs: configs, Validate: dry})
			if exists && errors.Is(err, kerr.TopicAlreadyExists) {
				return a.done(admin.Topic{Name: got[0]}, "Topic %s is there already", got[0])
			}
			if err != nil {
				return err
			}
			verb := "Created"
			if dry {
				verb = "Could create"
			}
			return a.done(t, "%s topic %s with %s and %s each", verb, t.Name, plural(int64(t.Partitions), "partition"), plural(int64(t.Replicas), "replica"))
		},
	}
	f := c.Flags()
	f.Int32VarP(&partitions, "partitions", "p", -1, "number of partitions; -1 is the broker's num.partitions")
	f.Int16VarP(&replicas, "replicas", "r", -1, "replicas of each partition; -1 is the broker's default.replication.factor")
	f.StringArrayVarP(&set, "config", "c", nil, "key=value for the topic; may be repeated")
	f.BoolVar(&exists, "if-not-exists", false, "do nothing if the topic is there already")
	f.BoolVar(&dry, "dry-run", false, "only check whether it could be created")
	must(c.RegisterFlagCompletionFunc("config", completeKeys(config.ResourceTopic, "=")))
	return c
}

func (a *app) topicList() *cobra.Command {
	var internal bool
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List topics",
		Args:    args(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ts, err := a.client().Topics(cmd.Context(), internal)
			if err != nil {
				return err
			}
			return a.show(ts, func(w io.Writer) error {
				if len(ts) == 0 {
					_, err := fmt.Fprintln(a.io.Err, "There are no topics. Create one with milena topic create NAME")
					return err
				}
				t := newTable("TOPIC", ">PARTITIONS", ">REPLICAS")
				for _, x := range ts {
					t.row(x.Name, x.Partitions, x.Replicas)
				}
				return t.write(w)
			})
		},
	}
	c.Flags().BoolVar(&internal, "internal", false, "also Kafka's internal topics such as __consumer_offsets")
	return c
}

func (a *app) topicDescribe() *cobra.Command {
	var f describeFilters
	c := &cobra.Command{
		Use:   "describe NAME...",
		Short: "Show partitions, leaders, replicas, offsets, sizes and configuration of topics",
		Long: `Show partitions with their leaders, leader epochs, replicas, offsets and sizes, and the configuration of topics.
ELIGIBLE are replicas that are not in sync but have every acknowledged record, so that they may lead (KIP-966);
in brackets stands who led last where there is no such replica.

With one of the filters only partitions of that kind are listed, of all topics unless some are named.`,
		Example: `  milena topic describe letters
  milena topic describe --under-replicated`,
		Args:              args(0, -1, "the name of a topic, or one of the filters"),
		ValidArgsFunction: a.completeTopics(false),
		RunE: func(cmd *cobra.Command, got []string) error {
			if f.any() {
				return a.describeSome(cmd, got, &f)
			}
			if len(got) == 0 {
				return usagef("topic describe: want the name of a topic, or one of the filters")
			}
			var all []admin.TopicDescription
			for _, name := range got {
				d, err := a.client().DescribeTopic(cmd.Context(), name)
				if err != nil {
					return a.meantTopic(cmd, err, name)
				}
				all = append(all, d)
			}
			return a.show(all, func(w io.Writer) error {
				for i, d := range all {
					if i > 0 {
						fmt.Fprintln(w)
					}
					if err := writeTopic(w, d); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	f.add(c)
	return c
}

// describeFilters choose partitions, as those of kafka-topics do.
type describeFilters struct{ underReplicated, atMin, underMin, unavailable bool }

func (f *describeFilters) add(c *cobra.Command) {
	p := c.Flags()
	p.BoolVar(&f.underReplicated, "under-replicated", false, "only partitions with replicas that are not in sync")
	p.BoolVar(&f.atMin, "at-min-isr", false, "only partitions with exactly min.insync.replicas in sync")
	p.BoolVar(&f.underMin, "under-min-isr", false, "only partitions with fewer: acks=all is refused there")
	p.BoolVar(&f.unavailable, "unavailable", false, "only partitions without leader")
}

func (f *describeFilters) any() bool {
	return f.underReplicated || f.atMin || f.underMin || f.unavailable
}

func (f *describeFilters) picks(p *admin.PartitionState) bool {
	return f.underReplicated && p.UnderReplicated() || f.atMin && p.AtMinISR() || f.underMin && p.UnderMinISR() || f.unavailable && p.Leaderless()
}

func (a *app) describeSome(cmd *cobra.Command, topics []string, f *describeFilters) error {
	ps, err := a.client().PartitionsAndMinISR(cmd.Context(), topics...)
	if err != nil {
		return a.meantTopic(cmd, err, topics...)
	}
	some := []admin.PartitionState{}
	for i := range ps {
		if f.picks(&ps[i]) {
			some = append(some, ps[i])
		}
	}
	return a.show(some, func(w io.Writer) error {
		if len(some) == 0 {
			_, err := fmt.Fprintln(a.io.Err, "There is no such partition")
			return err
		}
		return partitionTable(w, some)
	})
}

func writeTopic(w io.Writer, d admin.TopicDescription) error {
	var records int64
	bytes := int64(-1)
	for _, p := range d.Parts {
		if p.Start >= 0 && p.End >= 0 {
			records += p.End - p.Start
		}
		if p.Size >= 0 {
			bytes = max(bytes, 0) + p.Size
		}
	}
	pairs := []any{"Topic", d.Name, "Id", d.ID, "Offsets", count(records), "Size", size(bytes)}
	for i, x := range d.Overrides {
		title := ""
		if i == 0 {
			title = "Config"
		}
		pairs = append(pairs, title, x.Name+"="+value(x.Value, x.Sensitive))
	}
	if err := facts(w, pairs...); err != nil {
		return err
	}
	// Columns that most clusters have nothing for are left out.
	electable, moves := false, false
	for _, p := range d.Parts {
		electable = electable || len(p.ELR)+len(p.LastELR) > 0
		moves = moves || len(p.Adding)+len(p.Removing) > 0
	}
	head := []string{">PARTITION", ">LEADER", ">EPOCH", "REPLICAS", "IN SYNC"}
	if electable {
		head = append(head, "ELIGIBLE")
	}
	if moves {
		head = append(head, "COMING", "GOING")
	}
	t := newTable(append(head, ">START", ">END", ">SIZE", "")...)
	for _, p := range d.Parts {
		row := []any{p.Partition, number(int64(p.Leader)), p.Epoch, ids(p.Replicas), ids(p.ISR)}
		if electable {
			row = append(row, eligible(p.ELR, p.LastELR))
		}
		if moves {
			row = append(row, ids(p.Adding), ids(p.Removing))
		}
		t.row(append(row, number(p.Start), number(p.End), size(p.Size), p.Error)...)
	}
	fmt.Fprintln(w)
	return t.write(w)
}

func value(v *string, sensitive bool) string {
	switch {
	case sensitive:
		return "[hidden]"
	case v == nil:
		return "-"
	}
	return *v
}

func (a *app) topicAlter() *cobra.Command {
	var set, unset []string
	c := &cobra.Command{
		Use:               "alter NAME",
		Short:             "Change the configuration of a topic",
		Example:           "  milena topic alter letters -c retention.ms=86400000 --unset cleanup.policy",
		Args:              args(1, 1, "the name of one topic"),
		ValidArgsFunction: a.completeTopics(true),
		RunE: func(cmd *cobra.Command, got []string) error {
			m, err := admin.ParsePairs(set)
			if err != nil {
				return usagef("--config %w", err)
			}
			if len(m)+len(unset) == 0 {
				return usagef("nothing to change: give --config key=value or --unset key")
			}
			return a.alter(cmd, admin.ResourceTopic, got[0], m, unset)
		},
	}
	c.Flags().StringArrayVarP(&set, "config", "c", nil, "key=value to set; may be repeated")
	c.Flags().StringArrayVar(&unset, "unset", nil, "key to take back to its default; may be repeated")
	must(c.RegisterFlagCompletionFunc("config", completeKeys(config.ResourceTopic, "=")))
	must(c.RegisterFlagCompletionFunc("unset", completeKeys(config.ResourceTopic, "")))
	return c
}

func (a *app) topicDelete() *cobra.Command {
	var yes, exists bool
	c := &cobra.Command{
		Use:               "delete NAME...",
		Aliases:           []string{"rm"},
		Short:             "Delete topics with all their records",
		Args:              args(1, -1, "the name of a topic"),
		ValidArgsFunction: a.completeTopics(false),
		RunE: func(cmd *cobra.Command, got []string) error {
			if err := a.confirm(yes, "delete %s with all records", joinNames("topic", got)); err != nil {
				return err
			}
			deleted := []string{}
			for _, name := range got {
				err := a.client().DeleteTopic(cmd.Context(), name)
				if exists && errors.Is(err, kerr.UnknownTopicOrPartition) {
					continue
				}
				if err != nil {
					return a.meantTopic(cmd, err, name)
				}
				deleted = append(deleted, name)
			}
			if len(deleted) == 0 {
				return a.done(map[string]any{"deleted": deleted}, "There was nothing to delete")
			}
			return a.done(map[string]any{"deleted": deleted}, "Deleted %s", joinNames("topic", deleted))
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&exists, "if-exists", false, "a topic that is not there is no error")
	return c
}

// meantTopic adds the nearest name to the error that a topic does not exist.
func (a *app) meantTopic(cmd *cobra.Command, err error, names ...string) error {
	if !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return err
	}
	known, lerr := a.client().TopicNames(cmd.Context())
	if lerr != nil {
		return err
	}
	for _, n := range names {
		if near := config.Nearest(n, known); near != "" && !has(known, n) {
			return fmt.Errorf("%w: did you mean %s?", err, near)
		}
	}
	return err
}

func joinNames(one string, names []string) string {
	if len(names) == 1 {
		return one + " " + names[0]
	}
	s := one + "s "
	for i, n := range names {
		if i > 0 {
			s += ", "
		}
		s += n
	}
	return s
}

func (a *app) topicAddPartitions() *cobra.Command {
	var total int
	c := &cobra.Command{
		Use:   "add-partitions NAME [N]",
		Short: "Add partitions to a topic",
		Long: `Add N partitions to a topic, or as many as it takes to have --total.
Partitions cannot be taken away. Records with a key may go to another partition afterwards.`,
		Args:              args(1, 2, "the name of a topic and how many partitions to add (or --total)"),
		ValidArgsFunction: a.completeTopics(true),
		RunE: func(cmd *cobra.Command, got []string) error {
			if (len(got) == 2) == cmd.Flags().Changed("total") {
				return usagef("give either how many partitions to add or --total")
			}
			var err error
			if len(got) == 2 {
				n := 0
				if _, err := fmt.Sscanf(got[1], "%d", &n); err != nil || n < 1 || fmt.Sprint(n) != got[1] {
					return usagef("%q: want a number of partitions to add, 1 or more", got[1])
				}
				total, err = a.client().AddPartitions(cmd.Context(), got[0], n)
			} else {
				err = a.client().SetPartitions(cmd.Context(), got[0], total)
			}
			if err != nil {
				return err
			}
			return a.done(map[string]any{"name": got[0], "partitions": total}, "Topic %s has %s now", got[0], plural(int64(total), "partition"))
		},
	}
	c.Flags().IntVar(&total, "total", 0, "number of partitions to have afterwards")
	return c
}
