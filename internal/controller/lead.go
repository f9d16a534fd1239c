package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/meta"
)

const (
	// storeTimeout bounds one call to the store. It is generous because a slow disk must not look like
	// a lost one: taking over with half a second never succeeds at 100 ms for each sync.
	storeTimeout = 10 * time.Second
	// leadAgain is the rest after the lead could not be taken.
	leadAgain = 200 * time.Millisecond
)

// op is one wish on its way to the lead goroutine.
type op struct {
	plan func(*control.Cluster) (control.Plan, error)
	done chan outcome // buffered: the lead goroutine never waits for whoever asked
}

type outcome struct {
	last coord.Revision // of the last step; 0 when there was none
	err  error
}

// do plans and appends on the lead goroutine, then waits until the local image shows the result. last is the revision
// of the last step.
func (c *Controller) do(ctx context.Context, plan func(*control.Cluster) (control.Plan, error)) (last coord.Revision, err error) {
	o := &op{plan: plan, done: make(chan outcome, 1)}
	for {
		if err := c.enqueue(ctx, o); err != nil {
			return 0, err
		}
		select {
		case r := <-o.done:
			if errors.Is(r.err, errOver) {
				continue
			}
			if r.err != nil {
				return 0, r.err
			}
			return r.last, c.await(ctx, r.last)
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-c.failed:
			return 0, c.over()
		case <-c.ctx.Done():
			return 0, coord.ErrClosed
		}
	}
}

// enqueue gives a wish to the lead goroutine. While another broker is the controller there is nobody to give it to.
func (c *Controller) enqueue(ctx context.Context, o *op) error {
	for {
		c.mu.Lock()
		changed := c.mu.changed
		c.mu.Unlock()
		if id, _ := c.Image().Controller(); id >= 0 && id != c.o.NodeID && !c.Leads() {
			return &control.Error{Code: kerr.NotController, Message: fmt.Sprintf("broker %d is the controller, not this one", id)}
		}
		select {
		case c.ops <- o:
			return nil
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

// lead takes the lead again and again, and serves while a term lasts.
func (c *Controller) lead() {
	defer c.wg.Done()
	said := ""
	for c.ctx.Err() == nil {
		err := c.term()
		var refused *control.Error
		if errors.As(err, &refused) || errors.Is(err, errUnreadable) {
			c.fail(err)
			return
		}
		if c.ctx.Err() != nil || errors.Is(err, coord.ErrClosed) {
			return
		}
		if err == nil {
			continue
		}
		if err.Error() != said { // five times a second would bury everything else
			said = err.Error()
			c.log.Warn("not the controller", "error", err)
		}
		t := time.NewTimer(leadAgain)
		select {
		case <-t.C:
		case <-c.ctx.Done():
			t.Stop()
		}
	}
}

// errOver: the term had ended before the wish was looked at. It waits for the next one, here or elsewhere.
var errOver = errors.New("the term is over")

var errUnreadable = errors.New("the cluster's metadata cannot be read")

// reign is one term and the image as it will be once everything appended under it has come back.
type reign struct {
	term  *coord.Term
	ahead *meta.Image
}

// term takes the lead once and serves until the term ends.
func (c *Controller) term() error {
	t, err := c.o.Store.Lead(c.ctx)
	if err != nil {
		return err
	}
	defer t.End()
	// The image is complete only when it shows our own take-over: everything an earlier controller
	// wrote lies before it. Planning on an older image would undo that.
	if err := c.await(c.ctx, t.Token); err != nil {
		return err
	}
	r := &reign{term: t, ahead: c.image.Load()}
	if err := c.settle(r); err != nil {
		return err
	}
	c.log.Info("this broker is the controller", "term", t.Epoch)
	c.serving.Store(t)
	defer c.serving.Store(nil)
	if overtaken(c.Image(), t) { // while it was put in order
		return nil
	}
	c.readyOnce.Do(func() { close(c.ready) })
	c.due.begin(r)
	c.pulses.begin()
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case o := <-c.ops:
			o.done <- c.serve(r, o)
			continue
		case <-c.pulses.wake:
		case <-c.due.wake:
		case <-tick.C:
		case <-t.Done():
			return nil
		case <-c.failed:
			return errUnreadable
		case <-c.ctx.Done():
			return nil
		}
		tick.Reset(c.tick(r))
	}
}

// settle puts the metadata in order before the term serves: the cluster exists, and nothing half
// made is left.
func (c *Controller) settle(r *reign) error {
	plan, err := c.cluster(r).Bootstrap(c.o.ClusterID)
	if err != nil {
		return err
	}
	out := c.carryOut(r, plan)
	if out.err == nil {
		out = c.carryOut(r, c.cluster(r).Sweep())
	}
	if out.err != nil {
		return out.err
	}
	return c.await(c.ctx, coord.Revision(r.ahead.Revision()))
}

func (c *Controller) cluster(r *reign) *control.Cluster {
	return &control.Cluster{Image: r.ahead, Static: c.o.Static, NodeID: c.o.NodeID, NewID: c.o.NewID, Rand: c.o.Rand, Slow: c.pulses.slow, Full: c.pulses.full}
}

func (c *Controller) serve(r *reign, o *op) outcome {
	if r.term.Ended() {
		return outcome{err: errOver}
	}
	plan, err := o.plan(c.cluster(r))
	if err != nil {
		return outcome{err: err}
	}
	out := c.carryOut(r, plan)
	if out.last == 0 {
		// Nothing to write, because of what is there already: the answer speaks of that, so the local
		// image has to show it first.
		out.last = coord.Revision(r.ahead.Revision())
	}
	return out
}

// carryOut appends a plan's steps in order. An error that leaves the outcome open, or that comes in
// the middle of a plan, ends the term: the next one begins by looking at what is there, and sweeps.
func (c *Controller) carryOut(r *reign, plan control.Plan) outcome {
	var out outcome
	for i, step := range plan.Steps {
		ctx, cancel := context.WithTimeout(c.ctx, storeTimeout)
		rev, err := c.o.Store.Append(ctx, r.term, step)
		cancel()
		if err != nil {
			if i > 0 || errors.Is(err, coord.ErrUnknown) {
				r.term.End()
			}
			return outcome{err: err}
		}
		out.last = rev
		next, _, err := r.ahead.Apply(step, int64(rev))
		if err != nil {
			r.term.End()
			return outcome{err: fmt.Errorf("%w: %w", errUnreadable, err)}
		}
		r.ahead = next
	}
	return out
}
