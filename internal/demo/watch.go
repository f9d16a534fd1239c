package demo

import (
	"context"
	"sync"
	"time"

	"github.com/milena-mq/milena/internal/admin"
)

// watcher asks the cluster again and again how the topic is.
type watcher struct {
	adm   *admin.Client
	topic string
	stop  context.CancelFunc
	wg    sync.WaitGroup
	mu    struct {
		sync.Mutex
		view view
	}
}

// view is one answer.
type view struct {
	at         time.Time // when it was asked for
	parts      []admin.PartitionState
	controller int32
	err        error
}

// glance is the time between two askings.
const glance = 150 * time.Millisecond

func watchTopic(adm *admin.Client, topic string) *watcher {
	ctx, stop := context.WithCancel(context.Background())
	w := &watcher{adm: adm, topic: topic, stop: stop}
	w.mu.view.controller = -1
	w.wg.Go(func() { w.look(ctx) })
	return w
}

func (w *watcher) look(ctx context.Context) {
	for ctx.Err() == nil {
		at := time.Now()
		ps, err := w.adm.Partitions(ctx, w.topic)
		controller, cerr := w.adm.ControllerID(ctx)
		w.mu.Lock()
		if w.mu.view.err = err; err == nil {
			w.mu.view.at, w.mu.view.parts = at, ps
		}
		if cerr == nil {
			w.mu.view.controller = controller
		}
		w.mu.Unlock()
		wait(ctx, glance)
	}
}

// latest is the last good answer.
func (w *watcher) latest() view {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.view
}

func (w *watcher) close() {
	w.stop()
	w.wg.Wait()
}

// whole says that all partitions are there with a leader and all copies in sync.
func (v *view) whole(partitions, copies int) bool {
	if len(v.parts) != partitions {
		return false
	}
	for i := range v.parts {
		if v.parts[i].Leaderless() || len(v.parts[i].ISR) < copies {
			return false
		}
	}
	return true
}
