package api

import (
	"regexp"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/control"
)

// ApiVersions (key 18), versions 0-4: what the table serves, and the features of the cluster.
//
//	v0   the answer to any version that is not served, with UNSUPPORTED_VERSION and the range of
//	     ApiVersions itself, because a client sends its newest version before it knows ours (KIP-511)
//	v1   throttle time
//	v3   client software name and version in the request (KIP-511), features in the answer (KIP-584);
//	     the response header stays version 0
//	v4   a supported feature may have 0 as its minimum (KAFKA-17011); before, such a one is left out,
//	     because older Java clients refuse the whole answer over it
//
// Produce is announced from 0 although 0-2 are refused: librdkafka looks at the lowest version to decide
// whether a broker understands compression (KAFKA-18659).
//
// Features and transactions. Clients decide by the finalised level of transaction.version, not by the version of
// Produce: at 2 they raise their epoch with EndTxn 5 and let Produce 12 add partitions (KIP-890). Unsafe would be to
// finalise 2 without serving EndTxn 5, or to serve EndTxn 5 and TxnOffsetCommit 5 without finalising 2 (trap 2 of
// kafka.md 8). group.version, share.version and streams.version are left out: a client that saw them would use APIs
// that are in `absent`.

// feature is one row of what this build can do.
type feature struct {
	name     string
	min, max int16
}

// features is every feature of kafka.md 0 that is true today. metadata.version is what clients and tools
// read as "this is Kafka 4.3": level 30, minimum 7.
var features = []feature{
	{control.FeatureELR, 0, 1},
	{control.FeatureTransactions, 0, 2},
	{"metadata.version", 7, 30},
}

// software is what KIP-511 allows as the name and version of a client's software.
var software = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

func serveApiVersions(c *Call) Reply {
	req := c.Request.(*kmsg.ApiVersionsRequest)
	resp := kmsg.NewPtrApiVersionsResponse()
	if req.Version >= 3 {
		if !software.MatchString(req.ClientSoftwareName) || !software.MatchString(req.ClientSoftwareVersion) {
			resp.ErrorCode = c.failed(kerr.InvalidRequest.Code)
			return c.ready(resp)
		}
		c.Conn.SetValue(&connState{req.ClientSoftwareName, req.ClientSoftwareVersion})
	}
	resp.ApiKeys = c.api.announced(c.Conn.Peer())
	if req.Version >= 3 {
		c.announceFeatures(resp, req.Version)
	}
	return c.ready(resp)
}

// announcedKeys is the table as one kind of listener sees it, by key.
func announcedKeys(table []Row, peer bool) []kmsg.ApiVersionsResponseApiKey {
	out := make([]kmsg.ApiVersionsResponseApiKey, 0, len(table))
	for i := range table {
		if r := &table[i]; r.allowedOn(peer) {
			k := kmsg.NewApiVersionsResponseApiKey()
			k.ApiKey, k.MinVersion, k.MaxVersion = r.Key, r.announced(), r.Max
			out = append(out, k)
		}
	}
	return out
}

// announceFeatures names what this build supports and what the cluster has finalised, as of the image.
func (c *Call) announceFeatures(resp *kmsg.ApiVersionsResponse, version int16) {
	var finalised map[string]int16
	if c.Image != nil {
		finalised = c.Image.Features()
		resp.FinalizedFeaturesEpoch = c.Image.Revision()
	}
	for _, f := range features {
		if f.min > 0 || version >= 4 {
			s := kmsg.NewApiVersionsResponseSupportedFeature()
			s.Name, s.MinVersion, s.MaxVersion = f.name, f.min, f.max
			resp.SupportedFeatures = append(resp.SupportedFeatures, s)
		}
		// A level above what this build knows is not announced: the broker would promise what it does
		// not do. Level 0 is "off" and is left out, as Kafka does.
		if level := finalised[f.name]; level >= max(f.min, 1) && level <= f.max {
			l := kmsg.NewApiVersionsResponseFinalizedFeature()
			l.Name, l.MinVersionLevel, l.MaxVersionLevel = f.name, level, level
			resp.FinalizedFeatures = append(resp.FinalizedFeatures, l)
		}
	}
}

// unknownApiVersions answers a version that is not served: a v0 body with error 35 and the range of
// ApiVersions, by which the client chooses again.
func (c *Call) unknownApiVersions() Reply {
	c.failed(kerr.UnsupportedVersion.Code)
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = kerr.UnsupportedVersion.Code
	row := c.row
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = row.Key, row.Min, row.Max
	resp.ApiKeys = append(resp.ApiKeys, k)
	c.Header.Version, c.Header.Flexible = 0, false
	return c.ready(resp)
}
