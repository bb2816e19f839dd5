package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryTroubleHasItsTest holds the table of CONTRIBUTING.md, of what can go wrong and the tests that make it happen, against the tests that there are.
func TestEveryTroubleHasItsTest(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## What can go wrong, and the test that makes it happen\n")
	if !found {
		t.Fatal("CONTRIBUTING.md has no section of what can go wrong")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	tests := make(map[string]map[string]bool)
	for pkg, dir := range map[string]string{
		"cmd": ".", "publisher": "../../publisher", "embedded": "../../publisher/embedded", "consumer": "../../publisher/consumer",
		"poller": "../../poller", "nimble": "../../nimble",
	} {
		tests[pkg] = testsIn(t, dir)
	}
	name := regexp.MustCompile("`([a-z]+)\\.(Test[A-Z][A-Za-z0-9]*)`")
	rows := 0
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 3 || strings.HasPrefix(line, "|---") || strings.TrimSpace(cells[2]) == "tests" {
			continue
		}
		if len(cells) != 4 {
			t.Errorf("%q has not two columns", line)
			continue
		}
		rows++
		trouble, rest := strings.TrimSpace(cells[1]), cells[2]
		named := name.FindAllStringSubmatch(rest, -1)
		if len(named) == 0 {
			t.Errorf("%q names no test", trouble)
		}
		for _, n := range named {
			if !tests[n[1]][n[2]] {
				t.Errorf("%q names %s.%s, which does not exist", trouble, n[1], n[2])
			}
		}
		if other := strings.Trim(name.ReplaceAllString(rest, ""), " ,"); other != "" {
			t.Errorf("%q has %q among its tests", trouble, other)
		}
	}
	if rows < 40 {
		t.Errorf("%d lines found, want 40 or more: is the table read as it is written?", rows)
	}
}

// testsIn returns the names of the tests in a directory, of those that do something.
func testsIn(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s: %v", dir, err)
	}
	tests := make(map[string]bool)
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && f.Recv == nil && f.Type.Params.NumFields() == 1 && strings.HasPrefix(f.Name.Name, "Test") && f.Body != nil && len(f.Body.List) > 0 {
				tests[f.Name.Name] = true
			}
		}
	}
	return tests
}
