package broker

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/milena-mq/milena/internal/api"
	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/controller"
	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/marker"
	"github.com/milena-mq/milena/internal/member"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/metric"
	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/replica"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/session"
	"github.com/milena-mq/milena/internal/shard"
	"github.com/milena-mq/milena/internal/storage"
	"github.com/milena-mq/milena/internal/vfs"
)

// Options is what a broker is started with.
type Options struct {
	Static  *config.Static
	Log     *slog.Logger
	Version string
}

// startTimeout bounds what a start waits for the coordination store. Recovery of the logs has no bound:
// it always makes progress.
const startTimeout = 60 * time.Second

// Broker is one running broker.
type Broker struct {
	o         Options
	log       *slog.Logger
	began     time.Time
	took      time.Duration
	nodeID    int32
	clusterID string
	dirs      []string

	open      []*storage.Dir
	peers     peering
	store     coord.Store
	ctl       *controller.Controller
	member    *member.Member
	set       *partition.Set
	replicas  *replica.Manager
	groups    *shard.Groups
	txns      *shard.Txns
	markers   *marker.Writer
	env       *api.Env
	srv       *server.Server
	listeners []config.Listener // as configured; socks holds the open socket of each
	socks     []net.Listener
	metrics   *http.Server
	scrape    net.Listener
	ends      []meta.Endpoint // as registered

	failed  chan error    // the first reason to end, from wherever it comes
	done    chan struct{} // closed by Close
	stopped atomic.Bool
	wg      sync.WaitGroup
}

// Start opens everything and returns a broker that serves. What it opened is closed again when it fails;
// the error is one line.
func Start(ctx context.Context, o Options) (_ *Broker, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &Broker{o: o, log: o.Log, began: time.Now(), failed: make(chan error, 4), done: make(chan struct{}), nodeID: config.NodeID.Static(o.Static)}
	defer func() {
		if err != nil {
			b.abandon()
		}
	}()
	if err := b.openDirs(); err != nil {
		return nil, err
	}
	if err := b.openPeers(ctx); err != nil {
		return nil, err
	}
	catalog := metric.New()
	if err := b.openMetadata(ctx); err != nil {
		return nil, err
	}
	b.follow()
	if err := b.listen(ctx, catalog); err != nil {
		return nil, err
	}
	b.srv.StartPeers()
	if err := b.register(ctx); err != nil {
		return nil, err
	}
	b.srv.Start()
	b.took = time.Since(b.began)
	b.wg.Go(b.watch)
	b.log.Info("broker started", "node", b.nodeID, "cluster", b.clusterID, "addr", b.Addr(), "ms", b.took.Milliseconds())
	return b, nil
}

func newUUID() meta.UUID {
	var u meta.UUID
	for u.IsZero() || u.String()[0] == '-' {
		_, _ = rand.Read(u[:]) // never fails: crypto/rand ends the process instead
	}
	return u
}

func randomIn(n int) int {
	if n < 2 {
		return 0
	}
	var b [8]byte
	_, _ = rand.Read(b[:])
	return int(binary.LittleEndian.Uint64(b[:]) % uint64(n))
}

// openDirs locks the data directories and begins the Set on them. The first one also holds the
// coordination store.
func (b *Broker) openDirs() error {
	l := config.Layers{Static: b.o.Static}
	b.dirs = config.DataDirs(l)
	var offline []string
	for i, path := range b.dirs {
		d, err := storage.OpenDir(vfs.OS, path, storage.DirOptions{
			NodeID: b.nodeID, NewID: newUUID, Reserve: config.LogDirReserveBytes.Of(l),
		})
		switch {
		case err == nil:
			b.open = append(b.open, d)
		case i == 0 || errors.Is(err, storage.ErrLocked) || errors.Is(err, storage.ErrForeign) || errors.Is(err, storage.ErrFormat):
			return err
		default:
			// One dead disk of several: the others serve (KIP-112).
			b.log.Error("log directory offline", "dir", path, "err", err)
			offline = append(offline, path)
		}
	}
	b.set = partition.NewSet(partition.Options{
		NodeID: b.nodeID, Dirs: b.open, Offline: offline, Static: b.o.Static, Clock: time.Now, Log: b.log,
		DirFailed: func(path string, err error, left int) {
			if left == 0 {
				b.fail(fmt.Errorf("the last log directory is offline: %w", err))
			}
		},
	})
	return nil
}

// openMetadata starts the coordination store and the controller while the logs are recovered: with much
// data either takes a while, and neither needs the other.
func (b *Broker) openMetadata(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	recovered := make(chan error, 1)
	go func() { recovered <- b.set.Load(nil) }()
	err := b.lead(ctx)
	if err2 := <-recovered; err2 != nil && err == nil {
		err = err2
	}
	return err
}

func (b *Broker) lead(ctx context.Context) (err error) {
	known := ""
	for _, d := range b.open {
		id, err := d.ClusterID()
		if err != nil {
			return err
		}
		if known == "" {
			known = id
		}
	}
	// Kept only when it opened: an engine's nil pointer in the interface would be no nil when it is closed.
	store, err := b.openStore(ctx, known)
	if err != nil {
		return err
	}
	b.store = store
	b.ctl = controller.New(controller.Options{
		Store: b.store, NodeID: b.nodeID, ClusterID: known, Static: b.o.Static, NewID: newUUID, Rand: randomIn, Log: b.log,
	})
	if err := b.ctl.Start(ctx); err != nil {
		return err
	}
	if err := b.awaitController(ctx, known); err != nil {
		return err
	}
	b.clusterID = b.ctl.Image().ClusterID()
	return nil
}

// awaitController waits until somebody may write. Who only joins never may: a record that names this broker
// is then of another one with its number, which would be waited for in vain. With a store elsewhere it may
// also be of this broker's last process, whose term has to run out first.
func (b *Broker) awaitController(ctx context.Context, known string) error {
	mine := func() bool { id, _ := b.ctl.Image().Controller(); return id == b.nodeID }
	taken := fmt.Errorf("broker id %d is taken: the controller has this id; choose another node.id", b.nodeID)
	if b.peers.Join != nil && mine() {
		if id := b.ctl.Image().ClusterID(); known != "" && known != id {
			return fmt.Errorf("the data directories belong to cluster %s, but the coordination store to cluster %s", known, id)
		}
		return taken
	}
	err := b.ctl.Ready(ctx)
	if errors.Is(err, context.DeadlineExceeded) && mine() && !b.ctl.Leads() {
		return taken
	}
	return err
}

// follow lets partitions and groups hear of every change of the metadata, the present state first.
func (b *Broker) follow() {
	b.groups = shard.NewGroups(groupOptions(b.o.Static, b.log))
	b.coordinate(shard.GroupsTopic, b.groups)
	b.newTxns()
	b.set.Start()
	b.member = b.newMember()
	b.replicas = replica.New(replica.Options{
		NodeID: b.nodeID, Epoch: b.member.Epoch, Image: b.ctl.Image, Set: b.set, Dialer: b.peers.dialer,
		Controller: b.member.Do, Static: b.o.Static, Log: b.log, Clock: time.Now,
	})
	first := true
	b.ctl.Subscribe(func(im *meta.Image, d *meta.Delta) {
		b.groups.Apply(im, d)
		b.txns.Apply(im)
		if first {
			first, d = false, nil
		}
		// Roles first: who fetches has to find its partition a follower.
		b.set.Apply(im, d)
		b.replicas.Apply(im, d)
		b.markers.Apply(d)
	})
	b.replicas.Start()
}

// listen opens the sockets, without accepting yet.
func (b *Broker) listen(ctx context.Context, catalog *metric.Catalog) error {
	l := config.Layers{Static: b.o.Static}
	var err error
	if b.listeners, err = config.ParseListeners(l); err != nil {
		return err
	}
	var opts []server.ListenerOptions
	for _, x := range b.listeners {
		s, err := server.Listen(ctx, x.Address(), config.NetworkCongestionControl.Of(l))
		if err != nil {
			return fmt.Errorf("listen at %s: %w", x, err)
		}
		b.socks = append(b.socks, s)
		opts = append(opts, server.ListenerOptions{Name: x.Name, MaxFrame: config.SocketRequestMaxBytes.Of(l), Listener: s})
	}
	if b.ends, err = b.endpoints(); err != nil {
		return err
	}
	if b.peers.mux != nil {
		opts = append(opts, server.ListenerOptions{Name: config.PeerListenerName, Peer: true, MaxFrame: config.SocketRequestMaxBytes.Of(l), Listener: b.peers.mux.Kafka()})
	}
	b.env = &api.Env{
		NodeID: b.nodeID, Image: b.ctl.Image, Partitions: b.set, Groups: b.groups, Txns: b.txns, Ask: b.ask, Controller: b.ctl,
		Sessions: session.New(session.Options{
			Slots: int(config.MaxIncrementalFetchSessionCacheSlots.Of(l)),
			NewID: func() int32 { return int32(randomIn(1<<31-1)) + 1 },
		}),
		Static: b.o.Static, Log: b.log, Metrics: catalog, Clock: time.Now,
		Forward: b.member.Do, Leads: b.ctl.Leads, Epoch: b.member.Epoch, Current: b.member.Current, Quorum: b.quorum(),
	}
	b.srv = server.New(server.Options{
		Handler: api.New(b.env), Listeners: opts, Log: b.log, Metrics: catalog,
		MemoryBudget:   config.QueuedMaxRequestBytes.Of(l),
		MaxIdle:        idle(config.ConnectionsMaxIdleMs.Of(l)),
		MaxConnections: int(config.MaxConnections.Of(l)),
		MaxPerIP:       int(config.MaxConnectionsPerIP.Of(l)),
		MaxRate:        int(config.MaxConnectionCreationRate.Of(l)),
	})
	b.set.Measure(catalog)
	b.replicas.Measure(catalog)
	return b.serveMetrics(config.MetricsListener.Of(l), catalog)
}

func idle(ms int64) time.Duration {
	if ms < 0 || ms > int64(1<<62/time.Millisecond) {
		return -1
	}
	return max(time.Duration(ms)*time.Millisecond, time.Millisecond)
}

// register tells the controller who we are, and takes part once the image shows it: only then do clients
// see this broker, and only then does it lead.
func (b *Broker) register(ctx context.Context) error {
	if _, err := b.member.Register(ctx); err != nil {
		return err
	}
	// Only now: a broker that is refused, for its number or its cluster, leaves its directories as they were.
	for _, d := range b.open {
		if err := d.Adopt(b.clusterID, b.nodeID); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return b.member.Ready(ctx)
}

// endpoints is what clients are told, with the ports that the system chose where the configuration left
// that open.
func (b *Broker) endpoints() ([]meta.Endpoint, error) {
	told, err := config.ParseAdvertised(config.Layers{Static: b.o.Static}, b.listeners)
	if err != nil {
		return nil, err
	}
	var out []meta.Endpoint
	for _, t := range told {
		port := t.Port
		for i, x := range b.listeners {
			if x.Name == t.Name && port == 0 {
				port = portOf(b.socks[i])
			}
		}
		out = append(out, meta.Endpoint{Listener: t.Name, Host: t.Host, Port: port, Protocol: t.Protocol})
	}
	if e, ok := b.peers.endpoint(); ok {
		out = append(out, e)
	}
	return out, nil
}

func portOf(s net.Listener) int32 {
	if a, ok := s.Addr().(*net.TCPAddr); ok {
		return int32(a.Port)
	}
	return 0
}

// serveMetrics opens the scrape address, where one is configured.
func (b *Broker) serveMetrics(addr string, catalog *metric.Catalog) error {
	if addr == "" {
		return nil
	}
	s, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for metrics at %s: %w", addr, err)
	}
	b.scrape = s
	b.metrics = &http.Server{Handler: catalog.Handler(b.Healthy), ReadHeaderTimeout: 5 * time.Second}
	b.wg.Go(func() { _ = b.metrics.Serve(s) })
	return nil
}
