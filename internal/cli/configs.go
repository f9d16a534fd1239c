package cli

import (
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/milena-mq/milena/internal/config"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Read and change configuration of topics, brokers and groups",
		Long: `Read and change configuration while the cluster runs. What is meant is named by two words:

  topic NAME     one topic
  broker ID      one broker
  broker all     the default of all brokers
  group NAME     one group`,
	}
	c.AddCommand(a.configGet(), a.configSet(), a.configUnset(), a.configKeys())
	return c
}

var kinds = map[string]kmsg.ConfigResourceType{"topic": admin.ResourceTopic, "broker": admin.ResourceBroker, "group": admin.ResourceGroup, "client-metrics": admin.ResourceClientMetrics}

// resource reads the two words that name what is configured.
func resource(got []string) (kmsg.ConfigResourceType, string, error) {
	t, ok := kinds[strings.TrimSuffix(got[0], "s")]
	if !ok {
		return 0, "", usagef("%q: want topic, broker, group or client-metrics", got[0])
	}
	name := got[1]
	if t == admin.ResourceBroker && name == "all" {
		name = ""
	}
	return t, name, nil
}

func (a *app) configGet() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "get topic|broker|group NAME [KEY...]",
		Short: "Show configuration: what is set, the named keys, or everything with --all",
		Example: `  milena config get topic letters
  milena config get topic letters retention.ms
  milena config get broker 1 --all`,
		Args:              args(2, -1, "topic, broker or group, its name, and perhaps keys"),
		ValidArgsFunction: a.completeResource(""),
		RunE: func(cmd *cobra.Command, got []string) error {
			t, name, err := resource(got)
			if err != nil {
				return err
			}
			list, err := a.client().Configs(cmd.Context(), t, name, got[2:]...)
			if err != nil {
				return err
			}
			if err := missing(t, got[2:], list); err != nil {
				return err
			}
			shown := []admin.Config{}
			for _, x := range list {
				if all || len(got) > 2 || x.Source != "default" {
					shown = append(shown, x)
				}
			}
			return a.show(shown, func(w io.Writer) error {
				if len(shown) == 0 {
					_, err := fmt.Fprintln(a.io.Err, "Everything has its default. See all keys with --all")
					return err
				}
				return writeConfigs(w, shown)
			})
		},
	}
	c.Flags().BoolVar(&all, "all", false, "also keys that have their default")
	return c
}

func missing(t kmsg.ConfigResourceType, want []string, got []admin.Config) error {
	have := map[string]bool{}
	for _, x := range got {
		have[x.Name] = true
	}
	for _, k := range want {
		if !have[k] {
			if near := config.Nearest(k, keyNames(config.ResourceType(t))); near != "" && near != k {
				return fmt.Errorf("there is no key %s: did you mean %s?", k, near)
			}
			return fmt.Errorf("there is no key %s", k)
		}
	}
	return nil
}

func keyNames(t config.ResourceType) []string {
	var out []string
	for _, d := range config.Keys(t) {
		if !d.Internal {
			out = append(out, d.Name)
		}
	}
	return out
}

func writeConfigs(w io.Writer, list []admin.Config) error {
	t := newTable("KEY", "VALUE", "FROM", "")
	for _, x := range list {
		note := ""
		if x.ReadOnly {
			note = "read-only"
		}
		t.row(x.Name, value(x.Value, x.Sensitive), x.Source, note)
	}
	return t.write(w)
}

// alter changes configuration. A key that the broker does not know gets the nearest name as a hint.
func (a *app) alter(cmd *cobra.Command, t kmsg.ConfigResourceType, name string, set map[string]string, unset []string) error {
	if err := a.client().AlterConfigs(cmd.Context(), t, name, set, unset); err != nil {
		known := keyNames(config.ResourceType(t))
		var keys []string
		for k := range set {
			keys = append(keys, k)
		}
		for _, k := range append(keys, unset...) {
			near := config.Nearest(k, known)
			if near != "" && near != k && !strings.Contains(err.Error(), "did you mean") && config.Find(config.ResourceType(t), k) == nil {
				return fmt.Errorf("%w: did you mean %s?", err, near)
			}
		}
		return err
	}
	var did []string
	for k, v := range set {
		if d := config.Find(config.ResourceType(t), k); d != nil && d.Sensitive() {
			v = "[hidden]"
		}
		did = append(did, k+"="+v)
	}
	sort.Strings(did)
	for _, k := range unset {
		did = append(did, k+" back to its default")
	}
	who := map[kmsg.ConfigResourceType]string{admin.ResourceTopic: "topic", admin.ResourceBroker: "broker", admin.ResourceGroup: "group", admin.ResourceClientMetrics: "client metrics"}[t] + " " + name
	if name == "" {
		who = "all brokers"
	}
	return a.done(map[string]any{"resource": who, "set": set, "unset": unset}, "Changed %s: %s", who, strings.Join(did, ", "))
}

func (a *app) configSet() *cobra.Command {
	return &cobra.Command{
		Use:               "set topic|broker|group NAME KEY=VALUE...",
		Short:             "Set keys; all of them or, on an error, none",
		Example:           "  milena config set topic letters retention.ms=86400000 cleanup.policy=compact,delete",
		Args:              args(3, -1, "topic, broker or group, its name, and key=value"),
		ValidArgsFunction: a.completeResource("="),
		RunE: func(cmd *cobra.Command, got []string) error {
			t, name, err := resource(got)
			if err != nil {
				return err
			}
			m, err := admin.ParsePairs(got[2:])
			if err != nil {
				return usage{err}
			}
			return a.alter(cmd, t, name, m, nil)
		},
	}
}

func (a *app) configUnset() *cobra.Command {
	return &cobra.Command{
		Use:               "unset topic|broker|group NAME KEY...",
		Short:             "Take keys back to their defaults",
		Args:              args(3, -1, "topic, broker or group, its name, and keys"),
		ValidArgsFunction: a.completeResource(""),
		RunE: func(cmd *cobra.Command, got []string) error {
			t, name, err := resource(got)
			if err != nil {
				return err
			}
			return a.alter(cmd, t, name, nil, got[2:])
		},
	}
}

// Key is one row of the table of keys, as config keys prints it.
type Key struct {
	Name    string  `json:"name"`
	Type    string  `json:"type"`
	Default *string `json:"default"`
	Values  string  `json:"values,omitempty"`
	Change  string  `json:"change,omitempty"`
	Status  string  `json:"status"`
	Reason  string  `json:"reason,omitempty"`
	Doc     string  `json:"doc"`
}

func (a *app) configKeys() *cobra.Command {
	return &cobra.Command{
		Use:   "keys topic|broker|group [WORD]",
		Short: "List all keys that exist, with their defaults and what they do; asks no broker",
		Args:  args(1, 2, "topic, broker or group, and perhaps a word the key contains"),
		ValidArgsFunction: cobra.FixedCompletions([]string{"topic", "broker", "group", "client-metrics"},
			cobra.ShellCompDirectiveNoFileComp),
		RunE: func(_ *cobra.Command, got []string) error {
			t, _, err := resource([]string{got[0], ""})
			if err != nil {
				return err
			}
			list := []Key{}
			for _, d := range config.Keys(config.ResourceType(t)) {
				if d.Internal || len(got) == 2 && !strings.Contains(d.Name, got[1]) {
					continue
				}
				k := Key{Name: d.Name, Type: d.Type.String(), Status: d.Status.String(), Reason: d.Reason, Doc: d.Doc}
				if d.HasDefault {
					k.Default = &d.Default
				}
				if d.Check != nil {
					k.Values = d.Check.String()
				}
				if d.Resource == config.ResourceBroker {
					k.Change = change(d)
				}
				list = append(list, k)
			}
			return a.show(list, func(w io.Writer) error {
				t := newTable("KEY", "DEFAULT", "STATUS", "WHAT IT DOES")
				for _, k := range list {
					doc := k.Doc
					if k.Reason != "" {
						doc += " (" + k.Status + ": " + k.Reason + ")"
					}
					t.row(k.Name, value(k.Default, false), k.Status, doc)
				}
				return t.write(w)
			})
		},
	}
}

func completeKeys(t config.ResourceType, after string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		d := cobra.ShellCompDirectiveNoFileComp
		if after != "" {
			d |= cobra.ShellCompDirectiveNoSpace
		}
		var out []string
		for _, n := range keyNames(t) {
			if strings.HasPrefix(n, prefix) {
				out = append(out, n+after)
			}
		}
		return out, d
	}
}

// completeResource completes the kind, then the name, then keys.
func (a *app) completeResource(after string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, got []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(got) == 0 {
			return []string{"topic", "broker", "group"}, cobra.ShellCompDirectiveNoFileComp
		}
		t, ok := kinds[got[0]]
		switch {
		case !ok:
			return nil, cobra.ShellCompDirectiveNoFileComp
		case len(got) > 1:
			return completeKeys(config.ResourceType(t), after)(cmd, got, prefix)
		case t == admin.ResourceTopic:
			return a.completeTopics(false)(cmd, got, prefix)
		case t == admin.ResourceGroup:
			return a.completeGroups(false)(cmd, got, prefix)
		case t == admin.ResourceBroker:
			return []string{"all"}, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// change says when a broker key can be changed.
func change(d *config.Def) string {
	if d.ReadOnly() {
		return config.ReadOnly.String()
	}
	return d.Scope.String()
}
