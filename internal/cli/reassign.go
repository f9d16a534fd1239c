package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/spf13/cobra"
)

type reassignFlags struct {
	moveFlags
	to             []string
	plan           string
	factor         int
	onto           []string
	cancel, status bool
}

func (a *app) topicReassign() *cobra.Command {
	var f reassignFlags
	c := &cobra.Command{
		Use:   "reassign [NAME]",
		Short: "Give partitions other replicas, change the number of replicas, or see what moves",
		Long: `Give the partitions of a topic other replicas. Say where to in one of these ways:

  --to PARTITION=BROKER,BROKER,...   one partition, the preferred leader first; may be repeated
  --factor N                         as many replicas of each partition
  --brokers BROKER,BROKER,...        only on these brokers, moving as little as possible
  --plan FILE                        the JSON of kafka-reassign-partitions; - is standard input; no NAME then

--status shows what moves, and takes throttles away when nothing does. --cancel takes moves back.`,
		Example: `  milena topic reassign letters --factor 3
  milena topic reassign letters --to 0=1,2,3 --to 1=2,3,1 --throttle 100MiB
  milena topic reassign letters --brokers 1,2,4 --dry-run
  milena topic reassign --plan moves.json --yes
  milena topic reassign --status`,
		Args:              args(0, 1, "the name of one topic, or --plan, --status or --cancel"),
		ValidArgsFunction: a.completeTopics(true),
		RunE:              func(cmd *cobra.Command, got []string) error { return a.reassign(cmd, got, &f) },
	}
	f.add(c)
	p := c.Flags()
	p.StringArrayVar(&f.to, "to", nil, "PARTITION=BROKER,BROKER,...; may be repeated")
	p.IntVar(&f.factor, "factor", 0, "number of replicas of each partition")
	p.StringSliceVar(&f.onto, "brokers", nil, "brokers that may hold the topic")
	p.StringVar(&f.plan, "plan", "", "file with moves in Kafka's JSON format; - is standard input")
	p.BoolVar(&f.cancel, "cancel", false, "take back what is under way, of one topic or of all")
	p.BoolVar(&f.status, "status", false, "show what is under way")
	return c
}

func (a *app) reassign(cmd *cobra.Command, got []string, f *reassignFlags) error {
	topic := ""
	if len(got) == 1 {
		topic = got[0]
	}
	ways := 0
	for _, given := range []bool{len(f.to) > 0, f.factor != 0, len(f.onto) > 0, f.plan != "", f.cancel, f.status} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return usagef("give one of --to, --factor, --brokers, --plan, --status and --cancel")
	case topic == "" && f.plan == "" && !f.cancel && !f.status:
		return usagef("the name of a topic is missing")
	case topic != "" && f.plan != "":
		return usagef("--plan names the topics itself: leave %s away", topic)
	}
	if _, err := f.options(); err != nil {
		return err
	}
	if f.status {
		return a.reassignStatus(cmd.Context(), topic)
	}
	if f.cancel {
		return a.reassignCancel(cmd.Context(), topic, f.yes)
	}
	plan, err := a.planFor(cmd.Context(), topic, f)
	if err != nil {
		return a.meantTopic(cmd, err, topic)
	}
	if f.dry {
		return a.showPlan(plan)
	}
	if len(plan.Stuck) > 0 {
		m := plan.Stuck[0]
		return fmt.Errorf("%s cannot move there: %s-%d has %s, and there are not as many of these brokers that are up", plural(int64(len(plan.Stuck)), "partition"), m.Topic, m.Partition, plural(int64(len(m.From)), "replica"))
	}
	if len(plan.Moves) > 0 {
		if err := a.carry(cmd, plan, &f.moveFlags, "the same command"); err != nil {
			return err
		}
	}
	return a.settled(cmd.Context(), plan, "All replicas are there already: there is nothing to move", "Moved %s")
}

func (a *app) planFor(ctx context.Context, topic string, f *reassignFlags) (admin.Plan, error) {
	switch {
	case f.factor != 0:
		if f.factor < 1 {
			return admin.Plan{}, usagef("--factor %d: want 1 or more", f.factor)
		}
		return a.client().PlanFactor(ctx, topic, f.factor)
	case len(f.onto) > 0:
		onto, err := brokerIDs(f.onto)
		if err != nil {
			return admin.Plan{}, usagef("--brokers %w", err)
		}
		return a.client().Plan(ctx, admin.PlanOptions{Topics: []string{topic}, Onto: onto})
	case f.plan != "":
		wishes, err := a.readPlan(f.plan)
		if err != nil {
			return admin.Plan{}, err
		}
		return a.client().PlanWishes(ctx, wishes)
	}
	var wishes []admin.Move
	for _, s := range f.to {
		part, list, ok := strings.Cut(s, "=")
		n, err := strconv.ParseInt(part, 10, 32)
		if !ok || err != nil || n < 0 {
			return admin.Plan{}, usagef("--to %q: want PARTITION=BROKER,BROKER,...", s)
		}
		to, err := brokerIDs(strings.Split(list, ","))
		if err != nil {
			return admin.Plan{}, usagef("--to %q: %w", s, err)
		}
		wishes = append(wishes, admin.Move{Topic: topic, Partition: int32(n), To: to})
	}
	return a.client().PlanWishes(ctx, wishes)
}

func brokerIDs(list []string) ([]int32, error) {
	var out []int32
	for _, s := range list {
		n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 32)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q is no number of a broker", s)
		}
		if slices.Contains(out, int32(n)) {
			return nil, fmt.Errorf("broker %d is named twice", n)
		}
		out = append(out, int32(n))
	}
	return out, nil
}

// kafkaPlan is the file of kafka-reassign-partitions --reassignment-json-file. log_dirs is taken only as
// "any": where a replica lies on its broker is not a matter of this command.
type kafkaPlan struct {
	Version    int `json:"version"`
	Partitions []struct {
		Topic     string   `json:"topic"`
		Partition int32    `json:"partition"`
		Replicas  []int32  `json:"replicas"`
		LogDirs   []string `json:"log_dirs"`
	} `json:"partitions"`
}

// planLimit is the most bytes of a plan that are read: some hundred thousand partitions.
const planLimit = 64 << 20

func (a *app) readPlan(name string) ([]admin.Move, error) {
	in := a.io.In
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	var k kafkaPlan
	d := json.NewDecoder(io.LimitReader(in, planLimit))
	if err := d.Decode(&k); err != nil {
		return nil, fmt.Errorf("plan %s: %w", name, err)
	}
	if k.Version != 1 {
		return nil, fmt.Errorf("plan %s: version %d: want 1", name, k.Version)
	}
	if len(k.Partitions) == 0 {
		return nil, fmt.Errorf("plan %s: it names no partitions", name)
	}
	var out []admin.Move
	for _, p := range k.Partitions {
		for _, d := range p.LogDirs {
			if d != "any" {
				return nil, fmt.Errorf("plan %s: %s-%d: log_dirs %q: only any is possible here; kafka-reassign-partitions moves replicas between directories", name, p.Topic, p.Partition, d)
			}
		}
		if len(p.Replicas) == 0 {
			return nil, fmt.Errorf("plan %s: %s-%d has no replicas", name, p.Topic, p.Partition)
		}
		out = append(out, admin.Move{Topic: p.Topic, Partition: p.Partition, To: p.Replicas})
	}
	return out, nil
}

func (a *app) reassignStatus(ctx context.Context, topic string) error {
	list, err := a.under(ctx, topic)
	if err != nil {
		return err
	}
	if err := a.forgetThrottles(ctx); err != nil {
		return err
	}
	return a.show(list, func(w io.Writer) error {
		if len(list) == 0 {
			_, err := fmt.Fprintln(a.io.Err, "Nothing is moving")
			return err
		}
		t := newTable("TOPIC", ">PARTITION", "REPLICAS", "COMING", "GOING")
		for _, r := range list {
			t.row(r.Topic, r.Partition, ids(r.Replicas), ids(r.Adding), ids(r.Removing))
		}
		return t.write(w)
	})
}

// under lists what is under way, of one topic or (no name) of all.
func (a *app) under(ctx context.Context, topic string) ([]admin.Reassignment, error) {
	list, err := a.client().Reassignments(ctx)
	if topic != "" {
		list = slices.DeleteFunc(list, func(r admin.Reassignment) bool { return r.Topic != topic })
	}
	return list, err
}

func (a *app) reassignCancel(ctx context.Context, topic string, yes bool) error {
	list, err := a.under(ctx, topic)
	if err != nil {
		return err
	}
	if len(list) > 0 {
		if err := a.confirm(yes, "take back the moves of %s", plural(int64(len(list)), "partition")); err != nil {
			return err
		}
	}
	var moves []admin.Move
	for _, r := range list {
		moves = append(moves, admin.Move{Topic: r.Topic, Partition: r.Partition})
	}
	if err := a.client().Reassign(ctx, moves); err != nil {
		return err
	}
	if err := a.forgetThrottles(ctx); err != nil {
		return err
	}
	if len(list) == 0 {
		return a.done(list, "Nothing is moving")
	}
	return a.done(list, "Took back the moves of %s", plural(int64(len(list)), "partition"))
}

func (a *app) topicElect() *cobra.Command {
	var parts []int32
	var unclean, yes, all bool
	c := &cobra.Command{
		Use:     "elect-leaders [NAME...]",
		Aliases: []string{"elect"},
		Short:   "Make the preferred replicas leaders again",
		Long: `Make the first replica of each partition its leader, where it is in sync; of the named topics, or of all with
--all. The cluster does so by itself every five minutes.

--unclean gives partitions that have no leader one that may lack acknowledged records: they are lost then.
Only for when the brokers that have them will not come back (milena cluster status names them).`,
		Example: `  milena topic elect-leaders --all
  milena topic elect-leaders letters -p 3
  milena topic elect-leaders letters --unclean`,
		Args:              args(0, -1, "names of topics, or --all"),
		ValidArgsFunction: a.completeTopics(false),
		RunE: func(cmd *cobra.Command, got []string) error {
			switch {
			case all == (len(got) > 0):
				return usagef("give either names of topics or --all")
			case len(parts) > 0 && len(got) != 1:
				return usagef("--partition goes with the name of one topic")
			}
			if unclean {
				if err := a.confirm(yes, "elect leaders that may lack acknowledged records, which are lost then"); err != nil {
					return err
				}
			}
			set, err := a.electable(cmd, got, parts)
			if err != nil {
				return err
			}
			es, err := a.client().ElectLeaders(cmd.Context(), unclean, set)
			if err != nil {
				return err
			}
			return a.showElections(es)
		},
	}
	p := c.Flags()
	p.Int32SliceVarP(&parts, "partition", "p", nil, "only these partitions")
	p.BoolVar(&unclean, "unclean", false, "also replicas that may lack acknowledged records, for partitions without leader")
	p.BoolVar(&all, "all", false, "all topics")
	p.BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func (a *app) electable(cmd *cobra.Command, topics []string, parts []int32) (map[string][]int32, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	set := map[string][]int32{}
	if len(parts) > 0 {
		set[topics[0]] = parts
		return set, nil
	}
	ps, err := a.client().Partitions(cmd.Context(), topics...)
	if err != nil {
		return nil, a.meantTopic(cmd, err, topics...)
	}
	for _, p := range ps {
		set[p.Topic] = append(set[p.Topic], p.Partition)
	}
	return set, nil
}

// showElections prints what came out; a partition that could not get its leader is an error in the end.
func (a *app) showElections(es []admin.Election) error {
	elected, bad := 0, 0
	for _, e := range es {
		switch e.Result {
		case "elected":
			elected++
		case "not needed":
		default:
			bad++
		}
	}
	err := a.show(es, func(w io.Writer) error {
		if elected+bad > 0 {
			t := newTable("TOPIC", ">PARTITION", "RESULT", "")
			for _, e := range es {
				if e.Result != "not needed" {
					t.row(e.Topic, e.Partition, e.Result, e.Message)
				}
			}
			return t.write(w)
		}
		_, err := fmt.Fprintln(w, "Every partition is led as it should be")
		return err
	})
	if bad > 0 {
		err = errors.Join(err, fmt.Errorf("%s could not get the leader that was asked for", plural(int64(bad), "partition")))
	}
	return err
}
