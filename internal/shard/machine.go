package shard

import (
	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/det"
)

// machine is what a shard runs: a coordinator of package group or txn behind the few things they share.
type machine interface {
	// replay takes one record of the log in, in order; errors of errRecord are logged and passed over.
	replay(b batch.Batch, r batch.Record) error
	// marker takes the end of a transaction in, at its offset in the log.
	marker(offset int64, b batch.Batch, m batch.Marker)
	// setNext tells the offset of the next record.
	setNext(offset int64)
	next() int64
	loaded(now det.Instant, e *effects)
	// step handles one event, nil for the time alone. Token 0: nobody waits.
	step(now det.Instant, token uint64, ev any, e *effects)
	wake() det.Instant
}

// effects is what came of a step.
type effects struct {
	records []record
	answers []answer
	// then is handed over when the records of this step, and all before, are committed.
	then []any
	// done names what has ended, so that what was parked for it is looked at again.
	done []string
}

func (e *effects) reset() {
	clear(e.records)
	clear(e.answers)
	clear(e.then)
	e.records, e.answers, e.then, e.done = e.records[:0], e.answers[:0], e.then[:0], e.done[:0]
}

// record is one record for the log. producer and epoch are of the transaction it belongs to, noProducer for none.
type record struct {
	key, value []byte
	producer   int64
	epoch      int16
}

const noProducer int64 = -1

// answer is the reply for a token. parked, when not empty, names what has to end before another answer is
// possible; the reply is then what is said if that takes too long.
type answer struct {
	token    uint64
	response any
	parked   string
}

// markerEvent writes the end of a transaction into a shard's own log; the machine hears of it in the order of the log.
type markerEvent struct {
	b       batch.Batch
	version int16 // transaction version
}

// kind is what sets the coordinators of one kind apart.
type kind struct {
	name, topic string
	make        func(epoch int32) machine
	// then takes over what effects.then held, once it is committed; nil: nothing ever comes.
	then func([]any)
	// forget, when not nil, says that the machine is gone: what then took over, and has not carried out, is void. The
	// machine that is loaded next asks for all of it again.
	forget func()
}
