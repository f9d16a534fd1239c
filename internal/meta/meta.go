package meta

import (
	"encoding/base64"
	"fmt"
	"net"
	"strconv"
)

// UUID is Kafka's 16-byte id of a topic, a log directory or a broker incarnation.
type UUID [16]byte

// String is Kafka's form: 22 characters of URL-safe base64 without padding.
func (u UUID) String() string { return base64.RawURLEncoding.EncodeToString(u[:]) }

// IsZero says that the id is absent.
func (u UUID) IsZero() bool { return u == UUID{} }

// ParseUUID reads Kafka's 22-character form.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != len(u) {
		return u, fmt.Errorf("parse uuid %q: want 22 characters of URL-safe base64", s)
	}
	copy(u[:], b)
	return u, nil
}

// TopicPartition names one partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

func (tp TopicPartition) String() string { return fmt.Sprintf("%s-%d", tp.Topic, tp.Partition) }

// NoLeader is the leader id of an offline partition.
const NoLeader int32 = -1

// Partition is the controller's record of one partition (Kafka's PartitionRegistration). Values
// reached through an Image are shared and must not be changed.
type Partition struct {
	Replicas       []int32 `json:"replicas"`           // assignment; the first is the preferred leader
	Adding         []int32 `json:"adding,omitempty"`   // being added by a reassignment
	Removing       []int32 `json:"removing,omitempty"` // being removed by a reassignment
	Dirs           []UUID  `json:"dirs,omitempty"`     // log directory id per replica (KIP-858); zero: unassigned
	ISR            []int32 `json:"isr"`                // in-sync replicas
	ELR            []int32 `json:"elr,omitempty"`      // eligible leader replicas (KIP-966)
	LastKnownELR   []int32 `json:"lkelr,omitempty"`    // last known leader when ISR and ELR are empty
	Leader         int32   `json:"leader"`             // NoLeader when offline
	LeaderEpoch    int32   `json:"leaderEpoch"`        // fences the data path; +1 on each leader change
	PartitionEpoch int32   `json:"partitionEpoch"`     // compare-and-set version; +1 on every change
	Recovery       int8    `json:"recovery,omitempty"` // 0 RECOVERED, 1 RECOVERING (unclean election)
}

// Topic is one topic as of one revision. Partitions is indexed by partition number.
type Topic struct {
	Name       string
	ID         UUID
	Internal   bool
	Partitions []*Partition
}

// Endpoint is where a broker listens.
type Endpoint struct {
	Listener string `json:"listener"` // listener name, e.g. PLAINTEXT
	Host     string `json:"host"`
	Port     int32  `json:"port"`
	Protocol string `json:"protocol"` // PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL
}

// Address is host:port for net.Dial.
func (e Endpoint) Address() string { return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) }

// Broker is one broker's registration.
type Broker struct {
	ID          int32      `json:"id"`
	Incarnation UUID       `json:"incarnation"` // fresh at every process start
	Epoch       int64      `json:"epoch"`       // the revision of the registration; grows with each one
	Endpoints   []Endpoint `json:"endpoints"`
	Rack        string     `json:"rack,omitempty"`
	Dirs        []UUID     `json:"dirs,omitempty"`
	Fenced      bool       `json:"fenced"`
	Draining    bool       `json:"draining,omitempty"` // in controlled shutdown
}

// Endpoint finds the endpoint of a listener by name.
func (b *Broker) Endpoint(listener string) (Endpoint, bool) {
	for _, e := range b.Endpoints {
		if e.Listener == listener {
			return e, true
		}
	}
	return Endpoint{}, false
}

// ResourceType is Kafka's config resource code.
type ResourceType int8

// The config resource codes of Kafka (kafka.md 6.4).
const (
	ResourceTopic         ResourceType = 2
	ResourceBroker        ResourceType = 4
	ResourceBrokerLogger  ResourceType = 8
	ResourceClientMetrics ResourceType = 16
	ResourceGroup         ResourceType = 32
)

// Resource names something that has dynamic configuration. A broker resource with an empty name is
// the cluster-wide default.
type Resource struct {
	Type ResourceType
	Name string
}
