package partition

import (
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/producer"
)

// Guard stands for one question to the transaction coordinator whether this partition is in a producer's
// transaction (KIP-890). A marker for that transaction makes it void: the answer that is still on its way speaks of
// the transaction which has just ended, and a late batch taken in on its word would open one that nobody ends.
type Guard struct {
	epoch int16
	// lowest is the lowest sequence for which it was asked. Of two batches that a producer sends one behind the other
	// the first may be refused and the second let through, as the coordinator is busy or not; a partition that does not
	// know the producer would take the second, and refuse the first for ever.
	lowest int32
}

// maxGuards bounds the questions of one partition that are under way. Past it a new one makes an old one void, whichever
// it is: nobody can know which of them are never answered.
const maxGuards = 10_000

// NoSequence is asked for by what has no sequences: the offsets of a group.
const NoSequence int32 = -1

// Verify is called before a transactional batch of a client is appended. open: the transaction is open here
// already and nothing has to be asked. Otherwise the caller asks the coordinator, after this call, and passes
// the guard to Append. sequence is the first of the batch, or NoSequence.
func (p *Partition) Verify(id int64, epoch int16, sequence int32) (g *Guard, open bool) {
	p.app.Lock()
	defer p.app.Unlock()
	if p.openLocked(id, epoch) {
		return nil, true
	}
	g = p.app.guards[id]
	if g == nil || g.epoch != epoch {
		if p.app.guards == nil {
			p.app.guards = map[int64]*Guard{}
		}
		if len(p.app.guards) >= maxGuards {
			for old := range p.app.guards {
				delete(p.app.guards, old)
				break
			}
		}
		g = &Guard{epoch: epoch, lowest: sequence}
		p.app.guards[id] = g
	}
	g.lowest = min(g.lowest, sequence)
	return g, false
}

func (p *Partition) openLocked(id int64, epoch int16) (open bool) {
	p.log.Producers(func(t *producer.Table) { open = t.Open(id, epoch) })
	return open
}

// guardedLocked says whether a transactional batch of a client may be appended. version is that of Produce: from 12 on
// the epoch is new with every transaction, so that its first batch has sequence 0.
func (p *Partition) guardedLocked(b batch.Batch, g *Guard, version int16) error {
	id, epoch := b.ProducerID(), b.ProducerEpoch()
	switch first := b.BaseSequence(); {
	case p.openLocked(id, epoch):
		return nil
	case !p.standsLocked(id, epoch, g):
		return kerr.InvalidTxnState
	case first > g.lowest, version >= 12 && first != 0:
		return kerr.OutOfOrderSequenceNumber // the batch before it comes again
	}
	return nil
}

// standsLocked says that no marker has made the guard void.
func (p *Partition) standsLocked(id int64, epoch int16, g *Guard) bool {
	return g != nil && p.app.guards[id] == g && g.epoch == epoch
}

// usedLocked forgets the question for a producer whose transaction is open now.
func (p *Partition) usedLocked(b batch.Batch) {
	if g := p.app.guards[b.ProducerID()]; g != nil && g.epoch <= b.ProducerEpoch() {
		delete(p.app.guards, b.ProducerID())
	}
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
	case p.openLocked(id, epoch) || p.standsLocked(id, epoch, g):
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
