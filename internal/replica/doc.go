// Package replica keeps the partitions that this broker follows up with their leaders, and takes what the
// leaders here wish for to the controller.
//
// It owns the conversations between brokers about records: one fetcher for each leader broker (or
// num.replica.fetchers of them) with its connection, its incremental fetch session and its long poll, the
// pauses after errors, and the batches of AlterPartition. It never decides what is fetched, cut or counted:
// that is package isr, which package partition steps; here are only the questions and the answers.
//
// Goroutines: one for each fetcher, while there is something to fetch from that broker, and one that sends
// proposals; started by Start and by changes of the image, stopped and joined by Close. A partition has
// none. Manager.Apply and the subscription to the Set run on the goroutine that applies images and only
// leave notes for the fetchers.
//
// Invariants: a fetch carries the broker epoch of this incarnation, never none; its offset is on this
// broker's disk, or below the leader's high watermark; records of one leader epoch are never appended after
// the role has changed, because the Follower they go through is then over; a partition that fails is taken out
// of the session while it pauses, so that it does not turn the others' long poll into a loop.
//
// Read manager.go first, then fetcher.go, request.go, and propose.go.
package replica
