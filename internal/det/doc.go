// Package det owns what makes a run repeatable: the Instant that machines are given instead of a
// clock, the Machine contract, a seeded generator and ordered iteration.
//
// It never reads the clock, the environment or a random source.
//
// Anybody runs it; nothing here starts a goroutine or takes a lock.
//
// Invariant: the same inputs in the same order give the same outputs, on every platform.
//
// Read det.go first.
package det
