//go:build unix

package peer

import (
	"io"
	"net"
	"syscall"
)

// asTCP is c when it is a plain TCP connection.
func asTCP(c net.Conn) *net.TCPConn {
	t, _ := c.(*net.TCPConn)
	return t
}

// peekTCP fills head without taking it out of the socket.
func peekTCP(t *net.TCPConn, head []byte) error {
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, _, rerr = syscall.Recvfrom(int(fd), head, syscall.MSG_PEEK)
			if rerr != syscall.EINTR {
				break
			}
		}
		// Fewer bytes than asked for and no end: wait for the next to arrive.
		return rerr != syscall.EAGAIN && (rerr != nil || n == 0 || n >= len(head))
	})
	switch {
	case err != nil:
		return err
	case rerr != nil:
		return rerr
	case n < len(head):
		return io.ErrUnexpectedEOF
	}
	return nil
}
