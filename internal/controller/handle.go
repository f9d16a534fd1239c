package controller

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
)

// handleTimeout bounds what a broker's request may wait here, image included. A broker asks again long before.
const handleTimeout = 10 * time.Second

// Leads says that this broker is the controller: it holds a term, and its image shows everything that was written
// before it.
func (c *Controller) Leads() bool {
	t := c.serving.Load()
	return t != nil && !t.Ended()
}

// Proven is the latest moment at which this broker was the controller for certain: zero where it is not, or where
// the store does not say.
func (c *Controller) Proven() time.Time {
	if t := c.serving.Load(); t != nil && !t.Ended() {
		return t.Proven()
	}
	return time.Time{}
}

// Handle answers what brokers ask of the controller (AlterPartition 56, BrokerRegistration 62, BrokerHeartbeat 63,
// AllocateProducerIds 67, AssignReplicasToDirs 73): NOT_CONTROLLER where this broker does not lead, but a heartbeat is
// always noted first. conn is the connection it came on, 0 for this broker's own requests. Any other request is nil.
func (c *Controller) Handle(ctx context.Context, conn uint64, req kmsg.Request) kmsg.Response {
	if r, ok := req.(*kmsg.BrokerHeartbeatRequest); ok {
		return c.heartbeat(conn, r)
	}
	ctx, cancel := context.WithTimeout(ctx, handleTimeout)
	defer cancel()
	switch r := req.(type) {
	case *kmsg.BrokerRegistrationRequest:
		return c.registration(ctx, conn, r)
	case *kmsg.AlterPartitionRequest:
		return c.alterPartition(ctx, r)
	case *kmsg.AllocateProducerIDsRequest:
		return c.allocate(ctx, r)
	case *kmsg.AssignReplicasToDirsRequest:
		return c.assignDirs(ctx, r)
	}
	return nil
}

// Closed says that a peer connection is gone. A broker whose last heartbeat came on it counts as dead unless it is
// heard on another one within control.ClosedMs.
func (c *Controller) Closed(conn uint64) { c.pulses.closed(conn) }

func code(e *control.Error) int16 {
	if e == nil {
		return 0
	}
	return e.Code.Code
}

// heartbeat never waits and never writes: verdicts are the lead goroutine's, which a beat only wakes.
func (c *Controller) heartbeat(conn uint64, req *kmsg.BrokerHeartbeatRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.BrokerHeartbeatResponse)
	resp.Version, resp.IsFenced = req.Version, true
	leads := c.Leads() // before the image, which is complete from then on
	im := c.Image()
	pulse, err := c.pulses.beat(im, control.Beat{
		ID: req.BrokerID, Epoch: req.BrokerEpoch, Seen: req.CurrentMetadataOffset, Conn: conn,
		Fence: req.WantFence, Shutdown: req.WantShutdown, LostDirs: uuids(req.OfflineLogDirs),
		FullDirs: uuids(req.CordonedLogDirs),
	})
	switch {
	case !leads, err != nil && req.BrokerEpoch > im.Revision():
		// A broker that knows of a later registration than this image is right: whoever says STALE_BROKER_EPOCH
		// here is a controller that was replaced while it stood still, and the broker would register in vain.
		resp.ErrorCode = kerr.NotController.Code
	case err != nil:
		resp.ErrorCode = code(err)
	default:
		resp.IsCaughtUp, resp.IsFenced, resp.ShouldShutdown = pulse.CaughtUp, pulse.Fenced, pulse.Shutdown
	}
	return resp
}

func uuids(in [][16]byte) []meta.UUID {
	if len(in) == 0 {
		return nil
	}
	out := make([]meta.UUID, len(in))
	for i, u := range in {
		out[i] = u
	}
	return out
}

// securityProtocols are Kafka's codes of a listener's protocol.
var securityProtocols = map[int16]string{0: "PLAINTEXT", 1: "SSL", 2: "SASL_PLAINTEXT", 3: "SASL_SSL"}

func (c *Controller) registration(ctx context.Context, conn uint64, req *kmsg.BrokerRegistrationRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.BrokerRegistrationResponse)
	resp.Version, resp.BrokerEpoch = req.Version, -1
	r := control.Registration{
		ID: req.BrokerID, Incarnation: req.IncarnationID, ClusterID: req.ClusterID, Dirs: uuids(req.LogDirs), PreviousEpoch: -1,
	}
	if req.Version >= 3 {
		r.PreviousEpoch = req.PreviousBrokerEpoch
	}
	if req.Rack != nil {
		r.Rack = *req.Rack
	}
	for _, l := range req.Listeners {
		p, ok := securityProtocols[l.SecurityProtocol]
		if !ok {
			resp.ErrorCode = kerr.InvalidRequest.Code
			return resp
		}
		r.Endpoints = append(r.Endpoints, meta.Endpoint{Listener: l.Name, Host: l.Host, Port: int32(l.Port), Protocol: p})
	}
	r.Features = make([]control.FeatureRange, 0, len(req.Features)) // never nil: what another process supports is compared
	for _, f := range req.Features {
		if f.Name == control.FeatureIntact {
			r.Intact = f.MaxSupportedVersion > 0
			continue
		}
		r.Features = append(r.Features, control.FeatureRange{Name: f.Name, Min: f.MinSupportedVersion, Max: f.MaxSupportedVersion})
	}
	epoch, err := c.register(ctx, r, conn == 0)
	if err != nil {
		e := wireError(err)
		resp.ErrorCode = code(e)
		if c.Leads() {
			c.log.Warn("registration refused", "broker", r.ID, "error", e.Message)
		}
		return resp
	}
	resp.BrokerEpoch = epoch
	return resp
}

func (c *Controller) alterPartition(ctx context.Context, req *kmsg.AlterPartitionRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.AlterPartitionResponse)
	resp.Version = req.Version
	if req.Version < 2 {
		resp.ErrorCode = kerr.UnsupportedVersion.Code
		return resp
	}
	changes := isrChanges(req)
	var answers []control.ISRAnswer
	_, err := c.do(ctx, func(cl *control.Cluster) (control.Plan, error) {
		p, a, err := cl.AlterPartition(req.BrokerID, req.BrokerEpoch, changes)
		answers = a
		return p, err
	})
	if err != nil {
		resp.ErrorCode = code(wireError(err))
		return resp
	}
	c.wakePreferred(answers)
	i := 0
	for _, t := range req.Topics {
		out := kmsg.NewAlterPartitionResponseTopic()
		out.TopidID = t.TopicID
		for _, p := range t.Partitions {
			a := answers[i]
			i++
			x := kmsg.NewAlterPartitionResponseTopicPartition()
			x.Partition, x.ErrorCode = p.Partition, code(a.Err)
			if s := a.State; s != nil {
				x.LeaderID, x.LeaderEpoch, x.ISR = s.Leader, s.LeaderEpoch, s.ISR
				x.LeaderRecoveryState, x.PartitionEpoch = s.Recovery, s.PartitionEpoch
			}
			out.Partitions = append(out.Partitions, x)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

// isrChanges are the proposals in the order of the request.
func isrChanges(req *kmsg.AlterPartitionRequest) []control.ISRChange {
	var out []control.ISRChange
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			ch := control.ISRChange{Topic: t.TopicID, Partition: p.Partition, LeaderEpoch: p.LeaderEpoch, PartitionEpoch: p.PartitionEpoch, Recovery: p.LeaderRecoveryState}
			if req.Version >= 3 {
				for _, m := range p.NewEpochISR {
					ch.ISR = append(ch.ISR, control.ISRMember{ID: m.BrokerID, Epoch: m.BrokerEpoch})
				}
			} else {
				for _, id := range p.NewISR {
					ch.ISR = append(ch.ISR, control.ISRMember{ID: id, Epoch: -1})
				}
			}
			out = append(out, ch)
		}
	}
	return out
}

func (c *Controller) allocate(ctx context.Context, req *kmsg.AllocateProducerIDsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.AllocateProducerIDsResponse)
	resp.Version, resp.ProducerIDStart = req.Version, -1
	first, n, err := c.grantProducerIDs(ctx, req.BrokerID, req.BrokerEpoch)
	if err != nil {
		resp.ErrorCode = code(wireError(err))
		return resp
	}
	resp.ProducerIDStart, resp.ProducerIDLen = first, n
	return resp
}

func (c *Controller) assignDirs(ctx context.Context, req *kmsg.AssignReplicasToDirsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.AssignReplicasToDirsResponse)
	resp.Version = req.Version
	var wishes []control.DirAssignment
	for _, d := range req.Directories {
		for _, t := range d.Topics {
			for _, p := range t.Partitions {
				wishes = append(wishes, control.DirAssignment{Dir: d.ID, Topic: t.TopicID, Partition: p.Partition})
			}
		}
	}
	var errs []*control.Error
	_, err := c.do(ctx, func(cl *control.Cluster) (control.Plan, error) {
		p, e, err := cl.AssignDirs(req.BrokerID, req.BrokerEpoch, wishes)
		errs = e
		return p, err
	})
	if err != nil {
		resp.ErrorCode = code(wireError(err))
		return resp
	}
	i := 0
	for _, d := range req.Directories {
		od := kmsg.NewAssignReplicasToDirsResponseDirectory()
		od.ID = d.ID
		for _, t := range d.Topics {
			ot := kmsg.NewAssignReplicasToDirsResponseDirectoryTopic()
			ot.TopicID = t.TopicID
			for _, p := range t.Partitions {
				op := kmsg.NewAssignReplicasToDirsResponseDirectoryTopicPartition()
				op.Partition, op.ErrorCode = p.Partition, code(errs[i])
				i++
				ot.Partitions = append(ot.Partitions, op)
			}
			od.Topics = append(od.Topics, ot)
		}
		resp.Directories = append(resp.Directories, od)
	}
	return resp
}
