package coord

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// repeatAfter is how long the same warning of etcd stays silent after it was logged; it doubles with every
// time up to repeatMax. A member that is down for a night, or a foreign etcd that knocks at the port, is one
// line in ten minutes.
const (
	repeatAfter = 10 * time.Second
	repeatMax   = 10 * time.Minute
)

// maxRemembered bounds the table of what was logged lately.
const maxRemembered = 256

// zapSlog carries etcd's log lines into the broker's: info becomes debug, repeats are dropped, and
// nothing is said once closing begins.
type zapSlog struct {
	log     *slog.Logger
	closing atomic.Bool
	running atomic.Bool // a fatal line now ends the process, as etcd means it to
	fatal   chan string // the first fatal line during boot
	mu      struct {
		sync.Mutex
		last map[string]*said
		end  string // why the engine stopped by itself, in its own words
	}
}

// said is when a message was logged, and how long it stays silent after that.
type said struct {
	at    time.Time
	quiet time.Duration
}

func newZapSlog(l *slog.Logger) *zapSlog {
	if l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	z := &zapSlog{log: l, fatal: make(chan string, 1)}
	z.mu.last = make(map[string]*said)
	return z
}

func (z *zapSlog) logger() *zap.Logger {
	return zap.New(&zapCore{z: z}, zap.WithFatalHook(z), zap.WithPanicHook(z))
}

// OnWrite is what a fatal line does, or one that panics. During boot it ends its goroutine, so that
// a damaged directory is an error with a message; later it ends the process, because etcd says so
// only when its own disk failed and nothing it holds can be trusted.
func (z *zapSlog) OnWrite(ce *zapcore.CheckedEntry, fs []zapcore.Field) {
	if z.running.Load() {
		zapcore.WriteThenFatal.OnWrite(ce, fs)
	}
	m := ce.Message
	for _, f := range fs {
		if err, ok := f.Interface.(error); ok {
			m += ": " + err.Error()
		}
	}
	select {
	case z.fatal <- m:
	default:
	}
	runtime.Goexit()
}

// repeat says that the same message was logged a moment ago.
func (z *zapSlog) repeat(msg string, now time.Time) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	x := z.mu.last[msg]
	switch {
	case x == nil || now.Sub(x.at) > 2*repeatMax:
		if len(z.mu.last) >= maxRemembered {
			clear(z.mu.last)
		}
		z.mu.last[msg] = &said{at: now, quiet: repeatAfter}
	case now.Sub(x.at) < x.quiet:
		return true
	default:
		x.at, x.quiet = now, min(2*x.quiet, repeatMax)
	}
	return false
}

// stopped keeps the line with which the engine says why it stops.
func (z *zapSlog) stopped(fs []zapcore.Field) {
	for _, f := range fs {
		if err, ok := f.Interface.(error); ok {
			z.mu.Lock()
			z.mu.end = err.Error()
			z.mu.Unlock()
		}
	}
}

// reason is why the engine stopped by itself, "" when it has not said so.
func (z *zapSlog) reason() string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.mu.end
}

// zapCore is one zap core with its fields.
type zapCore struct {
	z      *zapSlog
	fields []zapcore.Field
}

// expected is what etcd complains of and what is no news. When a lone member elects itself within
// milliseconds, the first look at its own term and version comes before they are written, and it looks again.
var expected = []string{"failed to update storage version", "Failed to detect schema version", "cannot campaign at term",
	"failed to get version", "failed to unmarshal response", "failed to reach the peer URL", // a member that is not up yet; other lines tell of one that went
	"retrying of unary invoker failed",             // clients ask another endpoint, and say so when there is none
	"ignored out-of-date read index response",      // an answer came after its limit: the proof of leadership says so
	"data-dir used by this member must be removed"} // said by us, with what to do

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l <= zapcore.InfoLevel:
		return slog.LevelDebug
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}

// Enabled implements zapcore.Core.
func (c *zapCore) Enabled(l zapcore.Level) bool {
	return !c.z.closing.Load() && (l >= zapcore.WarnLevel || c.z.log.Enabled(context.Background(), slogLevel(l)))
}

// With implements zapcore.Core.
func (c *zapCore) With(fs []zapcore.Field) zapcore.Core {
	return &zapCore{z: c.z, fields: append(c.fields[:len(c.fields):len(c.fields)], fs...)}
}

// Check implements zapcore.Core.
func (c *zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *zapCore) Write(e zapcore.Entry, fs []zapcore.Field) error {
	l := slogLevel(e.Level)
	if e.Message == "server error" {
		c.z.stopped(fs)
		return nil // said by us, with what to do
	}
	for _, m := range expected {
		if strings.Contains(e.Message, m) {
			return nil
		}
	}
	if l >= slog.LevelWarn && e.Level < zapcore.PanicLevel && c.z.repeat(e.Message, e.Time) {
		return nil
	}
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range c.fields {
		f.AddTo(enc)
	}
	for _, f := range fs {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields))
	for k, v := range enc.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	c.z.log.LogAttrs(context.Background(), l, "etcd: "+e.Message, attrs...)
	return nil
}

// Sync implements zapcore.Core.
func (c *zapCore) Sync() error { return nil }
