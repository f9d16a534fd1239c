package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
)

// AlterConfigs (key 33), versions 0-2, deprecated in Kafka: replaces all dynamic values of a resource;
// what the request does not name goes back to its default (KIP-133).
func serveAlterConfigs(c *Call) server.Reply {
	req := c.Request.(*kmsg.AlterConfigsRequest)
	wishes := make([]control.ConfigChange, len(req.Resources))
	for i, r := range req.Resources {
		w := control.ConfigChange{Resource: meta.Resource{Type: meta.ResourceType(r.ResourceType), Name: r.ResourceName}, Replace: true}
		for _, cf := range r.Configs {
			w.Ops = append(w.Ops, control.ConfigOp{Name: cf.Name, Op: control.OpSet, Value: cf.Value})
		}
		wishes[i] = w
	}
	resp := kmsg.NewPtrAlterConfigsResponse()
	for i, err := range c.alterConfigs(wishes, req.ValidateOnly) {
		out := kmsg.NewAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = req.Resources[i].ResourceType, req.Resources[i].ResourceName
		out.ErrorCode, out.ErrorMessage = c.refusedAs(err)
		resp.Resources = append(resp.Resources, out)
	}
	return c.ready(resp)
}

func (c *Call) alterConfigs(wishes []control.ConfigChange, validateOnly bool) []*control.Error {
	ctx, cancel := c.admin(0)
	defer cancel()
	return c.Controller.AlterConfigs(ctx, wishes, validateOnly)
}
