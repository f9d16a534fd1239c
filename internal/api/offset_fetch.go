package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/shard"
)

// OffsetFetch (key 9), versions 1-10. Only committed offsets are shown.
//
//	v2  null topics mean all; one code for the whole answer   v5  leader epochs (KIP-320)
//	v7  require stable (KIP-447)   v8  several groups (KIP-709)
//	v9  member id and epoch, which only KIP-848 groups check   v10 topics by id (KIP-848)
//
// A partition without an offset has -1 and no error, whether or not the topic exists.
func serveOffsetFetch(c *Call) server.Reply {
	req := c.Request.(*kmsg.OffsetFetchRequest)
	groups := req.Groups
	if req.Version < 8 {
		groups = []kmsg.OffsetFetchRequestGroup{oneGroup(req)}
	}
	asks := make([]shard.Request, len(groups))
	unknown := make([][]kmsg.OffsetFetchResponseGroupTopic, len(groups))
	for i := range groups {
		ask := groups[i]
		ask.Topics, unknown[i] = c.resolve(groups[i].Topics, req.Version)
		asks[i] = shard.Request{Group: ask.Group, Event: group.FetchOffsets{Group: ask, RequireStable: req.RequireStable}}
	}
	call := c.Groups.Submit(asks...)
	return c.later(call.Ready(), func() kmsg.Response {
		resp := kmsg.NewPtrOffsetFetchResponse()
		for i, r := range call.Results() {
			g, ok := r.Value.(*kmsg.OffsetFetchResponseGroup)
			if err := asRefusal(r.Err); err != nil || !ok {
				none := kmsg.NewOffsetFetchResponseGroup()
				none.Group, none.ErrorCode = groups[i].Group, c.failed(codeOr(err))
				g = &none
			} else if req.Version >= 10 {
				c.withIDs(g)
				g.Topics = append(g.Topics, unknown[i]...)
			}
			resp.Groups = append(resp.Groups, *g)
		}
		if req.Version < 8 {
			return flatten(req, resp)
		}
		return resp
	})
}

// oneGroup is a request before version 8 in the shape of version 8.
func oneGroup(req *kmsg.OffsetFetchRequest) kmsg.OffsetFetchRequestGroup {
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = req.Group
	if req.Topics == nil && req.Version >= 2 {
		return g
	}
	g.Topics = make([]kmsg.OffsetFetchRequestGroupTopic, len(req.Topics))
	for i := range req.Topics {
		g.Topics[i] = kmsg.OffsetFetchRequestGroupTopic{Topic: req.Topics[i].Topic, Partitions: req.Topics[i].Partitions}
	}
	return g
}

// resolve adds the ids to names and, from version 10, the names to ids; ids of no topic are answered apart.
func (c *Call) resolve(topics []kmsg.OffsetFetchRequestGroupTopic, version int16) (known []kmsg.OffsetFetchRequestGroupTopic, unknown []kmsg.OffsetFetchResponseGroupTopic) {
	if topics == nil {
		return nil, nil
	}
	known = make([]kmsg.OffsetFetchRequestGroupTopic, 0, len(topics))
	for _, t := range topics {
		mt := c.Image.Topic(t.Topic)
		if version >= 10 {
			mt = c.Image.TopicByID(t.TopicID)
		}
		if mt != nil {
			t.Topic, t.TopicID = mt.Name, mt.ID
		} else if version >= 10 {
			bad := kmsg.NewOffsetFetchResponseGroupTopic()
			bad.TopicID = t.TopicID
			for _, p := range t.Partitions {
				bp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
				bp.Partition, bp.Offset, bp.LeaderEpoch, bp.Metadata = p, -1, -1, kmsg.StringPtr("")
				bp.ErrorCode = c.failed(kerr.UnknownTopicID.Code)
				bad.Partitions = append(bad.Partitions, bp)
			}
			unknown = append(unknown, bad)
			continue
		}
		known = append(known, t)
	}
	return known, unknown
}

// withIDs names the topics of an answer by id; one that no longer exists cannot be named and is left out.
func (c *Call) withIDs(g *kmsg.OffsetFetchResponseGroup) {
	kept := g.Topics[:0]
	for _, t := range g.Topics {
		if mt := c.Image.Topic(t.Topic); mt != nil && (t.TopicID == mt.ID || t.TopicID == [16]byte{}) {
			t.TopicID = mt.ID
			kept = append(kept, t)
		}
	}
	g.Topics = kept
}

// flatten gives the answer of the one group the shape of versions before 8. Version 1 has no code for the whole
// answer: every partition carries it.
func flatten(req *kmsg.OffsetFetchRequest, resp *kmsg.OffsetFetchResponse) *kmsg.OffsetFetchResponse {
	g := resp.Groups[0]
	resp.Groups = nil
	resp.ErrorCode = g.ErrorCode
	if g.ErrorCode != 0 && req.Version < 2 {
		for i := range req.Topics {
			t := kmsg.NewOffsetFetchResponseTopic()
			t.Topic = req.Topics[i].Topic
			for _, n := range req.Topics[i].Partitions {
				p := kmsg.NewOffsetFetchResponseTopicPartition()
				p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode = n, -1, -1, kmsg.StringPtr(""), g.ErrorCode
				t.Partitions = append(t.Partitions, p)
			}
			resp.Topics = append(resp.Topics, t)
		}
		return resp
	}
	for _, gt := range g.Topics {
		t := kmsg.NewOffsetFetchResponseTopic()
		t.Topic = gt.Topic
		for _, gp := range gt.Partitions {
			p := kmsg.NewOffsetFetchResponseTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode = gp.Partition, gp.Offset, gp.LeaderEpoch, gp.Metadata, gp.ErrorCode
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}
