package resource

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The rules' test must itself be able to fail.

func TestRuleFilesAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ file, want string }{
		"row before a type":  {"name | free | some reason", "after the line of its type"},
		"unknown class":      {"type core/v1.Pod\nname | odd | = a | Invalid", "one of"},
		"no place":           {"type core/v1.Pod\nname | format | = a | Invalid", "at KIND POSITION"},
		"no example":         {"type core/v1.Pod\nat pods\nname | format | a | Invalid", "is no example"},
		"three cells":        {"type core/v1.Pod\nat pods\nname | format | = a", "four cells"},
		"a type twice":       {"type core/v1.Pod\ntype core/v1.Pod", "described twice"},
		"a nested that says": {"type core/v1.Pod\nat pods\nspec | nested | = a", "four cells"},
	} {
		all := &rules{types: map[string]*ruleType{}}
		err := all.parse("f", strings.Split(c.file, "\n"))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestRuleExamplesAreRead(t *testing.T) {
	at := rulePlace{kind: "pods", position: "spec"}
	e, err := parseExample(at, "a", "{b: 1} status = 2", `Invalid "x"; Required .; Forbidden /metadata.name; Duplicate [1].c; ...`)
	if err != nil {
		t.Fatal(err)
	}
	want := &ruleExample{at: at, setup: "b: 1", op: "status", patch: "a: 2", more: true, expect: []expectation{
		{"Invalid", "spec.a", "x"}, {"Required", "spec", ""}, {"Forbidden", "metadata.name", ""}, {"Duplicate", "spec[1].c", ""},
	}}
	if diff := cmp.Diff(want, e, cmp.AllowUnexported(ruleExample{}, rulePlace{}, expectation{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRuleErrorsAreCompared(t *testing.T) {
	a, b := field.Invalid(field.NewPath("a"), 1, "not so"), field.Required(field.NewPath("b"), "")
	want := expectation{"Invalid", "a", "not"}
	for name, c := range map[string]struct {
		example *ruleExample
		got     field.ErrorList
		fits    bool
	}{
		"exact":        {&ruleExample{expect: []expectation{want}}, field.ErrorList{a}, true},
		"none":         {&ruleExample{expect: []expectation{want}}, nil, false},
		"one too many": {&ruleExample{expect: []expectation{want}}, field.ErrorList{a, b}, false},
		"more allowed": {&ruleExample{expect: []expectation{want}, more: true}, field.ErrorList{a, b}, true},
		"other detail": {&ruleExample{expect: []expectation{{"Invalid", "a", "else"}}}, field.ErrorList{a}, false},
		"other path":   {&ruleExample{expect: []expectation{{"Invalid", "b", ""}}}, field.ErrorList{a}, false},
		"other reason": {&ruleExample{expect: []expectation{{"Required", "a", ""}}}, field.ErrorList{a}, false},
		"not ok":       {&ruleExample{}, field.ErrorList{a}, false},
	} {
		if err := compareErrors(c.example, c.got); (err == nil) != c.fits {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRulePatches(t *testing.T) {
	for patch, want := range map[string]string{
		"x: 1":                    `{"keep":true,"list":[{"a":1,"x":1}]}`,
		"a: null":                 `{"keep":true,"list":[{}]}`,
		"/keep: null, a: 2":       `{"list":[{"a":2}]}`,
		"/list.1: {b: 1}":         `{"keep":true,"list":[{"a":1},{"b":1}]}`,
		"deep.0.er: <3>":          `{"keep":true,"list":[{"a":1,"deep":[{"er":"aaa"}]}]}`,
		"/list.0: null":           `{"keep":true,"list":[]}`,
		`"m[example.com/x]": "1"`: `{"keep":true,"list":[{"a":1,"m":{"example.com/x":"1"}}]}`,
	} {
		var obj any
		if err := json.Unmarshal([]byte(`{"keep":true,"list":[{"a":1}]}`), &obj); err != nil {
			t.Fatal(err)
		}
		obj, err := applyPatch(obj, "list[0]", patch)
		if err != nil {
			t.Errorf("%s: %v", patch, err)
			continue
		}
		if got, _ := json.Marshal(obj); string(got) != want {
			t.Errorf("%s: %s, want %s", patch, got, want)
		}
	}
	if _, err := applyPatch(map[string]any{}, "list[3]", "a: 1"); err == nil {
		t.Error("a list grows by more than one")
	}
}

func TestRulesMissAField(t *testing.T) {
	all := &rules{types: map[string]*ruleType{}}
	if err := all.parse("f", []string{"type core/v1.PodIP", "port | free | there is none"}); err != nil {
		t.Fatal(err)
	}
	got := fieldDifferences(reflect.TypeFor[corev1.PodIP](), all.types["core/v1.PodIP"])
	if len(got) != 2 {
		t.Errorf("a missing and a superfluous field gave %q", got)
	}
}
