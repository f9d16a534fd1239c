package partition

import (
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/storage"
)

// Start begins flushing, housekeeping and compaction. Close ends them.
func (s *Set) Start() {
	for _, d := range s.dirs {
		s.wg.Go(func() { d.flusher.run(s.stop) })
		s.wg.Go(func() { s.cleaner(d) })
	}
	s.wg.Go(s.housekeeper)
	s.wg.Go(s.mover)
	s.wg.Go(s.ticker)
}

// Close ends the leadership of every partition, flushes, writes the clean mark and closes the logs.
// brokerEpoch goes into the mark. No append may come after.
func (s *Set) Close(brokerEpoch int64) error {
	close(s.stop)
	s.wg.Wait()
	for _, p := range s.all() {
		p.close()
	}
	var errs []error
	for _, d := range s.dirs {
		if d.failed.Load() {
			d.d.Abandon()
			continue
		}
		errs = append(errs, d.d.Close(brokerEpoch))
	}
	return errors.Join(errs...)
}

// maxRest bounds how long the housekeeper sleeps, so that files to be unlinked and creations to be
// tried again do not wait for a long retention interval.
const maxRest = 30 * time.Second

// housekeeper runs what is due by time.
func (s *Set) housekeeper() {
	const second = int64(1000)
	last := struct{ retention, hw, checkpoint, flush, retry int64 }{}
	now := s.now()
	last.retention, last.hw, last.checkpoint, last.flush, last.retry = now, now, now, now, now
	t := time.NewTimer(time.Second)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-t.C:
		}
		l := *s.broker.Load()
		now := s.now()
		s.tellLost()
		if now-last.flush >= second && s.timed.Load() > 0 {
			last.flush = now
			s.flushDue(now)
		}
		if now-last.hw >= config.ReplicaHighWatermarkCheckpointIntervalMs.Of(l) {
			last.hw = now
			s.checkpoint()
		}
		if now-last.retention >= min(config.LogRetentionCheckIntervalMs.Of(l), maxRest.Milliseconds()) {
			last.retention = now
			s.Housekeep(now)
		}
		if now-last.retry >= 10*second && (s.missing.Load() > 0 || s.unled.Load()) {
			last.retry = now
			s.retry()
		}
		t.Reset(time.Second)
	}
}

// flushDue asks for a flush of what is older than flush.ms.
func (s *Set) flushDue(now int64) {
	for _, p := range s.all() {
		c := p.topic.cfg.Load()
		if !c.flushesByTime() {
			continue
		}
		p.app.Lock()
		due := p.app.unflushed > 0 && now-p.app.since >= c.Log.FlushMs
		if due {
			p.app.unflushed = 0
		}
		p.app.Unlock()
		if due {
			p.dir.flusher.mark(p)
		}
	}
}

// checkpoint writes recovery points, log starts and high watermarks.
func (s *Set) checkpoint() {
	for _, d := range s.dirs {
		if !d.failed.Load() {
			s.dirError(d, "checkpoint", d.d.Checkpoint())
		}
	}
}

// Housekeep applies retention, unlinks what was deleted long enough ago and forgets idle producers, once.
func (s *Set) Housekeep(now int64) {
	for _, d := range s.dirs {
		if !d.failed.Load() {
			s.dirError(d, "housekeeping", d.d.Housekeep(now, (*storage.Log).HW))
		}
	}
}

// reserve tells the operator, once each time, why produce is refused and that it is accepted again.
func (d *dir) reserve(reached bool, left, reserve int64) {
	if reached {
		d.set.o.Log.Error("disk is full to its reserve: produce is refused, reading and deleting go on", "dir", d.d.Path(), "left", left, "reserve", reserve)
		return
	}
	d.set.o.Log.Info("disk has room again: produce is accepted", "dir", d.d.Path(), "left", left, "reserve", reserve)
}

func (s *Set) dirError(d *dir, what string, err error) {
	if err == nil {
		return
	}
	s.o.Log.Error(what, "dir", d.d.Path(), "err", err)
	if errors.Is(err, storage.ErrOffline) {
		s.dirFailed(d, err)
	}
}

// close ends the leadership and lets an append in progress end first.
func (p *Partition) close() {
	p.fail(kerr.NotLeaderForPartition)
	p.app.Lock()
	defer p.app.Unlock()
}
