package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// disk is an ext4 file system of its own in an image, so that one broker's disk can be full, slow, or lose its
// power while the machine runs on. It needs the right to mount.
type disk struct {
	image, mount string
	mounted      bool
	frozen       bool
}

func newDisk(image, mount string, size int64) (*disk, error) {
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	err = f.Truncate(size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(mount, 0o755); err != nil {
		return nil, err
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", image).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mkfs.ext4: %v: %s", err, out)
	}
	d := &disk{image: image, mount: mount}
	return d, d.open()
}

// open mounts the image; after a power cut that replays the journal.
func (d *disk) open() error {
	if out, err := exec.Command("mount", "-o", "loop", d.image, d.mount).CombinedOutput(); err != nil {
		return fmt.Errorf("mount %s: %v: %s", d.image, err, strings.TrimSpace(string(out)))
	}
	d.mounted = true
	return nil
}

// canMount says whether this process may use disks at all.
func canMount() error {
	dir, err := os.MkdirTemp("", "mount")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d, err := newDisk(filepath.Join(dir, "img"), filepath.Join(dir, "mnt"), 16<<20)
	if err != nil {
		return err
	}
	return d.close(false)
}

const (
	ext4Shutdown   = 0x8004587d // _IOR('X', 125, __u32)
	noLogFlush     = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH: the journal is not written either
	fiFreeze       = 0xc0045877
	fiThaw         = 0xc0045878
	ballast        = "ballast"
	ballastPortion = 1 << 20
)

func (d *disk) ioctl(req uintptr, arg uint32) error {
	f, err := os.Open(d.mount)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), req, uintptr(unsafe.Pointer(&arg))); e != 0 {
		return e
	}
	return nil
}

// cutPower makes the file system forget everything that was not synced, as it stands at this moment: dirty pages are
// dropped and the journal is not flushed. Every later access fails until the next open.
func (d *disk) cutPower() error { return d.ioctl(ext4Shutdown, noLogFlush) }

// unplug unmounts after the process that used it has ended.
func (d *disk) unplug() error {
	if !d.mounted {
		return nil
	}
	var err error
	for range 100 { // the kernel may hold the files of a process that was just killed for a moment
		if err = syscall.Unmount(d.mount, 0); err != syscall.EBUSY {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err == nil {
		d.mounted = false
	}
	return err
}

// fill leaves no byte free; release gives them back.
func (d *disk) fill() error {
	f, err := os.Create(filepath.Join(d.mount, ballast))
	if err != nil {
		return err
	}
	defer f.Close()
	for n := int64(1 << 30); n >= 4096; {
		st, _ := f.Stat()
		if err := syscall.Fallocate(int(f.Fd()), 0, st.Size(), n); err != nil {
			n /= 2
		}
	}
	return nil
}

func (d *disk) release() error { return os.Remove(filepath.Join(d.mount, ballast)) }

// freeze holds every write and sync of the file system until thaw: a disk that hangs. In pulses it is a slow disk.
func (d *disk) freeze() error {
	err := d.ioctl(fiFreeze, 0)
	d.frozen = d.frozen || err == nil
	return err
}

func (d *disk) thaw() error {
	if !d.frozen {
		return nil
	}
	err := d.ioctl(fiThaw, 0)
	d.frozen = err != nil
	return err
}

func (d *disk) close(keep bool) error {
	err := d.unplug()
	if !keep {
		os.Remove(d.image)
	}
	return err
}
