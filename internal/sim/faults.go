package sim

import (
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs/memfs"
)

// produce is the clients: each sends to whoever says that it leads, zombies included.
func (w *World) produce() {
	w.n++
	v := w.n
	to := int32(w.rand.Intn(len(w.brokers)))
	for _, b := range w.brokers {
		if b.up && b.leader != nil && w.rand.Intn(2) == 0 {
			to = b.id
		}
	}
	w.after(w.between(0, 3), func() { w.deliver(to, func() { w.brokers[to].produced(v) }) })
	pause := w.between(2, 14)
	if w.rand.Intn(40) == 0 {
		pause = w.between(20, 300)
	}
	w.after(pause, w.produce)
}

// fault lets one thing go wrong and plans the next.
func (w *World) fault() {
	if w.calm {
		return
	}
	b := w.brokers[w.rand.Intn(len(w.brokers))]
	if l := w.ctl.part.Leader; l != meta.NoLeader && w.rand.Intn(2) == 0 {
		b = w.brokers[l]
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
		w.ctl.prefer()
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
	w.after(w.between(30, 500), w.fault)
}

func (w *World) keep() int { return []int{0, 0, 30, 70, 100}[w.rand.Intn(5)] }

// replace gives a broker an empty disk, after the operator has told the controller.
func (w *World) replace(b *broker) {
	if !b.up || !w.ctl.unregister(b.id) {
		return
	}
	w.Stats.Disks++
	b.down(-1)
	b.disk, b.replaced = memfs.New(), true
	w.after(w.between(1, 30), func() {
		if !b.up {
			b.boot()
		}
	})
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
		if !b.up {
			b.boot()
		}
	}
}
