//go:build !linux

package vfs

import (
	"io/fs"
	"os"
)

// syncFile is a full fsync (F_FULLFSYNC on darwin: os.File.Sync does that).
func syncFile(f *os.File) error { return f.Sync() }

func syncFS(*os.File) error { return ErrUnsupported }

func preallocate(*os.File, int64) error     { return nil }
func startWriteback(*os.File, int64, int64) {}

// pathError keeps the errors of the fallbacks in the form of the other file errors.
func pathError(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }
