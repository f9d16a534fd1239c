package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
)

// AlterPartitionReassignments (key 45), versions 0-1 (KIP-455): other replicas for partitions. A null list of
// replicas cancels what is running.
//
//	v1  the client may forbid another replication factor (KIP-860); before, it is allowed
//
// The answer comes when the reassignment has begun, not when it is over: ListPartitionReassignments tells.
func serveAlterPartitionReassignments(c *Call) server.Reply {
	req := c.Request.(*kmsg.AlterPartitionAssignmentsRequest)
	resp := kmsg.NewPtrAlterPartitionAssignmentsResponse()
	resp.AllowReplicationFactorChange = req.AllowReplicationFactorChange
	var wishes []control.Reassignment
	for i := range req.Topics {
		for j := range req.Topics[i].Partitions {
			p := &req.Topics[i].Partitions[j]
			wishes = append(wishes, control.Reassignment{Topic: req.Topics[i].Topic, Partition: p.Partition, Target: p.Replicas})
		}
	}
	ctx, cancel := c.admin(req.TimeoutMillis)
	defer cancel()
	errs := c.Controller.AlterReassignments(ctx, wishes, req.Version < 1 || req.AllowReplicationFactorChange)
	if len(errs) > 0 && (is(errs[0], kerr.NotController) || is(errs[0], kerr.RequestTimedOut)) {
		// The controller did not come to any of it. Clients look for another controller only when the answer as a
		// whole says so.
		resp.ErrorCode, resp.ErrorMessage = c.refusedAs(errs[0])
		return c.ready(resp)
	}
	n := 0
	for i := range req.Topics {
		t := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		t.Topic = req.Topics[i].Topic
		for j := range req.Topics[i].Partitions {
			p := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			p.Partition = req.Topics[i].Partitions[j].Partition
			p.ErrorCode, p.ErrorMessage = c.refusedAs(errs[n])
			n++
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return c.ready(resp)
}

// ListPartitionReassignments (key 46), version 0 (KIP-455): what is running, of the named partitions or, with
// a null list, of all. What does not move or does not exist is left out.
func serveListPartitionReassignments(c *Call) server.Reply {
	req := c.Request.(*kmsg.ListPartitionReassignmentsRequest)
	resp := kmsg.NewPtrListPartitionReassignmentsResponse()
	var only []meta.TopicPartition
	if req.Topics != nil {
		only = []meta.TopicPartition{}
		for i := range req.Topics {
			for _, n := range req.Topics[i].Partitions {
				only = append(only, meta.TopicPartition{Topic: req.Topics[i].Topic, Partition: n})
			}
		}
	}
	ctx, cancel := c.admin(req.TimeoutMillis)
	defer cancel()
	moving, err := c.Controller.ListReassignments(ctx, only)
	if err != nil {
		msg := err.Error()
		resp.ErrorCode, resp.ErrorMessage = c.errorCode(err), &msg
		return c.ready(resp)
	}
	at := map[string]int{}
	for _, m := range moving {
		i, ok := at[m.Topic]
		if !ok {
			i = len(resp.Topics)
			at[m.Topic] = i
			t := kmsg.NewListPartitionReassignmentsResponseTopic()
			t.Topic = m.Topic
			resp.Topics = append(resp.Topics, t)
		}
		p := kmsg.NewListPartitionReassignmentsResponseTopicPartition()
		p.Partition, p.Replicas, p.AddingReplicas, p.RemovingReplicas = m.Partition, m.Replicas, m.Adding, m.Removing
		resp.Topics[i].Partitions = append(resp.Topics[i].Partitions, p)
	}
	return c.ready(resp)
}
