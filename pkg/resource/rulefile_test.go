package resource

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A rule file describes, type by type, what the API checks of each field; see
// testdata/rules/README.md for the format. This file reads them.

// ruleType is what is known of one Go struct type of the API.
type ruleType struct {
	name string // "core/v1.Container"
	file string
	rows []ruleRow
}

// ruleRow is one line: a rule of a field, with an example that breaks it.
type ruleRow struct {
	where string // file:line
	field string
	class string
	// reason says why a free field is free; the others have an example, but
	// for nested fields that other types' places lead through.
	reason  string
	example *ruleExample
}

// ruleExample is a change of a kind's example and what the API answers.
type ruleExample struct {
	at     rulePlace
	setup  string // patch that is there before; "" is none
	op     string // create, update, status, or a subresource
	patch  string
	expect []expectation
	// more says that further errors may come.
	more bool
}

// rulePlace is where in which kind a type's examples are made.
type rulePlace struct {
	kind, position string
	with           string // patch that all examples at the place start from
}

// expectation is one error: its type, field path and a part of its detail.
type expectation struct{ reason, path, detail string }

// ruleClasses are the sorts of rules. A free field is not checked, for the
// reason that its row gives; a nested one is checked by its own type's rules,
// and its example shows that they are applied.
var ruleClasses = []string{
	"required", "format", "range", "size", "enum", "union", "unique", "immutable", "cross", "nested", "mutable", "free",
}

// rules is all that the rule files say.
type rules struct {
	types map[string]*ruleType
	// undescribed are the types that nobody has described yet, with the file
	// that lists them.
	undescribed map[string]string
}

func readRules(t *testing.T) *rules {
	t.Helper()
	all := &rules{types: map[string]*ruleType{}, undescribed: map[string]string{}}
	err := filepath.WalkDir(filepath.Join("testdata", "rules"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		lines := strings.Split(string(data), "\n")
		switch {
		case filepath.Ext(path) == ".rules":
			return all.parse(path, lines)
		case d.Name() == "undescribed":
			for _, line := range lines {
				if line != "" {
					all.undescribed[line] = path
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (all *rules) parse(file string, lines []string) error {
	var typ *ruleType
	var at rulePlace
	last := ""
	for i, line := range lines {
		where := fmt.Sprintf("%s:%d", file, i+1)
		keyword, rest, _ := strings.Cut(line, " ")
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"):
		case keyword == "type" && !strings.Contains(rest, "|"):
			typ, at = &ruleType{name: strings.TrimSpace(rest), file: file}, rulePlace{}
			if all.types[typ.name] != nil {
				return fmt.Errorf("%s: type %s is described twice", where, typ.name)
			}
			all.types[typ.name] = typ
		case keyword == "at":
			place, with, _ := strings.Cut(rest, " | ")
			kind, position, _ := strings.Cut(strings.TrimSpace(place), " ")
			at = rulePlace{kind: kind, position: strings.TrimSpace(position), with: strings.TrimSpace(with)}
		case typ == nil:
			return fmt.Errorf("%s: a row comes after the line of its type", where)
		default:
			if err := typ.row(where, line, at, &last); err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
		}
	}
	return nil
}

// row parses "field | class | example | expected", "fields | free | reason" and
// "fields | nested".
func (typ *ruleType) row(where, line string, at rulePlace, last *string) error {
	cells := strings.Split(line, " | ")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	if cells[0] != "" {
		*last = cells[0]
	}
	if len(cells) < 2 || !slices.Contains(ruleClasses, cells[1]) {
		return fmt.Errorf("want: field | class | ..., where class is one of %v", ruleClasses)
	}
	if cells[1] == "nested" && len(cells) == 2 || cells[1] == "free" && len(cells) == 3 {
		for _, f := range strings.Split(*last, ",") {
			row := ruleRow{where: where, field: strings.TrimSpace(f), class: cells[1]}
			if row.class == "free" {
				row.reason = cells[2]
			}
			typ.rows = append(typ.rows, row)
		}
		return nil
	}
	if len(cells) != 4 {
		return fmt.Errorf("want four cells: field | class | example | expected")
	}
	if at.kind == "" {
		return fmt.Errorf("an example needs a line `at KIND POSITION` before it")
	}
	e, err := parseExample(at, *last, cells[2], cells[3])
	if err != nil {
		return err
	}
	typ.rows = append(typ.rows, ruleRow{where: where, field: *last, class: cells[1], example: e})
	return nil
}

// operation finds "{setup} op" before the patch.
var operation = regexp.MustCompile(`^(?:\{(.*)\} )?([a-z]+) ((?:= |\{).*)$`)

func parseExample(at rulePlace, fieldName, text, expected string) (*ruleExample, error) {
	e := &ruleExample{at: at, op: "create", patch: text}
	if m := operation.FindStringSubmatch(text); m != nil {
		e.setup, e.op, e.patch = m[1], m[2], m[3]
	}
	switch {
	case strings.HasPrefix(e.patch, "= "):
		e.patch = fieldName + ": " + e.patch[2:]
	case strings.HasPrefix(e.patch, "{") && strings.HasSuffix(e.patch, "}"):
		e.patch = e.patch[1 : len(e.patch)-1]
	default:
		return nil, fmt.Errorf("%q is no example: want `= VALUE` or `{PATH: VALUE, ...}`, after `update` where it is not a create", text)
	}
	if expected == "ok" {
		return e, nil
	}
	for _, part := range strings.Split(expected, "; ") {
		if part == "..." {
			e.more = true
			continue
		}
		e.expect = append(e.expect, parseExpectation(at.position, fieldName, part))
	}
	return e, nil
}

// parseExpectation reads `Reason [path] ["detail"]`. A path counts from the
// place, "." is the place itself, one with a leading / counts from the object.
func parseExpectation(position, fieldName, text string) expectation {
	var x expectation
	if head, detail, ok := strings.Cut(text, ` "`); ok {
		text, x.detail = head, strings.TrimSuffix(detail, `"`)
	}
	reason, path, _ := strings.Cut(strings.TrimSpace(text), " ")
	x.reason = reason
	if path == "" {
		path = fieldName
	}
	switch {
	case path == ".":
		x.path = position
	case strings.HasPrefix(path, "/"):
		x.path = path[1:]
	case strings.HasPrefix(path, "["):
		x.path = position + path
	case position == "":
		x.path = path
	default:
		x.path = position + "." + path
	}
	return x
}
