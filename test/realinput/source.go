package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// file is one file of the input; its lines are the records, keyed by its path.
type file struct {
	path  string
	data  []byte
	lines int
}

// source is the whole input. Files are in path order, so a smaller limit is a prefix of a larger one.
type source struct {
	files []file
	lines int
	bytes int64
}

// load reads every text file below root until limit lines are reached (0: all). Binary files (a NUL byte) have no lines.
func load(root string, limit int) (*source, error) {
	s := &source{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if len(b) == 0 || bytes.IndexByte(b, 0) >= 0 {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		f := file{path: filepath.ToSlash(rel), data: b}
		f.each(func(int, []byte) bool { f.lines++; return true })
		s.files = append(s.files, f)
		s.lines += f.lines
		if limit > 0 && s.lines >= limit {
			return fs.SkipAll
		}
		return nil
	})
	return s, err
}

// each calls fn with every line, counted from 1, without its line end; it stops when fn says so.
func (f *file) each(fn func(n int, line []byte) bool) {
	rest := f.data
	for n := 1; len(rest) > 0; n++ {
		line, after, _ := bytes.Cut(rest, []byte{'\n'})
		if !fn(n, line) {
			return
		}
		rest = after
	}
}

// value is the record of a line: its path, number and text, so that no two records of the job are equal.
func value(dst []byte, path string, n int, line []byte) []byte {
	dst = append(dst, path...)
	dst = append(dst, '\t')
	dst = strconv.AppendInt(dst, int64(n), 10)
	dst = append(dst, '\t')
	return append(dst, line...)
}

// sum is a checksum over all lines: one running hash for each path, folded in path order. A line lost, repeated,
// changed or out of order within its path changes it.
type sum struct {
	paths map[string]hash.Hash
}

func newSum() *sum { return &sum{paths: map[string]hash.Hash{}} }

func (s *sum) add(path string, value []byte) {
	h := s.paths[path]
	if h == nil {
		h = sha256.New()
		s.paths[path] = h
	}
	h.Write(value)
	h.Write([]byte{'\n'})
}

func (s *sum) String() string {
	var ps []string
	for p := range s.paths {
		ps = append(ps, p)
	}
	slices.Sort(ps)
	all := sha256.New()
	for _, p := range ps {
		fmt.Fprintf(all, "%s %x\n", p, s.paths[p].Sum(nil))
	}
	return hex.EncodeToString(all.Sum(nil))
}
