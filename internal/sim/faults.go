package sim

import (
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/vfs/errfs"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// fault lets one thing go wrong and plans the next.
func (w *World) fault() {
	if w.calm {
		return
	}
	w.after(w.between(30, 500), w.fault)
	b := w.brokers[w.rand.Intn(len(w.brokers))]
	if l := w.store.topic().Partitions[w.rand.Intn(len(w.parts))].Leader; l >= 0 && w.rand.Intn(2) == 0 {
		b = w.brokers[l]
	}
	if w.store.leads >= 0 && w.shape.Controller && w.rand.Intn(5) == 0 {
		b = w.brokers[w.store.leads]
	}
	switch w.rand.Intn(10) {
	case 0, 1:
		w.Stats.PowerCuts++
		w.stop(b, w.keep(), w.rand.Intn(3) > 0)
	case 2:
		w.Stats.Kills++
		w.stop(b, -1, w.rand.Intn(3) > 0)
	case 3:
		if b.up {
			w.Stats.Freezes++
			w.tell("broker %d: frozen", b.id)
			b.frozen = w.now.Add(w.between(30, 600))
		}
	case 4, 5:
		w.cut(b)
	case 6:
		w.prefer()
	case 7:
		w.everybody(w.keep())
	case 8:
		// Killed, back, and then the power goes: what recovery took for durable has to be.
		w.everybody(-1)
		w.after(w.between(100, 700), func() {
			if !w.calm {
				w.everybody(w.keep())
			}
		})
	case 9:
		w.replace(b)
	}
	w.more(b)
}

// more is what only some shapes have.
func (w *World) more(b *broker) {
	if s := w.shape; s.Reassign && w.rand.Intn(3) == 0 {
		w.reassign()
	}
	if w.shape.MinISR && w.rand.Intn(4) == 0 {
		w.minISR()
	}
	if w.shape.Deletes && w.rand.Intn(2) == 0 {
		w.delete()
	}
	if w.shape.Disks && w.rand.Intn(5) == 0 && b.up {
		d := b.disks[w.rand.Intn(len(b.disks))]
		if !d.sick {
			w.tell("broker %d: a disk is sick", b.id)
			d.sick = true
			ops := errfs.Write | errfs.Sync | errfs.SyncVolume
			if w.rand.Intn(2) == 0 {
				ops = errfs.Sync | errfs.SyncVolume
			}
			d.err.Add(errfs.Rule{Ops: ops, Count: -1, Err: errfs.ErrInjected})
		}
	}
	if w.shape.Controller && w.rand.Intn(3) == 0 {
		w.store.moved = true
	}
	if w.shape.Drain && w.rand.Intn(4) == 0 && b.up && !b.leaving {
		w.tell("broker %d: asked to stop", b.id)
		b.leaving = true
		life := b.life
		// A process that is not released in time is killed.
		w.after(w.between(300, 800), func() {
			if b.up && b.life == life {
				w.Stats.Kills++
				w.stop(b, -1, true)
			}
		})
	}
}

func (w *World) keep() int { return []int{0, 0, 30, 70, 100}[w.rand.Intn(5)] }

// replace gives a broker empty disks, after the cluster has learnt that it can do without the old ones.
func (w *World) replace(b *broker) {
	if !b.up {
		return
	}
	b.down(-1)
	tries := 0
	var try func()
	try = func() {
		tries++
		switch {
		case b.up:
		case w.store.safe(b.id):
			w.Stats.Replaced++
			w.tell("broker %d: empty disks", b.id)
			for _, d := range b.disks {
				d.fs = memfs.New()
			}
			b.boot()
		case tries > 12 || w.calm:
			b.boot()
		default:
			if x := w.store.image.Broker(b.id); x != nil && !x.Fenced {
				w.admin(func(cl *control.Cluster) (control.Plan, error) { return cl.Fence(b.id, x.Epoch) }, nil)
			}
			w.after(w.between(10, 40), try)
		}
	}
	w.after(w.between(1, 30), try)
}

// stop ends a broker and brings it back, soon or after its session.
func (w *World) stop(b *broker, keep int, soon bool) {
	if !b.up {
		return
	}
	b.down(keep)
	d := w.between(1, 60)
	if !soon {
		d = w.between(100, 700)
	}
	w.after(d, func() {
		if !b.up {
			b.boot()
		}
	})
}

func (w *World) everybody(keep int) {
	w.tell("all of them")
	for _, b := range w.brokers {
		if keep >= 0 {
			w.Stats.PowerCuts++
		} else {
			w.Stats.Kills++
		}
		w.stop(b, keep, true)
	}
}

// cut loses what one node sends to another, or all it sends, or all it gets, for a while.
func (w *World) cut(b *broker) {
	w.Stats.NetCuts++
	nodes := len(w.net.cut)
	var pairs [][2]int
	all, in, out := w.rand.Intn(2) == 0, w.rand.Intn(3) > 0, w.rand.Intn(3) > 0
	one := w.rand.Intn(nodes)
	for n := range nodes {
		if n == int(b.id) || !all && n != one {
			continue
		}
		if in {
			pairs = append(pairs, [2]int{n, int(b.id)})
		}
		if out {
			pairs = append(pairs, [2]int{int(b.id), n})
		}
	}
	w.tell("network: cut %v", pairs)
	for _, p := range pairs {
		w.net.cut[p[0]][p[1]] = true
	}
	w.after(w.between(50, 800), func() {
		for _, p := range pairs {
			w.net.cut[p[0]][p[1]] = false
		}
	})
}

// heal ends all faults.
func (w *World) heal() {
	w.calm = true
	w.tell("calm")
	nodes := len(w.net.cut)
	w.net.init(nodes)
	w.net.loss, w.net.dup = 0, 0
	for _, b := range w.brokers {
		b.frozen = 0
		for _, d := range b.disks {
			if b.up && d.sick {
				b.down(-1) // a disk that failed is looked at again by the next process
			}
		}
		if !b.up {
			b.boot()
		}
	}
}
