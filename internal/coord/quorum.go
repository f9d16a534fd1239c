package coord

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Peer is a broker that takes part in the embedded store.
type Peer struct {
	Node int32
	Addr string // advertised peer address, host:port
}

// Member is a member of the quorum as it is now.
type Member struct {
	ID      uint64 // of the store's own making; a broker that was removed and added has a new one
	Node    int32  // broker id; -1 while it is not known
	Peer    string // host:port
	Learner bool   // receives everything, has no vote yet
	Leader  bool
	Term    int64  // of the store's leader election, as the member knows it
	Applied int64  // index of the last log entry it has applied
	Lag     int64  // entries behind the leader, or behind the furthest where there is none
	Err     string // why Term, Applied and Lag are not known; "" when they are
}

// Quorum is the members of a store that lives in the brokers.
type Quorum interface {
	// Members asks every member how it is; one that does not answer has Err set.
	Members(ctx context.Context) ([]Member, error)
	// Remove takes a member out. Refused with ErrQuorum where the rest could not go on.
	Remove(ctx context.Context, node int32) error
	// Add makes a broker a member without a vote; the leader gives it the vote once it has started and
	// caught up. The broker may start only after Add has returned. Adding what is there changes nothing.
	Add(ctx context.Context, node int32, peer string) error
}

// The errors of a Quorum.
var (
	ErrQuorum   = errors.New("coordination store: too few members are up for this change")
	ErrNoMember = errors.New("coordination store: not a member")
	ErrMember   = errors.New("coordination store: another member has this broker id or address")
	ErrLearner  = errors.New("coordination store: other new members are still catching up")
)

// errSameSecond: a member of this address was removed in the second in which it is added again.
var errSameSecond = errors.New("coordination store: a member was removed here a moment ago")

// statusTimeout is how long a member may take to say how it is.
const statusTimeout = 500 * time.Millisecond

// quorumError sorts what etcd says of a change of membership.
func quorumError(err error) error {
	if err == nil {
		return nil
	}
	for etcd, ours := range map[error]error{
		rpctypes.ErrUnhealthy: ErrQuorum, rpctypes.ErrMemberNotEnoughStarted: ErrQuorum, rpctypes.ErrMemberNotFound: ErrNoMember,
		rpctypes.ErrMemberExist: ErrMember, rpctypes.ErrPeerURLExist: ErrMember, rpctypes.ErrTooManyLearners: ErrLearner,
		rpctypes.ErrTimeout: ErrUnknown, rpctypes.ErrTimeoutDueToLeaderFail: ErrUnknown, rpctypes.ErrTimeoutDueToConnectionLost: ErrUnknown,
		rpctypes.ErrNoLeader: ErrQuorum,
	} {
		if errors.Is(rpctypes.Error(err), etcd) {
			return ours
		}
	}
	return err
}

// Members implements Quorum.
func (e *Etcd) Members(ctx context.Context) ([]Member, error) {
	if e.ctx.Err() != nil {
		return nil, e.closed()
	}
	list := e.srv.Cluster().Members()
	out := make([]Member, len(list))
	for i, m := range list {
		out[i] = Member{ID: uint64(m.ID), Node: memberNode(m.Name), Peer: urlAddr(m.PeerURLs), Learner: m.IsLearner}
	}
	askAll(ctx, out, func(ctx context.Context, m *Member) (*pb.StatusResponse, error) {
		if m.ID == uint64(e.srv.MemberID()) {
			return &pb.StatusResponse{Leader: e.srv.Lead(), RaftTerm: e.srv.Term(), RaftAppliedIndex: e.srv.AppliedIndex(), RaftIndex: e.srv.CommittedIndex()}, nil
		}
		return e.others.status(ctx, m.Peer)
	})
	return out, nil
}

// askAll fills in how each member is.
func askAll(ctx context.Context, ms []Member, status func(context.Context, *Member) (*pb.StatusResponse, error)) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var wg sync.WaitGroup
	heads := make([]int64, len(ms)) // how far the log is, as each knows
	leaders := make([]uint64, len(ms))
	for i := range ms {
		m := &ms[i]
		wg.Go(func() {
			s, err := status(ctx, m)
			if err != nil {
				m.Err = err.Error()
				return
			}
			m.Term, m.Applied = int64(s.GetRaftTerm()), int64(s.GetRaftAppliedIndex())
			heads[i], leaders[i] = int64(s.GetRaftIndex()), s.GetLeader()
		})
	}
	wg.Wait()
	// The leader is whom the newest term names; a member that was cut off goes on naming an old one.
	var leader uint64
	var term, head int64
	for i := range ms {
		if ms[i].Err == "" && ms[i].Term >= term && leaders[i] != 0 {
			term, leader = ms[i].Term, leaders[i]
		}
		head = max(head, heads[i])
	}
	for i := range ms {
		ms[i].Leader = ms[i].ID == leader && leader != 0
		if ms[i].Leader && ms[i].Err == "" {
			head = heads[i]
		}
	}
	for i := range ms {
		if ms[i].Err == "" {
			ms[i].Lag = max(head-ms[i].Applied, 0)
		}
	}
}

// Remove implements Quorum.
func (e *Etcd) Remove(ctx context.Context, node int32) error {
	for _, m := range e.srv.Cluster().Members() {
		if memberNode(m.Name) != node {
			continue
		}
		err := whenSteady(ctx, func() error {
			_, err := e.cli.MemberRemove(ctx, uint64(m.ID))
			return quorumError(err)
		})
		if err != nil {
			return fmt.Errorf("remove broker %d from the quorum: %w", node, err)
		}
		return nil
	}
	return fmt.Errorf("remove broker %d from the quorum: %w", node, ErrNoMember)
}

// Add implements Quorum.
func (e *Etcd) Add(ctx context.Context, node int32, peer string) error {
	if e.door == nil {
		return fmt.Errorf("add broker %d to the quorum: %w: this broker has no peer address", node, ErrQuorum)
	}
	if err := CheckPeer(peer); err != nil {
		return fmt.Errorf("add broker %d to the quorum: %w", node, err)
	}
	done, err := mayAdd(e.srv.Cluster().Members(), node, peer)
	if done || err != nil {
		return err
	}
	u := e.others.o.peerURL(peer)
	err = whenSteady(ctx, func() error {
		now := time.Now() // its id is made of the address and the second: one that was removed is never used again
		_, err := e.srv.AddMember(ctx, *membership.NewMemberAsLearner(memberName(node), types.URLs{u}, "", &now))
		return memberError(err)
	})
	if err != nil {
		return fmt.Errorf("add broker %d to the quorum: %w", node, err)
	}
	return nil
}

// whenSteady makes a change of membership again for a while where it is refused for want of members: etcd
// wants them to have been connected for five seconds, which after a start they have not.
func whenSteady(ctx context.Context, change func() error) error {
	ctx, cancel := context.WithTimeout(ctx, etcdserver.HealthInterval+2*time.Second)
	defer cancel()
	for {
		err := change()
		if !errors.Is(err, ErrQuorum) && !errors.Is(err, errSameSecond) || !wait(ctx, stewardEvery) {
			return err
		}
	}
}

// mayAdd says whether the member is there already, or why it cannot be added.
func mayAdd(ms []*membership.Member, node int32, peer string) (done bool, err error) {
	for _, m := range ms {
		sameNode, samePeer := memberNode(m.Name) == node, urlAddr(m.PeerURLs) == peer
		switch {
		case sameNode && samePeer, samePeer && m.Name == "":
			return true, nil
		case sameNode || samePeer:
			return false, fmt.Errorf("add broker %d at %s to the quorum: %w: broker %d at %s", node, peer, ErrMember, memberNode(m.Name), urlAddr(m.PeerURLs))
		}
	}
	return false, nil
}

// memberError sorts what the server says of a change of membership when it is called directly.
func memberError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, etcderrors.ErrUnhealthy), errors.Is(err, etcderrors.ErrNotEnoughStartedMembers):
		return ErrQuorum
	case errors.Is(err, membership.ErrIDExists), errors.Is(err, membership.ErrPeerURLexists):
		return ErrMember
	case errors.Is(err, membership.ErrTooManyLearners):
		return ErrLearner
	case errors.Is(err, membership.ErrIDRemoved):
		return errSameSecond
	case errors.Is(err, membership.ErrIDNotFound):
		return ErrNoMember
	case errors.Is(err, etcderrors.ErrTimeout), errors.Is(err, etcderrors.ErrTimeoutDueToLeaderFail), errors.Is(err, etcderrors.ErrTimeoutDueToConnectionLost):
		return ErrUnknown // a member that was added a moment ago and does not run yet can hold the next change up
	case errors.Is(err, etcderrors.ErrNoLeader):
		return ErrQuorum
	}
	return quorumError(err)
}

// Endpoints is the peer addresses of the voting members, as this one knows them without asking.
func (e *Etcd) Endpoints() []string {
	var out []string
	for _, m := range e.srv.Cluster().Members() {
		if a := urlAddr(m.PeerURLs); a != "" && !m.IsLearner {
			out = append(out, a)
		}
	}
	return out
}

// bootMembers is what a member that begins is told, from a quorum.
func (e *Etcd) bootMembers(ctx context.Context) ([]bootMember, error) {
	ms, err := e.srv.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	if err != nil {
		return nil, err
	}
	out := make([]bootMember, len(ms))
	for i, m := range ms {
		out[i] = bootMember{ID: uint64(m.ID), Name: m.Name, Peer: urlAddr(m.PeerURLs), Ran: len(m.ClientURLs) > 0}
	}
	return out, nil
}

// announce tells the others this member's peer address when it has changed: a broker that began alone had
// none, and a broker may move.
func (e *Etcd) announce(o *EtcdOptions) {
	defer e.wg.Done()
	u := o.peerURL(o.Identity.Peer)
	want := u.String()
	for {
		if e.awaitLeader(e.ctx, false) != nil {
			return
		}
		m := e.srv.Cluster().Member(e.srv.MemberID())
		if m != nil && len(m.PeerURLs) == 1 && m.PeerURLs[0] == want {
			return
		}
		var err error
		if m != nil {
			ctx, cancel := context.WithTimeout(e.ctx, takeOverTimeout)
			_, err = e.cli.MemberUpdate(ctx, uint64(m.ID), []string{want})
			cancel()
		}
		if err != nil && e.ctx.Err() == nil {
			e.log.log.Warn("the new peer address of this broker is not known to the others yet", "address", o.Identity.Peer, "error", err)
		}
		t := time.NewTimer(stewardEvery)
		select {
		case <-t.C:
		case <-e.ctx.Done():
			t.Stop()
			return
		}
	}
}

// callers is connections to the client API of other members, for what only they can say or do.
type callers struct {
	o  *EtcdOptions
	mu struct {
		sync.Mutex
		conns  map[string]*grpc.ClientConn
		closed bool
	}
}

// dialOptions are those of every connection to a store's client API.
func dialOptions(o *EtcdOptions) []grpc.DialOption {
	creds := insecure.NewCredentials()
	if o.TLS != nil {
		creds = credentials.NewTLS(o.TLS.Client)
	}
	return append(reconnect(o.Local), grpc.WithTransportCredentials(creds))
}

func (c *callers) client(addr string) (pb.MaintenanceClient, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return nil, ErrClosed
	}
	if cc := c.mu.conns[addr]; cc != nil {
		return pb.NewMaintenanceClient(cc), nil
	}
	cc, err := grpc.NewClient("passthrough:///"+addr, dialOptions(c.o)...)
	if err != nil {
		return nil, err
	}
	if c.mu.conns == nil {
		c.mu.conns = make(map[string]*grpc.ClientConn)
	}
	c.mu.conns[addr] = cc
	return pb.NewMaintenanceClient(cc), nil
}

func (c *callers) status(ctx context.Context, addr string) (*pb.StatusResponse, error) {
	mc, err := c.client(addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	return mc.Status(ctx, &pb.StatusRequest{})
}

func (c *callers) defragment(ctx context.Context, addr string) error {
	mc, err := c.client(addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, takeOverTimeout)
	defer cancel()
	_, err = mc.Defragment(ctx, &pb.DefragmentRequest{})
	return err
}

func (c *callers) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.closed = true
	for _, cc := range c.mu.conns {
		_ = cc.Close()
	}
}

// reconnect is how a lost connection is made again: soon, because the other side is most likely a broker
// that was restarted.
func reconnect(local net.IP) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return dialer(local).DialContext(ctx, "tcp", addr)
		}),
		grpc.WithNoProxy(),
	}
}
