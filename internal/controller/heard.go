package controller

import "time"

// Heard is what the broker's last heartbeat here said and how long ago that was: the revision up to which it
// had the metadata. ok is false for a broker that has not been heard since it registered.
func (c *Controller) Heard(id int32) (seen int64, ago time.Duration, ok bool) {
	p := c.pulses
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.nowLocked()
	seen, at, ok := p.mu.live.Heard(id)
	return seen, time.Duration(now-at) * time.Millisecond, ok
}
