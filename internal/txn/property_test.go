package txn

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
)

// TestHistories lets clients that share transactional ids, crash and have their messages delayed and doubled work against
// one coordinator and two partitions that crash as well, and checks I22 to I28 of invariants 1b again and again.
func TestHistories(t *testing.T) {
	seeds := uint64(250)
	if testing.Short() {
		seeds = 100
	}
	var sum tally
	for seed := range seeds {
		w := newWorld(seed, "")
		if err := w.run(1000); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, w.story(60))
		}
		sum.add(w.tally)
	}
	t.Logf("%+v", sum)
	if n := int(seeds); sum.Committed < n || sum.Aborted < n || sum.Hijacked < n || sum.Late < n || sum.Reloads < n || sum.Lost < n/2 || sum.TimedOut < n/2 {
		t.Errorf("the histories are too tame: %+v", sum)
	}
}

// TestTeeth: three mistakes that this has to find.
func TestTeeth(t *testing.T) {
	const within = 200 // seeds
	for _, m := range []string{"no epoch bump", "answer before commit", "aborted list over HW"} {
		t.Run(m, func(t *testing.T) {
			for seed := range uint64(within) {
				w := newWorld(seed, m)
				if err := w.run(1000); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Fatalf("not found within %d seeds", within)
		})
	}
}

type tally struct{ Committed, Aborted, Hijacked, Late, Reloads, Lost, TimedOut int }

func (a *tally) add(b tally) {
	a.Committed += b.Committed
	a.Aborted += b.Aborted
	a.Hijacked += b.Hijacked
	a.Late += b.Late
	a.Reloads += b.Reloads
	a.Lost += b.Lost
	a.TimedOut += b.TimedOut
}

// work is one transaction as its client sees it.
type work struct {
	tag        int
	values     map[int]int // value: partition
	broken     bool        // a value has an unknown fate: it must not be committed
	commitSent bool
	committed  bool // the client was told so
}

// client is a producer. A crash makes another one of it, with the number life.
type client struct {
	n, life  int
	id       string
	v2       bool
	pid      int64
	epoch    int16
	seq      [2]int32
	added    [2]bool // version 1: told the coordinator
	txn      *work
	waits    *call // for the answer of
	sleeping int
}

// call is one request of a client, however often it is sent.
type call struct {
	c      *client
	life   int
	kind   string // init, add, produce, end
	pid    int64
	epoch  int16
	seq    int32
	part   int
	value  int
	commit bool
	knows  bool
	txn    *work
	sent   int // step of the first sending
	done   bool
}

func (q *call) String() string {
	return fmt.Sprintf("%s client=%d.%d id=%s %d/%d seq=%d part=%d value=%d commit=%v", q.kind, q.c.n, q.life, q.c.id, q.pid, q.epoch, q.seq, q.part, q.value, q.commit)
}

// world is the clients, the network, the coordinator with its log, and the partitions.
type world struct {
	r       *rand.Rand
	mistake string
	now     det.Instant
	step    int
	net     []func()
	lines   []string
	tally   tally
	err     error

	clients []*client
	owner   map[string]*call // the last Init that was answered well, by id
	works   []*work
	value   int
	quiet   bool // clients begin nothing any more

	m      *Machine
	log    []Record
	hw     int // of log
	held   []held
	epoch  int32
	fresh  int64
	token  Token
	tokens map[Token]func(any)
	parts  [2]*part
}

// held is what waits for the coordinator's log to be committed up to end.
type held struct {
	end int
	fn  func()
}

func newWorld(seed uint64, mistake string) *world {
	w := &world{r: rand.New(rand.NewPCG(seed, 7)), mistake: mistake, now: det.Milli(1_000_000), fresh: 100, owner: map[string]*call{}, tokens: map[Token]func(any){}}
	for i := range 4 {
		w.clients = append(w.clients, &client{n: i, id: []string{"a", "b"}[i%2], v2: i != 3 || seed%4 == 0, pid: noID, epoch: noEpoch, sleeping: i / 2 * 40})
	}
	if seed%4 != 0 { // an id of which all producers are of version 1
		w.clients[1].v2 = false
	}
	for i := range w.parts {
		w.parts[i] = newPart(w, i)
	}
	w.load()
	return w
}

func (w *world) say(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf("%4d ", w.step)+fmt.Sprintf(format, args...))
}

func (w *world) story(n int) string {
	return strings.Join(w.lines[max(0, len(w.lines)-n):], "\n")
}

func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

// later puts a message into the network: it arrives some time, in any order.
func (w *world) later(fn func()) { w.net = append(w.net, fn) }

func (w *world) deliver() bool {
	if len(w.net) == 0 {
		return false
	}
	i := w.r.IntN(len(w.net))
	if w.r.IntN(3) > 0 {
		i = 0 // most come in order, or nothing would ever get done
	}
	fn := w.net[i]
	w.net = slices.Delete(w.net, i, i+1)
	fn()
	return true
}

func (w *world) run(steps int) error {
	for ; w.step < steps && w.err == nil; w.step++ {
		w.now = w.now.Add(time.Duration(w.r.IntN(80)) * time.Millisecond)
		switch x := w.r.IntN(100); {
		case x < 45:
			for range 1 + w.r.IntN(4) {
				w.deliver()
			}
		case x < 75:
			w.act(w.clients[w.r.IntN(len(w.clients))])
		case x < 85:
			w.commitTo(w.hw + w.r.IntN(len(w.log)-w.hw+1))
		case x < 96:
			p := w.parts[w.r.IntN(2)]
			p.raise(p.hw + int64(w.r.IntN(int(p.end()-p.hw)+1)))
		case x < 97:
			w.parts[w.r.IntN(2)].crash()
		case x < 98 && w.r.IntN(3) == 0:
			w.crash()
		default:
			w.now = w.now.Add(time.Duration(w.r.IntN(4)) * time.Second)
		}
		w.tick()
		if w.step%3 == 0 {
			w.check(false)
		}
	}
	// Everybody stops; what is under way arrives; transactions that nobody ends time out.
	w.quiet = true
	for range 40 {
		for range 500 {
			w.deliver()
		}
		w.commitTo(len(w.log))
		for _, p := range w.parts {
			p.raise(p.end())
		}
		w.now = w.now.Add(time.Second)
		w.tick()
	}
	w.check(true)
	return w.err
}

func (w *world) tick() {
	if w.m.Wake() <= w.now {
		out := w.m.Step(w.now, In{Event: Tick{}})
		w.tally.TimedOut += len(out.Markers)
		w.take(out)
	}
}

// load is a coordinator that begins.
func (w *world) load() {
	w.epoch++
	cfg := DefaultConfig()
	cfg.Epoch = w.epoch
	w.m = New(cfg)
	for _, r := range w.log {
		if err := w.m.Replay(r.Key, r.Value); err != nil {
			w.fail("replay: %v", err)
		}
	}
	w.take(w.m.Loaded(w.now))
}

// crash loses what is not committed, or some of it, and everything that waited.
func (w *world) crash() {
	w.log = w.log[:w.hw+w.r.IntN(len(w.log)-w.hw+1)]
	w.hw = len(w.log) // the new one has it on every in-sync disk
	w.held, w.tokens = nil, map[Token]func(any){}
	w.tally.Reloads++
	w.say("coordinator loads again, %d records", len(w.log))
	w.load()
}

func (w *world) commitTo(n int) {
	w.hw = n
	for len(w.held) > 0 && w.held[0].end <= w.hw {
		h := w.held[0]
		w.held = w.held[1:]
		h.fn()
	}
}

// ask gives the coordinator an event; answer hears what is committed.
func (w *world) ask(ev Event, answer func(any)) {
	if w.m.NeedsID(ev) {
		ev = WithID(ev, w.fresh)
	}
	w.token++
	w.tokens[w.token] = answer
	out := w.m.Step(w.now, In{Token: w.token, Event: ev})
	if out.FreshUsed {
		w.fresh++
	}
	if end, ok := ev.(End); ok && w.mistake == "no epoch bump" {
		w.unbump(&out, end)
	}
	if _, ok := ev.(End); ok && w.mistake == "answer before commit" {
		for _, a := range out.Answers {
			w.tokens[a.Token](a.Response)
		}
		out.Answers = nil
	}
	w.take(out)
}

// unbump is a coordinator that ends a transaction of version 2 under the epoch it had.
func (w *world) unbump(out *Out, end End) {
	t := w.m.ids[end.Request.TransactionalID]
	if end.Request.Version < 5 || len(out.Markers) == 0 || !t.state.prepared() {
		return
	}
	t.epoch--
	for i := range out.Markers {
		out.Markers[i].Epoch--
		out.Markers[i].Version = 0
	}
	for _, a := range out.Answers {
		a.Response.(*kmsg.EndTxnResponse).ProducerEpoch--
	}
	w.m.out.Records = nil
	w.m.emit(t)
	out.Records = w.m.out.Records
}

func (w *world) take(out Out) {
	w.log = append(w.log, out.Records...)
	end := len(w.log)
	hold := func(fn func()) {
		if end <= w.hw {
			fn()
		} else {
			w.held = append(w.held, held{end, fn})
		}
	}
	for _, a := range slices.Clone(out.Answers) {
		answer := w.tokens[a.Token]
		delete(w.tokens, a.Token)
		hold(func() { answer(a.Response) })
	}
	for _, m := range slices.Clone(out.Markers) {
		w.say("marker %s %d/%d commit=%v v%d %v", m.TxnID, m.ProducerID, m.Epoch, m.Commit, m.Version, m.Partitions)
		hold(func() {
			for _, tp := range m.Partitions {
				w.later(func() { w.parts[tp.Partition].mark(m) })
			}
		})
	}
	for _, name := range out.Completed {
		if t := w.m.ids[name]; t != nil && t.state == CompleteAbort {
			w.tally.Aborted++
		} else {
			w.tally.Committed++
		}
	}
}

// check is the invariants that hold at every moment, and at the end those of the whole.
func (w *world) check(end bool) {
	seen := map[int]int{} // visible values of each transaction
	for _, p := range w.parts {
		visible := p.visible(w.mistake == "aborted list over HW")
		for v, n := range visible {
			x := w.works[p.owners[v]]
			if n > 1 {
				w.fail("I5: value %d twice in partition %d", v, p.n)
			}
			if !x.commitSent {
				w.fail("I22, I24: value %d of transaction %d is visible in partition %d, and its commit was never sent", v, x.tag, p.n)
			}
			seen[x.tag]++
		}
		if lso := p.lso(); lso > p.hw {
			w.fail("I26: last stable offset %d above the high watermark %d", lso, p.hw)
		}
	}
	if !end || w.err != nil {
		return
	}
	for _, x := range w.works {
		switch n := seen[x.tag]; {
		case n != 0 && n != len(x.values):
			w.fail("I23: %d of %d values of transaction %d are visible", n, len(x.values), x.tag)
		case n == 0 && x.committed && len(x.values) > 0:
			w.fail("I25: transaction %d was committed and its values are lost", x.tag)
		}
	}
	for _, p := range w.parts {
		if lso := p.lso(); lso != p.end() {
			w.fail("I26: partition %d hangs: last stable offset %d, end %d", p.n, lso, p.end())
		}
	}
	for _, name := range det.SortedKeys(w.m.ids) {
		if t := w.m.ids[name]; !t.state.resting() {
			w.fail("%s is %s at the end", name, t.state)
		}
	}
	again := New(w.m.cfg)
	for _, r := range w.log {
		_ = again.Replay(r.Key, r.Value)
	}
	if a, b := facts(w.m), facts(again); a != b {
		w.fail("replay differs\nlive:\n%s\nreplayed:\n%s", a, b)
	}
}

// act is one move of a client.
func (w *world) act(c *client) {
	switch {
	case w.quiet:
	case c.sleeping > 0:
		c.sleeping--
	case w.r.IntN(150) == 0:
		w.restart(c)
	case c.waits != nil:
		// It has waited too long, and sends the same again.
		if w.r.IntN(4) == 0 {
			w.say("again: %v", c.waits)
			w.send(c.waits)
		}
	case c.pid == noID:
		w.begin(c, &call{kind: "init", pid: noID, epoch: noEpoch})
	case c.txn == nil:
		c.txn = &work{tag: len(w.works), values: map[int]int{}}
		w.works = append(w.works, c.txn)
		c.added = [2]bool{}
	case c.txn.broken:
		if c.v2 && w.r.IntN(2) == 0 {
			w.begin(c, &call{kind: "end"})
		} else {
			w.begin(c, &call{kind: "init", pid: c.pid, epoch: c.epoch, knows: true})
		}
	case len(c.txn.values) > 0 && w.r.IntN(3) == 0:
		c.txn.commitSent = w.r.IntN(3) > 0
		w.begin(c, &call{kind: "end", commit: c.txn.commitSent})
	default:
		p := w.r.IntN(2)
		if !c.v2 && !c.added[p] {
			w.begin(c, &call{kind: "add", part: p})
			return
		}
		w.value++
		w.parts[p].owners[w.value] = c.txn.tag
		w.begin(c, &call{kind: "produce", part: p, value: w.value, seq: c.seq[p]})
		c.seq[p]++
	}
}

// restart is a crash: everything is forgotten but the transactional id, and the network still has its messages.
func (w *world) restart(c *client) {
	w.say("client %d crashes", c.n)
	*c = client{n: c.n, life: c.life + 1, id: c.id, v2: c.v2, pid: noID, epoch: noEpoch, sleeping: w.r.IntN(60)}
}

func (w *world) begin(c *client, q *call) {
	q.c, q.life, q.txn, q.sent = c, c.life, c.txn, w.step
	if q.kind != "init" {
		q.pid, q.epoch = c.pid, c.epoch
	}
	c.waits = q
	w.say("%v", q)
	w.send(q)
}

// send puts a request into the network; a producer of version 2 may see it there twice. In version 1 a doubled EndTxn ends
// the transaction after, in Kafka as here: that is why there is a version 2.
func (w *world) send(q *call) {
	w.later(func() { w.arrive(q) })
	if (q.c.v2 || q.kind == "produce") && w.r.IntN(5) == 0 {
		w.later(func() { w.arrive(q) })
	}
}

func (w *world) arrive(q *call) {
	if q.done {
		w.tally.Late++
		if !q.c.v2 && q.kind != "produce" {
			return
		}
	}
	tp := []meta.TopicPartition{{Topic: "t", Partition: int32(q.part)}}
	id := q.c.id
	switch q.kind {
	case "init":
		r := kmsg.NewPtrInitProducerIDRequest()
		r.Version, r.TransactionalID, r.TransactionTimeoutMillis, r.ProducerID, r.ProducerEpoch = 5, &id, 20_000, q.pid, q.epoch
		w.ask(Init{Request: r, FreshID: noID}, func(v any) {
			x := v.(*kmsg.InitProducerIDResponse)
			if x.ErrorCode == 0 {
				if o := w.owner[id]; o != nil && o.c != q.c {
					w.tally.Hijacked++
				}
				q.sent = w.step // from now on the one before is fenced
				w.owner[id] = q
			}
			w.later(func() { w.answered(q, x.ErrorCode, x.ProducerID, x.ProducerEpoch) })
		})
	case "add":
		w.ask(Add{TxnID: id, ProducerID: q.pid, Epoch: q.epoch, Partitions: tp}, func(v any) {
			w.later(func() { w.answered(q, v.([]int16)[0], q.pid, q.epoch) })
		})
	case "end":
		r := kmsg.NewPtrEndTxnRequest()
		r.Version, r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.Commit = 5, id, q.pid, q.epoch, q.commit
		if !q.c.v2 {
			r.Version = 4
		}
		w.ask(End{Request: r, FreshID: noID}, func(v any) {
			x := v.(*kmsg.EndTxnResponse)
			if o := w.owner[id]; x.ErrorCode == 0 && q.commit && o != nil && (o.c != q.c || o.life != q.life) && q.sent > o.sent {
				w.fail("I28: the commit of client %d.%d succeeds after %d.%d has taken %s over", q.c.n, q.life, o.c.n, o.life, id)
			}
			w.later(func() { w.answered(q, x.ErrorCode, x.ProducerID, x.ProducerEpoch) })
		})
	case "produce":
		w.parts[q.part].produce(q)
	}
}

// answered is the client that hears; pid and epoch are what it has from now on.
func (w *world) answered(q *call, code int16, pid int64, epoch int16) {
	c := q.c
	if q.done || c.life != q.life || c.waits != q {
		return
	}
	w.say("answer %s: %v", codeName(code), q)
	switch code {
	case 0:
	case kerr.ConcurrentTransactions.Code, kerr.NotEnoughReplicas.Code:
		w.send(q)
		return
	default:
		q.done, c.waits = true, nil
		if q.kind == "produce" && c.txn != nil && code == kerr.TransactionAbortable.Code {
			c.txn.broken = true
			return
		}
		*c = client{n: c.n, life: c.life + 1, id: c.id, v2: c.v2, pid: noID, epoch: noEpoch, sleeping: w.r.IntN(150)}
		return
	}
	q.done, c.waits = true, nil
	switch q.kind {
	case "init":
		c.pid, c.epoch, c.seq, c.txn = pid, epoch, [2]int32{}, nil
	case "add":
		c.added[q.part] = true
	case "produce":
		c.txn.values[q.value] = q.part
	case "end":
		q.txn.committed = q.commit
		c.txn = nil
		if c.v2 {
			c.pid, c.epoch, c.seq = pid, epoch, [2]int32{}
		}
	}
}

func codeName(c int16) string {
	if e := kerr.TypedErrorForCode(c); e != nil {
		return e.Message
	}
	return "ok"
}
