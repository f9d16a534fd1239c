package det

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Instant is a moment as a machine's shell read it: nanoseconds since the Unix epoch.
// A machine never reads a clock itself; the shell passes the moment with each input, so that a
// recorded run can be played again. Instants given to one machine never decrease.
type Instant int64

// Never is later than every moment. A machine whose Wake answers Never needs no timer.
const Never Instant = math.MaxInt64

// At converts a clock reading.
func At(t time.Time) Instant { return Instant(t.UnixNano()) }

// Milli is the Instant of a Unix time in milliseconds, Kafka's unit for every timestamp.
func Milli(ms int64) Instant { return Instant(ms * int64(time.Millisecond)) }

// UnixMilli is the moment in milliseconds since the Unix epoch.
func (i Instant) UnixMilli() int64 { return int64(i) / int64(time.Millisecond) }

// Add moves an Instant; Never stays Never, and a sum past the range becomes Never.
func (i Instant) Add(d time.Duration) Instant {
	if i == Never {
		return Never
	}
	s := int64(i) + int64(d)
	if d > 0 && s < int64(i) {
		return Never
	}
	return Instant(s)
}

// Sub is the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(int64(i) - int64(j)) }

// Time converts back to a clock reading, for log lines.
func (i Instant) Time() time.Time { return time.Unix(0, int64(i)) }

// Machine is a decision as a value: an input and the time go in, effects come out. Step never
// writes, sends, sleeps, locks or draws random numbers; whoever runs it carries the effects out.
type Machine[In, Out any] interface {
	// Step handles one input at the moment now.
	Step(now Instant, in In) Out
	// Wake is the earliest moment at which Step wants to hear of the time, Never for none.
	Wake() Instant
}

// SortedKeys lists a map's keys in order. Iterating a Go map directly inside a machine would make
// two replays of one history differ.
func SortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	ks := make([]K, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}
