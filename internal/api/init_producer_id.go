package api

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/server"
)

// InitProducerId (key 22), versions 0-5: an id for an idempotent producer, epoch 0, unused ever before in this
// cluster. What the request says of an earlier id (v3, KIP-360) matters to transactional producers only.
//
// A transactional id is refused with UNSUPPORTED_VERSION until the transaction coordinator exists: every client takes
// that as final, while a retriable code would keep it asking for ever.
func serveInitProducerID(c *Call) server.Reply {
	req := c.Request.(*kmsg.InitProducerIDRequest)
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	switch {
	case req.TransactionalID == nil:
		ctx, cancel := context.WithTimeout(c.Conn.Context(), producerIDWait)
		defer cancel()
		id, err := c.ProducerIDs.next(ctx)
		if err != nil {
			resp.ErrorCode = c.errorCode(err)
			break
		}
		resp.ProducerID, resp.ProducerEpoch = id, 0
	case *req.TransactionalID == "":
		resp.ErrorCode = c.failed(kerr.InvalidRequest.Code)
	default:
		resp.ErrorCode = c.failed(kerr.UnsupportedVersion.Code)
	}
	return c.ready(resp)
}

// producerIDWait bounds the wait for a block of ids from the controller.
const producerIDWait = 10 * time.Second

// ProducerIDs hands out producer ids from blocks that the controller reserves durably. What is left of a
// block at the end of the process is never used.
type ProducerIDs struct {
	allocate func(context.Context) (first int64, n int32, err error)
	mu       struct {
		sync.Mutex // held while a block is asked for: those who wait need the same block
		at, end    int64
	}
}

// NewProducerIDs takes blocks from allocate.
func NewProducerIDs(allocate func(context.Context) (first int64, n int32, err error)) *ProducerIDs {
	return &ProducerIDs{allocate: allocate}
}

func (p *ProducerIDs) next(ctx context.Context) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.at == p.mu.end {
		first, n, err := p.allocate(ctx)
		if err != nil {
			return -1, err
		}
		if n < 1 {
			return -1, kerr.CoordinatorLoadInProgress // an empty block: ask again
		}
		p.mu.at, p.mu.end = first, first+int64(n)
	}
	id := p.mu.at
	p.mu.at++
	return id, nil
}
