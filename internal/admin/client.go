package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Options says which cluster to talk to.
type Options struct {
	Bootstrap []string      // host:port each; at least one
	ClientID  string        // empty: milena
	Timeout   time.Duration // for one request; 0: 10 s
}

// Client talks to one cluster. Make it with New, end it with Close.
type Client struct {
	opts Options
	mu   struct {
		sync.Mutex
		kgo  *kgo.Client
		kadm *kadm.Client
	}
}

// New makes a client without connecting: the first call does.
func New(o Options) *Client {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.ClientID == "" {
		o.ClientID = "milena"
	}
	return &Client{opts: o}
}

// Close ends all connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.kgo != nil {
		c.mu.kgo.Close()
	}
}

// NoBroker is the error when no bootstrap address answers.
type NoBroker struct {
	Bootstrap []string
	Err       error
}

func (e *NoBroker) Error() string {
	return fmt.Sprintf("no broker answers at %s (%s)", strings.Join(e.Bootstrap, ", "), reason(e.Err))
}

func (e *NoBroker) Unwrap() error { return e.Err }

// reason shortens a dial error to what a person needs.
func reason(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	var sys syscall.Errno
	switch {
	case errors.As(err, &sys):
		return sys.Error()
	case errors.As(err, &dns):
		return "no such host: " + dns.Name
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &op) && op.Timeout():
		return "no answer in time"
	}
	return err.Error()
}

// connect makes the client at the first use. It dials the bootstrap addresses itself first, because
// franz-go tries a refused connection again for many seconds before it says so.
func (c *Client) connect(ctx context.Context) (*kadm.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.kadm != nil {
		return c.mu.kadm, nil
	}
	seeds, err := c.reachable(ctx)
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(c.base(seeds), kgo.RequestTimeoutOverhead(min(c.opts.Timeout, oneBroker)))...)
	if err != nil {
		return nil, fmt.Errorf("bootstrap %s: %w", strings.Join(c.opts.Bootstrap, ","), err)
	}
	c.mu.kgo, c.mu.kadm = cl, kadm.NewClient(cl)
	c.mu.kadm.SetTimeoutMillis(int32(c.opts.Timeout.Milliseconds()))
	return c.mu.kadm, nil
}

// oneBroker is how long one broker may take, so that one that hangs leaves time to ask another: a process
// that is stopped, or a machine without network, is when an operator asks.
const oneBroker = 2 * time.Second

// reachable asks all bootstrap addresses at once whether a broker is there, and goes on with those that
// answer. It does not wait for the others once one has: a process that is stopped still accepts connections,
// and a client that happens to ask it first would wait for it.
func (c *Client) reachable(ctx context.Context) ([]string, error) {
	if len(c.opts.Bootstrap) == 0 {
		return nil, &NoBroker{nil, errors.New("no address is named")}
	}
	ctx, cancel := context.WithTimeout(ctx, min(c.opts.Timeout, 3*time.Second))
	defer cancel()
	type result struct {
		addr string
		err  error
	}
	results := make(chan result, len(c.opts.Bootstrap))
	for _, addr := range c.opts.Bootstrap {
		go func() { results <- result{addr, greet(ctx, addr)} }() // ends with ctx at the latest
	}
	var good []string
	var last error
	mute := false
	grace := make(<-chan time.Time)
	for range c.opts.Bootstrap {
		select {
		case r := <-results:
			if r.err != nil {
				last, mute = r.err, mute || errors.Is(r.err, errMute)
				continue
			}
			if good = append(good, r.addr); len(good) == 1 {
				t := time.NewTimer(100 * time.Millisecond)
				defer t.Stop()
				grace = t.C
			}
			continue
		case <-grace:
		}
		break
	}
	switch {
	case len(good) > 0:
		return good, nil
	case mute:
		return c.opts.Bootstrap, nil // the request itself will say that nobody answers
	}
	return nil, &NoBroker{c.opts.Bootstrap, last}
}

// errMute: somebody accepts the connection, and does not answer.
var errMute = errors.New("no answer")

// greet sends an ApiVersions request, which every broker answers to everybody in every version, and waits for the first byte.
func greet(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// Length, key 18, version 0, correlation 0, no client id.
	if _, err := conn.Write([]byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 0, 0xff, 0xff}); err != nil {
		return errMute
	}
	if _, err := conn.Read(make([]byte, 4)); err != nil {
		return errMute
	}
	return nil
}

// base are the options of every connection of this client.
func (c *Client) base(seeds []string) []kgo.Opt {
	return []kgo.Opt{
		kgo.SeedBrokers(seeds...),
		kgo.ClientID(c.opts.ClientID),
		kgo.SoftwareNameAndVersion("milena", "0"),
		kgo.RetryTimeout(c.opts.Timeout),
		kgo.DialTimeout(min(c.opts.Timeout, 5*time.Second)),
		kgo.RequestTimeoutOverhead(c.opts.Timeout),
		kgo.MetadataMinAge(50 * time.Millisecond),
	}
}

// with runs one admin call under the client's timeout and turns its error into a readable one.
func (c *Client) with(ctx context.Context, what string, f func(context.Context, *kadm.Client) error) error {
	adm, err := c.connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	return c.explain(what, f(ctx, adm))
}

// request sends one request to whatever broker fits it.
func request[R any](ctx context.Context, c *Client, what string, req kmsg.Request) (R, error) {
	var out R
	err := c.with(ctx, what, func(ctx context.Context, _ *kadm.Client) error {
		resp, err := c.mu.kgo.Request(ctx, req)
		if err != nil {
			return err
		}
		r, ok := resp.(R)
		if !ok {
			return fmt.Errorf("answer of type %T", resp)
		}
		out = r
		return nil
	})
	return out, err
}

// explain adds what was tried, and turns the many ways of not being answered into one.
func (c *Client) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	var ke *kerr.Error
	var told *Error
	switch {
	case errors.As(err, &told):
		return err // has the broker's words already
	case errors.As(err, &ke):
		return fail(what, err, "")
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer from %s within %s", what, strings.Join(c.opts.Bootstrap, ", "), c.opts.Timeout)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Error is an error that the broker answered.
type Error struct {
	What    string // what was tried: "create topic x"
	Code    string // Kafka's name: TOPIC_ALREADY_EXISTS
	Message string // the broker's words, or Kafka's description
	err     error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s (%s)", e.What, e.Message, e.Code) }
func (e *Error) Unwrap() error { return e.err }

// fail makes an Error; message is what the broker said, if it said something.
func fail(what string, err error, message string) error {
	if err == nil {
		return nil
	}
	var ke *kerr.Error
	if !errors.As(err, &ke) {
		return fmt.Errorf("%s: %w", what, err)
	}
	if message == "" {
		message = strings.TrimSuffix(ke.Description, ".")
	}
	return &Error{What: what, Code: ke.Message, Message: strings.TrimSuffix(message, "."), err: ke}
}

func codeError(what string, code int16, message *string) error {
	m := ""
	if message != nil {
		m = *message
	}
	return fail(what, kerr.ErrorForCode(code), m)
}
