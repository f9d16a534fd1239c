package api

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/server"
)

// InitProducerId (key 22), versions 0-5: an id for an idempotent producer, epoch 0, unused ever before in this
// cluster; with a transactional id the next epoch of it, from its coordinator.
//
//	v3  the client's own id and epoch (KIP-360)   v4  PRODUCER_FENCED (KIP-588)   v5  TRANSACTION_ABORTABLE (KIP-890)
func serveInitProducerID(c *Call) server.Reply {
	req := c.Request.(*kmsg.InitProducerIDRequest)
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	switch {
	case req.TransactionalID == nil:
		return c.newProducer(resp)
	case *req.TransactionalID == "":
		resp.ErrorCode = c.failed(kerr.InvalidRequest.Code)
	default:
		return c.initTransactional(req, resp)
	}
	return c.ready(resp)
}

// Take gives a producer id to a transaction coordinator; false: none is at hand, and one is being fetched where on is
// not nil.
func (p *ProducerIDs) Take() (int64, bool) { return p.take() }

// newProducer answers with the next id, once a block is at hand. Without one the answer is
// COORDINATOR_LOAD_IN_PROGRESS whatever the reason: every client takes it as "again, here, later", while
// librdkafka gives up its producer over NOT_CONTROLLER.
func (c *Call) newProducer(resp *kmsg.InitProducerIDResponse) server.Reply {
	answer := func() kmsg.Response {
		id, ok := c.ProducerIDs.take()
		if !ok {
			resp.ErrorCode = c.failed(kerr.CoordinatorLoadInProgress.Code)
			return resp
		}
		resp.ProducerID, resp.ProducerEpoch = id, 0
		return resp
	}
	wait := c.ProducerIDs.fetch(c.Conn)
	if wait == nil {
		return c.ready(answer())
	}
	return c.later(wait, answer)
}

// producerIDWait bounds the wait for a block of ids from the controller.
const producerIDWait = 10 * time.Second

// ProducerIDs hands out producer ids from blocks that the controller reserves durably. What is left of a
// block at the end of the process is never used.
type ProducerIDs struct {
	allocate func(context.Context) (first int64, n int32, err error)
	mu       struct {
		sync.Mutex
		at, end, size int64         // of the block in use
		spare         [2]int64      // first and end of the block after it
		fetching      chan struct{} // closed when a block has come or will not; nil: none is asked for
	}
}

// NewProducerIDs takes blocks from allocate.
func NewProducerIDs(allocate func(context.Context) (first int64, n int32, err error)) *ProducerIDs {
	return &ProducerIDs{allocate: allocate}
}

// take gives the next id; ok is false when there is none at hand.
func (p *ProducerIDs) take() (id int64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.at == p.mu.end {
		p.mu.at, p.mu.end = p.mu.spare[0], p.mu.spare[1]
		p.mu.size, p.mu.spare = p.mu.end-p.mu.at, [2]int64{}
	}
	if p.mu.at == p.mu.end {
		return -1, false
	}
	p.mu.at++
	return p.mu.at - 1, true
}

// goer runs a function beside the reader of a connection; *server.Conn is one.
type goer interface {
	Go(shared bool, fn func(ctx context.Context))
}

// fetch sees to it that ids are there: it asks for a block when the last one is nearly used up, in the
// background, so that a thousand producers that start at once wait for one request and hold no reader. The
// channel is to be waited for before take; nil: there are ids at hand.
func (p *ProducerIDs) fetch(on goer) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := p.mu.end - p.mu.at + p.mu.spare[1] - p.mu.spare[0]
	if p.mu.fetching == nil && left <= p.mu.size/10 { // nine tenths used, as in Kafka
		p.mu.fetching = make(chan struct{})
		on.Go(true, p.fetchBlock)
	}
	if left > 0 {
		return nil
	}
	return p.mu.fetching
}

// fetchBlock gets one block. It always ends the wait of those who need it.
func (p *ProducerIDs) fetchBlock(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, producerIDWait)
	defer cancel()
	var first int64
	var n int32
	err := errNoBlock
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if err == nil && n > 0 {
			p.mu.spare = [2]int64{first, first + int64(n)}
		}
		close(p.mu.fetching)
		p.mu.fetching = nil
	}()
	first, n, err = p.allocate(ctx)
}

var errNoBlock = errors.New("no block of producer ids")

// allocateIDs asks the controller of several brokers for a block, in the name of this one.
func (e *Env) allocateIDs(ctx context.Context) (first int64, n int32, err error) {
	req := kmsg.NewPtrAllocateProducerIDsRequest()
	req.BrokerID, req.BrokerEpoch = e.NodeID, e.epoch()
	r, err := e.Forward(ctx, req)
	if err != nil {
		return 0, 0, err
	}
	resp, ok := r.(*kmsg.AllocateProducerIDsResponse)
	if !ok {
		return 0, 0, kerr.UnknownServerError
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return 0, 0, err
	}
	return resp.ProducerIDStart, resp.ProducerIDLen, nil
}
