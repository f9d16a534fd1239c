package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/milena-mq/milena/internal/wire"
)

const (
	aheadSize = 512      // read with the length: an ordinary small request is one system call
	firstStep = 64 << 10 // memory given to a frame on the word of its length alone
	stepUp    = 16       // further memory: this many times what has arrived
)

// Conn is one client's connection.
type Conn struct {
	id     uint64
	srv    *Server
	lst    *ListenerOptions
	budget *budget // where its requests take their memory from
	nc     net.Conn
	raw    syscall.RawConn // nil when the socket is not plain TCP
	host   string
	ctx    context.Context
	cancel context.CancelFunc
	limit  int32 // of a frame; the reader's
	value  atomic.Pointer[any]

	// The reader's: bytes read past the last request.
	ahead [aheadSize]byte
	r, w  int
	last  int16 // key of the request answered last

	// out belongs to the writer while mu.writing, else to the reader. handed is the reader's memory of
	// having started a writer that may still run.
	out    *Out
	handed bool

	progress   atomic.Int64 // coarse time of the last byte in or out, Unix nanoseconds
	frameStart atomic.Int64 // coarse time at which the frame being received began, 0 between frames
	serving    atomic.Bool  // the handler has a request
	writeStart atomic.Int64 // coarse time at which the write in progress began, 0 for none

	dead chan struct{} // closed when the socket is closed
	mu   struct {
		sync.Mutex
		q       []pending
		writing bool
		killed  bool
		drain   bool
		why     error
	}
	moved sync.Cond // q or writing changed
}

// errDrained ends a connection on shutdown.
var errDrained = errors.New("the broker shuts down")

// touch notes progress for the sweeper.
func (c *Conn) touch() { c.progress.Store(c.srv.coarse.Load()) }

// kill closes the socket at once. The first reason is kept.
func (c *Conn) kill(why error) {
	c.mu.Lock()
	if c.mu.killed {
		c.mu.Unlock()
		return
	}
	c.mu.killed, c.mu.why = true, why
	close(c.dead)
	c.moved.Broadcast()
	c.mu.Unlock()
	c.cancel()
	_ = c.nc.Close()
}

// drain stops the reader where it next waits for a frame.
func (c *Conn) drain() {
	c.mu.Lock()
	c.mu.drain = true
	c.moved.Broadcast()
	c.mu.Unlock()
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
}

func (c *Conn) draining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.drain
}

// run is the reader goroutine.
func (c *Conn) run() {
	defer c.srv.wg.Done()
	defer c.srv.forget(c)
	err := c.readLoop()
	c.finish(err)
}

// readLoop returns why no further request is read. The one recover of the reader is here: whatever a
// request provoked, the process and the other connections go on.
func (c *Conn) readLoop() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked(p)
		}
	}()
	for {
		f, err := c.readFrame()
		if err != nil {
			return err
		}
		if stop, err := c.serve(f); stop || err != nil {
			return err
		}
	}
}

// serve hands one frame to the handler and its answer to the writer.
func (c *Conn) serve(f *Frame) (stop bool, err error) {
	c.serving.Store(true)
	defer c.serving.Store(false)
	key := int16(binary.BigEndian.Uint16(f.Bytes()))
	// What is answered already must not wait for a request of another kind, which may take long.
	if key != c.last {
		if err := c.flushInline(); err != nil {
			f.Release()
			return true, err
		}
	}
	reply, ok := c.handle(f)
	f.Release()
	if !ok {
		f.giveBack()
		return true, errPanic
	}
	c.last = key
	return c.enqueue(pending{Reply: reply, frame: f})
}

// handle is apart so that a panic in the handler releases the frame.
func (c *Conn) handle(f *Frame) (reply Reply, ok bool) {
	defer func() {
		if p := recover(); p != nil {
			_ = c.panicked(p)
		}
	}()
	return c.srv.o.Handler.Serve(c, f), true
}

var errPanic = errors.New("a request made its handler panic")

func (c *Conn) panicked(p any) error {
	c.srv.m.panics.Inc()
	c.srv.o.Log.Error("panic while serving a connection; the connection is closed",
		"panic", fmt.Sprint(p), "client", c.nc.RemoteAddr().String(), "listener", c.lst.Name, "stack", string(debug.Stack()))
	return errPanic
}

// fill reads once more into ahead.
func (c *Conn) fill() error {
	if err := c.flushInline(); err != nil {
		return err
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
	} else if c.r > 0 {
		c.w = copy(c.ahead[:], c.ahead[c.r:c.w])
		c.r = 0
	}
	n, err := c.nc.Read(c.ahead[c.w:])
	c.w += n
	if n > 0 {
		c.srv.m.bytesIn.Add(int64(n))
		c.touch()
		return nil
	}
	return err
}

// readFrame waits for one request. io.EOF means that the client closed between two requests.
func (c *Conn) readFrame() (*Frame, error) {
	if c.draining() {
		return nil, errDrained
	}
	for c.w-c.r < 4 {
		if err := c.fill(); err != nil {
			return nil, c.readError(err, c.w == c.r)
		}
	}
	size := int32(binary.BigEndian.Uint32(c.ahead[c.r:]))
	if err := wire.CheckSize(size, c.limit); err != nil {
		return nil, err
	}
	c.r += 4
	c.frameStart.Store(c.srv.coarse.Load())
	f, err := c.readBody(int(size))
	c.frameStart.Store(0)
	if err != nil {
		return nil, c.readError(err, false)
	}
	f.Start = time.Now()
	return f, nil
}

// readError tells a client that left from one that was cut off.
func (c *Conn) readError(err error, between bool) error {
	if errors.Is(err, errTooBusy) {
		return err
	}
	if c.draining() {
		return errDrained
	}
	if between && errors.Is(err, io.EOF) {
		return io.EOF
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

var errTooBusy = errors.New("frame larger than the memory budget")

// readBody receives a frame of n bytes. Memory follows what has arrived: a client that announces 100 MiB
// and sends nothing holds 64 KiB.
func (c *Conn) readBody(n int) (*Frame, error) {
	f := &Frame{budget: c.budget, n: n}
	f.refs.Store(1)
	have := 0
	for {
		step := n
		if n > firstStep {
			step = min(n, max(firstStep, have*stepUp))
		}
		if err := c.grow(f, step, have); err != nil {
			c.drop(f)
			return nil, err
		}
		for have < step {
			if c.r < c.w {
				m := copy(f.buf.b[have:step], c.ahead[c.r:c.w])
				c.r += m
				have += m
				continue
			}
			if err := c.flushInline(); err != nil {
				c.drop(f)
				return nil, err
			}
			m, err := c.nc.Read(f.buf.b[have:step])
			have += m
			if m > 0 {
				c.srv.m.bytesIn.Add(int64(m))
				c.touch()
			} else if err != nil {
				c.drop(f)
				return nil, err
			}
		}
		if have == n {
			return f, nil
		}
	}
}

// grow gives the frame a buffer of at least n bytes, with the first have bytes of the old one.
func (c *Conn) grow(f *Frame, n, have int) error {
	if int64(n) > c.budget.total {
		return fmt.Errorf("%w: %d of %d bytes", errTooBusy, n, c.budget.total)
	}
	// The sweeper must not take waiting for memory for a slow client.
	if c.budget.sem.TryAcquire(int64(n)) {
		c.budget.used.Add(int64(n))
	} else {
		if err := c.flushInline(); err != nil {
			return err
		}
		c.srv.m.budgetWaits.Inc()
		c.frameStart.Store(0)
		if err := c.budget.acquire(c.ctx, int64(n)); err != nil {
			return err
		}
		c.touch()
		c.frameStart.Store(c.srv.coarse.Load())
	}
	nb := getBuffer(n)
	if f.buf != nil {
		copy(nb.b, f.buf.b[:have])
		putBuffer(f.buf)
		c.budget.release(f.charge)
	}
	f.buf, f.charge = nb, int64(n)
	return nil
}

func (c *Conn) drop(f *Frame) {
	if f.buf != nil {
		putBuffer(f.buf)
		f.buf = nil
	}
	c.budget.release(f.charge)
}

// finish ends the connection: what is owed to a client that closed cleanly, that is being hung up on or
// drained gets a moment; one that broke the protocol gets nothing more.
func (c *Conn) finish(err error) {
	graceful := err == nil || errors.Is(err, io.EOF) || errors.Is(err, errDrained) || errors.Is(err, errHangUp)
	if c.lst.Peer && errors.Is(err, io.EOF) {
		// A broker never closes its sending side alone: it is gone, most likely killed, and who is told of that
		// now elects other leaders a Grace earlier than who first waits for what it was owed.
		graceful = false
	}
	if graceful {
		if ferr := c.flushInline(); ferr != nil {
			c.kill(ferr)
		}
		t := time.AfterFunc(c.srv.o.Grace, func() { c.kill(err) })
		c.mu.Lock()
		for c.mu.writing && !c.mu.killed {
			c.moved.Wait()
		}
		c.mu.Unlock()
		t.Stop()
	}
	c.kill(err)
	c.mu.Lock()
	for c.mu.writing {
		c.moved.Wait()
	}
	why := c.mu.why
	c.mu.Unlock()
	c.handed = false
	if c.out != nil {
		c.out.recycle()
		c.out = nil
	}
	c.srv.closed(c, why)
	c.closedHook()
}

// closedHook guards the handler's last word on the connection like its first.
func (c *Conn) closedHook() {
	defer func() {
		if p := recover(); p != nil {
			_ = c.panicked(p)
		}
	}()
	c.srv.o.Handler.Closed(c)
}
