package partition

import (
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/storage"
)

// Moving replicas between the log directories of this broker (AlterReplicaLogDirs, KIP-113). One goroutine copies, a chunk of
// each move in turn. When a copy has caught up, appends are held up for the rest of it, the new log takes the old one's place, and
// a new Partition the old Partition's: clients are told NOT_LEADER_OR_FOLLOWER once, and come back.

const (
	moveChunk = 1 << 20  // bytes copied at a time
	moveSync  = 32 << 20 // bytes between two syncs of a copy
	// moveRounds bounds how often the end is looked for while appends are held up. Each round copies a chunk at most.
	moveRounds = 4
)

// move is one replica on its way.
type move struct {
	p        *Partition
	to       *dir
	future   *storage.Log
	unsynced int64
	told     bool // a failure that may pass was logged
}

// moves is the replicas on their way, by partition. The map is written under Set.apply too.
type moves struct {
	mu struct {
		sync.Mutex
		of map[*Partition]*move
	}
	wake chan struct{} // capacity 1
}

func newMoves() *moves {
	m := &moves{wake: make(chan struct{}, 1)}
	m.mu.of = map[*Partition]*move{}
	return m
}

func (m *moves) get(p *Partition) *move {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.of[p]
}

func (m *moves) put(x *move) {
	m.mu.Lock()
	m.mu.of[x.p] = x
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *moves) take(p *Partition) *move {
	m.mu.Lock()
	defer m.mu.Unlock()
	x := m.mu.of[p]
	delete(m.mu.of, p)
	return x
}

func (m *moves) list() []*move {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*move, 0, len(m.mu.of))
	for _, x := range m.mu.of {
		out = append(out, x)
	}
	return out
}

// Move begins to move a replica to the log directory at path; it goes on after a restart. To where the replica is, it ends a
// move under way. Errors: LOG_DIR_NOT_FOUND for a path that is no log directory, KAFKA_STORAGE_ERROR for one that is offline
// or a replica on a failed disk, REPLICA_NOT_AVAILABLE when there is no such replica here.
func (s *Set) Move(topic string, n int32, path string) error {
	s.apply.Lock()
	defer s.apply.Unlock()
	to, err := s.dirAt(path)
	if err != nil {
		return err
	}
	p, err := s.Get(topic, n)
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return kerr.ReplicaNotAvailable
	case err != nil:
		return err
	case p.dir.failed.Load():
		return kerr.KafkaStorageError
	}
	if x := s.moves.get(p); x != nil {
		if x.to == to {
			return nil
		}
		s.cancelMove(p)
	}
	if p.dir == to {
		return nil
	}
	future, err := to.d.CreateFuture(p.log, s.now())
	if err != nil {
		s.dirError(to, "move "+p.tp.String(), err)
		return kerr.KafkaStorageError
	}
	s.o.Log.Info("replica moves to another log directory", "partition", p.tp.String(), "from", p.dir.d.Path(), "to", to.d.Path())
	s.moves.put(&move{p: p, to: to, future: future})
	return nil
}

func (s *Set) dirAt(path string) (*dir, error) {
	path = filepath.Clean(path)
	for _, d := range s.dirs {
		if filepath.Clean(d.d.Path()) == path {
			if d.failed.Load() {
				return nil, kerr.KafkaStorageError
			}
			return d, nil
		}
	}
	if slices.ContainsFunc(s.o.Offline, func(o string) bool { return filepath.Clean(o) == path }) {
		return nil, kerr.KafkaStorageError
	}
	return nil, kerr.LogDirNotFound
}

// cancelMove gives up a move and its copy. It runs under apply.
func (s *Set) cancelMove(p *Partition) {
	x := s.moves.take(p)
	if x == nil || x.to.failed.Load() {
		return
	}
	if err := x.to.d.Delete(x.future, s.now()); !errors.Is(err, storage.ErrClosed) {
		s.dirError(x.to, "give up the move of "+p.tp.String(), err)
	}
}

// resumeMoves goes on with the copies that the disks had at the start. It runs under apply, after the first image.
func (s *Set) resumeMoves() {
	for _, d := range s.dirs {
		for _, future := range d.d.Futures() {
			tp := future.TopicPartition()
			p, err := s.GetByID(future.TopicID(), tp.Partition)
			if err != nil || p.dir == d || s.moves.get(p) != nil {
				s.o.Log.Info("half-made copy of a replica removed", "partition", tp.String(), "dir", d.d.Path())
				s.dirError(d, "remove a copy of "+tp.String(), d.d.Delete(future, s.now()))
				continue
			}
			s.moves.put(&move{p: p, to: d, future: future})
		}
	}
}

// mover copies what is on its way until the Set closes.
func (s *Set) mover() {
	pace := brake(s.stop, func() float64 {
		return float64(config.ReplicaAlterLogDirsIoMaxBytesPerSecond.Of(*s.broker.Load()))
	})
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.moves.wake:
		case <-t.C:
		}
		rest := time.Duration(0)
		for rest == 0 && len(s.moves.list()) > 0 {
			rest = time.Second
			for _, x := range s.moves.list() {
				n, again := s.moveOn(x)
				if again {
					rest = 0
				}
				if pace(n) != nil {
					return
				}
			}
		}
		if rest > 0 {
			t.Reset(rest) // a full disk, perhaps
		}
	}
}

// moveOn copies one chunk. again: there is more to do at once.
func (s *Set) moveOn(x *move) (n int64, again bool) {
	if x.to.failed.Load() || x.p.dir.failed.Load() {
		s.giveUp(x, kerr.KafkaStorageError)
		return 0, true
	}
	n, caught, err := x.future.CopyFrom(x.p.log, moveChunk, s.now())
	x.unsynced += n
	if err == nil && (caught || x.unsynced >= moveSync) {
		x.unsynced = 0
		err = x.future.Flush() // so that little is left to be synced while appends are held up
	}
	switch {
	case err == nil && caught:
		return n, s.arrive(x)
	case err == nil:
		return n, true
	case errors.Is(err, storage.ErrReserve):
		if !x.told {
			x.told = true
			s.o.Log.Warn("the move of a replica waits for room on the disk", "partition", x.p.tp.String(), "to", x.to.d.Path(), "err", err)
		}
		return n, false
	case x.to.d.Offline() != nil:
		s.dirError(x.to, "move "+x.p.tp.String(), err)
	}
	s.giveUp(x, err)
	return n, true
}

// giveUp ends a move that cannot go on. One that is not listed any more was given up by somebody else.
func (s *Set) giveUp(x *move, err error) {
	s.apply.Lock()
	defer s.apply.Unlock()
	if s.moves.get(x.p) != x {
		return
	}
	s.o.Log.Error("the move of a replica is given up", "partition", x.p.tp.String(), "to", x.to.d.Path(), "err", err)
	s.cancelMove(x.p)
}

// arrive lets the copy take the place of the replica, if it gets hold of the end. again: look at once whether there is more to do.
func (s *Set) arrive(x *move) (again bool) {
	s.apply.Lock()
	defer s.apply.Unlock()
	old := x.p
	if s.moves.get(old) != x {
		return true
	}
	moved, again, err := s.swap(x)
	if err == nil && !moved {
		return again
	}
	p := s.replace(x, moved)
	s.tell(old)
	s.tell(p)
	if moved {
		s.moves.take(old)
		s.o.Log.Info("replica moved to another log directory", "partition", p.tp.String(), "from", old.dir.d.Path(), "to", x.to.d.Path(), "end", p.LogEnd())
		return true
	}
	s.o.Log.Error("the move of a replica is given up", "partition", p.tp.String(), "to", x.to.d.Path(), "err", err)
	s.dirError(x.to, "move "+p.tp.String(), err)
	s.cancelMove(old)
	return true
}

// swap ends the old Partition and puts the new log in the old one's place. Not moved and no error: nothing has happened; again says
// that only the time was too short.
func (s *Set) swap(x *move) (moved, again bool, err error) {
	old := x.p
	old.app.Lock()
	defer old.app.Unlock()
	for n := 0; ; n++ {
		_, caught, err := x.future.CopyFrom(old.log, moveChunk, s.now())
		if err != nil || n == moveRounds {
			return false, err == nil, nil
		}
		if caught {
			break
		}
	}
	if x.to.d.CheckpointStarts() != nil || x.future.Flush() != nil || old.dir.failed.Load() {
		return false, false, nil // a full disk, or one that failed: the next round sees
	}
	if x.future.Start() != old.log.Start() {
		return false, true, nil // retention raised it just now
	}
	// Nobody is acknowledged or served by the old log from here on.
	old.fail(kerr.NotLeaderForPartition)
	if err := x.to.d.Promote(x.future, old.log, s.now()); err != nil {
		return false, true, err
	}
	return true, true, nil
}

// replace makes a Partition on the log that counts now and publishes it. It runs under apply.
func (s *Set) replace(x *move, moved bool) *Partition {
	d, l, t := x.p.dir, x.p.log, x.p.topic
	if moved {
		d.count.Add(-1)
		d, l = x.to, x.future
		d.count.Add(1)
	}
	l.SetConfig(t.cfg.Load().Log)
	p := newPartition(s, d, t, l)
	if mt := s.apply.image.TopicByID(t.id); mt != nil && int(p.tp.Partition) < len(mt.Partitions) {
		rec := mt.Partitions[p.tp.Partition]
		_, _ = p.assign(s.o.NodeID, &s.apply.view, rec) // an error has taken the disk offline
		s.place(p, rec)
	}
	s.mu.Lock()
	t.parts = slices.Clone(t.parts)
	t.parts[p.tp.Partition] = p
	s.mu.Unlock()
	if d.failed.Load() {
		p.fail(kerr.KafkaStorageError) // it failed after the partition was made and before it could be found
	}
	return p
}
