package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// table is rows of cells under a head. A head that begins with > is a column of numbers, set to the right.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

func (t *table) row(cells ...any) {
	r := make([]string, len(cells))
	for i, c := range cells {
		r[i] = clean(fmt.Sprint(c))
	}
	t.rows = append(t.rows, r)
}

// clean keeps names and values from the cluster from steering the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

func (t *table) write(w io.Writer) error {
	width := make([]int, len(t.head))
	right := make([]bool, len(t.head))
	head := make([]string, len(t.head))
	for i, h := range t.head {
		head[i] = strings.TrimPrefix(h, ">")
		right[i] = head[i] != h
		width[i] = len(head[i])
	}
	for _, r := range t.rows {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	b := bufio.NewWriter(w)
	for _, r := range append([][]string{head}, t.rows...) {
		var line strings.Builder
		for i, c := range r {
			if i > 0 {
				line.WriteString("  ")
			}
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if right[i] {
				line.WriteString(pad + c)
			} else {
				line.WriteString(c + pad)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.Flush()
}

// facts are name: value lines above a table.
func facts(w io.Writer, pairs ...any) error {
	wide := 0
	for i := 0; i < len(pairs); i += 2 {
		wide = max(wide, len(fmt.Sprint(pairs[i])))
	}
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		if v := clean(fmt.Sprint(pairs[i+1])); v != "" {
			fmt.Fprintf(&b, "%-*s  %s\n", wide, pairs[i], v)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// show prints v as JSON, or lets text print it for people.
func (a *app) show(v any, text func(w io.Writer) error) error {
	if a.output == "json" {
		e := json.NewEncoder(a.io.Out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	}
	return text(a.io.Out)
}

// done says what was done; as JSON it is the result itself.
func (a *app) done(v any, format string, args ...any) error {
	return a.show(v, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, clean(fmt.Sprintf(format, args...)))
		return err
	})
}

// size is bytes as people read them; below zero is not known.
func size(n int64) string {
	if n < 0 {
		return "-"
	}
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, unit := float64(n)/1024, 0
	for f >= 1023.95 && unit < 4 {
		f, unit = f/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[unit])
}

// count is a number with groups of three; below zero is not known.
func count(n int64) string {
	if n < 0 {
		return "-"
	}
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// number is a plain number; below zero is not known.
func number(n int64) string {
	if n < 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

func plural(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + one + "s"
}

func ids(list []int32) string {
	s := make([]string, len(list))
	for i, n := range list {
		s[i] = strconv.Itoa(int(n))
	}
	return strings.Join(s, ",")
}

// terminal says whether a person looks at w or types into it.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// confirm asks before something is lost for ever. Without a terminal there is nobody to ask: then yes
// must be given.
func (a *app) confirm(yes bool, format string, args ...any) error {
	if yes {
		return nil
	}
	if !terminal(a.io.In) {
		return usagef("%s: add --yes to confirm", fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(a.io.Err, "%s? Type yes: ", fmt.Sprintf(format, args...))
	line, _ := bufio.NewReader(a.io.In).ReadString('\n')
	if strings.TrimSpace(line) != "yes" {
		return fmt.Errorf("nothing was done")
	}
	return nil
}
