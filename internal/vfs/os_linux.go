package vfs

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// control runs a system call on the file's descriptor. SyscallConn keeps the descriptor from being
// closed (and given to another file) while the call runs, which File.Fd would not.
func control(f *os.File, op string, call func(fd int) error) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var cerr error
	err = rc.Control(func(fd uintptr) {
		for {
			if cerr = call(int(fd)); !errors.Is(cerr, unix.EINTR) {
				return
			}
		}
	})
	if err == nil && cerr != nil {
		err = &fs.PathError{Op: op, Path: f.Name(), Err: cerr}
	}
	return err
}

func syncFile(f *os.File) error { return control(f, "fdatasync", unix.Fdatasync) }
func syncFS(d *os.File) error   { return control(d, "syncfs", unix.Syncfs) }

func preallocate(f *os.File, size int64) error {
	err := control(f, "fallocate", func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, size)
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil // a hint: file systems without it work the same, only slower
	}
	return err
}

func startWriteback(f *os.File, off, n int64) {
	// A hint whose failure changes nothing: the error, if real, comes back from the next Sync.
	_ = control(f, "sync_file_range", func(fd int) error {
		return unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
}

func lockFile(f *os.File) error {
	err := control(f, "flock", func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

func free(name string) (avail, total int64, err error) {
	var st unix.Statfs_t
	for {
		if err = unix.Statfs(name, &st); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}
