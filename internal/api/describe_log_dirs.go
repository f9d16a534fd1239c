package api

import (
	"cmp"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/server"
)

// DescribeLogDirs (key 35), versions 1-5. A null list of topics means all; a directory without any of them is still
// listed, as is one that is offline, with KAFKA_STORAGE_ERROR.
//
//	v3  an error for the whole answer    v4  total and usable bytes (KIP-827)    v5  cordoned: never
func serveDescribeLogDirs(c *Call) server.Reply {
	req := c.Request.(*kmsg.DescribeLogDirsRequest)
	resp := kmsg.NewPtrDescribeLogDirsResponse()
	resp.Version = req.Version
	var want map[offsetsKey]bool
	if req.Topics != nil {
		want = map[offsetsKey]bool{}
		for i := range req.Topics {
			for _, n := range req.Topics[i].Partitions {
				want[offsetsKey{req.Topics[i].Topic, n}] = true
			}
		}
	}
	for _, d := range c.Partitions.Dirs() {
		rd := kmsg.NewDescribeLogDirsResponseDir()
		rd.Dir, rd.ErrorCode, rd.TotalBytes, rd.UsableBytes = d.Path, c.errorCode(d.Err), d.Total, d.Avail
		rd.Topics = logDirTopics(d, want)
		resp.Dirs = append(resp.Dirs, rd)
	}
	return c.ready(resp)
}

func logDirTopics(d partition.DirInfo, want map[offsetsKey]bool) []kmsg.DescribeLogDirsResponseDirTopic {
	type shown struct {
		tp        meta.TopicPartition
		size, lag int64
		future    bool
	}
	parts := make([]shown, 0, len(d.Partitions)+len(d.Futures))
	for _, p := range d.Partitions {
		// The lag is that of a replica that trails the high watermark; a leader has none.
		parts = append(parts, shown{p.TopicPartition(), p.Size(), max(p.HW()-p.LogEnd(), 0), false})
	}
	for _, f := range d.Futures {
		parts = append(parts, shown{f.Partition.TopicPartition(), f.Size, f.Lag, true})
	}
	slices.SortFunc(parts, func(a, b shown) int {
		return cmp.Or(cmp.Compare(a.tp.Topic, b.tp.Topic), cmp.Compare(a.tp.Partition, b.tp.Partition))
	})
	var out []kmsg.DescribeLogDirsResponseDirTopic
	for _, p := range parts {
		tp := p.tp
		if want != nil && !want[offsetsKey{tp.Topic, tp.Partition}] {
			continue
		}
		if len(out) == 0 || out[len(out)-1].Topic != tp.Topic {
			t := kmsg.NewDescribeLogDirsResponseDirTopic()
			t.Topic = tp.Topic
			out = append(out, t)
		}
		rp := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		rp.Partition, rp.Size, rp.OffsetLag, rp.IsFuture = tp.Partition, p.size, p.lag, p.future
		t := &out[len(out)-1]
		t.Partitions = append(t.Partitions, rp)
	}
	return out
}
