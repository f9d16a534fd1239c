package milena_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func exists(p string) bool { _, err := os.Stat(p); return err == nil }

// Who may do what is a list here, so that an exception is a visible change.
var (
	// goAllowed may start goroutines: the engines and the owners, which join them before Close returns.
	goAllowed = []string{"internal/coord", "internal/peer", "internal/member", "internal/replica", "internal/marker", "internal/demo", "internal/server", "internal/partition", "internal/shard", "internal/controller", "internal/broker", "internal/cli", "internal/admin", "cmd/milena"}
	// osAllowed may import os: the file system itself, what talks to a terminal, and what starts the process.
	osAllowed = []string{"internal/vfs", "internal/cli", "internal/admin", "internal/broker", "internal/coord", "internal/peer", "internal/demo", "internal/server", "cmd/milena"}
	// clockAllowed may read the wall clock; everybody else is given the time.
	clockAllowed = []string{"internal/coord", "internal/peer", "internal/member", "internal/replica", "internal/marker", "internal/demo", "internal/server", "internal/partition", "internal/shard", "internal/controller", "internal/api", "internal/broker", "internal/cli", "internal/admin", "internal/vfs", "cmd/milena"}
	badNames     = []string{"util", "utils", "common", "helpers", "types", "manager"}
)

func allowed(list []string, dir string) bool {
	return slices.ContainsFunc(list, func(p string) bool { return dir == p || strings.HasPrefix(dir, p+"/") })
}

// TestTidy holds the size and the house rules of hand-written, non-test code.
func TestTidy(t *testing.T) {
	var lengths []int
	goFiles(t, func(dir, file string) {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
			return
		}
		if n := bytes.Count(src, []byte("\n")); n > 800 {
			t.Errorf("%s has %d lines, at most 800", file, n)
		}
		if slices.Contains(badNames, dir[strings.LastIndex(dir, "/")+1:]) {
			t.Errorf("%s: a package called that says nothing", dir)
		}
		if strings.HasSuffix(file, "_test.go") || !(strings.HasPrefix(dir, "internal/") || strings.HasPrefix(dir, "cmd/")) {
			return
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, file, src, parser.ParseComments)
		if err != nil {
			t.Error(err)
			return
		}
		lengths = append(lengths, checkFile(t, fset, f, dir, file)...)
	})
	if len(lengths) == 0 {
		t.Fatal("no function was seen: the walk is broken")
	}
	slices.Sort(lengths)
	if p95 := lengths[len(lengths)*95/100]; p95 > 60 {
		t.Errorf("the 95th percentile of function lengths is %d lines, at most 60", p95)
	}
}

func checkFile(t *testing.T, fset *token.FileSet, f *ast.File, dir, file string) (lengths []int) {
	for _, im := range f.Imports {
		p, _ := strconv.Unquote(im.Path.Value)
		switch {
		case p == "os" && !allowed(osAllowed, dir):
			t.Errorf("%s imports os: go through vfs", file)
		case (p == "math/rand" || p == "math/rand/v2") && strings.HasPrefix(dir, "internal/") && !allowed(clockAllowed, dir):
			t.Errorf("%s imports %s: randomness is an input", file, p)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			length := fset.Position(n.End()).Line - fset.Position(n.Pos()).Line + 1
			lengths = append(lengths, length)
			if length > 120 && (n.Doc == nil || !strings.Contains(n.Doc.Text(), "long because")) {
				t.Errorf("%s: %s has %d lines; over 120 its comment must hold the words \"long because\"", file, n.Name.Name, length)
			}
			if n.Name.Name == "init" && n.Recv == nil {
				t.Errorf("%s: init hides an effect", file)
			}
		case *ast.GoStmt:
			if !allowed(goAllowed, dir) {
				t.Errorf("%s starts a goroutine; only engines and owners do", fset.Position(n.Pos()))
			}
		case *ast.CallExpr:
			switch fun := n.Fun.(type) {
			case *ast.Ident:
				if fun.Name == "panic" {
					t.Errorf("%s panics", fset.Position(n.Pos()))
				}
			case *ast.SelectorExpr:
				if x, ok := fun.X.(*ast.Ident); ok && x.Name == "time" && (fun.Sel.Name == "Now" || fun.Sel.Name == "Since") && !allowed(clockAllowed, dir) {
					t.Errorf("%s reads the clock", fset.Position(n.Pos()))
				}
			}
		}
		return true
	})
	return lengths
}

// TestNoTestSleepsOrSkips: a test that sleeps is slow or flaky, one that skips says nothing.
func TestNoTestSleepsOrSkips(t *testing.T) {
	goFiles(t, func(dir, file string) {
		if !strings.HasSuffix(file, "_test.go") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Error(err)
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok {
				if s, ok := c.Fun.(*ast.SelectorExpr); ok {
					x, _ := s.X.(*ast.Ident)
					if x != nil && x.Name == "time" && s.Sel.Name == "Sleep" {
						t.Errorf("%s sleeps", file)
					}
					if strings.HasPrefix(s.Sel.Name, "Skip") && x != nil && (x.Name == "t" || x.Name == "b") {
						t.Errorf("%s skips", file)
					}
				}
			}
			return true
		})
	})
}
