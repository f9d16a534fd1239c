package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

var (
	routeNames  = map[Route]string{Here: "any broker", Group: "group coordinator", Txn: "transaction coordinator", Controller: "controller"}
	flowNames   = map[Flow]string{Serial: "serial", Pipelined: "pipelined"}
	opNames     = map[Op]string{Nothing: "nothing", PerItem: "per item", ClusterDescribe: "Describe on Cluster", ClusterAlter: "Alter on Cluster", ClusterAction: "ClusterAction on Cluster", ClusterDescribeConfig: "DescribeConfigs on Cluster"}
	chargeNames = map[Charge]string{ChargeRequest: "request", ChargeProduce: "produce", ChargeFetch: "fetch", ChargeMutation: "mutation", ChargeNone: "none"}
	onNames     = map[Listeners]string{Client: "client", Peer: "peer", Both: "client, peer"}
)

// Document prints the table as docs/apis.md.
func Document() string {
	var b strings.Builder
	b.WriteString(`# APIs

Printed from internal/api/table.go; a test keeps it equal (` + "`go test ./internal/api -run Document -rewrite`" + `).

## Served

"Announced" is what ApiVersions names, where it differs from what is served: Produce below 3 is refused with UNSUPPORTED_VERSION,
but librdkafka stops compressing unless it is announced. "Flow" says whether the next request of the same connection is looked at
before this one is answered; answers leave in order either way. "Needs" and "quota" are what access control and quotas will use.

| key | API | versions | announced | listener | answered by | flow | needs | quota |
|---|---|---|---|---|---|---|---|---|
`)
	for i := range table {
		r := &table[i]
		announced := ""
		if r.announced() != r.Min {
			announced = fmt.Sprintf("%d-%d", r.announced(), r.Max)
		}
		answered := routeNames[r.Route]
		if r.On == Peer {
			answered = "controller; others say NOT_CONTROLLER" // they are told all the same, see servePeer
		}
		fmt.Fprintf(&b, "| %d | %s | %d-%d | %s | %s | %s | %s | %s | %s |\n", r.Key, r.Name(), r.Min, r.Max, announced,
			onNames[r.On], answered, flowNames[r.Flow], opNames[r.Needs], chargeNames[r.Charge])
	}
	b.WriteString("\n## Not served\n\nNever announced; a request for one closes the connection, as Apache Kafka does with a key it does not know.\n\n| key | API | why |\n|---|---|---|\n")
	for _, k := range slices.Sorted(maps.Keys(absent)) {
		name, why, _ := strings.Cut(absent[k], ": ")
		fmt.Fprintf(&b, "| %d | %s | %s |\n", k, name, why)
	}
	b.WriteString("\n## Features\n\nWhat ApiVersions 3 and later announce as supported; finalised is what the cluster has chosen within.\n\n| feature | from | to |\n|---|---|---|\n")
	for _, f := range features {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", f.name, f.min, f.max)
	}
	fmt.Fprintf(&b, "\nThe protocol library knows keys up to %d.\n", kmsg.MaxKey)
	return b.String()
}
