package registry

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"coracle/pkg/registry/jsonvalue"
)

var mergeCases = []struct{ doc, patch, want string }{
	// The examples of RFC 7386 that are objects.
	{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
	{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
	{`{"a":"b"}`, `{"a":null}`, `{}`},
	{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
	{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
	{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
	{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
	{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
	{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
	{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	// Members that are not named stay as they are written.
	{`{"z":1.50,"a":{"x":"<\u003e\"}","y":[1,{"k":"]"}]},"b":true}`, `{"a":{"x":"n"}}`, `{"z":1.50,"a":{"x":"n","y":[1,{"k":"]"}]},"b":true}`},
	{`{"a\u0062":1,"c":2}`, `{"ab":null}`, `{"c":2}`},
	{`{"a":1}`, `{"a":12345678901234567890}`, `{"a":12345678901234567890}`},
	{"{ \"a\" : { \"b\" : 1 } ,\n\"c\" : [ ] }", `{"a":{"b":2},"d":null}`, `{"a":{"b":2},"c":[]}`},
	// Nulls within new values.
	{`{"a":1}`, `{"a":{"b":null,"c":[null,{"d":null}]}}`, `{"a":{"c":[null,{}]}}`},
	{`{"a":{}}`, `{"a":[{"d":null}]}`, `{"a":[{"d":null}]}`},
	{`{"a":null}`, `{"a":{"b":null}}`, `{"a":{}}`},
	{`{"a":1}`, `{}`, `{"a":1}`},
	{`{"a":1}`, `{"a":2,"a":3}`, `{"a":3}`},
}

func TestMergePatch(t *testing.T) {
	for _, c := range mergeCases {
		got, err := mergePatch([]byte(c.doc), []byte(c.patch))
		if err != nil || !sameJSON(t, got, []byte(c.want)) {
			t.Errorf("%s with %s: %s, %v, want %s", c.doc, c.patch, got, err, c.want)
		}
	}
	const doc = `{"b":[1,2 , 3],"a":"x"}`
	if got, err := mergePatch([]byte(doc), []byte(`{"c":1}`)); err != nil || string(got) != `{"b":[1,2 , 3],"a":"x","c":1}` {
		t.Errorf("members are not copied as they stand: %s, %v", got, err)
	}
	for _, bad := range []string{``, `null`, `1`, `"x"`, `[]`, `[{"a":1}]`, `{`, `{"a":}`, `{} {}`, `{}}`, `{"a":1}x`} {
		if got, err := mergePatch([]byte(`{"a":1}`), []byte(bad)); err == nil {
			t.Errorf("the patch %q gives %s", bad, got)
		}
	}
	for _, bad := range []string{``, `1`, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":"x`, `{"a":"x\`, `{"a":[1}`, `{a:1}`, `{"a":1 "b":2}`} {
		if got, err := mergePatch([]byte(bad), []byte(`{"b":{"c":2}}`)); err == nil && json.Valid(got) {
			t.Errorf("the document %q gives %s", bad, got)
		}
	}
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	read := func(data []byte) (v any, ok bool) {
		dec := json.NewDecoder(strings.NewReader(string(data)))
		dec.UseNumber()
		return v, dec.Decode(&v) == nil
	}
	x, ok := read(a)
	y, ok2 := read(b)
	return ok && ok2 && reflect.DeepEqual(x, y)
}

// FuzzMergePatch: the result is the library's for every document and patch.
func FuzzMergePatch(f *testing.F) {
	for _, c := range mergeCases {
		f.Add([]byte(c.doc), []byte(c.patch))
	}
	f.Fuzz(func(t *testing.T, doc, patch []byte) {
		if len(doc)+len(patch) > 16<<10 {
			return
		}
		got, err := mergePatch(doc, patch)
		var object map[string]any
		if json.Unmarshal(doc, &object) != nil || object == nil {
			return // never a document of this server; it must only not panic
		}
		if repeats(doc) || !utf8.Valid(doc) {
			return // nor are these: what is not UTF-8 is replaced when it is read
		}
		want, wantErr := jsonpatch.MergePatch(doc, patch)
		if json.Unmarshal(patch, &object) != nil {
			if err == nil {
				t.Fatalf("the patch %q is no object and gives %s", patch, got)
			}
			return
		}
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("%q with %q: %v, the library says %v", doc, patch, err, wantErr)
		}
		if err == nil && !sameJSON(t, got, want) {
			t.Fatalf("%q with %q: %s, the library makes %s", doc, patch, got, want)
		}
		sameWhenDecoded(t, doc, patch, got, err)
	})
}

// sameWhenDecoded merges decoded values: the result is what the document with the
// patch decodes to, and the document's own stay as they are.
func sameWhenDecoded(t *testing.T, doc, patch, merged []byte, err error) {
	object, ok := jsonvalue.Read(doc)
	members, isPatch := jsonvalue.Read(patch)
	if !ok || !isPatch {
		return
	}
	if err != nil {
		t.Fatalf("%q can be decoded and is no patch of %q: %v", patch, doc, err)
	}
	want, ok := jsonvalue.Read(merged)
	if !ok {
		t.Fatalf("%q with %q cannot be read: %s", doc, patch, merged)
	}
	got := jsonvalue.Merge(object, members)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%q with %q, the document (-), decoded values (+):\n%s", doc, patch, diff)
	}
	spoil(got)
	if again, _ := jsonvalue.Read(doc); !cmp.Equal(again, object) {
		t.Fatalf("%q with %q: the result shares values with the document: %v", doc, patch, object)
	}
}

// spoil changes a decoded value wherever it can be changed.
func spoil(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, inner := range v {
			spoil(inner)
		}
		clear(v)
		v["spoilt"] = true
	case []any:
		for i, inner := range v {
			spoil(inner)
			v[i] = "spoilt"
		}
	}
}

// repeats says that an object of the document has a name twice.
func repeats(doc []byte) bool {
	dec := json.NewDecoder(strings.NewReader(string(doc)))
	type level struct {
		names map[string]bool // nil for an array
		name  bool            // the next token is a name
	}
	var levels []level
	for {
		token, err := dec.Token()
		if err != nil {
			return false
		}
		if d, ok := token.(json.Delim); ok && (d == '{' || d == '[') {
			if n := len(levels); n > 0 {
				levels[n-1].name = levels[n-1].names != nil
			}
			l := level{name: d == '{'}
			if d == '{' {
				l.names = map[string]bool{}
			}
			levels = append(levels, l)
			continue
		} else if ok {
			levels = levels[:len(levels)-1]
			continue
		}
		if n := len(levels); n > 0 && levels[n-1].names != nil {
			l := &levels[n-1]
			if name, ok := token.(string); ok && l.name {
				if l.names[name] {
					return true
				}
				l.names[name] = true
			}
			l.name = !l.name
		}
	}
}

// BenchmarkMergePatch changes one member of an object of 4 KB.
func BenchmarkMergePatch(b *testing.B) {
	var members []string
	for i := range 40 {
		members = append(members, `"member-`+strings.Repeat("x", i)+`":{"a":[1,2,3],"text":"`+strings.Repeat("y", 60)+`"}`)
	}
	doc := []byte(`{"metadata":{"labels":{"tier":"a"}},` + strings.Join(members, ",") + `}`)
	patch := []byte(`{"metadata":{"labels":{"tier":"b"}}}`)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := mergePatch(doc, patch); err != nil {
			b.Fatal(err)
		}
	}
}
