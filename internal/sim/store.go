package sim

import (
	"slices"
	"strconv"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
)

const topicName = "t"

// store is the model of the coordination store: one history that never forks, whose engine one broker
// leads. It takes a write if its token is that of the newest term.
type store struct {
	w      *World
	rev    int64
	image  *meta.Image
	images []*meta.Image // by revision
	token  int64
	leads  int32 // broker that leads the engine, -1: nobody
	moved  bool
	static *config.Static
}

func newStore(w *World) *store {
	s := &store{w: w, image: meta.Empty(), leads: -1}
	s.images = []*meta.Image{s.image}
	var err error
	if s.static, err = config.Parse([]string{"node.id=0"}, nil, nil); err != nil {
		w.fail("the simulator starts", "%v", err)
		return s
	}
	s.found()
	return s
}

// found makes the cluster, its brokers and the topic.
func (s *store) found() {
	do := func(p control.Plan, err error) {
		if err != nil {
			s.w.fail("the simulator starts", "%v", err)
			return
		}
		for _, step := range p.Steps {
			s.write(step)
		}
	}
	cl := func() *control.Cluster {
		return &control.Cluster{Image: s.image, Static: s.static, NewID: s.w.id, Rand: s.w.rand.Intn}
	}
	do(cl().Bootstrap(""))
	r := s.image.Cluster()
	r.Features = map[string]int16{control.FeatureELR: 0}
	if s.w.shape.ELR {
		r.Features[control.FeatureELR] = 1
	}
	do(control.Plan{Steps: [][]meta.Change{{meta.PutCluster(r)}}}, nil)
	for id := range int32(s.w.o.Brokers) {
		do(cl().Register(control.Registration{ID: id, Incarnation: s.w.id(), PreviousEpoch: -1, Endpoints: endpoints}))
		do(cl().Unfence(id, s.image.Broker(id).Epoch))
	}
	if s.w.shape.ELR { // then it is one for all topics
		do(s.configure(meta.Resource{Type: meta.ResourceBroker}, config.MinInsyncReplicas.Name, strconv.Itoa(int(s.w.o.MinISR))))
	}
	nt := control.NewTopic{Name: topicName, Partitions: -1, Factor: -1, Assignment: map[int32][]int32{}, Configs: map[string]*string{}}
	for n := range s.w.shape.Partitions {
		var rs []int32
		for i := range s.w.o.Factor {
			rs = append(rs, int32((n+i)%s.w.o.Brokers))
		}
		nt.Assignment[int32(n)] = rs
	}
	if !s.w.shape.ELR {
		min := strconv.Itoa(int(s.w.o.MinISR))
		nt.Configs[config.MinInsyncReplicas.Name] = &min
	}
	unclean := strconv.FormatBool(s.w.o.Rules.Unclean(s.w.shape.Unclean))
	nt.Configs[config.UncleanLeaderElectionEnable.Name] = &unclean
	plan, res := cl().CreateTopics([]control.NewTopic{nt}, false)
	if res[0].Err != nil {
		s.w.fail("the simulator starts", "create: %v", res[0].Err)
		return
	}
	do(plan, nil)
}

var endpoints = []meta.Endpoint{{Listener: "P", Host: "h", Port: 1, Protocol: "PLAINTEXT"}}

func (s *store) configure(r meta.Resource, name, value string) (control.Plan, error) {
	cl := &control.Cluster{Image: s.image, Static: s.static, NewID: s.w.id, Rand: s.w.rand.Intn}
	return alterConfig(cl, r, name, value)
}

func alterConfig(cl *control.Cluster, r meta.Resource, name, value string) (control.Plan, error) {
	p, errs := cl.AlterConfigs([]control.ConfigChange{{Resource: r, Ops: []control.ConfigOp{{Name: name, Value: &value}}}}, false)
	if errs[0] != nil {
		return control.Plan{}, errs[0]
	}
	return p, nil
}

// id is a fresh id.
func (w *World) id() (u meta.UUID) {
	w.ids++
	for i := range 8 {
		u[8+i] = byte(w.ids >> (56 - 8*i))
	}
	return u
}

func (s *store) topic() *meta.Topic { return s.image.Topic(topicName) }

// append takes a write under a term.
func (s *store) append(token int64, cs []meta.Change) (rev int64, ok bool) {
	if !s.w.o.Rules.Fence(token, s.token) {
		s.w.Stats.StaleWrites++
		return 0, false
	}
	s.write(cs)
	return s.rev, true
}

// write is one revision.
func (s *store) write(cs []meta.Change) {
	im, _, err := s.image.Apply(cs, s.rev+1)
	if err != nil {
		s.w.fail("the metadata can be read", "%v", err)
		return
	}
	old := s.topic()
	s.rev++
	s.image = im
	s.images = append(s.images, im)
	if t := s.topic(); t != nil && old != nil && t != old {
		for n, p := range t.Partitions {
			if p != old.Partitions[n] {
				s.w.decided(int32(n), old.Partitions[n], p)
			}
		}
	}
	for _, b := range s.w.brokers {
		s.news(b)
	}
}

// news tells a broker up to where the history goes; what it missed it asks for.
func (s *store) news(b *broker) {
	rev, life := s.rev, b.life
	s.w.send(-1, b.id, func() {
		if b.life == life {
			b.heard(rev)
		}
	})
}

// take begins a term of a broker, if it leads the engine.
func (s *store) take(id int32, incarnation meta.UUID) (token int64, ok bool) {
	if s.leads != id {
		return 0, false
	}
	r := s.image.ControllerRecord()
	s.write([]meta.Change{meta.PutController(meta.ControllerRecord{Epoch: r.Epoch + 1, Broker: id, Incarnation: incarnation})})
	s.token = s.rev
	s.w.Stats.Terms++
	return s.token, true
}

// tick elects who leads the engine: one who is up and in touch with it.
func (s *store) tick() {
	if s.leads < 0 || !s.fit(s.leads) || s.moved {
		was := s.leads
		s.moved = false
		var can []int32
		for _, b := range s.w.brokers {
			if s.fit(b.id) && (b.id != was || len(s.w.brokers) == 1) {
				can = append(can, b.id)
			}
		}
		if len(can) > 0 {
			s.leads = can[s.w.rand.Intn(len(can))]
			s.w.tell("store: broker %d leads the engine", s.leads)
		} else if s.leads >= 0 && !s.fit(s.leads) {
			s.leads = -1
		}
		if was >= 0 && was != s.leads {
			b := s.w.brokers[was]
			s.w.send(-1, was, func() { b.ctl.lost() })
		}
	}
	if s.leads >= 0 {
		b := s.w.brokers[s.leads]
		s.w.send(-1, b.id, func() {
			if s.leads == b.id {
				b.ctl.lead()
			}
		})
	}
	s.w.after(s.w.between(40, 80), s.tick)
}

func (s *store) fit(id int32) bool {
	b, last := s.w.brokers[id], len(s.w.brokers)
	return b.up && b.frozen <= s.w.now && !s.w.net.cut[id][last] && !s.w.net.cut[last][id]
}

// safe says that a cluster can lose the disk of a broker: it counts as dead, so that no proposal under way can
// bring it back, somebody else is in sync for whatever it holds, and nothing will ask for its copy.
func (s *store) safe(id int32) bool {
	if b := s.image.Broker(id); b == nil || !b.Fenced {
		return false
	}
	for _, p := range s.topic().Partitions {
		if slices.Contains(p.ISR, id) || slices.Contains(p.ELR, id) || slices.Contains(p.LastKnownELR, id) || len(p.ISR) == 0 {
			return false
		}
	}
	return true
}
