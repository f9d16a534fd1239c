package broker

import (
	"fmt"
	"io"
	"time"
)

// Hints prints what a newcomer can do next. It goes to standard output; the log goes to standard error.
func (b *Broker) Hints(w io.Writer) {
	addr := b.Addr()
	fmt.Fprintf(w, `Milena %s is ready after %d ms.

  broker      %d at %s, cluster %s
  data        %s
`, b.o.Version, b.took/time.Millisecond, b.nodeID, addr, b.clusterID, b.dirs[0])
	if m := b.MetricsAddr(); m != "" {
		fmt.Fprintf(w, "  metrics     http://%s/metrics\n", m)
	}
	boot := ""
	if addr != "127.0.0.1:9092" {
		boot = " --bootstrap " + addr
	}
	fmt.Fprintf(w, `
Try, in another terminal:

  milena topic create letters --partitions 3%[1]s
  echo "1920:Dear Frau Milena" | milena produce letters%[1]s
  milena consume letters --from earliest%[1]s
  kcat -b %[2]s -L

Every acknowledged record is on disk. Stop with Ctrl-C.
`, boot, addr)
}
