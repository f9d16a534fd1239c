package cli

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) clusterQuorum() *cobra.Command {
	c := &cobra.Command{
		Use:   "quorum",
		Short: "Show the members that hold the metadata, and replace a lost one",
		Long: `Show the brokers that hold the cluster's metadata together. A majority of them has to run for topics, leaders
and configuration to change; records flow without it.

A member that lost its disk is replaced in three steps: remove it here, add it again (or another broker)
here, and start it with an empty data directory.`,
		Example: `  milena cluster quorum
  milena cluster quorum remove 2
  milena cluster quorum add 2 broker2.example.org:9094`,
		Args: args(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := a.client().Quorum(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(q, func(w io.Writer) error { return writeQuorum(w, q, time.Now()) })
		},
	}
	remove := &cobra.Command{
		Use:   "remove ID",
		Short: "Take a member out of the quorum, alive or lost",
		Args:  args(1, 1, "the number of one broker"),
	}
	var yes bool
	remove.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	remove.RunE = func(cmd *cobra.Command, got []string) error {
		id, err := brokerID(got[0])
		if err != nil {
			return err
		}
		if err := a.confirm(yes, "remove broker %d from the quorum that holds the metadata", id); err != nil {
			return err
		}
		if err := a.client().RemoveVoter(cmd.Context(), id); err != nil {
			return err
		}
		return a.done(map[string]any{"removed": id}, "Broker %d is no member of the quorum any more", id)
	}
	add := &cobra.Command{
		Use:   "add ID HOST:PORT",
		Short: "Make a broker a member of the quorum",
		Long: `Make a broker a member of the quorum. HOST:PORT is its peer address. Start that broker afterwards: it takes
the metadata from the others. One that is to come back as a member needs an empty coord directory.`,
		Args: args(2, 2, "the number of one broker and its peer address"),
		RunE: func(cmd *cobra.Command, got []string) error {
			id, err := brokerID(got[0])
			if err != nil {
				return err
			}
			if err := a.client().AddVoter(cmd.Context(), id, got[1]); err != nil {
				return err
			}
			return a.done(map[string]any{"added": id, "address": got[1]}, "Broker %d is a member of the quorum: start it now", id)
		},
	}
	c.AddCommand(add, remove)
	return c
}

func brokerID(s string) (int32, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 {
		return 0, usagef("%q: want the number of a broker", s)
	}
	return int32(n), nil
}

func writeQuorum(w io.Writer, q admin.Quorum, now time.Time) error {
	if err := facts(w, "Leader", number(int64(q.Leader)), "Term", q.Epoch, "Agreed up to", count(q.HighWatermark), "Failures", q.Tolerates()); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t := newTable(">BROKER", "ROLE", "ADDRESS", ">HAS", ">BEHIND", "LAST HEARD")
	for _, l := range []struct {
		role string
		list []admin.QuorumMember
	}{{"voter", q.Voters}, {"observer", q.Observers}} {
		for _, m := range l.list {
			role, heard := l.role, ""
			if m.ID == q.Leader {
				role = "leader"
			} else if m.LastFetch > 0 {
				heard = now.Sub(time.UnixMilli(m.LastFetch)).Round(100*time.Millisecond).String() + " ago"
			}
			t.row(m.ID, role, m.Address, count(m.Offset), count(m.Lag), heard)
		}
	}
	return t.write(w)
}
