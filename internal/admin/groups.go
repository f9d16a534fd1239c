package admin

import (
	"context"
	"fmt"
	"sort"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Group is one line of a list of groups.
type Group struct {
	Name        string `json:"name"`
	State       string `json:"state"`
	Type        string `json:"protocol_type"` // consumer, connect, ...
	Coordinator int32  `json:"coordinator"`
}

// GroupDescription is all about one group.
type GroupDescription struct {
	Group
	Assignor string           `json:"assignor,omitempty"`
	Members  []GroupMember    `json:"members"`
	Lag      []GroupPartition `json:"partitions"`
	TotalLag int64            `json:"total_lag"` // of the partitions whose lag is known
}

// GroupMember is one member.
type GroupMember struct {
	ID         string `json:"id"`
	InstanceID string `json:"instance_id,omitempty"` // of a static member
	ClientID   string `json:"client_id"`
	Host       string `json:"host"`
	Partitions int    `json:"partitions"`
}

// GroupPartition is how far a group is in one partition. Numbers are -1 when they are not known.
type GroupPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed int64  `json:"committed_offset"`
	Start     int64  `json:"start_offset"`
	End       int64  `json:"end_offset"`
	Lag       int64  `json:"lag"`
	Member    string `json:"member,omitempty"`
	Error     string `json:"error,omitempty"`
}

// Groups lists groups by name.
func (c *Client) Groups(ctx context.Context) ([]Group, error) {
	out := []Group{}
	err := c.with(ctx, "list groups", func(ctx context.Context, adm *kadm.Client) error {
		gs, err := adm.ListGroups(ctx)
		for _, g := range gs.Sorted() {
			out = append(out, Group{g.Group, g.State, g.ProtocolType, g.Coordinator})
		}
		return err
	})
	return out, err
}

// DescribeGroup tells state, members and lag of one group. A group nobody has heard of is an error.
func (c *Client) DescribeGroup(ctx context.Context, name string) (GroupDescription, error) {
	var d GroupDescription
	what := "describe group " + name
	err := c.with(ctx, what, func(ctx context.Context, adm *kadm.Client) error {
		lags, err := adm.Lag(ctx, name)
		if err != nil {
			return err
		}
		l := lags[name]
		if err := l.Error(); err != nil {
			return err
		}
		d.Group = Group{name, l.State, l.ProtocolType, l.Coordinator.NodeID}
		d.Assignor, d.Members, d.Lag = l.Protocol, []GroupMember{}, []GroupPartition{}
		for _, m := range l.Members {
			x := GroupMember{ID: m.MemberID, ClientID: m.ClientID, Host: m.ClientHost}
			if m.InstanceID != nil {
				x.InstanceID = *m.InstanceID
			}
			if a, ok := m.Assigned.AsConsumer(); ok {
				for _, t := range a.Topics {
					x.Partitions += len(t.Partitions)
				}
			}
			d.Members = append(d.Members, x)
		}
		for _, p := range l.Lag.Sorted() {
			d.Lag = append(d.Lag, groupPartition(p))
			d.TotalLag += max(p.Lag, 0)
		}
		return nil
	})
	if err == nil && d.State == "Dead" && len(d.Lag) == 0 && len(d.Members) == 0 {
		return d, fmt.Errorf("%s: no such group", what)
	}
	return d, err
}

func groupPartition(p kadm.GroupMemberLag) GroupPartition {
	x := GroupPartition{Topic: p.Topic, Partition: p.Partition, Committed: -1, Start: -1, End: -1, Lag: p.Lag}
	if p.Commit.At >= 0 {
		x.Committed = p.Commit.At
	}
	if p.Start.Err == nil {
		x.Start = p.Start.Offset
	}
	if p.End.Err == nil {
		x.End = p.End.Offset
	}
	if p.Err != nil {
		x.Error = errorName(p.Err)
	}
	if p.Member != nil {
		x.Member = p.Member.MemberID
	}
	return x
}

// Reset is a change of one committed offset; From is -1 where there was none.
type Reset struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
}

// ResetOffsets moves a group to a position in topics (all it has offsets for, if none are named) and
// returns the changes; with dry it only computes them. The broker refuses while the group has members.
func (c *Client) ResetOffsets(ctx context.Context, group string, topics []string, at Position, dry bool) ([]Reset, error) {
	what := "reset offsets of group " + group
	var had kadm.OffsetResponses
	err := c.with(ctx, what, func(ctx context.Context, adm *kadm.Client) error {
		var err error
		had, err = adm.FetchOffsets(ctx, group)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(topics) == 0 {
		for t := range had {
			topics = append(topics, t)
		}
		if len(topics) == 0 {
			return nil, fmt.Errorf("%s: it has no committed offsets; name topics", what)
		}
	}
	out := []Reset{}
	for _, t := range topics {
		rs, err := c.resetTopic(ctx, t, had, at)
		if err != nil {
			return nil, err
		}
		out = append(out, rs...)
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Topic < out[j].Topic || out[i].Topic == out[j].Topic && out[i].Partition < out[j].Partition
	})
	if dry {
		return out, nil
	}
	return out, c.with(ctx, what, func(ctx context.Context, adm *kadm.Client) error {
		// DescribeGroups first: a commit from outside would be taken as a stray member's and only say so
		// with an unknown member id, which tells a person nothing.
		ds, err := adm.DescribeGroups(ctx, group)
		if err == nil && len(ds[group].Members) > 0 {
			return fmt.Errorf("the group has %d members: stop them first", len(ds[group].Members))
		}
		var os kadm.Offsets
		for _, r := range out {
			os.AddOffset(r.Topic, r.Partition, r.To, -1)
		}
		rs, err := adm.CommitOffsets(ctx, group, os)
		if err != nil {
			return err
		}
		return rs.Error()
	})
}

func (c *Client) resetTopic(ctx context.Context, topic string, had kadm.OffsetResponses, at Position) ([]Reset, error) {
	from := func(p int32) int64 {
		if o, ok := had.Lookup(topic, p); ok && o.Err == nil {
			return o.At
		}
		return -1
	}
	find := at
	if at.Kind == ShiftBy {
		find = Position{Kind: AtStart}
	}
	to, err := c.Offsets(ctx, topic, find)
	if err != nil {
		return nil, err
	}
	var ends map[int32]int64
	if at.Kind == ShiftBy {
		if ends, err = c.Offsets(ctx, topic, Position{Kind: AtEnd}); err != nil {
			return nil, err
		}
	}
	var out []Reset
	for p, o := range to {
		r := Reset{topic, p, from(p), o}
		if at.Kind == ShiftBy {
			if r.From < 0 {
				continue // nowhere to shift from
			}
			r.To = min(max(r.From+at.Value, o), ends[p])
		}
		out = append(out, r)
	}
	return out, nil
}

// DeleteGroup deletes an empty group with its offsets.
func (c *Client) DeleteGroup(ctx context.Context, name string) error {
	what := "delete group " + name
	return c.with(ctx, what, func(ctx context.Context, adm *kadm.Client) error {
		rs, err := adm.DeleteGroups(ctx, name)
		if err != nil {
			return err
		}
		return fail(what, rs[name].Err, "")
	})
}

// GroupNames lists names for completion.
func (c *Client) GroupNames(ctx context.Context) ([]string, error) {
	gs, err := c.Groups(ctx)
	var out []string
	for _, g := range gs {
		out = append(out, g.Name)
	}
	return out, err
}
