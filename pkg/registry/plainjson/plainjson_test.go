package plainjson_test

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"coracle/pkg/registry/plainjson"
	"coracle/pkg/resource"
)

// examples are the JSON of one object of each kind of the table.
func examples(t testing.TB) map[*resource.Resource][]byte {
	t.Helper()
	out := map[*resource.Resource][]byte{}
	for _, res := range resource.Builtin().All() {
		name := res.Plural
		if res.Group != "" {
			name += "." + res.Group
		}
		data, err := os.ReadFile("../../resource/testdata/kinds/" + name + ".yaml")
		if errors.Is(err, os.ErrNotExist) {
			continue // a kind that is not stored
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[res], err = yaml.YAMLToJSON(data); err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 50 {
		t.Fatalf("only %d examples", len(out))
	}
	return out
}

func compile(t testing.TB, obj any) *plainjson.Plan {
	t.Helper()
	p, err := plainjson.Compile(reflect.TypeOf(obj).Elem())
	if err != nil {
		t.Fatalf("%T: %v", obj, err)
	}
	return p
}

// TestExamples: every kind has a plan, and its example is plain.
func TestExamples(t *testing.T) {
	for res, doc := range examples(t) {
		if res.StoredJSON {
			continue // a schema may be true or an object
		}
		got, want := res.New(), res.New()
		if err := compile(t, got).Decode(doc, got); err != nil {
			t.Errorf("%s: %v", res.Kind, err)
			continue
		}
		if strict, err := kjson.UnmarshalStrict(doc, want); err != nil || len(strict) > 0 {
			t.Fatal(res.Kind, strict, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the library (-), ours (+):\n%s", res.Kind, cmp.Diff(want, got))
		}
	}
}

// same holds Decode against the library: what it accepts, the library finds
// nothing wrong with and decodes to the same.
func same(t *testing.T, p *plainjson.Plan, doc []byte) (accepted bool) {
	t.Helper()
	got, want := &corev1.Pod{}, &corev1.Pod{}
	if p.Decode(doc, got) != nil {
		return false
	}
	if strict, err := kjson.UnmarshalStrict(doc, want); err != nil || len(strict) > 0 {
		t.Fatalf("%s was accepted; the library says %v %v", doc, strict, err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: the library (-), ours (+):\n%s", doc, cmp.Diff(want, got))
	}
	return true
}

var documents = []struct {
	doc   string
	plain bool
}{
	{`{}`, true}, {` { "kind" : "Pod" , "apiVersion":"v1" } `, true}, {`null`, true},
	{`{"metadata":{"creationTimestamp":null,"labels":null,"annotations":{}},"spec":{"containers":null,"volumes":[]},"status":{}}`, true},
	{`{"metadata":{"creationTimestamp":"2026-01-02T03:04:05Z","generation":-3,"labels":{"a":"","b":"ü\n\u0026\/"}}}`, true},
	{`{"spec":{"hostNetwork":true,"priority":null,"terminationGracePeriodSeconds":9007199254740993}}`, true},
	{`{"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":1,"memory":"1Gi"}},"livenessProbe":{"httpGet":{"port":80},"periodSeconds":1}},{"name":"b","livenessProbe":{"tcpSocket":{"port":"x"}}}]}}`, true},
	{`{"metadata":{"managedFields":[{"fieldsV1":{"f:a":{"f:b":{}}},"time":"2026-01-02T03:04:05Z"}]}}`, true},
	{`{"spec":{"overhead":{"cpu":"100m"},"nodeSelector":{"a":"b"},"tolerations":[{"tolerationSeconds":3}]}}`, true},
	{`{"metadata":{"labels":{"a":null,"b\u0041":"x"}}}`, true},
	{``, false}, {`{`, false}, {`{}x`, false}, {`{} {}`, false}, {`[]`, false}, {`{"kind":"Pod",}`, false}, {`{"kind" "Pod"}`, false}, {`{,}`, false},
	{`{"Kind":"Pod"}`, false}, {`{"x":1}`, false}, {`{"kind":"Pod","kind":"Pod"}`, false}, {`{"metadata":{"labels":{"a":"b","a":"c"}}}`, false},
	{`{"kind":1}`, false}, {`{"spec":{"priority":1.0}}`, false}, {`{"spec":{"priority":1e3}}`, false}, {`{"spec":{"priority":99999999999}}`, false},
	{`{"spec":{"priority":01}}`, false}, {`{"spec":{"priority":-}}`, false}, {`{"spec":{"hostNetwork":"true"}}`, false}, {`{"spec":{"hostNetwork":tru}}`, false},
	{"{\"kind\":\"a\xff\"}", false}, {"{\"kind\":\"a\nb\"}", false}, {`{"kind":"\x"}`, false}, {`{"kind":"\ud800"}`, false}, {`{"kind":"\u12"}`, false},
	{`{"metadata":{"creationTimestamp":"yesterday"}}`, false}, {`{"spec":{"overhead":{"cpu":null}}}`, false}, {`{"spec":{"containers":[{},]}}`, false},
	{`{"metadata":{"managedFields":[{"fieldsV1":{"f:a":}}]}}`, false}, {`{"metadata":` + strings.Repeat(`[`, 1000), false},
}

func TestDecode(t *testing.T) {
	p := compile(t, &corev1.Pod{})
	for _, d := range documents {
		if got := same(t, p, []byte(d.doc)); got != d.plain {
			t.Errorf("%.100s: accepted %v", d.doc, got)
		}
	}
}

// TestBytes: base64 is the library's.
func TestBytes(t *testing.T) {
	p := compile(t, &corev1.Secret{})
	for _, doc := range []string{`{"data":{"a":"aGk=","b":"","c":null}}`, `{"data":{"a":"aG\nk="}}`, `{"data":{"a":"%%"}}`} {
		var got, want corev1.Secret
		ours, library := p.Decode([]byte(doc), &got), json.Unmarshal([]byte(doc), &want)
		if (ours == nil) != (library == nil) || ours == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v %v, want %v %v", doc, got, ours, want, library)
		}
	}
}

// TestStringsAreKept: what was decoded does not depend on the document, whether
// that is short enough to be kept as one string or not.
func TestStringsAreKept(t *testing.T) {
	p := compile(t, &corev1.Pod{})
	for _, filler := range []int{0, 64 << 10} {
		doc := []byte(`{"kind":"P\u006fd","metadata":{"name":"na\"me","labels":{"a":"b","c\n":"d","e":"f\t","g":null,"h":""},` +
			`"annotations":{"long":"` + strings.Repeat("x", filler) + `"}},"spec":{"nodeSelector":{"k\\":"v"},"containers":[{"name":"c","args":["\u00e4","ä",""]}]}}`)
		var got, want corev1.Pod
		if err := json.Unmarshal(doc, &want); err != nil {
			t.Fatal(err)
		}
		if err := p.Decode(doc, &got); err != nil {
			t.Fatal(err)
		}
		clear(doc)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("with %d bytes more: %s", filler, diff)
		}
	}
}

// FuzzDecode changes documents at will.
func FuzzDecode(f *testing.F) {
	for _, d := range documents {
		f.Add([]byte(d.doc))
	}
	p := compile(f, &corev1.Pod{})
	for res, doc := range examples(f) {
		if res.Kind == "Pod" {
			f.Add(doc)
		}
	}
	f.Fuzz(func(t *testing.T, doc []byte) { same(t, p, doc) })
}

// BenchmarkDecode compares with the library.
func BenchmarkDecode(b *testing.B) {
	data, err := os.ReadFile("../ownership/testdata/pod.yaml")
	if err != nil {
		b.Fatal(err)
	}
	doc, err := yaml.YAMLToJSON(data)
	if err != nil {
		b.Fatal(err)
	}
	p := compile(b, &corev1.Pod{})
	b.Run("plain", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(doc)))
		for b.Loop() {
			if err := p.Decode(doc, &corev1.Pod{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(doc)))
		for b.Loop() {
			if _, err := kjson.UnmarshalStrict(doc, &corev1.Pod{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
