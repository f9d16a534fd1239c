package broker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/group"
	"github.com/milena-mq/milena/internal/shard"
)

// stopTimeout bounds a stop, so that a service manager never has to kill.
const stopTimeout = 4500 * time.Millisecond

// Addr is the first listener as it was opened, host:port.
func (b *Broker) Addr() string { return b.socks[0].Addr().String() }

// MetricsAddr is where metrics are served, "" for nowhere.
func (b *Broker) MetricsAddr() string {
	if b.scrape == nil {
		return ""
	}
	return b.scrape.Addr().String()
}

// Failed delivers why the broker cannot go on: its metadata or its last disk is gone.
func (b *Broker) Failed() <-chan error { return b.failed }

// Healthy is nil while the broker can serve.
func (b *Broker) Healthy() error {
	if b.stopped.Load() {
		return errors.New("stopping")
	}
	return b.ctl.Err()
}

func (b *Broker) fail(err error) {
	select {
	case b.failed <- err:
	default: // one reason is enough
	}
}

func (b *Broker) watch() {
	// A store that lives here can end by itself: its member was removed from the quorum.
	store, _ := b.store.(*coord.Etcd)
	var ended <-chan struct{}
	if store != nil {
		ended = store.Done()
	}
	select {
	case <-b.ctl.Failed():
	case <-ended:
		if err := store.Err(); err != nil {
			b.fail(err)
		}
		return
	case <-b.done:
		return
	}
	if err := b.ctl.Err(); err != nil {
		b.fail(err)
	}
}

// Close stops serving: groups are flushed, connections get what they are owed, the logs are made durable
// and marked clean. It takes at most five seconds.
func (b *Broker) Close() error {
	if !b.stopped.CompareAndSwap(false, true) {
		return nil
	}
	close(b.done)
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var errs []error
	// Leadership first, while everything still answers: clients find the new leaders before this one is gone.
	lctx, lcancel := context.WithTimeout(ctx, stopTimeout/2)
	if err := b.member.Leave(lctx); err != nil {
		b.log.Warn("leadership was not moved away before the stop", "err", err)
	}
	lcancel()
	// Groups first: their answers are still owed to connections, and their appends need the flusher.
	gctx, gcancel := context.WithTimeout(ctx, stopTimeout/3)
	errs = append(errs, b.groups.Close(gctx), b.txns.Close(gctx))
	b.markers.Close()
	gcancel()
	errs = append(errs, b.srv.Shutdown(ctx))
	epoch := b.member.Epoch()
	b.replicas.Close()
	errs = append(errs, b.member.Close())
	// The image's goroutine must not hand the Set any change while it closes.
	errs = append(errs, b.ctl.Close(), b.set.Close(epoch), b.store.Close(), b.peers.close())
	if b.metrics != nil {
		errs = append(errs, b.metrics.Close())
	}
	b.wg.Wait()
	b.log.Info("broker stopped", "node", b.nodeID)
	return errors.Join(errs...)
}

// abandon closes what a failed start has opened, without a clean mark.
func (b *Broker) abandon() {
	b.stopped.Store(true)
	for _, s := range b.socks {
		_ = s.Close()
	}
	if b.metrics != nil {
		_ = b.metrics.Close()
	}
	if b.groups != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = b.groups.Close(ctx)
		_ = b.txns.Close(ctx)
		b.markers.Close()
		cancel()
	}
	if b.replicas != nil {
		b.replicas.Close()
	}
	if b.member != nil {
		_ = b.member.Close()
	}
	if b.ctl != nil {
		_ = b.ctl.Close()
	}
	for _, d := range b.open {
		d.Abandon()
	}
	if b.store != nil {
		_ = b.store.Close()
	}
	_ = b.peers.close()
}

// Serve runs a broker until ctx ends and tells out what to try. It is what "milena serve" calls.
func Serve(version string, stderr io.Writer) func(ctx context.Context, s *config.Static, out io.Writer) error {
	return func(ctx context.Context, s *config.Static, out io.Writer) error {
		b, err := Start(ctx, Options{Static: s, Log: newLog(s, stderr), Version: version})
		if err != nil {
			return err
		}
		b.Hints(out)
		var cause error
		select {
		case <-ctx.Done():
		case cause = <-b.Failed():
		}
		return errors.Join(cause, b.Close())
	}
}

func newLog(s *config.Static, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(config.LoggingLevel.Static(s))); err != nil {
		level = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: level}
	if config.LoggingFormat.Static(s) == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// ms is a configured number of milliseconds.
func ms(n int32) time.Duration { return time.Duration(n) * time.Millisecond }

func groupOptions(s *config.Static, log *slog.Logger) shard.Options {
	c := group.DefaultConfig()
	c.MinSessionTimeout = ms(config.GroupMinSessionTimeoutMs.Static(s))
	c.MaxSessionTimeout = ms(config.GroupMaxSessionTimeoutMs.Static(s))
	c.InitialRebalanceDelay = ms(config.GroupInitialRebalanceDelayMs.Static(s))
	c.MaxSize = int(config.GroupMaxSize.Static(s))
	c.OffsetMetadataMaxBytes = int(config.OffsetMetadataMaxBytes.Static(s))
	c.OffsetsRetention = time.Duration(config.OffsetsRetentionMinutes.Static(s)) * time.Minute
	c.OffsetsCheckInterval = time.Duration(config.OffsetsRetentionCheckIntervalMs.Static(s)) * time.Millisecond
	return shard.Options{Config: c, CommitTimeout: ms(config.OffsetsCommitTimeoutMs.Static(s)), Log: log}
}
