package session

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/twmb/franz-go/pkg/kerr"
)

func cache(slots int) *Cache {
	id := int32(0)
	return New(Options{Slots: slots, NewID: func() int32 { id += shardCount; return id }})
}

func parts(n int) []Partition {
	out := make([]Partition, n)
	for i := range out {
		out[i] = Partition{Key: Key{Topic: "t", Partition: int32(i)}, MaxBytes: 100, LeaderEpoch: -1, LastFetchedEpoch: -1}
	}
	return out
}

// fetch runs one request; what says the result by partition number. It returns the id and the partitions included.
func fetch(t *testing.T, c *Cache, now int64, r Request, what func(p int32) Result) (int32, []int32) {
	t.Helper()
	x, err := c.Open(now, r)
	if err != nil {
		t.Fatal(err)
	}
	ps := x.Append(nil)
	if len(ps) != x.Len() {
		t.Fatal(len(ps), x.Len())
	}
	rs := make([]Result, len(ps))
	for i, p := range ps {
		rs[i] = what(p.Partition)
	}
	var in []int32
	id, err := x.Finish(now, ps, rs, func(i int) { in = append(in, ps[i].Partition) })
	if err != nil {
		t.Fatal(err)
	}
	return id, in
}

func quiet(int32) Result { return Result{HW: 10} }

func TestAnIncrementalAnswerSaysOnlyWhatIsNew(t *testing.T) {
	c := cache(1000)
	id, in := fetch(t, c, 0, Request{Partitions: parts(4)}, quiet)
	if id == 0 || len(in) != 4 {
		t.Fatal(id, in)
	}
	expect := func(epoch int32, r Request, what func(int32) Result, want ...int32) {
		t.Helper()
		r.ID, r.Epoch = id, epoch
		got, in := fetch(t, c, 0, r, what)
		if got != id || !slices.Equal(in, want) {
			t.Fatalf("epoch %d: session %d, answer %v, want %v", epoch, got, in, want)
		}
	}
	one := func(p int32, r Result) func(int32) Result {
		return func(q int32) Result {
			if p == q {
				return r
			}
			return quiet(q)
		}
	}
	expect(1, Request{}, quiet)
	expect(2, Request{}, one(1, Result{HW: 11}), 1)
	expect(3, Request{}, one(1, Result{HW: 11}))
	expect(4, Request{}, one(1, Result{HW: 11, LogStart: 3}), 1)
	expect(5, Request{}, one(1, Result{HW: 11, LogStart: 3, Failed: true}), 1)
	expect(6, Request{}, one(1, Result{HW: 11, LogStart: 3, Failed: true}), 1) // an error is told each time
	expect(7, Request{}, one(1, Result{HW: 11, LogStart: 3}), 1)               // and its end
	expect(8, Request{}, one(1, Result{HW: 11, LogStart: 3, PreferredReplica: true}), 1)
	expect(9, Request{}, one(1, Result{HW: 11, LogStart: 3, Diverging: true}), 1)
	expect(10, Request{Forgotten: []Key{{Topic: "t", Partition: 1}}}, quiet)
	add := parts(6)[5:]
	expect(11, Request{Partitions: add}, quiet, 5)
	// Served partitions go to the end, so that the others are served first next time.
	expect(12, Request{}, one(0, Result{HW: 10, Bytes: 5}), 0)
	expect(13, Request{}, func(int32) Result { return Result{HW: 12} }, 2, 3, 5, 0)
	if s := c.Stats(); s.Sessions != 1 || s.Partitions != 4 {
		t.Fatalf("%+v", s)
	}
}

func TestWhatIsAskedOfAKnownPartitionChangesInPlace(t *testing.T) {
	c := cache(8)
	id, _ := fetch(t, c, 0, Request{Partitions: parts(2)}, quiet)
	p := parts(1)
	p[0].FetchOffset = 77
	x, err := c.Open(0, Request{ID: id, Epoch: 1, Partitions: p})
	if err != nil || x.Append(nil)[0].FetchOffset != 77 {
		t.Fatal(err, x.Append(nil))
	}
}

func TestErrorsOfARequest(t *testing.T) {
	c := cache(1000)
	id, _ := fetch(t, c, 0, Request{Partitions: parts(1)}, quiet)
	for _, r := range []struct {
		Request
		want error
	}{
		{Request{ID: 999, Epoch: 1}, kerr.FetchSessionIDNotFound},
		{Request{ID: id, Epoch: 2}, kerr.InvalidFetchSessionEpoch},
		{Request{ID: id, Epoch: 1, UsesIDs: true}, kerr.FetchSessionTopicIDError},
		{Request{ID: -5, Epoch: 1}, kerr.FetchSessionIDNotFound},
		{Request{ID: math.MinInt32, Epoch: -7}, kerr.FetchSessionIDNotFound},
	} {
		if _, err := c.Open(0, r.Request); err != r.want {
			t.Errorf("%+v: %v", r.Request, err)
		}
	}
	// Two requests use one session at once: the first one's answer must not be written over what the second was told.
	a, err := c.Open(0, Request{ID: id, Epoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(0, Request{ID: id, Epoch: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Finish(0, parts(1), []Result{{Bytes: 1}}, func(int) { t.Error("included") }); err != kerr.InvalidFetchSessionEpoch {
		t.Fatal(err)
	}
}

func TestSessionsEnd(t *testing.T) {
	c := cache(1000)
	id, _ := fetch(t, c, 0, Request{Partitions: parts(1)}, quiet)
	if got, in := fetch(t, c, 0, Request{ID: id, Epoch: -1, Partitions: parts(1)}, quiet); got != 0 || len(in) != 1 {
		t.Fatal(got, in)
	}
	id, _ = fetch(t, c, 0, Request{Partitions: parts(1)}, quiet)
	if got, in := fetch(t, c, 0, Request{ID: id, Epoch: 1, Forgotten: []Key{{Topic: "t"}}}, quiet); got != 0 || len(in) != 0 {
		t.Fatal("everything forgotten:", got, in)
	}
	if s := c.Stats(); s.Sessions != 0 {
		t.Fatalf("%+v", s)
	}
	if got, _ := fetch(t, c, 0, Request{}, quiet); got != 0 {
		t.Fatal("a session without partitions:", got)
	}
}

func TestEpochWrapsToOne(t *testing.T) {
	c := cache(8)
	id, _ := fetch(t, c, 0, Request{Partitions: parts(1)}, quiet)
	c.shardOf(id).mu.sessions[id].mu.epoch = math.MaxInt32
	fetch(t, c, 0, Request{ID: id, Epoch: math.MaxInt32}, quiet)
	fetch(t, c, 0, Request{ID: id, Epoch: 1}, quiet)
}

// Who gives way to whom in a full cache (one shard full is the cache full for the newcomer).
func TestAFullCacheGivesWayByWorth(t *testing.T) {
	type who struct {
		follower bool
		size     int
	}
	for _, c := range []struct {
		name      string
		old, new  who
		idle, age int64
		want      bool
	}{
		{"idle for long", who{true, 9}, who{false, 1}, EvictionMs + 1, EvictionMs + 1, true},
		{"young", who{false, 1}, who{false, 9}, 0, 0, false},
		{"young gives way to a follower", who{false, 9}, who{true, 1}, 0, 0, true},
		{"young follower stays", who{true, 1}, who{true, 9}, 0, 0, false},
		{"old and smaller", who{false, 1}, who{false, 2}, 0, EvictionMs + 1, true},
		{"old and as large", who{false, 2}, who{false, 2}, 0, EvictionMs + 1, false},
		{"old follower above consumer", who{true, 1}, who{false, 9}, 0, EvictionMs + 1, false},
		{"old follower, larger follower", who{true, 1}, who{true, 9}, 0, EvictionMs + 1, true},
	} {
		ca := cache(shardCount)
		for range shardCount {
			if id, _ := fetch(t, ca, 0, Request{Follower: c.old.follower, Partitions: parts(c.old.size)}, quiet); id == 0 {
				t.Fatal("no slot in an empty cache")
			}
		}
		now := c.age
		for i := range ca.shards {
			for _, s := range ca.shards[i].mu.sessions {
				s.used = now - c.idle
			}
		}
		id, _ := fetch(t, ca, now, Request{Follower: c.new.follower, Partitions: parts(c.new.size)}, quiet)
		if st := ca.Stats(); (id != 0) != c.want || st.Sessions != shardCount || (st.Evicted == 1) != c.want {
			t.Errorf("%s: id %d, %+v", c.name, id, st)
		}
	}
	if id, in := fetch(t, New(Options{}), 0, Request{Partitions: parts(2)}, quiet); id != 0 || len(in) != 2 {
		t.Error("no slots:", id, in)
	}
}

func TestTopicIDsNameThePartition(t *testing.T) {
	c := cache(8)
	k := Key{ID: meta.UUID{1}, Partition: 3}
	id, _ := fetch(t, c, 0, Request{UsesIDs: true, Partitions: []Partition{{Key: k}, {Key: Key{ID: meta.UUID{2}, Partition: 3}}}}, quiet)
	x, err := c.Open(0, Request{ID: id, Epoch: 1, UsesIDs: true, Forgotten: []Key{k}})
	if err != nil || x.Len() != 1 || x.Append(nil)[0].ID != (meta.UUID{2}) {
		t.Fatal(err)
	}
}

func BenchmarkIncrementalFetch(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := cache(1000)
			x, _ := c.Open(0, Request{Partitions: parts(n)})
			rs := make([]Result, n)
			id, _ := x.Finish(0, parts(n), rs, func(int) {})
			var ps []Partition
			epoch := int32(1)
			b.ReportAllocs()
			for b.Loop() {
				x, err := c.Open(0, Request{ID: id, Epoch: epoch})
				if err != nil {
					b.Fatal(err)
				}
				epoch = nextEpoch(epoch)
				ps = x.Append(ps[:0])
				if _, err := x.Finish(0, ps, rs, func(int) {}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestTheNextRequestEndsTheWaitOfTheOneBefore: a follower that has to ask for one more partition must not wait for its long poll.
func TestTheNextRequestEndsTheWaitOfTheOneBefore(t *testing.T) {
	c := cache(10)
	p := []Partition{{Key: Key{Topic: "t"}}}
	x, err := c.Open(0, Request{Epoch: 0, Partitions: p, Follower: true})
	if err != nil {
		t.Fatal(err)
	}
	ended := 0
	x.OnSuperseded(func() { ended++ }) // no session yet
	id, err := x.Finish(0, p, []Result{{}}, func(int) {})
	if err != nil || id == 0 {
		t.Fatal(id, err)
	}
	first, err := c.Open(0, Request{ID: id, Epoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	first.OnSuperseded(func() { ended++ })
	second, err := c.Open(0, Request{ID: id, Epoch: 2})
	if err != nil || ended != 1 {
		t.Fatalf("%v, %d waits ended, want 1", err, ended)
	}
	if _, err := first.Finish(0, p, []Result{{HW: 5}}, func(int) {}); err != kerr.InvalidFetchSessionEpoch {
		t.Fatalf("answer of a superseded request: %v", err)
	}
	first.OnSuperseded(func() { ended++ })
	if ended != 2 {
		t.Fatal("a request that came too late for the call was not told")
	}
	second.OnSuperseded(func() { ended++ })
	told := 0
	if _, err := second.Finish(0, p, []Result{{HW: 5}}, func(int) { told++ }); err != nil || told != 1 {
		t.Fatalf("%v, told %d: the superseded answer counted as told", err, told)
	}
	if _, err := c.Open(0, Request{ID: id, Epoch: 3}); err != nil || ended != 2 {
		t.Fatalf("%v, %d: a request that was answered was told", err, ended)
	}
}

// TestAFollowerThatAsksAnewIsTold the high watermark once more: it may have had to throw the last answer away.
func TestAFollowerThatAsksAnewIsTold(t *testing.T) {
	c := cache(10)
	p := []Partition{{Key: Key{Topic: "t"}, LeaderEpoch: 1}}
	x, err := c.Open(0, Request{Epoch: 0, Partitions: p, Follower: true})
	if err != nil {
		t.Fatal(err)
	}
	id, err := x.Finish(0, p, []Result{{HW: 5}}, func(int) {})
	if err != nil || id == 0 {
		t.Fatal(id, err)
	}
	epoch := int32(0)
	ask := func(r Result, changed ...Partition) bool {
		t.Helper()
		epoch++
		x, err := c.Open(0, Request{ID: id, Epoch: epoch, Partitions: changed})
		if err != nil {
			t.Fatal(err)
		}
		told := false
		if _, err := x.Finish(0, x.Append(nil), []Result{r}, func(int) { told = true }); err != nil {
			t.Fatal(err)
		}
		return told
	}
	if ask(Result{HW: 5}) {
		t.Error("told again without reason")
	}
	if !ask(Result{HW: 5}, Partition{Key: Key{Topic: "t"}, LeaderEpoch: 1, FetchOffset: 5}) {
		t.Error("not told when it asked anew")
	}
	if ask(Result{HW: 5}) {
		t.Error("told again without reason")
	}
}
