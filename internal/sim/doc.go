// Package sim plays a cluster in one thread from one seed: the real machines of isr, the plans and the
// liveness of control, the real storage and producer tables on file systems in memory, between a modelled
// network, a modelled coordination store, clients that retry, and faults: power cuts that lose unsynced
// bytes, kills, freezes, one-way cuts, failed and replaced disks, lost answers.
//
// It never reads a clock, starts a goroutine or uses a random source but its seed.
//
// Whoever calls Run runs it; a World is not safe for concurrent use, several Worlds side by side are.
//
// Invariant: the same seed and options give the same story. After every event the promises of
// invariants.md 1a are checked (check.go); a breach ends the run with seed and story. What is modelled and
// what is not is told in docs/simulation.md.
//
// Read sim.go first, then broker.go, replica.go, controller.go, faults.go.
package sim
