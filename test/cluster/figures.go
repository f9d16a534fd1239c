package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// runFigures measures what a cluster costs and how quickly it recovers with much in it.
func runFigures(s settings, r *report) {
	for _, f := range []struct {
		name string
		do   func(settings, *report)
	}{{"many", manyPartitions}, {"catchup", catchUp}} {
		if s.only == nil || slices.Contains(s.only, f.name) {
			f.do(s, r)
		}
	}
}

const (
	manyParts   = 1000
	failoverMax = 2 * time.Second
	idleCPUMax  = 4.0 // percent of a core
	residentMax = 200 // MiB
	catchUpMin  = 0.8
	p99Max      = 3.0
)

// usage is what the kernel says about a process: CPU time and resident memory.
func usage(pid int) (cpu time.Duration, resident int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])) // from field 3 on
	if len(f) < 22 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(f))
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	pages, _ := strconv.ParseInt(f[21], 10, 64)
	const ticks = 100 // a second, on every Linux
	return time.Duration(user+system) * time.Second / ticks, pages * int64(os.Getpagesize()), nil
}

func manyPartitions(s settings, r *report) {
	c, err := newCluster(options{bin: s.bin, brokers: 3})
	if err != nil {
		r.say(false, "many", "%v", err)
		return
	}
	failed := r.failed
	defer func() { c.destroy(s.keep || r.failed > failed) }()
	if err := c.start(); err != nil {
		r.say(false, "many", "%v", err)
		return
	}
	begin := time.Now()
	if err := createTopic(c, topic, manyParts, 3, nil); err != nil {
		r.say(false, "many", "%v", err)
		return
	}
	if err := wholeTopic(c, manyParts, 60*time.Second); err != nil {
		r.say(false, "many", "%v", err)
		return
	}
	r.say(true, "many-create", "%d partitions of 3 replicas created and in sync after %.2f s", manyParts, time.Since(begin).Seconds())
	if _, err := writeAll(c, 0, nil, 60*time.Second); err != nil {
		r.say(false, "many", "%v", err)
		return
	}
	idle(c, r, "idle")
	for i := range 5 {
		if !failover(c, r, int32(i%3)+1, i+1) {
			return
		}
	}
	idle(c, r, "idle-after")
	note("load average %s", loadAverage())
}

// idle watches the brokers with nobody asking anything.
func idle(c *cluster, r *report, name string) {
	time.Sleep(5 * time.Second)
	var before []time.Duration
	for _, n := range c.nodes {
		cpu, _, _ := usage(n.cmd.Process.Pid)
		before = append(before, cpu)
	}
	const window = 20 * time.Second
	time.Sleep(window)
	var cpus, mibs []string
	good, small := true, true
	for i, n := range c.nodes {
		cpu, res, err := usage(n.cmd.Process.Pid)
		if err != nil {
			r.say(false, "many-"+name, "broker %d: %v", n.id, err)
			return
		}
		percent := 100 * float64(cpu-before[i]) / float64(window)
		good, small = good && percent < idleCPUMax, small && res>>20 < residentMax
		cpus, mibs = append(cpus, fmt.Sprintf("%.1f", percent)), append(mibs, fmt.Sprint(res>>20))
	}
	r.say(good, "many-"+name+"-cpu", "%d partitions of 3 replicas, nobody asks: %s %% of a core (under %.0f)", manyParts, strings.Join(cpus, ", "), idleCPUMax)
	r.say(small, "many-"+name+"-memory", "resident %s MiB (under %d)", strings.Join(mibs, ", "), residentMax)
}

// failover kills a broker and waits until every partition that it led accepts a record elsewhere.
func failover(c *cluster, r *report, id int32, trial int) bool {
	v, err := metadata(c.nodes[id%3].client.real, topic, 5*time.Second)
	if err != nil {
		r.say(false, "many-failover", "%v", err)
		return false
	}
	var led []int32
	for p, b := range v.leader {
		if b == id {
			led = append(led, p)
		}
	}
	ctl, _ := storeLeader(c.nodes[id%3].client.real, time.Second)
	c.node(id).kill()
	took, err := writeAll(c, id, led, 30*time.Second)
	if err != nil {
		r.say(false, "many-failover", "%v", err)
		return false
	}
	who := ""
	if ctl == id {
		who = " and the store"
	}
	r.say(took < failoverMax, fmt.Sprint("many-failover-", trial), "broker %d, which led %d partitions%s, killed: all of them accept records elsewhere after %.2f s (under %.1f)", id, len(led), who, took.Seconds(), failoverMax.Seconds())
	if err := c.start(id); err != nil {
		r.say(false, "many-failover", "%v", err)
		return false
	}
	if err := wholeTopic(c, manyParts, 60*time.Second); err != nil {
		r.say(false, "many-failover", "%v", err)
		return false
	}
	// Leaders go back, so that the next one leads a third again.
	if err := preferredAll(c.nodes[0]); err != nil {
		r.say(false, "many-failover", "%v", err)
		return false
	}
	return true
}

func preferredAll(n *node) error {
	req := kmsg.NewPtrElectLeadersRequest()
	req.TimeoutMillis = 30000
	req.Topics = nil // all
	resp, err := ask[*kmsg.ElectLeadersResponse](n.client.real, req, 2, 40*time.Second)
	if err == nil && resp.ErrorCode != 0 {
		err = fmt.Errorf("ElectLeaders: %s", errorName(resp.ErrorCode))
	}
	return err
}

// wholeTopic waits until every broker says that all replicas of all partitions are in sync.
func wholeTopic(c *cluster, parts int, limit time.Duration) error {
	var why error
	for begin := time.Now(); time.Since(begin) < limit; time.Sleep(20 * time.Millisecond) {
		why = nil
		for _, n := range c.nodes {
			v, err := metadata(n.client.real, topic, 5*time.Second)
			if err != nil {
				why = err
				break
			}
			bad := parts - len(v.isr)
			for p := range v.isr {
				if len(v.isr[p]) != 3 || v.leader[p] < 0 {
					bad++
				}
			}
			if bad > 0 {
				why = fmt.Errorf("broker %d says %d partitions are not in sync", n.id, bad)
				break
			}
		}
		if why == nil {
			return nil
		}
	}
	return fmt.Errorf("after %v: %w", limit, why)
}

// writeAll writes one record to each of the partitions (nil: all), by what the other brokers' metadata says, until each was
// acknowledged by all in sync; it returns how long that took.
func writeAll(c *cluster, dead int32, parts []int32, limit time.Duration) (time.Duration, error) {
	begin := time.Now()
	open := map[int32]bool{}
	for _, p := range parts {
		open[p] = true
	}
	for p := range int32(manyParts) {
		if parts == nil {
			open[p] = true
		}
	}
	var why error
	for time.Since(begin) < limit {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for _, n := range c.nodes {
			if n.id == dead {
				continue
			}
			v, err := metadata(n.client.real, topic, 5*time.Second)
			if err != nil {
				why = err
				continue
			}
			var mine []int32
			for p := range open {
				if v.leader[p] == n.id {
					mine = append(mine, p)
				}
			}
			if len(mine) == 0 {
				continue
			}
			wg.Go(func() {
				done, err := writeTo(n, mine)
				mu.Lock()
				defer mu.Unlock()
				for _, p := range done {
					delete(open, p)
				}
				if err != nil {
					why = err
				}
			})
		}
		wg.Wait()
		if len(open) == 0 {
			return time.Since(begin), nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0, fmt.Errorf("%d partitions accept nothing after %v: %v", len(open), limit, why)
}

func writeTo(n *node, parts []int32) (done []int32, err error) {
	req := produceRequest(topic, parts[0], []byte("letter"), 5*time.Second)
	for _, p := range parts[1:] {
		more := produceRequest(topic, p, []byte("letter"), 0)
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, more.Topics[0].Partitions...)
	}
	resp, err := ask[*kmsg.ProduceResponse](n.client.real, req, 9, 10*time.Second)
	if err != nil {
		return nil, err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 {
				done = append(done, p.Partition)
			} else {
				err = fmt.Errorf("broker %d partition %d: %s", n.id, p.Partition, errorName(p.ErrorCode))
			}
		}
	}
	return done, err
}

// catchUp lets a broker miss 5 GiB and measures its return, and what producers feel of it.
func catchUp(s settings, r *report) {
	const parts = 12
	total := int64(5 << 30)
	if g := os.Getenv("CATCHUP_BYTES"); g != "" {
		total, _ = strconv.ParseInt(g, 10, 64)
	}
	o := options{bin: s.bin, brokers: 3}
	if os.Getenv("CATCHUP_DISKS") != "" {
		// One file system for each broker, as on machines of their own: a sync of all of one (syncfs) must not wait for
		// what the others have written. The disk below is still one for all three.
		o.disks = 2*total + 4<<30
	}
	c, err := newCluster(o)
	if err != nil {
		r.say(false, "catchup", "%v", err)
		return
	}
	dir := c.work
	if o.disks > 0 {
		dir = c.node(3).disk.mount
	}
	failed := r.failed
	defer func() { c.destroy(s.keep || r.failed > failed) }()
	if err = c.start(); err == nil {
		err = createTopic(c, topic, parts, 3, nil)
	}
	if err == nil {
		err = wholeTopic(c, parts, 30*time.Second)
	}
	if err != nil {
		r.say(false, "catchup", "%v", err)
		return
	}
	p, err := newPulse(c, parts)
	if err != nil {
		r.say(false, "catchup", "%v", err)
		return
	}
	defer p.end()
	time.Sleep(3 * time.Second)
	calm := p.p99(15 * time.Second)
	n := c.node(3)
	if _, err := n.stop(stopLimit); err != nil {
		r.say(false, "catchup", "%v", err)
		return
	}
	begin := time.Now()
	if err := bulk(c, parts, total); err != nil {
		r.say(false, "catchup", "%v", err)
		return
	}
	note("%d MiB written to two brokers at %.0f MB/s", total>>20, float64(total)/1e6/time.Since(begin).Seconds())
	disk, loop := diskSpeed(dir), loopSpeed()
	time.Sleep(5 * time.Second)
	alone := p.p99(10 * time.Second)
	if err := n.launch(); err != nil {
		r.say(false, "catchup", "%v", err)
		return
	}
	p.reset()
	var before [3]time.Duration
	for i, n := range c.nodes {
		before[i], _, _ = usage(n.cmd.Process.Pid)
	}
	begin = time.Now()
	if _, err := n.ready(startLimit); err != nil {
		r.say(false, "catchup", "%v", err)
		return
	}
	serves := time.Since(begin)
	if err := wholeTopic(c, parts, 5*time.Minute); err != nil {
		r.say(false, "catchup", "%v", err)
		return
	}
	took := time.Since(begin) - serves
	during := p.latest99()
	var spent []string
	for i, n := range c.nodes {
		cpu, _, _ := usage(n.cmd.Process.Pid)
		spent = append(spent, fmt.Sprintf("%.2f", (cpu-before[i]).Seconds()/(float64(total)/1e9)))
	}
	note("CPU seconds of the brokers for each GB: %s (the last one returns), %d CPUs, load average %s", strings.Join(spent, ", "), runtime.NumCPU(), loadAverage())
	speed, limit := float64(total)/took.Seconds(), min(disk, loop)
	r.say(speed >= catchUpMin*limit, "catchup-speed", "%d MiB caught up and in sync %.1f s after the broker was ready (%.2f s): %.0f MB/s, %.0f %% of the lower of disk %.0f and loopback %.0f MB/s (at least %.0f %%)",
		total>>20, took.Seconds(), serves.Seconds(), speed/1e6, 100*speed/limit, disk/1e6, loop/1e6, 100*catchUpMin)
	r.say(float64(during) < p99Max*float64(calm), "catchup-p99", "producers' p99 %.1f ms meanwhile, %.1f ms before with three brokers, %.1f ms with two: %.1f times (under %.0f)",
		ms(during), ms(calm), ms(alone), float64(during)/float64(calm), p99Max)
}

// loadAverage says how busy the machine is with others, which every figure here depends on.
func loadAverage() string {
	b, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(b), " ")
	return one
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// pulse produces one record of 1 KiB to each partition every 20 ms and remembers how long acknowledgements took.
type pulse struct {
	cl   *kgo.Client
	stop context.CancelFunc
	done chan struct{}
	mu   sync.Mutex
	took []time.Duration
	errs atomic.Int64
}

func newPulse(c *cluster, parts int32) (*pulse, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.bootstrap()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &pulse{cl: cl, stop: cancel, done: make(chan struct{})}
	value := make([]byte, 1024)
	go func() {
		defer close(p.done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			for part := range parts {
				begin := time.Now()
				cl.Produce(ctx, &kgo.Record{Topic: topic, Partition: part, Value: value}, func(_ *kgo.Record, err error) {
					if err != nil {
						p.errs.Add(1)
						return
					}
					p.mu.Lock()
					p.took = append(p.took, time.Since(begin))
					p.mu.Unlock()
				})
			}
		}
	}()
	return p, nil
}

func (p *pulse) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took = nil
}

func (p *pulse) p99(d time.Duration) time.Duration {
	p.reset()
	time.Sleep(d)
	return p.latest99()
}

func (p *pulse) latest99() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.took) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(p.took))
	return s[len(s)*99/100]
}

func (p *pulse) end() {
	p.stop()
	<-p.done
	p.cl.Close()
}

// bulk writes so many bytes of values as quickly as it goes.
func bulk(c *cluster, parts int32, total int64) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.bootstrap()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MetadataMinAge(100*time.Millisecond), kgo.MaxBufferedBytes(64<<20), kgo.ProducerBatchMaxBytes(1000000))
	if err != nil {
		return err
	}
	defer cl.Close()
	value := make([]byte, 16<<10)
	for i := range value { // not zeros: a disk may be clever about those
		value[i] = byte(i * 7)
	}
	var failed atomic.Pointer[error]
	for i := int64(0); i*int64(len(value)) < total && failed.Load() == nil; i++ {
		cl.Produce(context.Background(), &kgo.Record{Topic: topic, Partition: int32(i % int64(parts)), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	if err := cl.Flush(context.Background()); err != nil {
		return err
	}
	if e := failed.Load(); e != nil {
		return *e
	}
	return nil
}

// diskSpeed is bytes a second of a sequential write of 1 GiB with one sync at its end, in dir; the median of three.
func diskSpeed(dir string) float64 {
	var speeds []float64
	buf := make([]byte, 1<<20)
	for i := range buf {
		buf[i] = byte(i * 13)
	}
	for range 3 {
		name := filepath.Join(dir, "speed")
		f, err := os.Create(name)
		if err != nil {
			return 0
		}
		begin := time.Now()
		for range 1024 {
			f.Write(buf)
		}
		syscall.Fdatasync(int(f.Fd()))
		speeds = append(speeds, float64(1<<30)/time.Since(begin).Seconds())
		f.Close()
		os.Remove(name)
	}
	slices.Sort(speeds)
	return speeds[1]
}

// loopSpeed is bytes a second of one TCP connection over loopback.
func loopSpeed() float64 {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, 256<<10)
		for range 8192 {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return 0
	}
	defer c.Close()
	buf := make([]byte, 256<<10)
	begin, n := time.Now(), 0
	for {
		k, err := c.Read(buf)
		n += k
		if err != nil {
			break
		}
	}
	return float64(n) / time.Since(begin).Seconds()
}
