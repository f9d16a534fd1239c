package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) txnCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "txn",
		Aliases: []string{"transaction", "transactions"},
		Short:   "Show transactions, find and end those that hang",
	}
	c.AddCommand(a.txnList(), a.txnDescribe(), a.txnHanging(), a.txnAbort())
	return c
}

func (a *app) txnList() *cobra.Command {
	var states []string
	c := &cobra.Command{
		Use:   "list",
		Short: "List transactional ids and how they stand",
		Example: `  milena txn list
  milena txn list --state Ongoing`,
		Args: args(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ts, err := a.client().Transactions(cmd.Context(), states)
			if err != nil {
				return err
			}
			return a.show(ts, func(w io.Writer) error {
				if len(ts) == 0 {
					_, err := fmt.Fprintln(w, "No transactional ids")
					return err
				}
				t := newTable("TRANSACTIONAL ID", "STATE", ">PRODUCER", ">EPOCH", ">OPEN FOR", ">PARTITIONS", ">COORDINATOR")
				for _, x := range ts {
					t.row(x.ID, x.State, x.ProducerID, x.Epoch, openFor(x, time.Now()), count(int64(len(x.Partitions))), x.Coordinator)
				}
				return t.write(w)
			})
		},
	}
	c.Flags().StringSliceVar(&states, "state", nil, "only these states: Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort")
	return c
}

// openFor is how long a transaction has been open, "" for one that is not.
func openFor(t admin.Transaction, now time.Time) string {
	if t.StartMs < 0 || len(t.Partitions) == 0 {
		return ""
	}
	return max(now.Sub(time.UnixMilli(t.StartMs)), 0).Round(100 * time.Millisecond).String()
}

func (a *app) txnDescribe() *cobra.Command {
	return &cobra.Command{
		Use:   "describe ID",
		Short: "Show one transactional id and the partitions of its open transaction",
		Args:  args(1, 1, "one transactional id"),
		RunE: func(cmd *cobra.Command, got []string) error {
			x, err := a.client().Transaction(cmd.Context(), got[0])
			if err != nil {
				return err
			}
			return a.show(x, func(w io.Writer) error {
				var parts []string
				for _, p := range x.Partitions {
					parts = append(parts, fmt.Sprintf("%s-%d", p.Topic, p.Partition))
				}
				return facts(w, "Id", x.ID, "State", x.State, "Producer", fmt.Sprintf("%d, epoch %d", x.ProducerID, x.Epoch),
					"Coordinator", fmt.Sprintf("broker %d", x.Coordinator), "Timeout", time.Duration(x.TimeoutMs)*time.Millisecond,
					"Open for", openFor(x, time.Now()), "Partitions", strings.Join(parts, ", "))
			})
		},
	}
}

func (a *app) txnHanging() *cobra.Command {
	var older time.Duration
	c := &cobra.Command{
		Use:   "find-hanging",
		Short: "Find transactions that nobody will end",
		Long: `Look through all partitions for transactions that are open there although no coordinator knows of them. Readers
of committed records wait at such a place for ever. milena txn abort ends one.`,
		Args: args(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			hs, err := a.client().FindHanging(cmd.Context(), older, time.Now())
			if err != nil {
				return err
			}
			return a.show(hs, func(w io.Writer) error {
				if len(hs) == 0 {
					_, err := fmt.Fprintln(w, "No hanging transactions")
					return err
				}
				t := newTable("TOPIC", ">PARTITION", ">START OFFSET", ">PRODUCER", ">EPOCH", ">SILENT FOR")
				for _, h := range hs {
					t.row(h.Topic, h.Partition, count(h.StartOffset), h.ProducerID, h.Epoch, time.Since(time.UnixMilli(h.LastMs)).Round(time.Second))
				}
				return t.write(w)
			})
		},
	}
	c.Flags().DurationVar(&older, "older", 15*time.Minute, "only those whose last record is at least so old")
	return c
}

func (a *app) txnAbort() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "abort TOPIC PARTITION START-OFFSET",
		Short: "End a transaction that hangs, as milena txn find-hanging shows it",
		Long: `Write the marker that aborts the transaction which began at an offset of a partition. Its records there are never
shown to readers of committed records. Abort only what find-hanging shows: a producer that is still at work
loses what it wrote.`,
		Args: args(3, 3, "a topic, a partition and the offset at which the transaction began"),
		RunE: func(cmd *cobra.Command, got []string) error {
			p, err := strconv.ParseInt(got[1], 10, 32)
			if err != nil || p < 0 {
				return usagef("%q: want the number of a partition", got[1])
			}
			start, err := strconv.ParseInt(got[2], 10, 64)
			if err != nil || start < 0 {
				return usagef("%q: want an offset", got[2])
			}
			if err := a.confirm(yes, "abort the transaction that began at offset %d of %s-%d", start, got[0], p); err != nil {
				return err
			}
			if err := a.client().AbortHanging(cmd.Context(), got[0], int32(p), start); err != nil {
				return err
			}
			return a.done(map[string]any{"topic": got[0], "partition": p, "start_offset": start}, "The transaction at offset %d of %s-%d is aborted", start, got[0], p)
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}
