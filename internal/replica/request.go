package replica

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
)

// The versions between brokers. Fetch 17 names topics by id and carries the replica's broker epoch.
const (
	fetchVersion       = 17
	listOffsetsVersion = 7
)

// limits are the keys that shape a fetch, read for each one: all may change while the broker runs.
type limits struct {
	wait, minBytes, maxBytes, partBytes int32
}

func (f *fetcher) limits() limits {
	l := f.m.o.Set.BrokerLayers()
	return limits{
		wait: config.ReplicaFetchWaitMaxMs.Of(l), minBytes: config.ReplicaFetchMinBytes.Of(l),
		maxBytes: config.ReplicaFetchResponseMaxBytes.Of(l), partBytes: config.ReplicaFetchMaxBytes.Of(l),
	}
}

// builder makes one Fetch request; its slices are used again for the next, the request itself is not: the connection
// looks at it until it is answered.
type builder struct {
	req  *kmsg.FetchRequest
	at   map[meta.UUID]int
	gone map[meta.UUID]int
}

func (b *builder) reset(node int32, epoch int64, l limits) {
	var topics []kmsg.FetchRequestTopic
	var forgotten []kmsg.FetchRequestForgottenTopic
	if b.req != nil {
		topics, forgotten = b.req.Topics[:0], b.req.ForgottenTopics[:0]
	}
	b.req = kmsg.NewPtrFetchRequest()
	b.req.Version = fetchVersion
	b.req.ReplicaState.ID, b.req.ReplicaState.Epoch = node, epoch
	b.req.MaxWaitMillis, b.req.MinBytes, b.req.MaxBytes = l.wait, l.minBytes, l.maxBytes
	b.req.Topics, b.req.ForgottenTopics = topics, forgotten
	if b.at == nil {
		b.at, b.gone = map[meta.UUID]int{}, map[meta.UUID]int{}
	}
	clear(b.at)
	clear(b.gone)
}

// ask adds a partition.
func (b *builder) ask(p *part, maxBytes int32) {
	i, ok := b.at[p.key.id]
	if !ok {
		i = len(b.req.Topics)
		b.at[p.key.id] = i
		if i < cap(b.req.Topics) {
			b.req.Topics = b.req.Topics[:i+1]
			b.req.Topics[i].Partitions = b.req.Topics[i].Partitions[:0]
		} else {
			b.req.Topics = append(b.req.Topics, kmsg.NewFetchRequestTopic())
		}
		b.req.Topics[i].TopicID = p.key.id
	}
	_, epoch := p.f.Leader()
	x := kmsg.NewFetchRequestTopicPartition()
	x.Partition, x.CurrentLeaderEpoch, x.PartitionMaxBytes = p.key.n, epoch, maxBytes
	x.FetchOffset, x.LastFetchedEpoch, x.LogStartOffset = p.next.Offset, p.next.LastEpoch, p.next.LogStart
	b.req.Topics[i].Partitions = append(b.req.Topics[i].Partitions, x)
}

// forget takes a partition out of the session.
func (b *builder) forget(k key) {
	i, ok := b.gone[k.id]
	if !ok {
		i = len(b.req.ForgottenTopics)
		b.gone[k.id] = i
		t := kmsg.NewFetchRequestForgottenTopic()
		t.TopicID = k.id
		b.req.ForgottenTopics = append(b.req.ForgottenTopics, t)
	}
	t := &b.req.ForgottenTopics[i]
	t.Partitions = append(t.Partitions, k.n)
}

// boundsRequest asks a leader for the log starts (earliest) or the log ends of partitions.
func boundsRequest(node int32, parts []*part, timestamp int64) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = listOffsetsVersion, node
	for _, p := range parts {
		_, epoch := p.f.Leader()
		x := kmsg.NewListOffsetsRequestTopicPartition()
		x.Partition, x.CurrentLeaderEpoch, x.Timestamp = p.key.n, epoch, timestamp
		name := p.f.Partition().TopicPartition().Topic
		if n := len(req.Topics); n > 0 && req.Topics[n-1].Topic == name {
			req.Topics[n-1].Partitions = append(req.Topics[n-1].Partitions, x)
			continue
		}
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic, t.Partitions = name, append(t.Partitions, x)
		req.Topics = append(req.Topics, t)
	}
	return req
}
