package config

import "strings"

// Source says where a value comes from, with the codes of DescribeConfigs (KIP-226).
type Source int8

// The sources.
const (
	SourceTopic          Source = 1
	SourceDynamicBroker  Source = 2
	SourceDynamicDefault Source = 3
	SourceStatic         Source = 4
	SourceDefault        Source = 5
	SourceClientMetrics  Source = 7
	SourceGroup          Source = 8
)

// Setting is one place where a value is set: a synonym in the answer of DescribeConfigs.
type Setting struct {
	Name   string
	Value  *string // nil: sensitive
	Source Source
}

// Entry is one key as DescribeConfigs answers it.
type Entry struct {
	Def      *Def
	Name     string
	Value    *string // nil: sensitive, or unset without default
	Source   Source
	ReadOnly bool
	Synonyms []Setting // the place that decides first
}

// Describe lists every key of a resource in order of names, with effective values, sources and synonyms in
// Kafka's order: the resource itself, this broker, all brokers, static, default. Keys that are hidden in
// Kafka appear only when they are set.
func Describe(t ResourceType, l Layers) []Entry {
	keys := Keys(t)
	out := make([]Entry, 0, len(keys))
	for _, d := range keys {
		if d.Internal {
			if _, set := l.effective(d); !set {
				continue
			}
		}
		out = append(out, describe(d, l))
	}
	return out
}

// DescribeKey is Describe for one key; false when there is no such key.
func DescribeKey(t ResourceType, name string, l Layers) (Entry, bool) {
	d := Find(t, name)
	if d == nil {
		return Entry{}, false
	}
	return describe(d, l), true
}

// DescribeDefaults lists what is set for all brokers: the broker resource with the empty name.
func DescribeDefaults(l Layers) []Entry {
	var out []Entry
	for _, d := range Keys(ResourceBroker) {
		v, ok := l.DynamicDefault[d.Name]
		if !ok {
			continue
		}
		e := Entry{Def: d, Name: d.Name, Source: SourceDynamicDefault, ReadOnly: d.ReadOnly()}
		if !d.Sensitive() {
			v = d.Format(v)
			e.Value = &v
		}
		e.Synonyms = []Setting{{d.Name, e.Value, SourceDynamicDefault}}
		out = append(out, e)
	}
	return out
}

func describe(d *Def, l Layers) Entry {
	e := Entry{Def: d, Name: d.Name, Source: SourceDefault, ReadOnly: d.ReadOnly()}
	v, ok := l.effective(d)
	if !ok {
		v, ok = d.Default, d.HasDefault
	}
	if ok && !d.Sensitive() {
		v = d.Format(v)
		e.Value = &v
	}
	if _, ok := l.own(d.Resource)[d.Name]; ok {
		e.Synonyms = append(e.Synonyms, Setting{d.Name, e.Value, ownSource(d.Resource)})
	}
	switch {
	case d.Resource == ResourceBroker:
		e.Synonyms = append(e.Synonyms, brokerSettings(d.Name, d.Sensitive(), l)...)
	case len(d.Synonyms) > 0:
		e.Synonyms = append(e.Synonyms, brokerSettings(d.Synonyms[0].Name, d.Sensitive(), l)...)
	}
	if len(e.Synonyms) > 0 {
		e.Source = e.Synonyms[0].Source
	}
	return e
}

func ownSource(t ResourceType) Source {
	switch t {
	case ResourceTopic:
		return SourceTopic
	case ResourceGroup:
		return SourceGroup
	}
	return SourceClientMetrics
}

// families are broker keys that say the same in several units, best first.
var families = [][]string{
	{"log.retention.ms", "log.retention.minutes", "log.retention.hours"},
	{"log.roll.ms", "log.roll.hours"},
	{"log.roll.jitter.ms", "log.roll.jitter.hours"},
	{"log.flush.interval.ms", "log.flush.scheduler.interval.ms"},
}

func family(name string) []string {
	for _, f := range families {
		for _, n := range f {
			if n == name {
				return f
			}
		}
	}
	return []string{name}
}

// brokerSettings lists where a broker key and its other units are set. Everything before the first
// mention of the name itself is dropped: Kafka does it to hide listener overrides, and in effect a
// retention that is set in hours only is shown without a source. Tools compare with that.
func brokerSettings(name string, sensitive bool, l Layers) []Setting {
	var out []Setting
	names := family(name)
	add := func(src Source, get func(string) (string, bool)) {
		for _, n := range names {
			if v, ok := get(n); ok {
				s := Setting{Name: n, Source: src}
				if !sensitive {
					s.Value = &v
				}
				out = append(out, s)
			}
		}
	}
	from := func(m map[string]string) func(string) (string, bool) {
		return func(n string) (string, bool) { v, ok := m[n]; return v, ok }
	}
	add(SourceDynamicBroker, from(l.DynamicBroker))
	add(SourceDynamicDefault, from(l.DynamicDefault))
	add(SourceStatic, l.Static.Get)
	add(SourceDefault, func(n string) (string, bool) {
		if d := Find(ResourceBroker, n); d != nil && d.HasDefault {
			return d.Default, true
		}
		return "", false
	})
	for i := range out {
		if out[i].Name == name {
			return out[i:]
		}
	}
	return nil
}

// Format writes a value in its normal form: numbers without blanks or leading zeros, lists without
// blanks. A value of the wrong type stays as it is.
func (d *Def) Format(v string) string {
	switch d.Type {
	case Boolean:
		return strings.ToLower(strings.TrimSpace(v))
	case Int, Short, Long:
		if n, err := parseLong(v); err == nil {
			return formatLong(n)
		}
	case List:
		p, _ := parseList(v)
		return strings.Join(p, ",")
	case String, Class:
		return strings.TrimSpace(v)
	}
	return v
}
