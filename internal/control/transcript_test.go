package control

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts anew")

// A transcript is commands, each followed by ---- and the complete output up to an empty line.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			want, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *rewrite {
				if err := os.WriteFile(f, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("transcript differs (-rewrite writes it anew):\n%s", got)
			}
		})
	}
}

func play(t *testing.T, script string) string {
	s := &stage{t: t, im: meta.Empty()}
	s.static("node.id=1")
	var out strings.Builder
	in := bufio.NewScanner(strings.NewReader(script))
	skip := false
	for in.Scan() {
		line := in.Text()
		switch {
		case line == "":
			out.WriteString("\n")
			skip = false
		case skip:
		case strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
		case line == "----":
			skip = true
		default:
			fmt.Fprintf(&out, "%s\n----\n%s\n", line, s.run(strings.Fields(line)))
			skip = true
		}
	}
	return out.String()
}

// stage is the cluster of one transcript.
type stage struct {
	t   *testing.T
	im  *meta.Image
	st  *config.Static
	ids byte
	rev int64
	out strings.Builder

	live     *Liveness
	proposed []int32 // the ISR of the proposal that is being carried out
	replaced bool    // a log directory was replaced
	now      int64
}

func (s *stage) static(args ...string) {
	st, err := config.Parse(args, nil, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.st = st
}

func (s *stage) cluster() *Cluster {
	return &Cluster{Image: s.im, Static: s.st, NodeID: 1, Slow: func(id int32) bool { return s.live != nil && s.live.Slow(id, s.now) },
		Full: func(id int32, dir meta.UUID) bool { return s.live != nil && s.live.Full(id, dir) }, Rand: func(int) int { return 0 }, NewID: func() (u meta.UUID) {
			s.ids++
			u[15] = s.ids
			return u
		}}
}

// apply carries a plan out; after each step the image must be whole.
func (s *stage) apply(p Plan) {
	for i, step := range p.Steps {
		s.rev++
		if len(step) > ApplyLimit {
			s.t.Errorf("step of %d changes", len(step))
		}
		im, d, err := s.im.Apply(step, s.rev)
		if err != nil {
			s.t.Fatalf("step %d: %v", i, err)
		}
		s.check(s.im, im)
		s.im = im
		if len(step) <= 12 {
			for _, c := range step {
				if c.Value == nil {
					fmt.Fprintf(&s.out, "%d delete %s\n", s.rev, c.Key)
				} else {
					fmt.Fprintf(&s.out, "%d put %s %s\n", s.rev, c.Key, c.Value[1:])
				}
			}
			continue
		}
		fmt.Fprintf(&s.out, "%d %d changes from %s to %s; %d topics change\n", s.rev, len(step), step[0].Key, step[len(step)-1].Key, len(d.Topics))
	}
}

// check holds the invariants of doc.go between two images.
func (s *stage) check(was, now *meta.Image) {
	for _, t := range now.Topics() {
		old := was.TopicByID(t.ID)
		for n, p := range t.Partitions {
			if p.Leader != meta.NoLeader && !contains(p.ISR, p.Leader) || len(p.ISR) == 0 && now.Features()[FeatureELR] == 0 && !s.replaced {
				s.t.Errorf("%s-%d: leader %d, ISR %v", t.Name, n, p.Leader, p.ISR)
			}
			if old == nil || n >= len(old.Partitions) {
				continue
			}
			o := old.Partitions[n]
			if p.Leader != meta.NoLeader && !contains(o.ISR, p.Leader) && !contains(o.ELR, p.Leader) && !contains(s.proposed, p.Leader) && p.Recovery != Recovering {
				s.t.Errorf("%s-%d: %d leads cleanly after %+v", t.Name, n, p.Leader, o)
			}
			for _, id := range p.ELR {
				if contains(p.ISR, id) || !contains(p.Replicas, id) {
					s.t.Errorf("%s-%d: ELR %v, ISR %v", t.Name, n, p.ELR, p.ISR)
				}
			}
			if p.LeaderEpoch < o.LeaderEpoch || p.PartitionEpoch < o.PartitionEpoch || p.Leader != o.Leader && p.LeaderEpoch == o.LeaderEpoch || p != o && p.PartitionEpoch == o.PartitionEpoch {
				s.t.Errorf("%s-%d: %+v after %+v", t.Name, n, p, o)
			}
		}
	}
}

func contains(s []int32, v int32) bool {
	for _, x := range s {
		if x == v {
			return true
		}
	}
	return false
}

func (s *stage) run(f []string) string {
	s.out.Reset()
	c := s.cluster()
	name, args := "", map[string]string{}
	for _, a := range f[1:] {
		if k, v, ok := strings.Cut(a, "="); ok {
			args[k] = v
		} else {
			name = a
		}
	}
	num := func(k string, def int) int {
		if v, ok := args[k]; ok {
			delete(args, k)
			n, err := strconv.Atoi(v)
			if err != nil {
				s.t.Fatal(err)
			}
			return n
		}
		return def
	}
	switch f[0] {
	case "static":
		s.static(append(f[1:], "node.id=1")...)
	case "bootstrap":
		p, err := c.Bootstrap(args["id"])
		if args["elr"] == "" && len(p.Steps) > 0 {
			// Most transcripts are about a cluster without ELR, or turn it on themselves.
			r, err := meta.DecodeCluster(p.Steps[0][0].Value)
			if err != nil {
				s.t.Fatal(err)
			}
			delete(r.Features, FeatureELR)
			p.Steps = [][]meta.Change{{meta.PutCluster(r)}}
		}
		s.done(p, err)
	case "register":
		id := num("id", 1)
		if b := s.im.Broker(int32(id)); b != nil && len(b.Dirs) > 0 && !slices.Equal(b.Dirs, dirs(args["dirs"])) {
			s.replaced = true // without ELR, too, an ISR may be empty now
		}
		s.done(c.Register(Registration{ID: int32(id), Incarnation: c.NewID(), ClusterID: args["cluster"], Rack: args["rack"], PreviousEpoch: int64(num("prev", -1)), Dirs: dirs(args["dirs"]), Intact: num("intact", 0) == 1,
			Endpoints: []meta.Endpoint{{Listener: "PLAINTEXT", Host: "h", Port: 1, Protocol: "PLAINTEXT"}}}))
	case "die":
		s.done(c.FenceAll(ints(name)))
	case "unfence", "fence", "drain":
		id := int32(num("id", 1))
		epoch := int64(num("epoch", -1))
		if b := s.im.Broker(id); b != nil && epoch == -1 {
			epoch = b.Epoch
		}
		fn := map[string]func(int32, int64) (Plan, error){"unfence": c.Unfence, "fence": c.Fence, "drain": c.Drain}[f[0]]
		s.done(fn(id, epoch))
	case "pids":
		id := int32(num("id", 1))
		epoch := int64(-1)
		if b := s.im.Broker(id); b != nil {
			epoch = b.Epoch
		}
		p, first, err := c.AllocateProducerIDs(id, epoch)
		fmt.Fprintf(&s.out, "first %d\n", first)
		s.done(p, err)
	case "sweep":
		s.done(c.Sweep(), nil)
	case "create", "validate":
		s.create(c, f, name, args, num)
	case "auto":
		p, r := c.CreateTopics([]NewTopic{c.Automatic(name)}, false)
		s.topics(p, r)
	case "delete":
		w := GoneTopic{Name: name}
		if v, ok := args["id"]; ok {
			id, err := meta.ParseUUID(v)
			if err != nil {
				s.t.Fatal(err)
			}
			w.ID = id
		}
		p, r := c.DeleteTopics([]GoneTopic{w})
		s.topics(p, r)
	case "grow":
		w := MorePartitions{Topic: name, Count: int32(num("to", 0))}
		if v, ok := args["assign"]; ok {
			w.Assignment = [][]int32{}
			for _, rs := range assignment(v) {
				w.Assignment = append(w.Assignment, rs)
			}
		}
		p, r := c.CreatePartitions([]MorePartitions{w}, false)
		s.topics(p, r)
	case "set", "unset", "append", "subtract", "replace":
		s.alter(c, f)
	case "show":
		for _, ch := range s.im.Changes() {
			fmt.Fprintf(&s.out, "%s %s\n", ch.Key, ch.Value[1:])
		}
	default:
		s.cluster2(c, f[0], name, args, num)
	}
	if s.out.Len() == 0 {
		return "ok"
	}
	return strings.TrimSuffix(s.out.String(), "\n")
}

func (s *stage) create(c *Cluster, f []string, name string, args map[string]string, num func(string, int) int) {
	w := NewTopic{Name: name, Partitions: int32(num("partitions", -1)), Factor: int16(num("factor", -1)), Configs: map[string]*string{}}
	if v, ok := args["assign"]; ok {
		delete(args, "assign")
		w.Assignment = assignment(v)
	}
	twice := num("times", 1)
	for k, v := range args {
		if w.Configs[k] = &v; v == "null" {
			w.Configs[k] = nil
		}
	}
	var ws []NewTopic
	for range twice {
		ws = append(ws, w)
	}
	p, r := c.CreateTopics(ws, f[0] == "validate")
	s.topics(p, r)
}

// assignment reads 0:1,2/1:2,1.
func assignment(v string) map[int32][]int32 {
	out := map[int32][]int32{}
	for _, part := range strings.Split(v, "/") {
		n, rs, _ := strings.Cut(part, ":")
		i, _ := strconv.Atoi(n)
		out[int32(i)] = []int32{}
		for _, r := range strings.Split(rs, ",") {
			if x, err := strconv.Atoi(r); err == nil {
				out[int32(i)] = append(out[int32(i)], int32(x))
			}
		}
	}
	return out
}

func (s *stage) alter(c *Cluster, f []string) {
	typ, name, _ := strings.Cut(f[1], "/")
	types := map[string]meta.ResourceType{"topic": meta.ResourceTopic, "broker": meta.ResourceBroker, "logger": meta.ResourceBrokerLogger, "group": meta.ResourceGroup, "metrics": meta.ResourceClientMetrics, "odd": 99}
	w := ConfigChange{Resource: meta.Resource{Type: types[typ], Name: name}, Replace: f[0] == "replace"}
	op := map[string]Op{"set": OpSet, "replace": OpSet, "unset": OpDelete, "append": OpAppend, "subtract": OpSubtract}[f[0]]
	for _, a := range f[2:] {
		k, v, ok := strings.Cut(a, "=")
		o := ConfigOp{Name: k, Op: op}
		if ok {
			o.Value = &v
		}
		w.Ops = append(w.Ops, o)
	}
	p, errs := c.AlterConfigs([]ConfigChange{w}, false)
	if errs[0] != nil {
		fmt.Fprintf(&s.out, "%s: %s\n", errs[0].Code.Message, errs[0].Message)
	}
	s.apply(p)
}

func (s *stage) done(p Plan, err error) {
	if err != nil {
		fmt.Fprintf(&s.out, "%s: %s\n", as(err).Code.Message, err)
	}
	s.apply(p)
}

func (s *stage) topics(p Plan, rs []TopicResult) {
	for _, r := range rs {
		s.out.WriteString(r.String() + "\n")
	}
	s.apply(p)
}
