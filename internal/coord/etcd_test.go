package coord_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/coord/coordtest"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/vfs"
)

// Most of these tests wait for elections and time limits: they may do so together on a machine with two
// processors.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	m.Run()
}

func open(t testing.TB, dir string, change ...func(*coord.EtcdOptions)) *coord.Etcd {
	t.Helper()
	o := coord.EtcdOptions{Dir: dir, FS: vfs.OS, Identity: coord.Identity{NodeID: 1}, NoSync: true}
	for _, c := range change {
		c(&o)
	}
	s, err := coord.OpenEtcd(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContract(t *testing.T) {
	coordtest.Run(t, func(t *testing.T) coord.Store { return open(t, filepath.Join(t.TempDir(), "coord")) })
}

func TestHistorySurvivesARestart(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	dir := t.TempDir()
	for i := range 3 {
		s := open(t, dir)
		term, err := s.Lead(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if term.Epoch != int32(i+1) {
			t.Errorf("start %d: term %d", i, term.Epoch)
		}
		if _, err := s.Append(ctx, term, []meta.Change{{Key: fmt.Sprintf("k%d", i), Value: []byte("v")}}); err != nil {
			t.Fatal(err)
		}
		snap, _, err := s.Load(ctx)
		if err != nil || len(snap.Changes) != i+2 {
			t.Fatalf("start %d: %d keys, %v", i, len(snap.Changes), err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	defer s.Close()
	if _, err := coord.OpenEtcd(coord.EtcdOptions{Dir: dir, FS: vfs.OS}); !errors.Is(err, vfs.ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
}

// A broker on a small disk must not give 128 MB to two empty log files. This also pins the package
// variable of etcd that does it.
func TestWALSegmentIsSmall(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	defer s.Close()
	fs, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	if err != nil || len(fs) == 0 {
		t.Fatalf("no log files: %v", err)
	}
	for _, f := range fs {
		if st, err := os.Stat(f); err != nil || st.Size() > 16<<20 {
			t.Errorf("%s: %d bytes, %v", f, st.Size(), err)
		}
	}
}

func TestDamagedDirectoryIsAnErrorNotACrash(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := s.Lead(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "member", "snap", "db"), []byte(strings.Repeat("x", 9000)), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := coord.OpenEtcd(coord.EtcdOptions{Dir: dir, FS: vfs.OS, Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		s.Close()
		t.Fatal("opened a damaged directory")
	}
	if !strings.Contains(err.Error(), "damaged") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error: %v", err)
	}
}

// Old revisions fill the store in the long run; what is alive fills it only when there is really too much.
func TestAFullStoreMakesRoomAndSaysWhenItCannot(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	s := open(t, t.TempDir(), func(o *coord.EtcdOptions) { o.QuotaBytes = 24 << 20 })
	defer s.Close()
	term, err := s.Lead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 120 { // 30 MiB of history, a quarter of one alive
		if _, err = s.Append(ctx, term, []meta.Change{{Key: "k", Value: make([]byte, 1<<18)}}); err != nil {
			t.Fatalf("append %d: %v", i, err)
		}
	}
	for i := range 400 {
		if _, err = s.Append(ctx, term, []meta.Change{{Key: fmt.Sprintf("k%d", i), Value: make([]byte, 1<<18)}}); err != nil {
			break
		}
	}
	if !errors.Is(err, coord.ErrFull) {
		t.Fatalf("a full store answers %v", err)
	}
	if term.Ended() {
		t.Error("a full store ended the term: nobody has taken over")
	}
	if snap, _, err := s.Load(ctx); err != nil || len(snap.Changes) < 10 {
		t.Errorf("a full store cannot be read: %d keys, %v", len(snap.Changes), err)
	}
}

func TestLateAnswerIsUnknown(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s := open(t, t.TempDir())
	defer s.Close()
	term, err := s.Lead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	gone, stop := context.WithCancel(ctx)
	stop()
	if _, err := s.Append(gone, term, []meta.Change{{Key: "k", Value: []byte("v")}}); !errors.Is(err, coord.ErrUnknown) {
		t.Fatalf("append without waiting: %v", err)
	}
}

func BenchmarkStart(b *testing.B) {
	for range b.N {
		s := open(b, b.TempDir(), func(o *coord.EtcdOptions) { o.NoSync = false })
		if _, err := s.Lead(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.Close()
		b.StartTimer()
	}
}

func BenchmarkAppend1000(b *testing.B) {
	s := open(b, b.TempDir(), func(o *coord.EtcdOptions) { o.NoSync = false })
	defer s.Close()
	term, err := s.Lead(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	cs := make([]meta.Change, coord.MaxChanges)
	for i := range cs {
		cs[i] = meta.Change{Key: fmt.Sprintf("p/%d", i), Value: make([]byte, 120)}
	}
	for b.Loop() {
		if _, err := s.Append(context.Background(), term, cs); err != nil {
			b.Fatal(err)
		}
	}
}

type lines struct {
	slog.Handler
	mu  sync.Mutex
	got []string
}

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, r.Level.String()+" "+r.Message)
	return nil
}
func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler       { return l }

// An operator who sees warnings of etcd at every healthy start and stop stops reading them.
func TestAHealthyStartAndStopLogsNoWarning(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	l, dir := &lines{}, filepath.Join(t.TempDir(), "coord")
	for range 3 {
		s := open(t, dir, func(o *coord.EtcdOptions) { o.Log = slog.New(l); o.NoSync = false })
		term, err := s.Lead(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Append(ctx, term, []meta.Change{{Key: "k", Value: []byte("v")}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.got) == 0 {
		t.Error("nothing at all was logged: etcd's log is not connected")
	}
	for _, m := range l.got {
		if strings.HasPrefix(m, "WARN") || strings.HasPrefix(m, "ERROR") {
			t.Error(m)
		}
	}
}
