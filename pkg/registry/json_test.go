package registry

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"coracle/pkg/resource"
)

func TestScanJSON(t *testing.T) {
	text := `{"apiVersion":"e/v1","kind":"K","metadata":{"name":"a\u0062","namespace":"n","uid":"u","labels":{"x":"y"},"deletionTimestamp":"2020-01-01T00:00:00Z"},"spec":[1,-2.5e3,{"a":null}]}`
	m, err := scanJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if m.apiVersion != "e/v1" || m.kind != "K" || m.name != "ab" || m.namespace != "n" || m.uid != "u" || m.labels["x"] != "y" || !m.deleting {
		t.Errorf("found %+v", m)
	}
	for _, bad := range []string{
		``, `[]`, `{}`, `{"metadata":1}`, `{"metadata":{}`, `{"metadata":{}} x`, `{"metadata":{},}`, `{"metadata":{"name":1}}`,
		`{"metadata":{},"a":01}`, `{"metadata":{},"a":"\x"}`, `{"metadata":{},"a":tru}`, "{\"metadata\":{},\"a\":\"\n\"}",
		`{"metadata":{},"a":` + strings.Repeat("[", maxJSONDepth+2) + strings.Repeat("]", maxJSONDepth+2) + `}`,
	} {
		if _, err := scanJSON([]byte(bad)); err == nil {
			t.Errorf("%.60q is accepted", bad)
		}
	}
}

func TestSpliceJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{"metadata":{}}`:                                `{"metadata":{"resourceVersion":"7"}}`,
		`{"metadata":{"name":"a"}}`:                      `{"metadata":{"resourceVersion":"7","name":"a"}}`,
		`{"metadata":{"resourceVersion":"12","name":1}}`: `{"metadata":{"resourceVersion":"7","name":1}}`,
	} {
		m, err := scanJSON([]byte(strings.Replace(in, "1}}", `"x"}}`, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(spliceJSON([]byte(in), m, 7)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// FuzzScanJSON: what the scanner accepts is JSON, and splicing changes the
// revision alone.
func FuzzScanJSON(f *testing.F) {
	for _, seed := range []string{
		`{"apiVersion":"e/v1","kind":"K","metadata":{"name":"a","labels":{"x":"y"}},"spec":{"n":[1,2.5e-3,true,null]}}`,
		`{"metadata":{"resourceVersion":"9"}}`, `{"metadata":{"deletionTimestamp":null}}`, ` { "metadata" : { } } `, `{"metadata":{"name":"\ud800"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := scanJSON(data)
		if err != nil {
			return // the library is laxer about types and repeated fields
		}
		if !json.Valid(data) {
			t.Fatalf("%q is accepted and is not JSON", data)
		}
		spliced := spliceJSON(data, m, 42)
		again, err := scanJSON(spliced)
		if err != nil {
			t.Fatalf("%q: after splicing %q: %v", data, spliced, err)
		}
		if version, err := text(again.version.of(spliced)); err != nil || version != "42" {
			t.Fatalf("%q: after splicing %q: version %q", data, spliced, version)
		}
		if again.name != m.name || again.uid != m.uid || len(again.labels) != len(m.labels) {
			t.Fatalf("%q: splicing changed the metadata: %+v, %+v", data, m, again)
		}
		sameWhenOwn(t, data)
	})
}

// sameWhenOwn encodes an object as this server does: then a look at its beginning
// finds what a pass over all of it finds.
func sameWhenOwn(t *testing.T, data []byte) {
	u, err := decodeValue(data)
	if err != nil {
		return
	}
	if _, ok := u.Object["metadata"].(map[string]any); !ok {
		return
	}
	own, err := marshalCustom(u)
	if err != nil {
		return
	}
	whole, err := scanJSON(own)
	begin, beginErr := scanOwn(own, "")
	if diff := cmp.Diff(whole, begin, cmp.AllowUnexported(jsonMeta{}, span{})); diff != "" || (err == nil) != (beginErr == nil) {
		t.Fatalf("%q: its beginning tells otherwise (%v, %v):\n%s", own, err, beginErr, diff)
	}
	if err != nil {
		return
	}
	value := spliceJSON(own, whole, 7)
	revised, err := reviseJSON(&resource.Resource{}, value, 1234)
	if want := spliceJSON(own, whole, 1234); err != nil || !bytes.Equal(revised, want) {
		t.Fatalf("%q at another revision: %q, want %q (%v)", value, revised, want, err)
	}
}
