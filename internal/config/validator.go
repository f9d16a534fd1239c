//lint:file-ignore ST1005 The sentences go to clients as Kafka words them.

package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Validator checks a value that already has the right type. The error completes Kafka's sentence
// "Invalid value V for configuration K: ".
type Validator interface {
	Validate(value string) error
	String() string // as in Kafka's documentation: [1,...], [a, b]
}

type rangeOf struct{ min, max float64 }

// Range accepts numbers from lo to hi, both included; an infinite bound is none.
func Range(lo, hi float64) Validator { return rangeOf{lo, hi} }

func (r rangeOf) Validate(value string) error {
	f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil {
		return fmt.Errorf("Not a number")
	}
	if f < r.min {
		return fmt.Errorf("Value must be at least %s", number(r.min))
	}
	if f > r.max {
		return fmt.Errorf("Value must be no more than %s", number(r.max))
	}
	return nil
}

func (r rangeOf) String() string {
	lo, hi := "...", "..."
	if !math.IsInf(r.min, 0) {
		lo = number(r.min)
	}
	if !math.IsInf(r.max, 0) {
		hi = number(r.max)
	}
	return "[" + lo + "," + hi + "]"
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

type oneOfSet []string

// OneOf accepts the given words only.
func OneOf(values ...string) Validator { return oneOfSet(values) }

func (o oneOfSet) Validate(value string) error {
	for _, v := range o {
		if v == strings.TrimSpace(value) {
			return nil
		}
	}
	return fmt.Errorf("String must be one of: %s", strings.Join(o, ", "))
}

func (o oneOfSet) String() string { return "[" + strings.Join(o, ", ") + "]" }

type listOfSet []string

// ListOf accepts lists of the given words, each at most once.
func ListOf(values ...string) Validator { return listOfSet(values) }

func (o listOfSet) Validate(value string) error {
	parts, _ := parseList(value)
	seen := map[string]bool{}
	for _, p := range parts {
		if err := oneOfSet(o).Validate(p); err != nil {
			return err
		}
		if seen[p] {
			return fmt.Errorf("Configuration values must not be duplicated")
		}
		seen[p] = true
	}
	return nil
}

func (o listOfSet) String() string { return "list of [" + strings.Join(o, ", ") + "]" }

type oneOfFold []string

// OneOfFold is OneOf without regard to case.
func OneOfFold(values ...string) Validator { return oneOfFold(values) }

func (o oneOfFold) Validate(value string) error {
	for _, v := range o {
		if strings.EqualFold(v, strings.TrimSpace(value)) {
			return nil
		}
	}
	return fmt.Errorf("String must be one of (case insensitive): %s", strings.Join(o, ", "))
}

func (o oneOfFold) String() string { return "(case insensitive) [" + strings.Join(o, ", ") + "]" }

// gzipLevel is -1 (the library's own choice) or 1 to 9.
type gzipLevel struct{}

func (gzipLevel) Validate(value string) error {
	if n, err := parseInt(value); err != nil || n != -1 && (n < 1 || n > 9) {
		return fmt.Errorf("Value must be between 1 and 9 or equal to -1")
	}
	return nil
}

func (gzipLevel) String() string { return "[1,...,9] or -1" }

// throttled is the list of partition:broker pairs of the two throttling keys, or the word * alone.
type throttled struct{}

func (throttled) Validate(value string) error {
	parts, _ := parseList(value)
	if len(parts) == 1 && parts[0] == "*" {
		return nil
	}
	for _, p := range parts {
		partition, id, ok := strings.Cut(p, ":")
		if _, err := parseInt(partition); err != nil || !ok {
			return fmt.Errorf("%s is not in the form [partition]:[broker]", p)
		}
		if _, err := parseInt(id); err != nil {
			return fmt.Errorf("%s is not in the form [partition]:[broker]", p)
		}
	}
	return nil
}

func (throttled) String() string { return "[partition]:[broker], ..." }

// offsetReset is where a share group starts.
type offsetReset struct{}

func (offsetReset) Validate(value string) error {
	v := strings.TrimSpace(value)
	if v == "latest" || v == "earliest" {
		return nil
	}
	if d, ok := strings.CutPrefix(v, "by_duration:"); ok && isoDuration(d) {
		return nil
	}
	return fmt.Errorf("must be earliest, latest or by_duration:PnDTnHnMn.nS")
}

func (offsetReset) String() string { return "[latest, earliest, by_duration:PnDTnHnMn.nS]" }

// isoDuration says whether s is a duration of ISO 8601 in days, hours, minutes and seconds, not negative.
func isoDuration(s string) bool {
	s, ok := strings.CutPrefix(s, "P")
	if !ok || s == "" {
		return false
	}
	units, time := "D", false
	for s != "" {
		if s[0] == 'T' && !time {
			time, units, s = true, "HMS", s[1:]
			if s == "" {
				return false
			}
			continue
		}
		i := strings.IndexAny(s, units)
		if i < 1 || strings.Trim(s[:i], "0123456789.") != "" || strings.Count(s[:i], ".") > 1 || s[0] == '.' {
			return false
		}
		if strings.Contains(s[:i], ".") && s[i] != 'S' {
			return false
		}
		units, s = units[strings.IndexByte(units, s[i])+1:], s[i+1:]
	}
	return true
}
