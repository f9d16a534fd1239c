package meta

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// recordVersion is the first byte of every value. A reader that meets another one stops: an older
// binary must not rewrite records whose fields it does not know.
const recordVersion = '1'

// maxValueBytes bounds one value. The largest honest one is a partition with some thousand
// replicas or a resource with every config set, far below it.
const maxValueBytes = 1 << 20

// ClusterRecord is the value of KeyCluster: written once by the first controller, later only to
// raise a feature level.
type ClusterRecord struct {
	ID       string           `json:"id"`       // cluster id, 22 characters
	Format   int              `json:"format"`   // number of the key and value format, 1
	Features map[string]int16 `json:"features"` // finalized feature levels
}

// ControllerRecord is the value of KeyController: who may write.
type ControllerRecord struct {
	Epoch       int32 `json:"epoch"`       // +1 at each take-over
	Broker      int32 `json:"broker"`      // node id of the controller
	Incarnation UUID  `json:"incarnation"` // of its process
	// Peer is the peer address, host:port, where its controller is reached; "" for a broker that is alone.
	Peer string `json:"peer,omitempty"`
}

// ProducerIDRecord is the value of KeyProducerIDs.
type ProducerIDRecord struct {
	Next   int64 `json:"next"`   // first producer id never granted
	Broker int32 `json:"broker"` // who got the block before it
	Epoch  int64 `json:"epoch"`  // that broker's epoch
}

// TopicRecord is the value of a topic key. Partitions at or above its count do not exist yet (or
// any more): their records may lie in the store half written, and an Image hides them.
type TopicRecord struct {
	ID         UUID  `json:"id"`
	Partitions int32 `json:"partitions"`
	Internal   bool  `json:"internal,omitempty"`
}

// MarshalText spells an id as Kafka does; it makes ids readable inside JSON values.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads Kafka's 22-character form.
func (u *UUID) UnmarshalText(b []byte) error {
	v, err := ParseUUID(string(b))
	if err != nil {
		return err
	}
	*u = v
	return nil
}

// encode spells a record: the version byte, then JSON. The records hold only types that JSON can
// always spell, so there is no error to report.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return append([]byte{recordVersion}, b...)
}

func decode(key string, b []byte, v any) error {
	if len(b) == 0 || len(b) > maxValueBytes {
		return fmt.Errorf("decode %q: %d bytes", key, len(b))
	}
	if b[0] != recordVersion {
		return fmt.Errorf("decode %q: version %q, this binary knows %q: the data was written by a newer release", key, b[0], recordVersion)
	}
	d := json.NewDecoder(bytes.NewReader(b[1:]))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("decode %q: %w", key, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("decode %q: bytes after the value", key)
	}
	return nil
}

// PutCluster is the change that writes the cluster record.
func PutCluster(r ClusterRecord) Change { return Change{Key: KeyCluster, Value: encode(r)} }

// PutController is the change that takes the controller's place.
func PutController(r ControllerRecord) Change { return Change{Key: KeyController, Value: encode(r)} }

// PutProducerIDs is the change that moves the producer-id counter.
func PutProducerIDs(r ProducerIDRecord) Change { return Change{Key: KeyProducerIDs, Value: encode(r)} }

// PutBroker is the change that writes a registration. An Epoch of 0 means: the revision of this
// very write, which is how a broker epoch is born.
func PutBroker(b *Broker) Change { return Change{Key: BrokerKey(b.ID), Value: encode(b)} }

// PutTopic is the change that makes a topic, or raises its partition count.
func PutTopic(name string, r TopicRecord) Change {
	return Change{Key: TopicKey(name), Value: encode(r)}
}

// PutPartition is the change that writes the record of one partition.
func PutPartition(topic UUID, n int32, p *Partition) Change {
	return Change{Key: PartitionKey(topic, n), Value: encode(p)}
}

// PutConfig is the change that replaces all dynamic values of a resource; an empty map deletes
// the record.
func PutConfig(r Resource, values map[string]string) (Change, error) {
	k, err := ConfigKey(r)
	if err != nil {
		return Change{}, err
	}
	if len(values) == 0 {
		return Change{Key: k}, nil
	}
	return Change{Key: k, Value: encode(values)}, nil
}

// Delete is the change that removes a key.
func Delete(key string) Change { return Change{Key: key} }

// DecodeController reads the value of KeyController.
func DecodeController(b []byte) (ControllerRecord, error) {
	var r ControllerRecord
	err := decode(KeyController, b, &r)
	return r, err
}

// DecodeCluster reads the value of KeyCluster.
func DecodeCluster(b []byte) (ClusterRecord, error) {
	var r ClusterRecord
	err := decode(KeyCluster, b, &r)
	return r, err
}
