package control

// Heard is the last beat of a broker: the revision it had, and when it came. ok is false before the first.
func (l *Liveness) Heard(id int32) (seen, at int64, ok bool) {
	p := l.brokers[id]
	if p == nil || p.conn == 0 {
		return 0, 0, false
	}
	return p.seen, p.heard, true
}
