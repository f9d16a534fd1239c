// Package vfs owns the dozen file operations a log needs, as an interface, and the implementation
// on the operating system. Linux gets fdatasync, syncfs, sync_file_range, fallocate and flock;
// other systems get plain fallbacks that are correct but slower.
//
// It never retries, never caches file contents and never decides what a failed operation means:
// that is the caller's business (storage takes the log directory offline).
//
// Anybody runs it: every method may be called from several goroutines. It starts none.
//
// Invariants: a file is durable after Sync, its name is durable after SyncDir of the folder that
// holds it; Volume.Sync makes both durable for everything written before the call.
//
// Read vfs.go first, then os.go.
package vfs
