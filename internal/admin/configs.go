package admin

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The resources that have configuration, with Kafka's codes.
const (
	ResourceTopic         = kmsg.ConfigResourceTypeTopic
	ResourceBroker        = kmsg.ConfigResourceTypeBroker
	ResourceGroup         = kmsg.ConfigResourceTypeGroupConfig
	ResourceClientMetrics = kmsg.ConfigResourceTypeClientMetrics
)

// Config is one key of a resource with its effective value.
type Config struct {
	Name      string    `json:"name"`
	Value     *string   `json:"value"` // null: unset, or sensitive
	Source    string    `json:"source"`
	ReadOnly  bool      `json:"read_only,omitempty"`
	Sensitive bool      `json:"sensitive,omitempty"`
	Doc       string    `json:"doc,omitempty"`
	Synonyms  []Synonym `json:"synonyms,omitempty"`
}

// Synonym is one place where a value is set, the deciding one first.
type Synonym struct {
	Name   string  `json:"name"`
	Value  *string `json:"value"`
	Source string  `json:"source"`
}

var sources = map[kmsg.ConfigSource]string{1: "topic", 2: "broker", 3: "all brokers", 4: "static", 5: "default", 6: "logger", 7: "client metrics", 8: "group"}

func sourceName(s kmsg.ConfigSource) string {
	if n, ok := sources[s]; ok {
		return n
	}
	return "source " + strconv.Itoa(int(s))
}

func resourceName(t kmsg.ConfigResourceType, name string) string {
	kind := map[kmsg.ConfigResourceType]string{ResourceTopic: "topic", ResourceBroker: "broker", ResourceGroup: "group", ResourceClientMetrics: "client metrics"}[t]
	if t == ResourceBroker && name == "" {
		return "all brokers"
	}
	return kind + " " + name
}

// Configs reads all keys of a resource, or only the named ones. For brokers the empty name is the default
// of all brokers.
func (c *Client) Configs(ctx context.Context, t kmsg.ConfigResourceType, name string, keys ...string) ([]Config, error) {
	what := "read configuration of " + resourceName(t, name)
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.IncludeSynonyms, req.IncludeDocumentation = true, true
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = t, name
	if len(keys) > 0 {
		r.ConfigNames = keys // null asks for all; an empty list does so too, but only by Kafka's leniency
	}
	req.Resources = append(req.Resources, r)
	resp, err := request[*kmsg.DescribeConfigsResponse](ctx, c, what, req)
	if err != nil {
		return nil, err
	}
	out := []Config{}
	for _, r := range resp.Resources {
		if err := codeError(what, r.ErrorCode, r.ErrorMessage); err != nil {
			return nil, err
		}
		for _, x := range r.Configs {
			k := Config{Name: x.Name, Value: x.Value, Source: sourceName(x.Source), ReadOnly: x.ReadOnly, Sensitive: x.IsSensitive}
			if x.Documentation != nil {
				k.Doc = *x.Documentation
			}
			for _, s := range x.ConfigSynonyms {
				k.Synonyms = append(k.Synonyms, Synonym{s.Name, s.Value, sourceName(s.Source)})
			}
			out = append(out, k)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// AlterConfigs sets and unsets keys of one resource in one step: all or nothing.
func (c *Client) AlterConfigs(ctx context.Context, t kmsg.ConfigResourceType, name string, set map[string]string, unset []string) error {
	what := "configure " + resourceName(t, name)
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = t, name
	for k, v := range set {
		x := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		x.Name, x.Op, x.Value = k, kmsg.IncrementalAlterConfigOpSet, &v
		r.Configs = append(r.Configs, x)
	}
	for _, k := range unset {
		x := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		x.Name, x.Op = k, kmsg.IncrementalAlterConfigOpDelete
		r.Configs = append(r.Configs, x)
	}
	sort.Slice(r.Configs, func(i, j int) bool { return r.Configs[i].Name < r.Configs[j].Name })
	req.Resources = append(req.Resources, r)
	resp, err := request[*kmsg.IncrementalAlterConfigsResponse](ctx, c, what, req)
	if err != nil {
		return err
	}
	for _, r := range resp.Resources {
		if err := codeError(what, r.ErrorCode, r.ErrorMessage); err != nil {
			return err
		}
	}
	return nil
}

// ParsePairs reads key=value words; a pair without = is an error, a key twice too.
func ParsePairs(words []string) (map[string]string, error) {
	m := map[string]string{}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("%q: want key=value", w)
		}
		if _, twice := m[k]; twice {
			return nil, fmt.Errorf("%s is given twice", k)
		}
		m[k] = v
	}
	return m, nil
}
