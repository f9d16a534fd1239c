//lint:file-ignore ST1005 The sentences go to clients as Kafka words them.

package config

import (
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
)

// ResourceType is Kafka's code of what a key belongs to (kafka.md 6.4). It has the same values as
// meta.ResourceType, which this package may not import: convert with ResourceType(t).
type ResourceType int8

// The resource types that have configuration keys.
const (
	ResourceTopic         ResourceType = 2
	ResourceBroker        ResourceType = 4
	ResourceClientMetrics ResourceType = 16
	ResourceGroup         ResourceType = 32
)

func (t ResourceType) String() string {
	switch t {
	case ResourceTopic:
		return "topic"
	case ResourceBroker:
		return "broker"
	case ResourceClientMetrics:
		return "client metrics"
	case ResourceGroup:
		return "group"
	}
	return "resource " + strconv.Itoa(int(t))
}

// Type is the type of a value, with the codes that DescribeConfigs answers (KIP-569).
type Type int8

// The types of values.
const (
	Boolean  Type = 1
	String   Type = 2
	Int      Type = 3 // 32 bits
	Short    Type = 4 // 16 bits
	Long     Type = 5 // 64 bits
	Double   Type = 6
	List     Type = 7 // comma separated
	Class    Type = 8 // the name of a Java class
	Password Type = 9 // sensitive: never shown
)

var typeNames = [...]string{Boolean: "boolean", String: "string", Int: "int", Short: "short", Long: "long", Double: "double",
	List: "list", Class: "class", Password: "password"}

func (t Type) String() string {
	if int(t) < len(typeNames) && t > 0 {
		return typeNames[t]
	}
	return "unknown"
}

// Scope says where a broker key may be changed while the broker runs (KIP-226). Keys of the other
// resources are always changed at their own resource.
type Scope int8

// The scopes.
const (
	ReadOnly    Scope = iota // at start only
	PerBroker                // by a broker resource with an id only
	ClusterWide              // by a broker resource with an id or by the cluster-wide default
)

func (s Scope) String() string { return [...]string{"read-only", "per-broker", "cluster-wide"}[s] }

// Status is what setting the key does in this version of Milena.
type Status int8

// The statuses. Inert and Refused carry a reason.
const (
	Live    Status = iota // does what Kafka's documentation says
	Inert                 // accepted and reported, without effect
	Refused               // any value but the default is an error
)

func (s Status) String() string { return [...]string{"live", "inert", "refused"}[s] }

// Synonym is another name under which a value may be given. Factor converts its unit to the unit of the
// key: 3600000 for hours where the key counts milliseconds.
type Synonym struct {
	Name   string
	Factor int64
}

// Def is everything about a key except the Go type of its value.
type Def struct {
	Resource ResourceType
	Name     string
	Type     Type
	Default  string // in the normal form of Format; "" when HasDefault is false
	// HasDefault is false where Kafka's default is null: DescribeConfigs then answers a null value.
	HasDefault bool
	// KafkaDefault is Kafka's default where Milena deliberately has another one, else "".
	KafkaDefault string
	// Synonyms are the names of broker keys that stand in for this one, best first. A topic or group key
	// has its broker-wide default here; a broker key has other units of itself, and itself first.
	Synonyms []Synonym
	Check    Validator // nil accepts every value of the type
	Scope    Scope
	Status   Status
	Reason   string // why it is Inert or Refused
	Doc      string
	AtStart  bool // dynamic in Kafka, but Milena reads it at start only: shown as read-only, a change refused
	Own      bool // a key of Milena that Kafka does not have
	Internal bool // hidden from DescribeConfigs unless set, as in Kafka
}

// ReadOnly says that a broker key cannot be changed while the broker runs.
func (d *Def) ReadOnly() bool {
	return d.Resource == ResourceBroker && (d.Scope == ReadOnly || d.AtStart)
}

// Sensitive says that the value is never shown.
func (d *Def) Sensitive() bool { return d.Type == Password }

// Key is one key with the Go type of its value: bool, int16, int32, int64, float64, string or []string.
type Key[T any] struct {
	*Def
	parse func(string) (T, error)
	def   T
}

// Of reads the effective value: topic or group > this broker, dynamic > all brokers, dynamic > static >
// default (kafka.md 2.1). A value that does not parse counts as absent; Validate keeps such values out. A
// key that is unset and has no default gives the zero value: see Lookup.
func (k *Key[T]) Of(l Layers) T {
	v, _ := k.Lookup(l)
	return v
}

// Lookup is Of, and says whether there is a value at all: false when the key is unset and Kafka's default
// is null.
func (k *Key[T]) Lookup(l Layers) (T, bool) {
	if s, ok := l.effective(k.Def); ok {
		if v, err := k.parse(s); err == nil {
			return v, true
		}
	}
	return k.def, k.HasDefault
}

// Static reads the value the broker was started with.
func (k *Key[T]) Static(s *Static) T { return k.Of(Layers{Static: s}) }

// DefaultValue is the built-in default; the zero value when there is none.
func (k *Key[T]) DefaultValue() T { return k.def }

type tableID struct {
	resource ResourceType
	name     string
}

// The table. Filled by the variables of keys_*.go before main starts; read only from then on.
var (
	byID = map[tableID]*Def{}
	all  []*Def
)

// Find returns the key of a resource, or nil.
func Find(t ResourceType, name string) *Def { return byID[tableID{t, name}] }

// Keys returns all keys of a resource in order of their names.
func Keys(t ResourceType) []*Def {
	var out []*Def
	for _, d := range all {
		if d.Resource == t {
			out = append(out, d)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

const null = "\x00" // as a default: there is none

// newKey adds a key to the table. Rows that contradict themselves are found by the tests of the package,
// so that no code here can fail before main.
func newKey[T any](r ResourceType, name, def, doc string, opts []option) *Key[T] {
	d := &Def{Resource: r, Name: name, Doc: doc, HasDefault: def != null}
	k := &Key[T]{Def: d}
	switch p := any(&k.parse).(type) {
	case *func(string) (bool, error):
		d.Type, *p = Boolean, parseBool
	case *func(string) (int16, error):
		d.Type, *p = Short, parseShort
	case *func(string) (int32, error):
		d.Type, *p = Int, parseInt
	case *func(string) (int64, error):
		d.Type, *p = Long, parseLong
	case *func(string) (float64, error):
		d.Type, *p = Double, parseDouble
	case *func(string) (string, error):
		d.Type, *p = String, parseString
	case *func(string) ([]string, error):
		d.Type, *p = List, parseList
	}
	if d.HasDefault {
		d.Default = def
		k.def, _ = k.parse(def)
	}
	for _, o := range opts {
		o(d)
	}
	byID[tableID{r, name}] = d
	all = append(all, d)
	return k
}

func topic[T any](name, def, doc string, opts ...option) *Key[T] {
	return newKey[T](ResourceTopic, name, def, doc, opts)
}

func broker[T any](name, def, doc string, opts ...option) *Key[T] {
	return newKey[T](ResourceBroker, name, def, doc, opts)
}

func groupKey[T any](name, def, doc string, opts ...option) *Key[T] {
	return newKey[T](ResourceGroup, name, def, doc, opts)
}

func clientMetrics[T any](name, def, doc string, opts ...option) *Key[T] {
	return newKey[T](ResourceClientMetrics, name, def, doc, opts)
}

type option func(*Def)

func twin(name string) option { return scaled(name, 1) }

func scaled(name string, factor int64) option {
	return func(d *Def) { d.Synonyms = append(d.Synonyms, Synonym{name, factor}) }
}
func inert(why string) option        { return func(d *Def) { d.Status, d.Reason = Inert, why } }
func refused(why string) option      { return func(d *Def) { d.Status, d.Reason = Refused, why } }
func kafkaHas(v string) option       { return func(d *Def) { d.KafkaDefault = v } }
func check(v Validator) option       { return func(d *Def) { d.Check = v } }
func atLeast(min float64) option     { return check(Range(min, math.Inf(1))) }
func within(lo, hi float64) option   { return check(Range(lo, hi)) }
func oneOf(values ...string) option  { return check(OneOf(values...)) }
func listOf(values ...string) option { return check(ListOf(values...)) }

func class(d *Def)       { d.Type = Class }
func password(d *Def)    { d.Type = Password }
func perBroker(d *Def)   { d.Scope = PerBroker }
func clusterWide(d *Def) { d.Scope = ClusterWide }
func internal(d *Def)    { d.Internal = true }
func own(d *Def)         { d.Own = true }
func atStart(d *Def)     { d.AtStart = true }

func parseBool(s string) (bool, error) {
	switch s = strings.TrimSpace(s); {
	case strings.EqualFold(s, "true"):
		return true, nil
	case strings.EqualFold(s, "false"):
		return false, nil
	}
	return false, fmt.Errorf("Expected value to be either true or false")
}

func parseShort(s string) (int16, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 16)
	if err != nil {
		return 0, fmt.Errorf("Not a number of type SHORT")
	}
	return int16(n), nil
}

func parseInt(s string) (int32, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("Not a number of type INT")
	}
	return int32(n), nil
}

func parseLong(s string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("Not a number of type LONG")
	}
	return n, nil
}

func parseDouble(s string) (float64, error) {
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, fmt.Errorf("Not a number of type DOUBLE")
	}
	return f, nil
}

func parseString(s string) (string, error) { return strings.TrimSpace(s), nil }

// parseList splits at commas and trims blanks; an empty text is the empty list, as in Kafka.
func parseList(s string) ([]string, error) {
	if s = strings.TrimSpace(s); s == "" {
		return nil, nil
	}
	parts := strings.Split(s, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts, nil
}
