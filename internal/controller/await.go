package controller

import (
	"context"

	"github.com/milena-mq/milena/internal/meta"
)

// AwaitImage waits until ok is true of the newest image, and returns the newest one in any case: when ctx
// ends or no more images come, the last. It is for a broker that had another one change something and
// wants to show its own clients what they were just told.
func (c *Controller) AwaitImage(ctx context.Context, ok func(*meta.Image) bool) *meta.Image {
	for {
		c.mu.Lock()
		changed := c.mu.changed
		c.mu.Unlock()
		im := c.image.Load()
		if ok(im) {
			return im
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return im
		case <-c.failed:
			return im
		case <-c.ctx.Done():
			return im
		}
	}
}
