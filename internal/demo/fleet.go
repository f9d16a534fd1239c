package demo

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// fleet is the brokers, as children of this process.
type fleet struct {
	program  string
	dir      string
	settings []string // --set key=value for each broker
	brokers  []*child // number i has id i+1
	spawn    chan spawning
	wg       sync.WaitGroup
	ended    chan int // index of a child that ended
}

// child is one broker. Its ports stay the same over its lives.
type child struct {
	id           int32
	client, peer string // addresses
	dir, log     string
	lives        int
	mu           struct {
		sync.Mutex
		cmd    *exec.Cmd
		parent io.Closer // the write end of its standard input
		done   chan struct{}
		killed bool // by us
	}
}

type spawning struct {
	cmd  *exec.Cmd
	done chan error
}

// newFleet picks free ports for n brokers with data below dir.
func newFleet(program, dir string, n int, settings []string) (*fleet, error) {
	f := &fleet{program: program, dir: dir, settings: settings, spawn: make(chan spawning), ended: make(chan int, 64)}
	// All are held open until the last is found, or the system could give one port twice.
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	free := func() (string, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", fmt.Errorf("look for a free port: %w", err)
		}
		held = append(held, l)
		return l.Addr().String(), nil
	}
	for i := range n {
		c := &child{id: int32(i + 1), dir: filepath.Join(dir, fmt.Sprintf("broker-%d", i+1)), log: filepath.Join(dir, fmt.Sprintf("broker-%d.log", i+1))}
		var err error
		if c.client, err = free(); err != nil {
			return nil, err
		}
		if c.peer, err = free(); err != nil {
			return nil, err
		}
		f.brokers = append(f.brokers, c)
	}
	f.wg.Go(f.spawner)
	return f, nil
}

// spawner starts children, all from one thread that lives as long as the fleet: on Linux a child is told
// of its parent's death when the thread that made it ends.
func (f *fleet) spawner() {
	lockThread()
	for s := range f.spawn {
		s.done <- s.cmd.Start()
	}
}

func (f *fleet) addresses() []string {
	var out []string
	for _, c := range f.brokers {
		out = append(out, c.client)
	}
	return out
}

// args is the command line of one broker: what a person would type.
func (f *fleet) args(c *child) []string {
	out := []string{"serve", "--node-id", strconv.Itoa(int(c.id)), "--listen", c.client, "--data", c.dir}
	if len(f.brokers) > 1 {
		var all []string
		for _, x := range f.brokers {
			all = append(all, fmt.Sprintf("%d@%s", x.id, x.peer))
		}
		out = append(out, "--cluster", strings.Join(all, ","))
	}
	for _, s := range f.settings {
		out = append(out, "--set", s)
	}
	return append(out, "--with-parent")
}

// ownEnv leaves out the settings that a person keeps in the environment for brokers of their own: one of
// them could send these three to another cluster.
func ownEnv(env []string) []string {
	return slices.DeleteFunc(env, func(e string) bool {
		return strings.HasPrefix(e, "MILENA_") && !strings.HasPrefix(e, "MILENA_DEMO_")
	})
}

// start runs broker i. It does not wait until the broker serves.
func (f *fleet) start(i int) error {
	c := f.brokers[i]
	out, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(f.program, f.args(c)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = ownEnv(os.Environ())
	cmd.SysProcAttr = ownGroup()
	// A broker that was started so ends when its standard input does, which the system closes with us.
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	s := spawning{cmd, make(chan error, 1)}
	f.spawn <- s
	if err := <-s.done; err != nil {
		in.Close()
		return fmt.Errorf("start broker %d: %w", c.id, err)
	}
	done := make(chan struct{})
	c.mu.Lock()
	c.mu.cmd, c.mu.parent, c.mu.done, c.mu.killed = cmd, in, done, false
	c.lives++
	c.mu.Unlock()
	f.wg.Go(func() {
		_ = cmd.Wait() // how it ended is not asked: only that it did, and whether it should
		in.Close()
		c.mu.Lock()
		c.mu.cmd = nil
		c.mu.Unlock()
		close(done)
		select {
		case f.ended <- i:
		default: // nobody looks any more
		}
	})
	return nil
}

func (c *child) running() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.cmd != nil
}

// pid is the number of the process, 0 when there is none.
func (c *child) pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.cmd == nil {
		return 0
	}
	return c.mu.cmd.Process.Pid
}

// signal sends one to broker i; with SIGKILL it counts as killed by us.
func (c *child) signal(s syscall.Signal) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.cmd == nil {
		gone := make(chan struct{})
		close(gone)
		return gone
	}
	c.mu.killed = true
	_ = c.mu.cmd.Process.Signal(s) // it may have ended just now
	return c.mu.done
}

func (c *child) byUs() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.killed
}

// stop ends all children: politely, and after grace for good.
func (f *fleet) stop(grace time.Duration) {
	t := time.NewTimer(grace)
	defer t.Stop()
	var waits []<-chan struct{}
	for _, c := range f.brokers {
		waits = append(waits, c.signal(syscall.SIGTERM))
	}
	late := false
	for i, w := range waits {
		if !late {
			select {
			case <-w:
				continue
			case <-t.C:
				late = true
			}
		}
		<-f.brokers[i].signal(syscall.SIGKILL)
	}
	close(f.spawn)
	f.wg.Wait()
}

// lastWords is the last line that a broker has logged, for a person who has to find out why it ended.
func (c *child) lastWords() string {
	b, err := os.ReadFile(c.log)
	if err != nil {
		return ""
	}
	b = bytes.TrimRight(b, "\n")
	return string(b[bytes.LastIndexByte(b, '\n')+1:])
}
