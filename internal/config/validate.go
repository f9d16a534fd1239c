package config

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
)

func formatLong(n int64) string { return strconv.FormatInt(n, 10) }

// Error is a value or key that is not accepted: INVALID_CONFIG on the wire, with this text.
type Error struct {
	Key, Value string
	Why        string
}

func (e *Error) Error() string { return e.Why }

func invalid(name, value, format string, args ...any) *Error {
	return &Error{name, value, fmt.Sprintf(format, args...)}
}

// Validate checks one key and its value, with Kafka's sentences. The error is an *Error.
func Validate(t ResourceType, name, value string) error {
	d := Find(t, name)
	if d == nil {
		return unknown(t, name, value)
	}
	return d.Validate(value)
}

func unknown(t ResourceType, name, value string) *Error {
	why := fmt.Sprintf("Unknown %s config name: %s", t, name)
	if hint := nearest(t, name); hint != "" {
		why += " (did you mean " + hint + "?)"
	}
	return &Error{name, value, why}
}

// Validate checks a value of the key: type, range, and whether Milena refuses it.
func (d *Def) Validate(value string) error {
	shown := value
	if d.Sensitive() {
		shown = "[hidden]"
	}
	if err := d.parses(value); err != nil {
		return invalid(d.Name, shown, "Invalid value %s for configuration %s: %s", shown, d.Name, err)
	}
	if d.Check != nil {
		if err := d.Check.Validate(value); err != nil {
			return invalid(d.Name, shown, "Invalid value %s for configuration %s: %s", shown, d.Name, err)
		}
	}
	if d.Status == Refused && d.Format(value) != d.Default {
		return invalid(d.Name, shown, "Invalid value %s for configuration %s: not supported: %s", shown, d.Name, d.Reason)
	}
	return nil
}

func (d *Def) parses(value string) error {
	var err error
	switch d.Type {
	case Boolean:
		_, err = parseBool(value)
	case Int:
		_, err = parseInt(value)
	case Short:
		_, err = parseShort(value)
	case Long:
		_, err = parseLong(value)
	case Double:
		_, err = parseDouble(value)
	}
	return err
}

// ValidateSet checks all overrides that a topic, group or client metrics resource will have, one by one
// and against each other (kafka.md 2.1). l gives the layers below; its own layer of t is ignored.
func ValidateSet(t ResourceType, values map[string]string, l Layers) error {
	if err := validateEach(t, values); err != nil {
		return err
	}
	switch t {
	case ResourceTopic:
		l.Topic = values
		return crossTopic(l)
	case ResourceGroup:
		l.Group = values
		return crossGroup(values, l)
	}
	return nil
}

// validateEach goes in order of names, so that of several errors always the same one is told.
func validateEach(t ResourceType, values map[string]string) error {
	names := make([]string, 0, len(values))
	for n := range values {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		if err := Validate(t, n, values[n]); err != nil {
			return err
		}
	}
	return nil
}

func crossTopic(l Layers) error {
	lo, hi := MinCompactionLagMs.Of(l), MaxCompactionLagMs.Of(l)
	if lo > hi {
		return invalid(MinCompactionLagMs.Name, formatLong(lo), "conflict topic config setting %s (%d) > %s (%d)",
			MinCompactionLagMs.Name, lo, MaxCompactionLagMs.Name, hi)
	}
	if v, max := localRetentionMs.Of(l), RetentionMs.Of(l); max != -1 && v != -2 && (v == -1 || v > max) {
		return invalid(localRetentionMs.Name, formatLong(v), "Invalid value %d for configuration %s: Value must not be more than %s property value: %d",
			v, localRetentionMs.Name, RetentionMs.Name, max)
	}
	if v, max := localRetentionBytes.Of(l), RetentionBytes.Of(l); max != -1 && v != -2 && (v == -1 || v > max) {
		return invalid(localRetentionBytes.Name, formatLong(v), "Invalid value %d for configuration %s: Value must not be more than %s property value: %d",
			v, localRetentionBytes.Name, RetentionBytes.Name, max)
	}
	return nil
}

// crossGroup keeps a group's values between the broker's bounds, and heartbeats below session timeouts.
func crossGroup(values map[string]string, l Layers) error {
	for name, value := range values {
		kind, rest, _ := strings.Cut(name, ".")
		lo, hi := Find(ResourceBroker, "group."+kind+".min."+rest), Find(ResourceBroker, "group."+kind+".max."+rest)
		if name == "streams.num.standby.replicas" {
			hi = Find(ResourceBroker, "group.streams.max.standby.replicas")
		}
		v, err := parseLong(value)
		if err != nil {
			continue // not a number, and checked before
		}
		if lo != nil && v < l.number(lo) {
			return invalid(name, value, "%s must be greater than or equal to %s", name, lo.Name)
		}
		if hi != nil && v > l.number(hi) {
			return invalid(name, value, "%s must be less than or equal to %s", name, hi.Name)
		}
	}
	for _, kind := range []string{"consumer", "share", "streams"} {
		beat, session := Find(ResourceGroup, kind+".heartbeat.interval.ms"), Find(ResourceGroup, kind+".session.timeout.ms")
		if l.number(session) <= l.number(beat) {
			return invalid(session.Name, formatLong(l.number(session)), "%s must be greater than %s", session.Name, beat.Name)
		}
	}
	return nil
}

// number is the effective value of a key that counts something.
func (l Layers) number(d *Def) int64 {
	v, ok := l.effective(d)
	if !ok {
		v = d.Default
	}
	n, _ := parseLong(v)
	return n
}

// ValidateBroker checks all dynamic values that a broker resource will have; name is the broker's id, or
// empty for the default of all brokers. Read-only keys and, for the default, per-broker keys are refused.
func ValidateBroker(name string, values map[string]string, l Layers) error {
	if err := validateEach(ResourceBroker, values); err != nil {
		return err
	}
	var fixed, single []string
	for n := range values {
		switch d := Find(ResourceBroker, n); {
		case d.ReadOnly():
			fixed = append(fixed, n)
		case d.Scope == PerBroker:
			single = append(single, n)
		}
	}
	sort.Strings(fixed)
	sort.Strings(single)
	if len(fixed) > 0 {
		return invalid(fixed[0], values[fixed[0]], "Cannot update these configs dynamically: [%s]", strings.Join(fixed, ", "))
	}
	if name == "" && len(single) > 0 {
		return invalid(single[0], values[single[0]], "Cannot update these configs at default cluster level, per-broker configs must be specified: [%s]", strings.Join(single, ", "))
	}
	if name == "" {
		l.DynamicDefault = values
	} else {
		l.DynamicBroker = values
	}
	l.Topic = nil
	return crossTopic(l)
}

// AppendTo and SubtractFrom are the list operations of IncrementalAlterConfigs (KIP-339) on the current
// value of a List key; set says whether there is one, otherwise they start from the default.
func (d *Def) AppendTo(current string, set bool, value string) string {
	list := d.list(current, set)
	for _, v := range split(value) {
		if !has(list, v) {
			list = append(list, v)
		}
	}
	return strings.Join(list, ",")
}

// SubtractFrom takes the items of value out of the current list.
func (d *Def) SubtractFrom(current string, set bool, value string) string {
	var kept []string
	drop := split(value)
	for _, v := range d.list(current, set) {
		if !has(drop, v) {
			kept = append(kept, v)
		}
	}
	return strings.Join(kept, ",")
}

func (d *Def) list(current string, set bool) []string {
	if !set {
		current = d.Default
	}
	return split(current)
}

func split(s string) []string { p, _ := parseList(s); return p }

func has(list []string, v string) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}
