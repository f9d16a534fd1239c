package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// rawConn is a connection to one certain broker that follows nobody's metadata: what a client library would not do
// is what has to be tried, as asking a leader that was frozen.
type rawConn struct {
	conn net.Conn
	corr int32
	fmt  *kmsg.RequestFormatter
}

func dialRaw(addr string, limit time.Duration) (*rawConn, error) {
	c, err := net.DialTimeout("tcp", addr, limit)
	if err != nil {
		return nil, err
	}
	return &rawConn{conn: c, fmt: kmsg.NewRequestFormatter(kmsg.FormatterClientID("raw"))}, nil
}

const maxAnswer = 16 << 20

// send writes a request without waiting for its answer.
func (c *rawConn) send(req kmsg.Request, limit time.Duration) error {
	c.corr++
	c.conn.SetDeadline(time.Now().Add(limit))
	if _, err := c.conn.Write(c.fmt.AppendRequest(nil, req, c.corr)); err != nil {
		return err
	}
	return nil
}

// receive reads the answer to the request sent last.
func (c *rawConn) receive(req kmsg.Request) (kmsg.Response, error) {
	head := make([]byte, 8)
	if _, err := io.ReadFull(c.conn, head); err != nil {
		return nil, err
	}
	n := int32(binary.BigEndian.Uint32(head)) - 4
	if n < 0 || n > maxAnswer {
		return nil, fmt.Errorf("answer of %d bytes", n)
	}
	if got := int32(binary.BigEndian.Uint32(head[4:])); got != c.corr {
		return nil, fmt.Errorf("answer to request %d, want %d", got, c.corr)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.conn, body); err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if resp.IsFlexible() && resp.Key() != kmsg.ApiVersions.Int16() {
		if len(body) == 0 || body[0] != 0 {
			return nil, errors.New("answer with tags in its header")
		}
		body = body[1:]
	}
	return resp, resp.ReadFrom(body)
}

func (c *rawConn) do(req kmsg.Request, limit time.Duration) (kmsg.Response, error) {
	if err := c.send(req, limit); err != nil {
		return nil, err
	}
	return c.receive(req)
}

func (c *rawConn) close() { c.conn.Close() }

// ask does one request on a connection of its own.
func ask[T kmsg.Response](addr string, req kmsg.Request, version int16, limit time.Duration) (T, error) {
	var none T
	req.SetVersion(version)
	c, err := dialRaw(addr, limit)
	if err != nil {
		return none, err
	}
	defer c.close()
	resp, err := c.do(req, limit)
	if err != nil {
		return none, err
	}
	return resp.(T), nil
}

// produceRequest is a plain acks=all Produce of one record, without a producer id: whatever comes of it, nobody
// sends it again.
func produceRequest(topic string, part int32, value []byte, timeout time.Duration) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(9)
	req.Acks = -1
	req.TimeoutMillis = int32(timeout.Milliseconds())
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition = part
	p.Records = oneBatch(value, time.Now().UnixMilli())
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return req
}

// oneBatch is a record batch of magic 2 with one record (kafka.md 3.1).
func oneBatch(value []byte, ms int64) []byte {
	rec := []byte{0} // attributes
	rec = binary.AppendVarint(rec, 0)
	rec = binary.AppendVarint(rec, 0)
	rec = binary.AppendVarint(rec, -1) // no key
	rec = binary.AppendVarint(rec, int64(len(value)))
	rec = append(rec, value...)
	rec = binary.AppendVarint(rec, 0)
	body := binary.BigEndian.AppendUint16(nil, 0)          // attributes
	body = binary.BigEndian.AppendUint32(body, 0)          // last offset delta
	body = binary.BigEndian.AppendUint64(body, uint64(ms)) // first timestamp
	body = binary.BigEndian.AppendUint64(body, uint64(ms)) // largest timestamp
	body = binary.BigEndian.AppendUint64(body, ^uint64(0)) // producer id
	body = binary.BigEndian.AppendUint16(body, ^uint16(0)) // producer epoch
	body = binary.BigEndian.AppendUint32(body, ^uint32(0)) // base sequence
	body = binary.BigEndian.AppendUint32(body, 1)          // records
	body = binary.AppendVarint(body, int64(len(rec)))      // and the only one
	body = append(body, rec...)
	b := binary.BigEndian.AppendUint64(nil, 0)                // base offset
	b = binary.BigEndian.AppendUint32(b, uint32(9+len(body))) // length after this field
	b = binary.BigEndian.AppendUint32(b, ^uint32(0))          // leader epoch
	b = append(b, 2)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	return append(b, body...)
}

// view is what one broker's Metadata says.
type view struct {
	leader     map[int32]int32
	epoch      map[int32]int32
	isr        map[int32][]int32
	replicas   map[int32][]int32
	controller int32
	alive      []int32
	topicErr   int16
}

func metadata(addr, topic string, limit time.Duration) (*view, error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, t)
	resp, err := ask[*kmsg.MetadataResponse](addr, req, 9, limit)
	if err != nil {
		return nil, err
	}
	return readView(resp), nil
}

func readView(resp *kmsg.MetadataResponse) *view {
	v := &view{leader: map[int32]int32{}, epoch: map[int32]int32{}, isr: map[int32][]int32{}, replicas: map[int32][]int32{}, controller: resp.ControllerID}
	for _, b := range resp.Brokers {
		v.alive = append(v.alive, b.NodeID)
	}
	for _, t := range resp.Topics {
		v.topicErr = t.ErrorCode
		for _, p := range t.Partitions {
			v.leader[p.Partition], v.epoch[p.Partition] = p.Leader, p.LeaderEpoch
			v.isr[p.Partition], v.replicas[p.Partition] = p.ISR, p.Replicas
		}
	}
	return v
}

// storeLeader asks who leads the coordination store: DescribeQuorum's leader is the active controller.
func storeLeader(addr string, limit time.Duration) (int32, error) {
	req := kmsg.NewPtrDescribeQuorumRequest()
	t := kmsg.NewDescribeQuorumRequestTopic()
	t.Topic = "__cluster_metadata"
	p := kmsg.NewDescribeQuorumRequestTopicPartition()
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := ask[*kmsg.DescribeQuorumResponse](addr, req, 1, limit)
	if err != nil {
		return 0, err
	}
	if resp.ErrorCode != 0 || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, fmt.Errorf("DescribeQuorum: error %d, %d topics", resp.ErrorCode, len(resp.Topics))
	}
	if q := resp.Topics[0].Partitions[0]; q.ErrorCode != 0 || q.LeaderID <= 0 {
		return 0, fmt.Errorf("DescribeQuorum: error %d, leader %d", q.ErrorCode, q.LeaderID)
	}
	return resp.Topics[0].Partitions[0].LeaderID, nil
}
