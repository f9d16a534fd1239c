package partition

import (
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/isr"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/storage"
)

// Follower is the follower's half of a partition for one leader epoch. Package replica drives it: it asks the
// leader what Next says, and reports with Take, then with Synced after Set.Sync.
//
// One goroutine drives a Follower. The role may end at any moment, since the image is applied by another one:
// from then on every method answers Over and touches nothing.
type Follower struct {
	p      *Partition
	leader int32
	epoch  int32
	m      *isr.Follower // stepped under app
	seq    int64         // of the ask that waits for an answer
	behind int64         // bytes appended since the last sync
}

// Step says what a Follower wants next.
type Step uint8

// The steps.
const (
	Over  Step = iota // the role has ended
	Ask               // fetch from the leader as Next says
	Later             // the same after a pause: something was odd
	Sync              // make the log durable with Set.Sync, then call Synced
	Rest              // this epoch is over for the leader: only a new assignment helps
	Bound             // ask the leader for its log start and log end, then Take the answer with Code OFFSET_OUT_OF_RANGE
)

// Next is a step, and what is to be asked.
type Next struct {
	Step      Step
	Offset    int64
	LastEpoch int32 // epoch of the last record here, -1 for an empty log
	LogStart  int64
}

// Answer is what a leader answered for one partition.
type Answer struct {
	Code      int16 // Kafka error code, 0 for none; -1 when no answer came
	HW        int64
	LogStart  int64
	Records   []byte // as they came; not kept
	Diverging bool
	DivEpoch  int32
	DivEnd    int64

	// Known says that LogStart and LogEnd answer a Bound.
	Known  bool
	LogEnd int64
}

// follow begins to follow in a leader epoch. It runs under app.
func (p *Partition) follow(rec *meta.Partition) {
	f := &Follower{p: p, leader: rec.Leader, epoch: rec.LeaderEpoch}
	f.m = isr.NewFollower(p.log.HW(), p.durableEnd(), p.log.End(), p.lastEpoch())
	p.mu.Lock()
	p.mu.follower = f
	p.mu.sizes = sizes{}
	p.hw.Store(f.m.HW())
	p.mu.Unlock()
}

// Follower is the follower's half as of now, nil when this broker does not follow.
func (p *Partition) Follower() *Follower {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.gone != nil {
		return nil
	}
	return p.mu.follower
}

// lastEpoch is the epoch of the last record, not the newest in the list: an epoch that this broker led
// without writing a record is in the list until something is cut, and no leader could agree with it.
func (p *Partition) lastEpoch() int32 {
	if end := p.log.End(); end > p.log.Start() {
		return p.log.EpochAt(end - 1)
	}
	return -1
}

// Partition is what is followed.
func (f *Follower) Partition() *Partition { return f.p }

// Leader is who is followed, and in which epoch.
func (f *Follower) Leader() (id, epoch int32) { return f.leader, f.epoch }

// Current says that the role goes on.
func (f *Follower) Current() bool {
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	return f.currentLocked()
}

func (f *Follower) currentLocked() bool { return f.p.mu.follower == f && f.p.mu.gone == nil }

// Begin is the first step.
func (f *Follower) Begin() Next {
	f.p.app.Lock()
	defer f.p.app.Unlock()
	if !f.Current() {
		return Next{}
	}
	f.healEpochs()
	return f.carry(isr.FollowerIn{Kind: isr.Begin}, nil)
}

// healEpochs drops the epochs that this replica led without writing a record: records of an older epoch
// could not be appended behind them.
func (f *Follower) healEpochs() {
	l := f.p.log
	if e, start, ok := l.LatestEpoch(); ok && start >= l.End() && e > f.p.lastEpoch() {
		f.p.set.storageError(f.p, l.Truncate(l.End()))
	}
}

// Take gives a leader's answer to what was last asked. Its records are checked before they are appended; the
// error says what was wrong with it, and then the step is Later.
func (f *Follower) Take(a Answer) (Next, error) {
	p := f.p
	p.app.Lock()
	defer p.app.Unlock()
	if !f.Current() {
		return Next{}, nil
	}
	in := isr.FollowerIn{Seq: f.seq}
	switch {
	case a.Code == kerr.OffsetOutOfRange.Code && !a.Known:
		return Next{Step: Bound}, nil
	case a.Code == kerr.OffsetOutOfRange.Code && (a.LogStart < 0 || a.LogEnd < a.LogStart):
		in.Kind = isr.Lost // no log looks like that
	case a.Code == kerr.OffsetOutOfRange.Code:
		in.Kind, in.LeaderStart, in.LeaderEnd = isr.OutOfRange, a.LogStart, a.LogEnd
	case a.Code == kerr.FencedLeaderEpoch.Code:
		in.Kind = isr.Fenced
	case a.Code != 0:
		in.Kind = isr.Lost
	case a.Diverging:
		in.Kind, in.DivEpoch, in.DivEnd = isr.Diverged, a.DivEpoch, a.DivEnd
		_, in.OwnEnd = p.log.EpochEnd(a.DivEpoch)
	default:
		in.Kind, in.HW, in.More = isr.Records, a.HW, len(a.Records) > 0
		if min(a.LogStart, p.log.End()) > p.log.Start() {
			// Below the leader's log start nothing was compared: what this replica has there may be from another
			// epoch. It must not be shown before the own start has risen past it; the next answer brings the rest.
			in.HW = min(in.HW, f.m.HW())
		}
	}
	var odd error
	n := f.carry(in, func() error {
		odd = f.append(a.Records)
		return odd
	})
	if in.Kind == isr.Records && f.raiseStart(a.LogStart) && n.Step == Ask {
		// The new start counts, here and for whoever waits at the leader, when it is durable.
		n = Next{Step: Sync}
	}
	return n, odd
}

// Heard takes the high watermark out of an answer that was overtaken by a newer one.
func (f *Follower) Heard(hw int64) {
	f.p.app.Lock()
	defer f.p.app.Unlock()
	if f.Current() && f.p.log.StartAsked() == f.p.log.Start() { // see Take
		f.publish(f.m.Step(0, isr.FollowerIn{Kind: isr.Heard, HW: hw}).HW)
	}
}

// Synced reports that Set.Sync has returned.
func (f *Follower) Synced() Next {
	f.p.app.Lock()
	defer f.p.app.Unlock()
	if !f.Current() {
		return Next{}
	}
	return f.carry(f.wrote(), nil)
}

func (f *Follower) wrote() isr.FollowerIn {
	p := f.p
	return isr.FollowerIn{Kind: isr.Wrote, End: p.log.End(), Flushed: p.durableEnd(), LastEpoch: p.lastEpoch()}
}

// carry steps the machine and carries out what it says, until something is to be asked or synced. It runs
// under app.
func (f *Follower) carry(in isr.FollowerIn, add func() error) Next {
	p := f.p
	later := false
	for {
		o := f.m.Step(0, in)
		f.publish(o.HW)
		switch o.Act {
		case isr.Fetch, isr.Retry:
			f.seq = o.Seq
			n := Next{Step: Ask, Offset: o.Offset, LastEpoch: o.LastEpoch, LogStart: p.log.Start()}
			if later || o.Act == isr.Retry {
				n.Step = Later
			}
			return n
		case isr.Flush:
			return Next{Step: Sync}
		case isr.Append:
			later = add() != nil
		case isr.Truncate, isr.Restart:
			// A cut at the log end forgets epochs that wrote nothing; asked again at once, the answer could be
			// the same for ever.
			later = o.Offset >= p.log.End() && o.Act == isr.Truncate
			if err := f.cut(o); err != nil {
				p.set.storageError(p, err)
				later = true
			}
		default:
			if in.Kind == isr.Fenced {
				return Next{Step: Rest}
			}
			later = true // an answer to what was not asked: the machine says what it wants
		}
		if !f.Current() { // the disk failed
			return Next{}
		}
		in = f.wrote()
	}
}

// Unsynced is the bytes appended since the last Set.Sync: more than none after an Ask, the follower is so far behind
// that what it asks for acknowledges nothing. It is synced now and then, so that what a power cut takes, and what a sync
// of others on the same disk has to wait for, stays small.
func (f *Follower) Unsynced() int64 {
	f.p.app.Lock()
	defer f.p.app.Unlock()
	return f.behind
}

// publish tells this broker's own readers of the high watermark.
func (f *Follower) publish(hw int64) {
	p := f.p
	was := p.hw.Load()
	if hw == was {
		return
	}
	p.mu.Lock()
	if hw > was {
		p.committedLocked(hw)
	} else {
		p.hw.Store(hw) // an unclean election took what was below it
		p.mu.sizes = sizes{}
	}
	p.mu.Unlock()
	p.publishHW()
}

// cut truncates the log, durably.
func (f *Follower) cut(o isr.FollowerOut) error {
	p, what := f.p, "cut"
	if o.Act == isr.Restart {
		what = "start again"
	}
	p.set.o.Log.Info("follower's log differs from its leader's", "partition", p.tp.String(), "epoch", f.epoch, "leader", f.leader,
		"do", what, "to", o.Offset, "end", p.log.End(), "hw", p.hw.Load())
	if o.Act == isr.Restart {
		if err := p.log.TruncateFully(o.Offset); err != nil {
			return err
		}
	} else if err := p.log.Truncate(o.Offset); err != nil {
		return err
	}
	p.readUnstable()
	p.mu.Lock()
	p.mu.sizes = sizes{}
	for q := p.mu.polls.first; q != nil; q = q.next {
		q.fire() // their offset may be gone
	}
	p.mu.Unlock()
	return nil
}

// errStill means that a leader sent records and none could be appended.
var errStill = errors.New("nothing of the leader's records could be appended")

// append writes a leader's records down. It runs under app; what of them is good is in the log even when
// there is an error.
func (f *Follower) append(raw []byte) error {
	p := f.p
	from := p.log.End()
	cfg := p.topic.cfg.Load()
	now := p.set.now()
	// The reserve is for what this broker must go on writing, its coordinators and the cluster's store among them. A
	// follower without room falls out of the in-sync set, and comes back when there is some.
	err := p.dir.d.Writable(int64(len(raw)))
	if err == nil || strings.HasPrefix(p.tp.Topic, "__") {
		err = p.log.AppendFollower(raw, f.epoch, now)
	}
	end := p.log.End()
	if end == from && err == nil {
		err = errStill
	}
	if end > from {
		f.appended(cfg, end, end-from, int64(len(raw)), now)
	}
	if err != nil {
		p.set.storageError(p, err)
		var bad *batch.Invalid
		if errors.Is(err, storage.ErrOrder) || errors.As(err, &bad) {
			err = fmt.Errorf("records from broker %d: %w", f.leader, err)
		}
	}
	return err
}

// appended keeps what depends on the log end.
func (f *Follower) appended(cfg *Config, end, records, bytes, now int64) {
	p := f.p
	p.mu.Lock()
	p.mu.sizes.push(end, bytes)
	p.mu.Unlock()
	p.readUnstable()
	f.behind += bytes
	if cfg.Durable() {
		return
	}
	if p.app.unflushed == 0 {
		p.app.since = now
	}
	if p.app.unflushed += records; p.app.unflushed >= cfg.Log.FlushMessages {
		p.app.unflushed = 0
		p.dir.flusher.mark(p)
	}
}

// raiseStart follows the leader's log start, as far as there is a log here; true when it did. It runs under app.
func (f *Follower) raiseStart(to int64) bool {
	l := f.p.log
	if to = min(to, l.End()); to <= l.StartAsked() {
		return false
	}
	if err := l.RaiseStart(to, f.p.set.now()); err != nil {
		f.p.set.storageError(f.p, err)
		return false
	}
	return true
}

// Sync makes durable what the followers appended: one round for each log directory. Disk errors take the
// directory offline; its followers are then over.
func (s *Set) Sync(fs []*Follower) {
	var logs []*storage.Log
	var of []*Partition
	for _, d := range s.dirs {
		logs, of = logs[:0], of[:0]
		for _, f := range fs {
			if f.p.dir == d {
				logs, of = append(logs, f.p.log), append(of, f.p)
				f.p.app.Lock()
				f.behind = 0
				f.p.app.Unlock()
			}
		}
		if len(logs) == 0 {
			continue
		}
		for i, err := range d.d.SyncMany(logs, inParallel) {
			if err != nil {
				s.storageError(of[i], err)
			}
		}
		// Log starts taken over from leaders count once they are durable; a client's DeleteRecords waits for that.
		s.dirError(d, "checkpoint of log starts", d.d.CheckpointStarts())
	}
}
