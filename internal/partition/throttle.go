package partition

import (
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/milena-mq/milena/internal/config"
)

// Throttle holds replication of throttled replicas to a rate (KIP-73). Kafka averages over eleven windows of
// a second, which lets ten seconds' worth through at the start; this one allows one second's worth at a time.
type Throttle struct {
	rate atomic.Int64 // bytes per second
	mu   struct {
		sync.Mutex
		left int64 // bytes that may pass; below zero when a batch was larger than that
		at   int64 // ms
	}
}

// SetRate changes the rate, in bytes per second.
func (t *Throttle) SetRate(n int64) { t.rate.Store(n) }

// Left is how many bytes may pass now, 0 for none.
func (t *Throttle) Left(nowMs int64) int64 {
	rate := t.rate.Load()
	if rate >= unlimited {
		return math.MaxInt64
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refillLocked(rate, nowMs)
	return max(t.mu.left, 0)
}

// unlimited is more than any network carries; above it the arithmetic would overflow.
const unlimited = int64(1) << 50

func (t *Throttle) refillLocked(rate, nowMs int64) {
	if t.mu.at == 0 {
		t.mu.at, t.mu.left = nowMs, rate
	}
	if d := min(nowMs-t.mu.at, 2000); d > 0 {
		t.mu.left, t.mu.at = min(t.mu.left+rate*d/1000, max(rate, 1)), nowMs
	}
}

// Passed counts bytes.
func (t *Throttle) Passed(n, nowMs int64) {
	rate := t.rate.Load()
	if n == 0 || rate >= unlimited {
		return
	}
	t.mu.Lock()
	t.refillLocked(rate, nowMs)
	t.mu.left -= n
	t.mu.Unlock()
}

// throttled reads leader.replication.throttled.replicas or its twin: "*", or partition:broker.
func throttled(list string, partition, broker int32) bool {
	if list == "" {
		return false
	}
	want := strconv.Itoa(int(partition)) + ":" + strconv.Itoa(int(broker))
	for x := range strings.SplitSeq(list, ",") {
		if x = strings.TrimSpace(x); x == "*" || x == want {
			return true
		}
	}
	return false
}

// setThrottled works out whether this replica is throttled in its two roles.
func (p *Partition) setThrottled(c *Config) {
	p.throttledLeader.Store(throttled(c.LeaderThrottled, p.tp.Partition, p.set.o.NodeID))
	p.throttledFollower.Store(throttled(c.FollowerThrottled, p.tp.Partition, p.set.o.NodeID))
}

// FollowerThrottled says that this replica is held to follower.replication.throttled.rate while it is not in sync.
func (p *Partition) FollowerThrottled() bool { return p.throttledFollower.Load() }

// allowed is how many bytes a follower may be sent now: all, unless it is throttled and outside the in-sync set.
func (p *Partition) allowed(r *ReadRequest) int64 {
	if !p.throttledLeader.Load() || p.InSync(r.Replica) {
		return math.MaxInt64
	}
	return p.set.sending.Left(p.set.now())
}

// sent counts what a throttled leader sends to followers, in sync or not (KIP-73).
func (p *Partition) sent(r *ReadRequest, n int64) {
	if r.Replica >= 0 && p.throttledLeader.Load() {
		p.set.sending.Passed(n, p.set.now())
	}
}

// readRates takes the broker's replication rates, and whether followers serve consumers.
func (s *Set) readRates() {
	l := *s.broker.Load()
	s.sending.SetRate(config.LeaderReplicationThrottledRate.Of(l))
	s.Taking.SetRate(config.FollowerReplicationThrottledRate.Of(l))
	s.followersServe.Store(config.ReplicaSelectorClass.Of(l) == config.RackAwareSelector)
}
