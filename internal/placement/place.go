package placement

import (
	"cmp"
	"fmt"
	"slices"
)

// Broker is a place for replicas.
type Broker struct {
	ID     int32
	Rack   string // "": none known
	Fenced bool   // takes replicas only where the others do not suffice
}

// Error is a reason why replicas cannot be placed, in Kafka's words.
type Error string

func (e Error) Error() string { return string(e) }

// Place gives n partitions factor replicas each; the first partition has the number first, so that a
// topic that grows goes on where it stopped. start shifts the first choice; take it at random for a
// new topic. The first replica of each is the preferred leader. The caller has bounded n.
func Place(brokers []Broker, first, n, factor, start int) ([][]int32, error) {
	if factor < 1 {
		return nil, Error("Invalid replication factor: the replication factor must be positive.")
	}
	var live, fenced []Broker
	for _, b := range brokers {
		if b.Fenced {
			fenced = append(fenced, b)
		} else {
			live = append(live, b)
		}
	}
	if len(live) == 0 {
		return nil, Error("All brokers are currently fenced.")
	}
	if factor > len(brokers) {
		return nil, Error(fmt.Sprintf("The target replication factor of %d cannot be reached because only %d broker(s) are registered.", factor, len(brokers)))
	}
	live, fenced = stripe(live), stripe(fenced)
	out := make([][]int32, n)
	flat := make([]int32, n*factor)
	var chosen []Broker
	for i := range out {
		at := first + i + start
		chosen = pick(chosen[:0], live, at, min(factor, len(live)))
		chosen = pick(chosen, fenced, at, factor-len(chosen))
		rs := flat[i*factor : i*factor : (i+1)*factor]
		for _, b := range chosen {
			rs = append(rs, b.ID)
		}
		out[i] = rs
	}
	return out, nil
}

// pick appends want brokers of the list to chosen, beginning at a place that moves with at: the
// first choice goes round the list, and after each round the others shift by one against it, so
// that the followers of one leader are not always the same brokers.
func pick(chosen, list []Broker, at, want int) []Broker {
	n := len(list)
	if want <= 0 || n == 0 {
		return chosen
	}
	lead := at % n
	for _, newRack := range []bool{true, false} {
		for j := 0; j < n && want > 0; j++ {
			b := list[lead]
			if j > 0 {
				b = list[(lead+1+(at/n+j-1)%(n-1))%n]
			}
			if slices.ContainsFunc(chosen, func(c Broker) bool { return c.ID == b.ID || newRack && c.Rack == b.Rack && b.Rack != "" }) {
				continue
			}
			chosen = append(chosen, b)
			want--
		}
	}
	return chosen
}

// stripe orders brokers so that neighbours are in different racks where possible.
func stripe(bs []Broker) []Broker {
	byRack := map[string][]Broker{}
	var racks []string
	for _, b := range slices.SortedFunc(slices.Values(bs), func(a, b Broker) int { return cmp.Compare(a.ID, b.ID) }) {
		if byRack[b.Rack] == nil {
			racks = append(racks, b.Rack)
		}
		byRack[b.Rack] = append(byRack[b.Rack], b)
	}
	slices.Sort(racks)
	out := make([]Broker, 0, len(bs))
	for i := 0; len(out) < len(bs); i++ {
		for _, r := range racks {
			if i < len(byRack[r]) {
				out = append(out, byRack[r][i])
			}
		}
	}
	return out
}
