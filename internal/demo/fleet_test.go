package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// The test binary plays all parts: started with MILENA_DEMO_TEST it is a broker, or a demo that a test kills.
func TestMain(m *testing.M) {
	switch os.Getenv("MILENA_DEMO_TEST") {
	case "":
		os.Exit(m.Run())
	case "broker":
		os.Exit(fakeBroker(os.Args[1:]))
	case "parent":
		os.Exit(fakeParent())
	}
	os.Exit(3)
}

func flagOf(args []string, name string) string {
	for i := range args {
		if args[i] == name && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// fakeBroker is one broker at --listen with its records in --data: franz-go's fake, which survives SIGKILL.
func fakeBroker(args []string) int {
	fmt.Println("starting", args)
	_, port, err := net.SplitHostPort(flagOf(args, "--listen"))
	n, err2 := strconv.Atoi(port)
	if err != nil || err2 != nil {
		fmt.Println("milena: no --listen")
		return 1
	}
	if os.Getenv("MILENA_NODE_ID") != "" {
		fmt.Println("milena: settings of somebody else's broker")
		return 1
	}
	if strings.Contains(strings.Join(args, " "), "die=yes") {
		fmt.Println("milena: the disk is on fire")
		return 1
	}
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(n), kfake.DataDir(flagOf(args, "--data")), kfake.SyncWrites(), kfake.SleepOutOfOrder())
	if err != nil {
		fmt.Println("milena:", err)
		return 1
	}
	defer k.Close()
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// fakeParent starts a fleet, prints the pids and waits for ever.
func fakeParent() int {
	f, err := newFleet(os.Getenv("MILENA_DEMO_PROGRAM"), os.Getenv("MILENA_DEMO_DIR"), 3, nil)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for i := range f.brokers {
		if err := f.start(i); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println(f.brokers[i].pid())
	}
	select {}
}

// program is the test binary as a broker.
func program(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("MILENA_DEMO_TEST", "broker")
	t.Setenv("MILENA_NODE_ID", "77")
	return exe
}

// eventually waits for something that another process does.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); wait(t.Context(), 10*time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

func alive(pid int) bool {
	// A child that nobody has waited for yet is a zombie: dead for every purpose but this signal's.
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist) || syscall.Kill(pid, 0) == nil && !exists("/proc/self")
	}
	return !bytes.Contains(b, []byte(") Z "))
}

func exists(p string) bool { _, err := os.Stat(p); return err == nil }

func TestBrokersAreKilledAndComeBackAtTheSameAddress(t *testing.T) {
	f, err := newFleet(program(t), t.TempDir(), 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.stop(5 * time.Second)
	for i := range f.brokers {
		if err := f.start(i); err != nil {
			t.Fatal(err)
		}
	}
	c := f.brokers[1]
	answers := func() bool {
		x, err := net.Dial("tcp", c.client)
		if err == nil {
			x.Close()
		}
		return err == nil
	}
	eventually(t, "broker 2 answers", answers)
	if !strings.Contains(strings.Join(f.args(c), " "), "--cluster 1@"+f.brokers[0].peer+",2@"+c.peer+",3@"+f.brokers[2].peer) {
		t.Errorf("arguments %v", f.args(c))
	}
	pid := c.pid()
	<-c.signal(syscall.SIGKILL)
	if i := <-f.ended; i != 1 || !c.byUs() || c.running() || c.pid() != 0 || alive(pid) {
		t.Errorf("broker %d ended; by us %v, runs %v", i, c.byUs(), c.running())
	}
	if err := f.start(1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "broker 2 answers again", answers)
	if c.byUs() || c.pid() == pid || c.lives != 2 {
		t.Error("its second life is counted as its first")
	}
}

// However a demo ends, its brokers do: here it is killed so that it can do nothing about it.
func TestBrokersEndWhenTheDemoIsKilled(t *testing.T) {
	exe := program(t)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "MILENA_DEMO_TEST=parent", "MILENA_DEMO_PROGRAM="+exe, "MILENA_DEMO_DIR="+t.TempDir())
	// The brokers of that demo play brokers: the variable that it hands on says so.
	cmd.Args = append(cmd.Args, "demo")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("MILENA_DEMO_TEST", "broker")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewScanner(out)
	var pids []int
	for len(pids) < 3 && r.Scan() {
		pid, err := strconv.Atoi(r.Text())
		if err != nil {
			t.Fatal(r.Text())
		}
		pids = append(pids, pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for _, pid := range pids {
		eventually(t, fmt.Sprintf("process %d ends", pid), func() bool { return !alive(pid) })
	}
}

func demoOptions(t *testing.T, out io.Writer) Options {
	return Options{Program: program(t), Every: time.Second, Down: 50 * time.Millisecond, Rate: 500, Brokers: 1, Parts: 12, Text: "one\ntwo\nthree\n", Out: out}
}

// The whole demo, against a broker that nobody kills.
func TestTheDemoCountsEveryLine(t *testing.T) {
	var out bytes.Buffer
	o := demoOptions(t, &out)
	o.Every, o.For = time.Hour, time.Second
	tally, err := Run(t.Context(), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !tally.Good() || tally.Kills != 0 || tally.Acknowledged < 100 || tally.Read != tally.Acknowledged {
		t.Errorf("%+v\n%s", tally, out.String())
	}
	_, dir, _ := strings.Cut(out.String(), "data in ")
	dir, _, _ = strings.Cut(dir, "\n")
	if !strings.HasPrefix(dir, os.TempDir()) || exists(dir) {
		t.Errorf("%q is left", dir)
	}
}

// The fake comes back without its producers' numbers, so lines may be there twice; what is asked here is
// that the demo kills, brings back, goes on and ends.
func TestTheDemoKillsAndGoesOn(t *testing.T) {
	var out bytes.Buffer
	o := demoOptions(t, &out)
	o.For, o.Keep = 2200*time.Millisecond, true
	tally, err := Run(t.Context(), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	defer os.RemoveAll(tally.Dir)
	if tally.Kills != 1 || tally.Crashes != 0 || !exists(filepath.Join(tally.Dir, "broker-1")) {
		t.Errorf("%+v", tally)
	}
	for _, want := range []string{"broker 1 is killed (SIGKILL)", "broker 1 is started again", "are written again", "counting: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	log, err := os.ReadFile(filepath.Join(tally.Dir, "broker-1.log"))
	if err != nil || bytes.Count(log, []byte("starting [")) != 2 {
		t.Errorf("its log %q, %v: want two lives", log, err)
	}
}

func TestABrokerThatCannotStartIsOneClearLine(t *testing.T) {
	o := demoOptions(t, io.Discard)
	o.Set = []string{"die=yes"}
	_, err := Run(t.Context(), o)
	if err == nil || err.Error() != "broker 1 ended: milena: the disk is on fire" {
		t.Errorf("%v", err)
	}
	o.Program = filepath.Join(t.TempDir(), "nothing")
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "start broker 1") {
		t.Errorf("%v", err)
	}
}

func TestAnInterruptBeforeTheBeginEndsAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, demoOptions(t, io.Discard)); !errors.Is(err, errNotBegun) {
		t.Errorf("%v", err)
	}
}
