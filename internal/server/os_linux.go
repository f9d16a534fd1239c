package server

import (
	"errors"
	"net"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const canSendfile = true

// maxSendfile bounds one call, so that progress is seen by the sweeper.
const maxSendfile = 4 << 20

// sendFile copies n bytes of f from pos to the socket inside the kernel. The offset is explicit: the
// file's own position is shared by every connection that serves the same segment.
func sendFile(c *Conn, f *os.File, pos, n int64) error {
	fd := int(f.Fd())
	var failed error
	err := c.raw.Write(func(sock uintptr) bool {
		for n > 0 {
			m, err := unix.Sendfile(int(sock), fd, &pos, int(min(n, maxSendfile)))
			switch {
			case m > 0:
				n -= int64(m)
				c.touch()
			case errors.Is(err, unix.EAGAIN):
				return false
			case errors.Is(err, unix.EINTR):
			case err != nil:
				failed = os.NewSyscallError("sendfile", err)
				return true
			default:
				failed = errShort
				return true
			}
		}
		return true
	})
	// The descriptor's number must not be given to another file while it is in use.
	runtime.KeepAlive(f)
	if failed != nil {
		return failed
	}
	return err
}

// sendMore writes bufs and tells the kernel that more follows.
func sendMore(c *Conn, bufs net.Buffers) error {
	work := append(net.Buffers(nil), bufs...)
	if len(work) > 1024 {
		_, err := work.WriteTo(c.nc)
		return err
	}
	var failed error
	err := c.raw.Write(func(sock uintptr) bool {
		for len(work) > 0 {
			n, err := unix.SendmsgBuffers(int(sock), work, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
			switch {
			case errors.Is(err, unix.EAGAIN):
				return false
			case errors.Is(err, unix.EINTR):
				continue
			case err != nil:
				failed = os.NewSyscallError("sendmsg", err)
				return true
			}
			for n > 0 && len(work) > 0 {
				if n < len(work[0]) {
					work[0] = work[0][n:]
					n = 0
				} else {
					n -= len(work[0])
					work = work[1:]
				}
			}
		}
		return true
	})
	if failed != nil {
		return failed
	}
	return err
}

// congestionControl asks for a congestion control on a listening socket, which the accepted ones
// inherit. Not being allowed to is no reason to stop: the system's default is used then.
func congestionControl(rc syscall.RawConn, name string) error {
	var failed error
	err := rc.Control(func(fd uintptr) {
		failed = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
	})
	if err != nil {
		return err
	}
	return failed
}
