//go:build ensemble

package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/coord"
	"github.com/milena-mq/milena/internal/coord/coordtest"
	"github.com/milena-mq/milena/internal/meta"
)

// These tests start real servers; test/zookeeper/run calls them with ZK_LIB, the folder of the jars.

// server is one process of an ensemble.
type server struct {
	dir    string
	client string // address
	cmd    *exec.Cmd
	out    *os.File
}

const tick = 200 * time.Millisecond // a session may be as short as two of these

// servers starts an ensemble and waits until it answers.
func servers(t *testing.T, n int) []*server {
	t.Helper()
	ports := free(t, 3*n)
	var peers strings.Builder
	for i := range n {
		if n > 1 {
			fmt.Fprintf(&peers, "server.%d=127.0.0.1:%d:%d\n", i+1, ports[3*i], ports[3*i+1])
		}
	}
	var out []*server
	for i := range n {
		s := &server{dir: t.TempDir(), client: fmt.Sprintf("127.0.0.1:%d", ports[3*i+2])}
		cfg := fmt.Sprintf("tickTime=%d\ninitLimit=50\nsyncLimit=25\ndataDir=%s\nclientPort=%d\nclientPortAddress=127.0.0.1\n"+
			"admin.enableServer=false\n4lw.commands.whitelist=srvr\nmaxClientCnxns=0\n%s", tick.Milliseconds(), s.dir, ports[3*i+2], peers.String())
		write(t, filepath.Join(s.dir, "zoo.cfg"), cfg)
		write(t, filepath.Join(s.dir, "myid"), fmt.Sprint(i+1))
		out = append(out, s)
		s.start(t)
		t.Cleanup(func() { s.kill() })
	}
	for _, s := range out {
		s.ready(t)
	}
	return out
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

func free(t *testing.T, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func (s *server) start(t *testing.T) {
	t.Helper()
	var err error
	s.out, err = os.OpenFile(filepath.Join(s.dir, "out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(t, err)
	s.cmd = exec.Command("java", "-Xmx160m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", os.Getenv("ZK_LIB")+"/*",
		"org.apache.zookeeper.server.quorum.QuorumPeerMain", filepath.Join(s.dir, "zoo.cfg"))
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	must(t, s.cmd.Start())
}

// kill is kill -9.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_, _ = s.cmd.Process.Wait()
	_ = s.out.Close()
	s.cmd = nil
}

// mode is what the server takes itself for: leader, follower, standalone; "" when it does not serve.
func (s *server) mode() string {
	c, err := net.DialTimeout("tcp", s.client, time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	_, _ = io.WriteString(c, "srvr")
	b, _ := io.ReadAll(c)
	for _, line := range strings.Split(string(b), "\n") {
		if m, ok := strings.CutPrefix(line, "Mode: "); ok {
			return m
		}
	}
	return ""
}

func (s *server) ready(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); s.mode() == ""; lookAgain(20 * time.Millisecond) {
		if time.Now().After(end) {
			b, _ := os.ReadFile(filepath.Join(s.dir, "out"))
			t.Fatalf("server %s does not serve: %s", s.client, b[max(0, len(b)-2000):])
		}
	}
}

func leader(t *testing.T, all []*server) *server {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); lookAgain(20 * time.Millisecond) {
		for _, s := range all {
			if s.cmd != nil && s.mode() == "leader" {
				return s
			}
		}
	}
	t.Fatal("no leader")
	return nil
}

func addresses(all []*server) (out []string) {
	for _, s := range all {
		out = append(out, s.client)
	}
	return out
}

var chroots int

func real(t *testing.T, all []*server, path string, id int32, change ...func(*Options)) *Store {
	t.Helper()
	o := Options{Servers: addresses(all), Path: path, Identity: coord.Identity{NodeID: id, Incarnation: meta.UUID{byte(id)}}, Session: 1500 * time.Millisecond}
	for _, f := range change {
		f(&o)
	}
	s, err := Open(o)
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.(*Store)
}

func long(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func chroot() string { chroots++; return fmt.Sprintf("/milena/test%d", chroots) }

func TestEnsembleContract(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d servers", n), func(t *testing.T) {
			all := servers(t, n)
			coordtest.Run(t, func(t *testing.T) coord.Store { return real(t, all, chroot(), 1) })
		})
	}
}

// TestEnsembleFollowers: one controller writes, snapshots included, and two other brokers on other servers see
// the same history.
func TestEnsembleFollowers(t *testing.T) {
	ctx, all := long(t), servers(t, 3)
	path := chroot()
	small := tuned(limits{entries: 50, bytes: 1 << 30, inline: 300, piece: 4000, look: time.Second})
	w := real(t, all[:1], path, 1, small)
	term := lead(t, ctx, w)
	var wg sync.WaitGroup
	for i := 1; i < 3; i++ {
		s := real(t, all[i:i+1], path, int32(i+1), small)
		ch, err := s.Tail(ctx, 0)
		must(t, err)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for want := coord.Revision(1); want <= 301; want++ {
				if b, ok := <-ch; !ok || b.Rev != want {
					t.Errorf("store %d: %d, %v; want %d", i, b.Rev, ok, want)
					return
				}
			}
		}()
	}
	begin := time.Now()
	for i := range 300 {
		app(t, ctx, w, term, put(fmt.Sprintf("k%d", i%40), strings.Repeat("v", i*3)))
	}
	took := time.Since(begin)
	wg.Wait()
	idle(t, ctx, w)
	m, rev := loaded(t, ctx, real(t, all, path, 9))
	h, err := w.readHead(ctx)
	must(t, err)
	if len(m) != 41 || rev != 301 || h.First == 0 {
		t.Fatalf("%d keys at %d, head %s", len(m), rev, h.encode())
	}
	t.Logf("300 appends in %v, %.2f ms each; head %s", took, float64(took.Microseconds())/300e3, h.encode())
}

// writer appends for as long as it is let, taking the lead again when it has to, and keeps what was confirmed.
type writer struct {
	s      *Store
	id     int
	mu     sync.Mutex
	said   map[string]string
	open   map[string]bool
	terms  int
	at     []time.Time // of each confirmation
	failed []string
}

func (w *writer) run(ctx context.Context, stop <-chan struct{}) {
	var term *coord.Term
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		if term == nil || term.Ended() {
			var err error
			if term, err = w.s.Lead(ctx); err != nil {
				w.failed = append(w.failed, err.Error())
				return
			}
			w.mu.Lock()
			w.terms++
			w.mu.Unlock()
		}
		k, v := fmt.Sprintf("w%d/%d", w.id, i), fmt.Sprint(i)
		c, cancel := context.WithTimeout(ctx, 3*time.Second)
		_, err := w.s.Append(c, term, []meta.Change{put(k, v)})
		cancel()
		w.mu.Lock()
		switch {
		case err == nil:
			w.said[k] = v
			w.at = append(w.at, time.Now())
		case errors.Is(err, coord.ErrUnknown):
			w.open[k] = true
			term.End()
		}
		w.mu.Unlock()
	}
}

func (w *writer) confirmed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.said)
}

func (w *writer) after(t *testing.T, ctx context.Context, n int) {
	t.Helper()
	for from := w.confirmed(); w.confirmed() < from+n; lookAgain(5 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("writer %d does not go on after %d", w.id, from)
		}
	}
}

// silence is the longest time without a confirmation of any of the writers.
func silence(ws ...*writer) (longest time.Duration) {
	var at []time.Time
	for _, w := range ws {
		at = append(at, w.at...)
	}
	sort.Slice(at, func(i, j int) bool { return at[i].Before(at[j]) })
	for i := 1; i < len(at); i++ {
		longest = max(longest, at[i].Sub(at[i-1]))
	}
	return longest
}

// check compares the store with what the writers were told.
func check(t *testing.T, ctx context.Context, s *Store, ws ...*writer) {
	t.Helper()
	m, rev := loaded(t, ctx, s)
	said, open := 0, 0
	for _, w := range ws {
		for k, v := range w.said {
			if m[k] != v {
				t.Errorf("confirmed and lost: %s", k)
			}
			delete(m, k)
		}
		for k := range w.open {
			delete(m, k)
		}
		said, open = said+len(w.said), open+len(w.open)
		for _, f := range w.failed {
			t.Errorf("writer %d: %s", w.id, f)
		}
	}
	delete(m, meta.KeyController)
	if len(m) > 0 {
		t.Errorf("refused and written: %v", m)
	}
	terms := 0
	for _, w := range ws {
		terms += w.terms
	}
	t.Logf("%d confirmed, %d unknown, %d terms, revision %d, longest silence %v", said, open, terms, rev, silence(ws...).Round(time.Millisecond))
}

func newWriter(s *Store, id int) *writer {
	return &writer{s: s, id: id, said: map[string]string{}, open: map[string]bool{}}
}

// faults runs a writer while do breaks things.
func faults(t *testing.T, ctx context.Context, all []*server, do func(path string, w *writer)) {
	t.Helper()
	path := chroot()
	w := newWriter(real(t, all, path, 1), 1)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		w.run(ctx, stop)
	}()
	w.after(t, ctx, 100)
	do(path, w)
	w.after(t, ctx, 100)
	close(stop)
	<-done
	check(t, ctx, real(t, all, path, 2), w)
}

func TestEnsembleLeaderIsKilled(t *testing.T) {
	ctx, all := long(t), servers(t, 3)
	faults(t, ctx, all, func(_ string, w *writer) {
		for range 2 {
			l := leader(t, all)
			l.kill()
			w.after(t, ctx, 100)
			l.start(t)
			l.ready(t)
		}
	})
}

func TestEnsembleFollowerIsKilled(t *testing.T) {
	ctx, all := long(t), servers(t, 3)
	faults(t, ctx, all, func(_ string, w *writer) {
		l := leader(t, all)
		for _, s := range all {
			if s != l {
				s.kill()
				w.after(t, ctx, 50)
				s.start(t)
				s.ready(t)
			}
		}
	})
}

func TestEnsembleRestartOfAll(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d servers", n), func(t *testing.T) {
			ctx, all := long(t), servers(t, n)
			faults(t, ctx, all, func(string, *writer) {
				for _, s := range all {
					s.kill()
				}
				for _, s := range all {
					s.start(t)
				}
				for _, s := range all {
					s.ready(t)
				}
			})
		})
	}
}

// A server that is frozen keeps its connections: only our own deadlines notice.
func TestEnsembleServerIsFrozen(t *testing.T) {
	ctx, all := long(t), servers(t, 3)
	faults(t, ctx, all, func(_ string, w *writer) {
		l := leader(t, all)
		must(t, l.cmd.Process.Signal(syscall.SIGSTOP))
		w.after(t, ctx, 50)
		must(t, l.cmd.Process.Signal(syscall.SIGCONT))
		l.ready(t)
	})
}

// proxy is a connection to a server that can be held: a broker that is cut off and does not know it.
type proxy struct {
	l    net.Listener
	mu   sync.Mutex
	hold bool
	cs   []net.Conn
}

func newProxy(t *testing.T, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{l: l}
	t.Cleanup(func() { _ = l.Close(); p.cut(true) })
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			hold := p.hold
			p.cs = append(p.cs, a)
			p.mu.Unlock()
			if hold {
				_ = a.Close()
				continue
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				_ = a.Close()
				continue
			}
			p.mu.Lock()
			p.cs = append(p.cs, b)
			if p.hold { // cut while we were dialing
				_, _ = a.Close(), b.Close()
			}
			p.mu.Unlock()
			go func() { _, _ = io.Copy(a, b); _ = a.Close() }()
			go func() { _, _ = io.Copy(b, a); _ = b.Close() }()
		}
	}()
	return p
}

// cut closes what there is and, with hold, refuses what comes.
func (p *proxy) cut(hold bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = hold
	for _, c := range p.cs {
		_ = c.Close()
	}
	p.cs = nil
}

// TestEnsembleSessionExpires: two controllers, each cut off in turn for longer than its session; the other
// one takes over, and what the cut-off one was told stays.
func TestEnsembleSessionExpires(t *testing.T) {
	ctx, all := long(t), servers(t, 3)
	path := chroot()
	var ws []*writer
	var ps []*proxy
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 2 {
		p := newProxy(t, all[i].client)
		ps = append(ps, p)
		s := real(t, all, path, int32(i+1), func(o *Options) { o.Servers = []string{p.l.Addr().String()}; o.Session = 600 * time.Millisecond })
		w := newWriter(s, i+1)
		ws = append(ws, w)
		wg.Add(1)
		go func() {
			defer wg.Done()
			w.run(ctx, stop)
		}()
		if i == 0 {
			w.after(t, ctx, 20) // it leads
		}
	}
	for round := range 4 {
		ps[round%2].cut(true)
		ws[1-round%2].after(t, ctx, 20)
		ps[round%2].cut(false)
	}
	close(stop)
	// The one that waits in line is let through by the end of the other.
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for end := false; !end; {
		select {
		case <-done:
			end = true
		case <-time.After(50 * time.Millisecond):
			for _, w := range ws {
				w.s.mu.Lock()
				term := w.s.mu.term
				w.s.mu.Unlock()
				if term != nil {
					term.End()
				}
			}
		}
	}
	check(t, ctx, real(t, all, path, 9), ws...)
	if n := ws[0].terms + ws[1].terms; n < 5 {
		t.Errorf("%d terms", n)
	}
}

// A short cut keeps the session and so the term.
func TestEnsembleShortCut(t *testing.T) {
	ctx, all := long(t), servers(t, 1)
	p := newProxy(t, all[0].client)
	s := real(t, all, chroot(), 1, func(o *Options) { o.Servers = []string{p.l.Addr().String()}; o.Session = 4 * time.Second })
	term := lead(t, ctx, s)
	for i := range 3 {
		p.cut(false)
		for {
			if _, err := s.Append(ctx, term, []meta.Change{put("k", fmt.Sprint(i))}); err == nil {
				break
			} else if !errors.Is(err, coord.ErrUnknown) {
				t.Fatal(err)
			}
		}
	}
	if term.Ended() {
		t.Error("a short cut ended the term")
	}
	if m, _ := loaded(t, ctx, s); m["k"] != "2" {
		t.Errorf("loaded %v", m)
	}
}

// A controller that stops gives the lead to the next one without waiting for its session to end.
func TestEnsembleHandOver(t *testing.T) {
	ctx, all := long(t), servers(t, 1)
	path := chroot()
	slow := func(o *Options) { o.Session = 4 * time.Second }
	a, b := real(t, all, path, 1, slow), real(t, all, path, 2, slow)
	app(t, ctx, a, lead(t, ctx, a), put("k", "1"))
	got := make(chan *coord.Term, 1)
	go func() {
		term, err := b.Lead(ctx)
		if err != nil {
			t.Error(err)
		}
		got <- term
	}()
	begin := time.Now()
	must(t, a.Close())
	if term := <-got; term == nil || term.Epoch != 2 {
		t.Fatalf("term %+v", term)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("handing over took %v", took)
	} else {
		t.Logf("handing over took %v", took.Round(time.Millisecond))
	}
}

// An address where something else answers, or nobody, is one line.
func TestEnsembleNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_ = c.Close()
		}
	}()
	for _, addr := range []string{l.Addr().String(), fmt.Sprintf("127.0.0.1:%d", free(t, 1)[0])} {
		begin := time.Now()
		_, err := Open(Options{Servers: []string{addr}, Patience: time.Second})
		if err == nil || strings.Contains(err.Error(), "\n") || time.Since(begin) > 5*time.Second {
			t.Errorf("%s: %v after %v", addr, err, time.Since(begin))
		}
		t.Log(err)
	}
}
