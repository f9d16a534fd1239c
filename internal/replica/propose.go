package replica

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/isr"
	"github.com/milena-mq/milena/internal/partition"
)

// proposeTimeout bounds the wait for the controller's answer. What it did with a request that got none is
// unknown, and the leaders propose again.
const proposeTimeout = 5 * time.Second

// alterVersion is the version of AlterPartition that carries broker epochs (KIP-903).
const alterVersion = 3

// tellEvery is how often the controller is told again of replicas whose log directory the image does not show.
const tellEvery = time.Second

// tellAtOnce bounds the replicas in one request: the controller writes one record for each.
const tellAtOnce = 500

// proposer sends what the leaders here wish for, all that has gathered in one request, and where replicas lie.
func (m *Manager) proposer() {
	tell := time.NewTicker(tellEvery)
	defer tell.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-tell.C:
			m.place()
			continue
		case <-m.o.Set.PlacementsReady():
			m.place()
			continue
		case <-m.o.Set.ProposalsReady():
		}
		if list := m.o.Set.TakeProposals(); len(list) > 0 {
			m.propose(list)
		}
	}
}

func (m *Manager) propose(list []partition.Proposal) {
	m.stats.proposals.Add(int64(len(list)))
	answers, err := m.alter(list)
	if err != nil && m.ctx.Err() == nil {
		m.log.Warn("change of in-sync replicas not answered", "partitions", len(list), "err", err)
	}
	for _, p := range list {
		a := isr.Failed
		if code, ok := answers[key{p.Partition.TopicID(), p.Partition.TopicPartition().Partition}]; ok {
			a = isr.AnswerOf(code)
			if code != 0 {
				m.log.Info("change of in-sync replicas refused", "partition", p.Partition.TopicPartition().String(), "err", kerr.ErrorForCode(code))
			}
		}
		p.Partition.Answered(p.Seq, a)
	}
}

// alter asks the controller and returns its answers.
func (m *Manager) alter(list []partition.Proposal) (map[key]int16, error) {
	epoch := m.o.Epoch()
	if epoch < 0 {
		return nil, errors.New("not registered")
	}
	ctx, cancel := context.WithTimeout(m.ctx, proposeTimeout)
	defer cancel()
	resp, err := m.o.Controller(ctx, alterRequest(m.o.NodeID, epoch, list))
	if err != nil {
		return nil, err
	}
	r, ok := resp.(*kmsg.AlterPartitionResponse)
	if !ok {
		return nil, errors.New("answer to another request")
	}
	if r.ErrorCode != 0 {
		return nil, kerr.ErrorForCode(r.ErrorCode)
	}
	out := make(map[key]int16, len(list))
	for i := range r.Topics {
		t := &r.Topics[i]
		for j := range t.Partitions {
			out[key{t.TopidID, t.Partitions[j].Partition}] = t.Partitions[j].ErrorCode
		}
	}
	return out, nil
}

func alterRequest(id int32, epoch int64, list []partition.Proposal) *kmsg.AlterPartitionRequest {
	req := kmsg.NewPtrAlterPartitionRequest()
	req.Version, req.BrokerID, req.BrokerEpoch = alterVersion, id, epoch
	at := map[[16]byte]int{}
	for _, p := range list {
		id := [16]byte(p.Partition.TopicID())
		i, ok := at[id]
		if !ok {
			i = len(req.Topics)
			at[id] = i
			t := kmsg.NewAlterPartitionRequestTopic()
			t.TopicID = id
			req.Topics = append(req.Topics, t)
		}
		x := kmsg.NewAlterPartitionRequestTopicPartition()
		x.Partition = p.Partition.TopicPartition().Partition
		x.LeaderEpoch, x.PartitionEpoch = p.LeaderEpoch, p.PartitionEpoch
		for _, mem := range p.ISR {
			e := kmsg.NewAlterPartitionRequestTopicPartitionNewEpochISR()
			e.BrokerID, e.BrokerEpoch = mem.ID, mem.Epoch
			x.NewEpochISR = append(x.NewEpochISR, e)
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, x)
	}
	return req
}

// place tells the controller in which log directories replicas lie (AssignReplicasToDirs, KIP-858): only then can it
// move the leadership off a directory that fails.
func (m *Manager) place() {
	epoch := m.o.Epoch()
	if epoch < 0 {
		return
	}
	list := m.o.Set.Placements()
	if len(list) == 0 {
		return
	}
	list = list[:min(len(list), tellAtOnce)] // the others follow with the next tick
	ctx, cancel := context.WithTimeout(m.ctx, proposeTimeout)
	defer cancel()
	resp, err := m.o.Controller(ctx, placeRequest(m.o.NodeID, epoch, list))
	if r, ok := resp.(*kmsg.AssignReplicasToDirsResponse); err == nil && ok {
		err = kerr.ErrorForCode(r.ErrorCode)
	}
	if err != nil && m.ctx.Err() == nil {
		m.log.Warn("log directories of replicas not told", "replicas", len(list), "err", err)
	}
}

func placeRequest(id int32, epoch int64, list []partition.Placement) *kmsg.AssignReplicasToDirsRequest {
	slices.SortFunc(list, func(a, b partition.Placement) int {
		return cmp.Or(bytes.Compare(a.Dir[:], b.Dir[:]), bytes.Compare(a.Topic[:], b.Topic[:]), cmp.Compare(a.Partition, b.Partition))
	})
	req := kmsg.NewPtrAssignReplicasToDirsRequest()
	req.BrokerID, req.BrokerEpoch = id, epoch
	for _, p := range list {
		if n := len(req.Directories); n == 0 || req.Directories[n-1].ID != p.Dir {
			d := kmsg.NewAssignReplicasToDirsRequestDirectory()
			d.ID = p.Dir
			req.Directories = append(req.Directories, d)
		}
		d := &req.Directories[len(req.Directories)-1]
		if n := len(d.Topics); n == 0 || d.Topics[n-1].TopicID != p.Topic {
			t := kmsg.NewAssignReplicasToDirsRequestDirectoryTopic()
			t.TopicID = p.Topic
			d.Topics = append(d.Topics, t)
		}
		t := &d.Topics[len(d.Topics)-1]
		x := kmsg.NewAssignReplicasToDirsRequestDirectoryTopicPartition()
		x.Partition = p.Partition
		t.Partitions = append(t.Partitions, x)
	}
	return req
}
