package txn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
)

// ErrRecord is a record of a known type that does not decode.
var ErrRecord = errors.New("malformed transaction record")

// emit writes an id as it stands, and sets its timer. All changes of an id go through here: what is not in its
// record is lost with the coordinator.
func (m *Machine) emit(t *id) {
	t.updateMs = m.now.UnixMilli()
	v := kmsg.NewTxnMetadataValue()
	if m.cfg.Version >= 1 {
		v.Version = 1
	}
	v.ProducerID, v.ProducerEpoch, v.TimeoutMillis = t.producer, t.epoch, t.timeoutMs
	v.State = kmsg.TransactionState(t.state)
	v.LastUpdateTimestamp, v.StartTimestamp = t.updateMs, t.startMs
	v.PreviousProducerID, v.NextProducerID, v.ClientTransactionVersion = t.previous, t.next, t.version
	if t.next != noID {
		v.NextProducerEpoch = 0
	}
	for i, p := range t.parts {
		if i == 0 || p.Topic != t.parts[i-1].Topic {
			v.Topics = append(v.Topics, kmsg.TxnMetadataValueTopic{Topic: p.Topic})
		}
		x := &v.Topics[len(v.Topics)-1]
		x.Partitions = append(x.Partitions, p.Partition)
	}
	m.out.Records = append(m.out.Records, Record{Key: key(t.name), Value: v.AppendTo(nil)})
	m.arm(t)
}

// expire forgets an id that has rested for too long.
func (m *Machine) expire(t *id) {
	delete(m.ids, t.name)
	m.out.Records = append(m.out.Records, Record{Key: key(t.name)})
}

func key(name string) []byte {
	k := kmsg.TxnMetadataKey{Version: 0, TransactionalID: name}
	return k.AppendTo(make([]byte, 0, 4+len(name)))
}

// Replay takes one record of the log in. A record of a type that is not known is passed over: a newer broker
// wrote it. The bytes are not kept.
func (m *Machine) Replay(k, value []byte) error {
	if len(k) < 2 {
		return fmt.Errorf("%w: key of %d bytes", ErrRecord, len(k))
	}
	if binary.BigEndian.Uint16(k) != 0 {
		return nil
	}
	var tk kmsg.TxnMetadataKey
	if err := tk.ReadFrom(k); err != nil {
		return fmt.Errorf("%w: key: %w", ErrRecord, err)
	}
	if value == nil {
		delete(m.ids, tk.TransactionalID)
		return nil
	}
	if len(value) < 2 || binary.BigEndian.Uint16(value) > 1 {
		return fmt.Errorf("%w: value of %q of an unknown version", ErrRecord, tk.TransactionalID)
	}
	v := kmsg.NewTxnMetadataValue()
	if err := v.ReadFrom(value); err != nil {
		return fmt.Errorf("%w: value of %q: %w", ErrRecord, tk.TransactionalID, err)
	}
	if v.State < 0 || State(v.State) >= Dead {
		return fmt.Errorf("%w: %q is in state %d", ErrRecord, tk.TransactionalID, v.State)
	}
	m.restore(strings.Clone(tk.TransactionalID), &v)
	return nil
}

func (m *Machine) restore(name string, v *kmsg.TxnMetadataValue) {
	t := &id{
		name: name, producer: v.ProducerID, epoch: v.ProducerEpoch, last: noEpoch, previous: v.PreviousProducerID, next: v.NextProducerID,
		state: State(v.State), version: v.ClientTransactionVersion, timeoutMs: v.TimeoutMillis,
		startMs: v.StartTimestamp, updateMs: v.LastUpdateTimestamp, due: det.Never, queued: det.Never,
	}
	// The epoch before the last raise is no field of the record and is not guessed: another producer may have had
	// that raise, and whoever asks again with the epoch before it would get the epoch of that one. So after a load a
	// client whose answer was lost is fenced, and begins anew.
	for i := range v.Topics {
		topic := strings.Clone(v.Topics[i].Topic)
		for _, n := range v.Topics[i].Partitions {
			t.parts = append(t.parts, meta.TopicPartition{Topic: topic, Partition: n})
		}
	}
	slices.SortFunc(t.parts, compareParts)
	t.parts = slices.Compact(t.parts)
	m.ids[name] = t
}
