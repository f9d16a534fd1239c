// Package controller owns the shell around package control: it follows the coordination store into
// the image that this broker works with, hears every broker's heartbeats, takes the lead when it can, and carries
// plans out: those that are asked for, and those that a controller makes by itself (verdicts about brokers, elections,
// growth of coordinators' topics, the balancer).
//
// It never decides: control does. It never reads the store to answer a request: the image does.
//
// Three goroutines run it: follow, which alone makes images and calls subscribers; lead, which alone plans and
// appends; and one that only keeps the clock seen, so that a pause of this process is noticed. Close stops and joins
// them. The methods are safe for concurrent use; a heartbeat takes one short lock and waits for nobody.
//
// Invariants: images are published in order, each after its subscribers have returned; an answer
// comes after the local image shows what it speaks of; nothing is appended after a term has ended,
// and an append whose outcome is unknown ends it; after a pause of this process nobody is judged by it, and nothing
// is done before the store has said that the term still holds.
//
// Read controller.go first, then lead.go, handle.go, pulses.go and duties.go.
package controller
