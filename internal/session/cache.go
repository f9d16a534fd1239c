package session

import (
	"cmp"
	"math"
	"sync"
	"sync/atomic"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/twmb/franz-go/pkg/kerr"
)

const (
	// DefaultSlots is max.incremental.fetch.session.cache.slots.
	DefaultSlots = 1000
	// EvictionMs protects a session: idle for longer it may go for anyone, younger it gives way only to a follower's.
	EvictionMs = 120_000

	initialEpoch = 0  // full fetch, a session is wanted
	finalEpoch   = -1 // full fetch, no session is wanted
	shardCount   = 8
)

// Key names a partition in a session: by topic id from Fetch version 13 on, else by name; the other one is zero.
type Key struct {
	ID        meta.UUID
	Topic     string
	Partition int32
}

// Partition is what a fetcher asks of one partition.
type Partition struct {
	Key
	FetchOffset      int64
	LogStart         int64 // a follower's, -1 from consumers
	MaxBytes         int32
	LeaderEpoch      int32 // -1 when unknown
	LastFetchedEpoch int32 // -1 when unknown
}

// Request is the session part of a Fetch request.
type Request struct {
	ID, Epoch  int32
	UsesIDs    bool // Fetch version 13 or later
	Follower   bool
	Partitions []Partition
	Forgotten  []Key
}

// Options configure a Cache.
type Options struct {
	Slots int          // 0 or less: no sessions are kept
	NewID func() int32 // random; called under a shard's lock, repeated until it is positive and unused there
}

// Cache holds the sessions of one broker.
type Cache struct {
	newID   func() int32
	shards  [shardCount]shard
	next    atomic.Uint32 // round robin for new sessions
	evicted atomic.Int64
}

type shard struct {
	slots int
	mu    struct {
		sync.Mutex
		sessions map[int32]*session
	}
}

// New makes a cache. NewID must be set when Slots is above zero.
func New(o Options) *Cache {
	c := &Cache{newID: o.NewID}
	for i := range c.shards {
		s := &c.shards[i]
		s.slots = max(o.Slots, 0) / shardCount
		if i < max(o.Slots, 0)%shardCount {
			s.slots++
		}
		s.mu.sessions = make(map[int32]*session)
	}
	return c
}

// session is one fetcher's state. Fields in mu are under its lock; the others belong to the shard's lock or never change.
type session struct {
	id       int32
	usesIDs  bool
	follower bool
	created  int64
	used     int64 // under the shard's lock
	size     int   // partitions, as ranked for eviction; under the shard's lock
	mu       struct {
		sync.Mutex
		epoch int32 // the next one expected
		parts list
		over  func() // ends the wait of the request that uses the session; nil: none waits
	}
}

// nextEpoch wraps from the largest int32 to 1: 0 and -1 have their own meaning.
func nextEpoch(e int32) int32 {
	if e == math.MaxInt32 {
		return 1
	}
	return e + 1
}

func (c *Cache) shardOf(id int32) *shard { return &c.shards[uint32(id)%shardCount] }

// Open finds what a request means. Errors are kerr codes for the whole request: FETCH_SESSION_ID_NOT_FOUND,
// INVALID_FETCH_SESSION_EPOCH, FETCH_SESSION_TOPIC_ID_ERROR.
func (c *Cache) Open(now int64, r Request) (*Context, error) {
	if r.Epoch == initialEpoch || r.Epoch == finalEpoch {
		if r.ID != 0 {
			c.remove(r.ID)
		}
		return &Context{cache: c, full: r.Partitions, want: r.Epoch == initialEpoch, usesIDs: r.UsesIDs, follower: r.Follower}, nil
	}
	sh := c.shardOf(r.ID)
	sh.mu.Lock()
	s := sh.mu.sessions[r.ID]
	sh.mu.Unlock()
	if s == nil {
		return nil, kerr.FetchSessionIDNotFound
	}
	left, epoch, over, err := s.update(r)
	if err != nil {
		return nil, err
	}
	if over != nil {
		over()
	}
	if left == 0 { // everything was forgotten: the session ends, the answer is an empty full one
		c.remove(r.ID)
		return &Context{cache: c}, nil
	}
	sh.mu.Lock()
	s.used, s.size = now, left
	sh.mu.Unlock()
	return &Context{cache: c, session: s, epoch: epoch}, nil
}

// update applies an incremental request and returns how many partitions are left, the epoch that the answer must still find, and
// what ends the wait of the request before, which nobody hears any more.
func (s *session) update(r Request) (left int, epoch int32, over func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.usesIDs != r.UsesIDs {
		return 0, 0, nil, kerr.FetchSessionTopicIDError
	}
	if s.mu.epoch != r.Epoch {
		return 0, 0, nil, kerr.InvalidFetchSessionEpoch
	}
	for _, p := range r.Partitions {
		n := s.mu.parts.put(p)
		if s.follower {
			// A follower that asks anew may have thrown the last answer away, or part of it: it led meanwhile, it had to cut
			// its log or to raise its log start first. The high watermark must reach it although it is no news.
			n.hw = -1
		}
	}
	for _, k := range r.Forgotten {
		s.mu.parts.remove(k)
	}
	s.mu.epoch = nextEpoch(s.mu.epoch)
	over, s.mu.over = s.mu.over, nil
	return len(s.mu.parts.byKey), s.mu.epoch, over, nil
}

func (c *Cache) remove(id int32) {
	sh := c.shardOf(id)
	sh.mu.Lock()
	delete(sh.mu.sessions, id)
	sh.mu.Unlock()
}

// create keeps a new session with what its first answer said, or returns 0 when no slot can be had.
func (c *Cache) create(now int64, usesIDs, follower bool, parts []Partition, results []Result) int32 {
	if len(parts) == 0 {
		return 0
	}
	at := c.next.Add(1) % shardCount
	sh := &c.shards[at]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if len(sh.mu.sessions) >= sh.slots && !c.evictLocked(sh, now, follower, len(parts)) {
		return 0
	}
	s := &session{usesIDs: usesIDs, follower: follower, created: now, used: now}
	for s.id <= 0 || sh.mu.sessions[s.id] != nil {
		s.id = c.newID()&math.MaxInt32&^(shardCount-1) | int32(at) // the id names its shard
	}
	for i, p := range parts {
		n := s.mu.parts.put(p)
		if i < len(results) {
			n.told(results[i])
		}
	}
	s.size = len(s.mu.parts.byKey)
	s.mu.epoch = 1
	sh.mu.sessions[s.id] = s
	return s.id
}

// evictLocked makes room for a newcomer or refuses: the least recently used goes when idle for long; else the least valuable one
// that may be pushed out by this newcomer, if it ranks below it.
func (c *Cache) evictLocked(sh *shard, now int64, follower bool, size int) bool {
	var idle, least *session
	for _, s := range sh.mu.sessions {
		if idle == nil || cmp.Or(cmp.Compare(s.used, idle.used), cmp.Compare(s.id, idle.id)) < 0 {
			idle = s
		}
		old := now-s.created > EvictionMs
		if !old && (s.follower || !follower) {
			continue
		}
		if least == nil || cmp.Or(rank(s.follower, s.size, least.follower, least.size), cmp.Compare(s.id, least.id)) < 0 {
			least = s
		}
	}
	switch {
	case idle != nil && now-idle.used > EvictionMs:
		least = idle
	case least == nil || rank(least.follower, least.size, follower, size) >= 0:
		return false
	}
	delete(sh.mu.sessions, least.id)
	c.evicted.Add(1)
	return true
}

// rank orders sessions by worth: a follower's above a consumer's, then by number of partitions.
func rank(aFollower bool, aSize int, bFollower bool, bSize int) int {
	if aFollower != bFollower {
		if aFollower {
			return 1
		}
		return -1
	}
	return cmp.Compare(aSize, bSize)
}

// Stats counts for metrics.
type Stats struct {
	Sessions   int
	Partitions int
	Evicted    int64 // since start
}

// Stats takes every shard's lock once.
func (c *Cache) Stats() Stats {
	st := Stats{Evicted: c.evicted.Load()}
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		st.Sessions += len(sh.mu.sessions)
		for _, s := range sh.mu.sessions {
			st.Partitions += s.size
		}
		sh.mu.Unlock()
	}
	return st
}
