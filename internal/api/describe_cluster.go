package api

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/server"
)

// DescribeCluster (key 60), versions 0-2.
//
//	v1  kind of endpoints (KIP-919): brokers only, there are no controller listeners
//	v2  fenced brokers on demand (KIP-1073)
func serveDescribeCluster(c *Call) server.Reply {
	const brokers = 1 // kind of endpoint
	req := c.Request.(*kmsg.DescribeClusterRequest)
	resp := kmsg.NewPtrDescribeClusterResponse()
	resp.EndpointType, resp.ControllerID = brokers, -1
	resp.ClusterAuthorizedOperations = noOperations
	if req.Version >= 1 && req.EndpointType != brokers {
		code, msg := kerr.UnsupportedEndpointType, "Unsupported endpoint type"
		if req.EndpointType == 2 {
			code, msg = kerr.MismatchedEndpointType, "The request was sent to an endpoint of wrong type."
		}
		resp.ErrorCode, resp.ErrorMessage = c.failed(code.Code), &msg
		return c.ready(resp)
	}
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = clusterOperations
	}
	resp.ClusterID, resp.ControllerID = c.Image.ClusterID(), c.shownController()
	for _, b := range c.Image.Brokers() {
		e, ok := c.endpoint(b)
		if !ok || b.Fenced && !req.IncludeFencedBrokers {
			continue
		}
		rb := kmsg.NewDescribeClusterResponseBroker()
		rb.NodeID, rb.Host, rb.Port, rb.Rack, rb.IsFenced = b.ID, e.Host, e.Port, rack(b), b.Fenced
		resp.Brokers = append(resp.Brokers, rb)
	}
	return c.ready(resp)
}
