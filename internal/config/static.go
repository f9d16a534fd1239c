package config

import (
	"fmt"
	"io"
	"sort"
	"strings"
)

// Static is what the broker was started with. It does not change after Parse; nil is a broker without any
// setting.
type Static struct {
	values map[string]string
	origin map[string]string // for error messages: --set, a line of the file, an environment variable
}

// Get returns a value given at start under exactly this name.
func (s *Static) Get(name string) (string, bool) {
	if s == nil {
		return "", false
	}
	v, ok := s.values[name]
	return v, ok
}

// Names lists what was set, in order.
func (s *Static) Names() []string {
	var out []string
	if s != nil {
		for n := range s.values {
			out = append(out, n)
		}
	}
	sort.Strings(out)
	return out
}

// StaticOf makes a Static from values that are known to be good, for tests and embedding.
func StaticOf(values map[string]string) *Static {
	s := &Static{values: map[string]string{}, origin: map[string]string{}}
	for k, v := range values {
		s.put(k, v, "given")
	}
	s.nodeID()
	return s
}

func (s *Static) put(name, value, origin string) { s.values[name], s.origin[name] = value, origin }

// nodeID makes broker.id, the older name, stand in for node.id as in Kafka.
func (s *Static) nodeID() {
	if _, ok := s.values[NodeID.Name]; ok {
		return
	}
	if v, ok := s.values["broker.id"]; ok {
		s.put(NodeID.Name, v, s.origin["broker.id"])
	}
}

// EnvPrefix begins the environment variables that set keys: MILENA_LOG_RETENTION_MS is log.retention.ms.
const EnvPrefix = "MILENA_"

// Parse merges the sources of start-up: args are key=value (from --set and the flags of serve), then
// environment variables NAME=value, then a file in Java's properties format (nil: none); an earlier source
// wins. The first unknown key or bad value is the error: one line that names the key, the value, where it
// stands and the nearest known name.
func Parse(args []string, file io.Reader, env []string) (*Static, error) {
	s := &Static{values: map[string]string{}, origin: map[string]string{}}
	if file != nil {
		list, err := readProperties(file)
		if err != nil {
			return nil, fmt.Errorf("config file: %w", err)
		}
		for _, p := range list {
			if err := s.accept(p.key, p.value, fmt.Sprintf("config file, line %d", p.line)); err != nil {
				return nil, err
			}
		}
	}
	if err := s.environment(env); err != nil {
		return nil, err
	}
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if !ok {
			return nil, fmt.Errorf("--set %s: want key=value", a)
		}
		if err := s.accept(strings.TrimSpace(k), v, "--set"); err != nil {
			return nil, err
		}
	}
	s.nodeID()
	return s, s.cross()
}

func (s *Static) accept(name, value, origin string) error {
	d := Find(ResourceBroker, name)
	if d == nil {
		return fmt.Errorf("unknown key %s = %q (%s): %s", name, shown(name, value), origin, whyUnknown(name))
	}
	if err := d.Validate(value); err != nil {
		return fmt.Errorf("%w (%s)", err, origin)
	}
	s.put(name, d.Format(value), origin)
	return nil
}

// shown hides what is likely a secret: the name is unknown, so its type is too.
func shown(name, value string) string {
	for _, word := range []string{"password", "passphrase", "secret", "jaas", "keystore.key"} {
		if strings.Contains(name, word) {
			return "[hidden]"
		}
	}
	return short(value)
}

// short keeps an error on one readable line.
func short(v string) string {
	if len(v) > 80 {
		return v[:80] + "..."
	}
	return v
}

// removed are names of older Kafkas that people still have in their files.
var removed = map[string]string{
	"inter.broker.protocol.version":              "removed in Kafka 4.0",
	"log.message.format.version":                 "removed in Kafka 4.0",
	"log.message.downconversion.enable":          "removed in Kafka 4.0",
	"log.message.timestamp.difference.max.ms":    "removed in Kafka 4.0: use log.message.timestamp.before.max.ms and log.message.timestamp.after.max.ms",
	"delegation.token.master.key":                "removed in Kafka 4.0: it is delegation.token.secret.key",
	"control.plane.listener.name":                "removed in Kafka 4.0",
	"broker.id.generation.enable":                "removed in Kafka 4.0: set node.id",
	"reserved.broker.max.id":                     "removed in Kafka 4.0",
	"offsets.commit.required.acks":               "removed in Kafka 4.0",
	"auto.include.jmx.reporter":                  "removed in Kafka 4.0",
	"leader.imbalance.per.broker.percentage":     "removed in Kafka 4.0",
	"group.coordinator.new.enable":               "removed in Kafka 4.0",
	"transactional.id.expiration.check.interval": "not a key of Kafka: it is transaction.remove.expired.transaction.cleanup.interval.ms",
}

func whyUnknown(name string) string {
	if why, ok := removed[name]; ok {
		return why
	}
	if strings.HasPrefix(name, "zookeeper.") || strings.HasPrefix(name, "password.encoder.") {
		return "removed in Kafka 4.0, and Milena needs no ZooKeeper"
	}
	if d := Find(ResourceTopic, name); d != nil && len(d.Synonyms) > 0 {
		return "it is a key of topics; for all topics of the broker set " + d.Synonyms[0].Name
	}
	if Find(ResourceTopic, name) != nil {
		return "it is a key of topics: set it on a topic"
	}
	if strings.HasPrefix(name, "listener.name.") {
		return "settings of a single listener are not supported: " + whySec
	}
	if strings.HasPrefix(name, "rsm.config.") || strings.HasPrefix(name, "rlmm.config.") {
		return whyTier
	}
	if hint := nearest(ResourceBroker, name); hint != "" {
		return "did you mean " + hint + "?"
	}
	return "docs/config.md lists all keys"
}

// Variables with the prefix that are not keys: of the command line, of tests, and those that Kubernetes
// puts into every container of a namespace that has a service called milena.
var notKeys = []string{"BOOTSTRAP", "CONFIG", "OUTPUT", "TEST_*", "SOAK*", "BENCH*", "CACHE", "PORT", "PORT_*", "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_*"}

func notKey(name string) bool {
	for _, p := range notKeys {
		if prefix, ok := strings.CutSuffix(p, "*"); name == p || ok && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// EnvName is the environment variable that sets a broker key.
func EnvName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

func (s *Static) environment(env []string) error {
	keys := map[string]string{}
	var names []string
	for _, d := range Keys(ResourceBroker) {
		n := EnvName(d.Name)
		keys[n] = d.Name
		names = append(names, n)
	}
	for _, e := range env {
		n, v, _ := strings.Cut(e, "=")
		short, ok := strings.CutPrefix(n, EnvPrefix)
		if !ok {
			continue
		}
		key, known := keys[n]
		switch {
		case known:
			if err := s.accept(key, v, n); err != nil {
				return err
			}
		case !notKey(short):
			why := "no key has this name"
			if hint := Nearest(n, names); hint != "" {
				why = "did you mean " + hint + "?"
			}
			return fmt.Errorf("unknown environment variable %s = %q: %s", n, v, why)
		}
	}
	return nil
}

// cross checks values against each other at start.
func (s *Static) cross() error {
	l := Layers{Static: s}
	if err := crossTopic(l); err != nil {
		return err
	}
	if lo, hi := GroupMinSessionTimeoutMs.Of(l), GroupMaxSessionTimeoutMs.Of(l); lo > hi {
		return fmt.Errorf("%s = %d is above %s = %d", GroupMinSessionTimeoutMs.Name, lo, GroupMaxSessionTimeoutMs.Name, hi)
	}
	if len(DataDirs(l)) == 0 {
		return fmt.Errorf("%s: no directory is named", LogDirs.Name)
	}
	listeners, err := ParseListeners(l)
	if err != nil {
		return err
	}
	_, err = ParseAdvertised(l, listeners)
	return err
}

// DataDirs are the data directories: log.dirs, or log.dir where that is not set.
func DataDirs(l Layers) []string {
	dirs, ok := LogDirs.Lookup(l)
	if !ok {
		dirs = LogDir.Of(l)
	}
	var out []string
	for _, d := range dirs {
		if d != "" {
			out = append(out, d)
		}
	}
	return out
}
