package meta

import (
	"fmt"
	"strconv"
	"strings"
)

// The keys of the coordination store, below the store's own prefix (docs/format/meta.md). A key is
// plain text; where it ends in a name, the name is the rest of the key as it is, so that a group id
// with slashes needs no escape.
const (
	KeyCluster     = "meta" // ClusterRecord
	KeyController  = "ctl"  // ControllerRecord; its modification revision is the fencing token
	KeyProducerIDs = "pid"  // ProducerIDRecord

	prefixBroker    = "b/"
	prefixTopic     = "t/"
	prefixPartition = "p/"
	prefixConfig    = "cfg/"
)

// BrokerKey is where a broker's registration lives.
func BrokerKey(id int32) string { return prefixBroker + strconv.Itoa(int(id)) }

// TopicKey is where a topic's record lives.
func TopicKey(name string) string { return prefixTopic + name }

// PartitionKey is where the record of partition n of a topic lives.
func PartitionKey(topic UUID, n int32) string {
	return prefixPartition + topic.String() + "/" + strconv.Itoa(int(n))
}

// ConfigKey is where the dynamic values of a resource live. It fails on a type that has no stored
// configuration (broker loggers).
func ConfigKey(r Resource) (string, error) {
	t, ok := resourceNames[r.Type]
	if !ok {
		return "", fmt.Errorf("config key of resource type %d: no stored configuration", r.Type)
	}
	return prefixConfig + t + "/" + r.Name, nil
}

var resourceNames = map[ResourceType]string{
	ResourceTopic:         "topic",
	ResourceBroker:        "broker",
	ResourceClientMetrics: "client-metrics",
	ResourceGroup:         "group",
}

// keyKind is the sort of record that a key names.
type keyKind uint8

const (
	kindCluster keyKind = iota + 1
	kindController
	kindProducerIDs
	kindBroker
	kindTopic
	kindPartition
	kindConfig
)

// parsedKey is a key taken apart; which fields count depends on kind.
type parsedKey struct {
	kind     keyKind
	broker   int32
	topic    string
	id       UUID
	n        int32
	resource Resource
}

func parseKey(key string) (parsedKey, error) {
	switch key {
	case KeyCluster:
		return parsedKey{kind: kindCluster}, nil
	case KeyController:
		return parsedKey{kind: kindController}, nil
	case KeyProducerIDs:
		return parsedKey{kind: kindProducerIDs}, nil
	}
	if s, ok := strings.CutPrefix(key, prefixPartition); ok {
		id, n, _ := strings.Cut(s, "/")
		u, err := ParseUUID(id)
		if err != nil {
			return parsedKey{}, fmt.Errorf("parse key %q: %w", key, err)
		}
		i, ok := parseIndex(n)
		if !ok {
			return parsedKey{}, fmt.Errorf("parse key %q: no partition number", key)
		}
		return parsedKey{kind: kindPartition, id: u, n: i}, nil
	}
	if s, ok := strings.CutPrefix(key, prefixTopic); ok && s != "" {
		return parsedKey{kind: kindTopic, topic: s}, nil
	}
	if s, ok := strings.CutPrefix(key, prefixBroker); ok {
		i, ok := parseIndex(s)
		if !ok {
			return parsedKey{}, fmt.Errorf("parse key %q: no broker id", key)
		}
		return parsedKey{kind: kindBroker, broker: i}, nil
	}
	if s, ok := strings.CutPrefix(key, prefixConfig); ok {
		typ, name, found := strings.Cut(s, "/")
		for t, n := range resourceNames {
			if found && n == typ {
				return parsedKey{kind: kindConfig, resource: Resource{Type: t, Name: name}}, nil
			}
		}
	}
	return parsedKey{}, fmt.Errorf("parse key %q: no such kind of record", key)
}

// parseIndex reads a number of 0..2^31-1 in its one canonical spelling, so that two keys never
// name the same record.
func parseIndex(s string) (int32, bool) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, false
	}
	return int32(n), true
}
