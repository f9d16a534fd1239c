// Package sim plays a replicated partition on several brokers in one thread from one seed: the real
// isr machines and real storage logs on a file system in memory, with a modelled network, modelled
// power cuts, kills and freezes, and a modelled controller that applies kafka.md 4.2 and 4.3.
//
// It never reads a clock, starts a goroutine or uses a random source but its seed.
//
// Whoever calls Run runs it; a World is not safe for concurrent use.
//
// Invariant: the same seed and options give the same story. After every event the promises of
// invariants.md 1a are checked (check.go); a breach ends the run with seed and story.
//
// Read sim.go first, then broker.go, controller.go, faults.go.
package sim
