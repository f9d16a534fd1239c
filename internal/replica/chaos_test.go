package replica

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/peer"
)

// wire is a socket that stops passing bytes while cut says so, in the direction of the reader.
type wire struct {
	net.Conn
	cut  func() bool
	done chan struct{}
	once sync.Once
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	for w.cut() {
		select {
		case <-w.done:
			return n, err
		case <-time.After(time.Millisecond):
		}
	}
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	if w.cut() {
		return len(b), nil // it left, and nobody will ever see it
	}
	return w.Conn.Write(b)
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.done) })
	return w.Conn.Close()
}

// cuts are the pairs of brokers whose network is cut.
type cuts struct {
	pairs [8][8]atomic.Bool // from, to: what to says does not reach from
}

func (n *node) dialThrough(x *cuts) func(ctx context.Context, addr string) (link, error) {
	return func(ctx context.Context, addr string) (link, error) {
		to := int32(0)
		for _, o := range n.c.nodes {
			if b := n.c.image().Broker(o.id); b != nil && len(b.Endpoints) > 0 && b.Endpoints[0].Address() == addr {
				to = o.id
			}
		}
		if x.pairs[n.id][to].Load() {
			<-ctx.Done() // packets to there get lost
			return nil, ctx.Err()
		}
		var d net.Dialer
		nc, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return conn{peer.NewConn(&wire{Conn: nc, cut: func() bool { return x.pairs[n.id][to].Load() }, done: make(chan struct{})}, "t")}, nil
	}
}

// TestChaos: power cuts, deaf brokers (which go on leading what they lead no more), a silent controller and cut
// networks, while clients write with acks=all to whoever believes to lead. Nothing that was acknowledged is lost or
// moved, and in the end all logs are equal (I1, I2, I11, I39).
func TestChaos(t *testing.T) {
	for _, min := range []string{"2", "1"} {
		t.Run("min.insync.replicas="+min, func(t *testing.T) { chaos(t, min) })
	}
}

func chaos(t *testing.T, min string) {
	rounds := 7
	if s := os.Getenv("MILENA_SOAK"); s != "" {
		rounds = 300
		if n, err := strconv.Atoi(s); err == nil && n > 1 {
			rounds = n
		}
	}
	c := newCluster(t, 3)
	c.rand = det.NewRand(uint64(rounds) + uint64(len(min)))
	x := &cuts{}
	c.static["replica.lag.time.max.ms"] = "300"
	c.dial = func(n *node) func(context.Context, string) (link, error) { return n.dialThrough(x) }
	c.start()
	const parts = 4
	c.topic("t", map[string]string{"min.insync.replicas": min}, all3, []int32{2, 3, 1}, []int32{3, 1, 2}, []int32{1, 3, 2})
	var mu sync.Mutex
	acked := map[string]map[int64]string{}
	twice := 0
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				n, v := int32((w+i)%parts), fmt.Sprintf("w%d-%d", w, i)
				at := c.believer("t", n, i)
				if at == nil {
					pass(time.Millisecond)
					continue
				}
				base, err := c.produceAt(at, "t", n, 300*time.Millisecond, v)
				if err != nil {
					pass(time.Millisecond)
					continue
				}
				tp := fmt.Sprintf("t-%d", n)
				mu.Lock()
				if acked[tp] == nil {
					acked[tp] = map[int64]string{}
				}
				if old, ok := acked[tp][base]; ok {
					twice++
					t.Errorf("%s: offset %d was acknowledged for %q and for %q", tp, base, old, v)
				}
				acked[tp][base] = v
				mu.Unlock()
			}
		})
	}
	for r := range rounds {
		c.trouble(x, r)
	}
	close(stop)
	writers.Wait()
	total := 0
	got := c.whole()
	for tp, vals := range acked {
		total += len(vals)
		for o, v := range vals {
			if got[tp][o] != v {
				t.Errorf("%s: offset %d has %q, acknowledged was %q", tp, o, got[tp][o], v)
			}
		}
	}
	if total < rounds*5 {
		t.Errorf("only %d records were acknowledged", total)
	}
	t.Logf("%d acknowledged, image at revision %d, %d changes of in-sync sets asked for", total, c.image().Revision(), c.mu.proposed)
}

// trouble is one thing that breaks, and its repair.
func (c *cluster) trouble(x *cuts, r int) {
	pick := func(n int) int { c.mu.Lock(); defer c.mu.Unlock(); return int(c.rand.Uint64() % uint64(n)) }
	a := c.nodes[pick(len(c.nodes))]
	b := c.nodes[pick(len(c.nodes))]
	rest := func() { pass(time.Duration(5+pick(60)) * time.Millisecond) }
	rest()
	switch r % 7 {
	case 0, 1:
		a.crash(pick(3) * 50)
		rest()
		a.start()
	case 2:
		// It hears nothing, is taken for dead and others lead; then it hears everything at once.
		a.deaf(true)
		c.fence(a.id)
		rest()
		a.deaf(false)
		c.unfence(a)
	case 3:
		x.pairs[a.id][b.id].Store(true)
		pass(500 * time.Millisecond) // longer than replica.lag.time.max.ms: the set shrinks
		x.pairs[a.id][b.id].Store(false)
	case 4:
		a.deaf(true)
		b.crash(50)
		rest()
		a.deaf(false)
		b.start()
	case 5:
		c.silence(true)
		a.crash(0)
		a.start()
		rest()
		c.silence(false)
	case 6:
		for _, n := range c.nodes {
			n.crash(pick(3) * 50)
		}
		for _, n := range c.nodes {
			n.start()
		}
	}
	c.eventually("healed", func() bool {
		for _, p := range c.image().Topic("t").Partitions {
			if p.Leader < 0 || len(p.ISR) < 3 {
				return false
			}
		}
		return true
	})
}
