package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/controller"
	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/coord/memstore"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/metric"
	"github.com/milena-mq/milena/internal/server"
)

// adminRig is the admin APIs on a socket: a real controller on a store in memory, no data path.
type adminRig struct {
	*client
	ctl   *controller.Controller
	epoch int64
}

func startAdmin(t *testing.T, set map[string]string) *adminRig {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	static := config.StaticOf(set)
	store := memstore.New().Node(coord.Identity{NodeID: 1})
	var ids atomic.Uint32
	ctl := controller.New(controller.Options{Store: store, NodeID: 1, Static: static, Rand: func(int) int { return 0 },
		NewID: func() meta.UUID { return meta.UUID{0: 1, 14: byte(ids.Add(1) >> 8), 15: byte(ids.Load())} }})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	if err := ctl.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := ctl.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	env := &Env{NodeID: 1, Image: ctl.Image, Controller: ctl, Static: static, Log: log, Metrics: metric.New(), Clock: time.Now}
	srv := server.New(server.Options{Handler: New(env), Log: log, Metrics: env.Metrics, Listeners: []server.ListenerOptions{{Name: "PLAINTEXT", Listener: ln}}})
	srv.Start()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		ctl.Close()
		store.Close()
	})
	r := &adminRig{client: &client{t: t, c: conn, id: "test"}, ctl: ctl}
	r.epoch = r.broker(ctx, 1, "PLAINTEXT", true)
	return r
}

func (r *adminRig) broker(ctx context.Context, id int32, listener string, unfence bool) int64 {
	r.t.Helper()
	epoch, err := r.ctl.RegisterBroker(ctx, control.Registration{ID: id, Incarnation: meta.UUID{byte(id)}, Rack: "r", PreviousEpoch: -1,
		Endpoints: []meta.Endpoint{{Listener: listener, Host: fmt.Sprintf("b%d.example", id), Port: 9092}}})
	if err == nil && unfence {
		err = r.ctl.UnfenceBroker(ctx, id, epoch)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return epoch
}

func (r *adminRig) ask(req kmsg.Request, version int16) kmsg.Response {
	r.t.Helper()
	req.SetVersion(version)
	return r.do(req)
}

func (r *adminRig) is(what string, got int16, want *kerr.Error) {
	r.t.Helper()
	code := int16(0)
	if want != nil {
		code = want.Code
	}
	if got != code {
		r.t.Errorf("%s: %v, want %v", what, kerr.ErrorForCode(got), want)
	}
}

func newCreate(name string, n int32, f int16, cfg ...string) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, n, f
	for i := 0; i+1 < len(cfg); i += 2 {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = cfg[i], &cfg[i+1]
		t.Configs = append(t.Configs, c)
	}
	req.Topics = append(req.Topics, t)
	req.TimeoutMillis = 10_000
	return req
}

func (r *adminRig) create(name string, n int32) meta.UUID {
	r.t.Helper()
	t := r.ask(newCreate(name, n, 1), 7).(*kmsg.CreateTopicsResponse).Topics[0]
	r.is("create "+name, t.ErrorCode, nil)
	return t.TopicID
}

func TestTopicLifeAtEveryVersion(t *testing.T) {
	r := startAdmin(t, nil)
	for v := int16(2); v <= 7; v++ {
		name := fmt.Sprintf("v%d", v)
		got := r.ask(newCreate(name, 2, -1, "retention.ms", "1000"), v).(*kmsg.CreateTopicsResponse).Topics[0]
		r.is("create", got.ErrorCode, nil)
		if v >= 5 && (got.NumPartitions != 2 || got.ReplicationFactor != 1 || len(got.Configs) < 30) {
			t.Errorf("version %d: %+v", v, got)
		}
		if (v >= 7) == (meta.UUID(got.TopicID) == meta.UUID{}) {
			t.Errorf("version %d: topic id %v", v, got.TopicID)
		}
		again := r.ask(newCreate(name, 2, 1), v).(*kmsg.CreateTopicsResponse).Topics[0]
		r.is("create again", again.ErrorCode, kerr.TopicAlreadyExists)
		if again.ErrorMessage == nil || !strings.Contains(*again.ErrorMessage, "already exists") {
			t.Errorf("message: %v", again.ErrorMessage)
		}
	}
	for v := int16(0); v <= 3; v++ {
		req := kmsg.NewPtrCreatePartitionsRequest()
		for i, n := range []int32{int32(v) + 3, 1, math.MaxInt32} {
			pt := kmsg.NewCreatePartitionsRequestTopic()
			pt.Topic, pt.Count = fmt.Sprintf("v%d", 2+i), n
			req.Topics = append(req.Topics, pt)
		}
		got := r.ask(req, v).(*kmsg.CreatePartitionsResponse).Topics
		for i := range got { // one request asks for far too many: nothing of it is done
			r.is("grow beyond all bounds", got[i].ErrorCode, kerr.PolicyViolation)
		}
		req.Topics = req.Topics[:2]
		got = r.ask(req, v).(*kmsg.CreatePartitionsResponse).Topics
		r.is("grow", got[0].ErrorCode, nil)
		r.is("shrink", got[1].ErrorCode, kerr.InvalidPartitions)
		if got[1].ErrorMessage == nil || !strings.Contains(*got[1].ErrorMessage, "only be added") {
			t.Errorf("message: %v", got[1].ErrorMessage)
		}
		if n := len(r.ctl.Image().Topic("v2").Partitions); n != int(v)+3 {
			t.Errorf("%d partitions", n)
		}
	}
	for v := int16(1); v <= 6; v++ {
		name := fmt.Sprintf("d%d", v)
		id := r.create(name, 1)
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.TopicNames = []string{name, "nope"}
		if v == 6 {
			byID, unknown, both := kmsg.NewDeleteTopicsRequestTopic(), kmsg.NewDeleteTopicsRequestTopic(), kmsg.NewDeleteTopicsRequestTopic()
			byID.TopicID, unknown.TopicID, both.TopicID, both.Topic = id, [16]byte{9}, id, &name
			req.Topics = []kmsg.DeleteTopicsRequestTopic{both, unknown, byID}
			got := r.ask(req, v).(*kmsg.DeleteTopicsResponse).Topics
			r.is("name and id", got[0].ErrorCode, kerr.InvalidRequest)
			r.is("unknown id", got[1].ErrorCode, kerr.UnknownTopicID)
			r.is("by id", got[2].ErrorCode, nil)
			if got[1].Topic != nil || got[2].Topic == nil || *got[2].Topic != name {
				t.Errorf("names: %v %v", got[1].Topic, got[2].Topic)
			}
		} else {
			got := r.ask(req, v).(*kmsg.DeleteTopicsResponse).Topics
			r.is("delete", got[0].ErrorCode, nil)
			r.is("delete nothing", got[1].ErrorCode, kerr.UnknownTopicOrPartition)
		}
		if r.ctl.Image().Topic(name) != nil {
			t.Errorf("version %d: %s is still there", v, name)
		}
	}
}

func TestHostileTopicsAreRefusedAtOnce(t *testing.T) {
	r := startAdmin(t, nil)
	for _, c := range []struct {
		req  *kmsg.CreateTopicsRequest
		want *kerr.Error
	}{
		{newCreate("../x", 1, 1), kerr.InvalidTopicException},
		{newCreate("", 1, 1), kerr.InvalidTopicException},
		{newCreate(strings.Repeat("a", 250), 1, 1), kerr.InvalidTopicException},
		{newCreate(strings.Repeat("a/", 1<<19), 1, 1), kerr.InvalidTopicException},
		{newCreate("huge", math.MaxInt32, 1), kerr.PolicyViolation},
		{newCreate("wide", 1, math.MaxInt16), kerr.InvalidReplicationFactor},
		{newCreate("odd", 1, 1, "no.such", "1"), kerr.InvalidConfig},
		{newCreate("odd", 1, 1, "retention.ms", "1", "retention.ms", "2"), kerr.InvalidConfig},
	} {
		got := r.ask(c.req, 7).(*kmsg.CreateTopicsResponse).Topics
		r.is(fmt.Sprintf("%.20q", c.req.Topics[0].Topic), got[0].ErrorCode, c.want)
	}
	twice := newCreate("hand", -1, -1)
	for range 2 {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = 0, []int32{1}
		twice.Topics[0].ReplicaAssignment = append(twice.Topics[0].ReplicaAssignment, a)
	}
	r.is("assigned twice", r.ask(twice, 7).(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode, kerr.InvalidReplicaAssignment)
	dry := newCreate("dry", 1, 1)
	dry.ValidateOnly = true
	r.is("validate", r.ask(dry, 7).(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode, nil)
	if n := r.ctl.Image().NumTopics(); n != 0 {
		t.Errorf("%d topics came of it", n)
	}
}

func newMetadata(auto bool, names ...string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = auto
	req.Topics = []kmsg.MetadataRequestTopic{}
	for _, n := range names {
		mt := kmsg.NewMetadataRequestTopic()
		mt.Topic = &n
		req.Topics = append(req.Topics, mt)
	}
	return req
}

func TestMetadataAtEveryVersion(t *testing.T) {
	r := startAdmin(t, map[string]string{"num.partitions": "2"})
	ctx := context.Background()
	id := r.create("t", 3)
	for v := int16(0); v <= 13; v++ {
		all := newMetadata(false)
		if all.Topics = nil; v == 0 {
			all.Topics = []kmsg.MetadataRequestTopic{}
		}
		all.IncludeTopicAuthorizedOperations = v >= 8
		m := r.ask(all, v).(*kmsg.MetadataResponse)
		if len(m.Brokers) != 1 || m.Brokers[0].Host != "b1.example" || len(m.Topics) < 1 {
			t.Fatalf("version %d: %+v", v, m)
		}
		if v >= 2 && (m.ClusterID == nil || *m.ClusterID != r.ctl.Image().ClusterID()) || v >= 1 && m.ControllerID != 1 {
			t.Errorf("version %d: cluster %v, controller %d", v, m.ClusterID, m.ControllerID)
		}
		if v >= 1 {
			if got := r.ask(newMetadata(false), v).(*kmsg.MetadataResponse); len(got.Topics) != 0 {
				t.Errorf("version %d: an empty list gave %d topics", v, len(got.Topics))
			}
		}
		mt := r.ask(newMetadata(false, "t", "t"), v).(*kmsg.MetadataResponse).Topics
		if len(mt) != 1 || *mt[0].Topic != "t" || len(mt[0].Partitions) != 3 || mt[0].Partitions[2].Leader != 1 || v >= 10 && mt[0].TopicID != id {
			t.Errorf("version %d: %+v", v, mt)
		}
		if v >= 4 {
			no := r.ask(newMetadata(false, fmt.Sprintf("no%d", v)), v).(*kmsg.MetadataResponse).Topics[0]
			r.is("creation forbidden", no.ErrorCode, kerr.UnknownTopicOrPartition)
		}
		auto := r.ask(newMetadata(true, fmt.Sprintf("auto%d", v), "bad/name"), v).(*kmsg.MetadataResponse).Topics
		r.is("created on first use", auto[0].ErrorCode, nil)
		r.is("bad name", auto[1].ErrorCode, kerr.InvalidTopicException)
		if len(auto[0].Partitions) != 2 {
			t.Errorf("version %d: %+v", v, auto[0])
		}
		if v >= 12 {
			byID := newMetadata(true)
			for _, u := range [][16]byte{id, {9}} {
				mt := kmsg.NewMetadataRequestTopic()
				mt.TopicID = u
				byID.Topics = append(byID.Topics, mt)
			}
			got := r.ask(byID, v).(*kmsg.MetadataResponse).Topics
			r.is("by id", got[0].ErrorCode, nil)
			r.is("unknown id", got[1].ErrorCode, kerr.UnknownTopicID)
			if got[0].Topic == nil || *got[0].Topic != "t" || got[1].Topic != nil {
				t.Errorf("version %d: names %v %v", v, got[0].Topic, got[1].Topic)
			}
		}
	}
	// A fenced broker is not shown, and what it leads has no leader; one without our listener neither.
	r.broker(ctx, 2, "PLAINTEXT", true)
	r.broker(ctx, 3, "OTHER", true)
	hand := newCreate("hand", -1, -1)
	for n, b := range []int32{2, 3} {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = int32(n), []int32{b}
		hand.Topics[0].ReplicaAssignment = append(hand.Topics[0].ReplicaAssignment, a)
	}
	r.is("by hand", r.ask(hand, 7).(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode, nil)
	r.broker(ctx, 2, "PLAINTEXT", false) // it starts again, fenced
	m := r.ask(newMetadata(false, "hand"), 12).(*kmsg.MetadataResponse)
	p := m.Topics[0].Partitions
	if len(m.Brokers) != 1 || p[0].Leader != -1 || len(p[0].OfflineReplicas) != 1 || p[1].Leader != -1 {
		t.Errorf("%+v", m)
	}
	r.is("fenced leader", p[0].ErrorCode, kerr.LeaderNotAvailable)
	r.is("unreachable leader", p[1].ErrorCode, kerr.ListenerNotFound)
	old := r.ask(newMetadata(false, "hand"), 5).(*kmsg.MetadataResponse)
	r.is("unreachable leader for an old client", old.Topics[0].Partitions[1].ErrorCode, kerr.LeaderNotAvailable)
	for v := int16(0); v <= 2; v++ {
		req := kmsg.NewPtrDescribeClusterRequest()
		req.EndpointType, req.IncludeFencedBrokers, req.IncludeClusterAuthorizedOperations = 1, true, true
		got := r.ask(req, v).(*kmsg.DescribeClusterResponse)
		if want := map[int16]int{0: 1, 1: 1, 2: 2}[v]; len(got.Brokers) != want || got.ClusterID == "" || got.ControllerID != 1 {
			t.Errorf("version %d: %+v", v, got)
		}
		if req.EndpointType = 2; v >= 1 {
			r.is("controllers", r.ask(req, v).(*kmsg.DescribeClusterResponse).ErrorCode, kerr.MismatchedEndpointType)
		}
	}
}

func TestAutoCreationCanBeSwitchedOff(t *testing.T) {
	r := startAdmin(t, map[string]string{"auto.create.topics.enable": "false", "delete.topic.enable": "false"})
	r.is("auto", r.ask(newMetadata(true, "t"), 12).(*kmsg.MetadataResponse).Topics[0].ErrorCode, kerr.UnknownTopicOrPartition)
	r.create("t", 1)
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TopicNames = []string{"t"}
	r.is("delete", r.ask(req, 5).(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode, kerr.TopicDeletionDisabled)
	r.is("delete by an old client", r.ask(req, 2).(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode, kerr.InvalidRequest)
}

func resource(t int8, name string) kmsg.DescribeConfigsRequestResource {
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceType(t), name
	return r
}

func TestConfigsAtEveryVersion(t *testing.T) {
	r := startAdmin(t, map[string]string{"log.retention.ms": "5000"})
	r.create("t", 1)
	for v := int16(0); v <= 1; v++ {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		for _, n := range []string{"t", "nope"} {
			res := kmsg.NewIncrementalAlterConfigsRequestResource()
			res.ResourceType, res.ResourceName = 2, n
			c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			c.Name, c.Value = "cleanup.policy", kmsg.StringPtr("compact")
			res.Configs = append(res.Configs, c)
			req.Resources = append(req.Resources, res)
		}
		got := r.ask(req, v).(*kmsg.IncrementalAlterConfigsResponse).Resources
		r.is("alter", got[0].ErrorCode, nil)
		r.is("alter nothing", got[1].ErrorCode, kerr.UnknownTopicOrPartition)
	}
	for v := int16(1); v <= 4; v++ {
		req := kmsg.NewPtrDescribeConfigsRequest()
		req.IncludeSynonyms, req.IncludeDocumentation = true, true
		one := resource(2, "t")
		one.ConfigNames = []string{"cleanup.policy", "retention.ms"}
		req.Resources = []kmsg.DescribeConfigsRequestResource{one, resource(2, "nope"), resource(4, "1"), resource(4, "2"), resource(4, ""), resource(8, "1"), resource(32, "g"), resource(16, "m"), resource(99, "x")}
		got := r.ask(req, v).(*kmsg.DescribeConfigsResponse).Resources
		for i, want := range []*kerr.Error{nil, kerr.UnknownTopicOrPartition, nil, kerr.InvalidRequest, nil, nil, nil, nil, kerr.InvalidRequest} {
			r.is(fmt.Sprintf("resource %d", i), got[i].ErrorCode, want)
		}
		if c := got[0].Configs; len(c) != 2 || c[0].Name != "cleanup.policy" || *c[0].Value != "compact" || c[0].Source != 1 || len(c[0].ConfigSynonyms) < 2 ||
			*c[1].Value != "5000" || c[1].Source != 4 || v >= 3 && (c[0].Documentation == nil || c[0].ConfigType != 7) {
			t.Errorf("version %d: %+v", v, c)
		}
		names := map[string]bool{}
		for _, c := range got[2].Configs {
			names[c.Name] = true
		}
		for _, n := range []string{"num.partitions", "default.replication.factor", "auto.create.topics.enable"} { // Connect and others insist
			if !names[n] {
				t.Errorf("version %d: broker has no %s", v, n)
			}
		}
		if len(got[4].Configs) != 1 || // min.insync.replicas: with ELR there is one value for all brokers
			len(got[5].Configs) != 1 || len(got[6].Configs) == 0 || len(got[7].Configs) == 0 {
			t.Errorf("version %d: %d of default, %d of logger, %d of group, %d of client metrics", v, len(got[4].Configs), len(got[5].Configs), len(got[6].Configs), len(got[7].Configs))
		}
	}
	for v := int16(0); v <= 2; v++ {
		req := kmsg.NewPtrAlterConfigsRequest()
		res := kmsg.NewAlterConfigsRequestResource()
		res.ResourceType, res.ResourceName = 2, "t"
		c := kmsg.NewAlterConfigsRequestResourceConfig()
		c.Name, c.Value = "retention.ms", kmsg.StringPtr("7")
		res.Configs = append(res.Configs, c)
		req.Resources = append(req.Resources, res)
		r.is("replace", r.ask(req, v).(*kmsg.AlterConfigsResponse).Resources[0].ErrorCode, nil)
	}
	if m := r.ctl.Image().Config(meta.Resource{Type: meta.ResourceTopic, Name: "t"}); len(m) != 1 || m["retention.ms"] != "7" {
		t.Errorf("after replacing: %v", m)
	}
}

func TestListConfigResources(t *testing.T) {
	r := startAdmin(t, nil)
	r.create("t", 1)
	list := func(v int16, types ...int8) *kmsg.ListConfigResourcesResponse {
		req := kmsg.NewPtrListConfigResourcesRequest()
		req.ResourceTypes = types
		return r.ask(req, v).(*kmsg.ListConfigResourcesResponse)
	}
	if got := list(0); got.ErrorCode != 0 || len(got.ConfigResources) != 0 {
		t.Errorf("version 0: %+v", got)
	}
	if got := list(1); len(got.ConfigResources) != 3 { // t, broker 1, its logger
		t.Errorf("all: %+v", got)
	}
	if got := list(1, 2, 2); len(got.ConfigResources) != 1 || got.ConfigResources[0].Name != "t" {
		t.Errorf("topics: %+v", got)
	}
	r.is("unknown type", list(1, 77).ErrorCode, kerr.UnsupportedVersion)
}

func TestTopicPartitionsPageByPage(t *testing.T) {
	r := startAdmin(t, map[string]string{"max.request.partition.size.limit": "4"})
	for i, n := range []int32{3, 1, 5, 2} {
		r.create(fmt.Sprintf("t%d", i), n)
	}
	for _, limit := range []int32{1, 2, 3, 4, 100, 0, -1} {
		seen := map[string]int{}
		var cur *kmsg.DescribeTopicPartitionsRequestCursor
		for page := 0; ; page++ {
			req := kmsg.NewPtrDescribeTopicPartitionsRequest()
			req.ResponsePartitionLimit, req.Cursor = limit, cur
			got := r.ask(req, 0).(*kmsg.DescribeTopicPartitionsResponse)
			n := 0
			for _, tp := range got.Topics {
				for _, p := range tp.Partitions {
					n++
					if int(p.Partition) != seen[*tp.Topic] {
						t.Fatalf("limit %d: partition %d of %s out of order", limit, p.Partition, *tp.Topic)
					}
					seen[*tp.Topic]++
				}
			}
			if n > 4 || limit > 0 && n > int(limit) || page > 20 {
				t.Fatalf("limit %d: page %d has %d partitions", limit, page, n)
			}
			if got.NextCursor == nil {
				break
			}
			cur = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: got.NextCursor.Topic, Partition: got.NextCursor.Partition}
		}
		if fmt.Sprint(seen) != "map[t0:3 t1:1 t2:5 t3:2]" {
			t.Errorf("limit %d: %v", limit, seen)
		}
	}
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	for _, n := range []string{"nope", "t1", "a/b"} {
		rt := kmsg.NewDescribeTopicPartitionsRequestTopic()
		rt.Topic = n
		req.Topics = append(req.Topics, rt)
	}
	got := r.ask(req, 0).(*kmsg.DescribeTopicPartitionsResponse).Topics
	r.is("a/b", got[0].ErrorCode, kerr.InvalidTopicException)
	r.is("nope", got[1].ErrorCode, kerr.UnknownTopicOrPartition)
	r.is("t1", got[2].ErrorCode, nil)
	req.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: "t1", Partition: -1}
	r.is("bad cursor", r.ask(req, 0).(*kmsg.DescribeTopicPartitionsResponse).Topics[0].ErrorCode, kerr.InvalidRequest)
	req.Cursor.Partition = math.MaxInt32
	r.ask(req, 0)
}
