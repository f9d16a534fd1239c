package control

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/meta"
)

// DirAssignment says in which of a broker's log directories one of its replicas lives (KIP-858).
type DirAssignment struct {
	Dir       meta.UUID
	Topic     meta.UUID
	Partition int32
}

// AssignDirs plans that replicas of a broker live in directories, as that broker says (AssignReplicasToDirs): one
// error, or nil, for each wish. A replica in a directory that the broker has lost leaves the ISR, and another leads:
// the directory may have failed while the assignment was on its way.
func (c *Cluster) AssignDirs(id int32, epoch int64, wishes []DirAssignment) (Plan, []*Error, error) {
	if _, err := c.broker(id, epoch); err != nil {
		return Plan{}, nil, err
	}
	m, err := c.moves()
	if err != nil {
		return Plan{}, nil, err
	}
	type place struct {
		topic meta.UUID
		n     int32
	}
	granted := make(map[place]*meta.Partition) // a second wish for one partition sees the first
	errs := make([]*Error, len(wishes))
	var p packer
	var order []place
	for i, w := range wishes {
		t := c.Image.TopicByID(w.Topic)
		switch {
		case t == nil:
			errs[i] = refuse(kerr.UnknownTopicID, "This server does not host this topic ID.")
			continue
		case w.Partition < 0 || int(w.Partition) >= len(t.Partitions):
			errs[i] = refuse(kerr.UnknownTopicOrPartition, "This server does not host this topic-partition.")
			continue
		}
		at := place{w.Topic, w.Partition}
		old := granted[at]
		if old == nil {
			old = t.Partitions[w.Partition]
		}
		k := slices.Index(old.Replicas, id)
		if k < 0 {
			errs[i] = refuse(kerr.NotLeaderForPartition, "Broker %d has no replica of this partition.", id)
			continue
		}
		np := m.moveDir(t.Name, old, id, k, w.Dir)
		if np == nil {
			continue
		}
		if granted[at] == nil {
			order = append(order, at)
		} else {
			np.PartitionEpoch = granted[at].PartitionEpoch // one record is written, so one epoch
		}
		granted[at] = np
	}
	for _, at := range order {
		p.whole([]meta.Change{meta.PutPartition(at.topic, at.n, granted[at])})
	}
	return p.plan, errs, nil
}

// moveDir is a partition whose k-th replica, on broker id, lives in dir. nil: it does already. A replica whose former
// directory the broker has no more is begun anew: it is in sync nowhere, even where nobody else is, because an empty
// log would be elected in the place of the records.
func (m *moves) moveDir(topic string, old *meta.Partition, id int32, k int, dir meta.UUID) *meta.Partition {
	dirs := make([]meta.UUID, len(old.Replicas))
	copy(dirs, old.Dirs)
	was := dirs[k]
	dirs[k] = dir
	b := m.image.Broker(id)
	gone := func(d meta.UUID) bool {
		return !d.IsZero() && b != nil && len(b.Dirs) > 0 && !slices.Contains(b.Dirs, d)
	}
	m.replaced, m.missing, m.single = -1, meta.UUID{}, false
	isr := old.ISR
	switch {
	case was != dir && gone(was):
		m.replaced, m.missing = id, was
		isr = remove(isr, id)
	case gone(dir):
		if rest := remove(isr, id); len(rest) > 0 || m.elr {
			isr = rest // the last member stays without ELR, as when its broker dies
		}
	}
	return m.next(topic, old, isr, wantLeader, func(p *meta.Partition) { p.Dirs = dirs })
}
