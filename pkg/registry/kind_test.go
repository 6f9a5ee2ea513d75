package registry

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"

	"coracle/pkg/resource"
)

// oddBodies are what the two ways to find a kind could tell apart.
var oddBodies = []string{
	``, `{}`, `[]`, `null`, ` { } `, `{"kind":"Pod"}`, `{"kind":"Pod","apiVersion":"v1"} `, `{"kind":"Pod","apiVersion":"v1"}x`,
	`{"Kind":"Secret","kind":"Pod"}`, `{"kind":"Secret","kind":"Pod"}`, `{"KIND":"Pod"}`, `{"\u212aind":"Pod"}`, `{"kind":null}`, `{"kind":1}`,
	`{"kind":"P\u006fd"}`, `{"k\u0069nd":"Secret"}`, `{"apiVersion":"a/b/c","kind":"Pod"}`, `{"apiVersion":"v2","kind":"Pod"}`, `{"spec":{"kind":"x"}}`,
	`{"metadata":{"name":"a\"}","labels":{"a":"\\"}},"kind":"Secret"}`, `{"metadata":[}],"kind":"Pod"}`, `{"kind":"Pod","kind2":}`, `{"kind":"Pod",}`,
	`{"spec":{"containers":[{"name":"a","name":"b","nme":"c"}],"containers":[]}}`, `{"unknown":1,"unknown":2}`, `{"metadata":{"name":7}}`,
}

// decoders are ours and one that is the library's serializers throughout.
type decoders struct{ ours, library *Decoder }

func newDecoders() decoders {
	scheme := resource.Builtin().Scheme()
	library := NewDecoder(scheme)
	for media, yaml := range map[MediaType]bool{JSON: false, YAML: true} {
		library.strict[media] = kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, scheme, scheme, kjson.SerializerOptions{Yaml: yaml, Strict: true})
	}
	return decoders{NewDecoder(scheme), library}
}

// compare holds ours to the library's object, error and findings.
func (d decoders) compare(t *testing.T, data []byte) {
	t.Helper()
	if gvk, ok := scanKind(data); ok && json.Valid(data) {
		want, err := kjson.DefaultMetaFactory.Interpret(data)
		if err != nil || *want != gvk {
			t.Fatalf("%q is a %v, %v by the library, found %v", data, want, err, gvk)
		}
	}
	pod := schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	for _, media := range []MediaType{JSON, YAML} {
		for _, v := range []Validation{Warn, Strict} {
			var warned, wantWarned []string
			obj, err := d.ours.Decode(data, media, pod, v, func(s string) { warned = append(warned, s) })
			want, wantErr := d.library.Decode(data, media, pod, v, func(s string) { wantWarned = append(wantWarned, s) })
			if !reflect.DeepEqual(obj, want) || !reflect.DeepEqual(warned, wantWarned) {
				t.Fatalf("%q decodes to %v with %q, by the library to %v with %q", data, obj, warned, want, wantWarned)
			}
			if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
				t.Fatalf("%q fails with %v, by the library with %v", data, err, wantErr)
			}
		}
	}
}

// TestDecodeEqualsLibrary compares bodies that were damaged at random.
func TestDecodeEqualsLibrary(t *testing.T) {
	d, r := newDecoders(), rand.New(rand.NewPCG(1, 2))
	marks := "{}[]\",: \\k1"
	all := [][]byte{}
	for _, b := range oddBodies {
		all = append(all, []byte(b))
		d.compare(t, []byte(b))
	}
	for _, b := range bodies(t) {
		all = append(all, b)
		d.compare(t, b)
	}
	for range 400 {
		body := bytes.Clone(all[r.IntN(len(all))])
		for range 1 + r.IntN(2) {
			from := r.IntN(len(body) + 1)
			to := from + r.IntN(min(len(body)-from, 12)+1)
			part := bytes.Clone(body[from:to])
			switch r.IntN(3) {
			case 0:
				part = nil
			case 1:
				part = append(part, part...)
			case 2:
				part = append(part, marks[r.IntN(len(marks))])
			}
			body = slices.Concat(body[:from], part, body[to:])
		}
		d.compare(t, body)
	}
}

// FuzzDecode is the same for any bytes.
func FuzzDecode(f *testing.F) {
	for _, b := range oddBodies {
		f.Add([]byte(b))
	}
	d := newDecoders()
	f.Fuzz(func(t *testing.T, data []byte) { d.compare(t, data) })
}
