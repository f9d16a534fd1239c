package milena_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/milena-mq/milena"

// layers is the package tree of the house: a package may import packages of lower layers, its own
// subfolders, and nothing else of ours. det stands below all: even a file system needs its seeded numbers. A package that is missing here fails the test, so that a
// new package has to take a place. Layer test may import everything and is imported by nobody.
const layers = `
-1   internal/det
0    internal/vfs
0    internal/vfs/memfs
0    internal/vfs/errfs
0    internal/config
0    internal/metric
1    internal/wire
1    internal/batch
1    internal/meta
2    internal/acl
2    internal/quota
2    internal/producer
2    internal/session
2    internal/placement
3    internal/isr
3    internal/group
3    internal/group/assign
3    internal/txn
3    internal/control
4    internal/storage
4    internal/storage/dump
4    internal/coord
4    internal/coord/memstore
4    internal/coord/zookeeper
4    internal/coord/coordtest
4    internal/server
4    internal/peer
5    internal/partition
5    internal/shard
5    internal/controller
6    internal/api
6    internal/admin
6    internal/admin/admintest
6    internal/member
6    internal/replica
6    internal/marker
8    internal/cli
7    internal/console
7    internal/demo
8    internal/broker
9    cmd/milena
test internal/sim
test internal/ktest
test internal/history
`

// never lists imports that a package must not make although its layer would allow them.
var never = map[string][]string{
	"internal/cli":     {"internal/broker", "internal/api"},
	"internal/console": {"internal/broker", "internal/api"},
	"internal/admin":   {"internal/api", "internal/controller", "internal/partition", "internal/shard"},
}

const testLayer = 100

func readLayers(t *testing.T) map[string]int {
	t.Helper()
	m := map[string]int{}
	for line := range strings.Lines(layers) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		n := testLayer
		if f[0] != "test" {
			var err error
			if n, err = strconv.Atoi(f[0]); err != nil {
				t.Fatalf("layers: %q: %v", line, err)
			}
		}
		m[f[1]] = n
	}
	return m
}

// goFiles lists the Go files of the broker's own module, other modules (bench, test clients) left out.
func goFiles(t *testing.T, visit func(dir, file string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			if p != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || name == "bin" || name == "milena-data") {
				return fs.SkipDir
			}
			if p != "." && exists(filepath.Join(p, "go.mod")) {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(p, ".go") {
			visit(filepath.ToSlash(filepath.Dir(p)), p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPackagesImportLowerLayersOnly keeps the tree a tree: a machine that could reach the network,
// or a command line that could reach into the broker, would be written sooner or later.
func TestPackagesImportLowerLayersOnly(t *testing.T) {
	layer := readLayers(t)
	seen := 0
	goFiles(t, func(dir, file string) {
		if dir == "." || strings.HasPrefix(dir, "test/") {
			return
		}
		isTest := strings.HasSuffix(file, "_test.go")
		own, ok := layer[dir]
		if !ok {
			t.Errorf("%s: package %s has no layer in deps_test.go", file, dir)
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			return
		}
		for _, im := range f.Imports {
			p, _ := strconv.Unquote(im.Path.Value)
			rel, ours := strings.CutPrefix(p, module+"/")
			if !ours {
				continue
			}
			seen++
			if isTest {
				// A test may use test doubles and engines of its own layer and below, and the
				// test layer; it may not pull in the broker above it.
				if l, ok := layer[rel]; ok && l != testLayer && l > own && own != testLayer {
					t.Errorf("%s (layer %d) imports %s (layer %d)", file, own, rel, l)
				}
				continue
			}
			target, ok := layer[rel]
			switch {
			case !ok:
				t.Errorf("%s imports %s, which has no layer", file, rel)
			case target >= own && !strings.HasPrefix(rel, dir+"/") && path.Dir(dir) != rel:
				t.Errorf("%s (layer %d) imports %s (layer %d): only lower layers and own subfolders", file, own, rel, target)
			}
			for _, n := range never[dir] {
				if rel == n {
					t.Errorf("%s imports %s, which is forbidden to it", file, rel)
				}
			}
		}
	})
	if seen == 0 {
		t.Fatal("no import of ours was seen: the walk is broken")
	}
}

// TestEveryPackageHasDoc asks for the five paragraphs: owns, never does, who runs it, invariants,
// what to read first. They stand in doc.go, or above the only file of a small package.
func TestEveryPackageHasDoc(t *testing.T) {
	paragraphs := map[string]int{}
	goFiles(t, func(dir, file string) {
		if !strings.HasPrefix(dir, "internal/") || strings.HasSuffix(file, "_test.go") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Error(err)
			return
		}
		n := 0
		if f.Doc != nil {
			n = len(strings.Split(strings.TrimSpace(f.Doc.Text()), "\n\n"))
		}
		paragraphs[dir] = max(paragraphs[dir], n)
	})
	for dir, n := range paragraphs {
		if n < 5 {
			t.Errorf("%s: its package comment has %d paragraphs, want five: owns, never does, who runs it, invariants, read first", dir, n)
		}
	}
}
