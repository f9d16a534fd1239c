package member

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/peer"
)

// begin starts everything that runs as long as this broker is a member.
func (m *Member) begin() {
	m.wg.Go(m.run)
	m.wg.Go(m.reregister)
	for i := range m.o.Canaries {
		m.wg.Go(func() { m.canary(&m.o.Canaries[i]) })
	}
}

// run beats to this broker's own controller and keeps one link for each address of the quorum.
func (m *Member) run() {
	t := time.NewTicker(m.interval)
	defer t.Stop()
	home := &link{kick: make(chan struct{}, 1)}
	m.mu.Lock()
	m.mu.links[""] = home
	m.mu.Unlock()
	for {
		m.connect()
		b := m.beat()
		if resp, ok := m.o.Local(m.ctx, b).(*kmsg.BrokerHeartbeatResponse); ok {
			// The own controller's word is worth what it can prove: after a pause it may long be another's turn.
			at := time.Now()
			if m.o.Proven != nil {
				if proven := m.o.Proven(); !proven.IsZero() {
					at = proven
				}
			}
			m.heard("", b, resp, at)
		}
		select {
		case <-t.C:
		case <-home.kick:
		case <-m.ctx.Done():
			return
		}
	}
}

// connect brings the links in line with the quorum as it is now. An address that left it keeps its link for the rest
// of this process: it costs one beat each interval, or one refused connection, and it may come back.
func (m *Member) connect() {
	if m.o.Dialer == nil || m.o.Seeds == nil {
		return
	}
	self := m.self()
	for _, addr := range append(slices.Clone(m.o.Seeds()), m.o.Image().ControllerRecord().Peer) {
		if addr == "" || addr == self {
			continue
		}
		m.mu.Lock()
		l := m.mu.links[addr]
		if l == nil && !m.mu.closed && len(m.mu.links) < maxLinks {
			l = &link{addr: addr, kick: make(chan struct{}, 1)}
			m.mu.links[addr] = l
			m.wg.Go(func() { m.keep(l) })
		}
		m.mu.Unlock()
	}
}

// maxLinks bounds the addresses that are beaten to: a quorum has at most five members, an external store as many
// candidates as there are brokers.
const maxLinks = 1000

// self is this broker's own peer address, "" for none. It stays what it was at first.
func (m *Member) self() string {
	if p := m.home.Load(); p != nil {
		return *p
	}
	addr := ""
	for _, e := range m.o.Registration().Endpoints {
		if e.Listener == config.PeerListenerName {
			addr = e.Address()
		}
	}
	if addr != "" { // before the listeners are open there is none yet
		m.home.Store(&addr)
	}
	return addr
}

// link is one address of the quorum.
type link struct {
	addr string
	kick chan struct{} // a beat is wanted now
}

// Nudge sends a heartbeat to everybody now: something changed that the controller waits for, such as the image that
// this broker has.
func (m *Member) Nudge() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.mu.links {
		select {
		case l.kick <- struct{}{}:
		default:
		}
	}
}

// beat is the next heartbeat.
func (m *Member) beat() *kmsg.BrokerHeartbeatRequest {
	b := kmsg.NewPtrBrokerHeartbeatRequest()
	b.Version = 2
	b.BrokerID, b.BrokerEpoch, b.CurrentMetadataOffset = m.o.NodeID, m.Epoch(), m.o.Image().Revision()
	b.WantFence, b.WantShutdown = m.sick.now(time.Now(), m.overdue()) != "", m.leaving.Load()
	if m.o.LostDirs != nil {
		for _, d := range m.o.LostDirs() {
			b.OfflineLogDirs = append(b.OfflineLogDirs, d)
		}
	}
	if m.o.FullDirs != nil {
		// Kafka's field for directories that take nothing new (KIP-1066); no operator cordons a single one here.
		for _, d := range m.o.FullDirs() {
			b.CordonedLogDirs = append(b.CordonedLogDirs, d)
		}
	}
	return b
}

// keep beats to one address for as long as this broker is a member.
func (m *Member) keep(l *link) {
	var conn *peer.Conn
	defer func() { closeConn(conn) }()
	said := false
	unheard := m.session / 2 // how long an answer is waited for before another connection is tried
	var opened time.Time
	for m.ctx.Err() == nil {
		if conn == nil || conn.Err() != nil {
			closeConn(conn)
			if conn != nil && time.Since(opened) < m.interval {
				m.rest(l, nil, m.interval/2) // somebody accepts and hangs up: not as fast as we can
			}
			opened = time.Now()
			var err error
			if conn, err = m.dial(l.addr); err != nil {
				if !said {
					said = true
					m.log.Info("member of the quorum not reachable", "addr", l.addr, "error", err)
				}
				conn = nil
				m.rest(l, nil, m.interval/2)
				continue
			}
			said = false
		}
		at := time.Now()
		err := m.send(conn, l.addr, unheard)
		switch {
		case err == nil:
			unheard = m.session / 2
			m.rest(l, conn, m.interval-time.Since(at))
		case conn.Err() != nil: // closed: dial at once, since that is counted after control.ClosedMs
		case errors.Is(err, context.DeadlineExceeded):
			conn, unheard = m.replace(l.addr, conn, unheard)
		default:
			m.log.Warn("heartbeat", "addr", l.addr, "error", err)
			m.rest(l, conn, m.interval)
		}
	}
}

// replace opens another connection in place of one on which nothing is answered: after a cut the old one would wait
// for a retransmission that may be seconds away. Where even the new one is opened and not answered the other side
// stands still, and is given more time, up to ten sessions: connections must not pile up there.
func (m *Member) replace(addr string, old *peer.Conn, unheard time.Duration) (*peer.Conn, time.Duration) {
	c, err := m.dial(addr)
	if err != nil {
		return old, unheard
	}
	next := min(2*unheard, 10*m.session)
	if m.send(c, addr, unheard) == nil {
		next = m.session / 2
	}
	// Only now: the other side counts the connection of the last beat, so the old one's end says nothing to it.
	closeConn(old)
	return c, next
}

func closeConn(c *peer.Conn) {
	if c != nil {
		_ = c.Close()
	}
}

func (m *Member) dial(addr string) (*peer.Conn, error) {
	ctx, cancel := context.WithTimeout(m.ctx, max(m.session/2, 100*time.Millisecond))
	defer cancel()
	return m.o.Dialer.Dial(ctx, addr)
}

// send beats once. An answer that does not come in time is DeadlineExceeded.
func (m *Member) send(c *peer.Conn, addr string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(m.ctx, limit)
	defer cancel()
	b, at := m.beat(), time.Now()
	resp, err := c.Do(ctx, b)
	if err != nil {
		return err
	}
	x, ok := resp.(*kmsg.BrokerHeartbeatResponse)
	if !ok {
		return fmt.Errorf("heartbeat to %s answered by a %T", addr, resp)
	}
	m.heard(addr, b, x, at)
	return nil
}

// rest waits until the next beat is due, wanted, or the connection has ended.
func (m *Member) rest(l *link, c *peer.Conn, d time.Duration) {
	var done <-chan struct{}
	if c != nil {
		done = c.Done()
	}
	t := time.NewTimer(max(d, time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.kick:
	case <-done:
	case <-m.ctx.Done():
	}
}

// heard takes the answer to a heartbeat in that left at the given moment. Only the controller's word counts.
func (m *Member) heard(addr string, b *kmsg.BrokerHeartbeatRequest, x *kmsg.BrokerHeartbeatResponse, at time.Time) {
	code := kerr.ErrorForCode(x.ErrorCode)
	switch {
	case errors.Is(code, kerr.StaleBrokerEpoch), errors.Is(code, kerr.BrokerIDNotRegistered):
		if b.BrokerEpoch == m.Epoch() {
			select {
			case m.again <- b.BrokerEpoch:
			default:
			}
		}
		return
	case code != nil:
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if b.BrokerEpoch != m.epoch.Load() {
		return
	}
	m.mu.accepted, m.mu.fenced = addr, x.IsFenced
	if x.IsFenced { // others lead what this broker led, whether it has seen that or not
		m.assured.Store(nil)
	} else {
		m.assured.Store(&at)
	}
	m.mu.released = m.mu.released || x.ShouldShutdown && b.WantShutdown
	close(m.mu.changed)
	m.mu.changed = make(chan struct{})
}

// reregister registers again when the controller does not know this registration any more: it was unregistered, or
// another broker took the id while this one stood still. In the second case it lives, and this one has to go.
func (m *Member) reregister() {
	for {
		var old int64
		select {
		case old = <-m.again:
		case <-m.ctx.Done():
			return
		}
		if old != m.Epoch() || m.leaving.Load() {
			continue
		}
		epoch, err := m.register(m.ctx)
		if err == nil {
			m.log.Warn("registered again", "broker", m.o.NodeID, "epoch", epoch, "before", old)
			m.Nudge()
			continue
		}
		if m.ctx.Err() != nil {
			return
		}
		m.log.Error("this broker is no member any more", "error", err)
		if slices.ContainsFunc(final, func(k *kerr.Error) bool { return errors.Is(err, k) }) {
			m.failed.Do(func() {
				if m.o.Failed != nil {
					m.o.Failed(err)
				}
			})
			return
		}
	}
}

// final are the refusals after which asking again makes no sense.
var final = []*kerr.Error{kerr.DuplicateBrokerRegistration, kerr.InconsistentClusterID, kerr.UnsupportedVersion, kerr.InvalidRequest}
