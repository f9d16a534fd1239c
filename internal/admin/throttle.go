package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The keys of KIP-73, as kafka-reassign-partitions sets them.
const (
	leaderRate       = "leader.replication.throttled.rate"
	followerRate     = "follower.replication.throttled.rate"
	leaderReplicas   = "leader.replication.throttled.replicas"
	followerReplicas = "follower.replication.throttled.replicas"
)

// throttle lets the brokers of some moves send and take at most rate bytes per second for them: on the
// sending side all replicas a partition has now, since any of them may come to lead, on the taking side
// those that are new.
func (c *Client) throttle(ctx context.Context, moves []Move, rate int64) error {
	brokers := map[int32]bool{}
	leaders, followers := map[string][]string{}, map[string][]string{}
	for i := range moves {
		m := &moves[i]
		if len(m.Copies()) == 0 {
			continue
		}
		for _, id := range m.From {
			brokers[id] = true
			leaders[m.Topic] = append(leaders[m.Topic], fmt.Sprintf("%d:%d", m.Partition, id))
		}
		for _, id := range m.Copies() {
			brokers[id] = true
			followers[m.Topic] = append(followers[m.Topic], fmt.Sprintf("%d:%d", m.Partition, id))
		}
	}
	// The rate comes before the list of replicas: the other way round a move would run unthrottled in
	// between, and that is when an operator looks.
	if err := c.setRates(ctx, sortedIDs(brokers), rate); err != nil {
		return fmt.Errorf("throttle: %w", err)
	}
	for _, t := range sortedKeys(followers) {
		set := map[string]string{leaderReplicas: strings.Join(leaders[t], ","), followerReplicas: strings.Join(followers[t], ",")}
		if err := c.AlterConfigs(ctx, ResourceTopic, t, set, nil); err != nil {
			return fmt.Errorf("throttle: %w", err)
		}
	}
	return nil
}

// Rethrottle gives moves that are under way another rate, 0 for none: whoever goes on with them may be in
// more of a hurry than who began.
func (c *Client) Rethrottle(ctx context.Context, rate int64) error {
	topics, err := c.Throttled(ctx)
	if err != nil || len(topics) == 0 {
		return err
	}
	if rate == 0 {
		return c.Unthrottle(ctx, topics)
	}
	ids, err := c.allIDs(ctx)
	if err == nil {
		err = c.setRates(ctx, ids, rate)
	}
	if err != nil {
		return fmt.Errorf("throttle: %w", err)
	}
	return nil
}

// setRates sets the rate of brokers, or (0) takes it away. All go in one request to one broker, which hands
// it to the controller: sent to each broker itself, as clients do, it would fail for one that is down, and a
// rate that was set before it died could not be taken away.
func (c *Client) setRates(ctx context.Context, ids []int32, rate int64) error {
	value := strconv.FormatInt(rate, 10)
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	for _, id := range ids {
		r := kmsg.NewIncrementalAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = ResourceBroker, strconv.Itoa(int(id))
		for _, key := range []string{followerRate, leaderRate} {
			x := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			if x.Name, x.Op = key, kmsg.IncrementalAlterConfigOpDelete; rate > 0 {
				x.Op, x.Value = kmsg.IncrementalAlterConfigOpSet, &value
			}
			r.Configs = append(r.Configs, x)
		}
		req.Resources = append(req.Resources, r)
	}
	return c.with(ctx, "configure brokers", func(ctx context.Context, adm *kadm.Client) error {
		m, err := adm.BrokerMetadata(ctx)
		if err != nil {
			return err
		}
		resp, err := req.RequestWith(ctx, c.mu.kgo.Broker(int(m.Controller)))
		if err != nil {
			return err
		}
		var bad []error
		for _, r := range resp.Resources {
			bad = append(bad, codeError("configure "+resourceName(r.ResourceType, r.ResourceName), r.ErrorCode, r.ErrorMessage))
		}
		return first(bad)
	})
}

func (c *Client) allIDs(ctx context.Context) ([]int32, error) {
	var s Status
	err := c.brokers(ctx, &s)
	var ids []int32
	for i := range s.Brokers {
		ids = append(ids, s.Brokers[i].ID)
	}
	return ids, err
}

// Unthrottle takes throttles of moves off all brokers and off the named topics. A topic that is gone has
// none.
func (c *Client) Unthrottle(ctx context.Context, topics []string) error {
	ids, err := c.allIDs(ctx)
	if err != nil {
		return err
	}
	var bad []error
	for _, t := range topics {
		err := c.AlterConfigs(ctx, ResourceTopic, t, nil, []string{leaderReplicas, followerReplicas})
		if !errors.Is(err, kerr.UnknownTopicOrPartition) {
			bad = append(bad, err)
		}
	}
	bad = append(bad, c.setRates(ctx, ids, 0))
	if err := first(bad); err != nil {
		return fmt.Errorf("take throttles away: %w", err)
	}
	return nil
}

// Throttled lists the topics that have throttled replicas set.
func (c *Client) Throttled(ctx context.Context) ([]string, error) {
	ts, err := c.Topics(ctx, true)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, t := range ts {
		names = append(names, t.Name)
	}
	out := []string{}
	set, err := c.topicValues(ctx, names, leaderReplicas, followerReplicas)
	if err != nil {
		return nil, err
	}
	return append(out, sortedKeys(set)...), nil
}

func sortedIDs(m map[int32]bool) []int32 {
	var out []int32
	for id := range m {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
