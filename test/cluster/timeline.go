package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// runTimeline shows one failover step by step: what each broker answered to a plain Produce sent to it every 10 ms, run by
// run of equal answers. It is for finding where the time goes, not a test.
func runTimeline(s settings, r *report) {
	c, err := newCluster(options{bin: s.bin, brokers: 3})
	if err != nil {
		r.say(false, "timeline", "%v", err)
		return
	}
	defer func() { c.destroy(s.keep) }()
	if err = c.start(); err == nil {
		err = createTopic(c, topic, silentParts, 3, nil)
	}
	if err != nil {
		r.say(false, "timeline", "%v", err)
		return
	}
	time.Sleep(2 * time.Second)
	x := &quiet{s: s, c: c}
	what := "restart"
	if s.only != nil {
		what = s.only[0]
	}
	for _, t := range troubles {
		if t.name != what {
			continue
		}
		n, err := x.victim(t.store)
		if err != nil {
			r.say(false, "timeline", "%v", err)
			return
		}
		v, err := metadata(n.client.real, topic, time.Second)
		if err != nil {
			r.say(false, "timeline", "%v", err)
			return
		}
		for p, b := range v.leader {
			if b != n.id {
				delete(v.leader, p)
			}
		}
		if s.trials < 20 { // the trials before the one that is shown
			for range s.trials {
				t.do(x, n)
				time.Sleep(6 * time.Second)
				t.mend(x, n)
				time.Sleep(3 * time.Second)
				if n, err = x.victim(t.store); err != nil {
					r.say(false, "timeline", "%v", err)
					return
				}
			}
			if v, err = metadata(n.client.real, topic, time.Second); err != nil {
				r.say(false, "timeline", "%v", err)
				return
			}
			for p, b := range v.leader {
				if b != n.id {
					delete(v.leader, p)
				}
			}
		}
		note("begins at %s", time.Now().Format("15:04:05.000"))
		lines := x.watch(v.leader, func() { time.Sleep(500 * time.Millisecond); t.do(x, n); time.Sleep(4 * time.Second); t.mend(x, n) })
		fmt.Printf("   victim %d at 0.500 s\n%s", n.id, lines)
		r.say(true, "timeline", "%s", what)
	}
}

type said struct {
	broker, part int32
	what         string
	from, to     time.Duration
	n            int
}

func (x *quiet) watch(parts map[int32]int32, do func()) string {
	begin := time.Now()
	stop := make(chan struct{})
	var mu sync.Mutex
	var all []said
	var wg sync.WaitGroup
	for p := range parts {
		for _, n := range x.c.nodes {
			wg.Go(func() {
				var conn *rawConn
				var cur said
				for {
					select {
					case <-stop:
						mu.Lock()
						all = append(all, cur)
						mu.Unlock()
						return
					default:
					}
					at := time.Since(begin)
					what := ""
					var err error
					if conn == nil {
						conn, err = dialRaw(n.client.real, time.Second)
					}
					if err == nil {
						var resp kmsg.Response
						if resp, err = conn.do(produceRequest(topic, p, []byte("x"), time.Second), 3*time.Second); err == nil {
							what = errorName(resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode)
						}
					}
					if err != nil {
						what, conn = "no connection", nil
					}
					if d := time.Since(begin) - at; d > 50*time.Millisecond {
						what = fmt.Sprintf("%s after %.3f s", what, d.Seconds())
					}
					if what != cur.what {
						if cur.what != "" {
							mu.Lock()
							all = append(all, cur)
							mu.Unlock()
						}
						cur = said{broker: n.id, part: p, what: what, from: at}
					}
					cur.to, cur.n = time.Since(begin), cur.n+1
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
	}
	do()
	close(stop)
	wg.Wait()
	slices.SortFunc(all, func(a, b said) int { return cmp.Or(cmp.Compare(a.part, b.part), cmp.Compare(a.from, b.from)) })
	var b strings.Builder
	for _, s := range all {
		fmt.Fprintf(&b, "   partition %d broker %d %.3f to %.3f s: %d times %s\n", s.part, s.broker, s.from.Seconds(), s.to.Seconds(), s.n, s.what)
	}
	return b.String()
}
