package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// broker is the process that is measured: Milena's binary, or Apache Kafka as the yardstick.
type broker struct {
	kind, root, work string
	extra            []string // key=value settings
	port             int
	cmd              *exec.Cmd
	exited           chan struct{}
}

func newBroker(kind, root string, extra ...string) (*broker, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	if port > 50000 { // test/kafka/start takes port+10000 for its controller
		port -= 30000
	}
	work, err := os.MkdirTemp(os.Getenv("BENCH_DIR"), "bench")
	return &broker{kind: kind, root: root, work: work, port: port, extra: extra}, err
}

func (b *broker) addr() string { return fmt.Sprintf("127.0.0.1:%d", b.port) }

// start returns how long the broker took to answer its first ApiVersions, process start included.
func (b *broker) start(limit time.Duration) (time.Duration, error) {
	data := filepath.Join(b.work, "data")
	if b.kind == "kafka" {
		b.cmd = exec.Command(filepath.Join(b.root, "test/kafka/start"), append([]string{fmt.Sprint(b.port), data}, b.extra...)...)
	} else {
		conf := filepath.Join(b.work, "server.properties")
		text := fmt.Sprintf("listeners=PLAINTEXT://%[1]s\nadvertised.listeners=PLAINTEXT://%[1]s\nlog.dirs=%[2]s\n%[3]s\n", b.addr(), data, strings.Join(b.extra, "\n"))
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			return 0, err
		}
		b.cmd = exec.Command(filepath.Join(b.root, "bin/milena"), "serve", "--config", conf)
	}
	log, err := os.OpenFile(filepath.Join(b.work, "broker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	b.cmd.Stdout, b.cmd.Stderr = log, log
	begin := time.Now()
	if err := b.cmd.Start(); err != nil {
		return 0, err
	}
	cmd, exited := b.cmd, make(chan struct{})
	b.exited = exited
	go func() { cmd.Wait(); close(exited) }()
	for time.Since(begin) < limit {
		if c, err := dial(b.addr()); err == nil {
			c.Close()
			return time.Since(begin), nil
		}
		select {
		case <-exited:
			t, _ := os.ReadFile(filepath.Join(b.work, "broker.log"))
			return 0, fmt.Errorf("the broker ended at once: %s", t[max(0, len(t)-400):])
		case <-time.After(time.Millisecond):
		}
	}
	return 0, fmt.Errorf("no answer within %v", limit)
}

// stop signals the broker and waits; remove deletes its files.
func (b *broker) stop(sig syscall.Signal) {
	if b.cmd == nil {
		return
	}
	b.cmd.Process.Signal(sig)
	select {
	case <-b.exited:
	case <-time.After(20 * time.Second):
		b.cmd.Process.Kill()
		<-b.exited
	}
	b.cmd = nil
}

func (b *broker) remove() {
	b.stop(syscall.SIGTERM)
	os.RemoveAll(b.work)
}

// rss is the resident memory in bytes.
func (b *broker) rss() int64 {
	t, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
	for l := range strings.Lines(string(t)) {
		if f := strings.Fields(l); len(f) > 1 && f[0] == "VmRSS:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// cpu is the processor time used so far, user and system.
func (b *broker) cpu() time.Duration {
	t, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.cmd.Process.Pid))
	_, rest, _ := strings.Cut(string(t), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	u, _ := strconv.ParseInt(f[11], 10, 64)
	s, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(u+s) * 10 * time.Millisecond // clock ticks of 1/100 s
}

// dial connects and completes one ApiVersions exchange, what every client does first.
func dial(addr string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	defer c.SetDeadline(time.Time{})
	if _, err := c.Write([]byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff}); err == nil {
		_, err = discardFrame(c)
		if err == nil {
			return c, nil
		}
	}
	c.Close()
	return nil, fmt.Errorf("ApiVersions: no answer from %s", addr)
}

// discardFrame reads one response, keeps its first 256 bytes and drops the rest.
func discardFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	b := make([]byte, min(n, 256))
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	_, err := io.CopyN(io.Discard, r, n-int64(len(b)))
	return b, err
}
