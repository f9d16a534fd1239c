package api

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/server"
)

// DeleteRecords (key 21), versions 0-2 (kafka.md 3.10). The answer waits until no live replica has the records any
// more, at most for the request's timeout: REQUEST_TIMED_OUT then, although the leader has dropped them. The low
// watermark of the answer is the smallest log start of the live replicas.
func serveDeleteRecords(c *Call) server.Reply {
	w := &deleteWork{c: c, req: c.Request.(*kmsg.DeleteRecordsRequest), resp: kmsg.NewPtrDeleteRecordsResponse()}
	w.resp.Version = w.req.Version
	for i := range w.req.Topics {
		t := &w.req.Topics[i]
		rt := kmsg.NewDeleteRecordsResponseTopic()
		rt.Topic = t.Topic
		for j := range t.Partitions {
			rp := kmsg.NewDeleteRecordsResponseTopicPartition()
			rp.Partition, rp.LowWatermark = t.Partitions[j].Partition, -1
			p, offset, err := c.deleteRecords(t.Topic, rp.Partition, t.Partitions[j].Offset)
			if rp.ErrorCode = c.errorCode(err); err == nil {
				w.raised = append(w.raised, raisedStart{p: p, offset: offset, topic: i, part: j})
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		w.resp.Topics = append(w.resp.Topics, rt)
	}
	if len(w.raised) == 0 {
		return c.ready(w.resp)
	}
	if err := c.Partitions.SyncStarts(); err != nil {
		// Without durable starts nothing was deleted for sure.
		for _, r := range w.raised {
			w.at(r).ErrorCode = c.errorCode(err)
		}
		return c.ready(w.resp)
	}
	return w.wait()
}

// deleteWork is one DeleteRecords that waits for the other replicas.
type deleteWork struct {
	c      *Call
	req    *kmsg.DeleteRecordsRequest
	resp   *kmsg.DeleteRecordsResponse
	raised []raisedStart
}

// raisedStart is a partition whose start was raised, and its place in the answer.
type raisedStart struct {
	p           *partition.Partition
	offset      int64
	topic, part int
}

func (w *deleteWork) at(r raisedStart) *kmsg.DeleteRecordsResponseTopicPartition {
	return &w.resp.Topics[r.topic].Partitions[r.part]
}

func (w *deleteWork) wait() server.Reply {
	wait := partition.NewWaiter(len(w.raised))
	for i, r := range w.raised {
		r.p.WaitLow(wait, i, r.offset)
	}
	wait.Arm(time.Duration(max(w.req.TimeoutMillis, 0)) * time.Millisecond)
	return w.c.later(wait.Ready(), func() kmsg.Response {
		for i, r := range w.raised {
			rp := w.at(r)
			if err := wait.Err(i); err != nil {
				rp.ErrorCode = w.c.errorCode(err)
				continue
			}
			rp.LowWatermark = r.p.LowWatermark()
		}
		return w.resp
	})
}

// deleteRecords raises the start of one partition and says which low watermark is then to be waited for.
func (c *Call) deleteRecords(topic string, n int32, offset int64) (*partition.Partition, int64, error) {
	mt := c.Image.Topic(topic)
	if mt == nil {
		return nil, -1, kerr.UnknownTopicOrPartition
	}
	if mt.Internal {
		return nil, -1, kerr.InvalidTopicException
	}
	p, err := c.hosted(mt, n)
	if err != nil {
		return nil, -1, err
	}
	start, err := p.DeleteRecords(offset, c.Now.UnixMilli())
	if offset < 0 {
		offset = start // it was the high watermark
	}
	return p, offset, err
}
