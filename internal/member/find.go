package member

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/peer"
)

// The errors of Do.
var (
	// ErrLocal: this broker itself is the controller, and the request is one that it serves in another place.
	ErrLocal error = &outcome{"member: this broker is the controller", kerr.NotController}
	// ErrNoController: nobody has taken the request before the time was up. Nothing has happened.
	ErrNoController error = &outcome{"no controller is reachable", kerr.NotController}
	// ErrUnknown: the request has left and no answer came. It may or may not have been carried out.
	ErrUnknown error = &outcome{"no answer of the controller: the request may or may not have been carried out", kerr.RequestTimedOut}
)

// outcome is an error with the code that a client of a forwarded request is told.
type outcome struct {
	text string
	code *kerr.Error
}

func (e *outcome) Error() string { return e.text }
func (e *outcome) Unwrap() error { return e.code }

// between are the requests that brokers make for themselves. They may be repeated: each carries epochs by which the
// controller tells a second time from the first, or (producer ids) costs nothing but a block.
func between(req kmsg.Request) bool {
	switch req.(type) {
	case *kmsg.AlterPartitionRequest, *kmsg.BrokerRegistrationRequest, *kmsg.BrokerHeartbeatRequest,
		*kmsg.AllocateProducerIDsRequest, *kmsg.AssignReplicasToDirsRequest:
		return true
	}
	return false
}

// reads are requests that change nothing.
func reads(req kmsg.Request) bool {
	switch req.(type) {
	case *kmsg.ListPartitionReassignmentsRequest, *kmsg.DescribeQuorumRequest, *kmsg.DescribeConfigsRequest:
		return true
	}
	return false
}

// Do sends a request to the active controller, wherever it is, and follows it when it moves, until ctx ends or
// request.timeout.ms has passed. What is refused with NOT_CONTROLLER and what never left is sent again; what may have
// been carried out only where that is safe, otherwise the error is ErrUnknown. ErrLocal: see there.
func (m *Member) Do(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(config.RequestTimeoutMs.Static(m.o.Static))*time.Millisecond)
	defer cancel()
	safe := between(req) || reads(req)
	var last error
	// The first address is the controller of the image. Another one is asked only where that cannot be reached: it may
	// have taken over without serving yet, and of the others one may stand still and answer nothing.
	at, refused := 0, 0
	epoch := int32(-1)
	for try := 0; ; try++ {
		rec := m.o.Image().ControllerRecord()
		if rec.Epoch != epoch {
			epoch, at, refused = rec.Epoch, 0, 0
		}
		resp, addr, err := m.once(ctx, req, rec, at, safe)
		if err != nil {
			at++
		}
		switch {
		case err == nil && !refusedByFollower(req, resp):
			return resp, nil
		case err == nil:
			last = fmt.Errorf("%s is not the controller", place(addr))
			if refused++; refused%refusedOften == 0 {
				at++
			}
		case errors.Is(err, ErrLocal):
			return nil, err
		case errors.Is(err, peer.ErrUnsent), errors.Is(err, errNowhere), safe:
			if last == nil || ctx.Err() == nil { // that the time was up says less than what was wrong before
				last = err
			}
		default:
			return nil, fmt.Errorf("%w (%s: %s)", ErrUnknown, place(addr), oneLine(err))
		}
		if m.ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoController, errClosing)
		}
		if wait(ctx, m.watch(), retryIn(try)) != nil || ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %s", ErrNoController, oneLine(last))
		}
	}
}

// refusedOften is how many times in a row one that says that it is not the controller is asked before another is.
const refusedOften = 10

// retryIn rests between tries: short at first, since a failover takes tens of milliseconds once it is noticed.
func retryIn(try int) time.Duration {
	return min(time.Duration(try+1)*5*time.Millisecond, 50*time.Millisecond)
}

func place(addr string) string {
	if addr == "" {
		return "this broker"
	}
	return "broker at " + addr
}

var errClosing = errors.New("this broker is closing")

// oneLine is an error for an operator's eyes: joined errors stand in lines of their own otherwise.
func oneLine(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", ": ")
	return strings.TrimPrefix(text, peer.ErrUnsent.Error()+": ")
}

var errNowhere = errors.New("no address of a controller is known")

// once tries one place. rec was taken before the address is: a change that comes after is noticed while the answer is
// waited for.
func (m *Member) once(ctx context.Context, req kmsg.Request, rec meta.ControllerRecord, at int, safe bool) (kmsg.Response, string, error) {
	if m.o.Leads() {
		if !between(req) {
			return nil, "", ErrLocal
		}
		if resp := m.o.Local(ctx, req); resp != nil {
			return resp, "", nil
		}
		return nil, "", ErrLocal
	}
	addrs := m.candidates(rec)
	if len(addrs) == 0 {
		return nil, "", errNowhere
	}
	addr, pool := addrs[at%len(addrs)], m.o.Pool
	if between(req) || pool == nil {
		pool = m.own
	}
	resp, err := m.ask(ctx, pool, addr, req, rec.Epoch, safe)
	return resp, addr, err
}

// candidates are the addresses to ask, the likeliest first: the controller of the image, whoever took the last
// heartbeat, and all the others that may have become it.
func (m *Member) candidates(rec meta.ControllerRecord) []string {
	if m.own == nil {
		return nil
	}
	m.mu.Lock()
	accepted := m.mu.accepted
	m.mu.Unlock()
	all := []string{rec.Peer, accepted}
	if m.o.Seeds != nil {
		all = append(all, m.o.Seeds()...)
	}
	self := m.self()
	var out []string
	for _, a := range all {
		if a != "" && a != self && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

const (
	// lookWhile is how often the image is looked at while an answer is waited for.
	lookWhile = 25 * time.Millisecond
	// safeAnswer is how long the answer to a request that can be repeated is waited for, four sessions at least: whoever
	// was asked may stand still although it never was the controller.
	safeAnswer = 3 * time.Second
	// lateAnswer is how long the answer to a request that cannot be repeated is still waited for after another
	// controller has taken over.
	lateAnswer = time.Second
)

// ask sends a request to one address. When the image shows another controller meanwhile, whoever was asked stands
// still or is cut off, and its answer is not waited for much longer.
func (m *Member) ask(ctx context.Context, pool *peer.Pool, addr string, req kmsg.Request, epoch int32, safe bool) (kmsg.Response, error) {
	dctx, cancel := context.WithTimeout(ctx, max(m.session, 100*time.Millisecond)) // a frozen host must not hold the dial
	conn, err := pool.Conn(dctx, addr)
	cancel()
	if err != nil {
		return nil, err
	}
	call, err := conn.Start(ctx, req, nil)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	t := time.NewTicker(lookWhile)
	defer t.Stop()
	var moved time.Time
	for {
		select {
		case <-call.Done():
			resp, _, err := call.Answer()
			return resp, err
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-m.ctx.Done():
			return nil, errClosing
		case now := <-t.C:
			if safe && now.Sub(began) > max(4*m.session, safeAnswer) {
				return nil, fmt.Errorf("no answer from %s", addr)
			}
			rec := m.o.Image().ControllerRecord()
			if rec.Epoch == epoch || rec.Peer == addr {
				continue
			}
			if moved.IsZero() {
				moved = now
			}
			if safe || now.Sub(moved) >= lateAnswer {
				return nil, fmt.Errorf("another controller has taken over from the one at %s", addr)
			}
		}
	}
}

// refusedByFollower says that an answer is NOT_CONTROLLER, of the request as a whole or, where the API has no place
// for that, of its items: whoever answered so has changed nothing.
func refusedByFollower(req kmsg.Request, resp kmsg.Response) bool {
	v := reflect.ValueOf(resp)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return false
	}
	v = v.Elem()
	if code := v.FieldByName("ErrorCode"); code.IsValid() && code.CanInt() {
		return int16(code.Int()) == kerr.NotController.Code
	}
	if between(req) {
		return false
	}
	return allItems(v, 3)
}

// allItems says that the struct has items with an error code, and that each of them is NOT_CONTROLLER.
func allItems(v reflect.Value, depth int) bool {
	seen := false
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() != reflect.Slice || f.Type().Elem().Kind() != reflect.Struct || strings.Contains(v.Type().Field(i).Name, "Tags") {
			continue
		}
		for k := range f.Len() {
			item := f.Index(k)
			code := item.FieldByName("ErrorCode")
			switch {
			case code.IsValid() && code.CanInt():
				if int16(code.Int()) != kerr.NotController.Code {
					return false
				}
			case depth <= 1 || !allItems(item, depth-1):
				return false
			}
			seen = true
		}
	}
	return seen
}
