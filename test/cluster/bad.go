package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const clusterAuthorizationFailed = 31

// bad tries what must be refused while the load goes on: requests between brokers from a client, and brokers that have no place here.
func (x *run) bad() {
	v, err := x.view()
	if err != nil {
		x.r.say(false, "bad-input", "%v", err)
		return
	}
	n := x.c.node(v.leader[0])
	for _, c := range []struct {
		name string
		req  kmsg.Request
	}{
		{"AlterPartition", alterPartition(n.id)},
		{"BrokerRegistration", &kmsg.BrokerRegistrationRequest{Version: 4, BrokerID: 9}},
		{"BrokerHeartbeat", &kmsg.BrokerHeartbeatRequest{Version: 1, BrokerID: n.id, WantFence: true}},
		{"AllocateProducerIds", &kmsg.AllocateProducerIDsRequest{Version: 0, BrokerID: n.id}},
		{"AssignReplicasToDirs", &kmsg.AssignReplicasToDirsRequest{Version: 0, BrokerID: n.id}},
	} {
		code, err := refusal(n.client.real, c.req)
		x.r.say(err == nil && code == clusterAuthorizationFailed, "bad-"+c.name, "from a client: %s %v", errorName(code), err)
	}
	x.badFetch(n)
	x.badBroker("bad-taken-id", func(b *bystander) { b.id = n.id })
	x.badBroker("bad-cluster-id", func(b *bystander) { b.foreign = true })
	x.badBroker("bad-address", func(b *bystander) { b.join = "127.0.0.1:1" })
	after, err := x.view()
	same := err == nil
	for p := range v.leader {
		same = same && after.leader[p] == v.leader[p] && after.epoch[p] == v.epoch[p] && len(after.isr[p]) == len(v.isr[p])
	}
	x.r.say(same, "bad-unmoved", "leaders, epochs and in-sync sets are what they were (%v)", err)
}

func alterPartition(id int32) kmsg.Request {
	req := kmsg.NewPtrAlterPartitionRequest()
	req.SetVersion(3)
	req.BrokerID, req.BrokerEpoch = id, 1
	return req
}

// refusal is the error code that a request as a whole is answered with.
func refusal(addr string, req kmsg.Request) (int16, error) {
	conn, err := dialRaw(addr, time.Second)
	if err != nil {
		return 0, err
	}
	defer conn.close()
	resp, err := conn.do(req, 5*time.Second)
	if err != nil {
		return 0, err
	}
	switch r := resp.(type) {
	case *kmsg.AlterPartitionResponse:
		return r.ErrorCode, nil
	case *kmsg.BrokerRegistrationResponse:
		return r.ErrorCode, nil
	case *kmsg.BrokerHeartbeatResponse:
		return r.ErrorCode, nil
	case *kmsg.AllocateProducerIDsResponse:
		return r.ErrorCode, nil
	case *kmsg.AssignReplicasToDirsResponse:
		return r.ErrorCode, nil
	case *kmsg.FetchResponse:
		code := r.ErrorCode
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				code = max(code, p.ErrorCode)
			}
		}
		return code, nil
	}
	return 0, fmt.Errorf("answered by a %T", resp)
}

// badFetch pretends to be a follower that has everything: a high watermark that followed would show what is on one disk only.
func (x *run) badFetch(n *node) {
	for _, version := range []int16{6, 12, 16} {
		req := kmsg.NewPtrFetchRequest()
		req.SetVersion(version)
		req.ReplicaID, req.SessionEpoch, req.MaxBytes = -1, -1, 1<<20
		if version < 15 {
			req.ReplicaID = n.id%3 + 1
		} else {
			req.ReplicaState.ID, req.ReplicaState.Epoch = n.id%3+1, 1
		}
		code, err := refusal(n.client.real, withPartition(req, n))
		x.r.say(err == nil && code == clusterAuthorizationFailed, fmt.Sprintf("bad-Fetch-%d", version), "of a follower, from a client: %s %v", errorName(code), err)
	}
}

func withPartition(req *kmsg.FetchRequest, n *node) kmsg.Request {
	t := kmsg.NewFetchRequestTopic()
	t.Topic = topic
	if req.Version >= 13 { // by id there
		m := kmsg.NewPtrMetadataRequest()
		mt := kmsg.NewMetadataRequestTopic()
		mt.Topic = kmsg.StringPtr(topic)
		m.Topics = append(m.Topics, mt)
		if resp, err := ask[*kmsg.MetadataResponse](n.client.real, m, 12, time.Second); err == nil && len(resp.Topics) == 1 {
			t.TopicID = resp.Topics[0].TopicID
		}
	}
	p := kmsg.NewFetchRequestTopicPartition()
	p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = 1<<40, 1<<20, -1
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return req
}

// bystander is a broker that wants to take part and must not.
type bystander struct {
	id      int32
	join    string
	foreign bool // its data belongs to another cluster
}

// badBroker starts one more broker, which has to end by itself with one line that says why.
func (x *run) badBroker(name string, change func(*bystander)) {
	b := bystander{id: 9, join: x.c.node(1).peer.real + "," + x.c.node(2).peer.real}
	change(&b)
	dir := filepath.Join(x.c.work, name)
	os.MkdirAll(dir, 0o755)
	n := &node{id: b.id, dir: dir, data: filepath.Join(dir, "data"), conf: filepath.Join(dir, "server.properties"), bin: x.s.bin}
	client, err := freePort(host(9))
	if err == nil {
		n.peer.real, err = freePort(host(9))
	}
	if err != nil {
		x.r.say(false, name, "%v", err)
		return
	}
	base := fmt.Sprintf("node.id=%d\nlisteners=PLAINTEXT://%s\nlog.dirs=%s\ninitial.broker.registration.timeout.ms=6000\n", b.id, client, n.data)
	if b.foreign { // a lone broker first, which makes a cluster of its own
		os.WriteFile(n.conf, []byte(base), 0o644)
		if err = n.launch(); err == nil {
			_, err = n.ready(startLimit)
		}
		if err == nil {
			_, err = n.stop(stopLimit)
		}
		if err != nil {
			x.r.say(false, name, "%v", err)
			return
		}
	}
	os.WriteFile(n.conf, []byte(base+fmt.Sprintf("join=%s\npeer.listener=%s\n", b.join, n.peer.real)), 0o644)
	begin := time.Now()
	if err := n.launch(); err != nil {
		x.r.say(false, name, "%v", err)
		return
	}
	defer n.kill()
	select {
	case <-n.exited:
	case <-time.After(25 * time.Second):
		x.r.say(false, name, "it runs on after 25 s: %s", n.tail())
		return
	}
	code, last := n.cmd.ProcessState.ExitCode(), ""
	for line := range strings.Lines(n.said()) {
		if strings.HasPrefix(line, "milena: ") {
			last = strings.TrimSpace(line)
		}
	}
	x.r.say(code != 0 && last != "" && !strings.Contains(n.said(), readyLine), name, "ended with status %d after %.1f s: %s", code, time.Since(begin).Seconds(), last)
}
