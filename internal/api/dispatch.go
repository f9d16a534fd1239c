package api

import (
	"bytes"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/metric"
	"github.com/milena-mq/milena/internal/server"
	"github.com/milena-mq/milena/internal/wire"
)

// chargeFrom is the decoded size from which a request asks the memory budget; the depth of the pipeline
// bounds what smaller ones can add up to.
const chargeFrom = 64 << 10

// API is the table at work: the Handler of package server.
type API struct {
	env    *Env
	rows   [kmsg.MaxKey + 1]*Row
	meters [kmsg.MaxKey + 1]*meter
	bad    *metric.Counter

	clientKeys, peerKeys []kmsg.ApiVersionsResponseApiKey // what ApiVersions announces; never changed
}

func (a *API) announced(peer bool) []kmsg.ApiVersionsResponseApiKey {
	if peer {
		return a.peerKeys
	}
	return a.clientKeys
}

// meter is what is counted per API.
type meter struct {
	count, failures, sent *metric.Counter
	time                  *metric.Histogram
}

// New makes the dispatcher.
func New(env *Env) *API {
	a := &API{env: env, bad: env.Metrics.Counter("milena_requests_refused_total", "Requests that were not understood or not allowed on their listener; their connection was closed.")}
	if env.Forward != nil {
		env.ProducerIDs = NewProducerIDs(env.allocateIDs)
	}
	a.clientKeys, a.peerKeys = announcedKeys(table, false), announcedKeys(table, true)
	for i := range table {
		r := &table[i]
		a.rows[r.Key] = r
		a.meters[r.Key] = &meter{
			count:    env.Metrics.Counter("milena_requests_total", "Requests that are over, by API.", "api", r.Name()),
			failures: env.Metrics.Counter("milena_request_errors_total", "Errors in answers, and answers that were not sent, by API.", "api", r.Name()),
			sent:     env.Metrics.Counter("milena_response_bytes_total", "Bytes of answers encoded, by API.", "api", r.Name()),
			time:     env.Metrics.Histogram("milena_request_duration_seconds", "From the request received to its answer encoded, waiting included, by API.", "api", r.Name()),
		}
	}
	return a
}

// Closed implements server.Handler. Nothing of a client outlives its connection: fetch sessions and group
// members end by their own rules, as in Kafka. A broker whose connection is gone may be dead: the
// controller wants to know at once, long before its session runs out.
func (a *API) Closed(c *server.Conn) {
	if c.Peer() && a.env.Controller != nil {
		a.env.Controller.Closed(c.ID())
	}
}

// connState is what a connection's first request, ApiVersions, told about the client. Never changed.
type connState struct {
	software, version string // KIP-511
}

// software is what the client called itself, empty when it did not; for log lines.
func (c *Call) software() string {
	if s, ok := c.Conn.Value().(*connState); ok {
		return s.software + " " + s.version
	}
	return ""
}

// refuse ends a connection over a request that cannot be answered.
func (a *API) refuse(err error) Reply {
	a.bad.Inc()
	return Reply{Kind: server.HangUp, Err: err}
}

// Serve implements server.Handler: header, row, gate, decoding, body.
func (a *API) Serve(conn *server.Conn, f *server.Frame) Reply {
	h, body, err := wire.ParseHeader(f.Bytes())
	if err != nil {
		return a.refuse(err)
	}
	row := a.rows[h.Key]
	if row == nil {
		return a.refuse(fmt.Errorf("%w: api key %d (%s) is not served", wire.ErrMalformed, h.Key, wire.Name(h.Key)))
	}
	if !row.allowedOn(conn.Peer()) && row.On != Peer {
		return a.refuse(fmt.Errorf("%w: %s on listener %s", wire.ErrMalformed, row.Name(), conn.Listener()))
	}
	c := &Call{Env: a.env, api: a, Conn: conn, Frame: f, Header: h, Now: f.Start, row: row, meter: a.meters[h.Key]}
	served := h.Version >= row.Min && h.Version <= row.Max
	if !served && h.Key == keyApiVersions {
		return a.finish(c, c.unknownApiVersions())
	}
	if !h.KnownVersion {
		return a.refuse(fmt.Errorf("%w: %s version %d, served are %d to %d", wire.ErrMalformed, row.Name(), h.Version, row.Min, row.Max))
	}
	if c.Request, err = a.decode(c, body); err != nil {
		return a.refuse(err)
	}
	if !row.allowedOn(conn.Peer()) {
		return a.brokersOnly(c)
	}
	if !served {
		return a.unsupported(c)
	}
	if a.env.Image != nil {
		c.Image = a.env.Image()
	}
	if code := c.authorize(); code != nil {
		if resp := refusal(c.Request, code.Code); resp != nil {
			return a.finish(c, c.ready(resp))
		}
		return a.refuse(fmt.Errorf("%s: %w", row.Name(), code))
	}
	return a.finish(c, c.routed())
}

// brokersOnly answers a client that sent what only brokers may send (issue 4, "Bad input"): nothing is
// carried out, and the connection lives on.
func (a *API) brokersOnly(c *Call) Reply {
	c.failed(kerr.ClusterAuthorizationFailed.Code)
	if resp := refusal(c.Request, kerr.ClusterAuthorizationFailed.Code); resp != nil {
		return a.finish(c, c.ready(resp))
	}
	return a.refuse(fmt.Errorf("%w: %s on listener %s", kerr.ClusterAuthorizationFailed, c.row.Name(), c.Conn.Listener()))
}

func (r *Row) allowedOn(peer bool) bool {
	if peer {
		return r.On&Peer != 0
	}
	return r.On&Client != 0
}

// decode charges the budget for what the request becomes, then lets kmsg at it.
func (a *API) decode(c *Call, body []byte) (kmsg.Request, error) {
	cost, err := wire.Cost(c.Header, body)
	if err != nil {
		return nil, err
	}
	if !c.row.Alias {
		cost += int64(len(body))
	}
	if cost > chargeFrom {
		if err := c.Frame.Charge(c.Conn.Context(), cost); err != nil {
			return nil, fmt.Errorf("decode %s of %d bytes: %w", c.row.Name(), len(body), err)
		}
	}
	if !c.row.Alias {
		// The frame goes back to its pool when Serve returns, while the bytes of these requests (member
		// metadata, assignments) live on in the coordinator.
		body = bytes.Clone(body)
	}
	return wire.Decode(c.Header, body)
}

// authorize is where access control will ask (row.Needs); nobody is refused until it exists.
func (c *Call) authorize() *kerr.Error { return nil }

// throttle is where quotas will say how long the connection is muted after the answer, in milliseconds
// (row.Charge; KIP-219: the answer is sent first). Zero until quotas exist.
func (c *Call) throttle() int32 { return 0 }

// finish fills in what the server needs around the body.
func (a *API) finish(c *Call, r Reply) Reply {
	r.Correlation = c.Header.Correlation
	r.Tags = c.Header.ResponseTags()
	r.Serial = c.row.Flow == Serial && !c.Conn.Peer() // between brokers nothing may hold a heartbeat up
	r.Finish = c
	r.Mute = c.throttle()
	return r
}

// unsupported answers a version that can be read but is not served with UNSUPPORTED_VERSION in the
// shape of that version, where the API has a place for it; otherwise the connection is closed, which is
// what Apache Kafka always does.
func (a *API) unsupported(c *Call) Reply {
	c.failed(kerr.UnsupportedVersion.Code)
	if resp := refusal(c.Request, kerr.UnsupportedVersion.Code); resp != nil {
		if p, ok := c.Request.(*kmsg.ProduceRequest); ok && p.Acks == 0 {
			return a.finish(c, c.hangUp(fmt.Errorf("produce version %d with acks=0: %w", c.Header.Version, kerr.UnsupportedVersion)))
		}
		return a.finish(c, c.ready(resp))
	}
	return a.refuse(fmt.Errorf("%w: %s version %d, served are %d to %d", wire.ErrMalformed, c.row.Name(), c.Header.Version, c.row.Min, c.row.Max))
}
