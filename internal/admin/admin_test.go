package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func fake(t *testing.T, topics ...string) (*kfake.Cluster, *Client) {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, topics...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	c := New(Options{Bootstrap: k.ListenAddrs(), Timeout: 5 * time.Second})
	t.Cleanup(c.Close)
	return k, c
}

func send(t *testing.T, c *Client, topic string, n int) {
	t.Helper()
	p, err := c.Producer(t.Context(), ProduceOptions{Topic: topic, Partition: -1, Acks: -1, Codec: "none"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		// The time of every record is long ago: it must not count as having waited since then.
		if err := p.Send(&Record{Value: fmt.Append(nil, i), Key: fmt.Append(nil, i), Timestamp: time.UnixMilli(int64(i) + 1)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if got, _ := p.Acked(); got != int64(n) {
		t.Fatalf("%d of %d acknowledged", got, n)
	}
}

func TestConsumeReadsExactlyWhatThereIs(t *testing.T) {
	_, c := fake(t, "a", "b")
	send(t, c, "a", 500)
	send(t, c, "b", 100)
	seen := map[string]int{}
	err := c.Consume(t.Context(), ConsumeOptions{Topics: []string{"a", "b"}, Committed: true}, func(r *Record) error {
		seen[r.Topic+string(r.Value)]++
		return nil
	})
	if err != nil || len(seen) != 600 {
		t.Fatalf("%d different records, %v", len(seen), err)
	}
	// Nothing to read ends at once.
	if err := c.Consume(t.Context(), ConsumeOptions{Topics: []string{"a"}, From: Position{Kind: AtEnd}}, func(*Record) error { return errors.New("a record") }); err != nil {
		t.Error(err)
	}
	stop := errors.New("stop")
	if err := c.Consume(t.Context(), ConsumeOptions{Topics: []string{"a"}}, func(*Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error of the reader: %v", err)
	}
}

func TestOffsetsStayWithinTheLog(t *testing.T) {
	_, c := fake(t, "a")
	send(t, c, "a", 100)
	ends, err := c.Offsets(t.Context(), "a", Position{Kind: AtEnd})
	if err != nil || ends[0]+ends[1] != 100 {
		t.Fatalf("%v, %v", ends, err)
	}
	for _, x := range []struct {
		at   Position
		want func(end int64) int64
	}{
		{Position{Kind: AtStart}, func(int64) int64 { return 0 }},
		{Position{AtOffset, 1 << 40}, func(end int64) int64 { return end }},
		{Position{AtOffset, 3}, func(int64) int64 { return 3 }},
		{Position{BeforeEnd, 2}, func(end int64) int64 { return end - 2 }},
		{Position{BeforeEnd, 1 << 40}, func(int64) int64 { return 0 }},
		{Position{AtTime, 1}, func(int64) int64 { return 0 }},
		{Position{AtTime, 1 << 50}, func(end int64) int64 { return end }},
		{Position{Kind: AtStableEnd}, func(end int64) int64 { return end }},
	} {
		got, err := c.Offsets(t.Context(), "a", x.at)
		if err != nil {
			t.Fatal(err)
		}
		for p, o := range got {
			if want := x.want(ends[p]); o != want {
				t.Errorf("%+v: partition %d at %d, want %d", x.at, p, o, want)
			}
		}
	}
}

func TestResetRefusesAGroupWithMembers(t *testing.T) {
	_, c := fake(t, "a")
	send(t, c, "a", 10)
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Consume(ctx, ConsumeOptions{Topics: []string{"a"}, Group: "g"}, func(r *Record) error {
		defer cancel()
		_, err := c.ResetOffsets(t.Context(), "g", []string{"a"}, Position{Kind: AtStart}, false)
		if err == nil || !strings.Contains(err.Error(), "1 members: stop them first") {
			t.Errorf("reset under a member: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	rs, err := c.ResetOffsets(t.Context(), "g", nil, Position{Kind: AtEnd}, false)
	if err != nil || len(rs) != 2 || rs[0].To+rs[1].To != 10 {
		t.Errorf("%v, %v", rs, err)
	}
}

// A broker that takes records and never acknowledges must not hold the producer for ever.
func TestProducerGivesUpWithoutAcknowledgements(t *testing.T) {
	k, c := fake(t, "a")
	c.opts.Timeout = 100 * time.Millisecond
	k.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		return nil, errors.New("closed"), true
	})
	p, err := c.Producer(t.Context(), ProduceOptions{Topic: "a", Partition: -1, Acks: -1, Codec: "none"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Send(&Record{Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err == nil {
		t.Error("a record without acknowledgement counts as written")
	}
	if n, _ := p.Acked(); n != 0 {
		t.Errorf("%d acknowledged", n)
	}
}

func TestErrorsKeepTheBrokersWords(t *testing.T) {
	k, c := fake(t)
	k.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
		r := kmsg.NewCreateTopicsResponseTopic()
		r.Topic, r.ErrorCode, r.ErrorMessage = "x", kerr.InvalidConfig.Code, kmsg.StringPtr("segment.bytes is too small.")
		resp.Topics = append(resp.Topics, r)
		return resp, nil, true
	})
	_, err := c.CreateTopic(t.Context(), NewTopic{Name: "x", Partitions: 1, Replicas: 1})
	var e *Error
	if !errors.As(err, &e) || e.Code != "INVALID_CONFIG" || !errors.Is(err, kerr.InvalidConfig) {
		t.Fatalf("%v", err)
	}
	if want := "create topic x: segment.bytes is too small (INVALID_CONFIG)"; err.Error() != want {
		t.Errorf("%q", err)
	}
}

func TestParsePairs(t *testing.T) {
	if m, err := ParsePairs([]string{"a=b=c", "d="}); err != nil || m["a"] != "b=c" || m["d"] != "" {
		t.Errorf("%v, %v", m, err)
	}
	for _, bad := range [][]string{{"a"}, {"=b"}, {"a=1", "a=2"}} {
		if _, err := ParsePairs(bad); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

// A broker whose process is stopped accepts connections and says nothing. It must not be the one that is asked.
func TestABrokerThatHangsIsPassedOver(t *testing.T) {
	k, _ := fake(t, "a")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	c := New(Options{Bootstrap: []string{l.Addr().String(), "127.0.0.1:1", k.ListenAddrs()[0]}, Timeout: 20 * time.Second})
	defer c.Close()
	for range 5 {
		if _, err := c.Topics(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
	send(t, c, "a", 3)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}
