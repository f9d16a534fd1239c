package partition

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/storage"
	"github.com/milena-mq/milena/internal/vfs"
)

// gate is a file system whose syncs can be held up or made to fail.
type gate struct {
	vfs.FS
	mu struct {
		sync.Mutex
		hold    chan struct{} // closed: go on; nil: no one waits
		fail    error
		match   func(name string) bool // files it applies to, nil for all
		syncs   int
		free    int64 // 0: as the file system says
		entered chan string
	}
}

func newGate(f vfs.FS) *gate { return &gate{FS: f} }

// close makes every later sync of a log wait until open, and returns a channel that names the syncs that came.
func (g *gate) close() <-chan string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.hold = make(chan struct{})
	g.mu.entered = make(chan string, 10000)
	return g.mu.entered
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.mu.hold)
	g.mu.hold = nil
}

func (g *gate) failWith(err error, match func(string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.fail, g.mu.match = err, match
}

func (g *gate) sync(name string, do func() error) error {
	if strings.HasSuffix(name, "checkpoint") || strings.HasSuffix(name, ".tmp") {
		return do() // the lists beside the logs
	}
	g.mu.Lock()
	g.mu.syncs++
	hold, fail, match, entered := g.mu.hold, g.mu.fail, g.mu.match, g.mu.entered
	g.mu.Unlock()
	if hold != nil {
		entered <- name
		<-hold
	}
	if fail != nil && (match == nil || match(name)) {
		return fail
	}
	return do()
}

func (g *gate) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	f, err := g.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &gateFile{f, g}, nil
}

func (g *gate) Volume(name string) (vfs.Volume, error) {
	v, err := g.FS.Volume(name)
	if err != nil {
		return nil, err
	}
	return &gateVolume{v, g, name}, nil
}

func (g *gate) Free(name string) (int64, int64, error) {
	g.mu.Lock()
	free := g.mu.free
	g.mu.Unlock()
	if free > 0 {
		return free, 1 << 40, nil
	}
	return 1 << 39, 1 << 40, nil
}

type gateFile struct {
	vfs.File
	g *gate
}

func (f *gateFile) Sync() error { return f.g.sync(f.Name(), f.File.Sync) }

type gateVolume struct {
	vfs.Volume
	g    *gate
	name string
}

func (v *gateVolume) Sync() error { return v.g.sync(v.name, v.Volume.Sync) }

var batchSpec = batch.Spec{LeaderEpoch: -1}

var errDisk = errors.New("input/output error")

// world is a Set on one or more log directories with an image to change.
type world struct {
	t      testing.TB
	g      *gate
	root   string
	names  []string
	static map[string]string
	im     *meta.Image
	set    *Set
	rev    int64
	failed chan string
	clock  time.Time

	incarnation meta.UUID
}

func newWorld(t testing.TB, f vfs.FS, dirs int) *world {
	w := &world{t: t, g: newGate(f), root: "/data", im: meta.Empty(), failed: make(chan string, 100), clock: time.UnixMilli(1_700_000_000_000)}
	w.static = map[string]string{}
	for i := range dirs {
		w.names = append(w.names, fmt.Sprintf("%s/d%d", w.root, i))
	}
	return w
}

// start opens the directories and applies the image.
func (w *world) start() *world {
	w.t.Helper()
	w.startOn(w.names, nil)
	return w
}

func (w *world) startOn(paths, offline []string) {
	w.t.Helper()
	var dirs []*storage.Dir
	for i, path := range paths {
		d, err := storage.OpenDir(w.g, path, storage.DirOptions{NodeID: 1, ClusterID: "c", Reserve: 1 << 20, NewID: func() meta.UUID { return meta.UUID{0: byte(i + 1), 15: 7} }})
		if err != nil {
			w.t.Fatal(err)
		}
		dirs = append(dirs, d)
	}
	w.set = NewSet(Options{
		NodeID: 1, Dirs: dirs, Offline: offline, Incarnation: w.incarnation, Static: config.StaticOf(w.static),
		Clock: func() time.Time { return w.clock }, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		DirFailed: func(path string, _ error, left int) { w.failed <- fmt.Sprintf("%s %d", path, left) },
	})
	if err := w.set.Load(nil); err != nil {
		w.t.Fatal(err)
	}
}

// run applies the image and starts the goroutines; the test's end stops them.
func (w *world) run() *world {
	w.set.Apply(w.im, nil)
	w.set.Start()
	s := w.set
	w.t.Cleanup(func() {
		if s == w.set {
			w.stop()
		}
	})
	return w
}

func (w *world) stop() {
	if w.set != nil {
		_ = w.set.Close(1) // a test that failed a disk sees the error here again
		w.set = nil
	}
}

func (w *world) apply(cs ...meta.Change) {
	w.t.Helper()
	w.rev++
	im, d, err := w.im.Apply(cs, w.rev)
	if err != nil {
		w.t.Fatal(err)
	}
	w.im = im
	if w.set != nil {
		w.set.Apply(im, d)
	}
}

func led(epoch int32, replicas, isr []int32) *meta.Partition {
	return &meta.Partition{Replicas: replicas, ISR: isr, Leader: 1, LeaderEpoch: epoch}
}

var alone = []int32{1}

// topic is the changes that create a topic of n partitions led by this broker.
func newTopic(name string, id byte, n int32) []meta.Change {
	u := meta.UUID{0: id, 15: 1}
	cs := []meta.Change{meta.PutTopic(name, meta.TopicRecord{ID: u, Partitions: n})}
	for i := range n {
		cs = append(cs, meta.PutPartition(u, i, led(0, alone, alone)))
	}
	return cs
}

func dropTopic(name string, id byte, n int32) []meta.Change {
	u := meta.UUID{0: id, 15: 1}
	cs := []meta.Change{meta.Delete(meta.TopicKey(name))}
	for i := range n {
		cs = append(cs, meta.Delete(meta.PartitionKey(u, i)))
	}
	return cs
}

func topicConfig(t testing.TB, name string, kv map[string]string) meta.Change {
	c, err := meta.PutConfig(meta.Resource{Type: meta.ResourceTopic, Name: name}, kv)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) get(topic string, n int32) *Partition {
	w.t.Helper()
	p, err := w.set.Get(topic, n)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// records builds a batch of values.
func records(t testing.TB, s batch.Spec, values ...string) batch.Batch {
	t.Helper()
	b := batch.NewBuilder(s)
	for _, v := range values {
		if err := b.Add(batch.Record{Timestamp: 1_700_000_000_000, Key: []byte("k"), Value: []byte(v)}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (w *world) append(p *Partition, acks int16, values ...string) Appended {
	w.t.Helper()
	a, err := p.Append(AppendRequest{Records: records(w.t, batch.Spec{LeaderEpoch: -1}, values...), Acks: acks, LeaderEpoch: -1, Version: 9, NowMs: w.clock.UnixMilli()})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// await waits until what a names is durable.
func (w *world) await(p *Partition, acks int16, a Appended) error {
	wt := NewWaiter(1)
	p.Wait(wt, 0, acks, a)
	wt.Arm(time.Minute)
	<-wt.Ready()
	return wt.Err(0)
}

func (w *world) produce(p *Partition, values ...string) Appended {
	w.t.Helper()
	a := w.append(p, AcksAll, values...)
	if err := w.await(p, AcksAll, a); err != nil {
		w.t.Fatal(err)
	}
	return a
}

// values reads every visible record of a partition.
func (w *world) values(p *Partition) []string {
	w.t.Helper()
	var out []string
	for at := p.LogStart(); ; {
		r, err := p.Read(ReadRequest{Offset: at, MaxBytes: 1 << 20, AtLeastOne: true, Epoch: -1, LastEpoch: -1, Replica: Consumer})
		if err != nil {
			w.t.Fatal(err)
		}
		b, err := r.Slice.Bytes(nil)
		r.Slice.Release()
		if err != nil {
			w.t.Fatal(err)
		}
		if len(b) == 0 {
			return out
		}
		for len(b) > 0 {
			var one batch.Batch
			if one, b, err = batch.Next(b); err != nil {
				w.t.Fatal(err)
			}
			if err := one.Each(batch.Limits{}, func(r batch.Record) error {
				if r.Offset >= p.LogStart() {
					out = append(out, string(r.Value))
				}
				return nil
			}); err != nil {
				w.t.Fatal(err)
			}
			at = one.NextOffset()
		}
	}
}

func ready(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
