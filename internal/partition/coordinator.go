package partition

import (
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/batch"
)

// replayBytes is how much of a log a coordinator reads at a time while loading.
const replayBytes = 1 << 20

// Coordinator is a partition as the coordinator that lives on it sees it: the log of one leader epoch.
// Once the epoch is over everything fails with NOT_LEADER_OR_FOLLOWER.
type Coordinator struct {
	p     *Partition
	epoch int32
}

// Coordinator opens the partition's log for the coordinator of the current leader epoch. It fails when
// this broker does not lead.
func (p *Partition) Coordinator() (*Coordinator, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.leadsLocked(-1); err != nil {
		return nil, err
	}
	return &Coordinator{p: p, epoch: p.mu.epoch}, nil
}

// Epoch is the leader epoch the log was opened in.
func (c *Coordinator) Epoch() int32 { return c.epoch }

// Partition is the partition behind it.
func (c *Coordinator) Partition() *Partition { return c.p }

// Append writes a batch of the coordinator's own records. It is not committed yet: see OnCommitted. The
// batch is patched in place and not kept.
func (c *Coordinator) Append(b batch.Batch) (base, end int64, err error) { return c.append(b, 0) }

// AppendMarker writes a transaction marker into this partition, checked by the rules of the transaction version. Errors
// are those of Append; INVALID_PRODUCER_EPOCH and TRANSACTION_COORDINATOR_FENCED say that the marker is late.
func (c *Coordinator) AppendMarker(b batch.Batch, txnVersion int16) (base, end int64, err error) {
	return c.append(b, txnVersion)
}

// append writes a batch under the epoch; txnVersion counts for a marker only.
func (c *Coordinator) append(b batch.Batch, txnVersion int16) (base, end int64, err error) {
	a, err := c.p.Append(AppendRequest{
		Records: b, Acks: AcksAll, LeaderEpoch: c.epoch, Version: maxProduce, Coordinator: true, TxnVersion: txnVersion, NowMs: c.p.set.now(),
	})
	if err != nil {
		return 0, 0, err
	}
	return a.Base, a.End, nil
}

// Admit says whether a producer may write for its transaction; guard is a *Guard or nil. INVALID_PRODUCER_EPOCH: a
// later epoch has written here; INVALID_TXN_STATE: the transaction is not open and nothing proves it.
func (c *Coordinator) Admit(producerID int64, epoch int16, guard any) error {
	g, _ := guard.(*Guard)
	return c.p.admit(producerID, epoch, g)
}

// maxProduce is the newest Produce version: a coordinator may use every codec.
const maxProduce = 13

// OnCommitted calls fn once: with nil when everything below end is committed, with an error when the
// epoch ends first. fn may be called before OnCommitted returns, and otherwise on the flusher's
// goroutine: it must not block.
func (c *Coordinator) OnCommitted(end int64, fn func(error)) {
	p := c.p
	p.mu.Lock()
	err := p.mu.gone
	if err == nil && (p.mu.leader == nil || p.mu.epoch != c.epoch) {
		err = kerr.NotLeaderForPartition
	}
	if err == nil && p.mu.leader.HW() < end {
		p.mu.commit.push(wait{offset: end, fn: fn})
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	fn(err)
}

// Replay reads every batch from the log start to the log end as it was at the call. The batch is valid
// until fn returns.
func (c *Coordinator) Replay(fn func(batch.Batch) error) error {
	p := c.p
	p.mu.Lock()
	err := p.leadsLocked(c.epoch)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	var buf []byte
	end := p.log.End()
	for at := p.log.Start(); at < end; {
		s, err := p.log.Read(at, replayBytes, end, true)
		if err != nil {
			p.set.storageError(p, err)
			return err
		}
		buf, err = s.Bytes(buf[:0])
		s.Release()
		if err != nil {
			p.set.storageError(p, err)
			return err
		}
		if len(buf) == 0 {
			return nil
		}
		for rest := buf; len(rest) > 0; {
			var b batch.Batch
			if b, rest, err = batch.Next(rest); err != nil {
				return err
			}
			if b.LastOffset() < at {
				continue
			}
			if err := fn(b); err != nil {
				return err
			}
			at = b.LastOffset() + 1
		}
	}
	return nil
}
