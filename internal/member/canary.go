package member

import (
	"errors"
	"path/filepath"
	"sync"
	"time"

	"github.com/milena-mq/milena/internal/vfs"
)

// Canary is a small write that shows whether a disk still answers.
type Canary struct {
	Dir   string       // named in the log
	Write func() error // writes a little and syncs it; may hang for ever when the disk does
	Close func() error // nil: nothing to close
}

// canaryFile is rewritten in place in each log directory.
const canaryFile = ".canary"

// canaryEvery is the rest between two writes to one directory. A sync of one block costs a healthy disk a tenth of a
// millisecond.
const canaryEvery = 250 * time.Millisecond

// NewCanary is a canary in a log directory.
func NewCanary(fs vfs.FS, dir string) (Canary, error) {
	f, err := fs.OpenFile(filepath.Join(dir, canaryFile), vfs.ReadWrite|vfs.Create, 0o644)
	if err != nil {
		return Canary{}, err
	}
	var n [8]byte
	write := func() error {
		n[0]++ // another byte each time: what is the same need not be written
		if _, err := f.WriteAt(n[:], 0); err != nil {
			return err
		}
		return f.Sync()
	}
	return Canary{Dir: dir, Write: write, Close: f.Close}, nil
}

// overdue is how long a write to a directory may take before the disk counts as hung: twice a session, at least a
// second. A busy disk may well take a session for a sync of much data, and a broker that leaves for that makes the
// others' disks busier.
func (m *Member) overdue() time.Duration { return max(2*m.session, time.Second) }

// sickness is which directories have a write under way, and since when.
type sickness struct {
	sync.Mutex
	since map[string]time.Time
}

func (s *sickness) begin(dir string, now time.Time) {
	s.Lock()
	defer s.Unlock()
	if s.since == nil {
		s.since = make(map[string]time.Time)
	}
	s.since[dir] = now
}

func (s *sickness) end(dir string) time.Time {
	s.Lock()
	defer s.Unlock()
	at := s.since[dir]
	delete(s.since, dir)
	return at
}

// now names a directory whose write has been under way for longer than limit, "" when there is none.
func (s *sickness) now(now time.Time, limit time.Duration) string {
	s.Lock()
	defer s.Unlock()
	for dir, at := range s.since {
		if now.Sub(at) > limit {
			return dir
		}
	}
	return ""
}

// canary writes to one directory again and again. While a write is overdue the heartbeats ask for the fence: a broker whose disk hangs answers the network and can acknowledge nothing.
func (m *Member) canary(c *Canary) {
	said := false
	for {
		at := time.Now()
		m.sick.begin(c.Dir, at)
		err := m.await(c)
		if errors.Is(err, errStopped) {
			return
		}
		m.sick.end(c.Dir)
		if took := time.Since(at); took > m.overdue() {
			m.log.Warn("log directory answers again", "dir", c.Dir, "after", took.Round(time.Millisecond))
			m.Nudge()
		}
		if err != nil && !said {
			said = true // whoever writes records there finds out, too, and takes the directory out
			m.log.Error("canary in the log directory", "dir", c.Dir, "error", err)
		}
		if pause(m.ctx, canaryEvery) != nil {
			if c.Close != nil {
				_ = c.Close()
			}
			return
		}
	}
}

var errStopped = errors.New("member: stopped")

// await writes once, and says so when it takes long. The write has a goroutine of its own, which a hung disk keeps:
// Close must not wait for a disk that never answers.
func (m *Member) await(c *Canary) error {
	done := make(chan error, 1)
	go func() { done <- c.Write() }()
	late := time.NewTimer(m.overdue())
	defer late.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-late.C:
			m.log.Error("log directory does not answer: this broker asks to be fenced until it does", "dir", c.Dir, "after", m.overdue())
			m.Nudge()
		case <-m.ctx.Done():
			select {
			case err := <-done:
				return err
			case <-time.After(closeGrace):
				return errStopped // the file stays open: closing it under a write would only hang, too
			}
		}
	}
}

// closeGrace is how long Close waits for a write that is under way.
const closeGrace = time.Second
