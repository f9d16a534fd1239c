package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/shard"
)

// TxnOffsetCommit (key 28), versions 0-5: offsets that count once the transaction commits.
//
//	v2  leader epochs   v3  member, generation, static id (KIP-447)   v4  TRANSACTION_ABORTABLE
//	v5  the group's partition joins the transaction by this request (KIP-890)
func serveTxnOffsetCommit(c *Call) server.Reply {
	req := c.Request.(*kmsg.TxnOffsetCommitRequest)
	resp := kmsg.NewPtrTxnOffsetCommitResponse()
	ask := kmsg.NewPtrOffsetCommitRequest()
	ask.Version = 8 // the newest without rules of its own
	ask.Group, ask.Generation, ask.MemberID, ask.InstanceID = req.Group, -1, "", nil
	if req.Version >= 3 {
		ask.Generation, ask.MemberID, ask.InstanceID = req.Generation, req.MemberID, req.InstanceID
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		rt := kmsg.NewTxnOffsetCommitResponseTopic()
		rt.Topic = t.Topic
		mt := c.Image.Topic(t.Topic)
		at := kmsg.NewOffsetCommitRequestTopic()
		for j := range t.Partitions {
			p := &t.Partitions[j]
			rp := kmsg.NewTxnOffsetCommitResponseTopicPartition()
			rp.Partition = p.Partition
			if mt == nil || p.Partition < 0 || int(p.Partition) >= len(mt.Partitions) {
				rp.ErrorCode = c.failed(kerr.UnknownTopicOrPartition.Code)
			} else {
				x := kmsg.NewOffsetCommitRequestTopicPartition()
				x.Partition, x.Offset, x.LeaderEpoch, x.Metadata = p.Partition, p.Offset, -1, p.Metadata
				if req.Version >= 2 {
					x.LeaderEpoch = p.LeaderEpoch
				}
				at.Partitions = append(at.Partitions, x)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
		if len(at.Partitions) > 0 {
			at.Topic, at.TopicID = mt.Name, mt.ID
			ask.Topics = append(ask.Topics, at)
		}
	}
	if len(ask.Topics) == 0 {
		return c.ready(resp)
	}
	return c.aside(func(ctx context.Context) server.Reply {
		answer, err := c.commitInTxn(ctx, req, ask)
		if err == kerr.CoordinatorLoadInProgress && req.Version < 2 {
			err = kerr.CoordinatorNotAvailable // producers of then do not know the other one
		}
		c.mergeTxnCommit(resp, answer, err)
		return c.ready(resp)
	})
}

// commitInTxn verifies the transaction, hands the offsets to the group's coordinator and waits.
func (c *Call) commitInTxn(ctx context.Context, req *kmsg.TxnOffsetCommitRequest, ask *kmsg.OffsetCommitRequest) (*kmsg.OffsetCommitResponse, *kerr.Error) {
	tp, refused := c.offsetsPartition(req.Group)
	if refused != nil {
		return nil, refused
	}
	p, err := c.Partitions.Get(tp.Topic, tp.Partition)
	if err != nil {
		return nil, kerr.NotCoordinator
	}
	admit := &shard.Admission{ProducerID: req.ProducerID, Epoch: req.ProducerEpoch}
	if g, open := p.Verify(req.ProducerID, req.ProducerEpoch, partition.NoSequence); !open {
		code := c.inTransaction(ctx, req.TransactionalID, req.ProducerID, req.ProducerEpoch, []meta.TopicPartition{tp}, req.Version >= 5)[0]
		if code != 0 {
			return nil, commitRefusal(code, req.Version)
		}
		admit.Guard = g
	}
	call := c.Groups.Submit(shard.Request{Group: req.Group, Admit: admit,
		Event: group.TxnCommit{Request: ask, ProducerID: req.ProducerID, Epoch: req.ProducerEpoch}})
	select {
	case <-call.Ready():
	case <-ctx.Done():
		return nil, kerr.CoordinatorNotAvailable
	}
	r := call.Results()[0]
	answer, ok := r.Value.(*kmsg.OffsetCommitResponse)
	if !ok {
		if e := asRefusal(r.Err); e != nil {
			return nil, e
		}
		return nil, kerr.UnknownServerError
	}
	return answer, nil
}

// commitRefusal is a transaction coordinator's code as the group's coordinator answers it.
func commitRefusal(code, version int16) *kerr.Error {
	switch code {
	case kerr.ConcurrentTransactions.Code, kerr.CoordinatorNotAvailable.Code, kerr.NotCoordinator.Code, kerr.RequestTimedOut.Code:
		return kerr.CoordinatorLoadInProgress // again, at this coordinator: it is the other one that was not ready
	case kerr.OperationNotAttempted.Code, kerr.UnknownTopicOrPartition.Code:
		return kerr.CoordinatorLoadInProgress // it has not heard of the offsets topic yet
	case kerr.ProducerFenced.Code:
		return kerr.InvalidProducerEpoch
	case kerr.TransactionAbortable.Code:
		if version < 4 {
			return kerr.InvalidTxnState
		}
	}
	return kerr.TypedErrorForCode(code)
}

// mergeTxnCommit fills in what the coordinator said of the partitions that were passed on to it, which come in the
// order of the request; err, when not nil, is its answer for all of them.
func (c *Call) mergeTxnCommit(resp *kmsg.TxnOffsetCommitResponse, answer *kmsg.OffsetCommitResponse, err *kerr.Error) {
	var codes []int16
	if answer != nil {
		for i := range answer.Topics {
			for j := range answer.Topics[i].Partitions {
				codes = append(codes, answer.Topics[i].Partitions[j].ErrorCode)
			}
		}
	}
	k := 0
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			p := &resp.Topics[i].Partitions[j]
			switch {
			case p.ErrorCode != 0:
				continue
			case err != nil:
				p.ErrorCode = err.Code
			case k < len(codes):
				p.ErrorCode = codes[k]
			default:
				p.ErrorCode = kerr.UnknownServerError.Code
			}
			k++
			c.failed(p.ErrorCode)
		}
	}
}
