// Package shard owns the running of a coordinator machine on a partition's log: it loads the machine by
// replay, feeds it inputs in batches, appends the records of a batch at once, parks the answers until
// the log is committed up to them, and wakes the machine when its earliest timer is due.
//
// It never decides anything about a group; that is internal/group. It never shows anything that is not
// committed, and it never repairs a machine: when an append fails it forgets the machine, answers
// everybody who waits, and loads again.
//
// One goroutine per partition that this broker leads, started by Groups.Lead and joined by Groups.Close or
// when leadership is lost; it sleeps on its inbox and on one timer. Inbox and parked answers are under
// the shard's mutex. What a machine asks to be carried out (markers) is handed over when its record is
// committed, once for each machine that was loaded: with a machine that is forgotten, what it asked for
// and is not done yet is void.
//
// Invariants: one append order, one step order; every Pending is finished exactly once, with an answer
// or with an error; the inbox is bounded.
//
// Read shard.go first, then groups.go and txns.go.
package shard
