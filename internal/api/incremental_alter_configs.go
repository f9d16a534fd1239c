package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
)

// IncrementalAlterConfigs (key 44), versions 0-1 (KIP-339): SET, DELETE, APPEND, SUBTRACT on single
// keys of topics, brokers, groups and client metrics. A resource's operations happen all or none.
func serveIncrementalAlterConfigs(c *Call) server.Reply {
	req := c.Request.(*kmsg.IncrementalAlterConfigsRequest)
	wishes := make([]control.ConfigChange, len(req.Resources))
	for i, r := range req.Resources {
		w := control.ConfigChange{Resource: meta.Resource{Type: meta.ResourceType(r.ResourceType), Name: r.ResourceName}}
		for _, cf := range r.Configs {
			w.Ops = append(w.Ops, control.ConfigOp{Name: cf.Name, Op: control.Op(cf.Op), Value: cf.Value})
		}
		wishes[i] = w
	}
	resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
	for i, err := range c.alterConfigs(wishes, req.ValidateOnly) {
		out := kmsg.NewIncrementalAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = req.Resources[i].ResourceType, req.Resources[i].ResourceName
		out.ErrorCode, out.ErrorMessage = c.refusedAs(err)
		resp.Resources = append(resp.Resources, out)
	}
	return c.ready(resp)
}
