package partition

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/milena-mq/milena/internal/isr"
)

// Proposal is the wish of a leader here to change the in-sync set of its partition, to be sent to the
// controller (AlterPartition) and answered with Partition.Answered.
type Proposal struct {
	Partition *Partition
	isr.Proposal
}

// proposals is what the leaders of a Set wish for and nobody has taken yet.
type proposals struct {
	mu struct {
		sync.Mutex
		list  []Proposal
		retry bool // an answer said nothing: some leader wants to repeat
	}
	shrinks, expands atomic.Int64

	ready chan struct{} // capacity 1
	again chan struct{} // capacity 1: wakes the ticker
}

func newProposals() *proposals {
	return &proposals{ready: make(chan struct{}, 1), again: make(chan struct{}, 1)}
}

// propose is called under the partition's lock.
func (s *Set) propose(p *Partition, pr *isr.Proposal) {
	if len(pr.ISR) < len(p.mu.leader.Assignment().ISR) {
		s.props.shrinks.Add(1)
	} else {
		s.props.expands.Add(1)
	}
	s.props.mu.Lock()
	s.props.mu.list = append(s.props.mu.list, Proposal{p, *pr})
	s.props.mu.Unlock()
	signal(s.props.ready)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// ProposalsReady delivers when TakeProposals has something.
func (s *Set) ProposalsReady() <-chan struct{} { return s.props.ready }

// TakeProposals hands over what the leaders wish for. There is one proposal in flight for each partition;
// the next comes when it is answered or the image has moved.
func (s *Set) TakeProposals() []Proposal {
	s.props.mu.Lock()
	defer s.props.mu.Unlock()
	out := s.props.mu.list
	s.props.mu.list = nil
	return out
}

// Answered tells a leader what became of its proposal seq: isr.AnswerOf the partition's error code, or
// isr.Failed when no answer came. A failed one is proposed again, 50 ms later.
func (p *Partition) Answered(seq int64, a isr.Answer) {
	if a == isr.Committed {
		// The grant counts when the image shows it, and not before: the high watermark may pass a member
		// that has left only together with what else changed in the cluster meanwhile, such as a higher
		// min.insync.replicas or a new leader (see control.AlterPartition). Until then old and new set count.
		a = isr.Superseded
	}
	p.mu.Lock()
	if p.mu.leader == nil {
		p.mu.Unlock()
		return
	}
	p.stepAndUnlock(isr.In{Kind: isr.Answered, Seq: seq, Answer: a})
	if a == isr.Failed {
		s := p.set
		s.props.mu.Lock()
		s.props.mu.retry = true
		s.props.mu.Unlock()
		signal(s.props.again)
	}
}

// The rests of the ticker: between looks for followers that fall behind, and before proposals are repeated.
const (
	minTick   = 10 * time.Millisecond
	maxTick   = time.Second
	retryTick = 60 * time.Millisecond
)

// ticker is the clock of all leaders: one timer for the whole Set, since a timer for each of thousands of
// partitions would fire all day for followers that never fall behind.
func (s *Set) ticker() {
	t := time.NewTimer(maxTick)
	defer t.Stop()
	for {
		rest := s.tickRest()
		select {
		case <-s.stop:
			return
		case <-t.C:
		case <-s.props.again:
			rest = min(rest, retryTick)
			t.Reset(rest)
			continue
		}
		s.props.mu.Lock()
		s.props.mu.retry = false
		s.props.mu.Unlock()
		s.tickAll()
		s.props.mu.Lock()
		if s.props.mu.retry {
			rest = min(rest, retryTick)
		}
		s.props.mu.Unlock()
		t.Reset(rest)
	}
}

// tickRest is a quarter of replica.lag.time.max.ms: the machine looks every half of it.
func (s *Set) tickRest() time.Duration {
	return min(max(time.Duration(s.lag.Load())/4, minTick), maxTick)
}

func (s *Set) tickAll() {
	for _, p := range s.all() {
		p.tick()
	}
}
