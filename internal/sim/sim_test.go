package sim

import (
	"os"
	"strconv"
	"testing"
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

// TestSeeds plays three brokers; no promise may break, and everything that can go wrong has to.
func TestSeeds(t *testing.T) {
	var sum Stats
	n := seeds(t, 100)
	for seed := range uint64(n) {
		s, err := Run(seed, Options{Rules: Right()})
		if err != nil {
			t.Fatal(err)
		}
		sum.Events += s.Events
		sum.Acked += s.Acked
		sum.Refused += s.Refused
		sum.Elections += s.Elections
		sum.Expands += s.Expands
		sum.Shrinks += s.Shrinks
		sum.Cuts += s.Cuts
		sum.PowerCuts += s.PowerCuts
		sum.Kills += s.Kills
		sum.Freezes += s.Freezes
		sum.NetCuts += s.NetCuts
		sum.Duplicates += s.Duplicates
		sum.Stale += s.Stale
		sum.Disks += s.Disks
	}
	t.Logf("%d seeds: %+v", n, sum)
	for name, v := range map[string]int{"acked": sum.Acked, "refused": sum.Refused, "elections": sum.Elections, "expands": sum.Expands,
		"shrinks": sum.Shrinks, "cuts": sum.Cuts, "power cuts": sum.PowerCuts, "kills": sum.Kills, "freezes": sum.Freezes, "net cuts": sum.NetCuts, "disks": sum.Disks} {
		if v == 0 {
			t.Errorf("no %s in %d seeds", name, n)
		}
	}
}

// TestSameSeedSameStory: a seed that failed must fail again.
func TestSameSeedSameStory(t *testing.T) {
	a, err1 := Run(7, Options{Rules: Right()})
	b, err2 := Run(7, Options{Rules: Right()})
	if a != b || (err1 == nil) != (err2 == nil) {
		t.Errorf("%+v %v\n%+v %v", a, err1, b, err2)
	}
}

// TestFiveBrokers plays a larger cluster that has to survive two losses.
func TestFiveBrokers(t *testing.T) {
	acked := 0
	for seed := range uint64(seeds(t, 10)) {
		s, err := Run(seed, Options{Brokers: 5, MinISR: 3, Rules: Right()})
		if err != nil {
			t.Fatal(err)
		}
		acked += s.Acked
	}
	if acked == 0 {
		t.Error("nothing was acknowledged")
	}
}

// TestPlans lets package control decide, without and with eligible leader replicas.
func TestPlans(t *testing.T) {
	for _, elr := range []bool{false, true} {
		var sum Stats
		n := seeds(t, 50)
		for seed := range uint64(n) {
			s, err := Run(seed, Options{Rules: Right(), Plans: true, ELR: elr})
			if err != nil {
				t.Fatalf("elr %v: %v", elr, err)
			}
			sum.Acked += s.Acked
			sum.Elections += s.Elections
			sum.Expands += s.Expands
		}
		t.Logf("elr %v: %d seeds, acknowledged %d, elections %d, expands %d", elr, n, sum.Acked, sum.Elections, sum.Expands)
		if sum.Acked == 0 || sum.Elections == 0 || sum.Expands == 0 {
			t.Errorf("elr %v: too little happened: %+v", elr, sum)
		}
	}
}
