package coracle

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Rows of docs/security.md: how many there are of each table.
const (
	attacks   = 36
	hardening = 42
)

var (
	securityRow = regexp.MustCompile(`^\| ([AH]\d+) \| (.+) \| (.+) \| (always|hardened|open) \|$`)
	namedTest   = regexp.MustCompile("`([^`]*)\\.((?:Test|Fuzz)\\w+)`")
)

// TestSecurityTable: docs/security.md has each row once, and the tests that it
// names are there. A row without a test is open and says why.
func TestSecurityTable(t *testing.T) {
	data, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		row := securityRow.FindStringSubmatch(line)
		if row == nil {
			if strings.HasPrefix(line, "| A") || strings.HasPrefix(line, "| H") {
				t.Errorf("this is no row: %s", line)
			}
			continue
		}
		id, held, where := row[1], row[3], row[4]
		if rows[id] {
			t.Errorf("%s is there twice", id)
		}
		rows[id] = true
		tests := namedTest.FindAllStringSubmatch(held, -1)
		if where == "open" != strings.HasPrefix(held, "open: ") {
			t.Errorf("%s: what is open says so and why, and only that", id)
		}
		if where != "open" && len(tests) == 0 {
			t.Errorf("%s names no test", id)
		}
		if strings.Count(held, "`") != 2*len(tests) {
			t.Errorf("%s: name tests as `folder.TestName`: %s", id, held)
		}
		for _, test := range tests {
			if !hasTest(t, test[1], test[2]) {
				t.Errorf("%s: %s has no %s", id, test[1], test[2])
			}
		}
	}
	for kind, n := range map[string]int{"A": attacks, "H": hardening} {
		for i := 1; i <= n; i++ {
			if id := fmt.Sprint(kind, i); !rows[id] {
				t.Errorf("there is no row %s", id)
			}
		}
	}
	if len(rows) != attacks+hardening {
		t.Errorf("%d rows, want %d", len(rows), attacks+hardening)
	}
}

// hasTest says whether a test function is declared in a folder; "coracle" is
// this one.
func hasTest(t *testing.T, folder, name string) bool {
	t.Helper()
	if folder == "coracle" {
		folder = "."
	}
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte("\nfunc "+name+"(")) {
			return true
		}
	}
	return false
}
