package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/meta"
)

// Options is what a Controller needs.
type Options struct {
	Store     coord.Store // closed by its owner, after the Controller
	NodeID    int32
	ClusterID string // what the data directories remember, "" when they are new
	Static    *config.Static
	NewID     func() meta.UUID // fresh random ids, never zero
	Rand      func(n int) int  // in [0, n), safe for concurrent use
	Log       *slog.Logger     // nil: silent
	// Bytes is the size of one replica, for the balancer; nil: not known, replicas only are counted.
	Bytes func(meta.TopicPartition) int64
	// Settle is how long a preferred leader is in sync again before leadership goes back to it; 0: half a minute.
	Settle time.Duration
}

// Controller follows the cluster's metadata and, while this broker leads, changes it.
type Controller struct {
	o      Options
	log    *slog.Logger
	image  atomic.Pointer[meta.Image]
	coming atomic.Pointer[meta.Image] // what subscribers are being told
	ops    chan *op
	ready  chan struct{} // closed when the cluster is known to be there; readyOnce does it
	failed chan struct{} // closed when the image cannot go on
	pulses *pulses
	due    duties // what a term does by itself, beside answering
	// serving is the term under which this broker answers as controller; nil or ended: it does not.
	serving atomic.Pointer[coord.Term]
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	readyOnce sync.Once

	subs struct { // held while subscribers run: each sees every delta once, in order
		sync.Mutex
		fns []func(*meta.Image, *meta.Delta)
	}
	mu struct {
		sync.Mutex
		err     error
		closed  bool
		changed chan struct{} // closed and replaced with every image
	}
}

// New makes a controller. Nothing runs before Start.
func New(o Options) *Controller {
	c := &Controller{o: o, log: o.Log, ops: make(chan *op), ready: make(chan struct{}), failed: make(chan struct{}), pulses: newPulses(o.Static)}
	c.due.wake, c.due.settle = make(chan struct{}, 1), cmp.Or(o.Settle, settleFor)
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.image.Store(meta.Empty())
	c.mu.changed = make(chan struct{})
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Start loads the metadata, tells subscribers, and begins to follow and to lead.
func (c *Controller) Start(ctx context.Context) error {
	snap, rev, err := c.o.Store.Load(ctx)
	if err != nil {
		return err
	}
	im, d, err := meta.Empty().Apply(snap.Changes, int64(rev))
	if err != nil {
		return fmt.Errorf("read the cluster's metadata: %w", err)
	}
	c.publish(im, d)
	tail, err := c.o.Store.Tail(c.ctx, rev)
	if err != nil {
		return err
	}
	c.wg.Add(3)
	go c.follow(tail)
	go c.lead()
	go func() {
		defer c.wg.Done()
		c.pulses.run(c.ctx.Done())
	}()
	return nil
}

// Ready waits until the cluster has an id and a controller. It fails when the data directories and
// the store belong to different clusters, or when the metadata cannot be read.
func (c *Controller) Ready(ctx context.Context) error {
	select {
	case <-c.ready:
		// Checked by whoever joins, too: a member that never leads would mix two clusters' logs.
		if id := c.Image().ClusterID(); c.o.ClusterID != "" && c.o.ClusterID != id {
			return &control.Error{Code: kerr.InconsistentClusterID, Message: fmt.Sprintf("the data directories belong to cluster %s, but the coordination store to cluster %s", c.o.ClusterID, id)}
		}
		return nil
	case <-c.failed:
		return c.over()
	case <-ctx.Done():
		return fmt.Errorf("wait for the controller: %w", ctx.Err())
	case <-c.ctx.Done():
		return coord.ErrClosed
	}
}

// Failed is closed when this broker cannot follow the metadata any more; Err says why, and is nil
// when it was closed in order.
func (c *Controller) Failed() <-chan struct{} { return c.failed }

// Err is why the controller failed, nil while it works.
func (c *Controller) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.err
}

// fail ends the controller's work; the first reason stays.
func (c *Controller) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err != nil || c.ctx.Err() != nil {
		return
	}
	c.mu.err = err
	close(c.failed)
	c.log.Error("controller stopped", "error", err)
}

// Close stops both goroutines and waits for them. The store is the owner's to close, afterwards.
func (c *Controller) Close() error {
	c.cancel()
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.closed && c.mu.err == nil {
		close(c.failed) // whoever waits for a failure must not wait for ever
	}
	c.mu.closed = true
	return nil
}

// over is why nothing more comes.
func (c *Controller) over() error {
	if err := c.Err(); err != nil {
		return err
	}
	return coord.ErrClosed
}

// Image is the newest image. A request takes it once and reads it from start to end.
func (c *Controller) Image() *meta.Image { return c.image.Load() }

// Coming is the image that subscribers are being told, or Image: partitions have taken it in, or are about to. It
// says where a leader has gone, before this broker serves by it.
func (c *Controller) Coming() *meta.Image {
	if im := c.coming.Load(); im != nil {
		return im
	}
	return c.Image()
}

// Subscribe has fn called with every delta from now on, in order, each once, before Image shows it;
// at once it is called with everything there is. fn must be quick where it can, and must not call
// a method that changes the cluster: the answer would wait for fn itself.
func (c *Controller) Subscribe(fn func(*meta.Image, *meta.Delta)) {
	c.subs.Lock()
	defer c.subs.Unlock()
	im := c.image.Load()
	fn(im, im.Everything())
	c.subs.fns = append(c.subs.fns, fn)
}

func (c *Controller) publish(im *meta.Image, d *meta.Delta) {
	c.subs.Lock()
	c.coming.Store(im)
	for _, fn := range c.subs.fns {
		fn(im, d)
	}
	c.image.Store(im)
	c.subs.Unlock()
	c.mu.Lock()
	close(c.mu.changed)
	c.mu.changed = make(chan struct{})
	c.mu.Unlock()
	if t := c.serving.Load(); t != nil && overtaken(im, t) {
		t.End()
	}
	if len(d.Brokers) > 0 {
		c.pulses.sync(im)
	}
	c.due.see(d)
	if c.known(im) {
		c.readyOnce.Do(func() { close(c.ready) })
	}
}

// overtaken says that an image shows a later controller than t's. The store need not have noticed: its engine's lead
// may have gone away and come back between two looks, and whoever leads by an overtaken term answers from a picture
// that stands still until its next write is refused. A leader told there that its proposal is outdated waits for ever.
func overtaken(im *meta.Image, t *coord.Term) bool { return im.ControllerRecord().Epoch > t.Epoch }

// known says that the cluster has an id, and a controller which is not this broker: its term need not come first.
// A record that names this broker is of an earlier process, or of a term that has not put things in order yet.
func (c *Controller) known(im *meta.Image) bool {
	id, _ := im.Controller()
	return im.ClusterID() != "" && id >= 0 && id != c.o.NodeID
}

// await waits until the local image shows revision rev.
func (c *Controller) await(ctx context.Context, rev coord.Revision) error {
	for {
		c.mu.Lock()
		changed := c.mu.changed
		c.mu.Unlock()
		if c.image.Load().Revision() >= int64(rev) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.failed:
			return c.over()
		case <-c.ctx.Done():
			return coord.ErrClosed
		}
	}
}

// follow turns the history into images.
func (c *Controller) follow(tail <-chan coord.Batch) {
	defer c.wg.Done()
	for {
		for b := range tail {
			im, d, err := c.image.Load().Apply(b.Changes, int64(b.Rev))
			if err != nil {
				c.fail(fmt.Errorf("read the cluster's metadata: %w", err))
				return
			}
			c.publish(im, d)
		}
		if c.ctx.Err() != nil {
			return
		}
		next, err := c.reload()
		if err != nil {
			c.fail(err) // says nothing when it is we who close
			return
		}
		tail = next
	}
}

// reload catches up by a full listing, when the history from where we stood is gone.
func (c *Controller) reload() (<-chan coord.Batch, error) {
	snap, rev, err := c.o.Store.Load(c.ctx)
	if err != nil {
		return nil, err
	}
	now := c.image.Load()
	im, d, err := now.Apply(now.Replace(snap.Changes), int64(rev))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's metadata: %w", err)
	}
	c.publish(im, d)
	return c.o.Store.Tail(c.ctx, rev)
}

// wireError says an error of the store in Kafka's terms.
func wireError(err error) *control.Error {
	var e *control.Error
	var code *kerr.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return e
	case errors.As(err, &code):
	case errors.Is(err, coord.ErrFenced):
		code = kerr.NotController
	case errors.Is(err, coord.ErrFull):
		code = kerr.PolicyViolation
	case errors.Is(err, coord.ErrUnknown), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		code = kerr.RequestTimedOut
	case errors.Is(err, coord.ErrClosed):
		code = kerr.BrokerNotAvailable
	default:
		code = kerr.UnknownServerError
	}
	return &control.Error{Code: code, Message: err.Error()}
}
