package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/milena-mq/milena/internal/admin"
)

const formatHelp = `The FORMAT of a line may contain
  %t topic   %p partition   %o offset   %k key   %v value   %h headers (name=value, separated by commas)
  %d time (2026-01-31T12:00:00.000Z)    %T time in ms   %K length of the key   %V length of the value
  %% percent, and \n \t \r \0 \\ as usual. A null key or value is printed as nothing.`

// piece writes one part of a line.
type piece func(b []byte, r *admin.Record) []byte

// compileFormat turns a format into pieces once, so that printing a record only appends.
func compileFormat(f string) ([]piece, error) {
	var out []piece
	var text []byte
	flush := func() {
		if len(text) > 0 {
			lit := text
			out = append(out, func(b []byte, _ *admin.Record) []byte { return append(b, lit...) })
			text = nil
		}
	}
	for i := 0; i < len(f); i++ {
		if (f[i] != '%' && f[i] != '\\') || i+1 == len(f) {
			text = append(text, f[i])
			continue
		}
		i++
		if f[i-1] == '\\' {
			c, ok := map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', '0': 0, '\\': '\\'}[f[i]]
			if !ok {
				return nil, fmt.Errorf(`\%c: want \n, \t, \r, \0 or \\`, f[i])
			}
			text = append(text, c)
			continue
		}
		if f[i] == '%' {
			text = append(text, '%')
			continue
		}
		p, ok := verbs[f[i]]
		if !ok {
			return nil, fmt.Errorf("%%%c: want one of %%t %%p %%o %%k %%v %%h %%d %%T %%K %%V", f[i])
		}
		flush()
		out = append(out, p)
	}
	flush()
	return out, nil
}

var verbs = map[byte]piece{
	't': func(b []byte, r *admin.Record) []byte { return append(b, r.Topic...) },
	'p': func(b []byte, r *admin.Record) []byte { return strconv.AppendInt(b, int64(r.Partition), 10) },
	'o': func(b []byte, r *admin.Record) []byte { return strconv.AppendInt(b, r.Offset, 10) },
	'k': func(b []byte, r *admin.Record) []byte { return append(b, r.Key...) },
	'v': func(b []byte, r *admin.Record) []byte { return append(b, r.Value...) },
	'T': func(b []byte, r *admin.Record) []byte { return strconv.AppendInt(b, r.Timestamp.UnixMilli(), 10) },
	'd': func(b []byte, r *admin.Record) []byte { return r.Timestamp.UTC().AppendFormat(b, timeForm) },
	'K': func(b []byte, r *admin.Record) []byte { return strconv.AppendInt(b, length(r.Key), 10) },
	'V': func(b []byte, r *admin.Record) []byte { return strconv.AppendInt(b, length(r.Value), 10) },
	'h': func(b []byte, r *admin.Record) []byte {
		for i, h := range r.Headers {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(append(b, h.Key...), '='), h.Value...)
		}
		return b
	},
}

const timeForm = "2006-01-02T15:04:05.000Z"

// length is -1 for null.
func length(p []byte) int64 {
	if p == nil {
		return -1
	}
	return int64(len(p))
}

// record is how -o json prints one record, on one line.
type record struct {
	Topic     string   `json:"topic"`
	Partition int32    `json:"partition"`
	Offset    int64    `json:"offset"`
	Time      string   `json:"time"`
	Key       *text    `json:"key"`
	Value     *text    `json:"value"`
	Headers   []header `json:"headers,omitempty"`
}

type header struct {
	Name  string `json:"name"`
	Value *text  `json:"value"`
}

// text is bytes: a JSON string where they are UTF-8, else {"base64": ...}, so that nothing is lost.
type text []byte

func (t text) MarshalJSON() ([]byte, error) {
	if utf8.Valid(t) {
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		err := e.Encode(string(t))
		return []byte(strings.TrimSuffix(b.String(), "\n")), err
	}
	return json.Marshal(map[string]string{"base64": base64.StdEncoding.EncodeToString(t)})
}

func textOf(p []byte) *text {
	if p == nil {
		return nil
	}
	t := text(p)
	return &t
}

func recordJSON(b []byte, r *admin.Record) ([]byte, error) {
	x := record{r.Topic, r.Partition, r.Offset, r.Timestamp.UTC().Format(timeForm), textOf(r.Key), textOf(r.Value), nil}
	for _, h := range r.Headers {
		x.Headers = append(x.Headers, header{h.Key, textOf(h.Value)})
	}
	var s strings.Builder
	e := json.NewEncoder(&s)
	e.SetEscapeHTML(false)
	err := e.Encode(x)
	return append(b, s.String()...), err
}

// unescape reads \t, \n, \0 and \\ in a separator typed on the command line.
func unescape(s string) string {
	return strings.NewReplacer(`\t`, "\t", `\n`, "\n", `\0`, "\x00", `\\`, `\`).Replace(s)
}

func since(start time.Time) float64 { return max(time.Since(start).Seconds(), 1e-3) }
