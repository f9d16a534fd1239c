package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/meta"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// one makes coordinators that lead one partition, the only one.
func one(t testing.TB, l Log) *Groups {
	t.Helper()
	g := NewGroups(Options{Config: group.DefaultConfig(), Log: quiet()})
	g.mu.parts = 1
	g.Lead(0, l)
	return g
}

func commitOf(groupID string, offsets ...int64) group.Commit {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Version, r.Group, r.Generation = 9, groupID, -1
	t := kmsg.OffsetCommitRequestTopic{Topic: "t"}
	for i, o := range offsets {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset = int32(i), o
		t.Partitions = append(t.Partitions, p)
	}
	r.Topics = []kmsg.OffsetCommitRequestTopic{t}
	return group.Commit{Request: r}
}

func join(groupID, id string) group.Join {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Version, r.Group, r.MemberID = 3, groupID, id
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis, r.ProtocolType = 10000, 60000, "consumer"
	r.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte{0, 0, 0, 0, 0, 0}}}
	return group.Join{Request: r, ClientID: "c", ClientHost: "/h", NewID: "1"}
}

func ask(g *Groups, groupID string, ev group.Event) *Call {
	return g.Submit(Request{Group: groupID, Event: ev})
}

func fetchOffset(g *Groups, groupID string) *Call {
	f := kmsg.NewOffsetFetchRequestGroup()
	f.Group = groupID
	f.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: "t", Partitions: []int32{0}}}
	return ask(g, groupID, group.FetchOffsets{Group: f})
}

func ready(c *Call) bool {
	select {
	case <-c.Ready():
		return true
	default:
		return false
	}
}

// outcome is an answer in short: its error, or the offset of a fetch, or "ok".
func outcome(c *Call) string {
	synctest.Wait()
	if !ready(c) {
		return "waiting"
	}
	var out []string
	for _, r := range c.Results() {
		if r.Err != nil {
			var k *kerr.Error
			if !errors.As(r.Err, &k) {
				return r.Err.Error()
			}
			out = append(out, k.Message)
			continue
		}
		switch v := r.Value.(type) {
		case *kmsg.OffsetFetchResponseGroup:
			out = append(out, fmt.Sprint(v.Topics[0].Partitions[0].Offset))
		case *kmsg.JoinGroupResponse:
			out = append(out, fmt.Sprintf("generation %d as %s", v.Generation, v.MemberID))
		case *kmsg.DescribeGroupsResponseGroup:
			out = append(out, v.State)
		case []kmsg.ListGroupsResponseGroup:
			out = append(out, fmt.Sprintf("%d groups", len(v)))
		default:
			out = append(out, "ok")
		}
	}
	return strings.Join(out, ", ")
}

func expect(t *testing.T, c *Call, want string) {
	t.Helper()
	if got := outcome(c); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestNothingUncommittedIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		g := one(t, l)
		synctest.Wait()
		expect(t, fetchOffset(g, "g"), "-1")
		c := ask(g, "g", commitOf("g", 7))
		f := fetchOffset(g, "g")
		expect(t, c, "waiting")
		expect(t, f, "waiting") // it saw what is not committed
		l.commit()
		expect(t, c, "ok")
		expect(t, f, "7")
		expect(t, fetchOffset(g, "g"), "7")
		if err := g.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		expect(t, fetchOffset(g, "g"), "NOT_COORDINATOR")
	})
}

func TestLoadingIsToldAndKeepsDeletions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		g := one(t, l)
		synctest.Wait()
		expect(t, ask(g, "g", commitOf("g", 7)), "ok")
		g.Lose(0)
		expect(t, fetchOffset(g, "g"), "NOT_COORDINATOR")
		l.loading = make(chan struct{})
		g.Lead(0, l)
		expect(t, fetchOffset(g, "g"), "COORDINATOR_LOAD_IN_PROGRESS")
		im, d := deletion(t, "t")
		g.Apply(im, d)
		g.mu.parts = 1 // that image has no __consumer_offsets
		expect(t, fetchOffset(g, "g"), "COORDINATOR_LOAD_IN_PROGRESS")
		close(l.loading)
		synctest.Wait()
		expect(t, fetchOffset(g, "g"), "-1")
		if _, n := l.count(); n != 2 {
			t.Fatalf("%d records, want the offset and its tombstone", n)
		}
		_ = g.Close(context.Background())
	})
}

// deletion is the image and delta of a topic's end.
func deletion(t *testing.T, name string) (*meta.Image, *meta.Delta) {
	t.Helper()
	id := meta.UUID{1}
	d := &meta.Delta{Topics: map[meta.UUID]meta.TopicDelta{id: {Old: &meta.Topic{Name: name, ID: id}}}}
	return meta.Empty(), d
}

func TestFailedAppendForgetsAndLoadsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		g := one(t, l)
		synctest.Wait()
		expect(t, ask(g, "g", commitOf("g", 7)), "ok")
		parked := ask(g, "j", join("j", ""))
		expect(t, parked, "waiting")
		l.set(func() { l.fail = kerr.NotEnoughReplicas })
		c := ask(g, "g", commitOf("g", 8))
		expect(t, c, "COORDINATOR_NOT_AVAILABLE")
		expect(t, parked, "COORDINATOR_NOT_AVAILABLE")
		expect(t, fetchOffset(g, "g"), "COORDINATOR_LOAD_IN_PROGRESS")
		l.set(func() { l.fail = nil })
		pass(2 * time.Second)
		expect(t, fetchOffset(g, "g"), "7")
		l.set(func() { l.fail = errors.New("disk") })
		expect(t, ask(g, "g", commitOf("g", 9)), "NOT_COORDINATOR")
		_ = g.Close(context.Background())
	})
}

func TestLossAnswersWhoeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		g := one(t, l)
		synctest.Wait()
		parked := ask(g, "j", join("j", ""))
		synctest.Wait()
		l.set(func() { l.auto = false })
		c := ask(g, "g", commitOf("g", 8))
		expect(t, c, "waiting")
		l.lose()
		expect(t, c, "NOT_COORDINATOR")
		expect(t, parked, "waiting")
		g.Lose(0)
		expect(t, parked, "NOT_COORDINATOR")
		_ = g.Close(context.Background())
	})
}

func TestCommitTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		g := one(t, l)
		synctest.Wait()
		start := time.Now()
		c := ask(g, "g", commitOf("g", 8))
		<-c.Ready()
		if d := time.Since(start); d != 5*time.Second {
			t.Fatalf("answered after %v", d)
		}
		expect(t, c, "COORDINATOR_NOT_AVAILABLE")
		l.commit() // too late for the answer, not for the offset
		expect(t, fetchOffset(g, "g"), "8")
		_ = g.Close(context.Background())
	})
}

func TestTimersRunWithoutRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		g := one(t, l)
		synctest.Wait()
		start := time.Now()
		j := ask(g, "g", join("g", ""))
		<-j.Ready()
		if d := time.Since(start); d != 3*time.Second {
			t.Fatalf("initial rebalance took %v", d)
		}
		expect(t, j, "generation 1 as c-1")
		d := func() *Call { return ask(g, "g", group.Describe{Group: "g"}) }
		expect(t, d(), "CompletingRebalance")
		pass(10 * time.Second) // nobody heartbeats: the session ends
		expect(t, d(), "Empty")
		_ = g.Close(context.Background())
	})
}

func TestRequestsThatComeTogetherAreOneAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true, loading: make(chan struct{})}
		g := one(t, l)
		s := g.mu.shards[0]
		calls := make([]*Call, 100)
		for i := range calls { // put into the inbox before anybody looks
			calls[i] = newCall(1)
			s.mu.inbox = append(s.mu.inbox, item{w: waiter{calls[i], 0}, ev: commitOf(fmt.Sprintf("g%d", i), 1)})
		}
		close(l.loading)
		for _, c := range calls {
			expect(t, c, "ok")
		}
		if b, n := l.count(); b != 1 || n != 100 {
			t.Fatalf("%d batches, %d records", b, n)
		}
		_ = g.Close(context.Background())
	})
}

func TestBatchesStayWithinTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		g := NewGroups(Options{Config: group.DefaultConfig(), Log: quiet(), MaxBatchBytes: 100_000})
		g.mu.parts = 1
		g.Lead(0, l)
		synctest.Wait()
		expect(t, ask(g, "g", commitOf("g", make([]int64, 5000)...)), "ok")
		b, n := l.count()
		if n != 5000 || b < 2 {
			t.Fatalf("%d batches, %d records", b, n)
		}
		for _, p := range l.batches {
			if len(p) > 100_000 {
				t.Fatalf("batch of %d bytes", len(p))
			}
		}
		g.Lead(0, l) // another epoch: the old coordinator is replaced
		synctest.Wait()
		expect(t, fetchOffset(g, "g"), "0")
		_ = g.Close(context.Background())
	})
}

func TestCloseFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		g := one(t, l)
		synctest.Wait()
		c := ask(g, "g", commitOf("g", 8))
		synctest.Wait()
		done := make(chan error)
		go func() { done <- g.Close(context.Background()) }()
		expect(t, c, "waiting")
		l.commit()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		expect(t, c, "ok")
	})
}

func TestCloseGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		g := one(t, l)
		synctest.Wait()
		c := ask(g, "g", commitOf("g", 8))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := g.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		expect(t, c, "NOT_COORDINATOR")
		l.commit() // the callback comes late and finds everything answered
	})
}

func TestInboxIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		g := one(t, l)
		synctest.Wait()
		s := g.mu.shards[0]
		s.mu.Lock()
		s.mu.inbox = make([]item, inboxLimit)
		for i := range s.mu.inbox {
			s.mu.inbox[i].ev = group.Tick{}
		}
		s.mu.Unlock()
		expect(t, fetchOffset(g, "g"), "COORDINATOR_LOAD_IN_PROGRESS")
		s.poke()
		synctest.Wait()
		expect(t, fetchOffset(g, "g"), "-1")
		_ = g.Close(context.Background())
	})
}

func TestMalformedRecordsAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{auto: true}
		b := batch.NewBuilder(batch.Spec{})
		for _, key := range [][]byte{nil, {0}, {0, 1, 0, 9}, {0, 2}, {0, 99}} {
			if err := b.Add(batch.Record{Key: key, Value: []byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
		raw, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.Append(raw); err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.Append(batch.BuildMarker(1, 0, batch.Marker{Type: batch.Commit})); err != nil {
			t.Fatal(err)
		}
		g := one(t, l)
		synctest.Wait()
		expect(t, ask(g, "g", commitOf("g", 3)), "ok")
		expect(t, fetchOffset(g, "g"), "3")
		if _, n := l.count(); n != 7 {
			t.Fatalf("log end %d", n)
		}
		_ = g.Close(context.Background())
	})
}

func TestManyPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroups(Options{Config: group.DefaultConfig(), Log: quiet()})
		g.mu.parts = 50
		logs := make([]*fakeLog, 50)
		for i := range logs {
			logs[i] = &fakeLog{auto: true}
			g.Lead(int32(i), logs[i])
		}
		synctest.Wait()
		var reqs []Request
		for i := range 200 {
			id := fmt.Sprintf("group-%d", i)
			reqs = append(reqs, Request{Group: id, Event: commitOf(id, 1)})
		}
		c := g.Submit(reqs...)
		if got := outcome(c); got != strings.Repeat("ok, ", 199)+"ok" {
			t.Fatal(got)
		}
		all := g.List(group.List{})
		synctest.Wait()
		n := 0
		for _, r := range all.Results() {
			n += len(r.Value.([]kmsg.ListGroupsResponseGroup))
		}
		if n != 200 {
			t.Fatalf("%d groups listed", n)
		}
		pass(24 * time.Hour) // idle: only the sweeps
		if err := g.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if c := g.Submit(); !ready(c) {
			t.Fatal("a call of nothing waits")
		}
	})
}

// TestPartitionFor: values of Java's String.hashCode, so that Apache Kafka finds a group where we put it.
func TestPartitionFor(t *testing.T) {
	for _, c := range []struct {
		id   string
		hash int32
	}{{"", 0}, {"abc", 96354}, {"hello", 99162322}, {"polygenelubricants", 0}, {"\u00e9\U0001F600", 0}} {
		want := c.hash % 50
		if c.id == "\u00e9\U0001F600" { // two UTF-16 units for the second rune
			want = ((0xe9*31+0xd83d)*31 + 0xde00) % 50
		}
		if got := PartitionFor(c.id, 50); got != want {
			t.Errorf("%q: %d, want %d", c.id, got, want)
		}
	}
}

// BenchmarkCommits is OffsetCommit from submit to answer, many clients at once, on a log that commits at once.
func BenchmarkCommits(b *testing.B) {
	for _, parts := range []int{1, 50} {
		b.Run(fmt.Sprintf("partitions=%d", parts), func(b *testing.B) {
			g := NewGroups(Options{Config: group.DefaultConfig(), Log: quiet()})
			g.mu.parts = int32(parts)
			var logs []*nullLog
			for i := range parts {
				l := &nullLog{}
				logs = append(logs, l)
				g.Lead(int32(i), l)
			}
			for outcomeNow(g) != "" {
				runtime.Gosched()
			}
			b.SetParallelism(64)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				id := randomUUID()
				ev := commitOf(id, 1)
				for pb.Next() {
					c := ask(g, id, ev)
					<-c.Ready()
				}
			})
			b.StopTimer()
			appends := 0
			_ = g.Close(context.Background())
			for _, l := range logs {
				appends += l.appends
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			b.ReportMetric(float64(b.N)/float64(max(appends, 1)), "commits/append")
		})
	}
}

// outcomeNow is the first refusal while coordinators load.
func outcomeNow(g *Groups) string {
	c := g.List(group.List{})
	<-c.Ready()
	for _, r := range c.Results() {
		if r.Err != nil {
			return r.Err.Error()
		}
	}
	return ""
}

// nullLog forgets what is appended.
type nullLog struct {
	end     int64
	appends int
}

func (l *nullLog) Append(b batch.Batch) (base, end int64, err error) {
	base = l.end
	l.end += int64(b.LastOffsetDelta()) + 1
	l.appends++
	return base, l.end, nil
}
func (l *nullLog) OnCommitted(_ int64, fn func(error))  { fn(nil) }
func (l *nullLog) Replay(func(batch.Batch) error) error { return nil }
func (l *nullLog) Epoch() int32                         { return 0 }

// pass lets the bubble's clock run on.
func pass(d time.Duration) { <-time.After(d) }
