package partition

import (
	"errors"
	"time"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/storage"
)

// errStopping ends a cleaning when the Set closes.
var errStopping = errors.New("stopping")

// newCleaner makes the cleaner of one directory; nil when it cannot be made, and the directory serves without compaction.
func (s *Set) newCleaner(d *dir) *storage.Cleaner {
	c, err := storage.NewCleaner(d.d, storage.CleanerOptions{
		MapBytes: config.LogCleanerDedupeBufferSize.Of(*s.broker.Load()), Pace: s.pace(),
	})
	if err != nil {
		s.dirError(d, "read cleaner checkpoint", err)
		return nil
	}
	return c
}

// pace is the cleaner's brake: it keeps the cleaning of one directory below log.cleaner.io.max.bytes.per.second, and ends it when
// the Set closes.
func (s *Set) pace() func(n int64) error {
	return brake(s.stop, func() float64 { return config.LogCleanerIoMaxBytesPerSecond.Of(*s.broker.Load()) })
}

// brake makes a function that is told of bytes and sleeps so that there are no more than limit a second. errStopping when stop is closed.
func brake(stop <-chan struct{}, limit func() float64) func(n int64) error {
	var bytes int64
	const look = 1 << 20 // sleeping for less costs more than it brakes, and the limit is read only so often
	return func(n int64) error {
		select {
		case <-stop:
			return errStopping
		default:
		}
		if bytes += n; bytes < look {
			return nil
		}
		seconds := float64(bytes) / limit()
		bytes = 0
		if !(seconds > 0.001) { // also when the limit is zero or not a number
			return nil
		}
		t := time.NewTimer(time.Duration(min(seconds, 60) * float64(time.Second)))
		defer t.Stop()
		select {
		case <-stop:
			return errStopping
		case <-t.C:
			return nil
		}
	}
}

// cleaner compacts the logs of one directory, one after the other, until the Set closes.
func (s *Set) cleaner(d *dir) {
	if !config.LogCleanerEnable.Of(*s.broker.Load()) {
		return
	}
	c := s.newCleaner(d)
	if c == nil {
		return
	}
	rest := func() time.Duration {
		return time.Duration(max(config.LogCleanerBackoffMs.Of(*s.broker.Load()), 100)) * time.Millisecond
	}
	t := time.NewTimer(rest())
	defer t.Stop()
	for !d.failed.Load() {
		select {
		case <-s.stop:
			return
		case <-t.C:
		}
		s.clean(d, c)
		t.Reset(rest())
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
