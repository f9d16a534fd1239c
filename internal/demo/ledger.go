package demo

import (
	"hash/crc32"
	"sync"
	"time"
)

// ledger knows of every record that was sent: whether it was acknowledged and where, whether it was read
// and where. It is told by the writer and the readers, at any time and in any order between them.
type ledger struct {
	mu struct {
		sync.Mutex
		sent  []entry // by number
		lanes []lane  // by partition
		total
	}
}

type total struct {
	acked, read int64 // different records
	dup         int64 // records met at a second offset
	again       int64 // the same offset delivered once more, which a consumer group may do
	wrong       int64 // read with another value, in another place than acknowledged, or never sent
	failed      int64 // given up by the client without an answer
	bytes       int64 // acknowledged
}

type entry struct {
	sum    uint32
	acked  bool
	read   bool
	lane   int32
	offset int64 // where it was acknowledged or, before that, read
}

// lane is one partition. A silence is the time that a client with something to hear has heard nothing.
type lane struct {
	out       int // sent and not answered
	since     time.Time
	ackEnd    int64           // after the last acknowledged offset
	unread    map[int64]int64 // acknowledged and not read: offset to number
	readEnd   int64           // after the last offset that was read
	readSince time.Time
	write     silences
	reading   silences
}

// silences are the longest ever and the longest that ended or goes on since mark.
type silences struct {
	longest, marked time.Duration
	heard           bool // since mark
}

func (s *silences) note(gap time.Duration) {
	s.longest, s.marked, s.heard = max(s.longest, gap), max(s.marked, gap), true
}

func newLedger(partitions int) *ledger {
	l := &ledger{}
	l.mu.lanes = make([]lane, partitions)
	for i := range l.mu.lanes {
		l.mu.lanes[i].unread = map[int64]int64{}
	}
	return l
}

// sending gives a record its number and its partition: they take turns.
func (l *ledger) sending(value []byte, at time.Time) (number int64, partition int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number = int64(len(l.mu.sent))
	partition = int32(number % int64(len(l.mu.lanes)))
	l.mu.sent = append(l.mu.sent, entry{sum: crc32.ChecksumIEEE(value), lane: partition, offset: -1})
	x := &l.mu.lanes[partition]
	if x.out == 0 {
		x.since = at
	}
	x.out++
	return number, partition
}

// acknowledged is told what the cluster promised.
func (l *ledger) acknowledged(number, offset int64, size int, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &l.mu.sent[number]
	x := &l.mu.lanes[e.lane]
	x.answered(at)
	e.acked = true
	l.mu.acked++
	l.mu.bytes += int64(size)
	x.ackEnd = max(x.ackEnd, offset+1)
	if e.read {
		if e.offset != offset {
			l.mu.wrong++
		}
		return
	}
	e.offset = offset
	if len(x.unread) == 0 {
		x.readSince = at
	}
	x.unread[offset] = number
}

// refused is told that the client gave a record up: nobody knows whether it was written.
func (l *ledger) refused(number int64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.lanes[l.mu.sent[number].lane].answered(at)
	l.mu.failed++
}

func (x *lane) answered(at time.Time) {
	x.write.note(at.Sub(x.since))
	x.since = at
	x.out--
}

// delivered is told what a reader got.
func (l *ledger) delivered(number int64, partition int32, offset int64, value []byte, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number < 0 || number >= int64(len(l.mu.sent)) || partition < 0 || int(partition) >= len(l.mu.lanes) {
		l.mu.wrong++
		return
	}
	e, x := &l.mu.sent[number], &l.mu.lanes[partition]
	if len(x.unread) > 0 {
		x.reading.note(at.Sub(x.readSince))
		x.readSince = at
	}
	x.readEnd = max(x.readEnd, offset+1)
	switch {
	case e.sum != crc32.ChecksumIEEE(value) || e.lane != partition:
		l.mu.wrong++
	case !e.read && e.acked && e.offset != offset:
		// Acknowledged there and met here: the other place is still owed, so it stays unread.
		l.mu.dup++
	case !e.read:
		e.read, e.offset = true, offset
		l.mu.read++
		delete(x.unread, offset)
	case e.offset == offset:
		l.mu.again++
	default:
		l.mu.dup++
	}
}

// calm forgets the silences so far.
func (l *ledger) calm() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.mu.lanes {
		l.mu.lanes[i].write, l.mu.lanes[i].reading = silences{}, silences{}
		l.mu.lanes[i].readSince = time.Now()
	}
}

// mark begins a new measure of silence, of the partitions that a victim led.
func (l *ledger) mark(partitions []int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range partitions {
		l.mu.lanes[p].write.marked, l.mu.lanes[p].write.heard = 0, false
		l.mu.lanes[p].reading.marked, l.mu.lanes[p].reading.heard = 0, false
	}
}

// sinceMark is the longest silence of writes in some partitions since mark, the one that goes on included,
// and whether all of them have been heard of.
func (l *ledger) sinceMark(partitions []int32, now time.Time) (longest time.Duration, all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all = true
	for _, p := range partitions {
		x := &l.mu.lanes[p]
		longest = max(longest, x.write.marked)
		if x.out > 0 {
			longest = max(longest, now.Sub(x.since))
		}
		all = all && x.write.heard
	}
	return longest, all
}

// accounts is what the ledger shows at one moment.
type accounts struct {
	total
	sent     int64
	inFlight int64 // sent and not answered
	lost     int64 // acknowledged, and a reader has passed without it
	owed     int64 // acknowledged and not read, lost ones included
	lag      []int64
	writes   time.Duration // longest silence between acknowledgements of a partition
	reads    time.Duration // longest silence of a reader that had something to read
}

func (l *ledger) accounts(now time.Time) accounts {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := accounts{total: l.mu.total, sent: int64(len(l.mu.sent))}
	for i := range l.mu.lanes {
		x := &l.mu.lanes[i]
		a.inFlight += int64(x.out)
		a.owed += int64(len(x.unread))
		a.lag = append(a.lag, max(0, x.ackEnd-x.readEnd))
		for offset := range x.unread {
			if offset < x.readEnd {
				a.lost++
			}
		}
		a.writes, a.reads = max(a.writes, x.write.longest), max(a.reads, x.reading.longest)
		if x.out > 0 {
			a.writes = max(a.writes, now.Sub(x.since))
		}
		if len(x.unread) > 0 {
			a.reads = max(a.reads, now.Sub(x.readSince))
		}
	}
	return a
}

// close judges: whatever was acknowledged and is unread now is lost.
func (l *ledger) close(now time.Time) accounts {
	a := l.accounts(now)
	a.lost = a.owed
	return a
}
