package coord

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/milena-mq/milena/internal/meta"
)

// RemoteOptions is what a client of a store elsewhere needs to know.
type RemoteOptions struct {
	Endpoints []string    // host:port: peer addresses of the quorum, or client addresses of an external etcd
	TLS       *tls.Config // nil: in the clear
	Local     net.IP      // source address of connections, nil for the system's choice
	Identity  Identity    // written into the controller record; used with Elect only
	Log       *slog.Logger
	// Elect: the store is an external etcd and this broker may become controller. Without it the store
	// lives in other brokers, Lead blocks until its context ends, and endpoints are learned from the members.
	Elect bool
	// Name sets clusters apart that share an external etcd; "" for one that has it alone. Used with Elect only.
	Name string
	Open time.Duration // how long OpenRemote waits for the first answer; 0: 10 s
	// Start ends that wait early; nil: never.
	Start context.Context
}

const (
	// watchEvery and watchLimit: how often the endpoint in use is asked for a read that needs a majority, and
	// how long that may take. gRPC itself notices a frozen process after 10 s at the earliest.
	watchEvery    = 150 * time.Millisecond
	watchLimit    = 300 * time.Millisecond
	watchLimitMax = 3 * time.Second // after several that failed
	learnEvery    = 5 * time.Second // between two looks at the list of members
	defaultOpen   = 10 * time.Second
	tailAgain     = 50 * time.Millisecond
	maxEndpoints  = 64 // of a list of members
)

// Remote is a store elsewhere: in other brokers, or an etcd that exists. It uses one endpoint at a time and
// leaves it when it does not answer: one client for all of them would stay with a frozen one.
type Remote struct {
	o      RemoteOptions
	space  space
	log    *zapSlog
	ctx    context.Context // ends when the store closes
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu struct {
		sync.Mutex
		closed bool
		links  map[string]*link
		cur    *link
		moved  chan struct{} // closed and replaced when cur changes
		heard  time.Time     // last answer of a majority
	}
	elect election
}

// link is one endpoint.
type link struct {
	addr string
	cli  *clientv3.Client
	mu   struct {
		sync.Mutex
		dial error // of the last attempt to connect
	}
}

// OpenRemote connects to a store elsewhere: a *Joiner, or a *Remote with RemoteOptions.Elect. It fails when
// no endpoint answers for a majority within RemoteOptions.Open, or when an external etcd takes less than an
// append needs.
func OpenRemote(o RemoteOptions) (Store, error) {
	if len(o.Endpoints) == 0 {
		return nil, errors.New("open coordination store: no endpoints")
	}
	r := &Remote{o: o, space: prefix, log: newZapSlog(o.Log)}
	if o.Elect {
		// Never the keys of a store that lives in brokers: its controller and ours would depose each other for ever.
		r.space = space("/milena." + url.PathEscape(cmp.Or(strings.Trim(o.Name, "/"), "default")) + "/")
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.mu.links = make(map[string]*link)
	r.mu.moved = make(chan struct{})
	if err := r.begin(); err != nil {
		r.cancel()
		return nil, errors.Join(fmt.Errorf("open coordination store at %v: %w", o.Endpoints, err), r.closeLinks())
	}
	r.wg.Add(1)
	go r.watchdog()
	if o.Elect {
		return r, nil
	}
	return &Joiner{r}, nil
}

func (r *Remote) begin() error {
	for _, a := range r.o.Endpoints {
		if err := r.connect(a); err != nil {
			return err
		}
	}
	open := r.o.Open
	if open <= 0 {
		open = defaultOpen
	}
	start := r.o.Start
	if start == nil {
		start = r.ctx
	}
	ctx, cancel := context.WithTimeout(start, open)
	defer cancel()
	var why error // of the last round that was not cut short
	for {
		err := r.choose(ctx, time.Second)
		if err == nil {
			break
		}
		if why == nil || ctx.Err() == nil {
			why = err
		}
		if ctx.Err() != nil || !wait(ctx, bootAgainMax) {
			return why
		}
	}
	if !r.o.Elect {
		r.learn(ctx, time.Second)
		return nil
	}
	return r.probeLimits(ctx)
}

// wait is false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connect makes the client of an endpoint; the connection itself comes later.
func (r *Remote) connect(addr string) error {
	l := &link{addr: addr}
	cli, err := clientv3.New(clientv3.Config{
		Endpoints: []string{r.scheme() + addr}, TLS: r.o.TLS, Context: r.ctx, Logger: r.log.logger(),
		DialOptions:        append(reconnect(r.o.Local), l.dialer(r.o.Local)),
		DialKeepAliveTime:  10 * time.Second,
		MaxCallSendMsgSize: MaxBytes + 1<<20,
		// Retries are ours to make: they go to another endpoint.
		MaxUnaryRetries: 1, BackoffWaitBetween: 10 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.closed || r.mu.links[addr] != nil {
		return cli.Close()
	}
	l.cli = cli
	r.mu.links[addr] = l
	return nil
}

func (r *Remote) scheme() string {
	if r.o.TLS != nil {
		return "https://"
	}
	return "http://"
}

// current is the endpoint in use, and a channel that closes when it is left.
func (r *Remote) current() (*link, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.cur, r.mu.moved
}

// probe asks an endpoint for a read that needs a majority. What is read tells whether the own term, if there
// is one, is still the newest.
func (r *Remote) probe(ctx context.Context, l *link, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	at := time.Now()
	g, err := l.cli.Get(ctx, string(r.space)+meta.KeyController, clientv3.WithKeysOnly())
	if err == nil {
		r.elect.confirm(at, g)
	}
	return err
}

// choose takes the first endpoint that answers.
func (r *Remote) choose(ctx context.Context, limit time.Duration) error {
	r.mu.Lock()
	links := slices.Collect(maps.Values(r.mu.links))
	r.mu.Unlock()
	slices.SortFunc(links, func(a, b *link) int { return cmp.Compare(a.addr, b.addr) })
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of those that lost
	type result struct {
		l   *link
		err error
	}
	ch := make(chan result, len(links))
	for _, l := range links {
		go func() { ch <- result{l, r.probe(ctx, l, limit)} }()
	}
	var errs []string
	for range links {
		x := <-ch
		if x.err == nil {
			r.use(x.l)
			return nil
		}
		errs = append(errs, fmt.Sprintf("%s: %s", x.l.addr, x.l.plainly(x.err)))
	}
	slices.Sort(errs)
	return errors.New(strings.Join(errs, "; "))
}

// plainly is why an endpoint cannot be used, in words that help: gRPC says only that it waited.
func (l *link) plainly(err error) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch late := errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded; {
	case l.mu.dial != nil:
		return l.mu.dial.Error()
	case late:
		return "no answer in time: it has no majority, or is no broker that holds the metadata"
	}
	return rpctypes.ErrorDesc(err)
}

// dialer makes the connections of a link and remembers what went wrong with the last one.
func (l *link) dialer(local net.IP) grpc.DialOption {
	d := dialer(local)
	return grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := d.DialContext(ctx, "tcp", addr)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.mu.dial = err
		return c, err
	})
}

func (r *Remote) use(l *link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.heard = time.Now()
	if r.mu.cur == l {
		return
	}
	r.mu.cur = l
	close(r.mu.moved)
	r.mu.moved = make(chan struct{})
}

// watchdog leaves an endpoint that does not answer for a majority, and learns of new ones.
func (r *Remote) watchdog() {
	defer r.wg.Done()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	learned := time.Now()
	limit := watchLimit
	for {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
		l, _ := r.current()
		if err := r.probe(r.ctx, l, limit); err == nil {
			limit = watchLimit
			r.use(l)
		} else if r.ctx.Err() == nil {
			// Where everything is slow, a short limit would find nobody for as long as that lasts.
			limit = min(2*limit, watchLimitMax)
			if r.choose(r.ctx, limit) == nil {
				if n, _ := r.current(); n != l {
					r.log.log.Info("another member of the coordination store is used now", "from", l.addr, "to", n.addr, "because", err)
				}
			}
			learned = time.Time{}
		}
		if !r.o.Elect && time.Since(learned) > learnEvery && r.learn(r.ctx, limit) {
			learned = time.Now()
		}
	}
}

// learn takes the addresses of the quorum's members. Those that were given stay: they are where a broker
// finds its cluster again when all members have moved one after the other.
func (r *Remote) learn(ctx context.Context, limit time.Duration) bool {
	l, _ := r.current()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	resp, err := l.cli.MemberList(ctx)
	if err != nil || len(resp.Members) > maxEndpoints {
		return false
	}
	keep := make(map[string]bool)
	for _, a := range r.o.Endpoints {
		keep[a] = true
	}
	for _, m := range resp.Members {
		if a := urlAddr(m.PeerURLs); a != "" && !m.IsLearner {
			keep[a] = true
			r.mu.Lock()
			known := r.mu.links[a] != nil
			r.mu.Unlock()
			if !known {
				_ = r.connect(a)
			}
		}
	}
	var gone []*link
	r.mu.Lock()
	for a, x := range r.mu.links {
		if !keep[a] && x != r.mu.cur {
			gone = append(gone, x)
			delete(r.mu.links, a)
		}
	}
	r.mu.Unlock()
	for _, x := range gone {
		_ = x.cli.Close()
	}
	return true
}

// Endpoints is the addresses that are known now, sorted.
func (r *Remote) Endpoints() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.mu.links))
}

// read calls f with the endpoint in use, again with the next one when that is left meanwhile, until it
// succeeds, is refused or ctx ends. f must be harmless to repeat.
func (r *Remote) read(ctx context.Context, f func(context.Context, *clientv3.Client) error) error {
	for {
		if r.ctx.Err() != nil {
			return ErrClosed
		}
		l, moved := r.current()
		lctx, stop := until(ctx, moved, r.ctx.Done())
		err := f(lctx, l.cli)
		left := lctx.Err() != nil
		stop()
		switch {
		case err == nil:
			return nil
		case r.ctx.Err() != nil:
			return ErrClosed
		case ctx.Err() != nil:
			return err
		case !left && !passes(err):
			return err
		}
		if !left && !wait(ctx, tailAgain) {
			return err
		}
	}
}

// passes says that an error is about the endpoint or the moment, not about the question.
func passes(err error) bool {
	var e rpctypes.EtcdError
	if errors.As(rpctypes.Error(err), &e) {
		switch e {
		case rpctypes.ErrNoLeader, rpctypes.ErrLeaderChanged, rpctypes.ErrNotLeader, rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail,
			rpctypes.ErrTimeoutDueToConnectionLost, rpctypes.ErrStopped, rpctypes.ErrUnhealthy, rpctypes.ErrTooManyRequests:
			return true
		}
	}
	return unavailable(err) || rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(rpctypes.ErrGRPCNotSupportedForLearner)
}

// until is a context that also ends with either channel.
func until(ctx context.Context, a, b <-chan struct{}) (context.Context, func()) {
	c, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-a:
		case <-b:
		case <-c.Done():
		}
		cancel()
	}()
	return c, func() { cancel(); <-done }
}

// Load implements Store.
func (r *Remote) Load(ctx context.Context) (Snapshot, Revision, error) {
	var s Snapshot
	var rev Revision
	err := r.read(ctx, func(ctx context.Context, c *clientv3.Client) error {
		g, err := c.Get(ctx, string(r.space), clientv3.WithPrefix())
		if err == nil {
			s, rev = r.space.snapshot(g)
		}
		return err
	})
	if err != nil {
		return Snapshot{}, 0, fmt.Errorf("load coordination store: %w", err)
	}
	return s, rev, nil
}

// attach counts a goroutine in, unless the store is closing.
func (r *Remote) attach() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.closed {
		return false
	}
	r.wg.Add(1)
	return true
}

// Tail implements Store.
func (r *Remote) Tail(ctx context.Context, from Revision) (<-chan Batch, error) {
	if !r.attach() {
		return nil, ErrClosed
	}
	ch := make(chan Batch)
	go r.tail(ctx, from, ch)
	return ch, nil
}

// tail follows the history over one endpoint after the other.
func (r *Remote) tail(ctx context.Context, from Revision, ch chan<- Batch) {
	defer r.wg.Done()
	defer close(ch)
	for {
		l, moved := r.current()
		lctx, stop := until(ctx, moved, r.ctx.Done())
		next, compacted := r.follow(lctx, l, from, ch)
		stop()
		if compacted || ctx.Err() != nil || r.ctx.Err() != nil {
			return
		}
		if from = next; !wait(ctx, tailAgain) {
			return
		}
	}
}

// follow delivers what comes after from until ctx ends or the endpoint fails; it returns how far it came.
func (r *Remote) follow(ctx context.Context, l *link, from Revision, ch chan<- Batch) (next Revision, compacted bool) {
	w := l.cli.Watch(clientv3.WithRequireLeader(ctx), string(r.space), clientv3.WithPrefix(), clientv3.WithRev(int64(from)+1))
	for x := range w {
		if x.CompactRevision != 0 {
			return from, true
		}
		if x.Err() != nil {
			return from, false
		}
		for _, b := range r.space.split(x.Events) {
			if b.Rev <= from {
				continue // must not happen; twice would be worse than once
			}
			select {
			case ch <- b:
				from = b.Rev
			case <-ctx.Done():
				return from, false
			}
		}
	}
	return from, false
}

// Close implements Store.
func (r *Remote) Close() error {
	r.mu.Lock()
	if r.mu.closed {
		r.mu.Unlock()
		return nil
	}
	r.mu.closed = true
	r.mu.Unlock()
	r.log.closing.Store(true)
	r.resign()
	r.cancel()
	r.wg.Wait()
	return r.closeLinks()
}

func (r *Remote) closeLinks() error {
	r.mu.Lock()
	r.mu.closed = true
	links := slices.Collect(maps.Values(r.mu.links))
	r.mu.Unlock()
	var errs []error
	for _, l := range links {
		if err := l.cli.Close(); err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
