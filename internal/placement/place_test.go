package placement

import (
	"fmt"
	"testing"
)

func cluster(n, racks int) []Broker {
	bs := make([]Broker, n)
	for i := range bs {
		bs[i] = Broker{ID: int32(i + 1)}
		if racks > 0 {
			bs[i].Rack = fmt.Sprintf("r%d", i%racks)
		}
	}
	return bs
}

func TestReplicasAreDistinctSpreadAndRackAware(t *testing.T) {
	for n := 1; n <= 9; n++ {
		for racks := 0; racks <= n; racks++ {
			for f := 1; f <= n; f++ {
				bs := cluster(n, racks)
				const parts = 360
				got, err := Place(bs, 0, parts, f, 7)
				if err != nil {
					t.Fatal(err)
				}
				leaders, all := map[int32]int{}, map[int32]int{}
				for p, rs := range got {
					seen, rack := map[int32]bool{}, map[string]bool{}
					for _, r := range rs {
						seen[r] = true
						rack[bs[r-1].Rack] = true
						all[r]++
					}
					if len(seen) != f {
						t.Fatalf("%d brokers, factor %d, partition %d: %v", n, f, p, rs)
					}
					if racks > 0 && len(rack) != min(f, racks) {
						t.Fatalf("%d brokers in %d racks, factor %d, partition %d: %v is in %d racks", n, racks, f, p, rs, len(rack))
					}
					leaders[rs[0]]++
				}
				for _, b := range bs {
					if d := leaders[b.ID] - parts/n; d < -1 || d > 1 {
						t.Errorf("%d brokers: broker %d leads %d of %d", n, b.ID, leaders[b.ID], parts)
					}
					if racks == 0 && f > 1 && (all[b.ID] < parts*f/n-n || all[b.ID] > parts*f/n+n) {
						t.Errorf("%d brokers, factor %d: broker %d holds %d of %d", n, f, b.ID, all[b.ID], parts*f)
					}
				}
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	fenced := []Broker{{ID: 1, Fenced: true}}
	for _, c := range []struct {
		bs     []Broker
		factor int
		want   string
	}{
		{fenced, 1, "All brokers are currently fenced."},
		{nil, 1, "All brokers are currently fenced."},
		{cluster(2, 0), 3, "The target replication factor of 3 cannot be reached because only 2 broker(s) are registered."},
		{cluster(2, 0), 0, "Invalid replication factor: the replication factor must be positive."},
	} {
		if _, err := Place(c.bs, 0, 1, c.factor, 0); err == nil || err.Error() != c.want {
			t.Errorf("factor %d on %v: %v", c.factor, c.bs, err)
		}
	}
}

func TestFencedBrokersComeLast(t *testing.T) {
	bs := append(cluster(2, 0), Broker{ID: 3, Fenced: true})
	got, err := Place(bs, 0, 30, 3, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, rs := range got {
		if rs[2] != 3 {
			t.Fatalf("fenced broker 3 leads or comes early: %v", rs)
		}
	}
	got, _ = Place(bs, 0, 30, 2, 0)
	for _, rs := range got {
		if rs[0] == 3 || rs[1] == 3 {
			t.Fatalf("fenced broker 3 was needed for %v", rs)
		}
	}
}
