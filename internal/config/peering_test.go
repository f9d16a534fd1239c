package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestPeering(t *testing.T) {
	three := "cluster=1@127.0.0.1:7001,2@127.0.0.1:7002,3@127.0.0.1:7003"
	var b strings.Builder
	for _, line := range []string{
		"", three, three + " node.id=4", "cluster=1@127.0.0.1:7001,2@127.0.0.1:7002", "cluster=1@127.0.0.1", "cluster=x@127.0.0.1:1",
		"cluster=1@127.0.0.1:1,1@127.0.0.1:2,3@127.0.0.1:3", "cluster=1@127.0.0.1:1,2@127.0.0.1:1,3@127.0.0.1:3",
		three + " join=127.0.0.1:7001", "join=127.0.0.1:7001", "join=127.0.0.1:7001 peer.listener=127.0.0.1:0", "join=nowhere peer.listener=127.0.0.1:0",
		"peer.listener=0.0.0.0:7001", "peer.listener=0.0.0.0:7001 peer.advertised=10.0.0.1:7001", "peer.listener=10.0.0.1:7001", "peer.listener=10.0.0.1:7001 peer.tls.certificate=a",
		"peer.listener=10.0.0.1:7001 peer.tls.certificate=a peer.tls.key=b peer.tls.ca=c", "peer.listener=localhost:7001", "peer.advertised=127.0.0.1:1",
		"coordinator=etcd://127.0.0.1:2379,127.0.0.2:2379 peer.listener=127.0.0.1:0", "coordinator=zookeeper://127.0.0.1:2181/milena/a/ peer.listener=127.0.0.1:0",
		"coordinator=consul://x:1", "coordinator=etcd://x", "coordinator=etcd://127.0.0.1:2379", three + " coordinator=etcd://127.0.0.1:2379",
	} {
		s, err := Parse(nil, strings.NewReader(strings.ReplaceAll(line, " ", "\n")), nil)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		p, err := ParsePeering(Layers{Static: s}, NodeID.Static(s))
		if err != nil {
			fmt.Fprintf(&b, "%s\n\terror: %v\n", line, err)
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: the error is not one line", line)
			}
			continue
		}
		fmt.Fprintf(&b, "%s\n\t%+v\n", line, p)
	}
	golden(t, "testdata/peering.txt", b.String())
}
