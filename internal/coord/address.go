package coord

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// ErrAddress is what a peer address must not be.
var ErrAddress = errors.New("not the address of a broker")

// maxHost is the longest name that the domain name system has.
const maxHost = 253

// CheckPeer says what is wrong with a peer address, host:port. It is asked before an address goes into the store's
// own list of members: what is in there is read by every member again and again, and etcd ends the process over one
// that it cannot parse, at each start anew.
func CheckPeer(addr string) error {
	bad := func(why string) error { return fmt.Errorf("%w: %.300q: %s", ErrAddress, addr, why) }
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return bad("host:port is wanted")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return bad("the port is a number from 1 to 65535")
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" || ip.IsUnspecified() {
			return bad("nobody reaches that")
		}
	} else if host == "" || len(host) > maxHost || strings.ContainsFunc(host, func(r rune) bool { return !isHostRune(r) }) {
		return bad("the host is a name or an IP address")
	}
	// The judge that ends the process has the last word.
	if _, err := types.NewURLs([]string{"http://" + addr}); err != nil {
		return bad(err.Error())
	}
	return nil
}

func isHostRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_'
}
