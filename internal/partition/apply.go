package partition

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/storage"
)

// Load opens and recovers every log in every log directory. The image may be nil: the logs are then
// recovered under the broker's defaults and get their own configuration with the first Apply, so that a
// broker can recover its logs while its coordination store starts.
func (s *Set) Load(im *meta.Image) error {
	if im == nil {
		im = meta.Empty()
	}
	threads := int(config.NumRecoveryThreadsPerDataDir.Of(*s.broker.Load()))
	now := s.now()
	errs := make([]error, len(s.dirs))
	var mu sync.Mutex
	inParallel(len(s.dirs), func(i int) {
		d := s.dirs[i]
		logs, err := d.d.Load(parallel(threads), now, func(tp meta.TopicPartition, _ meta.UUID) storage.LogConfig {
			return ReadConfig(s.layers(im, tp.Topic)).Log
		})
		if err != nil {
			errs[i] = fmt.Errorf("load log directory %s: %w", d.d.Path(), err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, l := range logs {
			errs[i] = errors.Join(errs[i], s.loaded(d, l, now))
		}
	})
	return errors.Join(errs...)
}

// loaded notes a log that was found on disk. Of two of one partition, which a move cut short between two directories leaves, the
// older one is deleted, durably, before anything is appended to the other.
func (s *Set) loaded(d *dir, l *storage.Log, now int64) error {
	r := replica{l.TopicID(), l.TopicPartition().Partition}
	if r.id == (meta.UUID{}) {
		s.apply.nameless = append(s.apply.nameless, &loadedLog{d, l})
		return nil
	}
	o := s.apply.loaded[r]
	if o == nil {
		s.apply.loaded[r] = &loadedLog{d, l}
		return nil
	}
	older, newer := o, &loadedLog{d, l}
	if storage.Newer(o.l, l) == o.l {
		older, newer = newer, o
	}
	s.o.Log.Warn("partition found in two log directories, the older log is deleted", "partition", l.TopicPartition().String(),
		"kept", newer.d.d.Path(), "end", newer.l.End(), "deleted", older.d.d.Path(), "its_end", older.l.End())
	s.apply.loaded[r] = newer
	if err := older.d.d.Delete(older.l, now); err != nil {
		return fmt.Errorf("delete the older log of %s in %s: %w", l.TopicPartition(), older.d.d.Path(), err)
	}
	return nil
}

// Apply carries out what the image says. A nil delta means everything: the first call after Load, which
// also removes the logs that the image does not place here. Otherwise the delta is what came since the
// previous call. Disk errors take a log directory offline and are no error of Apply.
func (s *Set) Apply(im *meta.Image, d *meta.Delta) {
	s.apply.Lock()
	defer s.apply.Unlock()
	s.apply.image = im
	if d == nil || len(d.Configs) > 0 {
		l := s.layers(im, "")
		s.broker.Store(&l)
		s.readRates()
	}
	was := s.apply.view
	if d == nil || !s.apply.started || len(d.Configs) > 0 || len(d.Brokers) > 0 {
		s.apply.view = s.look(im)
		s.lag.Store(int64(s.apply.view.lag))
	}
	if d == nil || !s.apply.started {
		// Strays first: a topic deleted and created again while this broker was down has their name.
		s.removeStrays(im)
		s.carry(s.everything(im))
		s.apply.started = true
		s.resumeMoves()
		return
	}
	// Deletions first: a topic deleted and created again under its name comes as two entries.
	for _, id := range d.TopicIDs() {
		if d.Topics[id].New == nil {
			s.remove(id)
		}
	}
	var ws []*work
	for _, id := range d.TopicIDs() {
		if td := d.Topics[id]; td.New != nil {
			ws = append(ws, s.prepare(im, td.New, td.Partitions))
		}
	}
	s.carry(ws)
	for _, t := range s.configured(d) {
		s.configure(im, t)
	}
	switch now := &s.apply.view; {
	case now.present != was.present || now.unfenced != was.unfenced:
		s.carry(s.everything(im))
	case len(d.Brokers) > 0 || now.lag != was.lag:
		for _, p := range s.all() {
			p.refresh(now)
		}
	}
}

func (s *Set) everything(im *meta.Image) []*work {
	var ws []*work
	for _, t := range im.Topics() {
		ws = append(ws, s.prepare(im, t, nil))
	}
	return ws
}

// configured lists the hosted topics whose configuration a delta touches.
func (s *Set) configured(d *meta.Delta) []*topic {
	if len(d.Configs) == 0 {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []*topic
	for r := range d.Configs {
		switch {
		case r.Type == meta.ResourceTopic:
			if t := s.mu.byName[r.Name]; t != nil {
				out = append(out, t)
			}
		case r.Type == meta.ResourceBroker && (r.Name == "" || r.Name == s.self):
			out = out[:0]
			for _, t := range s.mu.byID {
				out = append(out, t)
			}
			return out
		}
	}
	return out
}

// configure reads a topic's configuration again and hands it to its logs.
func (s *Set) configure(im *meta.Image, t *topic) {
	old, c := t.cfg.Load(), ReadConfig(s.layers(im, t.name))
	if *old == c {
		return
	}
	t.cfg.Store(&c)
	s.countTimed(old, &c)
	for _, p := range t.parts { // parts change under apply only, which is held
		if p == nil {
			continue
		}
		p.log.SetConfig(c.Log)
		p.setThrottled(&c)
		if old.MinISR != c.MinISR {
			p.refresh(&s.apply.view)
		}
		if c.Durable() && !old.Durable() {
			p.dir.flusher.mark(p) // what was acknowledged from memory becomes durable now
		}
	}
}

func (s *Set) countTimed(old, c *Config) {
	if old != nil && old.flushesByTime() {
		s.timed.Add(-1)
	}
	if c != nil && c.flushesByTime() {
		s.timed.Add(1)
	}
}

// job is one partition that upsert works on.
type job struct {
	n       int32
	t       *topic
	rec     *meta.Partition
	p       *Partition
	d       *dir // where to create it
	fresh   bool // p is not published yet
	want    role
	changed bool
	err     error
}

// work is what an image asks of one topic.
type work struct {
	t    *topic
	mt   *meta.Topic
	jobs []job
}

// upsert creates or changes the given partitions of a topic, nil for all.
func (s *Set) upsert(im *meta.Image, mt *meta.Topic, nums []int32) {
	s.carry([]*work{s.prepare(im, mt, nums)})
}

// prepare plans what upsert has to do.
func (s *Set) prepare(im *meta.Image, mt *meta.Topic, nums []int32) *work {
	s.mu.RLock()
	t := s.mu.byID[mt.ID]
	s.mu.RUnlock()
	if t == nil {
		t = &topic{id: mt.ID, name: mt.Name}
		c := ReadConfig(s.layers(im, mt.Name))
		t.cfg.Store(&c)
		s.countTimed(nil, &c)
	}
	if nums == nil {
		for n := range mt.Partitions {
			nums = append(nums, int32(n))
		}
	}
	return &work{t, mt, s.plan(t, mt, nums)}
}

// carry does what was prepared, for all topics at once: the epochs of the partitions that this broker begins to lead
// become durable together. One after the other they would cost two syncs each, while nobody can write to any of them.
func (s *Set) carry(ws []*work) {
	var jobs []*job
	for _, w := range ws {
		for i := range w.jobs {
			w.jobs[i].t = w.t
			jobs = append(jobs, &w.jobs[i])
		}
	}
	inParallel(len(jobs), func(i int) {
		j := jobs[i]
		if j.p == nil && j.d != nil {
			j.p, j.fresh = s.create(j.t, j), true
		}
		if j.p != nil {
			j.want, j.changed = j.p.resign(s.o.NodeID, &s.apply.view, j.rec)
		}
	})
	s.beginEpochs(jobs)
	inParallel(len(jobs), func(i int) {
		if j := jobs[i]; j.changed && j.err == nil {
			j.p.take(s.o.NodeID, &s.apply.view, j.rec, j.want)
		}
	})
	for _, w := range ws {
		s.publish(w.t, w.mt, w.jobs)
		for _, j := range w.jobs {
			if j.p != nil {
				s.place(j.p, j.rec)
			}
			if j.changed {
				s.tell(j.p)
			}
		}
	}
}

// beginEpochs makes the leader epochs durable that this broker is about to lead. Synced before the first append: a leader
// whose epoch is not on disk would, after a crash, let followers keep what it never had (trap 11).
func (s *Set) beginEpochs(jobs []*job) {
	for _, d := range s.dirs {
		var logs []*storage.Log
		var epochs []int32
		var of []*job
		for _, j := range jobs {
			if j.changed && j.want == roleLead && j.p.dir == d {
				logs, epochs, of = append(logs, j.p.log), append(epochs, j.rec.LeaderEpoch), append(of, j)
			}
		}
		for i, err := range d.d.AssignEpochs(logs, epochs, inParallel) {
			if err != nil {
				of[i].err = err // an error of the disk takes the directory offline; a full one may have room later
				s.unled.Store(true)
				s.storageError(of[i].p, err)
			}
		}
	}
}

// plan finds what has to be done, and a log directory for each new partition. It also removes what the
// image does not place here any more.
func (s *Set) plan(t *topic, mt *meta.Topic, nums []int32) []job {
	var jobs []job
	for _, n := range nums {
		if int(n) >= len(mt.Partitions) {
			continue
		}
		rec := mt.Partitions[n]
		j := job{n: n, rec: rec}
		if int(n) < len(t.parts) {
			j.p = t.parts[n]
		}
		if !slices.Contains(rec.Replicas, s.o.NodeID) {
			if j.p != nil {
				s.drop(t, j.p)
			}
			continue
		}
		if j.p == nil {
			r := replica{t.id, n}
			switch l := s.apply.loaded[r]; {
			case l != nil:
				delete(s.apply.loaded, r)
				j.p, j.fresh = newPartition(s, l.d, t, l.l), true
				l.l.SetConfig(t.cfg.Load().Log)
				l.d.count.Add(1)
			case s.quarantined(t.name, n) && !s.discard(t.name, n, rec):
				// Damaged below its durable mark, and nobody is known to have it all. It is repaired by hand; an empty
				// log in its place, in another directory, would hide the loss.
			case !s.apply.started && s.anyOffline():
				// It may lie on the disk that is not there. An empty replica in its place would make
				// acknowledged records disappear.
			default:
				j.d = s.choose(rec)
				if j.d != nil {
					j.d.count.Add(1)
				}
			}
		}
		jobs = append(jobs, j)
	}
	return jobs
}

// choose picks the directory that the image names, else the one with the fewest partitions.
func (s *Set) choose(rec *meta.Partition) *dir {
	var best *dir
	for _, d := range s.dirs {
		if d.failed.Load() {
			continue
		}
		for i, id := range rec.Replicas {
			if id == s.o.NodeID && i < len(rec.Dirs) && rec.Dirs[i] == d.d.ID() {
				return d
			}
		}
		if best == nil || d.count.Load() < best.count.Load() {
			best = d
		}
	}
	return best
}

func (s *Set) quarantined(topic string, n int32) bool {
	tp := meta.TopicPartition{Topic: topic, Partition: n}
	for _, d := range s.dirs {
		for _, q := range d.d.Quarantined() {
			if q.TopicPartition == tp {
				return true
			}
		}
	}
	return false
}

// keepDamaged is how long the bytes of a replica that is fetched again stay on the disk, for whoever wants to look.
const keepDamaged = 24 * 3600 * 1000

// discard gives up the damaged log of a replica that others can make whole: somebody else leads, and this broker
// counts neither as in sync nor as eligible to lead, so that nothing depends on what it had. It comes back as any new
// replica does.
func (s *Set) discard(topic string, n int32, rec *meta.Partition) bool {
	self := s.o.NodeID
	if rec.Leader < 0 || rec.Leader == self || slices.Contains(rec.ISR, self) || slices.Contains(rec.ELR, self) || slices.Contains(rec.LastKnownELR, self) {
		return false
	}
	tp := meta.TopicPartition{Topic: topic, Partition: n}
	for _, d := range s.dirs {
		for _, q := range d.d.Quarantined() {
			if q.TopicPartition != tp {
				continue
			}
			if err := d.d.Discard(tp, s.now(), keepDamaged); err != nil {
				s.dirError(d, "give up the damaged log of "+tp.String(), err)
				return false
			}
			s.o.Log.Warn("damaged replica is fetched again from its leader", "partition", tp.String(), "dir", d.d.Path(), "leader", rec.Leader, "err", q.Err)
		}
	}
	return true
}

func (s *Set) anyOffline() bool {
	return len(s.o.Offline) > 0 || slices.ContainsFunc(s.dirs, func(d *dir) bool { return d.failed.Load() })
}

func (s *Set) create(t *topic, j *job) *Partition {
	tp := meta.TopicPartition{Topic: t.name, Partition: j.n}
	l, err := j.d.d.Create(tp, t.id, t.cfg.Load().Log, s.now())
	if err != nil {
		j.d.count.Add(-1)
		s.o.Log.Error("create partition", "partition", tp.String(), "dir", j.d.d.Path(), "err", err)
		if errors.Is(err, storage.ErrOffline) {
			s.dirFailed(j.d, err)
		}
		return nil
	}
	return newPartition(s, j.d, t, l)
}

// publish makes the partitions findable.
func (s *Set) publish(t *topic, mt *meta.Topic, jobs []job) {
	s.mu.Lock()
	parts, absent := slices.Clone(t.parts), slices.Clone(t.absent)
	for len(parts) < len(mt.Partitions) {
		parts, absent = append(parts, nil), append(absent, false)
	}
	for _, j := range jobs {
		parts[j.n] = j.p
		if was, is := absent[j.n], j.p == nil; was != is {
			absent[j.n] = is
			if is {
				s.missing.Add(1)
			} else {
				s.missing.Add(-1)
			}
		}
	}
	t.parts, t.absent = parts, absent
	s.mu.byID[t.id] = t
	s.mu.byName[t.name] = t
	s.mu.Unlock()
	for _, j := range jobs {
		// The disk may have failed after the partition was made and before it could be found.
		if j.p != nil && j.p.dir.failed.Load() {
			j.p.fail(kerr.KafkaStorageError)
		}
	}
}

// tell calls the subscribers of a partition's topic, and those of followers.
func (s *Set) tell(p *Partition) {
	f := p.Follower()
	for _, fn := range s.apply.follow {
		fn(p, f)
	}
	subs := s.apply.subs[p.tp.Topic]
	if len(subs) == 0 {
		return
	}
	epoch, leads := p.Leader()
	for _, fn := range subs {
		fn(LeadershipChange{Partition: p, Epoch: epoch, Leads: leads})
	}
}

// tellLost tells the subscribers of the partitions whose disk failed. It is not done where the failure is
// noticed: that is under the lock of a partition, or on a flusher that others wait for.
func (s *Set) tellLost() {
	s.apply.Lock()
	defer s.apply.Unlock()
	if !s.lost.Swap(false) {
		return
	}
	for _, p := range s.all() {
		if p.dir.failed.Load() {
			s.tell(p)
		}
	}
}

// remove deletes a topic's replicas.
func (s *Set) remove(id meta.UUID) {
	s.mu.Lock()
	t := s.mu.byID[id]
	if t != nil {
		delete(s.mu.byID, id)
		if s.mu.byName[t.name] == t {
			delete(s.mu.byName, t.name)
		}
	}
	s.mu.Unlock()
	if t == nil {
		return
	}
	s.countTimed(t.cfg.Load(), nil)
	for _, a := range t.absent {
		if a {
			s.missing.Add(-1)
		}
	}
	inParallel(len(t.parts), func(i int) {
		if p := t.parts[i]; p != nil {
			s.delete(p)
		}
	})
	s.syncRemoved()
	for _, p := range t.parts {
		if p != nil {
			s.tell(p)
		}
	}
}

// syncRemoved makes deletions durable, once for all of them, before anybody is told.
func (s *Set) syncRemoved() {
	for _, d := range s.dirs {
		if !d.failed.Load() {
			s.dirError(d, "delete partitions", d.d.SyncRemoved())
		}
	}
}

// drop removes one replica of a topic that stays.
func (s *Set) drop(t *topic, p *Partition) {
	s.mu.Lock()
	t.parts = slices.Clone(t.parts)
	t.parts[p.tp.Partition] = nil
	s.mu.Unlock()
	s.delete(p)
	s.syncRemoved()
	s.tell(p)
}

// delete ends everybody who waits, then renames the log out of the way; Housekeep unlinks it later. The
// caller makes the rename durable with syncRemoved.
func (s *Set) delete(p *Partition) {
	s.cancelMove(p)
	p.fail(kerr.NotLeaderForPartition)
	p.app.Lock() // an append in progress ends first
	defer p.app.Unlock()
	p.dir.count.Add(-1)
	s.unplace(p)
	if p.dir.failed.Load() {
		return
	}
	if err := p.dir.d.Remove(p.log, s.now()); err != nil {
		s.o.Log.Error("delete partition", "partition", p.tp.String(), "err", err)
		s.storageError(p, err)
	}
}

// removeStrays deletes the logs on disk that the first image does not place here: of topics deleted
// while this broker was down.
func (s *Set) removeStrays(im *meta.Image) {
	for r, l := range s.apply.loaded {
		t := im.TopicByID(r.id)
		if t != nil && int(r.n) < len(t.Partitions) && slices.Contains(t.Partitions[r.n].Replicas, s.o.NodeID) {
			continue
		}
		delete(s.apply.loaded, r)
		s.removeStray(l)
	}
	for _, l := range s.apply.nameless {
		s.removeStray(l)
	}
	s.apply.nameless = nil
	s.syncRemoved()
}

func (s *Set) removeStray(l *loadedLog) {
	tp := l.l.TopicPartition().String()
	s.o.Log.Warn("stray partition removed", "partition", tp, "topic_id", l.l.TopicID().String(), "dir", l.d.d.Path())
	s.dirError(l.d, "delete stray partition "+tp, l.d.d.Remove(l.l, s.now()))
}

// retry leads what could not be led and creates the replicas that could not be created before, for example because the disk was full.
func (s *Set) retry() {
	s.apply.Lock()
	defer s.apply.Unlock()
	im := s.apply.image
	if im == nil {
		return
	}
	if s.unled.Swap(false) {
		s.leadAgain(im)
	}
	if s.anyOffline() {
		return
	}
	s.mu.RLock()
	topics := map[*topic][]int32{}
	for _, t := range s.mu.byID {
		for n, a := range t.absent {
			if a {
				topics[t] = append(topics[t], int32(n))
			}
		}
	}
	s.mu.RUnlock()
	for t, nums := range topics {
		if mt := im.TopicByID(t.id); mt != nil {
			s.upsert(im, mt, nums)
		}
	}
}

// leadAgain takes over the partitions that the image gives to this broker and whose epoch could not be written down.
func (s *Set) leadAgain(im *meta.Image) {
	nums := map[*meta.Topic][]int32{}
	for _, p := range s.all() {
		mt := im.TopicByID(p.id)
		if mt == nil || int(p.tp.Partition) >= len(mt.Partitions) {
			continue
		}
		p.mu.Lock()
		due := p.mu.gone == nil && p.roleLocked() == roleNone
		p.mu.Unlock()
		if due && s.apply.view.role(s.o.NodeID, mt.Partitions[p.tp.Partition]) == roleLead {
			nums[mt] = append(nums[mt], p.tp.Partition)
		}
	}
	var ws []*work
	for mt, n := range nums {
		ws = append(ws, s.prepare(im, mt, n))
	}
	s.carry(ws)
}
