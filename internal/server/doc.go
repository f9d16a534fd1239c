// Package server owns the sockets: listeners, connections, the memory that requests in flight may hold,
// answers in the order of the requests, and the end of it all on shutdown.
//
// It never looks past the first eight bytes of a request: what a request means and what is answered is
// its Handler's business (package api).
//
// Goroutines: one per listener that accepts, one per connection that reads and calls the Handler, one
// per connection that writes while an answer is waited for (it ends when the queue is empty, so that an
// idle connection is one goroutine and no buffer), one for each Conn.Go, and one that sweeps for idle
// connections. All are started by Start or by one another and joined by Shutdown.
//
// Invariants: answers leave in the order in which their requests came, whoever finishes first; a panic
// ends its connection and nothing else; a frame's length is judged before memory is taken for it, and
// memory follows the bytes received, at most sixteen times them; every release function is called once,
// also when the socket dies first; nothing is asked of sendfile that the file does not hold.
//
// Read types.go first, then conn.go (reading), reply.go (order), out.go (writing).
package server
