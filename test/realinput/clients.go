package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// produceGo sends the files with franz-go: idempotent, acks=all, no limit on retries. It counts acknowledgements.
func produceGo(addr string, files []file, pace *pacer, acked *atomic.Int64) error {
	c, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topic), kgo.MaxBufferedRecords(20000), kgo.ProducerBatchMaxBytes(3000000), kgo.ProducerBatchCompression(kgo.Lz4Compression()),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(5*time.Millisecond), kgo.RetryBackoffFn(backoff), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		return err
	}
	defer c.Close()
	var failed atomic.Pointer[error]
	for i := range files {
		f := &files[i]
		key := []byte(f.path)
		f.each(func(n int, line []byte) bool {
			pace.wait()
			c.Produce(context.Background(), &kgo.Record{Key: key, Value: value(nil, f.path, n, line)}, func(_ *kgo.Record, err error) {
				if err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				acked.Add(1)
			})
			return failed.Load() == nil
		})
	}
	if err := c.Flush(context.Background()); err != nil {
		return err
	}
	if e := failed.Load(); e != nil {
		return *e
	}
	return nil
}

func backoff(int) time.Duration { return 100 * time.Millisecond }

// pacer holds two producers to a common rate in lines a second, so that a small job lasts long enough to be killed in. 0: no limit.
type pacer struct {
	rate  int
	begin time.Time
	n     atomic.Int64
}

func (p *pacer) wait() {
	if p.rate <= 0 {
		return
	}
	n := p.n.Add(1)
	if n%50 != 0 {
		return
	}
	if d := time.Duration(n)*time.Second/time.Duration(p.rate) - time.Since(p.begin); d > 0 {
		time.Sleep(d)
	}
}

// python starts a Python client; its lines of output go to line. The returned stop ends its input, which it takes as the sign to leave.
func python(root, script, stderr string, line func(f []string), args ...string) (wait func() error, stop func(), err error) {
	cmd := exec.Command(filepath.Join(root, ".cache/py/bin/python"), append([]string{filepath.Join(root, "test/realinput", script)}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	wait, err = runPython(cmd, script, stderr, line)
	var once sync.Once
	return wait, func() { once.Do(func() { in.Close() }) }, err
}

// pythonFrom is the producer: its standard input is a list of files.
func pythonFrom(root, list, stderr string, line func(f []string), args ...string) (wait func() error, stop func(), err error) {
	cmd := exec.Command(filepath.Join(root, ".cache/py/bin/python"), append([]string{filepath.Join(root, "test/realinput/produce.py")}, args...)...)
	in, err := os.Open(list)
	if err != nil {
		return nil, nil, err
	}
	defer in.Close()
	cmd.Stdin = in
	wait, err = runPython(cmd, "produce.py", stderr, line)
	return wait, func() {}, err
}

// runPython starts cmd; wait returns its end, or kills it at the limit of the job.
func runPython(cmd *exec.Cmd, script, stderr string, line func(f []string)) (wait func() error, err error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(stderr)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			line(strings.Fields(sc.Text()))
		}
		if err := cmd.Wait(); err != nil {
			t, _ := os.ReadFile(stderr)
			err = fmt.Errorf("%s: %w: %s", script, err, t[max(0, len(t)-300):])
			ended <- err
			return
		}
		ended <- nil
	}()
	return func() error {
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-time.After(jobLimit):
			cmd.Process.Kill()
			return fmt.Errorf("%s did not end within %v", script, jobLimit)
		}
	}, nil
}

// reads remembers which offsets of each partition the group has seen, as ranges.
type reads struct {
	mu     sync.Mutex
	ranges map[int32][][2]int64 // half open
	total  map[string]int64     // records by member
}

func (r *reads) add(member string, p int32, from, to int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total[member] += to - from
	rs := r.ranges[p]
	if n := len(rs); n > 0 && rs[n-1][1] == from {
		rs[n-1][1] = to
		return
	}
	r.ranges[p] = append(rs, [2]int64{from, to})
}

// consumeGo is a group member in Go: it notes what it read, then commits synchronously, until ctx ends; then it leaves.
func consumeGo(ctx context.Context, addr, name string, r *reads, joined *atomic.Int64) error {
	c, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.Balancers(kgo.RangeBalancer()), kgo.SessionTimeout(20*time.Second), kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.FetchMaxWait(300*time.Millisecond), kgo.FetchMaxPartitionBytes(1<<20), kgo.RetryBackoffFn(backoff), kgo.MetadataMinAge(100*time.Millisecond),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { joined.Add(1) }))
	if err != nil {
		return err
	}
	defer c.Close()
	for ctx.Err() == nil {
		fs := c.PollRecords(ctx, 20000)
		rs := fs.Records()
		fs.EachPartition(func(p kgo.FetchTopicPartition) {
			for lo := 0; lo < len(p.Records); { // offsets without a gap become one range
				hi := lo + 1
				for hi < len(p.Records) && p.Records[hi].Offset == p.Records[hi-1].Offset+1 {
					hi++
				}
				r.add(name, p.Partition, p.Records[lo].Offset, p.Records[hi-1].Offset+1)
				lo = hi
			}
		})
		if len(rs) > 0 {
			t, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			c.CommitRecords(t, rs...) // a refusal (a rebalance, a dead broker) means somebody reads these again: allowed
			cancel()
		}
		c.AllowRebalance()
	}
	return nil
}
