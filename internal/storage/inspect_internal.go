package storage

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DecodeInternal turns a record of __consumer_offsets into words (kafka.md 5.1, record types 0 to 2 of the classic protocol); ""
// for other topics and for records that it does not understand. It is what `log dump --deep` passes as InspectOptions.Decode.
func DecodeInternal(topic string, r batch.Record) string {
	if topic != "__consumer_offsets" || len(r.Key) < 2 {
		return ""
	}
	switch typ := binary.BigEndian.Uint16(r.Key); typ {
	case 0, 1:
		return decodeOffset(r)
	case 2:
		return decodeGroup(r)
	default:
		return fmt.Sprintf("record type %d", typ)
	}
}

func decodeOffset(r batch.Record) string {
	var k kmsg.OffsetCommitKey
	if k.ReadFrom(r.Key) != nil {
		return ""
	}
	head := fmt.Sprintf("offset_commit group=%q topic=%q partition=%d", k.Group, k.Topic, k.Partition)
	if r.Value == nil {
		return head + " deleted"
	}
	var v kmsg.OffsetCommitValue
	if v.ReadFrom(r.Value) != nil {
		return head + " value not understood"
	}
	s := fmt.Sprintf("%s offset=%d leaderEpoch=%d metadata=%q commitTimestamp=%d", head, v.Offset, v.LeaderEpoch, v.Metadata, v.CommitTimestamp)
	if v.ExpireTimestamp >= 0 && v.Version == 1 {
		s += fmt.Sprintf(" expireTimestamp=%d", v.ExpireTimestamp)
	}
	return s
}

func decodeGroup(r batch.Record) string {
	var k kmsg.GroupMetadataKey
	if k.ReadFrom(r.Key) != nil {
		return ""
	}
	head := fmt.Sprintf("group_metadata group=%q", k.Group)
	if r.Value == nil {
		return head + " deleted"
	}
	var v kmsg.GroupMetadataValue
	if v.ReadFrom(r.Value) != nil {
		return head + " value not understood"
	}
	text := func(s *string) string {
		if s == nil {
			return "-"
		}
		return fmt.Sprintf("%q", *s)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s generation=%d protocolType=%q protocol=%s leader=%s members=[", head, v.Generation, v.ProtocolType, text(v.Protocol), text(v.Leader))
	for i, m := range v.Members {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%q client=%q host=%q instance=%s", m.MemberID, m.ClientID, m.ClientHost, text(m.InstanceID))
	}
	b.WriteByte(']')
	return b.String()
}
