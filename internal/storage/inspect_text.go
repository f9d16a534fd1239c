package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// String is one line in the words of kafka-dump-log; records are indented below their batch by "| ".
func (i InspectItem) String() string {
	switch {
	case i.Batch != nil:
		return i.Batch.line(i.Position)
	case i.Record != nil:
		return "| " + i.Record.line()
	case i.Index != nil && i.Index.Timestamp != nil:
		return fmt.Sprintf("timestamp: %d offset: %d", *i.Index.Timestamp, i.Index.Offset)
	case i.Index != nil:
		return fmt.Sprintf("offset: %d position: %d", i.Index.Offset, i.Index.FilePosition)
	case i.Aborted != nil:
		return fmt.Sprintf("version: 0 producerId: %d firstOffset: %d lastOffset: %d lastStableOffset: %d",
			i.Aborted.ProducerID, i.Aborted.FirstOffset, i.Aborted.LastOffset, i.Aborted.LastStable)
	case i.Producer != nil:
		p := i.Producer
		return fmt.Sprintf("producerId: %d producerEpoch: %d coordinatorEpoch: %d currentTxnFirstOffset: %d lastTimestamp: %d lastSequence: %d lastOffset: %d",
			p.ID, p.Epoch, p.CoordinatorEpoch, p.TxnStart, p.LastTimestamp, p.LastSequence, p.LastOffset)
	case i.Offset != nil:
		return fmt.Sprintf("%s: %d", i.Offset.Name, i.Offset.Offset)
	case i.Problem != nil:
		where := strings.TrimPrefix(i.Log+"/"+i.File, "/")
		return fmt.Sprintf("%s: %s, position %d: %s", strings.ToUpper(string(i.Problem.Severity)), where, i.Position, i.Problem.Message)
	}
	return ""
}

func (b *BatchView) line(pos int64) string {
	horizon := "none"
	if b.DeleteHorizon != nil {
		horizon = strconv.FormatInt(*b.DeleteHorizon, 10)
	}
	return fmt.Sprintf("baseOffset: %d lastOffset: %d count: %d baseSequence: %d lastSequence: %d producerId: %d producerEpoch: %d "+
		"partitionLeaderEpoch: %d isTransactional: %t isControl: %t deleteHorizonMs: %s position: %d %s: %d size: %d magic: 2 compresscodec: %s crc: %d isvalid: %t",
		b.BaseOffset, b.LastOffset, b.Count, b.BaseSequence, b.LastSequence, b.ProducerID, b.ProducerEpoch, b.LeaderEpoch, b.Transactional, b.Control,
		horizon, pos, b.TimestampType, b.MaxTimestamp, b.Size, b.Codec, b.CRC, b.Valid)
}

func (r *RecordView) line() string {
	size := func(p []byte) int {
		if p == nil {
			return -1
		}
		return len(p)
	}
	var keys []string
	for _, h := range r.Headers {
		keys = append(keys, strconv.Quote(h.Key))
	}
	s := fmt.Sprintf("offset: %d timestamp: %d keySize: %d valueSize: %d sequence: %d headerKeys: [%s]",
		r.Offset, r.Timestamp, size(r.Key), size(r.Value), r.Sequence, strings.Join(keys, ","))
	if r.Decoded != "" {
		return s + " " + r.Decoded
	}
	text := func(name string, p []byte) {
		if p != nil {
			q := strconv.Quote(string(p)) // keeps control characters away from a terminal
			s += " " + name + ": " + q[1:len(q)-1]
		}
	}
	text("key", r.Key)
	text("payload", r.Value)
	return s
}
