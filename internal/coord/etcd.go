package coord

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/types"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/features"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs"
)

// prefix is where all keys live, so that one watch orders them all.
const prefix = "/milena/"

// EtcdOptions is what the embedded engine needs to know.
type EtcdOptions struct {
	Dir        string   // its own directory, "coord" below the data directory
	FS         vfs.FS   // for the lock on Dir; etcd itself always uses the operating system
	Identity   Identity // written into the controller record
	Log        *slog.Logger
	QuotaBytes int64 // size at which etcd refuses writes; 0: 2 GiB
	NoSync     bool  // for tests only: loses data in a crash

	// Cluster is the members that begin the store together, this broker among them; Identity.Peer is its
	// own entry. Empty for a broker that began alone; with Identity.Peer set others may join that one.
	Cluster []Peer
	// HTTP and GRPC carry raft and the client API, both at Identity.Peer: two shares of one port. Closed by
	// Close. Nil for a broker without a peer address.
	HTTP, GRPC net.Listener
	TLS        *TLS   // towards other members; nil: in the clear
	Local      net.IP // source address of connections, nil for the system's choice
	// Tick and ElectionTicks are raft's, used when there is a peer address. 0: 50 ms and 6. Networks with
	// slower round trips need more; an election takes one to two times their product.
	Tick          time.Duration
	ElectionTicks int
	// Start bounds the wait of a member that has no data yet for the others; nil: as long as it takes.
	Start context.Context
}

// TLS is how members of the store reach each other: files, because etcd's transport reads them itself, and
// the same as a configuration of the dialling side.
type TLS struct {
	Certificate, Key, CA string
	Client               *tls.Config
}

const (
	defaultQuota = 2 << 30
	walSegment   = 16 << 20 // etcd's 64 MiB, twice, is 128 MB on disk for an empty broker
	compactKeep  = 10_000   // revisions kept for tails that fall behind
	memberName   = "milena"
	reclaimAgain = time.Minute // between two attempts to make room

	// A member that is alone has nobody to be polite to: it may campaign after one tick. With etcd's
	// own 100/1000 ms the broker would spend most of its start waiting for its own vote.
	soloTickMs        = 20
	soloElectionTicks = 2
)

// walSegmentOnce guards a package variable of etcd: it is the only way to choose the size.
var walSegmentOnce sync.Once

// Etcd is the store in this process: an etcd server without any listener, used by direct calls. With
// one member nothing dials it and nothing needs a port.
type Etcd struct {
	srv    *etcdserver.EtcdServer
	cli    *clientv3.Client
	log    *zapSlog
	lock   io.Closer
	id     Identity
	quota  int64
	ctx    context.Context // ends when the store closes
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu struct {
		sync.Mutex
		closed    bool
		term      *Term
		reclaimed time.Time
	}
}

var _ Store = (*Etcd)(nil)

// OpenEtcd starts the engine on its directory. It returns before the first election; Lead waits for
// that. A directory that another process uses gives vfs.ErrLocked in the chain.
func OpenEtcd(o EtcdOptions) (*Etcd, error) {
	walSegmentOnce.Do(func() { wal.SegmentSizeBytes = walSegment })
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
	if e.srv, err = e.boot(o); err != nil {
		e.cancel()
		return nil, errors.Join(fmt.Errorf("open coordination store %s: %w", o.Dir, err), lock.Close())
	}
	e.log.running.Store(true)
	e.srv.Start()
	e.cli = v3client.New(e.srv)
	return e, nil
}

// boot makes the server on a goroutine of its own. etcd ends a damaged directory with a panic or a
// fatal log line, also on goroutines that it starts; the hooks of zapSlog make either the end of that
// goroutine, and here it becomes an error. What such a boot leaves behind ends with the process.
func (e *Etcd) boot(o EtcdOptions) (*etcdserver.EtcdServer, error) {
	type result struct {
		srv *etcdserver.EtcdServer
		err error
	}
	done := make(chan result, 1)
	cfg, err := e.serverConfig(o)
	if err != nil {
		return nil, err
	}
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

func (e *Etcd) serverConfig(o EtcdOptions) (config.ServerConfig, error) {
	peer := types.URLs{url.URL{Scheme: "http", Host: "localhost:2380"}} // a name, not an address: nobody listens there
	lg := e.log.logger()
	return config.ServerConfig{
		Name:                memberName,
		DataDir:             o.Dir,
		PeerURLs:            peer,
		ClientURLs:          peer,
		InitialPeerURLsMap:  types.URLsMap{memberName: peer},
		InitialClusterToken: memberName,
		NewCluster:          true,
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
		WarningApplyDuration:        time.Second,
		WarningUnaryRequestDuration: 2 * time.Second,
		DowngradeCheckTime:          time.Minute,
		BootstrapTimeout:            5 * time.Second,
		BcryptCost:                  4, // of logins that do not exist
		MaxLearners:                 1,
		UnsafeNoFsync:               o.NoSync,
		Logger:                      lg,
		ServerFeatureGate:           features.NewDefaultServerFeatureGate(memberName, lg),
		Metrics:                     "basic",
		V2Deprecation:               config.V2DeprDefault,
	}, nil
}

// Load implements Store.
func (e *Etcd) Load(ctx context.Context) (Snapshot, Revision, error) {
	r, err := e.get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return Snapshot{}, 0, fmt.Errorf("load coordination store: %w", err)
	}
	s := Snapshot{Changes: make([]meta.Change, len(r.Kvs))}
	for i, kv := range r.Kvs {
		s.Changes[i] = meta.Change{Key: string(kv.Key[len(prefix):]), Value: kv.Value, Rev: kv.ModRevision}
	}
	return s, Revision(r.Header.Revision), nil
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
			return nil, ErrClosed
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
		return nil, ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(e.ctx, cancel)
	w := e.cli.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithRev(int64(from)+1))
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
			for _, b := range split(r.Events) {
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

// split cuts the events of one answer, which may span several appends when a tail catches up, at
// the revisions. etcd never cuts one revision in two.
func split(es []*clientv3.Event) []Batch {
	var out []Batch
	for _, ev := range es {
		c := meta.Change{Key: string(ev.Kv.Key[len(prefix):]), Value: ev.Kv.Value, Rev: ev.Kv.ModRevision}
		if ev.Type == clientv3.EventTypeDelete {
			c.Value = nil
		}
		if n := len(out); n == 0 || out[n-1].Rev != Revision(c.Rev) {
			out = append(out, Batch{Rev: Revision(c.Rev)})
		}
		b := &out[len(out)-1]
		b.Changes = append(b.Changes, c)
	}
	return out
}

// Lead implements Store: the broker that leads the embedded engine is the controller.
func (e *Etcd) Lead(ctx context.Context) (*Term, error) {
	if err := e.awaitLeader(ctx, true); err != nil {
		return nil, err
	}
	key := prefix + meta.KeyController
	g, err := e.get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("take the lead: %w", err)
	}
	var was meta.ControllerRecord
	var mod int64
	if len(g.Kvs) > 0 {
		if was, err = meta.DecodeController(g.Kvs[0].Value); err != nil {
			return nil, fmt.Errorf("take the lead: %w", err)
		}
		mod = g.Kvs[0].ModRevision
	}
	c := meta.PutController(e.id.Record(was.Epoch + 1))
	r, err := e.commit(ctx, clientv3.Compare(clientv3.ModRevision(key), "=", mod), clientv3.OpPut(key, string(c.Value)))
	if err != nil {
		return nil, fmt.Errorf("take the lead: %w", err)
	}
	if !r.Succeeded {
		return nil, fmt.Errorf("take the lead: %w", ErrFenced)
	}
	t := NewTerm(was.Epoch+1, Revision(r.Header.Revision))
	e.mu.Lock()
	old := e.mu.term
	e.mu.term = t
	e.mu.Unlock()
	if old != nil {
		old.End()
	}
	if !e.attach() {
		t.End()
		return nil, ErrClosed
	}
	go e.watchTerm(t)
	return t, nil
}

// awaitLeader returns when the engine has a leader; with self, when this member leads it.
func (e *Etcd) awaitLeader(ctx context.Context, self bool) error {
	for {
		changed := e.srv.LeaderChangedNotify() // before the look, or a change between the two is missed
		if l := e.srv.Leader(); l != 0 && (!self || l == e.srv.MemberID()) {
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.ctx.Done():
			return ErrClosed
		case <-e.srv.StopNotify():
			return ErrClosed
		}
	}
}

// watchTerm ends a term when this member no longer leads the engine.
func (e *Etcd) watchTerm(t *Term) {
	defer e.wg.Done()
	defer t.End()
	for {
		changed := e.srv.LeaderChangedNotify()
		if e.srv.Leader() != e.srv.MemberID() {
			return
		}
		select {
		case <-changed:
		case <-t.Done():
			return
		case <-e.ctx.Done():
			return
		case <-e.srv.StopNotify():
			return
		}
	}
}

// Append implements Store.
func (e *Etcd) Append(ctx context.Context, t *Term, cs []meta.Change) (Revision, error) {
	if err := CheckSize(cs); err != nil {
		return 0, err
	}
	if e.ctx.Err() != nil {
		return 0, ErrClosed
	}
	ops := make([]clientv3.Op, len(cs))
	for i, c := range cs {
		if c.Value == nil {
			ops[i] = clientv3.OpDelete(prefix + c.Key)
		} else {
			ops[i] = clientv3.OpPut(prefix+c.Key, string(c.Value))
		}
	}
	r, err := e.commit(ctx, clientv3.Compare(clientv3.ModRevision(prefix+meta.KeyController), "=", int64(t.Token)), ops...)
	if err != nil {
		return 0, fmt.Errorf("append %d changes: %w", len(cs), err)
	}
	if !r.Succeeded {
		t.End()
		return 0, ErrFenced
	}
	return Revision(r.Header.Revision), nil
}

// commit writes under a condition. A store that is full of history is cleaned up and asked again, which
// is safe even where the first attempt was written after all: the same puts under the same condition.
func (e *Etcd) commit(ctx context.Context, when clientv3.Cmp, then ...clientv3.Op) (*clientv3.TxnResponse, error) {
	for attempt := 0; ; attempt++ {
		r, err := e.cli.Txn(ctx).If(when).Then(then...).Commit()
		if err == nil {
			return r, nil
		}
		if err = e.writeError(err); !errors.Is(err, ErrFull) || attempt == 2 {
			return nil, err
		}
		if room, rerr := e.reclaim(ctx); rerr != nil {
			return nil, fmt.Errorf("%w; reclaim space: %w", err, rerr)
		} else if !room {
			return nil, err
		}
	}
}

// reclaim throws old revisions away, gives their space back and lifts the alarm that refuses writes; it
// says whether there is room now. Giving space back stalls the store while it copies what is left, so
// that happens once in reclaimAgain at most. The alarm is lifted more often: etcd raises it from two
// places, and the second may come after the first was dealt with.
func (e *Etcd) reclaim(ctx context.Context) (room bool, err error) {
	full := func() bool { return e.srv.Backend().Size() > e.quota/4*3 }
	if full() {
		e.mu.Lock()
		now := time.Now()
		soon := now.Sub(e.mu.reclaimed) < reclaimAgain
		if !soon {
			e.mu.reclaimed = now
		}
		e.mu.Unlock()
		if soon {
			return false, nil
		}
		e.log.log.Warn("coordination store is full: throwing old revisions away")
		if _, err := e.cli.Compact(ctx, e.srv.KV().Rev(), clientv3.WithCompactPhysical()); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
			return false, err
		}
		if err := e.srv.Defragment(); err != nil {
			return false, err
		}
	}
	if full() {
		return false, nil
	}
	_, err = e.cli.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	return err == nil, err
}

// writeError sorts what etcd says of a write. Anything that is not surely a refusal is unknown: the
// proposal may be in the log already.
func (e *Etcd) writeError(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace) || errors.Is(rpctypes.Error(err), rpctypes.ErrNoSpace):
		// etcd says so also after it has written: where it notices while applying.
		return fmt.Errorf("%w; %w", ErrFull, ErrUnknown)
	case errors.Is(rpctypes.Error(err), rpctypes.ErrRequestTooLarge), errors.Is(rpctypes.Error(err), rpctypes.ErrTooManyOps):
		return ErrTooLarge
	case errors.Is(rpctypes.Error(err), rpctypes.ErrDuplicateKey):
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// Close implements Store. Writes in flight end with ErrUnknown.
func (e *Etcd) Close() error {
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
	e.cancel()
	e.wg.Wait()
	err := e.cli.Close()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	e.srv.Stop()
	return errors.Join(err, e.lock.Close())
}
