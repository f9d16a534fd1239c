//go:build !unix

package peer

import "net"

// asTCP is nil: nothing can be looked at here without taking it out.
func asTCP(net.Conn) *net.TCPConn { return nil }

func peekTCP(*net.TCPConn, []byte) error { return net.ErrClosed }
