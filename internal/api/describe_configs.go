package api

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/control"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/server"
)

// DescribeConfigs (key 32), versions 1-4.
//
//	v1  sources and synonyms (KIP-226)    v3  types and documentation (KIP-569)
//
// Topics, groups, client metrics, this broker, and the default of all brokers (an empty name), with
// Kafka's names, sources and order of synonyms. Another broker's static values are not known here:
// INVALID_REQUEST, as in Kafka. A broker logger has one entry, root, which is read-only.
func serveDescribeConfigs(c *Call) server.Reply {
	req := c.Request.(*kmsg.DescribeConfigsRequest)
	resp := kmsg.NewPtrDescribeConfigsResponse()
	for i := range req.Resources {
		rr := &req.Resources[i]
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName = rr.ResourceType, rr.ResourceName
		r := meta.Resource{Type: meta.ResourceType(rr.ResourceType), Name: rr.ResourceName}
		entries, err := c.describeResource(r)
		if out.ErrorCode, out.ErrorMessage = c.refusedAs(err); err == nil {
			out.Configs = describedConfigs(entries, rr.ConfigNames, req)
		}
		resp.Resources = append(resp.Resources, out)
	}
	return c.ready(resp)
}

func (c *Call) describeResource(r meta.Resource) ([]config.Entry, *control.Error) {
	if err := c.cluster().CheckResource(r, false); err != nil {
		return nil, err
	}
	l := control.ResourceLayers(c.Image, c.Static, c.NodeID, r)
	switch r.Type {
	case meta.ResourceBroker, meta.ResourceBrokerLogger:
		if r.Name == "" {
			return config.DescribeDefaults(l), nil
		}
		if r.Name != fmt.Sprint(c.NodeID) {
			return nil, &control.Error{Code: kerr.InvalidRequest, Message: fmt.Sprintf("Unexpected broker id, expected %d or empty string, but received %s", c.NodeID, r.Name)}
		}
		if r.Type == meta.ResourceBrokerLogger {
			return loggers(l), nil
		}
	}
	return config.Describe(config.ResourceType(r.Type), l), nil
}

// sourceBrokerLogger is Kafka's code for the level of a logger.
const sourceBrokerLogger config.Source = 6

// loggers is the one logger there is, at the level it was started with.
func loggers(l config.Layers) []config.Entry {
	level := strings.ToUpper(config.LoggingLevel.Of(l))
	d := &config.Def{Resource: config.ResourceBroker, Name: "root", Type: config.String, Doc: "Level of the broker's log; set by " + config.LoggingLevel.Name + " at start."}
	return []config.Entry{{Def: d, Name: d.Name, Value: &level, Source: sourceBrokerLogger, ReadOnly: true}}
}

func describedConfigs(es []config.Entry, names []string, req *kmsg.DescribeConfigsRequest) []kmsg.DescribeConfigsResponseResourceConfig {
	var wanted map[string]bool
	if names != nil {
		wanted = make(map[string]bool, len(names))
		for _, n := range names {
			wanted[n] = true
		}
	}
	out := make([]kmsg.DescribeConfigsResponseResourceConfig, 0, len(es))
	for _, e := range es {
		if wanted != nil && !wanted[e.Name] {
			continue
		}
		dc := kmsg.NewDescribeConfigsResponseResourceConfig()
		dc.Name, dc.Value, dc.ReadOnly, dc.IsSensitive = e.Name, e.Value, e.ReadOnly, e.Def.Sensitive()
		dc.Source, dc.ConfigType = kmsg.ConfigSource(e.Source), kmsg.ConfigType(e.Def.Type)
		dc.IsDefault = e.Source == config.SourceDefault
		if req.IncludeSynonyms {
			for _, s := range e.Synonyms {
				ds := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
				ds.Name, ds.Value, ds.Source = s.Name, s.Value, kmsg.ConfigSource(s.Source)
				dc.ConfigSynonyms = append(dc.ConfigSynonyms, ds)
			}
		}
		if req.IncludeDocumentation {
			dc.Documentation = &e.Def.Doc
		}
		out = append(out, dc)
	}
	return out
}
