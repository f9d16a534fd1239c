package coord

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/client/pkg/v3/types"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/features"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"google.golang.org/grpc"

	"github.com/milena-mq/milena/internal/meta"
)

// prefix is where all keys live, so that one watch orders them all.
const prefix space = "/milena/"

const (
	defaultQuota = 2 << 30
	walSegment   = 16 << 20    // etcd's 64 MiB, twice, is 128 MB on disk for an empty broker
	compactKeep  = 10_000      // revisions kept for tails that fall behind
	reclaimAgain = time.Minute // between two attempts to make room
	spareBytes   = 8 << 20     // of the quota, for take-overs; at least a tenth of it, at most a third

	// A member that is alone has nobody to be polite to: it may campaign after one tick. With etcd's
	// own 100/1000 ms the broker would spend most of its start waiting for its own vote.
	soloTickMs        = 20
	soloElectionTicks = 2

	// With others it has: of several timers measured on one machine, these change leaders in under half a
	// second and never without need, with both processors busy.
	peerTick          = 50 * time.Millisecond
	peerElectionTicks = 6
)

// walSegmentOnce guards a package variable of etcd: it is the only way to choose the size.
var walSegmentOnce sync.Once

// Etcd is the store in this process: an etcd server used by direct calls. Alone it has no listener at all;
// as one of several members it is reached over the broker's peer address.
type Etcd struct {
	srv    *etcdserver.EtcdServer
	cli    *clientv3.Client
	log    *zapSlog
	lock   io.Closer
	id     Identity
	quota  int64
	ctx    context.Context // ends when the store closes, or fails
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// Only with a peer address.
	door    *door
	web     *http.Server
	rpc     *grpc.Server
	serving sync.WaitGroup // of the two servers
	others  *callers

	mu struct {
		sync.Mutex
		closed    bool
		err       error // why the store failed
		term      *Term
		leads     time.Time // since when this member leads and has no term
		reclaimed time.Time
		size      int64 // of the store's file when it last changed
		since     int64 // bytes appended since then: etcd counts them every 100 ms only
	}
}

var (
	_ Store  = (*Etcd)(nil)
	_ Quorum = (*Etcd)(nil)
)

// ErrWiped: this member took part before and its log is gone.
var ErrWiped = errors.New("coordination store: this member has lost its data")

// OpenEtcd starts the engine on its directory. It returns before the first election; Lead waits for
// that. A directory that another process uses gives vfs.ErrLocked in the chain. A member that has no data
// and is not alone waits for the others, see begin; ErrWiped and ErrNoMember refuse it.
func OpenEtcd(o EtcdOptions) (*Etcd, error) {
	walSegmentOnce.Do(func() { wal.SegmentSizeBytes = walSegment })
	if len(o.Cluster) > 1 && (o.Identity.Peer == "" || o.HTTP == nil || o.GRPC == nil) {
		return nil, errors.New("open coordination store: several members, and no peer address")
	}
	if err := o.FS.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open coordination store: %w", err)
	}
	// etcd's own lock waits for ever when another process holds it; ours says so at once.
	lock, err := o.FS.Lock(filepath.Join(o.Dir, ".lock"))
	if err != nil {
		return nil, fmt.Errorf("open coordination store %s: %w", o.Dir, err)
	}
	if o.QuotaBytes == 0 {
		o.QuotaBytes = defaultQuota
	}
	e := &Etcd{lock: lock, id: o.Identity, quota: o.QuotaBytes, log: newZapSlog(o.Log)}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	if err := e.start(&o); err != nil {
		e.cancel()
		e.stopServing()
		return nil, errors.Join(fmt.Errorf("open coordination store %s: %w", o.Dir, err), lock.Close())
	}
	return e, nil
}

func (e *Etcd) start(o *EtcdOptions) error {
	if o.HTTP != nil {
		e.door = &door{founders: foundersText(o.Cluster), list: e.bootMembers}
		e.door.set(stateFresh)
		if wal.Exist(filepath.Join(o.Dir, "member", "wal")) {
			e.door.set(stateMember)
		}
		if e.isFounding(o) {
			e.door.set(stateFounding)
		}
		e.serveHTTP(o.HTTP)
	}
	p, err := e.begin(o)
	if err != nil {
		return err
	}
	founding := e.isFounding(o)
	if e.door != nil && founding {
		e.door.set(stateFounding)
	}
	if e.srv, err = e.boot(o, p); err != nil {
		return err
	}
	// etcd syncs its log and the folder of it, not the way there. A power cut that takes the store and leaves the logs is the worst
	// there is: the next start finds a new cluster, and all logs are strays of it.
	if err := errors.Join(o.FS.SyncDir(filepath.Join(o.Dir, "member")), o.FS.SyncDir(o.Dir), o.FS.SyncDir(filepath.Dir(o.Dir))); err != nil {
		return err
	}
	e.log.running.Store(true)
	if e.door != nil {
		e.openDoor() // before the start, which looks for its peers at once
	}
	e.srv.Start()
	e.cli = v3client.New(e.srv)
	e.wg.Add(1)
	go e.watchServer()
	if e.door == nil {
		return nil
	}
	e.others = &callers{o: o}
	e.serveGRPC(o.GRPC)
	e.wg.Add(3)
	go e.announce(o)
	go e.steward()
	go e.sentinel(o)
	if founding {
		e.wg.Add(1)
		go e.founded(o)
	} else {
		e.door.set(stateMember)
	}
	return nil
}

// boot makes the server on a goroutine of its own. etcd ends a damaged directory with a panic or a
// fatal log line, also on goroutines that it starts; the hooks of zapSlog make either the end of that
// goroutine, and here it becomes an error. What such a boot leaves behind ends with the process.
func (e *Etcd) boot(o *EtcdOptions, p *plan) (*etcdserver.EtcdServer, error) {
	type result struct {
		srv *etcdserver.EtcdServer
		err error
	}
	done := make(chan result, 1)
	cfg := e.serverConfig(o, p)
	go func() {
		srv, err := etcdserver.NewServer(cfg)
		done <- result{srv, err}
	}()
	select {
	case r := <-done:
		return r.srv, r.err
	case m := <-e.log.fatal:
		return nil, fmt.Errorf("damaged: %s", m)
	}
}

// serverConfig is etcd's settings. It is long because each line is one of them.
func (e *Etcd) serverConfig(o *EtcdOptions, p *plan) config.ServerConfig {
	lg := e.log.logger()
	name := memberName(o.Identity.NodeID)
	urls := types.URLs{o.peerURL(e.ownAddr(o))} // alone it is a name, not an address: nobody listens there
	c := config.ServerConfig{
		Name:                name,
		DataDir:             o.Dir,
		PeerURLs:            urls,
		ClientURLs:          urls,
		InitialPeerURLsMap:  p.urlsMap(o),
		InitialClusterToken: "milena " + foundersText(o.Cluster),
		NewCluster:          p.found,
		TickMs:              soloTickMs,
		ElectionTicks:       soloElectionTicks,
		PreVote:             true,
		StrictReconfigCheck: true,

		// The raft log keeps this many entries in memory; at up to 3 MiB each the defaults
		// (10,000 and 5,000) would be a memory leak for whoever creates many topics.
		SnapshotCount:           1000,
		SnapshotCatchUpEntries:  100,
		MaxSnapFiles:            2,
		MaxWALFiles:             2,
		BackendBatchInterval:    100 * time.Millisecond,
		BackendBatchLimit:       10_000,
		BackendFreelistType:     "map",
		QuotaBackendBytes:       o.QuotaBytes,
		AutoCompactionMode:      "revision",
		AutoCompactionRetention: compactKeep,
		CompactionBatchLimit:    1000,
		CompactionSleepInterval: 10 * time.Millisecond,

		MaxTxnOps:                   MaxChanges + 24,
		MaxRequestBytes:             MaxBytes + 1<<20,
		MaxConcurrentStreams:        1024, // of one connection
		WarningApplyDuration:        time.Second,
		WarningUnaryRequestDuration: 2 * time.Second,
		DowngradeCheckTime:          time.Minute,
		BootstrapTimeout:            bootTimeout,
		BcryptCost:                  4, // of logins that do not exist
		MaxLearners:                 2, // one broker becomes three in one step
		UnsafeNoFsync:               o.NoSync,
		Logger:                      lg,
		ServerFeatureGate:           features.NewDefaultServerFeatureGate(name, lg),
		Metrics:                     "basic",
		V2Deprecation:               config.V2DeprDefault,
	}
	if o.maxOps > 0 {
		c.MaxTxnOps, c.MaxRequestBytes = o.maxOps, o.maxBytes
	}
	if o.HTTP == nil {
		return c
	}
	c.TickMs, c.ElectionTicks = uint(peerTick/time.Millisecond), peerElectionTicks
	if o.Tick > 0 {
		c.TickMs = uint(max(o.Tick/time.Millisecond, 1))
	}
	if o.ElectionTicks > 0 {
		c.ElectionTicks = o.ElectionTicks
	}
	c.InitialElectionTickAdvance = true // or a start waits a whole election timeout more
	// A broker that was down for a moment should find what it missed in the log; the whole store is the
	// other way, and slow.
	c.SnapshotCatchUpEntries = 500
	if o.TLS != nil {
		c.PeerTLSInfo = transport.TLSInfo{
			CertFile: o.TLS.Certificate, KeyFile: o.TLS.Key, TrustedCAFile: o.TLS.CA,
			ClientCertAuth: true, MinVersion: tls.VersionTLS13, Logger: lg,
		}
	}
	if o.Local != nil {
		c.PeerTLSInfo.LocalAddr, c.LocalAddress = o.Local.String(), o.Local.String()
	}
	return c
}

// Load implements Store.
func (e *Etcd) Load(ctx context.Context) (Snapshot, Revision, error) {
	r, err := e.get(ctx, string(prefix), clientv3.WithPrefix())
	if err != nil {
		return Snapshot{}, 0, fmt.Errorf("load coordination store: %w", err)
	}
	s, rev := prefix.snapshot(r)
	return s, rev, nil
}

// get reads from a quorum. A read that an election cut short is asked again: it changes nothing.
func (e *Etcd) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	for {
		if err := e.awaitLeader(ctx, false); err != nil {
			return nil, err
		}
		r, err := e.cli.Get(ctx, key, opts...)
		switch {
		case err == nil:
			return r, nil
		case e.ctx.Err() != nil:
			return nil, e.closed()
		case !errors.Is(err, rpctypes.ErrLeaderChanged) && !errors.Is(err, etcderrors.ErrLeaderChanged):
			return nil, err
		}
	}
}

// attach counts a goroutine in, unless the store is closing.
func (e *Etcd) attach() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		return false
	}
	e.wg.Add(1)
	return true
}

// Tail implements Store.
func (e *Etcd) Tail(ctx context.Context, from Revision) (<-chan Batch, error) {
	if !e.attach() {
		return nil, e.closed()
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(e.ctx, cancel)
	w := e.cli.Watch(clientv3.WithRequireLeader(ctx), string(prefix), clientv3.WithPrefix(), clientv3.WithRev(int64(from)+1))
	ch := make(chan Batch)
	go func() {
		defer e.wg.Done()
		defer close(ch)
		defer cancel()
		defer stop()
		for r := range w {
			if r.Err() != nil {
				return
			}
			for _, b := range prefix.split(r.Events) {
				select {
				case ch <- b:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return ch, nil
}

// Append implements Store.
func (e *Etcd) Append(ctx context.Context, t *Term, cs []meta.Change) (Revision, error) {
	if e.ctx.Err() != nil {
		return 0, e.closed()
	}
	if err := CheckSize(cs); err != nil {
		return 0, err
	}
	if !t.Ended() { // one that has ended is refused by what it finds there
		c, cancel := context.WithCancel(ctx)
		defer cancel()
		// A write of a member that was frozen is lost with its lead, and the engine waits five seconds for it. The same
		// member may be the next one to lead, and must not sleep through that (test/cluster/run silence freeze-store).
		go func() {
			select {
			case <-t.Done():
				cancel()
			case <-c.Done():
			}
		}()
		ctx = c
	}
	if err := e.checkRoom(ctx, cs); err != nil {
		return 0, err
	}
	return prefix.append(ctx, t, cs, e.commit)
}

// checkRoom refuses what would take the last room. etcd itself refuses everything at its limit, a take-over
// too: a cluster whose controller dies then would have none.
func (e *Etcd) checkRoom(ctx context.Context, cs []meta.Change) error {
	size := e.size(cs)
	if size > e.quota/2 && !e.log.repeat("quota", time.Now()) {
		e.log.log.Warn("coordination store is more than half full", "bytes", size, "limit", e.quota)
	}
	limit := e.quota - max(e.quota/10, min(spareBytes, e.quota/3))
	if size <= limit || !slices.ContainsFunc(cs, func(c meta.Change) bool { return c.Value != nil }) {
		return nil
	}
	if _, err := e.reclaim(ctx, true); err != nil {
		return fmt.Errorf("append %d changes: %w; reclaim space: %w", len(cs), ErrFull, err)
	}
	if e.size(nil) > limit {
		return fmt.Errorf("append %d changes: %w", len(cs), ErrFull)
	}
	return nil
}

// size is that of the store's file, what is on the way into it included, and then more: cs will be.
func (e *Etcd) size(cs []meta.Change) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := e.srv.Backend().Size(); n != e.mu.size {
		e.mu.size, e.mu.since = n, 0
	}
	size := e.mu.size + e.mu.since
	for _, c := range cs {
		e.mu.since += int64(len(c.Key) + len(c.Value))
	}
	return size
}

// commit writes under a condition. A store that is full of history is cleaned up and asked again, which
// is safe even where the first attempt was written after all: the same puts under the same condition.
func (e *Etcd) commit(ctx context.Context, when clientv3.Cmp, then ...clientv3.Op) (*clientv3.TxnResponse, error) {
	for attempt := 0; ; attempt++ {
		r, err := e.cli.Txn(ctx).If(when).Then(then...).Commit()
		if err == nil {
			return r, nil
		}
		if err = writeError(err); !errors.Is(err, ErrFull) || attempt == 2 {
			return nil, err
		}
		if room, rerr := e.reclaim(ctx, attempt > 0); rerr != nil {
			return nil, fmt.Errorf("%w; reclaim space: %w", err, rerr)
		} else if !room {
			return nil, err
		}
	}
}

// reclaim throws old revisions away, gives their space back and lifts the alarm that refuses writes; it
// says whether there is room now. Giving space back stalls a member while it copies what is left, so that
// happens once in reclaimAgain at most unless it helped, the others first. The alarm is lifted more often: etcd raises it from
// two places, and the second may come after the first was dealt with.
func (e *Etcd) reclaim(ctx context.Context, again bool) (room bool, err error) {
	full := func() bool { return e.srv.Backend().Size() > e.quota/4*3 }
	// Any member may be the one that is full: its file can be larger than ours for the same content.
	if full() || again {
		e.mu.Lock()
		now := time.Now()
		soon := now.Sub(e.mu.reclaimed) < reclaimAgain
		if !soon {
			e.mu.reclaimed = now
		}
		e.mu.Unlock()
		switch {
		case !soon:
			if err := e.giveBack(ctx); err != nil {
				return false, err
			}
			if e.srv.Backend().Size() < e.quota/3 {
				// It was worth its price, and will be again when as much has been written.
				e.mu.Lock()
				e.mu.reclaimed = time.Time{}
				e.mu.Unlock()
			}
		case full():
			return false, nil
		}
	}
	if full() {
		return false, nil
	}
	_, err = e.cli.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	return err == nil, err
}

func (e *Etcd) giveBack(ctx context.Context) error {
	e.log.log.Warn("coordination store is full: throwing old revisions away")
	if _, err := e.cli.Compact(ctx, e.srv.KV().Rev(), clientv3.WithCompactPhysical()); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return err
	}
	if e.others != nil {
		for _, m := range e.srv.Cluster().Members() {
			if m.ID == e.srv.MemberID() {
				continue
			}
			// A member that is down gives its space back when it is full itself.
			if err := e.others.defragment(ctx, urlAddr(m.PeerURLs)); err != nil {
				e.log.log.Warn("a member of the coordination store did not give space back", "member", urlAddr(m.PeerURLs), "error", err)
			}
		}
	}
	return e.srv.Defragment()
}

// closed is the error of whatever comes after the end.
func (e *Etcd) closed() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.err != nil {
		return e.mu.err
	}
	return ErrClosed
}

// Done is closed when the store has ended: by Close, or because this member was removed from the quorum.
func (e *Etcd) Done() <-chan struct{} { return e.ctx.Done() }

// Err is why the store ended by itself, nil otherwise. ErrClosed is in its chain.
func (e *Etcd) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mu.err
}

// watchServer ends everything when the engine ends by itself.
func (e *Etcd) watchServer() {
	defer e.wg.Done()
	select {
	case <-e.ctx.Done():
		return
	case <-e.srv.StopNotify():
	}
	why := e.log.reason()
	err := fmt.Errorf("%w: the engine of this member has stopped: %s", ErrClosed, why)
	if strings.Contains(why, "removed") {
		err = fmt.Errorf("%w: broker %d was removed from the quorum; start it with join instead of cluster, or, where it was added again, remove %s first", ErrClosed, e.id.NodeID, e.srv.Cfg.MemberDir())
	}
	e.mu.Lock()
	closed, t := e.mu.closed, e.mu.term
	if !closed {
		e.mu.err = err
	}
	e.mu.Unlock()
	if closed {
		return
	}
	if t != nil {
		t.End()
	}
	e.log.log.Error("coordination store ended", "error", err)
	e.cancel()
}

// Close implements Store. Writes in flight end with ErrUnknown. A member that leads gives the lead to
// another one first, which then takes over within milliseconds instead of after an election timeout.
func (e *Etcd) Close() error { return e.close(true) }

func (e *Etcd) close(orderly bool) error {
	e.mu.Lock()
	if e.mu.closed {
		e.mu.Unlock()
		return nil
	}
	e.mu.closed = true
	t := e.mu.term
	e.mu.Unlock()
	e.log.closing.Store(true) // etcd calls an orderly end errors, with stack traces
	if t != nil {
		t.End()
	}
	if orderly && e.door != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeMove)
		e.moveLead(ctx)
		cancel()
	}
	e.cancel()
	e.wg.Wait()
	err := e.cli.Close()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	e.stopServing()
	e.srv.HardStop()
	return errors.Join(err, e.lock.Close())
}

// stopServing ends what listens and the connections to other members.
func (e *Etcd) stopServing() {
	if e.rpc != nil {
		e.rpc.Stop()
	}
	if e.web != nil {
		_ = e.web.Close()
	}
	e.serving.Wait()
	if e.others != nil {
		e.others.close()
	}
}
