package server

import (
	"errors"
	"time"
)

// pending is an answer in its place in the queue.
type pending struct {
	Reply
	frame *Frame
}

// done gives back what the request held and tells whoever wants to know, once.
func (p *pending) done(body int64, err error) {
	p.frame.giveBack()
	if p.Finish != nil {
		p.Finish.Finish(body, err)
	}
}

func (p *pending) ready() bool {
	if p.Ready == nil {
		return true
	}
	select {
	case <-p.Ready:
		return true
	default:
		return false
	}
}

var (
	errHangUp = errors.New("hung up")
	errGone   = errors.New("the connection ended before the answer")
)

// owes says that the writer has answers to wait for or to write, and owns out.
func (c *Conn) owes() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.writing
}

// enqueue puts an answer behind those before it. When none is before it and it is ready, the reader
// encodes it on the spot: no other goroutine is woken for an ordinary small request.
func (c *Conn) enqueue(p pending) (stop bool, err error) {
	switch p.Kind {
	case None:
		p.done(0, nil)
		return false, nil
	case HangUp:
		p.done(0, p.Err)
		if p.Err != nil {
			c.srv.o.Log.Info("connection closed by the broker", "client", c.nc.RemoteAddr().String(), "reason", p.Err.Error())
		}
		return true, errHangUp
	}
	c.mu.Lock()
	if !c.mu.writing && p.ready() {
		c.mu.Unlock()
		c.handed = false
		if err := c.emit(&p); err != nil {
			return true, err
		}
		if p.Serial || c.out.full() {
			if err := c.flushInline(); err != nil {
				return true, err
			}
		}
		return false, c.mute(p.Mute)
	}
	// The bound on the queue: a client that sends faster than it reads is read no further.
	for c.mu.writing && len(c.mu.q) >= c.srv.o.MaxPipeline && !c.mu.killed {
		c.moved.Wait()
	}
	if c.mu.killed {
		why := c.mu.why
		c.mu.Unlock()
		p.done(0, errGone)
		return true, why
	}
	c.mu.q = append(c.mu.q, p)
	if !c.mu.writing {
		c.mu.writing, c.handed = true, true
		c.srv.wg.Add(1)
		go c.write()
	}
	for p.Serial && c.mu.writing && !c.mu.killed {
		c.moved.Wait()
	}
	c.mu.Unlock()
	return false, c.mute(p.Mute)
}

// mute keeps the reader from its next request for ms milliseconds (KIP-219).
func (c *Conn) mute(ms int32) error {
	if ms <= 0 {
		return nil
	}
	if err := c.flushInline(); err != nil {
		return err
	}
	t := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.dead:
	case <-c.srv.stopping:
	}
	return nil
}

// emit encodes one answer into out.
func (c *Conn) emit(p *pending) error {
	if c.out == nil {
		c.out, _ = outs.Get().(*Out)
	}
	body, err := c.encode(p)
	p.done(body, err)
	return err
}

// encode guards the rest of the connection's life against a panic in an Encode function.
func (c *Conn) encode(p *pending) (body int64, err error) {
	defer func() {
		if r := recover(); r != nil {
			c.out.undo()
			err = c.panicked(r)
		}
	}()
	return c.out.answer(&p.Reply)
}

// flushInline writes what the reader has encoded itself.
func (c *Conn) flushInline() error {
	if c.handed {
		if c.owes() {
			return nil
		}
		c.handed = false
	}
	return c.flush()
}

// flush writes out and gives it back to the pool. The caller owns out.
func (c *Conn) flush() error {
	o := c.out
	if o == nil {
		return nil
	}
	n := o.total
	c.writeStart.Store(c.srv.coarse.Load())
	err := o.flush(c)
	c.writeStart.Store(0)
	o.recycle()
	c.out = nil
	if err == nil {
		c.srv.m.bytesOut.Add(n)
	}
	return err
}

// write is the writer goroutine. It runs while answers are queued and owns out meanwhile.
func (c *Conn) write() {
	defer c.srv.wg.Done()
	err := c.writeLoop()
	if err == nil {
		return
	}
	c.kill(err)
	c.mu.Lock()
	q := c.mu.q
	c.mu.q = nil
	c.mu.Unlock()
	for i := range q {
		c.discard(&q[i])
	}
	c.mu.Lock()
	c.mu.writing = false
	c.moved.Broadcast()
	c.mu.Unlock()
}

// discard tells the owner of an answer that nobody will read it.
func (c *Conn) discard(p *pending) {
	defer func() {
		if r := recover(); r != nil {
			_ = c.panicked(r)
		}
	}()
	p.done(0, errGone)
}

// writeLoop returns nil when the queue is empty and everything is written; writing is false then.
func (c *Conn) writeLoop() (err error) {
	for {
		p, ok, err := c.next()
		if err != nil || !ok {
			return err
		}
		if !p.ready() {
			if err := c.flush(); err != nil {
				c.discard(&p)
				return err
			}
			select {
			case <-p.Ready:
			case <-c.dead:
				c.discard(&p)
				return errGone
			}
		}
		if err := c.emit(&p); err != nil {
			_ = c.flush() // the answers before it are whole
			return err
		}
		if c.out.full() {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
}

// next takes the first answer off the queue; when there is none it flushes and ends the writer's turn.
func (c *Conn) next() (p pending, ok bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if c.mu.killed {
			return p, false, errGone
		}
		if len(c.mu.q) > 0 {
			p = c.mu.q[0]
			c.mu.q[0] = pending{}
			c.mu.q = c.mu.q[1:]
			c.moved.Broadcast()
			return p, true, nil
		}
		if c.out == nil {
			c.mu.q = nil
			c.mu.writing = false
			c.touch()
			c.moved.Broadcast()
			return p, false, nil
		}
		c.mu.Unlock()
		err := c.flush()
		c.mu.Lock()
		if err != nil {
			return p, false, err
		}
	}
}
