// Program realinput is the main job on real input: every line of a source tree, keyed by its path, goes through the broker
// by two different clients at once while a group in two languages reads and the broker is killed three times.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	topic      = "lines"
	group      = "readers"
	partitions = 12
	jobLimit   = 15 * time.Minute
	startLimit = 60 * time.Second
)

// job is one run with all it watches.
type job struct {
	b       *broker
	src     *source
	root    string // of the checkout
	input   string // of the source tree
	rate    int
	acked   [2]atomic.Int64 // franz-go, confluent-kafka
	reads   *reads
	joins   atomic.Int64
	pyParts atomic.Int64 // partitions of the Python member after its latest assignment
	mon     monitor
	kills   int
	failed  int
	elapsed time.Duration
}

func (j *job) say(ok bool, name, format string, args ...any) {
	word := "ok"
	if !ok {
		word, j.failed = "FAIL", j.failed+1
	}
	fmt.Printf("%s realinput/%s %s\n", word, name, fmt.Sprintf(format, args...))
}

func main() {
	root := flag.String("root", ".", "the checkout")
	input := flag.String("input", "", "the source tree")
	lines := flag.Int("lines", 0, "stop taking files after so many lines; 0: all")
	rate := flag.Int("rate", 0, "lines a second of each producer; 0: as fast as they go")
	kind := flag.String("broker", "milena", "milena or kafka")
	keep := flag.Bool("keep", false, "keep the broker's data")
	flag.Parse()
	j := &job{root: *root, input: *input, rate: *rate, reads: &reads{ranges: map[int32][][2]int64{}, total: map[string]int64{}}}
	err := j.prepare(*kind, *lines)
	if err == nil {
		err = j.run()
	}
	if err == nil {
		err = j.verify()
	}
	if err != nil {
		j.say(false, "run", "%v", err)
	}
	if j.b != nil {
		j.shutdown(*keep || j.failed > 0)
	}
	if j.failed > 0 {
		os.Exit(1)
	}
}

func (j *job) prepare(kind string, limit int) (err error) {
	if j.root, err = filepath.Abs(j.root); err != nil {
		return err
	}
	if j.src, err = load(j.input, limit); err != nil {
		return err
	}
	if j.b, err = newBroker(kind, j.root); err != nil {
		return err
	}
	if err = j.b.start(startLimit); err != nil {
		return err
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(j.b.addr()))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	max := "4000000" // the longest line of the source tree has 1.4 MB, above Kafka's default
	_, err = kadm.NewClient(c).CreateTopic(ctx, partitions, 1, map[string]*string{"max.message.bytes": &max}, topic)
	return err
}

// run produces, consumes and kills until every line is acknowledged and every committed offset has reached the end.
func (j *job) run() error {
	begin := time.Now()
	var goFiles, pyFiles []file
	for i, f := range j.src.files { // a file has one writer: two would make "in order per key" meaningless
		if i%2 == 0 {
			goFiles = append(goFiles, f)
		} else {
			pyFiles = append(pyFiles, f)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var members sync.WaitGroup
	join := func(name string) {
		members.Add(1)
		go func() {
			defer members.Done()
			if err := consumeGo(ctx, j.b.addr(), name, j.reads, &j.joins); err != nil {
				fmt.Fprintln(os.Stderr, name, err)
			}
		}()
	}
	join("go-1")
	pyEnded, pyLeave, err := j.pythonMember("python-1")
	if err != nil {
		return err
	}
	defer pyLeave()
	for limit := time.Now().Add(60 * time.Second); j.pyParts.Load() == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			return errors.New("the Python member got no partitions within 60 s of the start")
		}
	}
	go j.mon.watch(ctx, j.b.addr())

	produced := make(chan error, 2)
	go func() {
		produced <- produceGo(j.b.addr(), goFiles, &pacer{rate: j.rate, begin: time.Now()}, &j.acked[0])
	}()
	go func() { produced <- j.producePython(pyFiles) }()

	total := int64(j.src.lines)
	if err := j.events(produced, total, func() { join("go-2") }, func() error { pyLeave(); return pyEnded() }); err != nil {
		return err
	}
	j.elapsed = time.Since(begin)
	if err := j.caughtUp(); err != nil {
		return err
	}
	cancel()
	members.Wait()
	return nil
}

// events does what shall happen at given shares of the job, in order, and waits for both producers.
func (j *job) events(produced <-chan error, total int64, join func(), leave func() error) error {
	type event struct {
		share float64
		do    func() error
	}
	crash := func() error {
		j.b.kill()
		j.kills++
		return j.b.start(startLimit)
	}
	evs := []event{{0.2, crash}, {0.35, func() error { join(); return nil }}, {0.5, crash}, {0.65, leave}, {0.8, crash}}
	deadline := time.After(jobLimit)
	for left := 2; left > 0 || len(evs) > 0; {
		if n := j.acked[0].Load() + j.acked[1].Load(); len(evs) > 0 && (float64(n) >= evs[0].share*float64(total) || left == 0) {
			if left == 0 {
				return fmt.Errorf("both producers ended before the event at %.0f %% of the job", evs[0].share*100)
			}
			if err := evs[0].do(); err != nil {
				return err
			}
			evs = evs[1:]
			continue
		}
		select {
		case err := <-produced:
			if err != nil {
				return fmt.Errorf("producer: %w", err)
			}
			left--
		case <-j.b.exited:
			return fmt.Errorf("the broker died by itself: %s", j.b.tail())
		case <-deadline:
			return fmt.Errorf("%d of %d lines acknowledged after %v", j.acked[0].Load()+j.acked[1].Load(), total, jobLimit)
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

func (j *job) pythonMember(name string) (func() error, func(), error) {
	return python(j.root, "consume.py", filepath.Join(j.b.work, name+".err"), func(f []string) {
		switch {
		case len(f) == 4 && f[0] == "read":
			p, e1 := strconv.ParseInt(f[1], 10, 32)
			from, e2 := strconv.ParseInt(f[2], 10, 64)
			to, e3 := strconv.ParseInt(f[3], 10, 64)
			if errors.Join(e1, e2, e3) == nil {
				j.reads.add(name, int32(p), from, to)
			}
		case len(f) == 2 && f[0] == "assigned":
			j.joins.Add(1)
			n, _ := strconv.ParseInt(f[1], 10, 64)
			j.pyParts.Store(n)
		}
	}, j.b.addr(), topic, group)
}

func (j *job) producePython(files []file) error {
	list := filepath.Join(j.b.work, "python-files")
	var names []string
	for _, f := range files {
		names = append(names, f.path)
	}
	if err := os.WriteFile(list, []byte(strings.Join(names, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	var said string
	wait, _, err := pythonFrom(j.root, list, filepath.Join(j.b.work, "produce.err"), func(f []string) {
		if len(f) == 2 && (f[0] == "acked" || f[0] == "done") {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			j.acked[1].Store(n)
		} else {
			said = strings.Join(f, " ")
		}
	}, j.b.addr(), topic, j.input, fmt.Sprint(j.rate))
	if err != nil {
		return err
	}
	if err := wait(); err != nil {
		return fmt.Errorf("%w %s", err, said)
	}
	return nil
}

// caughtUp waits until the group has committed the end of every partition.
func (j *job) caughtUp() error {
	c, err := kgo.NewClient(kgo.SeedBrokers(j.b.addr()))
	if err != nil {
		return err
	}
	defer c.Close()
	adm := kadm.NewClient(c)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for {
		l, err := adm.Lag(ctx, group)
		g := l[group]
		if err == nil && g.Error() == nil && len(g.Lag[topic]) == partitions && g.Lag.Total() == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the group has not caught up: lag %d, %v %v", g.Lag.Total(), err, g.Error())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// monitor asks for the committed offsets all the time and remembers the highest of each partition.
type monitor struct {
	mu    sync.Mutex
	high  map[int32]int64
	fell  []string
	asked int
}

func (m *monitor) watch(ctx context.Context, addr string) {
	m.high = map[int32]int64{}
	c, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RetryTimeout(time.Second))
	if err != nil {
		return
	}
	defer c.Close()
	adm := kadm.NewClient(c)
	for ctx.Err() == nil {
		t, cancel := context.WithTimeout(ctx, 2*time.Second)
		os, err := adm.FetchOffsets(t, group)
		cancel()
		if err == nil && os.Error() == nil {
			m.see(os)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (m *monitor) see(os kadm.OffsetResponses) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	now := map[int32]int64{}
	for p, o := range os[topic] {
		now[p] = o.At
	}
	for p, h := range m.high {
		if at, there := now[p]; !there || at < h {
			m.fell = append(m.fell, fmt.Sprintf("partition %d from %d to %d (there: %v)", p, h, at, there))
		}
	}
	for p, at := range now {
		m.high[p] = max(m.high[p], at)
	}
}

// verify reads the whole topic with a third reader and compares it with the source, line by line.
func (j *job) verify() error {
	want, sums := map[string]int{}, newSum()
	for i := range j.src.files {
		f := &j.src.files[i]
		var buf []byte
		f.each(func(n int, line []byte) bool {
			buf = value(buf[:0], f.path, n, line)
			sums.add(f.path, buf)
			j.src.bytes += int64(len(buf) + len(f.path))
			return true
		})
		want[f.path] = f.lines
	}
	got, ends, twice, disorder, err := readBack(j.b.addr(), want)
	if err != nil {
		return err
	}
	lost := 0
	for p, n := range want {
		lost += n - got.seen[p].count
	}
	acked := j.acked[0].Load() + j.acked[1].Load()
	j.say(acked == int64(j.src.lines), "acknowledged", "%d of %d lines, %d by franz-go and %d by confluent-kafka at once", acked, j.src.lines, j.acked[0].Load(), j.acked[1].Load())
	j.say(lost == 0 && twice == 0, "exactly-once", "lost %d, duplicated %d", lost, twice)
	j.say(disorder == 0, "order", "%d records out of order within their key", disorder)
	j.say(got.sum.String() == sums.String(), "checksum", "sha256 of all lines read %.16s, of the source %.16s", got.sum.String(), sums.String())
	j.groupChecks(ends)
	var times []string
	for _, d := range j.b.starts {
		times = append(times, fmt.Sprintf("%.3f", d.Seconds()))
	}
	j.say(j.kills == 3, "restarts", "%d SIGKILLs; seconds from each start to the first answered request: %s", j.kills, strings.Join(times, " "))
	fmt.Printf("realinput: %d records, %d bytes, %.1f seconds, %.0f records/s, %d restarts, start to first answer %s s, lost %d, duplicated %d\n",
		j.src.lines, j.src.bytes, j.elapsed.Seconds(), float64(j.src.lines)/j.elapsed.Seconds(), j.kills, strings.Join(times, " "), lost, twice)
	return nil
}

// groupChecks: the group saw every offset, nothing was skipped, and no committed offset ever fell back.
func (j *job) groupChecks(ends map[int32]int64) {
	missing, seen := int64(0), int64(0)
	j.reads.mu.Lock()
	for p, end := range ends {
		rs := j.reads.ranges[p]
		slices.SortFunc(rs, func(a, b [2]int64) int { return int(a[0] - b[0]) })
		at := int64(0)
		for _, r := range rs {
			seen += r[1] - r[0]
			if r[0] > at {
				missing += r[0] - at
			}
			at = max(at, r[1])
		}
		missing += max(0, end-at)
	}
	j.reads.mu.Unlock()
	j.say(missing == 0, "group", "three members read %v: %d records never delivered, %d delivered again after a kill or rebalance, %d assignments", j.reads.total, missing, seen-int64(j.src.lines), j.joins.Load())
	j.mon.mu.Lock()
	defer j.mon.mu.Unlock()
	j.say(len(j.mon.fell) == 0 && j.mon.asked > 0, "commits", "asked %d times, committed offsets fell back %d times %.300s", j.mon.asked, len(j.mon.fell), strings.Join(j.mon.fell, "; "))
	j.say(len(j.reads.total) == 3, "members", "%d of 3 members read something", len(j.reads.total))
}

// back is what the third reader found.
type back struct {
	sum  *sum
	seen map[string]*lines
}

// lines remembers which lines of one path were read, and the highest.
type lines struct {
	have        []bool
	count, last int
}

// readBack reads all partitions to their ends. A line read again is a repeat; one below a line read before it is out of order.
func readBack(addr string, want map[string]int) (b back, ends map[int32]int64, twice, disorder int, err error) {
	b = back{sum: newSum(), seen: map[string]*lines{}}
	for p, n := range want {
		b.seen[p] = &lines{have: make([]bool, n+1)}
	}
	ends = map[int32]int64{}
	c, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200*time.Millisecond))
	if err != nil {
		return b, nil, 0, 0, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	l, err := kadm.NewClient(c).ListEndOffsets(ctx, topic)
	if err != nil || l.Error() != nil {
		return b, nil, 0, 0, errors.Join(err, l.Error())
	}
	left := int64(0)
	l.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset; left += o.Offset })
	home := map[string]int32{}
	for left > 0 {
		fs := c.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return b, ends, twice, disorder, fmt.Errorf("reading back, %d records left: %w", left, err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			left--
			path, n := string(r.Key), 0
			if f := bytes.SplitN(r.Value, []byte{'\t'}, 3); len(f) == 3 && string(f[0]) == path {
				n, _ = strconv.Atoi(string(f[1]))
			}
			p, known := home[path]
			if !known {
				home[path] = r.Partition
			}
			switch l := b.seen[path]; {
			case l == nil || n < 1 || n > want[path] || known && p != r.Partition:
				disorder++ // not a line of the source, or a key on two partitions
			case l.have[n]:
				twice++
			default:
				l.have[n], l.count = true, l.count+1
				if n < l.last {
					disorder++
				}
				l.last = max(l.last, n)
			}
			b.sum.add(path, r.Value)
		})
	}
	return b, ends, twice, disorder, nil
}

// shutdown ends the broker politely; its files stay when something failed.
func (j *job) shutdown(keep bool) {
	begin := time.Now()
	if j.b.cmd != nil {
		cmd := j.b.cmd
		j.b.stop(syscall.SIGTERM, 15*time.Second)
		if j.b.kind == "milena" {
			j.say(cmd.ProcessState.ExitCode() == 0 && time.Since(begin) < 5*time.Second, "sigterm", "status %d after %.1f s", cmd.ProcessState.ExitCode(), time.Since(begin).Seconds())
		}
	}
	if keep {
		fmt.Println("kept", j.b.work)
		return
	}
	os.RemoveAll(j.b.work)
}
