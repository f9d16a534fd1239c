package partition

import (
	"slices"
	"sync"

	"github.com/milena-mq/milena/internal/meta"
)

// Placement is a replica here that lies in another log directory than the image says, to be told to the controller
// (AssignReplicasToDirs, KIP-858): only then can it move the leadership off that directory when it fails.
type Placement struct {
	Dir       meta.UUID
	Topic     meta.UUID
	Partition int32
}

// placements is where the image is behind. An entry goes when the image has caught up or the replica is gone.
type placements struct {
	mu struct {
		sync.Mutex
		of map[replica]meta.UUID
	}
	ready chan struct{} // capacity 1
}

func newPlacements() placements { return placements{ready: make(chan struct{}, 1)} }

// PlacementsReady delivers when there is something new in Placements.
func (s *Set) PlacementsReady() <-chan struct{} { return s.places.ready }

// Placements lists what the controller does not know yet; it has to be told until the list is empty.
func (s *Set) Placements() []Placement {
	s.places.mu.Lock()
	defer s.places.mu.Unlock()
	out := make([]Placement, 0, len(s.places.mu.of))
	for r, d := range s.places.mu.of {
		out = append(out, Placement{Dir: d, Topic: r.id, Partition: r.n})
	}
	return out
}

// place compares where a replica lies with its record. A broker with one log directory says nothing: when that one
// fails the broker is gone with it. It runs under apply.
func (s *Set) place(p *Partition, rec *meta.Partition) {
	id := p.dir.d.ID()
	told := meta.UUID{}
	if i := slices.Index(rec.Replicas, s.o.NodeID); i >= 0 && i < len(rec.Dirs) {
		told = rec.Dirs[i]
	}
	r := replica{p.id, p.tp.Partition}
	s.places.mu.Lock()
	defer s.places.mu.Unlock()
	if told == id || told.IsZero() && len(s.dirs)+len(s.o.Offline) < 2 {
		delete(s.places.mu.of, r)
		return
	}
	if s.places.mu.of == nil {
		s.places.mu.of = make(map[replica]meta.UUID)
	}
	if s.places.mu.of[r] != id {
		s.places.mu.of[r] = id
		signal(s.places.ready)
	}
}

// unplace forgets a replica that is gone.
func (s *Set) unplace(p *Partition) {
	s.places.mu.Lock()
	defer s.places.mu.Unlock()
	delete(s.places.mu.of, replica{p.id, p.tp.Partition})
}
