package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/peer"
)

// Options is what a Member needs. Local, Leads, Image and Registration are required.
type Options struct {
	NodeID int32
	// Local answers a request as this broker's own controller does (controller.Handle with connection 0); nil for a
	// request that is not between brokers.
	Local func(ctx context.Context, req kmsg.Request) kmsg.Response
	Leads func() bool // this broker is the controller
	// Proven is when this broker was the controller for certain; a zero time, or nil: the store does not say.
	Proven func() time.Time
	Image  func() *meta.Image // the newest
	// Pool carries what is forwarded for clients, Dialer makes the connections of this broker's own requests: the other
	// side answers in order, and a slow admin request must not hold an ISR change up. nil: a lone broker.
	Pool   *peer.Pool
	Dialer *peer.Dialer
	// Seeds are the peer addresses of every broker that may be the controller. This broker's own is passed over.
	Seeds func() []string
	// Registration is this broker's word about itself, asked for at every registration.
	Registration func() control.Registration
	LostDirs     func() []meta.UUID // log directories that failed; nil: none ever
	FullDirs     func() []meta.UUID // log directories without room for records; nil: none ever
	Canaries     []Canary           // one for each log directory
	Static       *config.Static
	Log          *slog.Logger // nil: silent
	// Registered is told every new broker epoch, before the first heartbeat under it; nil: nobody wants to know.
	Registered func(epoch int64)
	// Failed is told once that this broker cannot be a member any more: another one has its id.
	Failed func(error)
}

// Member is this broker's membership.
type Member struct {
	o        Options
	log      *slog.Logger
	own      *peer.Pool // for this broker's own requests, nil without a Dialer
	interval time.Duration
	session  time.Duration

	epoch   atomic.Int64              // of the newest registration, -1 before the first
	assured atomic.Pointer[time.Time] // when the last heartbeat left that a controller accepted
	leaving atomic.Bool
	home    atomic.Pointer[string] // this broker's own peer address
	began   atomic.Bool            // the goroutines run
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	again   chan int64 // the epoch that is not known any more
	sick    sickness
	failed  sync.Once

	mu struct {
		sync.Mutex
		links    map[string]*link
		accepted string        // address of the controller that took the last beat, "" for this broker itself
		fenced   bool          // as that controller said
		released bool          // it said that this broker may stop
		changed  chan struct{} // closed and replaced with each answer of a controller
		closed   bool
	}
}

// New makes a member. Nothing runs before Register.
func New(o Options) *Member {
	m := &Member{o: o, log: o.Log, again: make(chan int64, 1)}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if o.Dialer != nil {
		m.own = peer.NewPool(o.Dialer)
	}
	m.interval = time.Duration(config.BrokerHeartbeatIntervalMs.Static(o.Static)) * time.Millisecond
	m.session = time.Duration(config.BrokerSessionTimeoutMs.Static(o.Static)) * time.Millisecond
	m.epoch.Store(-1)
	m.mu.links = make(map[string]*link)
	m.mu.fenced = true
	m.mu.changed = make(chan struct{})
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Epoch is the broker epoch of the newest registration, -1 before the first.
func (m *Member) Epoch() int64 { return m.epoch.Load() }

// Current says that no other broker can have been elected in this one's place, as far as clocks tell: a controller
// accepted a heartbeat that left less than a session timeout ago, and counts from when it came. Whoever was stopped,
// or cut off, for longer answers reads as before while a new leader has moved on; a consumer, or whoever asks where
// a partition ends, would see it fall back (I9). It is looked at when an answer is made, because the requests that
// wait in a socket are answered before any timer runs. Durability never depends on it.
func (m *Member) Current() bool {
	if m.o.Dialer == nil {
		return true
	}
	if m.sick.now(time.Now(), m.overdue()) != "" { // the fence that it asks for may have been carried out already, and its image hang with its disk
		return false
	}
	if m.o.Leads() {
		if m.o.Proven == nil {
			return true
		}
		at := m.o.Proven()
		return at.IsZero() || time.Since(at) < m.session
	}
	at := m.assured.Load()
	return at != nil && time.Since(*at) < m.session
}

// Register registers this broker, fenced, and begins to beat. It tries until ctx ends or until
// initial.broker.registration.timeout.ms has passed; the error is one line that says what is wrong. A broker that was
// killed and comes back at once waits here until its former self counts as dead.
func (m *Member) Register(ctx context.Context) (epoch int64, err error) {
	limit := time.Duration(config.InitialBrokerRegistrationTimeoutMs.Static(m.o.Static)) * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if epoch, err = m.register(ctx); err != nil {
		return -1, err
	}
	if m.began.CompareAndSwap(false, true) {
		m.begin()
	}
	return epoch, nil
}

// patience is how long a refusal because of a living broker with the same id is asked about again: its session may
// run out only now.
func (m *Member) patience() time.Duration { return 2*m.session + time.Second }

func (m *Member) register(ctx context.Context) (int64, error) {
	began := time.Now()
	for {
		r := m.o.Registration()
		resp, err := m.Do(ctx, request(r))
		if errors.Is(err, ErrNoController) && ctx.Err() == nil && m.ctx.Err() == nil {
			continue // Do has its own, shorter patience
		}
		if err != nil {
			return -1, fmt.Errorf("register broker %d: %w", m.o.NodeID, err)
		}
		x, ok := resp.(*kmsg.BrokerRegistrationResponse)
		if !ok {
			return -1, fmt.Errorf("register broker %d: the controller answered a %T", m.o.NodeID, resp)
		}
		if x.ErrorCode == 0 {
			m.epoch.Store(x.BrokerEpoch)
			if m.o.Registered != nil {
				m.o.Registered(x.BrokerEpoch)
			}
			return x.BrokerEpoch, nil
		}
		again := false
		switch code := kerr.ErrorForCode(x.ErrorCode); {
		case errors.Is(code, kerr.DuplicateBrokerRegistration):
			again = time.Since(began) < m.patience()
		case kerr.IsRetriable(code):
			again = true
		}
		if !again {
			return -1, m.refusal(r, x.ErrorCode)
		}
		if err := pause(ctx, m.interval); err != nil {
			return -1, m.refusal(r, x.ErrorCode)
		}
	}
}

// refusal says in one line why this broker may not take part.
func (m *Member) refusal(r control.Registration, code int16) error {
	e, im := kerr.ErrorForCode(code), m.o.Image()
	switch {
	case errors.Is(e, kerr.DuplicateBrokerRegistration):
		where := ""
		if b := im.Broker(r.ID); b != nil && len(b.Endpoints) > 0 {
			where = " at " + b.Endpoints[0].Address()
		}
		return fmt.Errorf("broker id %d is taken: a broker with this id is running%s; choose another node.id: %w", r.ID, where, e)
	case errors.Is(e, kerr.InconsistentClusterID):
		return fmt.Errorf("the data directories of this broker belong to cluster %s, but the controller's cluster is %s: %w", r.ClusterID, im.ClusterID(), e)
	case errors.Is(e, kerr.UnsupportedVersion):
		return fmt.Errorf("this binary is too old for cluster %s, which already uses what it does not know (features %v): %w", im.ClusterID(), im.Features(), e)
	}
	return fmt.Errorf("register broker %d: refused by the controller: %w", r.ID, e)
}

var protocolCodes = map[string]int16{"PLAINTEXT": 0, "SSL": 1, "SASL_PLAINTEXT": 2, "SASL_SSL": 3}

// request spells a registration.
func request(r control.Registration) *kmsg.BrokerRegistrationRequest {
	q := kmsg.NewPtrBrokerRegistrationRequest()
	q.Version = 4
	q.BrokerID, q.ClusterID, q.IncarnationID, q.PreviousBrokerEpoch = r.ID, r.ClusterID, r.Incarnation, r.PreviousEpoch
	for _, e := range r.Endpoints {
		l := kmsg.NewBrokerRegistrationRequestListener()
		l.Name, l.Host, l.Port, l.SecurityProtocol = e.Listener, e.Host, uint16(e.Port), protocolCodes[e.Protocol]
		q.Listeners = append(q.Listeners, l)
	}
	features := r.Features
	if features == nil {
		features = control.Supported()
	}
	if r.Intact {
		features = append(slices.Clone(features), control.FeatureRange{Name: control.FeatureIntact, Max: 1})
	}
	for _, f := range features {
		x := kmsg.NewBrokerRegistrationRequestFeature()
		x.Name, x.MinSupportedVersion, x.MaxSupportedVersion = f.Name, f.Min, f.Max
		q.Features = append(q.Features, x)
	}
	if r.Rack != "" {
		q.Rack = &r.Rack
	}
	for _, d := range r.Dirs {
		q.LogDirs = append(q.LogDirs, d)
	}
	return q
}

// Ready waits until the image shows this registration without its fence: clients see this broker from then on.
func (m *Member) Ready(ctx context.Context) error {
	for {
		changed := m.watch()
		if b := m.o.Image().Broker(m.o.NodeID); b != nil && !b.Fenced && b.Epoch == m.Epoch() {
			return nil
		}
		if err := wait(ctx, changed, lookEvery); err != nil {
			return fmt.Errorf("wait until broker %d takes part: %w", m.o.NodeID, err)
		}
	}
}

// Fenced is what the controller said last.
func (m *Member) Fenced() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.fenced
}

// Leave is a controlled shutdown (KIP-500, controlled.shutdown.enable): the controller moves leadership away, and
// Leave returns when it says that this broker may stop, or with an error when ctx ends first.
func (m *Member) Leave(ctx context.Context) error {
	if !config.ControlledShutdownEnable.Static(m.o.Static) || m.Epoch() < 0 {
		return nil
	}
	m.leaving.Store(true)
	for {
		changed := m.watch()
		m.mu.Lock()
		released := m.mu.released
		m.mu.Unlock()
		if released {
			return nil
		}
		m.Nudge()
		if err := wait(ctx, changed, 2*lookEvery); err != nil {
			return fmt.Errorf("controlled shutdown of broker %d: the controller has not released it: %w", m.o.NodeID, err)
		}
	}
}

// Close ends the heartbeats and the connections. The controller sees the connections close.
func (m *Member) Close() error {
	m.mu.Lock()
	m.mu.closed = true
	m.mu.Unlock()
	m.cancel()
	m.wg.Wait()
	if m.began.CompareAndSwap(false, true) { // never registered: nobody runs them
		for _, c := range m.o.Canaries {
			if c.Close != nil {
				_ = c.Close()
			}
		}
	}
	if m.own != nil {
		return m.own.Close()
	}
	return nil
}

// lookEvery is how often the image is looked at while something is waited for that no answer announces.
const lookEvery = 10 * time.Millisecond

func (m *Member) watch() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.changed
}

// wait returns when changed is closed, after d, or with an error when ctx ends.
func wait(ctx context.Context, changed <-chan struct{}, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error { return wait(ctx, nil, d) }
