package jsonvalue_test

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	kjson "sigs.k8s.io/json"

	"coracle/pkg/registry/jsonvalue"
)

var texts = []string{
	`{}`, ` { } `, `{"a":1}`, `{"a":{"b":[1,2.5,"x",null,true,false,{"c":[]}]}}`, `{"a":-0,"b":-1,"c":1e3,"d":1E+2,"e":0.5e-1}`,
	`{"a":9223372036854775807,"b":9223372036854775808,"c":-9223372036854775808}`, `{"a":1.0}`, `{"a":"\u00e9\n\"\\\/"}`,
	`{"a":"ä<>&\u2028"}`, "{\"a\":\"\xff\"}", `{"a":"\ud800"}`, `{"a":"\ud83d\ude00"}`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":{"b":1,"b":2}}`,
	`{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":+1}`, `{"a":1e}`, `{"a":1e999}`, `{"a":nul}`, `{"a":tru}`, `{"a":"x}`, "{\"a\":\"\n\"}", `{"a":"\x"}`,
	`{"a":1,}`, `{"a"}`, `{"a":}`, `{,}`, `{"a":[1,]}`, `{"a":[}`, `{"a":1}}`, `{"a":1} x`, `{"a":1}{}`, `[]`, `1`, `null`, ``, `{"":""}`, `{"a":"\"}`,
	"{\"a\":1}\x00",
	strings.Repeat(`{"a":`, 150) + `1` + strings.Repeat(`}`, 150),
	`{"a":` + strings.Repeat(`[`, 150) + strings.Repeat(`]`, 150) + `}`,
}

// check compares Read with the library's strict decoding.
func check(t *testing.T, text string) (read bool) {
	t.Helper()
	got, ok := jsonvalue.Read([]byte(text))
	var want map[string]any
	strict, err := kjson.UnmarshalStrict([]byte(text), &want)
	if !ok {
		return false
	}
	if err != nil || len(strict) > 0 {
		t.Fatalf("%q was read: %v %v", text, err, strict)
	}
	if !reflect.DeepEqual(want, got) { // cmp.Diff takes forever on what is deep
		t.Fatalf("%q is read as %v, not as %v", text, got, want)
	}
	wrote, err := jsonvalue.Append(nil, got)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	library, err := json.Marshal(got)
	if err != nil || string(library) != string(wrote) {
		t.Fatalf("%q is written as %s, not as %s: %v", text, wrote, library, err)
	}
	again, _ := jsonvalue.Read(wrote)
	if !strings.Contains(text, ".") && !strings.ContainsAny(text, "eE") && !jsonvalue.Equal(again, got) {
		t.Fatalf("%q is not equal to itself", text)
	}
	return true
}

func TestRead(t *testing.T) {
	for _, text := range texts {
		read := check(t, text)
		var want map[string]any
		strict, err := kjson.UnmarshalStrict([]byte(text), &want)
		fine := err == nil && len(strict) == 0 && want != nil && !strings.Contains(text, "\xff")
		if read != fine {
			t.Errorf("%q: read is %v; the library says %v %v", text, read, err, strict)
		}
	}
	deep := strings.Repeat(`{"a":`, 5000) + `1` + strings.Repeat(`}`, 5000)
	if _, ok := jsonvalue.Read([]byte(deep)); ok {
		t.Error("a nesting of 5000 was read")
	}
}

func FuzzRead(f *testing.F) {
	for _, text := range texts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { check(t, text) })
}

func TestAppend(t *testing.T) {
	for _, v := range []any{nil, "", "a", "<>&\u2028\x7f\x00\xff", int64(-5), 2.5, 1e21, true, []any(nil), map[string]any(nil), []any{}, map[string]any{},
		map[string]any{"b": map[string]any{"z": nil, "y": []any{"x"}}, "a": int64(1), "c<": "d"}, int32(4), []string{"x"}, json.Number("12")} {
		got, err := jsonvalue.Append([]byte("x"), v)
		want, wantErr := json.Marshal(v)
		if string(got) != "x"+string(want) || err != nil || wantErr != nil {
			t.Errorf("%#v is written as %s, not as %s: %v %v", v, got, want, err, wantErr)
		}
	}
	if _, err := jsonvalue.Append(nil, map[string]any{"a": math.NaN()}); err == nil {
		t.Error("NaN was written")
	}
}

func TestEqual(t *testing.T) {
	values := []any{nil, "", "a", int64(1), 1.0, 2.5, true, false, []any{"a"}, []any{"b"}, []any{"a", "b"}, []any{},
		map[string]any{}, map[string]any{"a": nil}, map[string]any{"b": nil}, map[string]any{"a": int64(1)}, int32(1)}
	for i, a := range values {
		for j, b := range values {
			if jsonvalue.Equal(a, b) != (i == j) {
				t.Errorf("%#v and %#v: equal is %v", a, b, i != j)
			}
		}
	}
	if !jsonvalue.Equal([]any(nil), []any{}) || !jsonvalue.Equal(map[string]any{}, map[string]any(nil)) {
		t.Error("nil is not empty")
	}
}
