//go:build !linux

package server

import (
	"errors"
	"net"
	"os"
	"syscall"
)

const canSendfile = false

func sendFile(*Conn, *os.File, int64, int64) error { return errors.ErrUnsupported }

func sendMore(c *Conn, bufs net.Buffers) error {
	work := append(net.Buffers(nil), bufs...)
	_, err := work.WriteTo(c.nc)
	return err
}

func congestionControl(syscall.RawConn, string) error { return errors.ErrUnsupported }
