package api

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/meta"
)

// leaderHints collects, for one answer, where the leaders named in it listen (KIP-951): a client that
// asked the wrong broker goes to the right one without asking for metadata first.
type leaderHints struct{ brokers []leaderEndpoint }

// hint is the leader of a partition as the newest image knows it, when code is one that sends the client
// elsewhere. Without a leader it is -1 and -1, which leaves the hint out. The image of the request would not do: a
// fetch that waited began under the old leader, and would name it.
func (h *leaderHints) hint(c *Call, t *meta.Topic, n int32, code int16) (leader, epoch int32) {
	if code != kerr.NotLeaderForPartition.Code && code != kerr.FencedLeaderEpoch.Code {
		return -1, -1
	}
	if t == nil || n < 0 || int(n) >= len(t.Partitions) {
		return -1, -1
	}
	im := c.Image
	if c.Controller != nil {
		if next := c.Controller.Coming(); next.Revision() > im.Revision() {
			im = next
		}
	}
	if t = im.TopicByID(t.ID); t == nil || int(n) >= len(t.Partitions) {
		return -1, -1
	}
	p := t.Partitions[n]
	b := im.Broker(p.Leader)
	if b == nil || b.Fenced {
		return -1, -1
	}
	for _, x := range h.brokers {
		if x.id == p.Leader {
			return p.Leader, p.LeaderEpoch
		}
	}
	e, ok := b.Endpoint(c.Conn.Listener())
	if !ok {
		return -1, -1
	}
	h.brokers = append(h.brokers, leaderEndpoint{id: b.ID, host: e.Host, port: e.Port, rack: b.Rack})
	return p.Leader, p.LeaderEpoch
}

// unknownTopic is the code for a topic that the image does not have: by id or by name.
func unknownTopic(byID bool) int16 {
	if byID {
		return kerr.UnknownTopicID.Code
	}
	return kerr.UnknownTopicOrPartition.Code
}

// topicOf finds a topic of a request that names topics by id from some version on.
func (c *Call) topicOf(name string, id [16]byte, byID bool) *meta.Topic {
	if byID {
		return c.Image.TopicByID(id)
	}
	return c.Image.Topic(name)
}

// reserve charges the memory budget for what a request with n partitions holds beside its decoded form, each many bytes for one.
// A partition is nine bytes on the wire: without this a frame within its limit could ask for fifty times its size.
func (c *Call) reserve(n int, each int64) error {
	if n < 128 {
		return nil // the depth of the pipeline bounds these
	}
	if err := c.Frame.Charge(c.Conn.Context(), int64(n)*each); err != nil {
		return fmt.Errorf("%s of %d partitions: %w", c.row.Name(), n, err)
	}
	return nil
}
