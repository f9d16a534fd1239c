package control

import (
	"fmt"

	"github.com/milena-mq/milena/internal/config"
)

// The topics in which coordinators keep their state (kafka.md 6.6).
const (
	OffsetsTopic     = "__consumer_offsets"
	TransactionTopic = "__transaction_state"
	ShareTopic       = "__share_group_state"
)

// IsInternal says that a topic belongs to a coordinator.
func IsInternal(name string) bool {
	return name == OffsetsTopic || name == TransactionTopic || name == ShareTopic
}

// Automatic is the wish with which a topic is made on first use: coordinators' topics as the broker's
// configuration of them says, every other with the defaults.
func (c *Cluster) Automatic(name string) NewTopic {
	w := NewTopic{Name: name, Partitions: -1, Factor: -1}
	keys, ok := internalKeys[name]
	if !ok {
		return w
	}
	l := c.Layers()
	w.Partitions = int32(number(l, keys.prefix+".num.partitions"))
	// Kafka refuses the topic until there are enough brokers. With one broker that would be for
	// ever, and no group would work: take what there is.
	w.Factor = int16(max(1, min(number(l, keys.prefix+".replication.factor"), int64(c.activeBrokers()))))
	w.Configs = map[string]*string{}
	set := func(k, v string) { w.Configs[k] = &v }
	set("cleanup.policy", "compact")
	set("compression.type", keys.compression)
	set("segment.bytes", fmt.Sprint(max(number(l, keys.prefix+".segment.bytes"), 1<<20)))
	if keys.minISR {
		set("min.insync.replicas", fmt.Sprint(max(1, min(number(l, keys.prefix+".min.isr"), int64(w.Factor)))))
	}
	return w
}

var internalKeys = map[string]struct {
	prefix, compression string
	minISR              bool
}{
	OffsetsTopic:     {"offsets.topic", "producer", false},
	TransactionTopic: {"transaction.state.log", "uncompressed", true},
	ShareTopic:       {"share.coordinator.state.topic", "producer", true},
}

func (c *Cluster) activeBrokers() int {
	n := 0
	for _, b := range c.Image.Brokers() {
		if active(b) {
			n++
		}
	}
	return n
}

// number reads a broker key by name; 0 when there is no such key.
func number(l config.Layers, name string) int64 {
	e, ok := config.DescribeKey(config.ResourceBroker, name, l)
	if !ok || e.Value == nil {
		return 0
	}
	var n int64
	if _, err := fmt.Sscan(*e.Value, &n); err != nil {
		return 0
	}
	return n
}
