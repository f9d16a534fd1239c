package coord

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Joiner is a store that lives in other brokers, and its quorum as this one sees and changes it.
type Joiner struct{ *Remote }

var (
	_ Store  = (*Remote)(nil)
	_ Store  = (*Joiner)(nil)
	_ Quorum = (*Joiner)(nil)
)

// Members implements Quorum.
func (r *Joiner) Members(ctx context.Context) ([]Member, error) {
	var out []Member
	err := r.read(ctx, func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.MemberList(ctx)
		if err != nil {
			return err
		}
		out = make([]Member, len(resp.Members))
		for i, m := range resp.Members {
			out[i] = Member{ID: m.ID, Node: memberNode(m.Name), Peer: urlAddr(m.PeerURLs), Learner: m.IsLearner}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("members of the coordination store: %w", err)
	}
	askAll(ctx, out, func(ctx context.Context, m *Member) (*pb.StatusResponse, error) {
		r.mu.Lock()
		l := r.mu.links[m.Peer]
		r.mu.Unlock()
		if l == nil {
			return nil, errors.New("not connected")
		}
		s, err := l.cli.Status(ctx, r.scheme()+m.Peer)
		return (*pb.StatusResponse)(s), err
	})
	return out, nil
}

// Remove implements Quorum.
func (r *Joiner) Remove(ctx context.Context, node int32) error {
	ms, err := r.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range ms {
		if m.Node == node {
			err := whenSteady(ctx, func() error {
				l, _ := r.current()
				_, err := l.cli.MemberRemove(ctx, m.ID)
				return quorumError(err)
			})
			if err != nil {
				return fmt.Errorf("remove broker %d from the quorum: %w", node, err)
			}
			return nil
		}
	}
	return fmt.Errorf("remove broker %d from the quorum: %w", node, ErrNoMember)
}

// Add implements Quorum. The broker's id is not known to the others before it has started.
func (r *Joiner) Add(ctx context.Context, node int32, peer string) error {
	if err := CheckPeer(peer); err != nil {
		return fmt.Errorf("add broker %d to the quorum: %w", node, err)
	}
	ms, err := r.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range ms {
		switch {
		case m.Peer == peer && (m.Node == node || m.Node == -1):
			return nil
		case m.Peer == peer || m.Node == node:
			return fmt.Errorf("add broker %d at %s to the quorum: %w: broker %d at %s", node, peer, ErrMember, m.Node, m.Peer)
		}
	}
	err = whenSteady(ctx, func() error {
		l, _ := r.current()
		_, err := l.cli.MemberAddAsLearner(ctx, []string{r.scheme() + peer})
		if err = quorumError(err); errors.Is(err, ErrNoMember) {
			err = errSameSecond // of nothing else can adding say that
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("add broker %d to the quorum: %w", node, err)
	}
	return nil
}
