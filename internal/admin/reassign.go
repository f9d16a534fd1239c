package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Reassignment is one that is under way (KIP-455).
type Reassignment struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Replicas  []int32 `json:"replicas"` // those that come and go included
	Adding    []int32 `json:"adding"`
	Removing  []int32 `json:"removing"`
}

// Move is one partition that is to have other replicas, or the same ones in another order.
type Move struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	From      []int32 `json:"from"`
	To        []int32 `json:"to"`
	Bytes     int64   `json:"bytes"` // to be copied; 0 where only the order changes or nothing is known
	Reason    string  `json:"reason,omitempty"`
}

// Copies are the brokers that get a replica they do not have.
func (m *Move) Copies() []int32 {
	var out []int32
	for _, id := range m.To {
		if !slices.Contains(m.From, id) {
			out = append(out, id)
		}
	}
	return out
}

// Leads says whether another broker is to lead, going by the first replica.
func (m *Move) Leads() bool {
	return len(m.From) > 0 && len(m.To) > 0 && m.From[0] != m.To[0]
}

// Reassignments lists what is under way, in the whole cluster, by topic and partition.
func (c *Client) Reassignments(ctx context.Context) ([]Reassignment, error) {
	const what = "list reassignments"
	req := kmsg.NewPtrListPartitionReassignmentsRequest()
	req.TimeoutMillis = int32(c.opts.Timeout.Milliseconds())
	resp, err := request[*kmsg.ListPartitionReassignmentsResponse](ctx, c, what, req)
	if err != nil {
		return nil, err
	}
	if err := codeError(what, resp.ErrorCode, resp.ErrorMessage); err != nil {
		return nil, err
	}
	out := []Reassignment{}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			out = append(out, Reassignment{t.Topic, p.Partition, p.Replicas, p.AddingReplicas, p.RemovingReplicas})
		}
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Topic < out[j].Topic || out[i].Topic == out[j].Topic && out[i].Partition < out[j].Partition
	})
	return out, nil
}

// Reassign starts moves, or (To nil) cancels what is under way for their partitions. It returns when the
// controller has taken all of them, not when data has moved. What was refused is in the error, one line.
func (c *Client) Reassign(ctx context.Context, moves []Move) error {
	if len(moves) == 0 {
		return nil
	}
	refused, err := c.reassign(ctx, moves)
	if err != nil {
		return err
	}
	var bad []error
	for _, m := range moves {
		bad = append(bad, refused[partition{m.Topic, m.Partition}])
	}
	return first(bad)
}

// partition names one.
type partition struct {
	topic  string
	number int32
}

// reassign asks for moves, and says which partitions were refused and why.
func (c *Client) reassign(ctx context.Context, moves []Move) (map[partition]error, error) {
	what := fmt.Sprintf("reassign %s-%d", moves[0].Topic, moves[0].Partition)
	if len(moves) > 1 {
		what = fmt.Sprintf("reassign %d partitions", len(moves))
	}
	req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	req.TimeoutMillis = int32(c.opts.Timeout.Milliseconds())
	at := map[string]int{}
	for _, m := range moves {
		i, ok := at[m.Topic]
		if !ok {
			i = len(req.Topics)
			at[m.Topic] = i
			t := kmsg.NewAlterPartitionAssignmentsRequestTopic()
			t.Topic = m.Topic
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		p.Partition, p.Replicas = m.Partition, m.To
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
	resp, err := request[*kmsg.AlterPartitionAssignmentsResponse](ctx, c, what, req)
	if err != nil {
		return nil, err
	}
	if err := codeError(what, resp.ErrorCode, resp.ErrorMessage); err != nil {
		return nil, err
	}
	refused := map[partition]error{}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := codeError(fmt.Sprintf("reassign %s-%d", t.Topic, p.Partition), p.ErrorCode, p.ErrorMessage); err != nil {
				refused[partition{t.Topic, p.Partition}] = err
			}
		}
	}
	return refused, nil
}

// first is the first of many errors, with how many more there are: a thousand partitions may be refused
// for one reason.
func first(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return fmt.Errorf("%w, and %d more were refused", errs[0], len(errs)-1)
}

// Election is what came of electing a leader for one partition.
type Election struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Result    string `json:"result"` // elected, not needed, or Kafka's name of the error
	Message   string `json:"message,omitempty"`
}

// ElectLeaders makes the first replica of each partition its leader where it is in sync, or, unclean, gives
// partitions without leader one that may lack acknowledged records. ps nil: all partitions.
func (c *Client) ElectLeaders(ctx context.Context, unclean bool, ps map[string][]int32) ([]Election, error) {
	const what = "elect leaders"
	out := []Election{}
	err := c.with(ctx, what, func(ctx context.Context, adm *kadm.Client) error {
		how := kadm.ElectPreferredReplica
		if unclean {
			how = kadm.ElectLiveReplica
		}
		var set kadm.TopicsSet
		for t, list := range ps {
			set.Add(t, list...)
		}
		rs, err := adm.ElectLeaders(ctx, how, set)
		if err != nil {
			return err
		}
		for _, t := range rs {
			for _, r := range t {
				e := Election{Topic: r.Topic, Partition: r.Partition, Result: "elected", Message: r.ErrMessage}
				switch {
				case errors.Is(r.Err, kerr.ElectionNotNeeded):
					e.Result, e.Message = "not needed", ""
				case r.Err != nil:
					e.Result = errorName(r.Err)
				}
				out = append(out, e)
			}
		}
		return nil
	})
	sort.Slice(out, func(i, j int) bool {
		return out[i].Topic < out[j].Topic || out[i].Topic == out[j].Topic && out[i].Partition < out[j].Partition
	})
	return out, err
}
