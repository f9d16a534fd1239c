package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/server"
)

// CreateTopics (key 19), versions 2-7.
//
//	v4  -1 for partitions and factor takes the broker's defaults (KIP-464); taken for all versions
//	v5  the answer tells partitions, factor and configs (KIP-525)
//	v6  quotas (KIP-599)        v7  topic ids (KIP-516)
//
// The answer comes when this broker can serve the topics. REQUEST_TIMED_OUT means that they may yet
// appear. One request makes at most control.MaxPartitionsPerRequest partitions.
//
// A coordinator's topic that is asked for without any setting gets those that its coordinator needs, not the
// defaults of ordinary topics: so another broker's first use of it arrives here as an ordinary request, and
// nobody makes a __consumer_offsets that is not compacted by leaving the settings out.
func serveCreateTopics(c *Call) server.Reply {
	req := c.Request.(*kmsg.CreateTopicsRequest)
	wishes := make([]control.NewTopic, len(req.Topics))
	bad := make(map[string]*control.Error)
	for i := range req.Topics {
		w, err := newTopic(&req.Topics[i])
		if wishes[i] = w; err != nil {
			bad[w.Name] = err
		}
	}
	ctx, cancel := c.admin(req.TimeoutMillis)
	defer cancel()
	// A topic with an unreadable assignment must not be created, but its name still counts as taken
	// twice if it is: so it goes along only when it is the duplicate that is wrong.
	good := wishes[:0:0]
	for _, w := range wishes {
		if bad[w.Name] == nil {
			good = append(good, w)
		}
	}
	var results []control.TopicResult
	if len(good) > 0 {
		results = c.createTopics(ctx, good, req.ValidateOnly)
	}
	resp := kmsg.NewPtrCreateTopicsResponse()
	answered := make(map[string]bool)
	for _, w := range wishes {
		if err := bad[w.Name]; err != nil && !answered[w.Name] {
			answered[w.Name] = true
			resp.Topics = append(resp.Topics, c.createdTopic(control.TopicResult{Name: w.Name, Err: err}))
		}
	}
	for _, r := range results {
		if !answered[r.Name] { // a name that came twice gets one answer, as clients index answers by name
			answered[r.Name] = true
			resp.Topics = append(resp.Topics, c.createdTopic(r))
		}
	}
	return c.ready(resp)
}

// createTopics has the controller make topics, each with the settings it asks for.
func (c *Call) createTopics(ctx context.Context, wishes []control.NewTopic, validateOnly bool) []control.TopicResult {
	for i, w := range wishes {
		if w.Partitions == -1 && w.Factor == -1 && w.Assignment == nil && w.Configs == nil && control.IsInternal(w.Name) {
			wishes[i] = c.cluster().Automatic(w.Name)
		}
	}
	return c.Controller.CreateTopics(ctx, wishes, validateOnly)
}

func newTopic(t *kmsg.CreateTopicsRequestTopic) (control.NewTopic, *control.Error) {
	w := control.NewTopic{Name: t.Topic, Partitions: t.NumPartitions, Factor: t.ReplicationFactor}
	if len(t.ReplicaAssignment) > 0 {
		w.Assignment = make(map[int32][]int32, len(t.ReplicaAssignment))
		for _, a := range t.ReplicaAssignment {
			if _, twice := w.Assignment[a.Partition]; twice {
				return w, &control.Error{Code: kerr.InvalidReplicaAssignment, Message: "A partition appears more than once in the manual partition assignment."}
			}
			w.Assignment[a.Partition] = a.Replicas
		}
	}
	if len(t.Configs) > 0 {
		w.Configs = make(map[string]*string, len(t.Configs))
		for _, cf := range t.Configs {
			if _, twice := w.Configs[cf.Name]; twice {
				return w, &control.Error{Code: kerr.InvalidConfig, Message: "A config name appears more than once."}
			}
			w.Configs[cf.Name] = cf.Value
		}
	}
	return w, nil
}

func (c *Call) createdTopic(r control.TopicResult) kmsg.CreateTopicsResponseTopic {
	t := kmsg.NewCreateTopicsResponseTopic()
	t.Topic, t.TopicID = r.Name, r.ID
	t.NumPartitions, t.ReplicationFactor = -1, -1
	if t.ErrorCode, t.ErrorMessage = c.refusedAs(r.Err); r.Err != nil {
		return t
	}
	t.NumPartitions, t.ReplicationFactor = r.Partitions, r.Factor
	if c.Version() < 5 {
		return t
	}
	l := control.Layers(c.Image, c.Static, c.NodeID)
	l.Topic = r.Configs
	for _, e := range config.Describe(config.ResourceTopic, l) {
		tc := kmsg.NewCreateTopicsResponseTopicConfig()
		tc.Name, tc.Value, tc.ReadOnly, tc.Source, tc.IsSensitive = e.Name, e.Value, e.ReadOnly, int8(e.Source), e.Def.Sensitive()
		t.Configs = append(t.Configs, tc)
	}
	return t
}
