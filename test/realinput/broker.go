package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// broker is the process under test. It is started on the same port and data again after every kill.
type broker struct {
	kind, root, work string // kind is milena or kafka
	port             int
	cmd              *exec.Cmd
	exited           chan struct{}
	starts           []time.Duration // from each start to its first answered request
}

func newBroker(kind, root string) (*broker, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	if port > 50000 { // test/kafka/start uses port+10000 too
		port -= 30000
	}
	work, err := os.MkdirTemp("", "realinput")
	return &broker{kind: kind, root: root, work: work, port: port}, err
}

func (b *broker) addr() string { return fmt.Sprintf("127.0.0.1:%d", b.port) }

// start runs the broker and waits until it answers ApiVersions; it records how long that took.
func (b *broker) start(limit time.Duration) error {
	data := filepath.Join(b.work, "data")
	switch b.kind {
	case "kafka":
		b.cmd = exec.Command(filepath.Join(b.root, "test/kafka/start"), fmt.Sprint(b.port), data, "group.initial.rebalance.delay.ms=300")
	case "milena":
		conf := filepath.Join(b.work, "server.properties")
		text := fmt.Sprintf("listeners=PLAINTEXT://%[1]s\nadvertised.listeners=PLAINTEXT://%[1]s\nlog.dirs=%[2]s\ngroup.initial.rebalance.delay.ms=300\n", b.addr(), data)
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			return err
		}
		bin := filepath.Join(b.root, "bin/milena")
		if p := os.Getenv("MILENA"); p != "" { // another build, for example one with the race detector
			bin = p
		}
		b.cmd = exec.Command(bin, "serve", "--config", conf)
	default:
		return fmt.Errorf("unknown broker %q: milena or kafka", b.kind)
	}
	log, err := os.OpenFile(filepath.Join(b.work, "broker.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	b.cmd.Stdout, b.cmd.Stderr = log, log
	begin := time.Now()
	if err := b.cmd.Start(); err != nil {
		return err
	}
	cmd, exited := b.cmd, make(chan struct{})
	b.exited = exited
	go func() { cmd.Wait(); close(exited) }()
	for time.Since(begin) < limit {
		if apiVersions(b.addr()) == nil {
			b.starts = append(b.starts, time.Since(begin))
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("the broker ended at once: %s", b.tail())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return fmt.Errorf("no answer within %v of the start: %s", limit, b.tail())
}

// kill is the power cut of a process: no handler runs, nothing is flushed.
func (b *broker) kill() { b.stop(syscall.SIGKILL, 10*time.Second) }

func (b *broker) stop(sig syscall.Signal, limit time.Duration) {
	if b.cmd == nil {
		return
	}
	b.cmd.Process.Signal(sig)
	select {
	case <-b.exited:
	case <-time.After(limit):
		b.cmd.Process.Kill()
		<-b.exited
	}
	b.cmd = nil
}

func (b *broker) tail() string {
	t, _ := os.ReadFile(filepath.Join(b.work, "broker.log"))
	return string(t[max(0, len(t)-400):])
}

// apiVersions asks what every client asks first and reads the whole answer.
func apiVersions(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	// size, api key 18, version 0, correlation id 7, null client id
	if _, err := c.Write([]byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff}); err != nil {
		return err
	}
	head := make([]byte, 10)
	if _, err := io.ReadFull(c, head); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(head)) - 6
	if code := binary.BigEndian.Uint16(head[8:]); code != 0 {
		return fmt.Errorf("ApiVersions: error code %d", code)
	}
	_, err = io.CopyN(io.Discard, c, n)
	return err
}
