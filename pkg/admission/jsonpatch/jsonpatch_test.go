package jsonpatch

import (
	"errors"
	"strings"
	"testing"
)

func TestApply(t *testing.T) {
	for _, c := range []struct {
		name, patch, doc, want string
		err                    error // any, if anyError
	}{
		{"nothing", `[]`, `{"a":1}`, `{"a":1}`, nil},
		{"several", `[{"op":"add","path":"/b","value":2},{"op":"copy","from":"/b","path":"/c"},{"op":"remove","path":"/a"}]`, `{"a":1}`, `{"b":2,"c":2}`, nil},
		{"no list", `{"op":"add"}`, `{}`, "", ErrSyntax},
		{"no JSON", `x`, `{}`, "", ErrSyntax},
		{"too many", `[` + strings.Repeat(`{"op":"test","path":"/a","value":1},`, MaxOperations) + `{"op":"test","path":"/a","value":1}]`, `{"a":1}`, "", ErrTooLarge},
		{"doubling", `[` + strings.TrimSuffix(strings.Repeat(`{"op":"copy","from":"/a","path":"/a/-"},`, 60), ",") + `]`, `{"a":["` + strings.Repeat("x", 1000) + `"]}`, "", ErrTooLarge},
		{"one that does not fit", `[{"op":"remove","path":"/b"}]`, `{"a":1}`, "", errAny},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := Decode([]byte(c.patch))
			var got []byte
			if err == nil {
				got, err = p.Apply([]byte(c.doc))
			}
			switch {
			case c.err == nil && (err != nil || string(got) != c.want):
				t.Errorf("%s %v, want %s", got, err, c.want)
			case c.err == errAny && (err == nil || errors.Is(err, ErrSyntax) || errors.Is(err, ErrTooLarge)):
				t.Errorf("error %v", err)
			case c.err != nil && c.err != errAny && !errors.Is(err, c.err):
				t.Errorf("error %v, want %v", err, c.err)
			}
		})
	}
}

// errAny stands for an error that has no name.
var errAny = errors.New("any")

// FuzzApply: a patch never panics, and never makes much more of a document
// than the two are long.
func FuzzApply(f *testing.F) {
	f.Add([]byte(`[{"op":"add","path":"/b","value":2}]`), []byte(`{"a":1}`))
	f.Add([]byte(`[{"op":"copy","from":"","path":"/a"}]`), []byte(`{"a":{}}`))
	f.Add([]byte(`[{"op":"move","from":"/a/0","path":"/a/-"}]`), []byte(`{"a":[1,2]}`))
	f.Fuzz(func(t *testing.T, patch, doc []byte) {
		p, err := Decode(patch)
		if err != nil {
			return
		}
		out, err := p.Apply(doc)
		if err == nil && len(out) > maxCopyGrowth+8*(len(doc)+len(patch))+64 {
			t.Errorf("%d bytes of a document of %d and a patch of %d", len(out), len(doc), len(patch))
		}
	})
}
