package group

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/meta"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts instead of comparing them")

// TestTranscripts plays testdata/*.txt: each line is a command, the lines behind "->" all that came of it.
// After every file a machine that replays what was emitted must agree with the one that emitted it.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := newPlayer(DefaultConfig())
			got := p.play(t, string(raw))
			p.checkReplay(t)
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(raw) {
				t.Errorf("transcript differs, got:\n%s", got)
			}
		})
	}
}

// player drives a machine with a clock and a log of its own.
type player struct {
	cfg   Config
	m     *Machine
	now   det.Instant
	log   []Replayed
	token Token
	ids   map[string]int // member ids made, by prefix
	out   strings.Builder
	names map[Token]string // commands that wait
}

func newPlayer(cfg Config) *player {
	return &player{cfg: cfg, m: New(cfg), now: det.Milli(1_000_000), names: map[Token]string{}, ids: map[string]int{}}
}

func (p *player) take(o Out) {
	for _, r := range o.Records {
		in, of := Replayed{Offset: int64(len(p.log)), ProducerID: -1, Key: r.Key, Value: r.Value}, ""
		if r.Transactional {
			in.Transactional, in.ProducerID = true, r.ProducerID
			of = fmt.Sprintf(" transaction=%d/%d", r.ProducerID, r.Epoch)
		}
		p.log = append(p.log, in)
		fmt.Fprintf(&p.out, "-> append %s%s\n", showRecord(r.Key, r.Value), of)
	}
	for _, a := range o.Answers {
		fmt.Fprintf(&p.out, "-> %s: %s\n", p.names[a.Token], show(a.Response))
		delete(p.names, a.Token)
	}
}

func (p *player) step(name string, ev Event) {
	p.token++
	p.names[p.token] = name
	p.take(p.m.Step(p.now, In{Token: p.token, Event: ev}))
}

// advance lets time pass, telling the machine whenever it asked for it.
func (p *player) advance(d time.Duration) {
	until := p.now.Add(d)
	for at := p.m.Wake(); at <= until; at = p.m.Wake() {
		p.now = max(p.now, at)
		o := p.m.Step(p.now, In{Event: Tick{}})
		if len(o.Records)+len(o.Answers) > 0 {
			fmt.Fprintf(&p.out, "-> at %d ms\n", (p.now - det.Milli(1_000_000)).UnixMilli())
			p.take(o)
		}
	}
	p.now = until
}

func (p *player) reload() {
	p.m = replayed(p.cfg, p.log)
	p.take(p.m.Loaded(p.now))
	clear(p.names)
}

func replayed(cfg Config, log []Replayed) *Machine {
	m := New(cfg)
	for _, r := range log {
		if r.Key == nil {
			m.ReplayMarker(r.Offset, r.ProducerID, r.Value != nil)
		} else if err := m.Replay(r); err != nil {
			panic(err)
		}
	}
	return m
}

func (p *player) checkReplay(t *testing.T) {
	t.Helper()
	if live, again := durable(p.m), durable(replayed(p.cfg, p.log)); live != again {
		t.Errorf("replay differs from live\nlive:\n%s\nreplayed:\n%s", live, again)
	}
}

// durable prints all of a machine that has to survive a reload.
func durable(m *Machine) string {
	var b strings.Builder
	for _, id := range det.SortedKeys(m.groups) {
		g := m.groups[id]
		fmt.Fprintf(&b, "%q", id)
		if v := g.stored; v != nil {
			fmt.Fprintf(&b, " %s", hex.EncodeToString(v.AppendTo(nil)))
		}
		fmt.Fprintln(&b)
		for _, topic := range det.SortedKeys(g.offsets) {
			for _, o := range g.offsets[topic].parts {
				fmt.Fprintf(&b, "  %q %+v\n", topic, o)
			}
		}
		for _, id := range det.SortedKeys(g.txns) {
			fmt.Fprintf(&b, "  txn %d: %d topics\n", id, len(m.txns[id].groups[g.id]))
		}
	}
	fmt.Fprintf(&b, "foreign %v next %d\n", m.foreign, m.next)
	return b.String()
}

func (p *player) play(t *testing.T, script string) string {
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "-> ") {
			continue
		}
		fmt.Fprintln(&p.out, line)
		if f := strings.Fields(line); len(f) > 0 && !strings.HasPrefix(line, "#") {
			p.command(t, f)
		}
	}
	return p.out.String()
}

type args map[string]string

func (a args) num(t *testing.T, k string, def int64) int64 {
	v, ok := a[k]
	if !ok {
		return def
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		t.Fatalf("%s=%s", k, v)
	}
	return n
}

func (a args) str(k, def string) string {
	if v, ok := a[k]; ok {
		return v
	}
	return def
}

func (a args) ptr(k string) *string {
	if v, ok := a[k]; ok {
		return &v
	}
	return nil
}

func (p *player) command(t *testing.T, f []string) {
	a := args{}
	for _, s := range f[1:] {
		k, v, _ := strings.Cut(s, "=")
		a[k] = v
	}
	n := func(k string, def int64) int64 { return a.num(t, k, def) }
	g := a.str("g", "g")
	name := f[0]
	if who := a.str("m", a.str("i", a.str("c", ""))); who != "" {
		name += " " + who
	}
	switch f[0] {
	case "config":
		p.cfg.MaxSize = int(n("max-size", int64(p.cfg.MaxSize)))
		p.cfg.MaxRecordBytes = int(n("max-record", int64(p.cfg.MaxRecordBytes)))
		p.m.cfg = p.cfg
	case "join":
		p.step(name, p.join(n, a, g))
	case "sync":
		r := kmsg.NewPtrSyncGroupRequest()
		r.Version, r.Group, r.MemberID, r.InstanceID, r.Generation = int16(n("v", 4)), g, a.str("m", ""), a.ptr("i"), int32(n("gen", 1))
		r.ProtocolType, r.Protocol = a.ptr("type"), a.ptr("proto")
		for _, s := range list(a["assign"]) {
			m, b, _ := strings.Cut(s, ":")
			r.GroupAssignment = append(r.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: m, MemberAssignment: []byte(b)})
		}
		p.step(name, Sync{r})
	case "heartbeat":
		r := kmsg.NewPtrHeartbeatRequest()
		r.Version, r.Group, r.MemberID, r.InstanceID, r.Generation = 4, g, a.str("m", ""), a.ptr("i"), int32(n("gen", 1))
		p.step(name, Heartbeat{r})
	case "leave":
		r := kmsg.NewPtrLeaveGroupRequest()
		r.Version, r.Group, r.MemberID = int16(n("v", 5)), g, a.str("m", "")
		one := kmsg.NewLeaveGroupRequestMember()
		one.MemberID, one.InstanceID = a.str("m", ""), a.ptr("i")
		r.Members = append(r.Members, one)
		p.step(name, Leave{r})
	case "commit":
		p.step(name, Commit{commitRequest(n, a, g)})
	case "txn-commit":
		p.step(name, TxnCommit{Request: commitRequest(n, a, g), ProducerID: n("producer", 1), Epoch: int16(n("pepoch", 0))})
	case "fetch":
		r := kmsg.NewOffsetFetchRequestGroup()
		r.Group = g
		for _, s := range list(a["parts"]) {
			top, part, _ := strings.Cut(s, ":")
			i, _ := strconv.Atoi(part)
			r.Topics = append(r.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: top, TopicID: testID(n("id", 0)), Partitions: []int32{int32(i)}})
		}
		_, stable := a["stable"]
		p.step(name, FetchOffsets{Group: r, RequireStable: stable})
	case "delete-offsets":
		r := kmsg.NewPtrOffsetDeleteRequest()
		r.Group = g
		for _, s := range list(a["parts"]) {
			top, part, _ := strings.Cut(s, ":")
			i, _ := strconv.Atoi(part)
			r.Topics = append(r.Topics, kmsg.OffsetDeleteRequestTopic{Topic: top, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: int32(i)}}})
		}
		p.step(name, DeleteOffsets{r})
	case "describe":
		p.step(name, Describe{Group: g, Version: int16(n("v", 6))})
	case "list":
		p.step(name, List{States: list(a["states"]), Types: list(a["types"])})
	case "delete":
		p.step(name, Delete{g})
	case "topic-deleted":
		p.take(p.m.Step(p.now, In{Event: TopicsDeleted{[]DeletedTopic{{Name: a["t"], ID: testID(n("id", 0))}}}}))
	case "wait":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			t.Fatal(err)
		}
		p.advance(d)
	case "reload":
		p.reload()
	case "raw": // a record of the log that somebody else wrote
		p.raw(t, n, a, g)
	default:
		t.Fatalf("unknown command %q", f[0])
	}
}

func (p *player) join(n func(string, int64) int64, a args, g string) Event {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Version, r.Group, r.MemberID, r.InstanceID = int16(n("v", 5)), g, a.str("m", ""), a.ptr("i")
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = int32(n("session", 10000)), int32(n("rebalance", 60000))
	r.ProtocolType = a.str("type", "consumer")
	for _, s := range list(a.str("protos", "range:t1")) {
		if s == "none" {
			continue
		}
		name, topics, _ := strings.Cut(s, ":")
		r.Protocols = append(r.Protocols, kmsg.JoinGroupRequestProtocol{Name: name, Metadata: subscribe(strings.Split(topics, "+")...)})
	}
	if _, ok := a["raw"]; ok { // metadata that is no subscription
		r.Protocols[0].Metadata = []byte(a["raw"])
	}
	prefix := a.str("i", a.str("c", "c"))
	if r.MemberID == "" {
		p.ids[prefix]++
	}
	return Join{Request: r, ClientID: a.str("c", "c"), ClientHost: "/10.0.0.1", NewID: fmt.Sprint(p.ids[prefix])}
}

func subscribe(topics ...string) []byte {
	v := kmsg.NewConsumerMemberMetadata()
	v.Topics = topics
	return v.AppendTo(nil)
}

func commitRequest(n func(string, int64) int64, a args, g string) *kmsg.OffsetCommitRequest {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Version, r.Group, r.MemberID, r.InstanceID, r.Generation = int16(n("v", 9)), g, a.str("m", ""), a.ptr("i"), int32(n("gen", -1))
	r.RetentionTimeMillis = n("retention", -1)
	for _, s := range list(a.str("offsets", "t1:0:10")) {
		q := strings.Split(s, ":")
		part, _ := strconv.Atoi(q[1])
		off, _ := strconv.ParseInt(q[2], 10, 64)
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Partition, rp.Offset, rp.LeaderEpoch = int32(part), off, int32(n("epoch", -1))
		if md := a.str("metadata", ""); md != "" {
			rp.Metadata = &md
		}
		if size := n("metadata-size", 0); size > 0 {
			rp.Metadata = kmsg.StringPtr(strings.Repeat("x", int(size)))
		}
		r.Topics = append(r.Topics, kmsg.OffsetCommitRequestTopic{Topic: q[0], TopicID: testID(n("id", 0)), Partitions: []kmsg.OffsetCommitRequestTopicPartition{rp}})
	}
	return r
}

func (p *player) raw(t *testing.T, n func(string, int64) int64, a args, g string) {
	r := Replayed{Offset: int64(len(p.log)), ProducerID: n("producer", -1)}
	r.Transactional = r.ProducerID >= 0
	switch {
	case a["marker"] != "":
		if a["marker"] == "commit" {
			r.Value = []byte{1}
		}
		p.log = append(p.log, r)
		p.m.ReplayMarker(r.Offset, r.ProducerID, r.Value != nil)
		return
	case a["type"] != "":
		k := kmsg.GroupMetadataKey{Version: int16(n("type", 3)), Group: g}
		r.Key = k.AppendTo(nil)
		if _, gone := a["tombstone"]; !gone {
			r.Value = []byte{0, 0, 0, 0, 0, 1, 0}
		}
	default:
		r.Key = appendOffsetKey(nil, g, a.str("t", "t1"), int32(n("p", 0)))
		v := kmsg.NewOffsetCommitValue()
		v.Version, v.Offset, v.CommitTimestamp = 3, n("offset", 0), p.now.UnixMilli()
		r.Value = v.AppendTo(nil)
	}
	p.log = append(p.log, r)
	if err := p.m.Replay(r); err != nil {
		t.Fatal(err)
	}
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func testID(n int64) (u meta.UUID) {
	u[15] = byte(n)
	return u
}

func showRecord(key, value []byte) string {
	switch int16(key[1]) {
	case typeOffset:
		var k kmsg.OffsetCommitKey
		_ = k.ReadFrom(key)
		where := fmt.Sprintf("offset %s/%s-%d", k.Group, k.Topic, k.Partition)
		if value == nil {
			return where + " tombstone"
		}
		v := kmsg.NewOffsetCommitValue()
		_ = v.ReadFrom(value)
		s := fmt.Sprintf("%s v%d %d at=%d", where, v.Version, v.Offset, v.CommitTimestamp)
		if v.Version >= 3 {
			s += fmt.Sprintf(" epoch=%d", v.LeaderEpoch)
		}
		if v.Version == 1 {
			s += fmt.Sprintf(" expires=%d", v.ExpireTimestamp)
		}
		if v.Version >= 4 {
			s += fmt.Sprintf(" id=%d", v.TopicID[15])
		}
		if v.Metadata != "" {
			s += " metadata=" + v.Metadata
		}
		return s
	case typeGroup:
		var k kmsg.GroupMetadataKey
		_ = k.ReadFrom(key)
		if value == nil {
			return "group " + k.Group + " tombstone"
		}
		v := kmsg.NewGroupMetadataValue()
		_ = v.ReadFrom(value)
		s := fmt.Sprintf("group %s v%d type=%s gen=%d protocol=%s leader=%s since=%d", k.Group, v.Version, v.ProtocolType, v.Generation, opt(v.Protocol), opt(v.Leader), v.CurrentStateTimestamp)
		for _, m := range v.Members {
			s += fmt.Sprintf(" [%s instance=%s client=%s host=%s rebalance=%d session=%d assignment=%q]", m.MemberID, opt(m.InstanceID), m.ClientID, m.ClientHost, m.RebalanceTimeoutMillis, m.SessionTimeoutMillis, m.Assignment)
		}
		return s
	}
	return fmt.Sprintf("%x", key)
}

func opt(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

func code(c int16) string {
	if err := kerr.TypedErrorForCode(c); err != nil {
		return err.Message
	}
	return "ok"
}

// show prints what a client can see of an answer.
func show(resp any) string {
	switch r := resp.(type) {
	case *kmsg.JoinGroupResponse:
		s := fmt.Sprintf("%s gen=%d protocol=%s leader=%s member=%s", code(r.ErrorCode), r.Generation, opt(r.Protocol), r.LeaderID, r.MemberID)
		if r.SkipAssignment {
			s += " skip-assignment"
		}
		for _, m := range r.Members {
			s += fmt.Sprintf(" [%s instance=%s]", m.MemberID, opt(m.InstanceID))
		}
		return s
	case *kmsg.SyncGroupResponse:
		return fmt.Sprintf("%s protocol=%s assignment=%q", code(r.ErrorCode), opt(r.Protocol), r.MemberAssignment)
	case *kmsg.HeartbeatResponse:
		return code(r.ErrorCode)
	case *kmsg.LeaveGroupResponse:
		s := code(r.ErrorCode)
		for _, m := range r.Members {
			s += fmt.Sprintf(" [%s instance=%s %s]", m.MemberID, opt(m.InstanceID), code(m.ErrorCode))
		}
		return s
	case *kmsg.OffsetCommitResponse:
		s := ""
		for _, t := range r.Topics {
			for _, q := range t.Partitions {
				s += fmt.Sprintf(" %s-%d %s", t.Topic, q.Partition, code(q.ErrorCode))
			}
		}
		return s[1:]
	case *kmsg.OffsetFetchResponseGroup:
		s := code(r.ErrorCode)
		for _, t := range r.Topics {
			for _, q := range t.Partitions {
				s += fmt.Sprintf(" %s-%d=%d epoch=%d", t.Topic, q.Partition, q.Offset, q.LeaderEpoch)
				if opt(q.Metadata) != "" {
					s += " metadata=" + opt(q.Metadata)
				}
				if q.ErrorCode != 0 {
					s += " " + code(q.ErrorCode)
				}
			}
		}
		return s
	case *kmsg.OffsetDeleteResponse:
		s := code(r.ErrorCode)
		for _, t := range r.Topics {
			for _, q := range t.Partitions {
				s += fmt.Sprintf(" %s-%d %s", t.Topic, q.Partition, code(q.ErrorCode))
			}
		}
		return s
	case *kmsg.DescribeGroupsResponseGroup:
		s := fmt.Sprintf("%s %s type=%s protocol=%s", code(r.ErrorCode), r.State, r.ProtocolType, r.Protocol)
		for _, m := range r.Members {
			s += fmt.Sprintf(" [%s instance=%s metadata=%d bytes assignment=%q]", m.MemberID, opt(m.InstanceID), len(m.ProtocolMetadata), m.MemberAssignment)
		}
		return s
	case []kmsg.ListGroupsResponseGroup:
		s := "listed"
		for _, g := range r {
			s += fmt.Sprintf(" [%s %s %s %s]", g.Group, g.ProtocolType, g.GroupState, g.GroupType)
		}
		return s
	case *kmsg.DeleteGroupsResponseGroup:
		return code(r.ErrorCode)
	}
	return reflect.TypeOf(resp).String()
}
