package config

import "strconv"

// Layers is where a value may come from, best first: Topic or Group, DynamicBroker, DynamicDefault,
// Static, built-in default. Maps may be nil; they are only read.
type Layers struct {
	Static         *Static           // what the broker was started with
	DynamicDefault map[string]string // the broker resource with the empty name
	DynamicBroker  map[string]string // the resource of this broker
	Topic          map[string]string // overrides of one topic
	Group          map[string]string // overrides of one group
	ClientMetrics  map[string]string // one client metrics subscription
}

// own returns the overrides of the resource itself; nil for brokers.
func (l Layers) own(t ResourceType) map[string]string {
	switch t {
	case ResourceTopic:
		return l.Topic
	case ResourceGroup:
		return l.Group
	case ResourceClientMetrics:
		return l.ClientMetrics
	}
	return nil
}

// broker looks a broker key up by one exact name, without defaults.
func (l Layers) broker(name string) (string, bool) {
	if v, ok := l.DynamicBroker[name]; ok {
		return v, true
	}
	if v, ok := l.DynamicDefault[name]; ok {
		return v, true
	}
	return l.Static.Get(name)
}

// effective finds the value above the built-in default of d, converted to the unit of d. Names are tried
// in the order of the synonyms and each name in all layers, because Kafka merges the layers by name first
// and then prefers log.retention.ms to log.retention.hours.
func (l Layers) effective(d *Def) (string, bool) {
	if v, ok := l.own(d.Resource)[d.Name]; ok {
		return v, true
	}
	if len(d.Synonyms) == 0 {
		if d.Resource != ResourceBroker {
			return "", false
		}
		return l.broker(d.Name)
	}
	for _, s := range d.Synonyms {
		if v, ok := l.broker(s.Name); ok {
			if v, ok = convert(v, s.Factor); ok {
				return v, true
			}
		}
	}
	return "", false
}

// convert multiplies a time in another unit; below zero means without limit and stays -1.
func convert(v string, factor int64) (string, bool) {
	if factor == 1 {
		return v, true
	}
	n, err := parseLong(v)
	if err != nil {
		return "", false
	}
	if n < 0 {
		return "-1", true
	}
	return strconv.FormatInt(n*factor, 10), true
}
