package cli

import (
	"fmt"
	"io"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) groupCommand() *cobra.Command {
	c := &cobra.Command{Use: "group", Short: "List, describe, reset and delete consumer groups", Aliases: []string{"groups"}}
	c.AddCommand(a.groupList(), a.groupDescribe(), a.groupReset(), a.groupDelete())
	return c
}

func (a *app) groupList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List groups",
		Args:    args(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			gs, err := a.client().Groups(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(gs, func(w io.Writer) error {
				if len(gs) == 0 {
					_, err := fmt.Fprintln(a.io.Err, "There are no groups")
					return err
				}
				t := newTable("GROUP", "STATE", "TYPE", ">COORDINATOR")
				for _, g := range gs {
					t.row(g.Name, g.State, g.Type, g.Coordinator)
				}
				return t.write(w)
			})
		},
	}
}

func (a *app) groupDescribe() *cobra.Command {
	return &cobra.Command{
		Use:               "describe NAME...",
		Short:             "Show members, offsets and lag of groups",
		Args:              args(1, -1, "the name of a group"),
		ValidArgsFunction: a.completeGroups(false),
		RunE: func(cmd *cobra.Command, got []string) error {
			var all []admin.GroupDescription
			for _, name := range got {
				d, err := a.client().DescribeGroup(cmd.Context(), name)
				if err != nil {
					return err
				}
				all = append(all, d)
			}
			return a.show(all, func(w io.Writer) error {
				for i, d := range all {
					if i > 0 {
						fmt.Fprintln(w)
					}
					if err := writeGroup(w, d); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func writeGroup(w io.Writer, d admin.GroupDescription) error {
	err := facts(w, "Group", d.Name, "State", d.State, "Type", d.Type, "Assignor", d.Assignor, "Coordinator", d.Coordinator, "Members", len(d.Members), "Lag", count(d.TotalLag))
	if err != nil {
		return err
	}
	if len(d.Members) > 0 {
		fmt.Fprintln(w)
		t := newTable("MEMBER", "INSTANCE", "CLIENT", "HOST", ">PARTITIONS")
		for _, m := range d.Members {
			t.row(m.ID, m.InstanceID, m.ClientID, m.Host, m.Partitions)
		}
		if err := t.write(w); err != nil {
			return err
		}
	}
	if len(d.Lag) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable("TOPIC", ">PARTITION", ">COMMITTED", ">START", ">END", ">LAG", "MEMBER", "")
	for _, p := range d.Lag {
		t.row(p.Topic, p.Partition, number(p.Committed), number(p.Start), number(p.End), number(p.Lag), p.Member, p.Error)
	}
	return t.write(w)
}

func (a *app) groupReset() *cobra.Command {
	var topics []string
	var to string
	var dry bool
	c := &cobra.Command{
		Use:   "reset-offsets NAME --to POSITION",
		Short: "Move a group without members to another position",
		Long: `Move the committed offsets of a group that has no members. All topics the group has offsets for are moved,
or only those named with --topic.

` + positionHelp + `
  +N, -N         shifted by N records from where the group is`,
		Example: `  milena group reset-offsets readers --to start
  milena group reset-offsets readers --to @2026-01-31T12:00:00Z --topic letters --dry-run
  milena group reset-offsets readers --to=-100`,
		Args:              args(1, 1, "the name of one group"),
		ValidArgsFunction: a.completeGroups(true),
		RunE: func(cmd *cobra.Command, got []string) error {
			if to == "" {
				return usagef("--to is missing: start, end, an offset, @TIME, +N or -N")
			}
			at, err := parsePosition(to, true)
			if err != nil {
				return usagef("--to %w", err)
			}
			rs, err := a.client().ResetOffsets(cmd.Context(), got[0], topics, at, dry)
			if err != nil {
				return err
			}
			return a.show(rs, func(w io.Writer) error {
				t := newTable("TOPIC", ">PARTITION", ">FROM", ">TO")
				for _, r := range rs {
					t.row(r.Topic, r.Partition, number(r.From), r.To)
				}
				if err := t.write(w); err != nil {
					return err
				}
				if dry {
					_, err = fmt.Fprintln(a.io.Err, "Nothing was changed: this was a dry run")
				}
				return err
			})
		},
	}
	c.Flags().StringVar(&to, "to", "", "where to: start, end, OFFSET, @TIME, +N or -N")
	c.Flags().StringArrayVar(&topics, "topic", nil, "only this topic; may be repeated")
	c.Flags().BoolVar(&dry, "dry-run", false, "show what would change, change nothing")
	must(c.RegisterFlagCompletionFunc("topic", a.completeTopics(false)))
	return c
}

func (a *app) groupDelete() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:               "delete NAME...",
		Aliases:           []string{"rm"},
		Short:             "Delete groups without members, with their offsets",
		Args:              args(1, -1, "the name of a group"),
		ValidArgsFunction: a.completeGroups(false),
		RunE: func(cmd *cobra.Command, got []string) error {
			if err := a.confirm(yes, "delete %s with all offsets", joinNames("group", got)); err != nil {
				return err
			}
			for _, name := range got {
				if err := a.client().DeleteGroup(cmd.Context(), name); err != nil {
					return err
				}
			}
			return a.done(map[string]any{"deleted": got}, "Deleted %s", joinNames("group", got))
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}
