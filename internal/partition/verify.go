package partition

import (
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/producer"
)

// Guard stands for one question to the transaction coordinator whether this partition is in a producer's
// transaction (KIP-890). A marker for that transaction makes it void: the answer that is still on its way speaks of
// the transaction which has just ended, and a late batch taken in on its word would open one that nobody ends.
type Guard struct{ epoch int16 }

// maxGuards bounds the questions of one partition that are under way. Past it all of them are void: their producers
// ask again.
const maxGuards = 10_000

// Verify is called before a transactional batch of a client is appended. open: the transaction is open here
// already and nothing has to be asked. Otherwise the caller asks the coordinator, after this call, and passes
// the guard to Append.
func (p *Partition) Verify(id int64, epoch int16) (g *Guard, open bool) {
	p.app.Lock()
	defer p.app.Unlock()
	if p.openLocked(id, epoch) {
		return nil, true
	}
	g = p.app.guards[id]
	if g == nil || g.epoch != epoch {
		if p.app.guards == nil || len(p.app.guards) >= maxGuards {
			p.app.guards = map[int64]*Guard{}
		}
		g = &Guard{epoch}
		p.app.guards[id] = g
	}
	return g, false
}

func (p *Partition) openLocked(id int64, epoch int16) (open bool) {
	p.log.Producers(func(t *producer.Table) { open = t.Open(id, epoch) })
	return open
}

// guardedLocked says whether a transactional batch may be appended, and uses the guard up.
func (p *Partition) guardedLocked(b batch.Batch, g *Guard) bool {
	id, epoch := b.ProducerID(), b.ProducerEpoch()
	if p.openLocked(id, epoch) {
		return true
	}
	return g != nil && p.app.guards[id] == g && g.epoch == epoch
}

// voidLocked is a marker's effect on the questions that are under way. From transaction version 2 on the marker has
// the epoch of the next transaction, whose first batch may be waiting for this very marker: only questions of earlier
// epochs are void.
func (p *Partition) voidLocked(b batch.Batch, txnVersion int16) {
	g := p.app.guards[b.ProducerID()]
	if g != nil && (g.epoch < b.ProducerEpoch() || g.epoch == b.ProducerEpoch() && txnVersion < 2) {
		delete(p.app.guards, b.ProducerID())
	}
}

// admit is guardedLocked for whoever appends later, and the only one to do so.
func (p *Partition) admit(id int64, epoch int16, g *Guard) error {
	p.app.Lock()
	defer p.app.Unlock()
	var newer bool
	p.log.Producers(func(t *producer.Table) { newer = t.Newer(id, epoch) })
	switch {
	case newer:
		return kerr.InvalidProducerEpoch
	case p.openLocked(id, epoch) || g != nil && p.app.guards[id] == g && g.epoch == epoch:
		return nil
	}
	return kerr.InvalidTxnState
}

// AppendMarker writes the end of a transaction. It waits for nobody: see Wait with AcksAll. Errors are those of
// Append; INVALID_PRODUCER_EPOCH and TRANSACTION_COORDINATOR_FENCED say that the marker is late.
func (p *Partition) AppendMarker(b batch.Batch, txnVersion int16) (Appended, error) {
	return p.Append(AppendRequest{
		Records: b, Acks: AcksAll, LeaderEpoch: -1, Version: maxProduce, Coordinator: true, TxnVersion: txnVersion, NowMs: p.set.now(),
	})
}
