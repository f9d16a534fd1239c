//go:build !unix

package vfs

import "os"

// lockFile has no advisory lock here; two brokers on one directory are then not noticed.
func lockFile(*os.File) error { return nil }
