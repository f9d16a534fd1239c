package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// CarryOptions says how a plan is carried out.
type CarryOptions struct {
	Throttle int64         // bytes per second that each broker sends and takes for the moves; 0: no limit
	Parallel int           // partitions whose data moves at a time; 0: 20
	Every    time.Duration // how often to look; 0: 1 s
	Progress func(Progress)
}

// Progress is how far a plan is.
type Progress struct {
	Moves  int   `json:"moves"`
	Done   int   `json:"done"`
	Moving int   `json:"moving"`
	Bytes  int64 `json:"bytes"`  // to be copied in all
	Copied int64 `json:"copied"` // of them, as the log directories show
}

// Interrupted is the end of Carry by its context: moves that have begun go on.
type Interrupted struct {
	Progress
	Throttled bool // the throttle is still set
}

func (e *Interrupted) Error() string {
	return fmt.Sprintf("interrupted: %d of %d partitions are done, %d go on moving by themselves", e.Done, e.Moves, e.Moving)
}

// failures is how many looks in a row may fail before Carry gives up: a controller that fails over is no
// reason to, each look has the client's own timeout.
const failures = 10

// carrier is one plan under way.
type carrier struct {
	c      *Client
	o      CarryOptions
	moves  []Move
	next   int                // first move that has not begun
	begun  map[partition]Move // begun, and not seen done
	bytes  int64              // of what is done
	done   int
	unsure int // asked for, without an answer yet: they may have begun
	refuse []error
}

// Carry carries out a plan: throttles, then a few partitions at a time, then preferred leaders where the
// plan moved them, then the throttles are taken away. It may be called again with a new plan after any
// failure; moves that are under way are never started twice. With its context it ends with Interrupted.
func (c *Client) Carry(ctx context.Context, plan Plan, o CarryOptions) error {
	if o.Parallel == 0 {
		o.Parallel = 20
	}
	if o.Every == 0 {
		o.Every = time.Second
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	k := &carrier{c: c, o: o, moves: plan.Moves, begun: map[partition]Move{}}
	if o.Throttle > 0 {
		if err := c.throttle(ctx, plan.Moves, o.Throttle); err != nil {
			return err
		}
	}
	failed := 0
	for {
		err := k.step(ctx)
		if ctx.Err() != nil {
			p := k.progress(nil)
			p.Moving += k.unsure
			return &Interrupted{Progress: p, Throttled: o.Throttle > 0}
		}
		if err == nil {
			failed = 0
			if k.next == len(k.moves) && len(k.begun) == 0 {
				break
			}
		} else if failed++; failed == failures {
			return err
		}
		pause(ctx, o.Every)
	}
	return errors.Join(k.finish(ctx), first(k.refuse))
}

// step looks what is done and begins what there is room for.
func (k *carrier) step(ctx context.Context) error {
	running, err := k.c.Reassignments(ctx)
	if err != nil {
		return err
	}
	moving := map[partition]bool{}
	for _, r := range running {
		moving[partition{r.Topic, r.Partition}] = true
	}
	for p, m := range k.begun {
		if !moving[p] {
			delete(k.begun, p)
			k.done++
			k.bytes += m.Bytes
		}
	}
	var wave []Move
	room := k.o.Parallel - len(running) // what others move counts: the disks are the same
	for k.next < len(k.moves) {
		m := k.moves[k.next]
		if copies := len(m.Copies()) > 0; copies && room <= 0 {
			break
		} else if copies {
			room--
		}
		wave = append(wave, m)
		k.next++
	}
	if err := k.begin(ctx, wave); err != nil {
		return err
	}
	k.o.Progress(k.progress(k.copied(ctx)))
	return nil
}

// begin starts some moves. A topic deleted since the plan was made needs no move any more.
func (k *carrier) begin(ctx context.Context, wave []Move) error {
	if len(wave) == 0 {
		return nil
	}
	refused, err := k.c.reassign(ctx, wave)
	if err != nil {
		k.next -= len(wave) // whether they were taken is not known: to ask again for the same changes nothing
		k.unsure = len(wave)
		return err
	}
	k.unsure = 0
	for _, m := range wave {
		switch err := refused[partition{m.Topic, m.Partition}]; {
		case err == nil:
			k.begun[partition{m.Topic, m.Partition}] = m
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			k.done++
		default:
			k.refuse = append(k.refuse, err)
			k.done++
		}
	}
	return nil
}

// copied is what new replicas have got so far, of moves under way.
func (k *carrier) copied(ctx context.Context) map[partition]int64 {
	out := map[partition]int64{}
	if len(k.begun) == 0 {
		return out
	}
	sizes := k.c.sizes(ctx)
	for p, m := range k.begun {
		for _, id := range m.Copies() {
			out[p] += sizes[replica{p.topic, p.number, id}]
		}
		out[p] = min(out[p], m.Bytes)
	}
	return out
}

func (k *carrier) progress(copied map[partition]int64) Progress {
	p := Progress{Moves: len(k.moves), Done: k.done, Moving: len(k.begun), Copied: k.bytes}
	for _, m := range k.moves {
		p.Bytes += m.Bytes
	}
	for _, n := range copied {
		p.Copied += n
	}
	return p
}

// elect moves leaders. Kafka does so by itself only when the old one leaves the replicas; where merely the
// order has changed it goes on. A broker that has just caught up may be refused for a moment; whom a few
// looks do not help the controller's own sweep elects later.
func (k *carrier) elect(ctx context.Context, want map[string][]int32) error {
	const looks = 5
	for range looks {
		if len(want) == 0 {
			return nil
		}
		es, err := k.c.ElectLeaders(ctx, false, want)
		if err != nil {
			return err
		}
		want = map[string][]int32{}
		for _, e := range es {
			if e.Result == kerr.PreferredLeaderNotAvailable.Message {
				want[e.Topic] = append(want[e.Topic], e.Partition)
			}
		}
		if len(want) > 0 && !pause(ctx, k.o.Every) {
			return ctx.Err()
		}
	}
	return nil
}

// finish elects the leaders that the plan wants and takes the throttle away.
func (k *carrier) finish(ctx context.Context) error {
	elect, topics := map[string][]int32{}, map[string]bool{}
	for i := range k.moves {
		m := &k.moves[i]
		topics[m.Topic] = true
		if m.Leads() {
			elect[m.Topic] = append(elect[m.Topic], m.Partition)
		}
	}
	bad := []error{k.elect(ctx, elect)}
	if k.o.Throttle > 0 {
		bad = append(bad, k.c.Unthrottle(ctx, sortedKeys(topics)))
	}
	return first(bad)
}

// AwaitMoves returns when no reassignment under way brings replicas to a broker or takes some from it.
func (c *Client) AwaitMoves(ctx context.Context, id int32, progress func(Progress)) error {
	total, left, failed := 0, 0, 0
	for {
		running, err := c.Reassignments(ctx)
		if ctx.Err() != nil {
			return &Interrupted{Progress: Progress{Moves: total, Done: total - left, Moving: left}}
		}
		if err != nil {
			if failed++; failed == failures {
				return err
			}
		} else {
			failed = 0
			left = 0
			for _, r := range running {
				if slices.Contains(r.Adding, id) || slices.Contains(r.Removing, id) {
					left++
				}
			}
			if left == 0 {
				return nil
			}
			total = max(total, left)
			progress(Progress{Moves: total, Done: total - left, Moving: left})
		}
		pause(ctx, time.Second)
	}
}
