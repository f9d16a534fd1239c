// Package admintest owns a cluster for tests of operators' commands: several brokers that answer about
// themselves and move replicas as told, over the Kafka protocol.
//
// It never keeps a record: topics are only their partitions, replicas and sizes.
//
// A test makes a Cluster and changes it by its methods at any time; kfake's goroutines serve it and end with
// the test.
//
// Invariants: data that moves arrives only when somebody looks, a few partitions at each look, so that tests
// never wait for time to pass; what was asked of it is in Asked, in order.
//
// Read cluster.go.
package admintest

import (
	"fmt"
	"net"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Cluster is the model. Broker i of New has id i+1.
type Cluster struct {
	k     *kfake.Cluster
	Pace  int    // partitions whose data arrives at each look; 0: all
	Store string // where the metadata lies, if not in the brokers: the value of coordinator

	mu      sync.Mutex
	brokers []*Broker
	topics  map[string][]*Partition
	configs map[string]map[string]string // "topic letters" or "broker 1"
	voters  []int32
	leader  int32
	peers   map[int32]string
	asked   []string
	refuse  map[string]*kerr.Error // what to answer to a move of topic-partition
}

// Broker is one broker.
type Broker struct {
	ID     int32
	Rack   string
	Fenced bool
	Broken bool // its directory is offline
	addr   string
}

// Partition is one partition. Size is of each replica.
type Partition struct {
	Replicas, ISR, ELR []int32
	Leader, Epoch      int32
	Size               int64
	adding, removing   []int32
}

// New makes brokers 1..n, all up, in racks r1, r2, ... taken in turn (0: none), the first of them controller
// and the first three voters.
func New(t testing.TB, n, racks int) *Cluster {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(n), kfake.SleepOutOfOrder())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	c := &Cluster{k: k, topics: map[string][]*Partition{}, configs: map[string]map[string]string{}, leader: 1, peers: map[int32]string{}, refuse: map[string]*kerr.Error{}}
	for i, addr := range k.ListenAddrs() {
		b := &Broker{ID: int32(i + 1), addr: addr}
		if racks > 0 {
			b.Rack = fmt.Sprint("r", i%racks+1)
		}
		c.brokers = append(c.brokers, b)
		if i < 3 {
			c.voters = append(c.voters, b.ID)
			c.peers[b.ID] = fmt.Sprintf("10.0.0.%d:9094", b.ID)
		}
	}
	k.Control(func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		resp, err := c.answer(int32(k.CurrentNode()+1), req)
		return resp, err, true
	})
	return c
}

// Addrs are the addresses of all brokers.
func (c *Cluster) Addrs() []string { return c.k.ListenAddrs() }

// Change lets f change the model.
func (c *Cluster) Change(f func(c *Cluster)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
}

// Broker is for use within Change. One that is not there is an empty one that nobody else sees.
func (c *Cluster) Broker(id int32) *Broker {
	for _, b := range c.brokers {
		if b.ID == id {
			return b
		}
	}
	return &Broker{ID: id}
}

// Part is for use within Change.
func (c *Cluster) Part(topic string, n int) *Partition { return c.topics[topic][n] }

// Refuse lets moves of a partition be refused from now on.
func (c *Cluster) Refuse(topic string, n int, e *kerr.Error) {
	c.Change(func(c *Cluster) { c.refuse[fmt.Sprintf("%s-%d", topic, n)] = e })
}

// Topic makes a topic, one partition for each list of replicas, all of them in sync, size bytes each.
func (c *Cluster) Topic(name string, size int64, replicas ...[]int32) {
	c.Change(func(c *Cluster) {
		for _, r := range replicas {
			c.topics[name] = append(c.topics[name], &Partition{Replicas: r, ISR: slices.Clone(r), Leader: r[0], Size: size})
		}
	})
}

// Stop fences a broker: it leaves the in-sync sets, and partitions it led get another leader or none.
func (c *Cluster) Stop(id int32) {
	c.Change(func(c *Cluster) {
		c.Broker(id).Fenced = true
		for _, ps := range c.topics {
			for _, p := range ps {
				p.ISR = slices.DeleteFunc(p.ISR, func(r int32) bool { return r == id })
				if p.Leader == id {
					p.Leader, p.Epoch = -1, p.Epoch+1
					if len(p.ISR) > 0 {
						p.Leader = p.ISR[0]
					} else {
						p.ELR = []int32{id}
					}
				}
			}
		}
	})
}

// Asked is what changes were asked for, one line each, and forgets them.
func (c *Cluster) Asked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.asked
	c.asked = nil
	return out
}

// Configs is the dynamic values of everything, one line each.
func (c *Cluster) Configs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for r, m := range c.configs {
		for k, v := range m {
			out = append(out, r+" "+k+"="+v)
		}
	}
	sort.Strings(out)
	return out
}

// Placed is the replicas of a topic's partitions, as text.
func (c *Cluster) Placed(topic string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, p := range c.topics[topic] {
		out = append(out, fmt.Sprint(p.Replicas))
	}
	return strings.Join(out, " ")
}

func (c *Cluster) note(format string, args ...any) {
	c.asked = append(c.asked, fmt.Sprintf(format, args...))
}

// served is what ApiVersions names.
var served = []int16{3, 18, 32, 35, 43, 44, 45, 46, 55, 60, 64, 75, 80, 81}

func (c *Cluster) answer(node int32, req kmsg.Request) (kmsg.Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	resp := req.ResponseKind()
	switch r := req.(type) {
	case *kmsg.ApiVersionsRequest:
		out := resp.(*kmsg.ApiVersionsResponse)
		for _, key := range served {
			x := kmsg.NewApiVersionsResponseApiKey()
			x.ApiKey, x.MaxVersion = key, kmsg.RequestForKey(key).MaxVersion()
			out.ApiKeys = append(out.ApiKeys, x)
		}
	case *kmsg.MetadataRequest:
		c.metadata(r, resp.(*kmsg.MetadataResponse))
	case *kmsg.DescribeClusterRequest:
		c.describeCluster(r, resp.(*kmsg.DescribeClusterResponse))
	case *kmsg.DescribeTopicPartitionsRequest:
		c.describePartitions(r, resp.(*kmsg.DescribeTopicPartitionsResponse))
	case *kmsg.DescribeLogDirsRequest:
		c.describeDirs(node, resp.(*kmsg.DescribeLogDirsResponse))
	case *kmsg.DescribeConfigsRequest:
		c.describeConfigs(r, resp.(*kmsg.DescribeConfigsResponse))
	case *kmsg.IncrementalAlterConfigsRequest:
		c.alterConfigs(r, resp.(*kmsg.IncrementalAlterConfigsResponse))
	case *kmsg.AlterPartitionAssignmentsRequest:
		c.reassign(r, resp.(*kmsg.AlterPartitionAssignmentsResponse))
	case *kmsg.ListPartitionReassignmentsRequest:
		c.reassigning(resp.(*kmsg.ListPartitionReassignmentsResponse))
	case *kmsg.ElectLeadersRequest:
		c.elect(r, resp.(*kmsg.ElectLeadersResponse))
	case *kmsg.DescribeQuorumRequest:
		c.describeQuorum(resp.(*kmsg.DescribeQuorumResponse))
	case *kmsg.UnregisterBrokerRequest:
		c.unregister(r, resp.(*kmsg.UnregisterBrokerResponse))
	case *kmsg.AddRaftVoterRequest:
		c.note("add voter %d at %s:%d", r.VoterID, r.Listeners[0].Host, r.Listeners[0].Port)
		c.voters = append(c.voters, r.VoterID)
		c.peers[r.VoterID] = net.JoinHostPort(r.Listeners[0].Host, strconv.Itoa(int(r.Listeners[0].Port)))
	case *kmsg.RemoveRaftVoterRequest:
		c.removeVoter(r, resp.(*kmsg.RemoveRaftVoterResponse))
	default:
		return nil, fmt.Errorf("request %T is not served", req)
	}
	return resp, nil
}

func host(b *Broker) (string, int32) {
	h, p, _ := net.SplitHostPort(b.addr)
	n, _ := strconv.Atoi(p)
	return h, int32(n)
}

func (c *Cluster) names() []string {
	var out []string
	for t := range c.topics {
		out = append(out, t)
	}
	sort.Strings(out)
	return out
}

func topicID(name string) (id [16]byte) {
	copy(id[:], name)
	return id
}
