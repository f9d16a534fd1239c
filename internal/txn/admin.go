package txn

import (
	"regexp"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
)

// describe shows one id (DescribeTransactions, KIP-664).
func (m *Machine) describe(name string) *kmsg.DescribeTransactionsResponseTransactionState {
	r := kmsg.NewDescribeTransactionsResponseTransactionState()
	r.TransactionalID = name
	t := m.ids[name]
	if t == nil {
		r.ErrorCode, r.State = kerr.TransactionalIDNotFound.Code, Dead.String()
		r.ProducerID, r.ProducerEpoch, r.StartTimestamp = noID, noEpoch, -1
		return &r
	}
	r.State, r.TimeoutMillis, r.StartTimestamp = t.state.String(), t.timeoutMs, t.startMs
	r.ProducerID, r.ProducerEpoch = t.producer, t.epoch
	if t.state == Ongoing || t.state.prepared() {
		for i, p := range t.parts {
			if i == 0 || p.Topic != t.parts[i-1].Topic {
				r.Topics = append(r.Topics, kmsg.DescribeTransactionsResponseTransactionStateTopic{Topic: p.Topic})
			}
			x := &r.Topics[len(r.Topics)-1]
			x.Partitions = append(x.Partitions, p.Partition)
		}
	}
	return &r
}

// list shows the ids that match every filter (ListTransactions): states, producer ids, from version 1 on how long
// the transaction has been open, from version 2 on a pattern that the whole id matches. A pattern that does not
// compile matches nothing; the caller has refused it before.
func (m *Machine) list(req *kmsg.ListTransactionsRequest) []kmsg.ListTransactionsResponseTransactionState {
	var pattern *regexp.Regexp
	if p := req.TransactionalIDPattern; req.Version >= 2 && p != nil && *p != "" {
		var err error
		if pattern, err = regexp.Compile("^(?:" + *p + ")$"); err != nil {
			return nil
		}
	}
	now := m.now.UnixMilli()
	var out []kmsg.ListTransactionsResponseTransactionState
	for _, name := range det.SortedKeys(m.ids) {
		t := m.ids[name]
		switch {
		case len(req.StateFilters) > 0 && !slices.Contains(req.StateFilters, t.state.String()),
			len(req.ProducerIDFilters) > 0 && !slices.Contains(req.ProducerIDFilters, t.producer),
			req.Version >= 1 && req.DurationFilterMillis >= 0 && (t.startMs < 0 || now-t.startMs <= req.DurationFilterMillis),
			pattern != nil && !pattern.MatchString(name):
			continue
		}
		x := kmsg.NewListTransactionsResponseTransactionState()
		x.TransactionalID, x.ProducerID, x.TransactionState = name, t.producer, t.state.String()
		out = append(out, x)
	}
	return out
}
