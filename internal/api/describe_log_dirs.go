package api

import (
	"cmp"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

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
		rd.Topics = logDirTopics(d.Partitions, want)
		resp.Dirs = append(resp.Dirs, rd)
	}
	return c.ready(resp)
}

func logDirTopics(parts []*partition.Partition, want map[offsetsKey]bool) []kmsg.DescribeLogDirsResponseDirTopic {
	slices.SortFunc(parts, func(a, b *partition.Partition) int {
		x, y := a.TopicPartition(), b.TopicPartition()
		return cmp.Or(cmp.Compare(x.Topic, y.Topic), cmp.Compare(x.Partition, y.Partition))
	})
	var out []kmsg.DescribeLogDirsResponseDirTopic
	for _, p := range parts {
		tp := p.TopicPartition()
		if want != nil && !want[offsetsKey{tp.Topic, tp.Partition}] {
			continue
		}
		if len(out) == 0 || out[len(out)-1].Topic != tp.Topic {
			t := kmsg.NewDescribeLogDirsResponseDirTopic()
			t.Topic = tp.Topic
			out = append(out, t)
		}
		rp := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		rp.Partition, rp.Size = tp.Partition, p.Size()
		rp.OffsetLag = max(p.HW()-p.LogEnd(), 0) // of a replica that trails the high watermark; never so for a leader
		t := &out[len(out)-1]
		t.Partitions = append(t.Partitions, rp)
	}
	return out
}
