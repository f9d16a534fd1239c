package broker

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// program is how this process was called, so that the lines below can be copied: "go run" leaves a
// program in a build folder that is gone afterwards.
func program() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ./cmd/milena"
	}
	return os.Args[0]
}

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

  %[3]s topic create letters --partitions 3%[1]s
  echo "1920:Dear Frau Milena" | %[3]s produce letters%[1]s
  %[3]s consume letters --from earliest%[1]s
  kcat -b %[2]s -L

Every acknowledged record is on disk. Stop with Ctrl-C.
`, boot, addr, program())
}
