package coord

import (
	"errors"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// TestAddressesOfMembersCanBeRead: what CheckPeer lets through, etcd can parse; it would end the process otherwise, at every start.
func TestAddressesOfMembersCanBeRead(t *testing.T) {
	for _, good := range []string{"h:1", "broker-1.example.org:9094", "10.0.0.1:65535", "[::1]:9094", "under_score:1"} {
		if err := CheckPeer(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
		if _, err := types.NewURLs([]string{"http://" + good}); err != nil {
			t.Errorf("etcd on %s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", ":", "h", "h:", ":1", "h:0", "h:65536", "h:-1", "h:+1", "h:01", "h: 1", "../x:1", "..%2Fx:8071", "a b:1", "a/b:1", "a?b:1", "a#b:1", "a@b:1", "u:p@h:1",
		"[::1:1", "[fe80::1%eth0]:1", "0.0.0.0:1", "[::]:1", "h\x00:1", "h\n:1", "ä:1", strings.Repeat("a", 300) + ":1", "h:1:2", "http://h:1",
	} {
		if err := CheckPeer(bad); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzCheckPeer(f *testing.F) {
	f.Add("h:1")
	f.Add("..%2Fx:8071")
	f.Add("[::1]:2")
	f.Fuzz(func(t *testing.T, addr string) {
		if CheckPeer(addr) != nil {
			return
		}
		for _, scheme := range []string{"http://", "https://"} {
			if _, err := types.NewURLs([]string{scheme + addr}); err != nil {
				t.Errorf("%q: %v", addr, err)
			}
		}
	})
}
