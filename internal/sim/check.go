package sim

import "slices"

// truth is what the outside world may rely on.
type truth struct {
	committed []entry // by offset: what some leader's high watermark has passed
	acks      int     // how many of them clients were told of
	leaders   map[int32]int32
}

// raised checks a leader's new high watermark and notes what is now visible.
func (w *World) raised(b *broker, hw int64) {
	if n := len(b.leader.Assignment().ISR); n < int(w.o.MinISR) {
		w.fail("HW does not move below min ISR", "broker %d: hw %d with isr of %d", b.id, hw, n)
	}
	if hw > b.log.Flushed() {
		w.fail("HW is durable", "broker %d: hw %d, flushed %d", b.id, hw, b.log.Flushed())
	}
	if hw > int64(len(b.shadow)) {
		w.fail("HW is in the log", "broker %d: hw %d, log end %d", b.id, hw, len(b.shadow))
		return
	}
	for o := int64(len(w.truth.committed)); o < hw; o++ {
		w.truth.committed = append(w.truth.committed, b.shadow[o])
	}
}

// acked checks an acknowledgement to a client.
func (w *World) acked(b *broker, a wait) {
	if b.shadow[a.offset] != a.e || w.truth.committed[a.offset] != a.e {
		w.fail("one value per offset", "broker %d acknowledged %v at %d, committed is %v", b.id, a.e, a.offset, w.truth.committed[a.offset])
	}
	w.Stats.Acked++
	w.truth.acks = max(w.truth.acks, int(a.offset)+1)
}

// leads checks a broker that begins to lead: alone in its epoch, and with everything that was visible.
func (w *World) leads(b *broker) {
	e := b.im.part.LeaderEpoch
	if other, ok := w.truth.leaders[e]; ok && other != b.id {
		w.fail("one leader per epoch", "epoch %d: %d and %d", e, other, b.id)
	}
	w.truth.leaders[e] = b.id
	if e == w.ctl.part.LeaderEpoch {
		w.complete(b, "no acked loss", "leads")
	}
}

// complete checks that a broker has all that was visible.
func (w *World) complete(b *broker, name, why string) {
	n := len(w.truth.committed)
	if len(b.shadow) < n {
		w.fail(name, "broker %d %s with log end %d, %d were visible, %d acknowledged", b.id, why, len(b.shadow), n, w.truth.acks)
		return
	}
	for o, e := range w.truth.committed {
		if b.shadow[o] != e {
			w.fail(name, "broker %d %s with %v at %d, visible was %v", b.id, why, b.shadow[o], o, e)
			return
		}
	}
}

// joined checks a replica that the controller takes into the set: what it has on its disk, whoever
// asked for it and however long the request was under way.
func (w *World) joined(id int32) {
	b := w.brokers[id]
	if !b.up || w.ctl.regs[id].incarnation != b.life {
		return // dead, and the controller does not know it yet; what it has is seen when it returns
	}
	w.complete(b, "stale incarnation never in the ISR", "joins")
}

// check looks at every broker after every event.
func (w *World) check() {
	for _, b := range w.brokers {
		if !b.up || b.log == nil || w.breach != nil {
			continue
		}
		if int(b.log.End()) != len(b.shadow) {
			w.fail("the simulator knows the logs", "broker %d: log end %d, known %d", b.id, b.log.End(), len(b.shadow))
			return
		}
		hw := b.log.HW()
		if hw > int64(len(w.truth.committed)) {
			w.fail("nobody knows more than the leaders", "broker %d: hw %d, visible %d", b.id, hw, len(w.truth.committed))
			return
		}
		for ; b.known < hw; b.known++ {
			if o := b.known; b.shadow[o] != w.truth.committed[o] {
				w.fail("logs agree below the HW", "broker %d has %v at %d, visible was %v", b.id, b.shadow[o], o, w.truth.committed[o])
				return
			}
		}
	}
}

// final checks the healed cluster: the real logs, byte for byte by checksum, and that it works again.
func (w *World) final() {
	lead := w.ctl.part.Leader
	w.Stats.Healed = lead >= 0 && len(w.ctl.part.ISR) == w.o.Brokers
	for _, b := range w.brokers {
		if !b.up {
			w.fail("healed", "broker %d is down", b.id)
			return
		}
		if !slices.Equal(b.readLog(), b.shadow) {
			w.fail("the simulator knows the logs", "broker %d", b.id)
			return
		}
		if b.inISR() {
			w.complete(b, "no acked loss", "ends in sync")
		}
	}
	if !w.Stats.Healed {
		w.fail("healed", "leader %d, isr %v after the calm", lead, w.ctl.part.ISR)
	}
}
