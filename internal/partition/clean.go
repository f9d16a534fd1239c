package partition

import (
	"errors"
	"math"
	"time"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/storage"
)

// errStopping ends a cleaning when the Set closes.
var errStopping = errors.New("stopping")

// newCleaner makes the cleaner of one directory; nil when it cannot be made, and the directory serves without compaction.
func (s *Set) newCleaner(d *dir) *storage.Cleaner {
	l := config.Layers{Static: s.o.Static}
	pace := s.pace(config.LogCleanerIoMaxBytesPerSecond.Of(l))
	c, err := storage.NewCleaner(d.d, storage.CleanerOptions{MapBytes: config.LogCleanerDedupeBufferSize.Of(l), Pace: pace})
	if err != nil {
		s.dirError(d, "read cleaner checkpoint", err)
		return nil
	}
	return c
}

// pace is the cleaner's brake: it keeps the cleaning of one directory below rate bytes per second, and ends it when the Set closes.
func (s *Set) pace(rate float64) func(n int64) error {
	var owed float64 // seconds that the bytes so far should still take; one goroutine cleans, so no lock
	const worth = 0.01
	return func(n int64) error {
		select {
		case <-s.stop:
			return errStopping
		default:
		}
		if rate <= 0 || rate > math.MaxInt64 {
			return nil
		}
		if owed += float64(n) / rate; owed < worth {
			return nil // sleeping for less costs more than it brakes
		}
		began := time.Now()
		t := time.NewTimer(time.Duration(owed * float64(time.Second)))
		defer t.Stop()
		select {
		case <-s.stop:
			return errStopping
		case <-t.C:
		}
		owed -= time.Since(began).Seconds()
		return nil
	}
}

// cleaner compacts the logs of one directory, one after the other, until the Set closes.
func (s *Set) cleaner(d *dir) {
	l := config.Layers{Static: s.o.Static}
	if !config.LogCleanerEnable.Of(l) {
		return
	}
	c := s.newCleaner(d)
	if c == nil {
		return
	}
	rest := time.Duration(max(config.LogCleanerBackoffMs.Of(l), 100)) * time.Millisecond
	t := time.NewTimer(rest)
	defer t.Stop()
	for !d.failed.Load() {
		select {
		case <-s.stop:
			return
		case <-t.C:
		}
		s.clean(d, c)
		t.Reset(rest)
	}
}

// clean compacts every log of a directory that is due. A log that cannot be cleaned is reported once and left alone (KIP-346); an
// error that is not the log's own ends the round.
func (s *Set) clean(d *dir, c *storage.Cleaner) {
	for {
		tp, ok, err := c.CleanOne(s.now())
		if !ok && err == nil {
			return
		}
		switch {
		case err == nil:
			s.o.Log.Debug("log compacted", "partition", tp.String())
		case errors.Is(err, errStopping):
			return
		case c.Uncleanable()[tp] != nil:
			s.o.Log.Error("log cannot be compacted and is left alone", "partition", tp.String(), "err", err)
		default:
			s.dirError(d, "compaction", err)
			return
		}
	}
}
