package sim

import (
	"errors"
	"slices"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/det"
	"github.com/milena-mq/milena/internal/isr"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/storage"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

const (
	lagMax     = 150 // replica.lag.time.max.ms of the simulated brokers
	sessionMs  = 250 // broker.session.timeout.ms
	dirsOfEach = 2
)

// broker is one process and its disks: the shell that packages partition, replica, member and controller
// are in a real broker.
type broker struct {
	w      *World
	id     int32
	disks  []*disk
	up     bool
	frozen det.Instant // until then it does nothing
	life   int         // incarnation; what an earlier one planned or was sent as an answer is void
	uuid   meta.UUID   // the same, as the cluster knows it
	epoch  int64       // broker epoch, 0: not registered
	clean  int64       // broker epoch in the mark of a clean shutdown, -1: none

	leaving bool // it shuts down

	im       *meta.Image // nil: nothing read yet
	newest   int64       // revision that the store has told of
	view     view
	waiting  []waiting
	replicas []*replica
	live     *control.Liveness
	ctl      *controller
}

// disk holds one log directory.
type disk struct {
	fs     *memfs.FS
	err    *errfs.FS
	dir    *storage.Dir
	sick   bool // writes and syncs fail
	failed bool // the broker has noticed
}

// waiting is what happens once the image has a revision.
type waiting struct {
	rev int64
	do  func()
}

// view is what a broker reads out of an image for all its partitions.
type view struct {
	present, unfenced bool // the image shows this very process; and it takes part
	brokers           []isr.Broker
	minISR            int32
}

func newBroker(w *World, id int32) *broker {
	b := &broker{w: w, id: id}
	for range dirsOfEach {
		b.disks = append(b.disks, &disk{fs: memfs.New()})
	}
	return b
}

func logConfig() storage.LogConfig {
	c := storage.DefaultLogConfig()
	c.SegmentBytes, c.IndexIntervalBytes, c.RetentionMs = 8<<10, 1<<10, -1
	return c
}

// local runs something of this incarnation later; a frozen process does it when it thaws.
func (b *broker) local(d int, do func()) {
	life := b.life
	var run func()
	run = func() {
		switch {
		case !b.up || b.life != life:
		case b.frozen > b.w.now:
			b.w.after(b.frozen.Sub(b.w.now), run)
		default:
			do()
		}
	}
	b.w.after(b.w.between(d, 2*d+1), run)
}

// boot starts the process: recovery, then the image, then registration.
func (b *broker) boot() {
	b.life++
	b.uuid = b.w.id()
	b.up, b.frozen, b.leaving = true, 0, false
	b.epoch = 0
	b.im, b.newest, b.waiting, b.view = nil, 0, nil, view{}
	b.replicas = make([]*replica, len(b.w.parts))
	b.live, b.ctl = control.NewLiveness(sessionMs), &controller{b: b}
	b.clean = -1
	for i, d := range b.disks {
		if err := b.open(d, i); err != nil {
			b.w.fail("recovery succeeds", "broker %d: %v", b.id, err)
			return
		}
	}
	b.w.tell("broker %d: up, clean epoch %d, %v", b.id, b.clean, b.replicas)
	b.pull()
	b.register()
	b.local(10, b.beat)
	b.local(60, b.watch)
	b.local(150, b.checkpoint)
}

// watch looks for what the store's word was lost about.
func (b *broker) watch() {
	b.local(60, b.watch)
	b.pull()
}

// open recovers one directory.
func (b *broker) open(d *disk, i int) error {
	fsys, done := b.w.o.Rules.Recover(d.fs)
	defer done()
	d.err, d.sick, d.failed = errfs.New(fsys), false, false
	var err error
	d.dir, err = storage.OpenDir(d.err, "/data", storage.DirOptions{NodeID: b.id, ClusterID: "c", NewID: b.w.id})
	if err != nil {
		return err
	}
	logs, err := d.dir.Load(nil, b.w.now.UnixMilli(), func(meta.TopicPartition, meta.UUID) storage.LogConfig { return logConfig() })
	if err != nil {
		return err
	}
	if q := d.dir.Quarantined(); len(q) > 0 {
		return q[0].Err
	}
	if e, ok := d.dir.CleanEpoch(); ok && (i == 0 || e == b.clean) {
		b.clean = e
	} else {
		b.clean = -1
	}
	for _, l := range logs {
		n := l.TopicPartition().Partition
		if old := b.replicas[n]; old != nil {
			// A replica that came into this directory while the other one was away.
			if storage.Newer(old.log, l) == old.log {
				if err := d.dir.Delete(l, b.w.now.UnixMilli()); err != nil {
					return err
				}
				continue
			}
			if err := old.log.Dir().Delete(old.log, b.w.now.UnixMilli()); err != nil {
				return err
			}
		}
		b.replicas[n] = newReplica(b, n, l, d)
	}
	return nil
}

// heard is the store's word that there is something newer.
func (b *broker) heard(rev int64) {
	if rev > b.newest {
		b.newest = rev
		b.pull()
	}
}

// pull asks the store for what is newer than the own image, again and again.
func (b *broker) pull() {
	life := b.life
	from := int64(-1)
	if b.im != nil {
		from = b.im.Revision()
	}
	b.w.send(b.id, -1, func() {
		to := b.w.store.rev
		b.w.send(-1, b.id, func() {
			if b.life != life {
				return
			}
			// One change after the other, or many at once, as it comes.
			for from >= 0 && b.w.rand.Intn(2) == 0 && b.im.Revision() < to && b.up {
				b.apply(b.w.store.images[b.im.Revision()+1])
			}
			if b.up && (b.im == nil || b.im.Revision() < to) {
				b.apply(b.w.store.images[to])
			}
		})
	})
	if from < 0 || b.im.Revision() < b.newest {
		b.local(30, func() {
			if b.im == nil || b.im.Revision() < b.newest {
				b.pull()
			}
		})
	}
}

// await runs do once the image has the revision.
func (b *broker) await(rev int64, do func()) {
	if b.im != nil && b.im.Revision() >= rev {
		do()
		return
	}
	b.newest = max(b.newest, rev)
	b.waiting = append(b.waiting, waiting{rev, do})
	b.pull()
}

// ask sends something to the broker that is the controller, as far as this one knows.
func (b *broker) ask(do func(c *controller)) {
	to := int32(b.w.rand.Intn(len(b.w.brokers)))
	if b.im != nil && b.w.rand.Intn(8) > 0 {
		if id, _ := b.im.Controller(); id >= 0 {
			to = id
		}
	}
	b.w.send(b.id, to, func() { do(b.w.brokers[to].ctl) })
}

func (b *broker) register() {
	if b.epoch != 0 {
		return
	}
	life := b.life
	r := control.Registration{ID: b.id, Incarnation: b.uuid, Endpoints: endpoints, PreviousEpoch: b.clean, Intact: true}
	for _, d := range b.disks {
		if !d.failed {
			r.Dirs = append(r.Dirs, d.dir.ID())
		}
		r.Intact = r.Intact && !d.failed
	}
	b.ask(func(c *controller) {
		c.register(b, life, r, func(e int64) {
			c.b.w.send(c.b.id, b.id, func() {
				if b.life == life && b.epoch == 0 && e != 0 {
					b.epoch = e
				}
			})
		})
	})
	b.local(40, b.register)
}

// beat goes to every broker, since each of them may become controller.
func (b *broker) beat() {
	b.local(10, b.beat)
	if b.epoch == 0 || b.im == nil {
		return
	}
	m := control.Beat{ID: b.id, Epoch: b.epoch, Seen: b.im.Revision(), Conn: uint64(b.life)<<8 | uint64(b.id) + 1, Shutdown: b.leaving}
	for _, d := range b.disks {
		if d.failed {
			m.LostDirs = append(m.LostDirs, d.dir.ID())
		}
	}
	life, epoch := b.life, b.epoch
	for _, to := range b.w.brokers {
		b.w.send(b.id, to.id, func() {
			if to.im == nil {
				return
			}
			leads, im := to.ctl.serving, to.im
			if leads {
				im = to.ctl.ahead
			}
			p, err := to.live.Beat(im, m, b.w.now.UnixMilli())
			if !leads || err != nil && m.Epoch > im.Revision() {
				return
			}
			b.w.send(to.id, b.id, func() {
				if b.life != life || b.epoch != epoch {
					return
				}
				switch {
				case err != nil:
					b.epoch = 0
					b.register()
				case b.leaving && p.Shutdown:
					b.stopClean()
				}
			})
		})
	}
	b.assignDirs()
}

// assignDirs tells the controller in which directory a replica lives.
func (b *broker) assignDirs() {
	t := b.im.Topic(topicName)
	if t == nil || !b.view.present {
		return
	}
	var wishes []control.DirAssignment
	for n, r := range b.replicas {
		if r == nil || r.rec == nil || r.dead {
			continue
		}
		k := slices.Index(r.rec.Replicas, b.id)
		if k >= 0 && (k >= len(r.rec.Dirs) || r.rec.Dirs[k] != r.disk.dir.ID()) {
			wishes = append(wishes, control.DirAssignment{Dir: r.disk.dir.ID(), Topic: t.ID, Partition: int32(n)})
		}
	}
	if len(wishes) == 0 {
		return
	}
	epoch := b.epoch
	b.ask(func(c *controller) {
		c.do(op{plan: func(cl *control.Cluster) (control.Plan, error) {
			p, _, err := cl.AssignDirs(b.id, epoch, wishes)
			return p, err
		}})
	})
}

// checkpoint is the housekeeping of the log directories.
func (b *broker) checkpoint() {
	b.local(150, b.checkpoint)
	for _, d := range b.disks {
		if d.failed {
			continue
		}
		b.check(d, d.dir.Checkpoint())
		if b.w.shape.Deletes && b.w.rand.Intn(2) == 0 && !d.failed {
			b.check(d, d.dir.Housekeep(b.w.now.UnixMilli(), (*storage.Log).HW))
		}
	}
}

// check takes a directory offline whose disk failed. ok false: do not go on with it.
func (b *broker) check(d *disk, err error) (ok bool) {
	switch {
	case err == nil:
		return true
	case !d.sick || !errors.Is(err, storage.ErrOffline):
		if d.sick && errors.Is(err, storage.ErrClosed) {
			return false
		}
		b.w.fail("the disk works", "broker %d: %v", b.id, err)
	case !d.failed:
		d.failed = true
		b.w.Stats.DirsFailed++
		b.w.tell("broker %d: log directory failed: %v", b.id, err)
		for _, r := range b.replicas {
			if r != nil && r.disk == d {
				r.gone()
			}
		}
		if !slices.ContainsFunc(b.disks, func(d *disk) bool { return !d.failed }) {
			b.down(0) // nothing is left to work with
			b.w.after(b.w.between(20, 300), func() {
				if !b.up {
					b.boot()
				}
			})
		}
	}
	return false
}

// look reads the view out of an image.
func (b *broker) look(im *meta.Image) view {
	v := view{minISR: config.MinInsyncReplicas.Of(control.ResourceLayers(im, b.w.store.static, b.id, meta.Resource{Type: meta.ResourceTopic, Name: topicName}))}
	for _, x := range im.Brokers() {
		v.brokers = append(v.brokers, isr.Broker{ID: x.ID, Epoch: x.Epoch, Active: !x.Fenced && !x.Draining})
		if x.ID == b.id && b.w.o.Rules.Present(x.Incarnation == b.uuid) {
			v.present, v.unfenced = true, b.w.o.Rules.Present(!x.Fenced)
		}
	}
	return v
}

// apply carries out a newer image.
func (b *broker) apply(im *meta.Image) {
	b.im = im
	if r := im.ControllerRecord(); b.ctl.token != 0 && im.Revision() >= b.ctl.token && b.w.o.Rules.Overtaken(r.Broker != b.id || r.Incarnation != b.uuid) {
		b.ctl.lost()
	}
	b.view = b.look(im)
	if t := im.Topic(topicName); t != nil {
		for n, rec := range t.Partitions {
			b.place(int32(n), rec)
		}
	}
	due := b.waiting
	b.waiting = nil
	for _, x := range due {
		b.await(x.rev, x.do)
	}
}

// place makes, removes or assigns a replica as the image says.
func (b *broker) place(n int32, rec *meta.Partition) {
	r := b.replicas[n]
	if !slices.Contains(rec.Replicas, b.id) {
		if r != nil {
			b.w.tell("broker %d: removes its replica of %d", b.id, n)
			r.gone()
			b.replicas[n] = nil
			if !r.disk.failed {
				b.check(r.disk, r.log.Dir().Delete(r.log, b.w.now.UnixMilli()))
			}
		}
		return
	}
	if r == nil {
		d := b.choose(rec)
		if d == nil {
			return
		}
		l, err := d.dir.Create(meta.TopicPartition{Topic: topicName, Partition: n}, b.im.Topic(topicName).ID, logConfig(), b.w.now.UnixMilli())
		if !b.check(d, err) {
			return
		}
		r = newReplica(b, n, l, d)
		b.replicas[n] = r
	}
	if r.dead {
		r.rec = rec
		return
	}
	r.assign(rec)
}

// choose picks the directory that the image names, or any.
func (b *broker) choose(rec *meta.Partition) *disk {
	var can []*disk
	for _, d := range b.disks {
		if d.failed {
			continue
		}
		can = append(can, d)
		if k := slices.Index(rec.Replicas, b.id); k < len(rec.Dirs) && rec.Dirs[k] == d.dir.ID() {
			return d
		}
	}
	if len(can) == 0 {
		return nil
	}
	return can[b.w.rand.Intn(len(can))]
}

// down ends the process at once. keep is the percentage of unsynced writes that the disks keep; -1: the
// machine goes on, and with it the page cache.
func (b *broker) down(keep int) {
	if !b.up {
		return
	}
	b.w.tell("broker %d: down, keep %d, %v", b.id, keep, b.replicas)
	b.ended()
	for _, d := range b.disks {
		if keep >= 0 {
			d.fs = d.fs.Crash(keep, b.w.rand)
		}
		_ = d.dir.Abandon()
	}
}

// ended is what others notice of the end of a process: its connections close.
func (b *broker) ended() {
	b.up = false
	conn := uint64(b.life)<<8 | uint64(b.id) + 1
	for _, to := range b.w.brokers {
		if to != b && to.up {
			b.w.send(b.id, to.id, func() { to.live.Closed(b.id, conn, b.w.now.UnixMilli()) })
		}
	}
}

// stopClean is the end of a process that was released.
func (b *broker) stopClean() {
	b.w.Stats.Drained++
	b.w.tell("broker %d: stops, %v", b.id, b.replicas)
	for _, r := range b.replicas {
		if r != nil {
			r.gone()
		}
	}
	b.ended()
	for _, d := range b.disks {
		if d.failed {
			_ = d.dir.Abandon()
			continue
		}
		if err := d.dir.Close(b.epoch); err != nil && !d.sick {
			b.w.fail("the disk works", "broker %d: %v", b.id, err)
		}
	}
	b.w.after(b.w.between(5, 200), func() {
		if !b.up {
			b.boot()
		}
	})
}
