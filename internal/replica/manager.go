package replica

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/metric"
	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/peer"
)

// Options is what a Manager needs.
type Options struct {
	NodeID int32
	// Epoch is the broker epoch of this incarnation's registration, below 0 before there is one: nothing is
	// fetched then.
	Epoch func() int64
	// Image is the newest image, until the first Apply; later ones come with Apply.
	Image func() *meta.Image
	Set   *partition.Set
	// Dialer opens the connections to leaders, at the endpoint config.PeerListenerName of their registrations.
	Dialer *peer.Dialer
	// Controller sends a request to the active controller, wherever it is, and returns its answer.
	Controller func(ctx context.Context, req kmsg.Request) (kmsg.Response, error)
	Static     *config.Static
	Log        *slog.Logger // nil: silent
	Clock      func() time.Time

	dial func(ctx context.Context, addr string) (link, error) // tests: instead of Dialer
}

// link is a connection to a leader.
type link interface {
	Start(ctx context.Context, req kmsg.Request, buf []byte) (pending, error)
	Close() error
}

// pending is a request under way.
type pending interface {
	Done() <-chan struct{}
	Answer() (kmsg.Response, []byte, error)
}

// conn makes a link of a *peer.Conn.
type conn struct{ c *peer.Conn }

func (c conn) Start(ctx context.Context, req kmsg.Request, buf []byte) (pending, error) {
	return c.c.Start(ctx, req, buf)
}
func (c conn) Close() error { return c.c.Close() }

// key names a partition.
type key struct {
	id meta.UUID
	n  int32
}

// Manager runs the fetchers. All methods are safe for concurrent use.
type Manager struct {
	o      Options
	log    *slog.Logger
	image  atomic.Pointer[meta.Image]
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	stats  counters

	mu struct {
		sync.Mutex
		started  bool
		closed   bool
		fetchers map[source]*fetcher
		of       map[key]*fetcher
		n        int32 // num.replica.fetchers, as the partitions are dealt out
	}
}

// source is one of the fetchers from a leader.
type source struct {
	leader int32
	n      int32
}

// counters are kept for Stats.
type counters struct {
	bytes, fetches, failures, proposals atomic.Int64
}

// Stats counts since the start; for metrics and tests.
type Stats struct {
	Fetchers   int   // running
	Partitions int   // followed
	Bytes      int64 // of records taken from leaders
	Fetches    int64 // requests answered
	Failures   int64 // answers of a partition that were an error
	Proposals  int64 // changes of in-sync sets sent to the controller
}

// New makes a Manager; it subscribes to the Set, so it comes before the Set's first Apply. Nothing is fetched
// before Start.
func New(o Options) *Manager {
	m := &Manager{o: o, log: o.Log}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.o.Clock == nil {
		m.o.Clock = time.Now
	}
	if m.o.dial == nil {
		m.o.dial = func(ctx context.Context, addr string) (link, error) {
			c, err := o.Dialer.Dial(ctx, addr)
			if err != nil {
				return nil, err
			}
			return conn{c}, nil
		}
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.mu.fetchers = map[source]*fetcher{}
	m.mu.of = map[key]*fetcher{}
	o.Set.OnFollow(m.follow)
	return m
}

// Start begins to fetch and to send proposals.
func (m *Manager) Start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.started || m.mu.closed {
		return
	}
	m.mu.started = true
	m.wg.Go(m.proposer)
	for _, f := range m.mu.fetchers {
		m.wg.Go(f.run)
	}
}

// Close ends all fetchers and returns when none runs. It comes before the Set is closed.
func (m *Manager) Close() {
	m.mu.Lock()
	m.mu.closed = true
	m.mu.Unlock()
	m.cancel()
	m.wg.Wait()
}

// Apply hears of a new image, after the Set has. Only addresses matter here: roles come from the Set.
func (m *Manager) Apply(im *meta.Image, d *meta.Delta) {
	m.image.Store(im)
	if d != nil && len(d.Brokers) == 0 && len(d.Configs) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spreadLocked()
	for s, f := range m.mu.fetchers {
		if d != nil {
			if _, ok := d.Brokers[s.leader]; !ok {
				continue
			}
		}
		f.moved()
	}
}

// addr is where a broker's peers reach it, "" when the image does not tell.
func (m *Manager) addr(id int32) string {
	im := m.image.Load()
	if im == nil && m.o.Image != nil {
		im = m.o.Image()
	}
	if im == nil {
		return ""
	}
	b := im.Broker(id)
	if b == nil {
		return ""
	}
	e, ok := b.Endpoint(config.PeerListenerName)
	if !ok {
		return ""
	}
	return e.Address()
}

// spreadLocked deals the partitions out anew when num.replica.fetchers has changed.
func (m *Manager) spreadLocked() {
	n := m.fetchersOf()
	if n == m.mu.n {
		return
	}
	m.mu.n = n
	for k, x := range m.mu.of {
		if x.source.n == int32(spread(k)%uint32(n)) {
			continue
		}
		// The new fetcher may begin before the old one has read its note: what the old one then takes is checked as
		// every answer is, and the new one asks again.
		if p, err := m.o.Set.GetByID(k.id, k.n); err == nil {
			m.followLocked(k, p.Follower())
		}
	}
}

func (m *Manager) fetchersOf() int32 {
	return max(config.NumReplicaFetchers.Of(m.o.Set.BrokerLayers()), 1)
}

// follow is the subscription to the Set.
func (m *Manager) follow(p *partition.Partition, f *partition.Follower) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.followLocked(key{p.TopicID(), p.TopicPartition().Partition}, f)
}

func (m *Manager) followLocked(k key, f *partition.Follower) {
	if old := m.mu.of[k]; old != nil {
		old.note(note{key: k})
		delete(m.mu.of, k)
	}
	if f == nil || m.mu.closed {
		return
	}
	leader, _ := f.Leader()
	if m.mu.n == 0 {
		m.mu.n = m.fetchersOf()
	}
	s := source{leader, int32(spread(k) % uint32(m.mu.n))}
	x := m.mu.fetchers[s]
	if x == nil {
		x = newFetcher(m, s)
		m.mu.fetchers[s] = x
		if m.mu.started {
			m.wg.Go(x.run)
		}
	}
	m.mu.of[k] = x
	x.note(note{key: k, f: f})
}

// spread hashes a partition to one of several fetchers.
func spread(k key) uint32 {
	h := uint32(2166136261)
	for _, b := range k.id {
		h = (h ^ uint32(b)) * 16777619
	}
	return (h ^ uint32(k.n)) * 16777619 >> 3
}

// ended takes out a fetcher that has nothing to fetch; false when it just got something.
func (m *Manager) ended(f *fetcher) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.mu.notes) > 0 {
		return false
	}
	if m.mu.fetchers[f.source] == f {
		delete(m.mu.fetchers, f.source)
	}
	return true
}

// Stats counts.
func (m *Manager) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Stats{
		Fetchers: len(m.mu.fetchers), Partitions: len(m.mu.of),
		Bytes: m.stats.bytes.Load(), Fetches: m.stats.fetches.Load(),
		Failures: m.stats.failures.Load(), Proposals: m.stats.proposals.Load(),
	}
}

// Measure publishes the counts.
func (m *Manager) Measure(c *metric.Catalog) {
	c.GaugeFunc("milena_replica_fetchers", "Connections over which this broker follows others.", func() float64 { return float64(m.Stats().Fetchers) })
	c.GaugeFunc("milena_followed_partitions", "Partitions that this broker follows.", func() float64 { return float64(m.Stats().Partitions) })
	c.CounterFunc("milena_replication_bytes_in_total", "Bytes of records taken from leaders.", func() float64 { return float64(m.stats.bytes.Load()) })
	c.CounterFunc("milena_replica_fetches_total", "Fetches that leaders have answered.", func() float64 { return float64(m.stats.fetches.Load()) })
	c.CounterFunc("milena_replica_fetch_errors_total", "Answers for one partition that were an error or could not be taken.", func() float64 { return float64(m.stats.failures.Load()) })
	c.CounterFunc("milena_isr_proposals_total", "Changes of in-sync sets sent to the controller, repetitions included.", func() float64 { return float64(m.stats.proposals.Load()) })
}
