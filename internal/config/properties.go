package config

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
)

// maxPropertiesBytes bounds a configuration file: a wrong path such as a log segment must not fill memory.
const maxPropertiesBytes = 1 << 20

// property is one entry of a file. Line counts from 1 and is where the entry begins.
type property struct {
	key, value string
	line       int
}

// ReadProperties reads Java's properties format as Kafka's servers do: # and ! begin comments, an odd
// number of backslashes at the end continues a line, key and value are divided by =, : or blanks, and
// \t \n \r \f \uXXXX are escapes; a backslash before any other letter is dropped. The text is UTF-8. Of
// two entries with one key the later one counts. At most 1 MiB.
func ReadProperties(r io.Reader) (map[string]string, error) {
	list, err := readProperties(r)
	if err != nil {
		return nil, err
	}
	m := make(map[string]string, len(list))
	for _, p := range list {
		m[p.key] = p.value
	}
	return m, nil
}

func readProperties(r io.Reader) ([]property, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxPropertiesBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read properties: %w", err)
	}
	if len(text) > maxPropertiesBytes {
		return nil, fmt.Errorf("read properties: larger than %d bytes", maxPropertiesBytes)
	}
	var out []property
	lines := &lineReader{rest: string(text)}
	for {
		line, number, ok := lines.logical()
		if !ok {
			return out, nil
		}
		k, v := cutProperty(line)
		p := property{line: number}
		if p.key, err = unescape(k); err == nil {
			p.value, err = unescape(v)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		out = append(out, p)
	}
}

type lineReader struct {
	rest   string
	number int
}

func (l *lineReader) next() (string, bool) {
	if l.rest == "" {
		return "", false
	}
	l.number++
	i := strings.IndexAny(l.rest, "\r\n")
	if i < 0 {
		line := l.rest
		l.rest = ""
		return line, true
	}
	line := l.rest[:i]
	if strings.HasPrefix(l.rest[i:], "\r\n") {
		i++
	}
	l.rest = l.rest[i+1:]
	return line, true
}

const propertyBlanks = " \t\f"

// logical joins continued lines and leaves out comments and empty lines. A comment is never continued.
func (l *lineReader) logical() (string, int, bool) {
	for {
		line, ok := l.next()
		if !ok {
			return "", 0, false
		}
		line = strings.TrimLeft(line, propertyBlanks)
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		start := l.number
		var b strings.Builder
		for continued(line) {
			b.WriteString(line[:len(line)-1])
			if line, ok = l.next(); !ok {
				line = ""
			}
			line = strings.TrimLeft(line, propertyBlanks)
		}
		b.WriteString(line)
		return b.String(), start, true
	}
}

// continued counts the backslashes at the end: an even number is backslashes, not a continuation.
func continued(line string) bool {
	n := 0
	for n < len(line) && line[len(line)-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}

func cutProperty(line string) (key, value string) {
	i := 0
	for i < len(line) && !strings.ContainsRune("=: \t\f", rune(line[i])) {
		if line[i] == '\\' {
			i++
		}
		i++
	}
	i = min(i, len(line))
	key, value = line[:i], strings.TrimLeft(line[i:], propertyBlanks)
	if value != "" && (value[0] == '=' || value[0] == ':') {
		value = strings.TrimLeft(value[1:], propertyBlanks)
	}
	return key, value
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if i++; i == len(s) {
			break // a lone backslash at the end of the file
		}
		switch s[i] {
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 'f':
			b.WriteByte('\f')
		case 'u':
			r, err := unicodeEscape(s[i+1:])
			if err != nil {
				return "", err
			}
			i += 4
			// Java writes letters beyond 16 bits as two escapes.
			if utf16.IsSurrogate(r) && strings.HasPrefix(s[i+1:], `\u`) {
				if low, err := unicodeEscape(s[i+3:]); err == nil {
					if whole := utf16.DecodeRune(r, low); whole != 0xFFFD {
						r, i = whole, i+6
					}
				}
			}
			b.WriteRune(r)
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), nil
}

func unicodeEscape(s string) (rune, error) {
	if len(s) < 4 {
		return 0, fmt.Errorf(`\u needs four hexadecimal digits`)
	}
	n, err := strconv.ParseUint(s[:4], 16, 16)
	if err != nil {
		return 0, fmt.Errorf(`\u%s: not four hexadecimal digits`, s[:4])
	}
	return rune(n), nil
}

// WriteProperty writes one entry so that ReadProperties reads the same back.
func WriteProperty(w *bufio.Writer, key, value string) error {
	for i, part := range []string{key, value} {
		if i == 1 {
			w.WriteByte('=')
		}
		for j, c := range part {
			switch {
			case c == '\n':
				w.WriteString(`\n`)
			case c == '\r':
				w.WriteString(`\r`)
			case c == '\t':
				w.WriteString(`\t`)
			case c == '\f':
				w.WriteString(`\f`)
			case c == '\\', i == 0 && strings.ContainsRune("=: ", c), i == 0 && j == 0 && (c == '#' || c == '!'), i == 1 && j == 0 && strings.ContainsRune(" =:", c):
				w.WriteByte('\\')
				w.WriteRune(c)
			default:
				w.WriteRune(c)
			}
		}
	}
	return w.WriteByte('\n')
}
