// Package cli owns the commands of milena: their flags, tables, JSON, help, completion and exit codes
// (0 done, 1 failed, 2 wrong use).
//
// It never speaks Kafka itself (admin does), never knows the broker (serve is handed in), and connects to
// nothing before a command needs it.
//
// Run is called once per process by cmd/milena, and many times by tests: everything outside comes in
// through IO.
//
// Invariants: results go to standard output and everything else to standard error; every command that
// shows something has -o json; a reader that closes the pipe early is no error; errors are one line.
//
// Read app.go first.
package cli
