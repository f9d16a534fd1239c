// Program cluster tests three brokers as processes: it starts them on loopback addresses of their own, lets clients of
// several kinds work, kills, freezes, cuts, fills and restarts, and checks what the clients saw. run is its command line.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// report prints one line for each thing that was tried.
type report struct {
	mu             sync.Mutex
	passed, failed int
}

func (r *report) say(ok bool, name, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	word := "ok"
	if ok {
		r.passed++
	} else {
		word = "FAIL"
		r.failed++
	}
	fmt.Printf("%s cluster/%s %s\n", word, name, strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " | "))
}

// note prints what is neither good nor bad.
func note(format string, args ...any) {
	fmt.Printf("   %s\n", strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " | "))
}

// settings of a run, from the command line.
type settings struct {
	bin, root string
	brokers   int
	rate      int
	producers int
	target    int64
	trials    int
	repeat    int
	seed      uint64
	clients   []string
	keep      bool
	only      []string
}

func main() {
	var s settings
	only := flag.String("only", "", "only these faults or figures, separated by commas")
	flag.StringVar(&s.bin, "bin", "bin/milena", "the broker")
	flag.StringVar(&s.root, "root", ".", "the checkout")
	flag.IntVar(&s.brokers, "brokers", 3, "brokers of the fault run: 3, or 1 to try the harness itself")
	flag.IntVar(&s.rate, "rate", 6000, "records a second of all producers")
	flag.IntVar(&s.producers, "producers", 8, "franz-go producers")
	flag.Int64Var(&s.target, "target", 0, "go on until so many records are acknowledged")
	flag.IntVar(&s.trials, "trials", 20, "trials of each silence figure")
	flag.IntVar(&s.repeat, "repeat", 1, "how often the list of faults is gone through")
	flag.Uint64Var(&s.seed, "seed", 1, "of the chaos")
	clients := flag.String("clients", strings.Join(silentNames, ","), "clients whose silence is measured")
	flag.BoolVar(&s.keep, "keep", false, "keep all data and logs (kept after a failure anyway)")
	flag.Parse()
	s.clients = strings.Split(*clients, ",")
	if *only != "" {
		s.only = strings.Split(*only, ",")
	}
	var err error
	if s.root, err = filepath.Abs(s.root); err == nil {
		s.bin, err = filepath.Abs(s.bin)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	// An interrupt must not leave mounts and gigabytes behind; brokers end with this program anyway.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-stop
		clusters.Range(func(c, _ any) bool { c.(*cluster).destroy(s.keep); return true })
		os.Exit(130)
	}()
	r := &report{}
	mode := flag.Arg(0)
	switch mode {
	case "", "short":
		runFaults(s, r, shortFaults, 2*time.Second)
	case "full":
		runFaults(s, r, allFaults, 4*time.Second)
		runPower(s, r)
	case "chaos":
		runChaos(s, r)
	case "power":
		runPower(s, r)
	case "txn":
		runTxn(s, r)
	case "timeline":
		runTimeline(s, r)
	case "silence":
		runSilence(s, r)
	case "figures":
		runFigures(s, r)
	case "teeth":
		runTeeth(s, r)
	default:
		fmt.Fprintf(os.Stderr, "no mode %q\n", mode)
		os.Exit(2)
	}
	fmt.Printf("%d passed, %d failed\n", r.passed, r.failed)
	if r.failed > 0 || r.passed == 0 {
		os.Exit(1)
	}
}
