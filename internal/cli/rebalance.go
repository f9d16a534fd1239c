package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) clusterRebalance() *cobra.Command {
	var f moveFlags
	var moves int
	c := &cobra.Command{
		Use:   "rebalance",
		Short: "Spread replicas, bytes and leaders evenly over brokers and racks",
		Long: `Spread replicas, bytes and leaders evenly over brokers and racks, in this order: replicas of a partition in
different racks, as many replicas on each broker, as many bytes, as many leaders.

--dry-run prints the moves with their reasons. Moves are throttled; readers and writers go on. Ctrl-C stops
after the moves that have begun; the same command goes on from there.`,
		Example: `  milena cluster rebalance --dry-run
  milena cluster rebalance --throttle 100MiB
  milena cluster rebalance --moves 50 --yes`,
		Args: args(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := f.options(); err != nil {
				return err
			}
			plan, err := a.client().Plan(cmd.Context(), admin.PlanOptions{Moves: moves})
			if err != nil {
				return err
			}
			if f.dry {
				return a.showPlan(plan)
			}
			if len(plan.Moves) > 0 {
				if err := a.carry(cmd, plan, &f, "milena cluster rebalance"); err != nil {
					return err
				}
			}
			return a.settled(cmd.Context(), plan, "The cluster is even: there is nothing to move", "Moved %s: the cluster is even")
		},
	}
	f.add(c)
	c.Flags().IntVar(&moves, "moves", 0, "most partitions whose data moves; 0 is no limit")
	return c
}

// showPlan is a dry run's result.
func (a *app) showPlan(plan admin.Plan) error {
	return a.show(plan, func(w io.Writer) error {
		if err := planLines(w, plan); err != nil {
			return err
		}
		if len(plan.Moves) == 0 {
			fmt.Fprintln(w, "There is nothing to move")
		}
		for _, m := range plan.Stuck {
			fmt.Fprintf(w, "%s-%d: no other broker that is up can take it from %s\n", m.Topic, m.Partition, ids(m.From))
		}
		_, err := fmt.Fprintln(a.io.Err, "Nothing was changed: this was a dry run")
		return err
	})
}

// settled takes away throttles that an interrupted run has left, and reports.
func (a *app) settled(ctx context.Context, plan admin.Plan, nothing, moved string) error {
	if err := a.forgetThrottles(ctx); err != nil {
		return err
	}
	if len(plan.Moves) == 0 {
		return a.done(plan, "%s", nothing)
	}
	return a.done(plan, moved, plural(int64(len(plan.Moves)), "partition"))
}

// forgetThrottles takes throttles away when nothing moves any more.
func (a *app) forgetThrottles(ctx context.Context) error {
	running, err := a.client().Reassignments(ctx)
	if err != nil || len(running) > 0 {
		return err
	}
	topics, err := a.client().Throttled(ctx)
	if err != nil || len(topics) == 0 {
		return err
	}
	return a.client().Unthrottle(ctx, topics)
}

func (a *app) clusterDecommission() *cobra.Command {
	var f moveFlags
	var keep bool
	var wait time.Duration
	c := &cobra.Command{
		Use:     "decommission ID",
		Aliases: []string{"remove-broker"},
		Short:   "Move everything off a broker, then let the cluster forget it",
		Long: `Move all replicas off a broker, throttled, then wait until it has been stopped and unregister it.

The broker may be up or down. The same command goes on after an interruption. A member of the metadata
quorum is refused: replace it there first (milena cluster quorum --help).`,
		Example: `  milena cluster decommission 4 --dry-run
  milena cluster decommission 4 --throttle 100MiB`,
		Args: args(1, 1, "the number of one broker"),
		RunE: func(cmd *cobra.Command, got []string) error {
			id, err := brokerID(got[0])
			if err != nil {
				return err
			}
			if _, err := f.options(); err != nil {
				return err
			}
			if err := a.refuseVoter(cmd.Context(), id); err != nil {
				return err
			}
			if f.dry {
				plan, err := a.client().Plan(cmd.Context(), admin.PlanOptions{Leaving: []int32{id}, Only: true})
				if err != nil {
					return err
				}
				return a.showPlan(plan)
			}
			if err := a.drain(cmd, id, &f); err != nil {
				return err
			}
			if keep {
				return a.done(map[string]any{"emptied": id}, "Broker %d holds nothing any more", id)
			}
			return a.forget(cmd.Context(), id, wait)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&keep, "keep", false, "only empty it: leave it registered")
	c.Flags().DurationVar(&wait, "stop-within", 10*time.Minute, "how long to wait for the broker to be stopped")
	return c
}

// refuseVoter keeps a member of the quorum from being switched off unseen: with it goes a vote.
func (a *app) refuseVoter(ctx context.Context, id int32) error {
	q, err := a.client().Quorum(ctx)
	if err != nil || q.Elsewhere() {
		return nil // a cluster whose store lies elsewhere has no members among its brokers
	}
	for _, v := range q.Voters {
		if v.ID == id {
			return fmt.Errorf("broker %d is a member of the quorum that holds the metadata: first give its place to another broker with milena cluster quorum remove %d and milena cluster quorum add OTHER HOST:PORT", id, id)
		}
	}
	return nil
}

// drain moves replicas away until there are none. More than once, because topics may be created on the
// broker while it is being emptied.
func (a *app) drain(cmd *cobra.Command, id int32, f *moveFlags) error {
	const rounds = 5
	o, err := f.options()
	if err != nil {
		return err
	}
	if err := a.client().Rethrottle(cmd.Context(), o.Throttle); err != nil {
		return err
	}
	again := fmt.Sprintf("milena cluster decommission %d", id)
	for range rounds {
		if err := a.awaitQuiet(cmd.Context(), id, again); err != nil {
			return err
		}
		plan, err := a.client().Plan(cmd.Context(), admin.PlanOptions{Leaving: []int32{id}, Only: true})
		if err != nil {
			return err
		}
		if len(plan.Moves) == 0 && len(plan.Stuck) == 0 {
			return a.forgetThrottles(cmd.Context())
		}
		if len(plan.Moves) == 0 {
			m := plan.Stuck[0]
			return fmt.Errorf("%s cannot leave broker %d: %s-%d is on %s, and no other broker is up that could take it", plural(int64(len(plan.Stuck)), "partition"), id, m.Topic, m.Partition, ids(m.From))
		}
		if err := a.carry(cmd, plan, f, again); err != nil {
			return err
		}
		f.yes = true // asked once
	}
	return fmt.Errorf("broker %d gets new replicas as fast as they are moved away: create no topics meanwhile", id)
}

// awaitQuiet waits for moves that concern the broker and were begun before, by an interrupted run or by
// somebody else: to plan around them would leave their partitions out.
func (a *app) awaitQuiet(ctx context.Context, id int32, again string) error {
	show := a.moving(time.Now())
	defer show.end()
	return goOnWith(a.client().AwaitMoves(ctx, id, show.step), again)
}

// forget waits until the broker is down, and unregisters it.
func (a *app) forget(ctx context.Context, id int32, wait time.Duration) error {
	s, err := a.client().Status(ctx)
	if err != nil {
		return err
	}
	for i := range s.Brokers {
		if b := &s.Brokers[i]; b.ID == id && !b.Fenced {
			fmt.Fprintf(a.io.Err, "Broker %d holds nothing any more. Stop it now (Ctrl-C, or kill -TERM of its process); waiting up to %s\n", id, wait)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := a.client().AwaitGone(ctx, id); err != nil {
		return fmt.Errorf("%w: stop it and run milena cluster decommission %d again", err, id)
	}
	if err := a.client().Unregister(ctx, id); err != nil {
		return err
	}
	return a.done(map[string]any{"decommissioned": id}, "Broker %d is decommissioned: its data directory can be deleted", id)
}
