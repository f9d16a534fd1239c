package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// Flags of OpenFile, so that packages which may not import os can name them.
const (
	ReadOnly  = os.O_RDONLY
	ReadWrite = os.O_RDWR
	Create    = os.O_CREATE
	Excl      = os.O_EXCL
	Trunc     = os.O_TRUNC
)

// ErrLocked says that another process (or another Lock in this one) holds the lock file.
var ErrLocked = errors.New("locked by another process")

// ErrUnsupported says that the system or the file system has no such operation.
var ErrUnsupported = errors.ErrUnsupported

// OSFile is the operating system's file, under a name that packages without os can use.
type OSFile = os.File

// FS is a file system. Names are paths as the operating system takes them.
type FS interface {
	// OpenFile opens a file with the flags above. Create with Excl fails with fs.ErrExist.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// Remove unlinks a file or an empty folder.
	Remove(name string) error
	// RemoveAll removes a tree; an absent one is no error.
	RemoveAll(name string) error
	// Rename moves a file or folder atomically and replaces an existing file.
	Rename(from, to string) error
	// MkdirAll makes a folder and its parents.
	MkdirAll(name string, perm fs.FileMode) error
	// ReadDir lists a folder sorted by name.
	ReadDir(name string) ([]fs.DirEntry, error)
	// Stat describes a file or folder.
	Stat(name string) (fs.FileInfo, error)
	// SyncDir makes the entries of a folder durable: creations, renames and removals before the call.
	SyncDir(name string) error
	// Volume opens the file system that holds a folder, for Volume.Sync.
	Volume(name string) (Volume, error)
	// Lock takes an exclusive lock on a file, creating it. ErrLocked when it is held.
	Lock(name string) (io.Closer, error)
	// Free is the space, in bytes, that an unprivileged writer may still use, and the total.
	Free(name string) (avail, total int64, err error)
}

// Volume is an open handle on a whole file system. It stays open between calls on purpose: the
// kernel reports a failed write-back once to every handle that was open when it happened, so a handle
// opened only for the call could miss a failure that somebody else has already been told about.
type Volume interface {
	// Sync makes everything written to the file system before the call durable (syncfs).
	// ErrUnsupported where there is no such call.
	Sync() error
	io.Closer
}

// File is an open file without a position.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Name is the name it was opened under.
	Name() string
	// Size in bytes.
	Size() (int64, error)
	// Truncate cuts or extends (with zeros) to size bytes.
	Truncate(size int64) error
	// Sync makes the file's data and size durable (fdatasync). After one failure the state of the
	// file on disk is unknown, and a second call may succeed without the data being there.
	Sync() error
	// Preallocate reserves disk blocks up to size bytes without changing Size. It may do nothing.
	Preallocate(size int64) error
	// StartWriteback asks the kernel to begin writing a range, without waiting. It may do nothing.
	StartWriteback(off, n int64)
	// SysFile is the operating system's file for sendfile, nil when there is none.
	SysFile() *os.File
}

// ReadFile reads a whole file of at most limit bytes; a longer one is an error, so that a damaged or
// hostile file cannot take the memory.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.OpenFile(name, ReadOnly, 0)
	if err != nil {
		return nil, err
	}
	b, err := readAll(f, limit)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return b, err
}

func readAll(f File, limit int64) ([]byte, error) {
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, &fs.PathError{Op: "read", Path: f.Name(), Err: errTooLarge}
	}
	b := make([]byte, n)
	m, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:m], nil
}

var errTooLarge = errors.New("file too large")
