package partition

import (
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/storage"
)

// Options is what a Set needs.
type Options struct {
	NodeID  int32
	Dirs    []*storage.Dir // open log directories
	Offline []string       // configured log directories that could not be opened
	// Incarnation of this process, as it registers. While the image shows another one under NodeID, or none,
	// this broker neither leads nor follows. Zero: not compared.
	Incarnation meta.UUID
	Static      *config.Static
	Clock       func() time.Time
	Log         *slog.Logger
	// DirFailed hears of a log directory that went offline and how many are left; with none left the
	// broker has nothing to serve and stops. It must not call the Set.
	DirFailed func(path string, err error, left int)
}

// Set is the replicas this broker hosts.
type Set struct {
	o    Options
	self string // node id, as a resource name
	dirs []*dir

	mu struct {
		sync.RWMutex
		byID   map[meta.UUID]*topic
		byName map[string]*topic
	}

	apply struct {
		sync.Mutex // held by Apply and by what retries a creation
		image      *meta.Image
		loaded     map[replica]*loadedLog // found on disk, not yet placed by an image
		nameless   []*loadedLog           // found on disk without the id of a topic: of no topic that an image could name
		started    bool                   // the first image has been applied
		subs       map[string][]func(LeadershipChange)
		follow     []func(*Partition, *Follower)
		view       view
	}
	broker  atomic.Pointer[config.Layers] // the broker's own keys, as of the latest image
	timed   atomic.Int64                  // topics that are flushed by time
	lost    atomic.Bool                   // a directory failed and the coordinators on it have not been told
	missing atomic.Int64                  // replicas that could not be created
	unled   atomic.Bool                   // a leader epoch could not be written down

	moves *moves

	props          *proposals
	places         placements
	lag            atomic.Int64 // replica.lag.time.max.ms, in nanoseconds
	followersServe atomic.Bool  // consumers may read from followers, which then have to hear of the high watermark
	sending        Throttle     // as a leader
	Taking         Throttle     // as a follower; used by package replica

	stop chan struct{}
	wg   sync.WaitGroup
}

// dir is one log directory.
type dir struct {
	set     *Set
	d       *storage.Dir
	flusher *flusher
	count   atomic.Int64 // partitions here
	failed  atomic.Bool
}

// topic is one hosted topic. parts and absent are written under Set.mu.
type topic struct {
	id     meta.UUID
	name   string
	cfg    atomic.Pointer[Config]
	parts  []*Partition // by number; nil where this broker has no replica
	absent []bool       // assigned to this broker, but the log could not be created or lies on a dead disk
}

type replica struct {
	id meta.UUID
	n  int32
}

type loadedLog struct {
	d *dir
	l *storage.Log
}

// LeadershipChange tells a coordinator that its partition came or went.
type LeadershipChange struct {
	Partition *Partition
	Epoch     int32
	Leads     bool // false: another broker leads, the topic was deleted, or the disk failed
}

// NewSet makes a set without partitions. Call Load, Apply with the first image, then Start.
func NewSet(o Options) *Set {
	s := &Set{o: o, self: strconv.Itoa(int(o.NodeID)), stop: make(chan struct{}), props: newProposals(), places: newPlacements(), moves: newMoves()}
	s.mu.byID = map[meta.UUID]*topic{}
	s.mu.byName = map[string]*topic{}
	s.apply.loaded = map[replica]*loadedLog{}
	s.apply.subs = map[string][]func(LeadershipChange){}
	s.broker.Store(&config.Layers{Static: o.Static})
	s.readRates()
	for _, d := range o.Dirs {
		x := &dir{set: s, d: d}
		x.flusher = &flusher{d: x, wake: make(chan struct{}, 1)}
		d.WatchReserve(x.reserve)
		s.dirs = append(s.dirs, x)
	}
	return s
}

func (s *Set) now() int64 { return s.o.Clock().UnixMilli() }

// OnLeadership subscribes to the partitions of one topic. fn runs one call at a time, on the goroutine of
// Apply in the order of the image's revisions, after the change has happened, or on the housekeeper's when a disk has
// failed; it must not block. Subscribe before the first Apply.
func (s *Set) OnLeadership(topic string, fn func(LeadershipChange)) {
	s.apply.Lock()
	defer s.apply.Unlock()
	s.apply.subs[topic] = append(s.apply.subs[topic], fn)
}

// OnFollow subscribes to what this broker follows: fn hears of every partition whose role has changed, with its
// Follower, or nil when it does not follow (any more). It runs as OnLeadership's do. Subscribe before the first Apply.
func (s *Set) OnFollow(fn func(*Partition, *Follower)) {
	s.apply.Lock()
	defer s.apply.Unlock()
	s.apply.follow = append(s.apply.follow, fn)
}

// Get finds a partition by topic name. Errors: UNKNOWN_TOPIC_OR_PARTITION when it is not hosted here,
// KAFKA_STORAGE_ERROR when its disk is offline. A partition that another broker leads is found; its
// methods say NOT_LEADER_OR_FOLLOWER.
func (s *Set) Get(topic string, n int32) (*Partition, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.byName[topic].get(n)
}

// GetByID finds a partition by topic id, with the errors of Get.
func (s *Set) GetByID(id meta.UUID, n int32) (*Partition, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.byID[id].get(n)
}

func (t *topic) get(n int32) (*Partition, error) {
	if t == nil || n < 0 || int(n) >= len(t.parts) {
		return nil, kerr.UnknownTopicOrPartition
	}
	if p := t.parts[n]; p != nil {
		return p, nil
	}
	if t.absent[n] {
		return nil, kerr.KafkaStorageError
	}
	return nil, kerr.UnknownTopicOrPartition
}

// all lists the hosted partitions, in no order.
func (s *Set) all() []*Partition {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []*Partition
	for _, t := range s.mu.byID {
		for _, p := range t.parts {
			if p != nil {
				out = append(out, p)
			}
		}
	}
	return out
}

// DirInfo is one log directory as DescribeLogDirs shows it.
type DirInfo struct {
	Path         string
	Err          error // offline
	Total, Avail int64 // bytes, -1 when unknown
	Partitions   []*Partition
	Futures      []FutureInfo
}

// FutureInfo is the copy of a replica that moves to another log directory.
type FutureInfo struct {
	Partition *Partition // the replica that is copied
	Size, Lag int64      // bytes it has, and offsets that it lacks
}

// Dirs describes the log directories, with all partitions they hold.
func (s *Set) Dirs() []DirInfo {
	out := make([]DirInfo, 0, len(s.dirs)+len(s.o.Offline))
	at := map[*dir]int{}
	for _, d := range s.dirs {
		i := DirInfo{Path: d.d.Path(), Total: -1, Avail: -1}
		if d.failed.Load() {
			i.Err = kerr.KafkaStorageError
		} else if avail, total, err := d.d.Space(); err == nil {
			i.Avail, i.Total = avail, total
		}
		at[d] = len(out)
		out = append(out, i)
	}
	for _, p := range s.all() {
		i := &out[at[p.dir]]
		if i.Err == nil {
			i.Partitions = append(i.Partitions, p)
		}
	}
	for _, x := range s.moves.list() {
		if i := &out[at[x.to]]; i.Err == nil {
			i.Futures = append(i.Futures, FutureInfo{x.p, x.future.Size(), max(x.p.LogEnd()-x.future.End(), 0)})
		}
	}
	for _, path := range s.o.Offline {
		out = append(out, DirInfo{Path: path, Err: kerr.KafkaStorageError, Total: -1, Avail: -1})
	}
	return out
}

// SyncStarts makes the log starts that DeleteRecords raised durable. A request calls it once, before it is
// answered: without it a crash would bring deleted records back.
func (s *Set) SyncStarts() error {
	var errs []error
	for _, d := range s.dirs {
		if !d.failed.Load() {
			err := d.d.CheckpointStarts()
			s.dirError(d, "checkpoint of log starts", err)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// storageError takes the partition's log directory offline when err says that its disk failed. Other
// partitions go on; the ones there answer KAFKA_STORAGE_ERROR from now on and are never acknowledged.
func (s *Set) storageError(p *Partition, err error) {
	if !errors.Is(err, storage.ErrOffline) {
		return
	}
	s.dirFailed(p.dir, err)
}

func (s *Set) dirFailed(d *dir, err error) {
	if !d.failed.CompareAndSwap(false, true) {
		return
	}
	for _, p := range s.all() {
		if p.dir == d {
			p.fail(kerr.KafkaStorageError)
		}
	}
	s.lost.Store(true)
	left := 0
	for _, o := range s.dirs {
		if !o.failed.Load() {
			left++
		}
	}
	s.o.Log.Error("log directory offline", "dir", d.d.Path(), "left", left, "err", err)
	if s.o.DirFailed != nil {
		s.o.DirFailed(d.d.Path(), err, left)
	}
}
