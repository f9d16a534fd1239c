package group

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
)

// TestRandomHistories plays random requests of a few clients, well-behaved and not, against one machine. What must
// hold after every step: every token is answered exactly once, generations never fall, a partition has one
// owner per generation, a refused commit changes nothing, and a machine replayed from the log agrees.
func TestRandomHistories(t *testing.T) {
	seeds, steps := uint64(60), 400
	if os.Getenv("MILENA_SOAK") != "" {
		seeds, steps = 1500, 2000
	}
	for seed := range seeds {
		h := newHistory(seed)
		for range steps {
			h.step()
			if h.failed == "" && h.r.Intn(40) == 0 {
				h.compare()
			}
			if h.failed != "" {
				t.Fatalf("seed %d: %s\n%s", seed, h.failed, strings.Join(h.story[max(0, len(h.story)-30):], "\n"))
			}
		}
		h.settle()
		h.compare()
		if h.failed != "" {
			t.Fatalf("seed %d: %s", seed, h.failed)
		}
	}
}

type history struct {
	r      *det.Rand
	m      *Machine
	cfg    Config
	now    det.Instant
	log    []Replayed
	token  Token
	owed   map[Token]Event
	story  []string
	failed string

	members []*simMember
	gens    map[string]int32
	owners  map[string]string // group/generation/partition to who got it
	uuids   int
}

// simMember is a client that mostly follows the protocol.
type simMember struct {
	group, id, instance string
	gen                 int32
	leads               []string // members to assign for, when it is the leader
	joining, syncing    bool
	protocols           int
}

func newHistory(seed uint64) *history {
	cfg := DefaultConfig()
	cfg.MaxSize = 5
	h := &history{
		r: det.NewRand(seed), m: New(cfg), cfg: cfg, now: det.Milli(1_000_000), owed: map[Token]Event{},
		gens: map[string]int32{}, owners: map[string]string{},
	}
	for i := range 7 {
		c := &simMember{group: fmt.Sprintf("g%d", i%2), gen: -1}
		if i >= 4 {
			c.instance = fmt.Sprintf("s%d", i%2) // two of one group are twins
		}
		h.members = append(h.members, c)
	}
	return h
}

func (h *history) fail(format string, a ...any) {
	if h.failed == "" {
		h.failed = fmt.Sprintf(format, a...)
	}
}

func (h *history) send(what string, ev Event) {
	h.token++
	h.owed[h.token] = ev
	h.story = append(h.story, fmt.Sprintf("%d ms: %d %s", h.now.UnixMilli(), h.token, what))
	h.take(h.m.Step(h.now, In{Token: h.token, Event: ev}))
}

func (h *history) take(o Out) {
	for _, r := range o.Records {
		h.log = append(h.log, Replayed{Offset: int64(len(h.log)), ProducerID: -1, Key: r.Key, Value: r.Value})
		h.story = append(h.story, "  append "+showRecord(r.Key, r.Value))
	}
	for _, a := range o.Answers {
		ev, ok := h.owed[a.Token]
		if !ok {
			h.fail("token %d answered twice or never asked", a.Token)
			continue
		}
		delete(h.owed, a.Token)
		h.story = append(h.story, fmt.Sprintf("  %d answered %s", a.Token, show(a.Response)))
		h.answered(ev, a.Response)
	}
	for id, g := range h.m.groups {
		if g.generation < h.gens[id] {
			h.fail("group %s: generation fell from %d to %d", id, h.gens[id], g.generation)
		}
		h.gens[id] = g.generation
		joining, unsynced := 0, 0
		for _, mb := range g.order {
			if mb.joinReq != nil {
				joining++
			}
			if mb.unsynced {
				unsynced++
			}
		}
		if joining != g.joining || unsynced != g.unsynced || len(g.order) != len(g.members) {
			h.fail("group %s: counts %d/%d joining, %d/%d unsynced, %d/%d members", id, joining, g.joining, unsynced, g.unsynced, len(g.order), len(g.members))
		}
		if (g.state == Empty) != (len(g.order) == 0) && g.state != PreparingRebalance {
			h.fail("group %s: %v with %d members", id, g.state, len(g.order))
		}
	}
	for id := range h.gens {
		if h.m.groups[id] == nil {
			delete(h.gens, id) // deleted: a group of that name begins anew
			for k := range h.owners {
				if strings.HasPrefix(k, id+"/") {
					delete(h.owners, k)
				}
			}
		}
	}
}

// who finds the simulated member behind a request by what it asked with.
func (h *history) answered(ev Event, resp any) {
	switch r := resp.(type) {
	case *kmsg.JoinGroupResponse:
		h.joined(ev.(Join), r)
	case *kmsg.SyncGroupResponse:
		req := ev.(Sync).Request
		for _, c := range h.members {
			if c.group != req.Group || c.id != req.MemberID {
				continue
			}
			c.syncing = false
			if r.ErrorCode != 0 {
				c.gen = -1
			}
		}
		if r.ErrorCode == 0 {
			who := req.MemberID
			if g := h.m.groups[req.Group]; g != nil && g.members[who] != nil && g.members[who].static {
				who = g.members[who].instance // a twin gets the place it takes over
			}
			for _, part := range strings.Fields(string(r.MemberAssignment)) {
				k := fmt.Sprintf("%s/%d/%s", req.Group, req.Generation, part)
				if old, ok := h.owners[k]; ok && old != who {
					h.fail("%s belongs to %s and %s", k, old, who)
				}
				h.owners[k] = who
			}
		}
	case *kmsg.HeartbeatResponse:
		req := ev.(Heartbeat).Request
		if r.ErrorCode == 0 && h.m.groups[req.Group].generation != req.Generation {
			h.fail("heartbeat of generation %d accepted", req.Generation)
		}
	}
}

func (h *history) joined(ev Join, r *kmsg.JoinGroupResponse) {
	for _, c := range h.members {
		if !c.joining || c.group != ev.Request.Group || c.id != ev.Request.MemberID || c.instance != deref(ev.Request.InstanceID) {
			continue
		}
		c.joining, c.leads = false, nil
		switch {
		case r.ErrorCode == 0 || r.ErrorCode == 79:
			c.id, c.gen = r.MemberID, r.Generation
			if r.LeaderID == r.MemberID && !r.SkipAssignment {
				for _, m := range r.Members {
					c.leads = append(c.leads, m.MemberID)
				}
			}
		default:
			c.id, c.gen = "", -1
		}
		return
	}
}

func (h *history) step() {
	c := h.members[h.r.Intn(len(h.members))]
	switch n := h.r.Intn(100); {
	case n < 30:
		if !c.joining || h.r.Intn(4) == 0 { // or again, while it waits
			h.join(c)
		}
	case n < 50:
		if c.gen >= 0 && (!c.syncing || h.r.Intn(4) == 0) {
			h.sync(c)
		}
	case n < 65:
		r := kmsg.NewPtrHeartbeatRequest()
		r.Version, r.Group, r.MemberID, r.Generation = 4, c.group, c.id, c.gen-int32(h.r.Intn(5)/4)
		h.send("heartbeat "+c.id, Heartbeat{r})
	case n < 75:
		h.commit(c)
	case n < 78:
		h.leave(c)
	case n < 80:
		h.send("delete "+c.group, Delete{c.group})
	case n < 82:
		c.id, c.gen, c.joining, c.syncing = "", -1, false, false // the process died
	case n < 84:
		h.crash()
	case n < 86:
		h.send("list", List{})
	case n < 87:
		h.take(h.m.Step(h.now, In{Event: TopicsDeleted{[]DeletedTopic{{Name: "t1"}}}}))
	case n < 97:
		h.pass(time.Duration(h.r.Intn(4000)) * time.Millisecond)
	default:
		h.pass(time.Duration(h.r.Intn(40)) * time.Second)
	}
}

func (h *history) pass(d time.Duration) {
	until := h.now.Add(d)
	for at := h.m.Wake(); at <= until; at = h.m.Wake() {
		h.now = max(h.now, at)
		h.take(h.m.Step(h.now, In{Event: Tick{}}))
	}
	h.now = until
}

func (h *history) join(c *simMember) {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Version, r.Group, r.MemberID = int16([]int{3, 5, 9}[h.r.Intn(3)]), c.group, c.id
	if c.instance != "" {
		r.InstanceID = kmsg.StringPtr(c.instance)
	}
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis, r.ProtocolType = 10000, 20000, "consumer"
	if h.r.Intn(6) == 0 {
		c.protocols++
	}
	r.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: subscribe(fmt.Sprintf("t%d", c.protocols))}}
	h.uuids++
	c.joining = true
	h.send("join "+c.group+" "+c.id+" "+c.instance, Join{Request: r, ClientID: "c", ClientHost: "/h", NewID: fmt.Sprint(h.uuids)})
}

func (h *history) sync(c *simMember) {
	r := kmsg.NewPtrSyncGroupRequest()
	r.Version, r.Group, r.MemberID, r.Generation = 4, c.group, c.id, c.gen
	for i, id := range c.leads {
		parts := fmt.Sprintf("p%d p%d", 2*i, 2*i+1)
		r.GroupAssignment = append(r.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: id, MemberAssignment: []byte(parts)})
	}
	c.syncing = true
	h.send("sync "+c.id, Sync{r})
}

func (h *history) commit(c *simMember) {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Version, r.Group, r.MemberID, r.Generation = 9, c.group, c.id, c.gen-int32(h.r.Intn(4)/3)
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset = int32(h.r.Intn(4)), int64(h.r.Intn(1000))
	if h.r.Intn(10) == 0 {
		p.Metadata = kmsg.StringPtr(strings.Repeat("x", 5000))
	}
	r.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: fmt.Sprintf("t%d", h.r.Intn(3)), Partitions: []kmsg.OffsetCommitRequestTopicPartition{p}}}
	h.take(h.m.Step(h.now, In{Event: Tick{}})) // a timer due at this very moment comes first
	g := h.m.groups[c.group]
	stale := g != nil && g.state != Empty && r.Generation != g.generation
	before := len(h.log)
	h.send(fmt.Sprintf("commit %s gen %d", c.id, r.Generation), Commit{r})
	if stale && h.m.groups[c.group] != nil && offsetRecords(h.log[before:]) > 0 {
		h.fail("commit of generation %d accepted in %d", r.Generation, h.m.groups[c.group].generation)
	}
}

func offsetRecords(rs []Replayed) (n int) {
	for _, r := range rs {
		if r.Key[1] == byte(typeOffset) && r.Value != nil {
			n++
		}
	}
	return n
}

func (h *history) leave(c *simMember) {
	r := kmsg.NewPtrLeaveGroupRequest()
	r.Version, r.Group = 5, c.group
	one := kmsg.NewLeaveGroupRequestMember()
	one.MemberID = c.id
	if c.instance != "" && h.r.Intn(2) == 0 {
		one.MemberID, one.InstanceID = "", kmsg.StringPtr(c.instance)
	}
	r.Members = append(r.Members, one)
	h.send("leave "+c.id, Leave{r})
}

// crash loads the machine anew; whoever waited is told by the shell.
func (h *history) crash() {
	h.compare()
	h.m = replayed(h.cfg, h.log)
	h.story = append(h.story, "reload")
	clear(h.owed)
	for _, c := range h.members {
		c.joining, c.syncing = false, false
	}
	for id := range h.gens {
		// A generation that ended in nothing but answered joins is not in the log, as in Kafka.
		delete(h.gens, id)
		for k := range h.owners {
			if strings.HasPrefix(k, id+"/") {
				delete(h.owners, k)
			}
		}
	}
	h.take(h.m.Loaded(h.now))
}

// settle lets every timer run out: then nobody may be waiting.
func (h *history) settle() {
	h.pass(time.Hour)
	if len(h.owed) > 0 {
		h.fail("%d requests never answered: %v", len(h.owed), h.owed)
	}
}

func (h *history) compare() {
	live, again := durable(h.m), durable(replayed(h.cfg, h.log))
	if live != again {
		h.fail("replay differs\nlive:\n%s\nreplayed:\n%s", live, again)
	}
}

// TestManyProtocols: a member with very many protocols costs time in proportion, not to their square.
func TestManyProtocols(t *testing.T) {
	p := newPlayer(DefaultConfig())
	r := kmsg.NewPtrJoinGroupRequest()
	r.Version, r.Group, r.SessionTimeoutMillis, r.RebalanceTimeoutMillis, r.ProtocolType = 3, "g", 45000, 300000, "consumer"
	for i := range 20_000 {
		r.Protocols = append(r.Protocols, kmsg.JoinGroupRequestProtocol{Name: fmt.Sprint(i)})
	}
	for i := range 3 {
		p.m.Step(p.now, In{Token: 1, Event: Join{Request: r, ClientID: "c", NewID: fmt.Sprint(i)}})
	}
	p.advance(9 * time.Second)
	if g := p.m.groups["g"]; g.generation != 1 || len(g.order) != 3 || g.protocol != "0" || len(g.speakers) != 20_000 {
		t.Fatalf("generation %d, %d members, protocol %q", g.generation, len(g.order), g.protocol)
	}
}
