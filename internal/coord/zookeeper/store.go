package zookeeper

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/milena-mq/milena/internal/coord"
)

// Options is what the engine needs to know.
type Options struct {
	Servers  []string // host:port each; one that answers is enough to start
	Path     string   // the node below which everything is kept, "" for the root; it is made when it is missing
	Identity coord.Identity
	Log      *slog.Logger // nil: none
	// Session is how long the ensemble keeps the candidacy of a broker that it does not hear from; the
	// ensemble allows 2 to 20 of its ticks. 0: 4 s, which is the least that a default ensemble allows.
	Session time.Duration
	// Dial connects to other brokers, to see whether they are there; nil: a plain dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Patience is how long Open waits for the first answer of a server; 0: 15 s.
	Patience time.Duration

	dial func(*Store) (client, error) // tests
	tune limits
}

// limits decide when to compact and when to cut; they are variables for tests only.
type limits struct {
	entries int64 // since the snapshot, before there is another one
	bytes   int64 // the same, besides the size of the snapshot itself
	inline  int   // payload that is kept in the entry's own node
	piece   int   // payload of one node of a larger one
	look    time.Duration
}

// A server refuses a packet above jute.maxbuffer, 1 MiB by default, by closing the connection: an append
// may have 3 MiB, so it has to be cut, and no packet of ours comes near the limit.
var usual = limits{entries: 1000, bytes: 4 << 20, inline: 512 << 10, piece: 512 << 10, look: 5 * time.Second}

const (
	defaultSession  = 4 * time.Second
	defaultPatience = 15 * time.Second
	again           = 100 * time.Millisecond // pause before what failed is tried again
	rest            = 10 * time.Second       // the same for a snapshot
	window          = 32                     // reads under way at the same time
	prove           = 150 * time.Millisecond // between two questions whether the term still holds
)

// Store is one broker's connection to the ensemble.
type Store struct {
	o      Options
	log    *slog.Logger
	cli    client
	nonce  string          // tells this store's candidacies from those of any other process
	ctx    context.Context // ends when the store closes
	cancel context.CancelFunc
	wg     sync.WaitGroup
	turn   chan struct{} // holds one token: who has it may write under the term

	mu struct {
		sync.Mutex
		closed  bool
		term    *coord.Term
		ctl     int32         // version of the controller's node that term wrote
		node    string        // our candidacy, "" for none
		stands  int           // candidacies so far
		leading int           // calls of Lead under way
		tries   int           // payloads in pieces so far
		head    *head         // as the last write left it; nil: read it again
		busy    bool          // a snapshot is being written
		rest    time.Time     // no other one before, because the last one failed
		state   zk.State      // of the connection
		change  chan struct{} // closed and replaced when state changes
		since   time.Time     // when the connection was lost; zero while there is one
		last    error         // of connecting
	}
}

var _ coord.Store = (*Store)(nil)

// Open connects and makes the nodes that are missing. It fails with one line when no server answers in
// time, or when another format is there.
func Open(o Options) (coord.Store, error) {
	if o.Session == 0 {
		o.Session = defaultSession
	}
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	if o.tune == (limits{}) {
		o.tune = usual
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	if o.dial == nil {
		o.dial = dial
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Path = "/" + strings.Trim(o.Path, "/")
	if o.Path == "/" {
		o.Path = ""
	}
	var nonce [8]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, fmt.Errorf("open coordination store: %w", err)
	}
	s := &Store{o: o, log: o.Log, nonce: hex.EncodeToString(nonce[:]), turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.mu.change = make(chan struct{})
	s.mu.since = time.Now()
	where := "zookeeper://" + strings.Join(o.Servers, ",") + o.Path
	var err error
	if s.cli, err = o.dial(s); err != nil {
		s.cancel()
		return nil, fmt.Errorf("open coordination store %s: %w", where, err)
	}
	ctx, cancel := context.WithTimeout(s.ctx, o.Patience)
	defer cancel()
	if err := s.layout(ctx); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no server answered within %v", o.Patience)
			s.mu.Lock()
			if s.mu.last != nil {
				err = fmt.Errorf("%w, the last attempt says: %w", err, s.mu.last)
			}
			s.mu.Unlock()
		}
		_ = s.Close()
		return nil, fmt.Errorf("open coordination store %s: %w", where, err)
	}
	return s, nil
}

// Close implements coord.Store. It gives the candidacy back with the session, so that another broker may
// take the lead at once. Writes in flight end with ErrUnknown.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return nil
	}
	s.mu.closed = true
	t := s.mu.term
	s.mu.Unlock()
	if t != nil {
		t.End()
	}
	s.cancel()
	s.cli.Close()
	s.wg.Wait()
	return nil
}

// attach counts a goroutine in, unless the store is closing.
func (s *Store) attach() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return false
	}
	s.wg.Add(1)
	return true
}

// ask runs one request. The library knows no deadline, so the request goes on by itself when ctx ends
// first: whoever writes has to take that for unknown. The library writes its answer into what the request
// returns, so do must not write to anything that the caller reads after an error.
func ask[T any](ctx context.Context, s *Store, do func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, err
	}
	if !s.attach() {
		return zero, coord.ErrClosed
	}
	done := make(chan result, 1)
	go func() {
		defer s.wg.Done()
		v, err := do()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		if r.err != nil && s.ctx.Err() != nil {
			return zero, fmt.Errorf("%w: %w", coord.ErrClosed, r.err)
		}
		return r.v, r.err
	case <-ctx.Done():
		return zero, ctx.Err()
	case <-s.ctx.Done():
		return zero, coord.ErrClosed
	}
}

// passing says that an error is of the connection: the same question may be answered a moment later.
func passing(err error) bool {
	var ne net.Error
	return errors.Is(err, zk.ErrConnectionClosed) || errors.Is(err, zk.ErrNoServer) || errors.Is(err, zk.ErrSessionExpired) ||
		errors.Is(err, zk.ErrSessionMoved) || errors.Is(err, zk.ErrClosing) || errors.As(err, &ne)
}

// insist asks until the connection lets an answer through: for reads, and for writes that do no harm twice.
func insist[T any](ctx context.Context, s *Store, do func() (T, error)) (T, error) {
	for {
		v, err := ask(ctx, s, do)
		if err == nil || !passing(err) || errors.Is(err, coord.ErrClosed) {
			return v, err
		}
		if err := s.pause(ctx); err != nil {
			var zero T
			return zero, err
		}
	}
}

// pause waits until the connection has changed its state, or a little.
func (s *Store) pause(ctx context.Context) error {
	s.mu.Lock()
	change := s.mu.change
	s.mu.Unlock()
	t := time.NewTimer(again)
	defer t.Stop()
	select {
	case <-change:
		return nil
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return coord.ErrClosed
	}
}

// failed notes why a connection did not come about.
func (s *Store) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() == nil { // or it says only that we are closing
		s.mu.last = err
	}
}

// saw notes the state of the connection; it is called by the library and must not wait.
func (s *Store) saw(st zk.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case st == zk.StateHasSession:
		s.mu.since = time.Time{}
	case s.mu.since.IsZero():
		s.mu.since = time.Now()
	}
	if st == zk.StateExpired {
		s.leaveLocked() // the ensemble has removed it
	}
	s.mu.state = st
	close(s.mu.change)
	s.mu.change = make(chan struct{})
}

// layout makes what is missing: the chroot, then the fixed nodes.
func (s *Store) layout(ctx context.Context) error {
	at := ""
	for _, part := range strings.Split(strings.TrimPrefix(s.o.Path, "/"), "/") {
		if part == "" {
			continue
		}
		at += "/" + part
		if err := s.make(ctx, at, nil); err != nil {
			return err
		}
	}
	for _, n := range []struct {
		name string
		data []byte
	}{{nodeLog, nil}, {nodePieces, nil}, {nodeElect, nil}, {nodeCtl, nil}, {nodeHead, head{}.encode()}} {
		if err := s.make(ctx, s.path(n.name), n.data); err != nil {
			return err
		}
	}
	_, err := s.readHead(ctx)
	return err
}

func (s *Store) make(ctx context.Context, path string, data []byte) error {
	_, err := insist(ctx, s, func() (bool, error) {
		// Asked first, because an account may be allowed to use a chroot and not to make its parents.
		if ok, _, err := s.cli.Exists(path); ok || err != nil {
			return ok, err
		}
		_, err := s.cli.Create(path, data, 0, acl)
		return true, err
	})
	if err != nil && !errors.Is(err, zk.ErrNodeExists) {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return nil
}

func (s *Store) path(name string) string { return s.o.Path + "/" + name }

var acl = zk.WorldACL(zk.PermAll)
