package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) clusterStatus() *cobra.Command {
	var check bool
	var wait time.Duration
	c := &cobra.Command{
		Use:   "status",
		Short: "Show in one colour how the cluster is, and why",
		Long: `Show how the cluster is: a line that begins with GREEN, YELLOW or RED, the brokers, and the partitions that
are not as they should be.

  GREEN   all partitions have a leader and all their replicas are in sync
  YELLOW  everything can be written and read, with fewer copies than asked for, or with a broker or disk down
  RED     something cannot be written or read now`,
		Args: args(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.green(cmd.Context(), wait)
			if err != nil {
				return err
			}
			if err := a.show(s, func(w io.Writer) error { return writeStatus(w, s, a.colours(w)) }); err != nil {
				return err
			}
			if (check || wait > 0) && s.Health != admin.Green {
				return fmt.Errorf("the cluster is %s: %s", s.Health, strings.Join(s.Reasons, "; "))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&check, "check", false, "end with code 1 unless the cluster is green")
	c.Flags().DurationVar(&wait, "wait", 0, "wait that long for the cluster to be green, and end with code 1 if it is not")
	return c
}

// green is the state of the cluster as soon as it is green, or as it is when the wait is over. While it
// starts nobody may answer yet.
func (a *app) green(ctx context.Context, wait time.Duration) (admin.Status, error) {
	end := time.Now().Add(wait)
	for {
		s, err := a.client().Status(ctx)
		if err == nil && s.Health == admin.Green || !time.Now().Before(end) || ctx.Err() != nil {
			return s, err
		}
		t := time.NewTimer(min(300*time.Millisecond, time.Until(end)))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

// colours says whether w is a terminal whose owner wants colours (NO_COLOR is a convention of many programs).
func (a *app) colours(w io.Writer) bool { return terminal(w) && a.env("NO_COLOR", "") == "" }

var healthColours = map[admin.Health]string{admin.Green: "\x1b[30;42m", admin.Yellow: "\x1b[30;43m", admin.Red: "\x1b[97;41m"}

func writeStatus(w io.Writer, s admin.Status, colour bool) error {
	word := strings.ToUpper(string(s.Health))
	if colour {
		word = healthColours[s.Health] + " " + word + " \x1b[0m"
	}
	lines := s.Reasons
	if len(lines) == 0 {
		lines = []string{"every partition has a leader and all its replicas are in sync"}
	}
	for i, l := range lines {
		if i > 0 {
			word = strings.Repeat(" ", len(s.Health))
		}
		if _, err := fmt.Fprintf(w, "%s  %s\n", word, clean(l)); err != nil {
			return err
		}
	}
	down := 0
	for i := range s.Brokers {
		if s.Brokers[i].Fenced {
			down++
		}
	}
	up := plural(int64(len(s.Brokers)-down), "broker") + " up"
	if down > 0 {
		up += fmt.Sprintf(", %d down", down)
	}
	fmt.Fprintln(w)
	pairs := []any{"Cluster", s.ID, "Brokers", up, "Controller", number(int64(s.Controller)), "Quorum", quorumLine(s.Quorum),
		"Topics", fmt.Sprintf("%s, %s", plural(int64(s.Topics), "topic"), plural(int64(s.Partitions), "partition"))}
	for _, x := range []struct {
		name string
		n    int
	}{{"No leader", s.Offline}, {"Below min ISR", s.UnderMinISR}, {"Under-replicated", s.UnderReplicated}, {"At min ISR", s.AtMinISR},
		{"Not led by the preferred replica", s.NotPreferred}, {"Moving", s.Moving}} {
		if x.n > 0 {
			pairs = append(pairs, x.name, plural(int64(x.n), "partition"))
		}
	}
	if err := facts(w, pairs...); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := brokerTable(w, s); err != nil {
		return err
	}
	return badTable(w, s)
}

func quorumLine(q *admin.Quorum) string {
	if q == nil {
		return ""
	}
	if q.Elsewhere() {
		return q.Tolerates()
	}
	var ids []string
	for _, v := range q.Voters {
		ids = append(ids, strconv.Itoa(int(v.ID)))
	}
	members := "brokers " + strings.Join(ids, ", ")
	if len(ids) == 1 {
		members = "broker " + ids[0] + " alone"
	}
	return fmt.Sprintf("%s; %s leads; %s", members, number(int64(q.Leader)), q.Tolerates())
}

func brokerTable(w io.Writer, s admin.Status) error {
	t := newTable(">BROKER", "ADDRESS", "RACK", "STATE", ">LEADS", ">REPLICAS", ">IN SYNC", ">SIZE", ">FREE", "")
	for i := range s.Brokers {
		b := &s.Brokers[i]
		var notes []string
		if b.Controller {
			notes = append(notes, "controller")
		}
		if b.Gaining > 0 {
			notes = append(notes, fmt.Sprintf("gains %d", b.Gaining))
		}
		if b.Losing > 0 {
			notes = append(notes, fmt.Sprintf("loses %d", b.Losing))
		}
		for _, d := range b.Dirs {
			if d.Error != "" {
				notes = append(notes, d.Path+": "+d.Error)
			}
		}
		t.row(b.ID, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))), b.Rack, b.State(), b.Leads, b.Partitions, b.InSync, size(b.Size), size(b.Free), strings.Join(notes, ", "))
	}
	return t.write(w)
}

// worstShown bounds the list of partitions: with a broker down there are thousands.
const worstShown = 20

func badTable(w io.Writer, s admin.Status) error {
	if len(s.Bad) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	var worst []admin.PartitionState
	for _, is := range []func(*admin.PartitionState) bool{
		func(p *admin.PartitionState) bool { return p.Leaderless() },
		func(p *admin.PartitionState) bool { return !p.Leaderless() && p.UnderMinISR() },
		func(p *admin.PartitionState) bool { return !p.Leaderless() && !p.UnderMinISR() },
	} {
		for i := range s.Bad {
			if is(&s.Bad[i]) {
				worst = append(worst, s.Bad[i])
			}
		}
	}
	if err := partitionTable(w, worst[:min(len(worst), worstShown)]); err != nil {
		return err
	}
	if n := len(worst) - worstShown; n > 0 {
		_, err := fmt.Fprintf(w, "and %d more: milena topic describe --under-replicated lists all\n", n)
		return err
	}
	return nil
}

func partitionTable(w io.Writer, ps []admin.PartitionState) error {
	t := newTable("TOPIC", ">PARTITION", ">LEADER", ">EPOCH", "REPLICAS", "IN SYNC", "ELIGIBLE", ">MIN ISR", "")
	for i := range ps {
		p := &ps[i]
		t.row(p.Topic, p.Partition, number(int64(p.Leader)), p.Epoch, ids(p.Replicas), ids(p.ISR), eligible(p.ELR, p.LastELR), p.MinISR, problem(p))
	}
	return t.write(w)
}

// eligible are replicas out of sync that may lead without loss; in brackets who led last, where there are none.
func eligible(elr, last []int32) string {
	if len(elr) == 0 && len(last) > 0 {
		return "(" + ids(last) + ")"
	}
	return ids(elr)
}

func problem(p *admin.PartitionState) string {
	switch {
	case p.Leaderless():
		return "no leader"
	case p.UnderMinISR():
		return "below min ISR"
	case p.UnderReplicated() && p.AtMinISR():
		return "under-replicated, at min ISR"
	case p.UnderReplicated():
		return "under-replicated"
	case p.AtMinISR():
		return "at min ISR"
	}
	return ""
}
