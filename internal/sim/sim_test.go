package sim

import (
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/milena-mq/milena/internal/storage"
)

// seeds is how many a test plays: MILENA_SIM_SEEDS, or few; 200 times as many under MILENA_SOAK.
func seeds(t *testing.T, few int) int {
	s := os.Getenv("MILENA_SIM_SEEDS")
	if s == "" {
		if os.Getenv("MILENA_SOAK") != "" {
			return 200 * few
		}
		return few
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("MILENA_SIM_SEEDS=%q is not a count", s)
	}
	return n
}

// add sums up what happened.
func (s *Stats) add(o Stats) {
	a, b := reflect.ValueOf(s).Elem(), reflect.ValueOf(o)
	for i := range a.NumField() {
		if a.Field(i).Kind() == reflect.Int {
			a.Field(i).SetInt(a.Field(i).Int() + b.Field(i).Int())
		}
	}
}

// play runs seeds on all processors and adds up what happened; the error is that of the lowest seed that failed.
func play(n int, o Options) (sum Stats, err error) {
	var mu sync.Mutex
	var next atomic.Int64
	lowest := uint64(n)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				seed := uint64(next.Add(1) - 1)
				mu.Lock()
				over := seed >= lowest
				mu.Unlock()
				if over {
					return
				}
				s, e := Run(seed, o)
				mu.Lock()
				if e != nil && seed < lowest {
					lowest, err = seed, e
				}
				sum.add(s)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return sum, err
}

// rare is what a few seeds need not meet.
var rare = []string{"Lost", "Unclean", "Stale", "Restarts"}

// TestSeeds plays three brokers; no promise may break, and everything that can go wrong has to.
func TestSeeds(t *testing.T) {
	n := seeds(t, 40)
	sum, err := play(n, Options{Rules: Right()})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d seeds: %+v", n, sum)
	v := reflect.ValueOf(sum)
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.Type.Kind() == reflect.Int && v.Field(i).Int() == 0 && !slices.Contains(rare, f.Name) {
			t.Errorf("no %s in %d seeds", f.Name, n)
		}
	}
}

// TestSameSeedSameStory: a seed that failed must fail again.
func TestSameSeedSameStory(t *testing.T) {
	r := Right()
	r.Durable = (*storage.Log).End
	for seed := range uint64(4) {
		a, err1 := Run(seed, Options{Rules: r})
		b, err2 := Run(seed, Options{Rules: r})
		if a != b || (err1 == nil) != (err2 == nil) || err1 != nil && err1.Error() != err2.Error() {
			t.Fatalf("seed %d: %+v %v\n%+v %v", seed, a, err1, b, err2)
		}
	}
}

// TestFiveBrokers plays a larger cluster, where partitions move between brokers.
func TestFiveBrokers(t *testing.T) {
	n := seeds(t, 6)
	sum, err := play(n, Options{Brokers: 5, Rules: Right()})
	if err != nil {
		t.Fatal(err)
	}
	if sum.Acked == 0 || sum.Reassigned == 0 {
		t.Errorf("too little happened: %+v", sum)
	}
}
