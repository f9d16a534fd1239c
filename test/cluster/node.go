package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// readyLine is what a broker prints when it serves.
const readyLine = "is ready"

// node is one broker: a process of its own with a data directory and two addresses of its own. It is started
// on the same ones again after every fault.
type node struct {
	id     int32
	dir    string // configuration, log; data lies below unless a disk is mounted there
	data   string
	client address
	peer   address

	conf    string // server.properties
	bin     string
	cmd     *exec.Cmd
	exited  chan struct{}
	begun   time.Time
	logFrom int64 // where this start's lines begin in the log
	frozen  bool
	disk    *disk // nil: a folder
}

// address is where a broker listens and what it tells others: a proxy in between when bytes shall stop flowing.
type address struct{ real, told string }

// host is the loopback address of a broker. Brokers connect to each other from it, so that a proxy sees who calls.
func host(id int32) string { return fmt.Sprintf("127.0.0.%d", 10+id) }

// broker is the id that a source address belongs to, 0 for a client.
func broker(a net.Addr) int32 {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return 0
	}
	if ip := t.IP.To4(); ip != nil && ip[0] == 127 && ip[1] == 0 && ip[2] == 0 && ip[3] > 10 && ip[3] < 100 {
		return int32(ip[3]) - 10
	}
	return 0
}

func freePort(host string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// launch starts the process and returns at once.
func (n *node) launch() error {
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	n.logFrom, _ = log.Seek(0, io.SeekEnd)
	n.cmd = exec.Command(n.bin, "serve", "--config", n.conf)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	// When this program dies, no broker stays behind, not even a frozen one.
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	n.begun = time.Now()
	if err := n.cmd.Start(); err != nil {
		n.cmd = nil
		return err
	}
	cmd, exited := n.cmd, make(chan struct{})
	n.exited = exited
	go func() { cmd.Wait(); close(exited) }()
	return nil
}

// ready waits until the broker says that it serves, and returns the time from its start.
func (n *node) ready(limit time.Duration) (time.Duration, error) {
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if strings.Contains(n.said(), readyLine) {
			return time.Since(n.begun), nil
		}
		select {
		case <-n.exited:
			return 0, fmt.Errorf("broker %d ended at its start: %s", n.id, n.tail())
		default:
		}
	}
	return 0, fmt.Errorf("broker %d was not ready within %v: %s", n.id, limit, n.tail())
}

func (n *node) logFile() string { return filepath.Join(n.dir, "broker.log") }

// said is what this start of the broker has printed.
func (n *node) said() string {
	f, err := os.Open(n.logFile())
	if err != nil {
		return ""
	}
	defer f.Close()
	f.Seek(n.logFrom, io.SeekStart)
	b, _ := io.ReadAll(io.LimitReader(f, 1<<20))
	return string(b)
}

func (n *node) tail() string {
	b, _ := os.ReadFile(n.logFile())
	b = bytes.ReplaceAll(bytes.TrimSpace(b[max(0, len(b)-600):]), []byte("\n"), []byte(" | "))
	return string(b)
}

func (n *node) running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// kill ends the process without a handler; it returns when it is gone.
func (n *node) kill() {
	if n.cmd == nil {
		return
	}
	n.cmd.Process.Kill()
	<-n.exited
	n.cmd, n.frozen = nil, false
}

// freeze stops every thread of the process: its sockets stay open, nothing answers.
func (n *node) freeze() {
	if n.running() {
		n.cmd.Process.Signal(syscall.SIGSTOP)
		n.frozen = true
	}
}

func (n *node) thaw() {
	if n.running() {
		n.cmd.Process.Signal(syscall.SIGCONT)
		n.frozen = false
	}
}

// stop ends the broker politely. An end by force or another status than 0 is an error.
func (n *node) stop(limit time.Duration) (time.Duration, error) {
	if !n.running() {
		return 0, fmt.Errorf("broker %d was not running: %s", n.id, n.tail())
	}
	begin := time.Now()
	n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.exited:
	case <-time.After(limit):
		// The stacks go to the log before the end, so that a hang can be explained.
		n.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-n.exited:
		case <-time.After(5 * time.Second):
			n.kill()
		}
		n.cmd = nil
		return time.Since(begin), fmt.Errorf("broker %d did not stop within %v (stacks in %s)", n.id, limit, n.logFile())
	}
	code := n.cmd.ProcessState.ExitCode()
	n.cmd = nil
	if code != 0 {
		return time.Since(begin), fmt.Errorf("broker %d ended with status %d: %s", n.id, code, n.tail())
	}
	return time.Since(begin), nil
}

// cluster is three brokers, or more.
type cluster struct {
	work  string
	nodes []*node
	wire  *wire // what flows between them; nil: no proxies
	keys  map[string]string
}

// clusters are those that have not been destroyed yet.
var clusters sync.Map

// options of a cluster.
type options struct {
	bin     string
	brokers int
	proxies bool              // a proxy before every address
	disks   int64             // bytes of a file system of its own for each broker; 0: folders
	keys    map[string]string // more settings
}

func newCluster(o options) (*cluster, error) {
	work, err := os.MkdirTemp(os.Getenv("CLUSTER_DIR"), "milena-cluster")
	if err != nil {
		return nil, err
	}
	c := &cluster{work: work, keys: o.keys}
	clusters.Store(c, true)
	if o.proxies {
		c.wire = newWire()
	}
	for id := int32(1); id <= int32(o.brokers); id++ {
		n := &node{id: id, dir: filepath.Join(work, fmt.Sprint("broker-", id)), bin: o.bin}
		n.data, n.conf = filepath.Join(n.dir, "data"), filepath.Join(n.dir, "server.properties")
		if err := os.MkdirAll(n.dir, 0o755); err != nil {
			return nil, err
		}
		for _, a := range []struct {
			to   *address
			kind kind
		}{{&n.client, kindClient}, {&n.peer, kindPeer}} {
			if a.to.real, err = freePort(host(id)); err != nil {
				return nil, fmt.Errorf("loopback address of broker %d: %w", id, err)
			}
			a.to.told = a.to.real
			if c.wire != nil {
				if a.to.told, err = c.wire.listen(id, host(id), a.to.real, a.kind); err != nil {
					return nil, err
				}
			}
		}
		if o.disks > 0 {
			if n.disk, err = newDisk(filepath.Join(n.dir, "disk.img"), filepath.Join(n.dir, "disk"), o.disks); err != nil {
				return nil, err
			}
			n.data = filepath.Join(n.disk.mount, "data")
		}
		c.nodes = append(c.nodes, n)
	}
	for _, n := range c.nodes {
		if err := c.configure(n); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// configure writes the broker's settings.
func (c *cluster) configure(n *node) error {
	var members []string
	for _, m := range c.nodes {
		members = append(members, fmt.Sprintf("%d@%s", m.id, m.peer.told))
	}
	var b strings.Builder
	set := func(k, v string) { fmt.Fprintf(&b, "%s=%s\n", k, v) }
	set("node.id", fmt.Sprint(n.id))
	set("listeners", "PLAINTEXT://"+n.client.real)
	set("advertised.listeners", "PLAINTEXT://"+n.client.told)
	set("log.dirs", n.data)
	if len(c.nodes) > 1 {
		set("cluster", strings.Join(members, ","))
		set("peer.listener", n.peer.real)
		set("peer.advertised", n.peer.told)
	}
	set("group.initial.rebalance.delay.ms", "300")
	set("offsets.topic.num.partitions", "5")
	for k, v := range c.keys {
		set(k, v)
	}
	return os.WriteFile(n.conf, []byte(b.String()), 0o644)
}

// start launches the named brokers (all when none is named) at once, because a quorum needs company, and waits.
func (c *cluster) start(ids ...int32) error {
	nodes := c.pick(ids)
	for _, n := range nodes {
		if err := n.launch(); err != nil {
			return err
		}
	}
	var errs []error
	for _, n := range nodes {
		_, err := n.ready(startLimit)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

const (
	startLimit = 60 * time.Second
	stopLimit  = 30 * time.Second
)

func (c *cluster) pick(ids []int32) []*node {
	if len(ids) == 0 {
		return c.nodes
	}
	var out []*node
	for _, id := range ids {
		out = append(out, c.node(id))
	}
	return out
}

func (c *cluster) node(id int32) *node { return c.nodes[id-1] }

func (c *cluster) bootstrap() []string {
	var out []string
	for _, n := range c.nodes {
		out = append(out, n.client.told)
	}
	return out
}

// destroy ends what runs and removes everything unless keep is set.
func (c *cluster) destroy(keep bool) {
	clusters.Delete(c)
	for _, n := range c.nodes {
		if n.disk != nil {
			n.disk.thaw() // first: a process that waits for a frozen disk cannot even be killed
		}
		n.kill()
		if n.disk != nil {
			n.disk.close(keep)
		}
	}
	if c.wire != nil {
		c.wire.close()
	}
	if keep {
		fmt.Println("kept", c.work)
		return
	}
	os.RemoveAll(c.work)
}
