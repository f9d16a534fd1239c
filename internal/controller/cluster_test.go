package controller_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/controller"
	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/meta"
)

func TestAKilledBrokersPartitionsAreLedByOthersAtOnce(t *testing.T) {
	r := newRig(t)
	r.three()
	r.topic("t", 900, 1, 2, 3)
	victim := r.nodes[2]
	if victim.ctl.Leads() {
		victim = r.nodes[3]
	}
	before := r.h.Appends()
	at := time.Now()
	r.kill(victim)
	r.until("its partitions have leaders", func(im *meta.Image) bool { return led(im, victim.id) == 0 })
	took := time.Since(at)
	t.Logf("300 of 900 partitions have new leaders %v after the kill, %d appends", took, r.h.Appends()-before)
	r.until("it is fenced", func(im *meta.Image) bool { return im.Broker(victim.id).Fenced })
	r.until("it is out of every ISR", func(im *meta.Image) bool {
		return !slices.ContainsFunc(im.Topic("t").Partitions, func(p *meta.Partition) bool { return slices.Contains(p.ISR, victim.id) })
	})
	if n := r.h.Appends() - before; n > 2 { // a proof after a pause of this machine may be the second
		t.Errorf("%d appends for 901 records", n)
	}
}

func TestTheControllersDeathIsNoGraceForTheDead(t *testing.T) {
	r := newRig(t)
	r.three()
	r.topic("t", 30, 1, 2, 3)
	victim := r.leader()
	at := time.Now()
	r.kill(victim)
	r.until("its partitions have leaders", func(im *meta.Image) bool { return led(im, victim.id) == 0 && im.Broker(victim.id).Fenced })
	t.Logf("led by others %v after the kill of the controller", time.Since(at))
	if n := r.leader(); n.id == victim.id {
		t.Errorf("the dead one leads")
	}
	for _, n := range r.all() {
		if b := n.ctl.Image().Broker(n.id); b.Fenced {
			t.Errorf("broker %d was fenced, too", n.id)
		}
	}
}

func TestABrokerRegistersWhileTheControllerDies(t *testing.T) {
	r := newRig(t)
	r.three()
	victim := r.leader()
	done := make(chan int16)
	go func() { done <- r.ask(registration(7, 1)).(*kmsg.BrokerRegistrationResponse).ErrorCode }()
	r.kill(victim)
	if code := <-done; code != 0 {
		t.Fatal(kerr.ErrorForCode(code))
	}
	r.until("it is registered", func(im *meta.Image) bool { return im.Broker(7) != nil })
}

func TestWhoMayNotRegister(t *testing.T) {
	r := newRig(t)
	r.three()
	n := r.nodes[2]
	epoch := n.beats.Load().BrokerEpoch
	check := func(what string, q *kmsg.BrokerRegistrationRequest, want error) {
		t.Helper()
		resp := r.ask(q).(*kmsg.BrokerRegistrationResponse)
		if got := kerr.ErrorForCode(resp.ErrorCode); !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	check("a taken id", registration(2, 9), kerr.DuplicateBrokerRegistration)
	wrong := registration(8, 1)
	wrong.ClusterID = "abcdefghijklmnopqrstuv"
	check("another cluster", wrong, kerr.InconsistentClusterID)
	old := registration(8, 1)
	old.Features = nil
	check("features unknown to it", old, kerr.UnsupportedVersion)
	future := registration(8, 1)
	for i := range future.Features {
		if future.Features[i].Name == control.FeatureFormat {
			future.Features[i].MinSupportedVersion, future.Features[i].MaxSupportedVersion = control.Format+1, control.Format+1
		}
	}
	check("another format", future, kerr.UnsupportedVersion)
	nowhere := registration(8, 1)
	nowhere.Listeners = nil
	check("no listener", nowhere, kerr.InvalidRequest)
	strange := registration(8, 1)
	strange.Listeners[0].SecurityProtocol = 77
	check("a protocol that does not exist", strange, kerr.InvalidRequest)
	if b := r.leader().ctl.Image().Broker(2); b.Epoch != epoch || b.Fenced || r.leader().ctl.Image().Broker(8) != nil {
		t.Errorf("a refusal changed something: %+v", b)
	}
	// The same process may ask again, and so may another one when the first has gone.
	check("the same incarnation", registration(2, 1), nil)
	n.beats.Store(nil)
	for _, o := range r.all() {
		o.ctl.Closed(n.conn)
	}
	for {
		resp := r.ask(registration(2, 9)).(*kmsg.BrokerRegistrationResponse)
		if resp.ErrorCode == 0 {
			break
		}
		if resp.ErrorCode != kerr.DuplicateBrokerRegistration.Code || r.ctx.Err() != nil {
			t.Fatal(kerr.ErrorForCode(resp.ErrorCode))
		}
	}
}

func TestAnOldEpochIsToldAndANewerOneIsNot(t *testing.T) {
	r := newRig(t)
	r.three()
	n := r.leader()
	beat := func(id int32, epoch int64) error {
		b := kmsg.NewPtrBrokerHeartbeatRequest()
		b.BrokerID, b.BrokerEpoch = id, epoch
		return kerr.ErrorForCode(n.ctl.Handle(r.ctx, 99, b).(*kmsg.BrokerHeartbeatResponse).ErrorCode)
	}
	if err := beat(2, 1); !errors.Is(err, kerr.StaleBrokerEpoch) {
		t.Errorf("an old epoch: %v", err)
	}
	if err := beat(9, 1); !errors.Is(err, kerr.BrokerIDNotRegistered) {
		t.Errorf("nobody: %v", err)
	}
	if err := beat(2, 1<<40); !errors.Is(err, kerr.NotController) {
		t.Errorf("an epoch that this controller has not heard of: %v", err)
	}
	for _, o := range r.all() {
		if o == n {
			continue
		}
		b := *o.beats.Load()
		if x := o.ctl.Handle(r.ctx, 98, &b).(*kmsg.BrokerHeartbeatResponse); x.ErrorCode != kerr.NotController.Code {
			t.Errorf("a follower answers a heartbeat with %v", kerr.ErrorForCode(x.ErrorCode))
		}
	}
}

func TestControlledShutdownMovesLeadershipFirst(t *testing.T) {
	r := newRig(t)
	r.three()
	r.topic("t", 30, 1, 2, 3)
	n := r.nodes[3]
	b := *n.beats.Load()
	b.WantShutdown = true
	n.beats.Store(&b)
	for x := n.last.Load(); !x.ShouldShutdown; x = n.last.Load() {
		if r.ctx.Err() != nil {
			t.Fatal("never released")
		}
		if err := wait(r.ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range r.all() {
		if k := led(o.ctl.Image(), 3); k != 0 {
			t.Errorf("released while broker %d still sees it lead %d partitions", o.id, k)
		}
	}
	if r.leader().ctl.Image().Broker(3).Fenced {
		t.Error("fenced before it has gone")
	}
}

func TestLeadershipComesHomeSoonAfterABrokerReturns(t *testing.T) {
	r := newRig(t)
	r.three()
	r.topic("t", 3, 1, 2, 3)
	if x := r.propose("t", 0, 1, 3); x.ErrorCode != 0 || x.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("%+v", x)
	}
	victim := r.nodes[2]
	if victim.ctl.Leads() {
		t.Fatal("broker 2 leads although broker 1 was first")
	}
	r.kill(victim)
	r.until("others lead", func(im *meta.Image) bool { return led(im, 2) == 0 })
	back := r.start(2)
	r.join(back, 2)
	old := r.propose("t", 1, 3, 1, 2)
	if p := old.Topics[0].Partitions[0]; old.ErrorCode != 0 || p.ErrorCode != 0 || !slices.Contains(p.ISR, 2) || p.LeaderID == 2 {
		t.Fatalf("%+v", old)
	}
	at := time.Now()
	r.until("its partition is led by it again", func(im *meta.Image) bool { return im.Partition("t", 1).Leader == 2 })
	t.Logf("home %v after it was in sync", time.Since(at))
}

func TestStaleProposalsAreRefused(t *testing.T) {
	r := newRig(t)
	r.three()
	r.topic("t", 1, 1, 2, 3)
	im := r.leader().ctl.Image()
	q := kmsg.NewPtrAlterPartitionRequest()
	q.Version, q.BrokerID, q.BrokerEpoch = 3, 1, im.Broker(1).Epoch-1
	if x := r.ask(q).(*kmsg.AlterPartitionResponse); x.ErrorCode != kerr.StaleBrokerEpoch.Code {
		t.Errorf("stale broker: %+v", x)
	}
	q.Version = 1
	if x := r.ask(q).(*kmsg.AlterPartitionResponse); x.ErrorCode != kerr.UnsupportedVersion.Code {
		t.Errorf("version 1: %+v", x)
	}
	if x := r.propose("t", 0, 1, 2); x.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("%+v", x)
	}
	q.Version, q.BrokerEpoch = 2, im.Broker(1).Epoch
	qt := kmsg.NewAlterPartitionRequestTopic()
	qt.TopicID = im.Topic("t").ID
	qp := kmsg.NewAlterPartitionRequestTopicPartition()
	qp.NewISR = []int32{1, 2, 3}
	qt.Partitions = append(qt.Partitions, qp)
	q.Topics = append(q.Topics, qt)
	if x := r.ask(q).(*kmsg.AlterPartitionResponse); x.Topics[0].Partitions[0].ErrorCode != kerr.InvalidUpdateVersion.Code {
		t.Errorf("stale partition epoch: %+v", x)
	}
}

func TestALostDirectoryMovesLeadership(t *testing.T) {
	r := newRig(t)
	r.three()
	r.topic("t", 3, 1, 2, 3)
	im := r.leader().ctl.Image()
	q := kmsg.NewPtrAssignReplicasToDirsRequest()
	q.BrokerID, q.BrokerEpoch = 1, im.Broker(1).Epoch
	for k, parts := range [][]int32{{0, 99}, {1, 2}} {
		d := kmsg.NewAssignReplicasToDirsRequestDirectory()
		d.ID = meta.UUID{byte(k + 1), 1}
		dt := kmsg.NewAssignReplicasToDirsRequestDirectoryTopic()
		dt.TopicID = im.Topic("t").ID
		for _, n := range parts {
			dt.Partitions = append(dt.Partitions, kmsg.AssignReplicasToDirsRequestDirectoryTopicPartition{Partition: n})
		}
		d.Topics = append(d.Topics, dt)
		q.Directories = append(q.Directories, d)
	}
	x := r.ask(q).(*kmsg.AssignReplicasToDirsResponse)
	codes := []int16{x.Directories[0].Topics[0].Partitions[0].ErrorCode, x.Directories[0].Topics[0].Partitions[1].ErrorCode, x.Directories[1].Topics[0].Partitions[1].ErrorCode}
	if x.ErrorCode != 0 || !slices.Equal(codes, []int16{0, kerr.UnknownTopicOrPartition.Code, 0}) {
		t.Fatalf("%+v", x)
	}
	n := r.nodes[1]
	b := *n.beats.Load()
	b.OfflineLogDirs = [][16]byte{{1, 1}}
	n.beats.Store(&b)
	r.until("partition 0 is led by another", func(im *meta.Image) bool {
		p := im.Partition("t", 0)
		return p.Leader != 1 && p.Leader >= 0 && !slices.Contains(p.ISR, 1)
	})
	im = r.leader().ctl.Image()
	if p := im.Partition("t", 2); !slices.Contains(p.ISR, 1) || im.Broker(1).Fenced || len(im.Broker(1).Dirs) != 1 {
		t.Errorf("the other directory suffers: %+v, %+v", p, im.Broker(1))
	}
	// A replica that says it lives in the lost directory after all.
	q.Directories = q.Directories[:1]
	q.Directories[0].Topics[0].Partitions = []kmsg.AssignReplicasToDirsRequestDirectoryTopicPartition{{Partition: 2}}
	if x := r.ask(q).(*kmsg.AssignReplicasToDirsResponse); x.ErrorCode != 0 {
		t.Fatalf("%+v", x)
	}
	if p := r.leader().ctl.Image().Partition("t", 2); slices.Contains(p.ISR, 1) {
		t.Errorf("a replica in a lost directory is in sync: %+v", p)
	}
}

func TestTheOffsetsTopicGrowsWhenBrokersJoin(t *testing.T) {
	r := newRig(t)
	first := r.leader()
	r.join(first, 1)
	if res := first.ctl.AutoCreate(r.ctx, []string{control.OffsetsTopic}); res[0].Err != nil || res[0].Factor != 1 {
		t.Fatalf("%+v", res)
	}
	for _, n := range r.all() {
		if n != first {
			r.join(n, 1)
		}
	}
	most := 0
	for {
		im := first.ctl.Image()
		left, moving := 0, 0
		for n, p := range im.Topic(control.OffsetsTopic).Partitions {
			switch {
			case len(p.Adding) > 0:
				moving++
				isr := append(slices.Clone(p.ISR), p.Adding...)
				if x := r.propose(control.OffsetsTopic, int32(n), isr...); x.ErrorCode != 0 {
					t.Fatalf("%+v", x)
				}
			case len(p.Replicas) < 3:
				left++
			}
		}
		most = max(most, moving)
		if left == 0 && moving == 0 {
			break
		}
		if err := wait(r.ctx); err != nil {
			t.Fatal("the topic does not grow")
		}
	}
	if most > 10 {
		t.Errorf("%d partitions grew at the same time", most)
	}
	prefer := map[int32]int{}
	for _, p := range first.ctl.Image().Topic(control.OffsetsTopic).Partitions {
		prefer[p.Replicas[0]]++
	}
	for id, k := range prefer {
		if k < 10 {
			t.Errorf("broker %d is preferred for %d of 50: %v", id, k, prefer)
		}
	}
}

func TestTheBalancerMovesAFewAtATimeAndOnlyWhenAsked(t *testing.T) {
	r := newRig(t, "balancer.interval.seconds=1", "balancer.max.moves=2")
	r.three()
	r.topic("t", 12, 1)
	l := r.leader()
	plan, err := l.ctl.Balance(r.ctx, control.Balancing{}, false)
	if err != nil || len(plan) != 8 || plan[0].Reason == "" {
		t.Fatalf("dry run: %+v %v", plan, err)
	}
	if m, err := l.ctl.ListReassignments(r.ctx, nil); err != nil || len(m) != 0 {
		t.Fatalf("a dry run moves %v, %v", m, err)
	}
	on := "true"
	errs := l.ctl.AlterConfigs(r.ctx, []control.ConfigChange{{Resource: meta.Resource{Type: meta.ResourceBroker}, Ops: []control.ConfigOp{{Name: "balancer.enable", Value: &on}}}}, false)
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	r.until("it moves", func(im *meta.Image) bool {
		n := 0
		for _, p := range im.Topic("t").Partitions {
			n += len(p.Adding)
		}
		if n > 2 {
			t.Fatalf("%d moves at the same time", n)
		}
		return n == 2
	})
	moving, err := l.ctl.ListReassignments(r.ctx, nil)
	if err != nil || len(moving) != 2 {
		t.Fatalf("%+v %v", moving, err)
	}
	tt := meta.Resource{Type: meta.ResourceTopic, Name: "t"}
	if v := l.ctl.Image().Config(tt)["follower.replication.throttled.replicas"]; strings.Count(v, ":") != 2 {
		t.Errorf("throttled are %q", v)
	}
	for i, e := range l.ctl.AlterReassignments(r.ctx, []control.Reassignment{{Topic: "t", Partition: moving[0].Partition}, {Topic: "t", Partition: 99, Target: []int32{1}}}, true) {
		if (e == nil) != (i == 0) {
			t.Errorf("cancel %d: %v", i, e)
		}
	}
	// The leaders do their part; in the end all is even and no throttle is left.
	off := "false"
	for done := false; !done; {
		im := l.ctl.Image()
		done = len(im.Config(tt)) == 0 && led(im, 1) == 4 && im.Config(meta.Resource{Type: meta.ResourceBroker})["balancer.throttled"] == ""
		for n, p := range im.Topic("t").Partitions {
			if len(p.Adding) > 0 {
				done = false
				r.propose("t", int32(n), append(slices.Clone(p.ISR), p.Adding...)...)
			}
		}
		if err := wait(r.ctx); err != nil {
			t.Fatalf("%v %v", im.Config(tt), im.Config(meta.Resource{Type: meta.ResourceBroker}))
		}
	}
	if errs := l.ctl.AlterConfigs(r.ctx, []control.ConfigChange{{Resource: meta.Resource{Type: meta.ResourceBroker}, Ops: []control.ConfigOp{{Name: "balancer.enable", Value: &off}}}}, false); errs[0] != nil {
		t.Fatal(errs[0])
	}
}

func TestWhatOnlyTheControllerMayDoIsRefusedByTheOthers(t *testing.T) {
	r := newRig(t)
	r.three()
	l := r.leader()
	for _, n := range r.all() {
		if n == l {
			continue
		}
		refusals := map[string]error{
			"create":     n.ctl.CreateTopics(r.ctx, []control.NewTopic{topic("x", 1)}, false)[0].Err,
			"unregister": n.ctl.UnregisterBroker(r.ctx, 3),
			"reassign":   n.ctl.AlterReassignments(r.ctx, []control.Reassignment{{Topic: "x"}}, true)[0],
		}
		_, refusals["elect"] = n.ctl.ElectLeaders(r.ctx, control.ElectPreferred, nil)
		_, refusals["list"] = n.ctl.ListReassignments(r.ctx, nil)
		_, refusals["balance"] = n.ctl.Balance(r.ctx, control.Balancing{}, true)
		for what, err := range refusals {
			if !errors.Is(err, kerr.NotController) {
				t.Errorf("%s on a broker that does not lead: %v", what, err)
			}
		}
		q := kmsg.NewPtrAllocateProducerIDsRequest()
		if x := n.ctl.Handle(r.ctx, n.conn, q).(*kmsg.AllocateProducerIDsResponse); x.ErrorCode != kerr.NotController.Code {
			t.Errorf("producer ids: %+v", x)
		}
	}
	if err := l.ctl.UnregisterBroker(r.ctx, 77); !errors.Is(err, kerr.BrokerIDNotRegistered) {
		t.Errorf("unregister nobody: %v", err)
	}
	q := kmsg.NewPtrAllocateProducerIDsRequest()
	q.BrokerID, q.BrokerEpoch = 2, r.nodes[2].beats.Load().BrokerEpoch
	if x := r.ask(q).(*kmsg.AllocateProducerIDsResponse); x.ErrorCode != 0 || x.ProducerIDLen != 1000 {
		t.Errorf("producer ids: %+v", x)
	}
	if l.ctl.Handle(r.ctx, 1, kmsg.NewPtrMetadataRequest()) != nil {
		t.Error("a request that is not for the controller is answered")
	}
}

func TestACordonedBrokerGetsNothingNew(t *testing.T) {
	r := newRig(t)
	r.three()
	l := r.leader()
	all := "*"
	errs := l.ctl.AlterConfigs(r.ctx, []control.ConfigChange{{Resource: meta.Resource{Type: meta.ResourceBroker, Name: "3"}, Ops: []control.ConfigOp{{Name: "cordoned.log.dirs", Value: &all}}}}, false)
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	res := l.ctl.CreateTopics(r.ctx, []control.NewTopic{{Name: "t", Partitions: 9, Factor: 2}, {Name: "u", Partitions: 1, Factor: 3}}, false)
	if res[0].Err != nil || !errors.Is(res[1].Err, kerr.InvalidReplicationFactor) {
		t.Fatalf("%v", res)
	}
	for _, p := range l.ctl.Image().Topic("t").Partitions {
		if slices.Contains(p.Replicas, 3) {
			t.Fatalf("%+v", p)
		}
	}
	if err := l.ctl.UnregisterBroker(r.ctx, 3); err != nil {
		t.Fatal(err)
	}
	if v := l.ctl.Image().Config(meta.Resource{Type: meta.ResourceBroker, Name: "3"}); v["cordoned.log.dirs"] != "" {
		t.Errorf("whoever takes the id next is cordoned: %v", v)
	}
}

// TestAllAreKilledAndOneDoesNotComeBack: the two that do have everything that was acknowledged, whoever was last.
func TestAllAreKilledAndOneDoesNotComeBack(t *testing.T) {
	r := newRig(t, "broker.session.timeout.ms=300")
	r.three()
	r.topic("t", 9, 1, 2, 3)
	two := "2"
	l := r.leader()
	if errs := l.ctl.AlterConfigs(r.ctx, []control.ConfigChange{{Resource: meta.Resource{Type: meta.ResourceTopic, Name: "t"}, Ops: []control.ConfigOp{{Name: "min.insync.replicas", Value: &two}}}}, false); errs[0] != nil {
		t.Fatal(errs[0])
	}
	for _, n := range r.all() {
		r.kill(n)
	}
	at := time.Now()
	var wg sync.WaitGroup
	for _, id := range []int32{3, 1} {
		n := r.start(id, "broker.session.timeout.ms=300")
		wg.Go(func() {
			for r.ctx.Err() == nil {
				resp := r.ask(registration(id, 2)).(*kmsg.BrokerRegistrationResponse)
				if resp.ErrorCode == 0 {
					b := kmsg.NewPtrBrokerHeartbeatRequest()
					b.Version, b.BrokerID, b.BrokerEpoch = 1, id, resp.BrokerEpoch
					n.beats.Store(b)
					return
				}
				if resp.ErrorCode != kerr.DuplicateBrokerRegistration.Code {
					t.Errorf("broker %d: %v", id, kerr.ErrorForCode(resp.ErrorCode))
					return
				}
				_ = wait(r.ctx)
			}
		})
	}
	wg.Wait()
	r.until("all partitions have leaders", func(im *meta.Image) bool { return led(im, 1)+led(im, 3) == 9 })
	t.Logf("all led again %v after the start", time.Since(at))
	for n, p := range r.leader().ctl.Image().Topic("t").Partitions {
		if p.Recovery != control.Recovered {
			t.Errorf("partition %d was elected uncleanly: %+v", n, p)
		}
	}
}

func TestWhatIsAllowedNowIsElectedAtOnce(t *testing.T) {
	r := newRig(t)
	r.three()
	r.topic("t", 1, 2)
	r.topic("u", 1, 2, 3)
	if x := r.propose("u", 0, 2); x.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("%+v", x)
	}
	if r.nodes[2].ctl.Leads() {
		t.Fatal("broker 2 leads although broker 1 was first")
	}
	r.kill(r.nodes[2])
	r.until("nobody can lead", func(im *meta.Image) bool { return im.Partition("u", 0).Leader == -1 })
	l := r.leader()
	res, err := l.ctl.ElectLeaders(r.ctx, control.ElectPreferred, []meta.TopicPartition{{Topic: "u"}, {Topic: "x"}})
	if err != nil || !errors.Is(res[0].Err, kerr.PreferredLeaderNotAvailable) || !errors.Is(res[1].Err, kerr.UnknownTopicOrPartition) {
		t.Fatalf("%v %v", res, err)
	}
	yes := "true"
	if errs := l.ctl.AlterConfigs(r.ctx, []control.ConfigChange{{Resource: meta.Resource{Type: meta.ResourceTopic, Name: "u"}, Ops: []control.ConfigOp{{Name: "unclean.leader.election.enable", Value: &yes}}}}, false); errs[0] != nil {
		t.Fatal(errs[0])
	}
	r.until("the other replica leads", func(im *meta.Image) bool {
		p := im.Partition("u", 0)
		return p.Leader == 3 && p.Recovery == control.Recovering
	})
	if p := l.ctl.Image().Partition("t", 0); p.Leader != -1 {
		t.Errorf("%+v", p)
	}
}

func TestWhoJoinsBringsHisOwnClusterAlong(t *testing.T) {
	r := newRig(t)
	r.three()
	st := config.StaticOf(map[string]string{"node.id": "9"})
	s := r.h.Node(coord.Identity{NodeID: 9})
	defer s.Close()
	c := controller.New(controller.Options{Store: s, NodeID: 9, ClusterID: "abcdefghijklmnopqrstuv", Static: st, NewID: ids(9), Rand: func(int) int { return 0 }})
	defer c.Close()
	if err := c.Start(r.ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(r.ctx); !errors.Is(err, kerr.InconsistentClusterID) {
		t.Errorf("ready: %v", err)
	}
}

func TestLeadershipLeavesAFullDiskAndComesBack(t *testing.T) {
	r := newRig(t)
	r.three()
	r.topic("t", 3, 1, 2, 3)
	r.topic("solo", 1, 3)
	n := r.nodes[3]
	b := *n.beats.Load()
	b.Version = 2
	b.CordonedLogDirs = [][16]byte{{1, 3}, {2, 3}}
	n.beats.Store(&b)
	r.until("it leads only what nobody else can", func(im *meta.Image) bool { return led(im, 3) == 1 })
	if im := r.leader().ctl.Image(); im.Broker(3).Fenced || !slices.Contains(im.Partition("t", 2).ISR, 3) {
		t.Errorf("%+v %+v", im.Broker(3), im.Partition("t", 2))
	}
	b.CordonedLogDirs = nil
	n.beats.Store(&b)
	r.until("it leads what it is preferred for", func(im *meta.Image) bool { return led(im, 3) == 2 })
}
