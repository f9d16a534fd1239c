package api

import (
	"context"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/server"
)

// AddRaftVoter (key 80), versions 0-1, and RemoveRaftVoter (key 81), version 0 (KIP-853): the members of the
// coordination store that lives in the brokers, grown, shrunk and replaced in Kafka's words. A voter is a
// broker id and the peer address of its process, which is the listener named PEER, or the only one given.
//
// A member that lost its disk is removed and added again, then started. AddRaftVoter answers when the member
// is known to the store; it gets its vote once it runs and has caught up, and DescribeQuorum shows it among the
// observers until then. Directory ids are not compared: the store tells an old and a new member of one broker
// apart by its own ids. Where the store is elsewhere there is nothing to change here: UNSUPPORTED_VERSION.
func serveAddRaftVoter(c *Call) server.Reply {
	req := c.Request.(*kmsg.AddRaftVoterRequest)
	resp := kmsg.NewPtrAddRaftVoterResponse()
	resp.ErrorCode, resp.ErrorMessage = c.voterError(c.alterQuorum(req.ClusterID, req.TimeoutMillis, func(ctx context.Context) error {
		peer, err := voterAddress(req.Listeners)
		if err != nil {
			return err
		}
		if req.VoterID < 0 {
			return kerr.InvalidRequest
		}
		return c.Quorum.Add(ctx, req.VoterID, peer)
	}))
	return c.ready(resp)
}

func serveRemoveRaftVoter(c *Call) server.Reply {
	req := c.Request.(*kmsg.RemoveRaftVoterRequest)
	resp := kmsg.NewPtrRemoveRaftVoterResponse()
	resp.ErrorCode, resp.ErrorMessage = c.voterError(c.alterQuorum(req.ClusterID, 0, func(ctx context.Context) error {
		return c.Quorum.Remove(ctx, req.VoterID)
	}))
	return c.ready(resp)
}

// quorumTimeout bounds a change of the quorum: longer than the store needs to see that a member is gone.
const quorumTimeout = 20 * time.Second

func (c *Call) alterQuorum(cluster *string, ms int32, change func(context.Context) error) error {
	switch {
	case c.Quorum == nil:
		return kerr.UnsupportedVersion
	case cluster != nil && *cluster != c.Image.ClusterID():
		return kerr.InconsistentClusterID
	}
	ctx, cancel := c.admin(ms)
	defer cancel()
	ctx, cancel2 := context.WithTimeout(ctx, quorumTimeout)
	defer cancel2()
	return change(ctx)
}

// voterAddress picks the peer address out of a voter's listeners.
func voterAddress(ls []kmsg.AddRaftVoterRequestListener) (string, error) {
	for i := range ls {
		l := &ls[i]
		if (l.Name == config.PeerListenerName || len(ls) == 1) && l.Host != "" && l.Port > 0 {
			return net.JoinHostPort(l.Host, strconv.Itoa(int(l.Port))), nil
		}
	}
	return "", kerr.InvalidRequest
}

// quorumCodes are Kafka's codes for what the store refuses.
var quorumCodes = []struct {
	err  error
	code *kerr.Error
}{
	{coord.ErrAddress, kerr.InvalidRequest},
	{coord.ErrMember, kerr.DuplicateVoter},
	{coord.ErrNoMember, kerr.VoterNotFound},
	{coord.ErrLearner, kerr.RequestTimedOut}, // one change at a time: again later
	{coord.ErrQuorum, kerr.InvalidRequest},   // final until the operator brings members back
}

// voterError is the code and the sentence of a change of the quorum.
func (c *Call) voterError(err error) (int16, *string) {
	if err == nil {
		return 0, nil
	}
	msg := err.Error()
	for _, q := range quorumCodes {
		if errors.Is(err, q.err) {
			return c.failed(q.code.Code), &msg
		}
	}
	return c.errorCode(err), &msg
}
