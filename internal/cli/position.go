package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/milena-mq/milena/internal/admin"
)

const positionHelp = `A POSITION is one of
  start          the first record there is
  end            after the last record
  OFFSET         an offset; outside the log it means its nearer end
  @TIME          the first record at or after a time: @2026-01-31, @2026-01-31T12:00:00Z, @1769860800000 (ms),
                 or so long ago: @-1h30m`

// parsePosition reads a position. With shift, +N and -N move from where a group is; otherwise -N is N
// records before the end.
func parsePosition(s string, shift bool) (admin.Position, error) {
	switch {
	case s == "start" || s == "earliest" || s == "beginning":
		return admin.Position{Kind: admin.AtStart}, nil
	case s == "end" || s == "latest":
		return admin.Position{Kind: admin.AtEnd}, nil
	case strings.HasPrefix(s, "@"):
		ms, err := parseTime(s[1:], time.Now())
		return admin.Position{Kind: admin.AtTime, Value: ms}, err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return admin.Position{}, fmt.Errorf("%q: want start, end, an offset or @TIME", s)
	}
	switch {
	case shift && (s[0] == '+' || s[0] == '-'):
		return admin.Position{Kind: admin.ShiftBy, Value: n}, nil
	case n < 0:
		return admin.Position{Kind: admin.BeforeEnd, Value: -n}, nil
	}
	return admin.Position{Kind: admin.AtOffset, Value: n}, nil
}

var timeForms = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02"}

// parseTime reads a time as milliseconds since 1970; a time without zone is local.
func parseTime(s string, now time.Time) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return n, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d <= 0 {
		return now.Add(d).UnixMilli(), nil
	}
	for _, f := range timeForms {
		if t, err := time.ParseInLocation(f, s, time.Local); err == nil {
			return t.UnixMilli(), nil
		}
	}
	return 0, fmt.Errorf("time %q: want 2026-01-31, 2026-01-31T12:00:00Z, milliseconds or -1h30m", s)
}
