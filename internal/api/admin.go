package api

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
)

// What admin APIs share. An admin request waits for the controller on the reader of its connection
// (Flow Serial): the connection reads no further until the answer, everybody else goes on.

const (
	// adminTimeout bounds an admin request that names no timeout of its own.
	adminTimeout = 30 * time.Second
	// maxAdminTimeout bounds the one that does, so that nobody parks a connection for ever.
	maxAdminTimeout = 5 * time.Minute
)

// admin is the context of a request that waits for the controller; ms is the client's timeout, 0 or
// less for none. It ends with the connection.
func (c *Call) admin(ms int32) (context.Context, context.CancelFunc) {
	d := adminTimeout
	if ms > 0 {
		d = min(time.Duration(ms)*time.Millisecond, maxAdminTimeout)
	}
	parent := context.Background()
	if c.Conn != nil {
		parent = c.Conn.Context()
	}
	return context.WithTimeout(parent, d)
}

// refusedAs splits a refusal into the code and the sentence of an answer.
func (c *Call) refusedAs(err *control.Error) (int16, *string) {
	if err == nil {
		return 0, nil
	}
	msg := err.Message
	return c.errorCode(err), &msg
}

// cluster is the decisions' view of this request's image, for checks that change nothing.
func (c *Call) cluster() *control.Cluster {
	return &control.Cluster{Image: c.Image, Static: c.Static, NodeID: c.NodeID}
}

// Operations that a caller may do, as Kafka answers them where no authorizer is set: every operation
// that means something on the resource (kafka.md 6.4).
const (
	noOperations      int32 = -1 << 31 // not asked for
	topicOperations   int32 = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<11
	clusterOperations int32 = 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12
)

// endpoint is where clients of this connection's listener reach a broker.
func (c *Call) endpoint(b *meta.Broker) (meta.Endpoint, bool) {
	if b == nil {
		return meta.Endpoint{}, false
	}
	if c.Conn != nil {
		return b.Endpoint(c.Conn.Listener())
	}
	if len(b.Endpoints) == 0 {
		return meta.Endpoint{}, false
	}
	return b.Endpoints[0], true
}

func rack(b *meta.Broker) *string {
	if b.Rack == "" {
		return nil
	}
	return &b.Rack
}

// shownController is the broker to which clients of this connection's listener send what only the controller can
// do: the controller itself where they reach it, else this broker, else any other. Every broker forwards such
// requests, and a client that is told of no controller at all only waits, for example while one takes over.
func (c *Call) shownController() int32 {
	reached := func(id int32) bool {
		b := c.Image.Broker(id)
		if b == nil || b.Fenced {
			return false
		}
		_, ok := c.endpoint(b)
		return ok
	}
	if id, _ := c.Image.Controller(); reached(id) {
		return id
	}
	if reached(c.NodeID) {
		return c.NodeID
	}
	for _, b := range c.Image.Brokers() {
		if reached(b.ID) {
			return b.ID
		}
	}
	return -1
}

// shownPartition is a partition as clients see it: a leader they cannot reach counts as none.
type shownPartition struct {
	code    int16
	leader  int32
	offline []int32
}

// leaderless maps a broker to the code that a partition led by it gets: 0 when clients reach it.
func (c *Call) reach() func(id int32) (code int16, alive bool) {
	type state struct {
		code  int16
		alive bool
	}
	known := make(map[int32]state, len(c.Image.Brokers()))
	return func(id int32) (int16, bool) {
		if s, ok := known[id]; ok {
			return s.code, s.alive
		}
		s := state{code: kerr.LeaderNotAvailable.Code}
		if b := c.Image.Broker(id); b != nil && !b.Fenced {
			s = state{alive: true}
			if _, ok := c.endpoint(b); !ok {
				s.code = kerr.ListenerNotFound.Code
			}
		}
		known[id] = s
		return s.code, s.alive
	}
}

func shown(p *meta.Partition, reach func(int32) (int16, bool)) shownPartition {
	s := shownPartition{leader: p.Leader}
	if s.code, _ = reach(p.Leader); s.code != 0 {
		s.leader = meta.NoLeader
	}
	for _, r := range p.Replicas {
		if _, alive := reach(r); !alive {
			s.offline = append(s.offline, r)
		}
	}
	return s
}

// is says that a refusal has this code.
func is(err *control.Error, code *kerr.Error) bool { return err != nil && errors.Is(err.Code, code) }
