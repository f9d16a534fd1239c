package controller

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
)

// CreateTopics makes topics and returns when the local image shows them; one result for each wish.
// When ctx ends first the results say REQUEST_TIMED_OUT: the topics may yet appear.
func (c *Controller) CreateTopics(ctx context.Context, wishes []control.NewTopic, validateOnly bool) []control.TopicResult {
	return c.topics(ctx, topicNames(wishes, func(w control.NewTopic) (string, meta.UUID) { return w.Name, meta.UUID{} }),
		func(cl *control.Cluster) (control.Plan, []control.TopicResult) {
			return cl.CreateTopics(wishes, validateOnly)
		})
}

// DeleteTopics deletes topics by name or id and returns when the local image has lost them.
func (c *Controller) DeleteTopics(ctx context.Context, wishes []control.GoneTopic) []control.TopicResult {
	return c.topics(ctx, topicNames(wishes, func(w control.GoneTopic) (string, meta.UUID) { return w.Name, w.ID }),
		func(cl *control.Cluster) (control.Plan, []control.TopicResult) { return cl.DeleteTopics(wishes) })
}

// CreatePartitions lets topics grow.
func (c *Controller) CreatePartitions(ctx context.Context, wishes []control.MorePartitions, validateOnly bool) []control.TopicResult {
	return c.topics(ctx, topicNames(wishes, func(w control.MorePartitions) (string, meta.UUID) { return w.Topic, meta.UUID{} }),
		func(cl *control.Cluster) (control.Plan, []control.TopicResult) {
			return cl.CreatePartitions(wishes, validateOnly)
		})
}

// AutoCreate makes the topics that do not exist yet with the broker's defaults; coordinators' own
// topics with the configuration that is theirs (control.IsInternal). A topic that exists already
// counts as made. The caller has looked at auto.create.topics.enable where it applies.
func (c *Controller) AutoCreate(ctx context.Context, names []string) []control.TopicResult {
	res := c.topics(ctx, topicNames(names, func(n string) (string, meta.UUID) { return n, meta.UUID{} }),
		func(cl *control.Cluster) (control.Plan, []control.TopicResult) {
			wishes := make([]control.NewTopic, len(names))
			for i, n := range names {
				wishes[i] = cl.Automatic(n)
			}
			return cl.CreateTopics(wishes, false)
		})
	im := c.Image()
	for i := range res {
		if t := im.Topic(res[i].Name); t != nil && res[i].Err != nil && errors.Is(res[i].Err.Code, kerr.TopicAlreadyExists) {
			res[i] = control.TopicResult{Name: t.Name, ID: t.ID, Partitions: int32(len(t.Partitions)), Factor: int16(len(t.Partitions[0].Replicas))}
		}
	}
	return res
}

func topicNames[T any](wishes []T, name func(T) (string, meta.UUID)) []control.TopicResult {
	out := make([]control.TopicResult, len(wishes))
	for i, w := range wishes {
		out[i].Name, out[i].ID = name(w)
	}
	return out
}

// topics runs one operation on topics; failed is the answer when it does not come to the wishes, or
// when it is not known to have happened.
func (c *Controller) topics(ctx context.Context, failed []control.TopicResult, plan func(*control.Cluster) (control.Plan, []control.TopicResult)) []control.TopicResult {
	var res []control.TopicResult
	_, err := c.do(ctx, func(cl *control.Cluster) (control.Plan, error) {
		p, r := plan(cl)
		res = r
		return p, nil
	})
	if err == nil {
		return res
	}
	// res belongs to the lead goroutine unless do has seen it finish, so it is left alone.
	e := wireError(err)
	for i := range failed {
		failed[i].Err = e
	}
	return failed
}

// AlterConfigs changes dynamic values; one error, or nil, for each wish.
func (c *Controller) AlterConfigs(ctx context.Context, wishes []control.ConfigChange, validateOnly bool) []*control.Error {
	var res []*control.Error
	_, err := c.do(ctx, func(cl *control.Cluster) (control.Plan, error) {
		p, r := cl.AlterConfigs(wishes, validateOnly)
		res = r
		return p, nil
	})
	if err == nil {
		return res
	}
	return all(len(wishes), wireError(err))
}

// RegisterBroker registers a new incarnation of this broker, fenced and leading nothing. The epoch is its proof of
// being the newest.
func (c *Controller) RegisterBroker(ctx context.Context, r control.Registration) (epoch int64, err error) {
	return c.register(ctx, r, true)
}

// register registers a broker. One that lives keeps its id. own: the wish is of this very process, which holds the
// lock on the data directories, so a former incarnation has ended however alive its record looks; that is used where
// this broker is the only one. Where there are others the record's session runs out first: after all have died, those
// that do not come back and those that do must be fenced together (control.FenceAll).
func (c *Controller) register(ctx context.Context, r control.Registration, own bool) (epoch int64, err error) {
	rev, err := c.do(ctx, func(cl *control.Cluster) (control.Plan, error) {
		if e := c.pulses.check(cl.Image, r); e != nil && !(own && r.ID == c.o.NodeID && len(cl.Image.Brokers()) == 1) {
			return control.Plan{}, e
		}
		return cl.Register(r)
	})
	if err != nil {
		return 0, wireError(err)
	}
	return int64(rev), nil
}

// UnfenceBroker lets a registered broker take part: clients see it, and it is elected where it can
// be. Call it when the broker has caught up with its own registration and can serve. It is for a broker that runs in
// this process and sends no heartbeats: it counts as alive from then on.
func (c *Controller) UnfenceBroker(ctx context.Context, id int32, epoch int64) error {
	c.pulses.keep(id, epoch)
	_, err := c.do(ctx, func(cl *control.Cluster) (control.Plan, error) { return cl.Unfence(id, epoch) })
	return asError(err)
}

// DrainBroker begins a controlled shutdown.
func (c *Controller) DrainBroker(ctx context.Context, id int32, epoch int64) error {
	_, err := c.do(ctx, func(cl *control.Cluster) (control.Plan, error) { return cl.Drain(id, epoch) })
	return asError(err)
}

// FenceBroker says that a broker is dead.
func (c *Controller) FenceBroker(ctx context.Context, id int32, epoch int64) error {
	_, err := c.do(ctx, func(cl *control.Cluster) (control.Plan, error) { return cl.Fence(id, epoch) })
	return asError(err)
}

// AllocateProducerIDs grants this broker the ids first to first+n-1.
func (c *Controller) AllocateProducerIDs(ctx context.Context) (first int64, n int32, err error) {
	b := c.Image().Broker(c.o.NodeID)
	if b == nil {
		return 0, 0, &control.Error{Code: kerr.BrokerIDNotRegistered, Message: "this broker is not registered yet"}
	}
	if first, n, err = c.grantProducerIDs(ctx, b.ID, b.Epoch); err != nil {
		return 0, 0, wireError(err)
	}
	return first, n, nil
}

func (c *Controller) grantProducerIDs(ctx context.Context, id int32, epoch int64) (first int64, n int32, err error) {
	var got int64
	_, err = c.do(ctx, func(cl *control.Cluster) (control.Plan, error) {
		p, first, err := cl.AllocateProducerIDs(id, epoch)
		got = first
		return p, err
	})
	if err != nil {
		return 0, 0, err
	}
	return got, control.ProducerIDBlock, nil
}

// asError keeps a nil *control.Error from becoming an error that is not nil.
func asError(err error) error {
	if err == nil {
		return nil
	}
	return wireError(err)
}

// AlterReassignments begins, replaces and cancels reassignments (KIP-455); one error, or nil, for each wish.
// otherFactor allows a wish to change the replication factor (KIP-860).
func (c *Controller) AlterReassignments(ctx context.Context, wishes []control.Reassignment, otherFactor bool) []*control.Error {
	var res []*control.Error
	_, err := c.do(ctx, func(cl *control.Cluster) (control.Plan, error) {
		p, r := cl.Reassign(wishes, otherFactor)
		res = r
		return p, nil
	})
	if err == nil {
		return res
	}
	return all(len(wishes), wireError(err))
}

// all is the same refusal for n wishes.
func all(n int, e *control.Error) []*control.Error {
	out := make([]*control.Error, n)
	for i := range out {
		out[i] = e
	}
	return out
}

// ListReassignments lists running reassignments, of the given partitions or (nil) of all.
func (c *Controller) ListReassignments(ctx context.Context, only []meta.TopicPartition) ([]control.Moving, error) {
	var res []control.Moving
	_, err := c.do(ctx, func(cl *control.Cluster) (control.Plan, error) {
		res = cl.Reassigning(only)
		return control.Plan{}, nil
	})
	if err != nil {
		return nil, wireError(err)
	}
	return res, nil
}

// ElectLeaders elects by request (KIP-460); only nil means all partitions, and then those that need no election are
// left out of the answer. The error is about the request as a whole.
func (c *Controller) ElectLeaders(ctx context.Context, typ control.ElectionType, only []meta.TopicPartition) ([]control.Election, error) {
	var res []control.Election
	_, err := c.do(ctx, func(cl *control.Cluster) (control.Plan, error) {
		p, r, err := cl.ElectLeaders(typ, only)
		res = r
		return p, err
	})
	if err != nil {
		return nil, wireError(err)
	}
	return res, nil
}

// UpdateFeatures finalizes other levels of features, all or none; one error, or nil, for each wish.
func (c *Controller) UpdateFeatures(ctx context.Context, wishes []control.FeatureUpdate, validateOnly bool) []*control.Error {
	var res []*control.Error
	_, err := c.do(ctx, func(cl *control.Cluster) (control.Plan, error) {
		p, r := cl.UpdateFeatures(wishes, validateOnly)
		res = r
		return p, nil
	})
	if err == nil {
		return res
	}
	return all(len(wishes), wireError(err))
}

// UnregisterBroker forgets a broker; BROKER_ID_NOT_REGISTERED when there is none of that id. A broker that still runs
// registers again.
func (c *Controller) UnregisterBroker(ctx context.Context, id int32) error {
	_, err := c.do(ctx, func(cl *control.Cluster) (control.Plan, error) { return cl.Unregister(id) })
	return asError(err)
}

// Balance says what the balancer would move; with execute it begins to, apart from what is refused. Brokers that are
// being emptied (control.Cluster.Leaving) are added to b.Leaving.
func (c *Controller) Balance(ctx context.Context, b control.Balancing, execute bool) ([]control.Relocation, error) {
	if b.Bytes == nil {
		b.Bytes = c.o.Bytes
	}
	var res []control.Relocation
	_, err := c.do(ctx, func(cl *control.Cluster) (control.Plan, error) {
		wish := b
		wish.Leaving = append(cl.Leaving(), b.Leaving...)
		res = cl.Balance(wish)
		if !execute {
			return control.Plan{}, nil
		}
		p, _ := cl.Reassign(cl.Wishes(res, len(res)), true)
		return p, nil
	})
	if err != nil {
		return nil, wireError(err)
	}
	return res, nil
}
