package demo

import (
	"bytes"
	"go/build"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// lines is endless real text.
type lines struct {
	from string // what a person is told
	all  [][]byte
	next int
}

func (l *lines) line() []byte {
	x := l.all[l.next]
	l.next = (l.next + 1) % len(l.all)
	return x
}

// enough is how many bytes of text are read: more would only take memory.
const enough = 8 << 20

// realLines is Go's own source where it is installed, else the text that the caller has.
func realLines(fallback string) *lines {
	if root := build.Default.GOROOT; root != "" {
		if all := sources(filepath.Join(root, "src")); len(all) > 1000 {
			return &lines{from: "Go's own source", all: all}
		}
	}
	all := split([]byte(fallback))
	if len(all) == 0 {
		all = [][]byte{[]byte("Dear Milena")}
	}
	return &lines{from: "this program's help", all: all}
}

// sources reads Go files, in the order of their names, until there is enough. What cannot be read is left
// out: it is only text.
func sources(root string) [][]byte {
	var all [][]byte
	size := 0
	_ = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || size > enough {
			return fs.SkipDir
		}
		if d.IsDir() && d.Name() == "testdata" || d.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		if strings.HasSuffix(p, ".go") {
			if b, err := os.ReadFile(p); err == nil {
				size += len(b)
				all = append(all, split(b)...)
			}
		}
		return nil
	})
	return all
}

// longestLine bounds a record of the demo.
const longestLine = 4096

// split cuts text into lines, empty ones left out.
func split(text []byte) [][]byte {
	var out [][]byte
	for line := range bytes.Lines(text) {
		if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 {
			out = append(out, line[:min(len(line), longestLine)])
		}
	}
	return out
}
