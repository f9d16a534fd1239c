package admintest

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const clusterID = "MkU3OEVBNTcwNTJENDM2Q"

func (c *Cluster) metadata(r *kmsg.MetadataRequest, out *kmsg.MetadataResponse) {
	out.ClusterID, out.ControllerID = kmsg.StringPtr(clusterID), c.controller()
	for _, b := range c.brokers {
		if b.Fenced {
			continue
		}
		x := kmsg.NewMetadataResponseBroker()
		x.NodeID, x.Rack = b.ID, &b.Rack
		x.Host, x.Port = host(b)
		out.Brokers = append(out.Brokers, x)
	}
	names := c.names()
	if r.Topics != nil {
		names = nil
		for _, t := range r.Topics {
			if t.Topic != nil {
				names = append(names, *t.Topic)
			}
		}
	}
	for _, name := range names {
		t := kmsg.NewMetadataResponseTopic()
		t.Topic, t.TopicID = kmsg.StringPtr(name), topicID(name)
		ps, ok := c.topics[name]
		if !ok {
			t.ErrorCode = kerr.UnknownTopicOrPartition.Code
		}
		for n, p := range ps {
			x := kmsg.NewMetadataResponseTopicPartition()
			x.Partition, x.Leader, x.LeaderEpoch, x.Replicas, x.ISR = int32(n), p.Leader, p.Epoch, p.Replicas, p.ISR
			t.Partitions = append(t.Partitions, x)
		}
		out.Topics = append(out.Topics, t)
	}
}

// controller is the first broker that is up.
func (c *Cluster) controller() int32 {
	for _, b := range c.brokers {
		if !b.Fenced {
			return b.ID
		}
	}
	return -1
}

func (c *Cluster) describeCluster(r *kmsg.DescribeClusterRequest, out *kmsg.DescribeClusterResponse) {
	out.ClusterID, out.ControllerID = clusterID, c.controller()
	for _, b := range c.brokers {
		if b.Fenced && !r.IncludeFencedBrokers {
			continue
		}
		x := kmsg.NewDescribeClusterResponseBroker()
		x.NodeID, x.Rack, x.IsFenced = b.ID, &b.Rack, b.Fenced
		x.Host, x.Port = host(b)
		out.Brokers = append(out.Brokers, x)
	}
}

// page is small, so that every test reads several.
const page = 5

func (c *Cluster) describePartitions(r *kmsg.DescribeTopicPartitionsRequest, out *kmsg.DescribeTopicPartitionsResponse) {
	names := c.names()
	if len(r.Topics) > 0 {
		names = nil
		for _, t := range r.Topics {
			names = append(names, t.Topic)
		}
	}
	slices.Sort(names)
	n := 0
	for _, name := range names {
		from := 0
		if r.Cursor != nil {
			if name < r.Cursor.Topic {
				continue
			}
			if name == r.Cursor.Topic {
				from = int(r.Cursor.Partition)
			}
		}
		t := kmsg.NewDescribeTopicPartitionsResponseTopic()
		t.Topic, t.TopicID = kmsg.StringPtr(name), topicID(name)
		ps, ok := c.topics[name]
		if !ok {
			t.ErrorCode = kerr.UnknownTopicOrPartition.Code
		}
		for i := from; i < len(ps); i++ {
			if n++; n > page {
				next := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
				next.Topic, next.Partition = name, int32(i)
				out.NextCursor = &next
				out.Topics = append(out.Topics, t)
				return
			}
			p := ps[i]
			x := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
			x.Partition, x.LeaderID, x.LeaderEpoch, x.Replicas, x.ISR, x.EligibleLeaderReplicas = int32(i), p.Leader, p.Epoch, p.Replicas, p.ISR, p.ELR
			t.Partitions = append(t.Partitions, x)
		}
		out.Topics = append(out.Topics, t)
	}
}

func (c *Cluster) describeDirs(node int32, out *kmsg.DescribeLogDirsResponse) {
	d := kmsg.NewDescribeLogDirsResponseDir()
	d.Dir, d.TotalBytes, d.UsableBytes = "/var/lib/milena", 1<<40, 1<<39
	if c.Broker(node).Broken {
		d.ErrorCode = kerr.KafkaStorageError.Code
		out.Dirs = append(out.Dirs, d)
		return
	}
	for _, name := range c.names() {
		t := kmsg.NewDescribeLogDirsResponseDirTopic()
		t.Topic = name
		for n, p := range c.topics[name] {
			if !slices.Contains(p.Replicas, node) {
				continue
			}
			x := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
			x.Partition, x.Size = int32(n), p.Size
			if slices.Contains(p.adding, node) {
				x.Size = p.Size / 2
			}
			t.Partitions = append(t.Partitions, x)
		}
		d.Topics = append(d.Topics, t)
	}
	out.Dirs = append(out.Dirs, d)
}

func resource(t kmsg.ConfigResourceType, name string) string {
	if t == kmsg.ConfigResourceTypeTopic {
		return "topic " + name
	}
	return "broker " + name
}

// defaults are the values of topics that set none.
var defaults = map[string]string{"min.insync.replicas": "2", "leader.replication.throttled.replicas": "", "follower.replication.throttled.replicas": ""}

func (c *Cluster) describeConfigs(r *kmsg.DescribeConfigsRequest, out *kmsg.DescribeConfigsResponse) {
	for _, x := range r.Resources {
		y := kmsg.NewDescribeConfigsResponseResource()
		y.ResourceType, y.ResourceName = x.ResourceType, x.ResourceName
		names := x.ConfigNames
		if names == nil {
			for k := range defaults {
				names = append(names, k)
			}
			slices.Sort(names)
		}
		for _, k := range names {
			z := kmsg.NewDescribeConfigsResponseResourceConfig()
			z.Name, z.Value, z.Source = k, kmsg.StringPtr(defaults[k]), kmsg.ConfigSourceDefaultConfig
			if k == "coordinator" {
				z.Value = &c.Store
			}
			if v, ok := c.configs[resource(x.ResourceType, x.ResourceName)][k]; ok {
				z.Value, z.Source = &v, kmsg.ConfigSourceDynamicTopicConfig
			}
			y.Configs = append(y.Configs, z)
		}
		out.Resources = append(out.Resources, y)
	}
}

func (c *Cluster) alterConfigs(r *kmsg.IncrementalAlterConfigsRequest, out *kmsg.IncrementalAlterConfigsResponse) {
	for _, x := range r.Resources {
		y := kmsg.NewIncrementalAlterConfigsResponseResource()
		y.ResourceType, y.ResourceName = x.ResourceType, x.ResourceName
		name := resource(x.ResourceType, x.ResourceName)
		if _, ok := c.topics[x.ResourceName]; !ok && x.ResourceType == kmsg.ConfigResourceTypeTopic {
			y.ErrorCode = kerr.UnknownTopicOrPartition.Code
		} else if c.configs[name] == nil {
			c.configs[name] = map[string]string{}
		}
		for _, k := range x.Configs {
			switch {
			case y.ErrorCode != 0:
			case k.Op == kmsg.IncrementalAlterConfigOpDelete:
				delete(c.configs[name], k.Name)
				c.note("unset %s %s", name, k.Name)
			default:
				c.configs[name][k.Name] = *k.Value
				c.note("set %s %s=%s", name, k.Name, *k.Value)
			}
		}
		out.Resources = append(out.Resources, y)
	}
}

func (c *Cluster) reassign(r *kmsg.AlterPartitionAssignmentsRequest, out *kmsg.AlterPartitionAssignmentsResponse) {
	for _, t := range r.Topics {
		rt := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		rt.Topic = t.Topic
		for _, x := range t.Partitions {
			rp := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			rp.Partition = x.Partition
			e := c.refuse[fmt.Sprintf("%s-%d", t.Topic, x.Partition)]
			if ps := c.topics[t.Topic]; e == nil && (x.Partition < 0 || int(x.Partition) >= len(ps)) {
				e = kerr.UnknownTopicOrPartition
			} else if e == nil {
				e = c.move(ps[x.Partition], x.Replicas)
			}
			if e != nil {
				rp.ErrorCode, rp.ErrorMessage = e.Code, &e.Description
			} else {
				c.note("move %s-%d to %v", t.Topic, x.Partition, x.Replicas)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		out.Topics = append(out.Topics, rt)
	}
}

// move begins, or with nil takes back, what KIP-455 says.
func (c *Cluster) move(p *Partition, target []int32) *kerr.Error {
	before := slices.DeleteFunc(slices.Clone(p.Replicas), func(r int32) bool { return slices.Contains(p.adding, r) })
	if target == nil {
		if len(p.adding)+len(p.removing) == 0 {
			return kerr.NoReassignmentInProgress
		}
		p.Replicas, p.adding, p.removing = before, nil, nil
		return nil
	}
	p.Replicas, p.adding, p.removing = slices.Clone(target), nil, nil
	for _, r := range target {
		if !slices.Contains(before, r) {
			p.adding = append(p.adding, r)
		}
	}
	for _, r := range before {
		if !slices.Contains(target, r) {
			p.removing, p.Replicas = append(p.removing, r), append(p.Replicas, r)
		}
	}
	return nil
}

// reassigning answers what moves, and then lets a few arrive.
func (c *Cluster) reassigning(out *kmsg.ListPartitionReassignmentsResponse) {
	arrived := 0
	for _, name := range c.names() {
		t := kmsg.NewListPartitionReassignmentsResponseTopic()
		t.Topic = name
		for n, p := range c.topics[name] {
			if len(p.adding)+len(p.removing) == 0 {
				continue
			}
			x := kmsg.NewListPartitionReassignmentsResponseTopicPartition()
			x.Partition, x.Replicas, x.AddingReplicas, x.RemovingReplicas = int32(n), p.Replicas, p.adding, p.removing
			t.Partitions = append(t.Partitions, x)
			if arrived++; c.Pace == 0 || arrived <= c.Pace {
				c.arrive(p)
			}
		}
		if len(t.Partitions) > 0 {
			out.Topics = append(out.Topics, t)
		}
	}
}

func (c *Cluster) arrive(p *Partition) {
	gone := func(r int32) bool { return slices.Contains(p.removing, r) }
	p.Replicas = slices.DeleteFunc(slices.Clone(p.Replicas), gone)
	p.ISR = slices.DeleteFunc(append(slices.Clone(p.ISR), p.adding...), gone)
	if gone(p.Leader) || p.Leader < 0 {
		p.Leader, p.Epoch = p.Replicas[0], p.Epoch+1
	}
	p.adding, p.removing = nil, nil
}

func (c *Cluster) elect(r *kmsg.ElectLeadersRequest, out *kmsg.ElectLeadersResponse) {
	if r.Topics == nil {
		for _, name := range c.names() {
			t := kmsg.NewElectLeadersRequestTopic()
			t.Topic = name
			for n := range c.topics[name] {
				t.Partitions = append(t.Partitions, int32(n))
			}
			r.Topics = append(r.Topics, t)
		}
	}
	for _, t := range r.Topics {
		rt := kmsg.NewElectLeadersResponseTopic()
		rt.Topic = t.Topic
		for _, n := range t.Partitions {
			rp := kmsg.NewElectLeadersResponseTopicPartition()
			rp.Partition = n
			if ps := c.topics[t.Topic]; n < 0 || int(n) >= len(ps) {
				rp.ErrorCode = kerr.UnknownTopicOrPartition.Code
			} else {
				rp.ErrorCode = c.electOne(t.Topic, n, ps[n], r.ElectionType == 1)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		out.Topics = append(out.Topics, rt)
	}
}

func (c *Cluster) electOne(topic string, n int32, p *Partition, unclean bool) int16 {
	next := p.Replicas[0]
	if unclean {
		up := slices.IndexFunc(p.Replicas, func(r int32) bool { return !c.Broker(r).Fenced })
		switch {
		case p.Leader >= 0:
			return kerr.ElectionNotNeeded.Code
		case up < 0:
			return kerr.EligibleLeadersNotAvailable.Code
		}
		next = p.Replicas[up]
		p.ISR, p.ELR = []int32{next}, nil
	}
	if p.Leader == next {
		return kerr.ElectionNotNeeded.Code
	}
	if !slices.Contains(p.ISR, next) {
		return kerr.PreferredLeaderNotAvailable.Code
	}
	p.Leader, p.Epoch = next, p.Epoch+1
	c.note("elect %d for %s-%d, unclean %v", next, topic, n, unclean)
	return 0
}

func (c *Cluster) describeQuorum(out *kmsg.DescribeQuorumResponse) {
	t := kmsg.NewDescribeQuorumResponseTopic()
	t.Topic = "__cluster_metadata"
	p := kmsg.NewDescribeQuorumResponseTopicPartition()
	p.LeaderID, p.LeaderEpoch, p.HighWatermark = c.leader, 7, 1200
	if c.Store != "" { // the controller alone, and everybody else as observer
		p.LeaderID = c.controller()
		for _, b := range c.brokers {
			v := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
			if v.ReplicaID, v.LogEndOffset = b.ID, 1200; b.ID == p.LeaderID {
				p.CurrentVoters = append(p.CurrentVoters, v)
			} else if !b.Fenced {
				p.Observers = append(p.Observers, v)
			}
		}
		t.Partitions = append(t.Partitions, p)
		out.Topics = append(out.Topics, t)
		return
	}
	for _, id := range c.voters {
		v := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
		v.ReplicaID, v.LogEndOffset = id, 1200
		if c.Broker(id).Fenced {
			v.LogEndOffset = -1
		}
		p.CurrentVoters = append(p.CurrentVoters, v)
		n := kmsg.NewDescribeQuorumResponseNode()
		n.NodeID = id
		l := kmsg.NewDescribeQuorumResponseNodeListener()
		l.Name = "PEER"
		l.Host, l.Port = fmt.Sprintf("10.0.0.%d", id), 9094
		n.Listeners = append(n.Listeners, l)
		out.Nodes = append(out.Nodes, n)
	}
	t.Partitions = append(t.Partitions, p)
	out.Topics = append(out.Topics, t)
}

func (c *Cluster) unregister(r *kmsg.UnregisterBrokerRequest, out *kmsg.UnregisterBrokerResponse) {
	i := slices.IndexFunc(c.brokers, func(b *Broker) bool { return b.ID == r.BrokerID })
	if i < 0 {
		out.ErrorCode, out.ErrorMessage = kerr.BrokerIDNotRegistered.Code, kmsg.StringPtr(fmt.Sprintf("Broker ID %d is not currently registered.", r.BrokerID))
		return
	}
	c.note("unregister %d", r.BrokerID)
	c.brokers = slices.Delete(c.brokers, i, i+1)
}

func (c *Cluster) removeVoter(r *kmsg.RemoveRaftVoterRequest, out *kmsg.RemoveRaftVoterResponse) {
	if !slices.Contains(c.voters, r.VoterID) {
		out.ErrorCode, out.ErrorMessage = kerr.VoterNotFound.Code, kmsg.StringPtr(fmt.Sprintf("broker %d is no member", r.VoterID))
		return
	}
	c.note("remove voter %d", r.VoterID)
	c.voters = slices.DeleteFunc(c.voters, func(id int32) bool { return id == r.VoterID })
}
