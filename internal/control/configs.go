package control

import (
	"maps"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
)

// Op is an operation of IncrementalAlterConfigs, with Kafka's codes (KIP-339).
type Op int8

// The operations.
const (
	OpSet      Op = 0
	OpDelete   Op = 1
	OpAppend   Op = 2
	OpSubtract Op = 3
)

// ConfigOp is one operation on one key.
type ConfigOp struct {
	Name  string
	Op    Op
	Value *string // nil only for OpDelete
}

// ConfigChange is a wish to change the dynamic values of one resource.
type ConfigChange struct {
	Resource meta.Resource
	Replace  bool // the old AlterConfigs: what is not named is reset
	Ops      []ConfigOp
}

// maxConfigName bounds the names of groups and subscriptions that are kept in the store.
const maxConfigName = 4096

// AlterConfigs plans changes of configuration; one error, or nil, for each wish. A wish is granted
// whole or not at all.
func (c *Cluster) AlterConfigs(wishes []ConfigChange, validateOnly bool) (Plan, []*Error) {
	errs := make([]*Error, len(wishes))
	seen := make(map[meta.Resource]int, len(wishes))
	for _, w := range wishes {
		seen[w.Resource]++
	}
	var p packer
	for i, w := range wishes {
		if seen[w.Resource] > 1 {
			errs[i] = refuse(kerr.InvalidRequest, "Each resource must appear at most once.")
			continue
		}
		values, err := c.altered(w)
		if err != nil {
			errs[i] = err
			continue
		}
		if errs[i] = c.checkMinISR(w.Resource, values); errs[i] != nil {
			continue
		}
		if validateOnly || maps.Equal(values, c.Image.Config(w.Resource)) {
			continue
		}
		ch, cerr := meta.PutConfig(w.Resource, values)
		if cerr != nil {
			errs[i] = as(cerr)
			continue
		}
		p.split(c.forgetELR(w.Resource, values))
		p.whole([]meta.Change{ch})
	}
	return p.plan, errs
}

// altered is the values a resource will have.
func (c *Cluster) altered(w ConfigChange) (map[string]string, *Error) {
	if err := c.CheckResource(w.Resource, true); err != nil {
		return nil, err
	}
	t := config.ResourceType(w.Resource.Type)
	values := map[string]string{}
	if !w.Replace {
		maps.Copy(values, c.Image.Config(w.Resource))
	}
	seen := make(map[string]bool, len(w.Ops))
	for _, op := range w.Ops {
		if seen[op.Name] {
			return nil, refuse(kerr.InvalidRequest, "Error due to duplicate config keys")
		}
		seen[op.Name] = true
		if err := c.alter(t, values, op, w.Resource); err != nil {
			return nil, err
		}
	}
	l := c.Layers()
	if t == config.ResourceBroker {
		return values, as(config.ValidateBroker(w.Resource.Name, values, l))
	}
	return values, as(config.ValidateSet(t, values, l))
}

func (c *Cluster) alter(t config.ResourceType, values map[string]string, op ConfigOp, r meta.Resource) *Error {
	if op.Op == OpDelete {
		delete(values, op.Name)
		return nil
	}
	if op.Value == nil {
		return refuse(kerr.InvalidRequest, "Null value not supported for : %s", clip(op.Name))
	}
	switch op.Op {
	case OpSet:
		values[op.Name] = *op.Value
		return nil
	case OpAppend, OpSubtract:
		d := config.Find(t, op.Name)
		if d == nil || d.Type != config.List {
			return refuse(kerr.InvalidConfig, "Can't %s to key %s because its type is not LIST.", opName(op.Op), clip(op.Name))
		}
		cur, set := values[op.Name]
		if !set {
			// The list that is in force now, from the broker's own defaults, is what grows.
			if e, ok := config.DescribeKey(t, op.Name, c.layersOf(r)); ok && e.Value != nil {
				cur, set = *e.Value, true
			}
		}
		if op.Op == OpAppend {
			values[op.Name] = d.AppendTo(cur, set, *op.Value)
		} else {
			values[op.Name] = d.SubtractFrom(cur, set, *op.Value)
		}
		return nil
	}
	return refuse(kerr.InvalidRequest, "Unknown operation type %d", op.Op)
}

func opName(o Op) string {
	if o == OpAppend {
		return "APPEND"
	}
	return "SUBTRACT"
}

// layersOf is the configuration in force for a resource.
func (c *Cluster) layersOf(r meta.Resource) config.Layers {
	return ResourceLayers(c.Image, c.Static, c.NodeID, r)
}

// ResourceLayers is the configuration in force for one resource as broker node sees it.
func ResourceLayers(im *meta.Image, s *config.Static, node int32, r meta.Resource) config.Layers {
	l := Layers(im, s, node)
	switch r.Type {
	case meta.ResourceTopic:
		l.Topic = im.Config(r)
	case meta.ResourceGroup:
		l.Group = im.Config(r)
	case meta.ResourceClientMetrics:
		l.ClientMetrics = im.Config(r)
	case meta.ResourceBroker:
		if r.Name == "" {
			l.DynamicBroker = nil
		}
	}
	return l
}

// CheckResource says whether a resource can be described or (alter) changed.
func (c *Cluster) CheckResource(r meta.Resource, alter bool) *Error {
	if len(r.Name) > maxConfigName {
		return refuse(kerr.InvalidRequest, "The resource name is longer than %d bytes.", maxConfigName)
	}
	switch r.Type {
	case meta.ResourceTopic:
		if err := CheckTopicName(r.Name); err != nil {
			return as(err)
		}
		if c.Image.Topic(r.Name) == nil {
			return refuse(kerr.UnknownTopicOrPartition, "The topic '%s' does not exist.", r.Name)
		}
	case meta.ResourceBroker, meta.ResourceBrokerLogger:
		return c.checkBroker(r, alter)
	case meta.ResourceGroup:
		if r.Name == "" {
			return refuse(kerr.InvalidRequest, "Default group resources are not allowed.")
		}
	case meta.ResourceClientMetrics:
		if r.Name == "" {
			return refuse(kerr.InvalidRequest, "Default client metrics resources are not allowed.")
		}
	default:
		return refuse(kerr.InvalidRequest, "Unexpected resource type %d.", r.Type)
	}
	return nil
}

func (c *Cluster) checkBroker(r meta.Resource, alter bool) *Error {
	if r.Name == "" && r.Type == meta.ResourceBroker {
		return nil
	}
	id, err := strconv.ParseInt(r.Name, 10, 32)
	if err != nil || strconv.FormatInt(id, 10) != r.Name {
		return refuse(kerr.InvalidRequest, "Broker id must be an integer, but it is: %s", clip(r.Name))
	}
	if c.Image.Broker(int32(id)) == nil {
		return refuse(kerr.InvalidRequest, "Broker %d is not registered.", id)
	}
	if r.Type == meta.ResourceBrokerLogger && alter {
		return refuse(kerr.InvalidRequest, "Log levels cannot be changed while the broker runs: start it with another logging.level.")
	}
	return nil
}
