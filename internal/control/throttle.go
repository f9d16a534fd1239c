package control

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
)

// ratesNote stands for the two rates in balancer.throttled; no topic has that name.
const ratesNote = "*"

// Throttle plans that moves are held to a rate, in bytes per second, by Kafka's own throttles (KIP-73): the replicas
// that are copied from and those that are copied to are listed at their topics, and the rates are set for all brokers.
// What an operator has throttled stays as it is. balancer.throttled notes in the same step what has been set here, so
// that whoever is controller then takes it away with Unthrottle.
func (c *Cluster) Throttle(moves []Reassignment, rate int64) (Plan, error) {
	if rate <= 0 {
		return Plan{}, nil
	}
	leaders, followers := map[string][]string{}, map[string][]string{}
	for _, mv := range moves {
		old := c.Image.Partition(mv.Topic, mv.Partition)
		if old == nil || subset(mv.Target, old.Replicas) {
			continue // nothing is copied
		}
		for _, id := range old.Replicas {
			leaders[mv.Topic] = append(leaders[mv.Topic], fmt.Sprintf("%d:%d", mv.Partition, id))
		}
		for _, id := range mv.Target {
			if !slices.Contains(old.Replicas, id) {
				followers[mv.Topic] = append(followers[mv.Topic], fmt.Sprintf("%d:%d", mv.Partition, id))
			}
		}
	}
	if len(leaders) == 0 {
		return Plan{}, nil
	}
	all := meta.Resource{Type: meta.ResourceBroker}
	values := cloned(c.Image.Config(all))
	note := noted(values)
	var cs []meta.Change
	for _, name := range slices.Sorted(maps.Keys(leaders)) {
		r := meta.Resource{Type: meta.ResourceTopic, Name: name}
		have := cloned(c.Image.Config(r))
		if have[leaderReplicas] != "" || have[followerReplicas] != "" {
			continue // somebody has his own, or the moves before are not over
		}
		have[leaderReplicas], have[followerReplicas] = strings.Join(leaders[name], ","), strings.Join(followers[name], ",")
		ch, err := meta.PutConfig(r, have)
		if err != nil {
			return Plan{}, err
		}
		cs = append(cs, ch)
		note = append(note, name)
	}
	if values[leaderRate] == "" && values[followerRate] == "" {
		values[leaderRate], values[followerRate] = fmt.Sprint(rate), fmt.Sprint(rate)
		note = append(note, ratesNote)
	}
	values[config.BalancerThrottled.Name] = strings.Join(note, ",")
	ch, err := meta.PutConfig(all, values)
	if err != nil {
		return Plan{}, err
	}
	var p packer
	p.whole(append(cs, ch))
	return p.plan, nil
}

// Unthrottle plans that the throttles go that Throttle has set; empty where there are none.
func (c *Cluster) Unthrottle() (Plan, error) {
	all := meta.Resource{Type: meta.ResourceBroker}
	values := cloned(c.Image.Config(all))
	note := noted(values)
	if len(note) == 0 {
		return Plan{}, nil
	}
	var cs []meta.Change
	for _, name := range note {
		if name == ratesNote {
			delete(values, leaderRate)
			delete(values, followerRate)
			continue
		}
		r := meta.Resource{Type: meta.ResourceTopic, Name: name}
		have := cloned(c.Image.Config(r))
		if have[leaderReplicas] == "" && have[followerReplicas] == "" {
			continue // the topic has gone, or somebody was quicker
		}
		delete(have, leaderReplicas)
		delete(have, followerReplicas)
		ch, err := meta.PutConfig(r, have)
		if err != nil {
			return Plan{}, err
		}
		cs = append(cs, ch)
	}
	delete(values, config.BalancerThrottled.Name)
	ch, err := meta.PutConfig(all, values)
	if err != nil {
		return Plan{}, err
	}
	var p packer
	p.split(cs)
	p.whole([]meta.Change{ch}) // last: a plan that is broken off is made again
	return p.plan, nil
}

var (
	leaderReplicas   = config.LeaderReplicationThrottledReplicas.Name
	followerReplicas = config.FollowerReplicationThrottledReplicas.Name
	leaderRate       = config.LeaderReplicationThrottledRate.Name
	followerRate     = config.FollowerReplicationThrottledRate.Name
)

// Throttled is what Throttle has set and Unthrottle would take away: topics, and * for the rates.
func (c *Cluster) Throttled() []string {
	return noted(c.Image.Config(meta.Resource{Type: meta.ResourceBroker}))
}

// noted is the list of balancer.throttled.
func noted(values map[string]string) []string {
	if v := values[config.BalancerThrottled.Name]; v != "" {
		return strings.Split(v, ",")
	}
	return nil
}

func cloned(m map[string]string) map[string]string {
	out := make(map[string]string, len(m)+2)
	maps.Copy(out, m)
	return out
}
