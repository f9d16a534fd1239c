package api

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
)

// ListConfigResources (key 74), versions 0-1.
//
//	v0  client metrics only (KIP-714)    v1  any types, none named means all (KIP-1142)
//
// Topics and brokers are listed whether or not they have values of their own; groups and client
// metrics when they have. An unknown type is UNSUPPORTED_VERSION.
func serveListConfigResources(c *Call) server.Reply {
	req := c.Request.(*kmsg.ListConfigResourcesRequest)
	resp := kmsg.NewPtrListConfigResourcesResponse()
	all := []meta.ResourceType{meta.ResourceTopic, meta.ResourceBroker, meta.ResourceBrokerLogger, meta.ResourceClientMetrics, meta.ResourceGroup}
	types := all
	switch {
	case req.Version == 0:
		types = []meta.ResourceType{meta.ResourceClientMetrics}
	case len(req.ResourceTypes) > 0:
		types = nil
		for _, t := range req.ResourceTypes {
			rt := meta.ResourceType(t)
			if !slices.Contains(all, rt) {
				resp.ErrorCode = c.failed(kerr.UnsupportedVersion.Code)
				return c.ready(resp)
			}
			if !slices.Contains(types, rt) {
				types = append(types, rt)
			}
		}
	}
	for _, t := range types {
		for _, n := range c.resourceNames(t) {
			r := kmsg.NewListConfigResourcesResponseConfigResource()
			r.Name, r.Type = n, int8(t)
			resp.ConfigResources = append(resp.ConfigResources, r)
		}
	}
	return c.ready(resp)
}

func (c *Call) resourceNames(t meta.ResourceType) []string {
	var names []string
	switch t {
	case meta.ResourceTopic:
		for _, topic := range c.Image.Topics() {
			names = append(names, topic.Name)
		}
	case meta.ResourceBroker, meta.ResourceBrokerLogger:
		for _, b := range c.Image.Alive() {
			names = append(names, fmt.Sprint(b.ID))
		}
	default:
		names = c.Image.Resources(t)
	}
	return names
}
