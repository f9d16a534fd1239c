package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/milena-mq/milena/internal/admin/admintest"
	"github.com/milena-mq/milena/internal/config"
	"github.com/twmb/franz-go/pkg/kerr"
)

func several(t *testing.T, n, racks int) (*admintest.Cluster, *shell) {
	t.Helper()
	k := admintest.New(t, n, racks)
	return k, &shell{t: t, env: []string{"MILENA_BOOTSTRAP=" + strings.Join(k.Addrs(), ",")}}
}

// asked writes into the transcript what the cluster was asked to change.
func (s *shell) asked(k *admintest.Cluster) {
	for _, line := range k.Asked() {
		fmt.Fprintf(&s.log, "# %s\n", line)
	}
	s.log.WriteString("\n")
}

func (s *shell) lines(all ...string) {
	for _, line := range all {
		s.run(strings.Fields(line)...)
	}
}

func TestAClusterIsWatched(t *testing.T) {
	k, s := several(t, 4, 2)
	k.Topic("letters", 1<<20, []int32{1, 2, 3}, []int32{2, 3, 4}, []int32{3, 4, 1})
	k.Topic("drafts", 0, []int32{4})
	s.lines("cluster status", "cluster status --check", "cluster quorum", "cluster quorum -o json")
	k.Stop(2)
	k.Change(func(k *admintest.Cluster) { k.Broker(3).Broken = true })
	s.lines("cluster status", "cluster status --wait 1ms", "topic describe --under-replicated", "topic describe --at-min-isr letters", "topic describe --unavailable")
	k.Stop(4)
	s.lines("cluster status", "cluster status -o json", "topic describe --unavailable", "topic describe --under-min-isr -o json", "topic describe letters drafts", "topic describe --under-min-isr letter")
	s.lines("cluster add-broker", "cluster add-broker --host broker5.example.org --rack r1", "cluster add-broker --node-id 3", "cluster add-broker --node-id 7 --host 10.0.0.7 --join a:1,b:2 -o json")
	golden(t, "watched.txt", s.log.String())
}

func TestAClusterGrowsAndShrinks(t *testing.T) {
	k, s := several(t, 4, 0)
	k.Pace = 3
	k.Topic("letters", 1<<20, []int32{1, 2, 3}, []int32{2, 3, 1}, []int32{3, 1, 2}, []int32{1, 2, 3}, []int32{2, 3, 1}, []int32{3, 1, 2})
	s.lines("cluster rebalance --dry-run", "cluster rebalance --dry-run -o json", "cluster rebalance --dry-run --moves 1", "cluster rebalance", "cluster rebalance --yes --throttle 10MB")
	s.asked(k)
	s.lines("cluster rebalance --yes")
	s.asked(k)
	s.lines("cluster decommission 2", "cluster decommission 9 --dry-run", "cluster decommission 4 --dry-run", "cluster decommission 4 --yes --throttle 0 --keep", "cluster status")
	s.asked(k)
	s.lines("cluster decommission 4 --stop-within 1ms")
	k.Stop(4)
	s.lines("cluster decommission 4")
	s.asked(k)
	k.Topic("narrow", 10, []int32{1, 2, 3})
	s.lines("cluster quorum remove 3 --yes", "cluster decommission 3", "cluster quorum add 3 10.0.0.3:9094", "cluster quorum remove 9 -y")
	s.asked(k)
	golden(t, "grown.txt", s.log.String())
}

func TestPartitionsAreReassigned(t *testing.T) {
	k, s := several(t, 4, 0)
	k.Topic("letters", 1<<20, []int32{1, 2}, []int32{2, 3})
	k.Topic("drafts", 0, []int32{1})
	s.lines("topic reassign letters --to 0=4,2 --to 1=3,2 --dry-run", "topic reassign letters --to 0=4,2 --to 1=3,2 --yes", "topic describe letters")
	s.asked(k)
	s.lines("topic reassign letters --factor 3 --yes --throttle 0", "topic reassign letters --factor 3", "topic reassign letters --factor 5", "topic reassign letter --factor 2")
	s.lines("topic reassign letters --brokers 1,2,3 --dry-run", "topic reassign letters --brokers 1,2 --yes", "topic reassign letters --to 7=1", "topic reassign letters --to 0=9")
	s.asked(k)
	s.in = `{"version":1,"partitions":[{"topic":"drafts","partition":0,"replicas":[2,3],"log_dirs":["any","any"]}]}`
	s.lines("topic reassign --plan - --yes")
	for _, s.in = range []string{`{"version":2}`, `{"version":1}`, `{"version":1,"partitions":[{"topic":"drafts","partition":0,"replicas":[2],"log_dirs":["/x"]}]}`, `{"version":1,"partitions":[{"topic":"drafts","partition":0}]}`, `[`} {
		s.lines("topic reassign --plan - --yes")
	}
	s.lines("topic reassign --plan /nowhere/x")
	s.asked(k)
	k.Refuse("drafts", 0, kerr.InvalidReplicaAssignment)
	s.lines("topic reassign drafts --to 0=4 --yes --throttle 0")

	k.Pace = -1 // nothing arrives
	s.lines("topic reassign --status")
	k.Change(func(k *admintest.Cluster) { k.Pace = 1 })
	golden(t, "reassigned.txt", s.log.String())
}

// A throttle that an interrupted move has left is taken away by whoever looks when nothing moves any more.
func TestAnInterruptedMoveIsExplainedAndCleanedUp(t *testing.T) {
	k, s := several(t, 4, 0)
	k.Change(func(k *admintest.Cluster) { k.Pace = -1 })
	k.Topic("letters", 100, []int32{1, 2, 3}, []int32{1, 2, 3})
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"topic", "reassign", "letters", "--brokers", "2,3,4", "--yes"}, IO{strings.NewReader(""), io.Discard, w, s.env, time.Millisecond}, "", nil)
		w.Close()
	}()
	var said strings.Builder
	buf := make([]byte, 1000)
	for !strings.Contains(said.String(), "2 partitions: 2 replicas") {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatal(err, said.String())
		}
		said.Write(buf[:n])
	}
	for moves := 0; moves < 2; {
		for _, a := range k.Asked() {
			if strings.HasPrefix(a, "move ") {
				moves++
			}
		}
	}
	cancel()
	rest, _ := io.ReadAll(r)
	if code := <-done; code != exitFailed || !strings.Contains(string(rest), "milena: interrupted after 0 of 2 partitions; 2 go on moving by themselves, under the throttle, which milena topic reassign --status takes away once they are there. To go on: the same command\n") {
		t.Errorf("code %d: %s", code, rest)
	}
	s.lines("topic reassign --status", "topic reassign --status drafts", "topic reassign --cancel")
	if len(k.Configs()) == 0 {
		t.Error("the throttle is taken away while replicas move")
	}
	s.lines("topic reassign --cancel --yes", "topic reassign --status", "topic reassign --cancel --yes")
	if left := k.Configs(); len(left) != 0 {
		t.Errorf("throttles are left: %q", left)
	}
	if got := k.Placed("letters"); got != "[2 3 1] [2 3 1]" { // where they were; the order is that of the plan, as Kafka does it
		t.Error(got)
	}
	golden(t, "interrupted.txt", s.log.String())
}

func TestLeadersAreElected(t *testing.T) {
	k, s := several(t, 3, 0)
	k.Topic("letters", 0, []int32{1, 2}, []int32{2, 1}, []int32{3, 2})
	k.Topic("alone", 0, []int32{3, 1})
	k.Change(func(k *admintest.Cluster) { k.Part("letters", 0).Leader, k.Part("alone", 0).ISR = 2, []int32{3} })
	s.lines("topic elect-leaders letters -p 1", "topic elect-leaders --all", "topic elect-leaders --all -o json")
	k.Stop(3)
	s.lines("topic elect-leaders letters", "topic describe alone", "topic elect-leaders alone", "topic elect-leaders alone --unclean --yes", "topic elect-leaders nothere")
	s.asked(k)
	golden(t, "elected.txt", s.log.String())
}

func TestANewBrokerIsAwaited(t *testing.T) {
	k, s := several(t, 4, 0)
	k.Change(func(k *admintest.Cluster) { k.Broker(4).Fenced = true })
	s.lines("cluster add-broker --wait --within 1ms --node-id 5")
	k.Change(func(k *admintest.Cluster) { k.Store, k.Broker(4).Fenced = "zookeeper://z1:2181/milena", false })
	s.lines("cluster add-broker --wait --within 1ms", "cluster quorum", "cluster decommission 1 --dry-run", "cluster status --wait 1s")
	golden(t, "awaited.txt", s.log.String())
}

func TestCertificatesAreGoodForBothSides(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	s := &shell{t: t}
	for _, line := range []string{"127.0.0.1+broker1.example.org localhost", "broker3"} {
		if code := s.run(append([]string{"cluster", "certs", dir}, strings.Fields(line)...)...); code != exitOK {
			t.Fatal(s.errs.String())
		}
	}
	if !strings.Contains(s.out.String(), filepath.Join(dir, "broker3.crt")) {
		t.Errorf("%s", s.out.String())
	}
	for name, mode := range map[string]os.FileMode{"ca.crt": 0o644, "ca.key": 0o600, "127.0.0.1.crt": 0o644, "127.0.0.1.key": 0o600, "localhost.key": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm()&^mode != 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("no certificate in ca.crt")
	}
	pair := func(name string) tls.Certificate {
		c, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair("127.0.0.1")}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	for _, name := range []string{"", "broker1.example.org"} {
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{Certificates: []tls.Certificate{pair("localhost")}, RootCAs: pool, ServerName: name})
		if err != nil {
			t.Fatalf("as %q: %v", name, err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if code := s.run("cluster", "certs", dir, "broker3"); code != exitFailed || !strings.Contains(s.errs.String(), "broker3.crt is there already: it is never replaced") {
		t.Errorf("code %d: %s", code, s.errs.String())
	}
	if err := os.Remove(filepath.Join(dir, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	if code := s.run("cluster", "certs", dir, "broker4"); code != exitFailed || !strings.Contains(s.errs.String(), "ca.key is there already") {
		t.Errorf("an authority is replaced: code %d: %s", code, s.errs.String())
	}
}

func TestServeTakesTheFlagsOfACluster(t *testing.T) {
	var got *config.Static
	s := &shell{t: t}
	s.serve = func(_ context.Context, c *config.Static, _ io.Writer) error { got = c; return nil }
	line := "serve --node-id 2 --cluster 1@127.0.0.1:1001,2@127.0.0.1:1002,3@127.0.0.1:1003 --peer 127.0.0.1:1002"
	if code := s.run(strings.Fields(line)...); code != 0 {
		t.Fatal(s.errs.String())
	}
	want := map[string]string{"cluster": "1@127.0.0.1:1001,2@127.0.0.1:1002,3@127.0.0.1:1003", "peer.listener": "127.0.0.1:1002", "node.id": "2"}
	for k, v := range want {
		if x, _ := got.Get(k); x != v {
			t.Errorf("%s = %q, want %q", k, x, v)
		}
	}
	if code := s.run("serve", "--join", "a:1,b:2", "--peer", "127.0.0.1:3", "--node-id", "4"); code != 0 {
		t.Fatal(s.errs.String())
	}
	if x, _ := got.Get("join"); x != "a:1,b:2" {
		t.Errorf("join = %q", x)
	}
	if code := s.run("serve", "--coordinator", "zookeeper://z1:2181,z2:2181/milena", "--peer", "127.0.0.1:3"); code != 0 {
		t.Fatal(s.errs.String())
	}
	if x, _ := got.Get("coordinator"); x != "zookeeper://z1:2181,z2:2181/milena" {
		t.Errorf("coordinator = %q", x)
	}
}

// A broker that a demo started ends when the demo does.
func TestServeEndsWithItsParent(t *testing.T) {
	s := &shell{t: t}
	r, w := net.Pipe()
	s.serve = func(ctx context.Context, _ *config.Static, _ io.Writer) error {
		w.Close()
		<-ctx.Done()
		return nil
	}
	code := run(t.Context(), []string{"serve", "--with-parent"}, IO{r, io.Discard, io.Discard, nil, 0}, "", s.serve)
	if code != exitOK {
		t.Errorf("code %d", code)
	}
}

func TestSizesAreRead(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "1000": 1000, "64KiB": 65536, "50MiB": 50 << 20, "50M": 50 << 20, "50MB": 50e6, "1G": 1 << 30, "1GiB": 1 << 30, "2TB": 2e12, "5B": 5, "1k": 1024} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "-1", "M", "1.5M", "1X", "1MiBs", "9999999999G", "1MM", "B"} {
		if n, err := parseSize(s); err == nil {
			t.Errorf("%q is taken for %d", s, n)
		}
	}
}
