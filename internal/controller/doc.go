// Package controller owns the shell around package control: it follows the coordination store into
// the image that this broker works with, takes the lead when it can, and carries plans out.
//
// It never decides: control does. It never reads the store to answer a request: the image does.
//
// Two goroutines run it: follow, which alone makes images and calls subscribers, and lead, which
// alone plans and appends. Close stops and joins both. The methods are safe for concurrent use.
//
// Invariants: images are published in order, each after its subscribers have returned; an answer
// comes after the local image shows what it speaks of; nothing is appended after a term has ended,
// and an append whose outcome is unknown ends it.
//
// Read controller.go first, then lead.go.
package controller
