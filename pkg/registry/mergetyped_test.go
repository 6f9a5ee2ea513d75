package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"coracle/pkg/registry/wirejson"
	"coracle/pkg/resource"
	"coracle/pkg/storage/cache"
)

// storedExample is an object of the table's examples as the cache has it.
type storedExample struct {
	res  *resource.Resource
	obj  *cache.Object
	doc  map[string]any // its JSON
	plan *wirejson.Plan
}

func storedExamples(t testing.TB, d *Decoder) (out []storedExample) {
	t.Helper()
	for _, res := range resource.Builtin().All() {
		name := res.Plural
		if res.Group != "" {
			name += "." + res.Group
		}
		data, err := os.ReadFile("../resource/testdata/kinds/" + name + ".yaml")
		if errors.Is(err, os.ErrNotExist) || res.StoredJSON {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		doc, err := yaml.YAMLToJSON(data)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, storeExample(t, d, res, doc))
	}
	if len(out) < 40 {
		t.Fatalf("only %d examples", len(out))
	}
	return out
}

func storeExample(t testing.TB, d *Decoder, res *resource.Resource, doc []byte) storedExample {
	t.Helper()
	obj, err := d.Decode(doc, JSON, res.GVK(), Ignore, func(string) {})
	if err != nil {
		t.Fatal(res.Kind, err)
	}
	if res.Default != nil {
		res.Default(obj)
	}
	value, err := Encode(res, obj)
	if err != nil {
		t.Fatal(res.Kind, err)
	}
	o, err := unstored(res, "key", value, "")
	if err != nil {
		t.Fatal(res.Kind, err)
	}
	e := storedExample{res: res, obj: o, plan: compiled(res.New())}
	text, err := ItemJSON(res, e.plan, o)
	if err == nil {
		err = json.Unmarshal(text, &e.doc)
	}
	if err != nil {
		t.Fatal(res.Kind, err)
	}
	return e
}

// merged applies a patch both ways. What the short one accepts is what the patch
// makes of the JSON, of which strict decoding finds nothing to say.
func (e *storedExample) merged(t *testing.T, d *Decoder, patch []byte) (accepted bool) {
	t.Helper()
	shared, err := Decode(e.res, e.obj.Value)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := mergePlain(d, e.res, shared, patch)
	if after, err := Encode(e.res, shared); err != nil || !bytes.Equal(after, mustEncode(t, e.res, e.obj)) {
		t.Fatalf("%s: %s changed the object that it was applied to a copy of (%v)", e.res.Kind, patch, err)
	}
	if !ok {
		return false
	}
	p := &patcher{d: d, req: Request{Resource: e.res}, patch: patch}
	bare, err := ItemJSON(e.res, e.plan, e.obj)
	if err != nil {
		t.Fatal(err)
	}
	out, err := mergePatch(p.document(bare), patch)
	if err != nil {
		t.Fatalf("%s: %s is accepted: %v", e.res.Kind, patch, err)
	}
	want, err := d.Decode(out, JSON, e.res.GVK(), Strict, func(string) {})
	if err != nil {
		t.Fatalf("%s: %s is accepted: %v", e.res.Kind, patch, err)
	}
	if g, w := encoded(t, e.res, got), encoded(t, e.res, want); !bytes.Equal(g, w) {
		a, _ := json.Marshal(want)
		b, _ := json.Marshal(got)
		t.Fatalf("%s: %s makes\n%s, by the JSON\n%s", e.res.Kind, patch, b, a)
	}
	return true
}

func encoded(t *testing.T, res *resource.Resource, obj runtime.Object) []byte {
	t.Helper()
	value, err := Encode(res, obj)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func mustEncode(t *testing.T, res *resource.Resource, o *cache.Object) []byte {
	t.Helper()
	obj, err := Decode(res, o.Value)
	if err != nil {
		t.Fatal(err)
	}
	return encoded(t, res, obj)
}

// somePatch makes a patch out of a part of a document.
func somePatch(random *rand.Rand, doc map[string]any, texts []string) map[string]any {
	out := map[string]any{}
	for name, v := range doc {
		switch n := random.IntN(12); {
		case n < 6:
			continue
		case n == 6:
			out[name] = nil
		case n == 7:
			out[name] = texts[random.IntN(len(texts))]
		default:
			if inner, ok := v.(map[string]any); ok {
				out[name] = somePatch(random, inner, texts)
			} else {
				out[name] = v
			}
		}
	}
	if random.IntN(6) == 0 {
		out[texts[random.IntN(len(texts))]] = texts[random.IntN(len(texts))]
	}
	return out
}

// without is a document with some of its members.
func without(random *rand.Rand, v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, inner := range v {
			if name == "apiVersion" || name == "kind" || random.IntN(4) > 0 {
				out[name] = without(random, inner)
			}
		}
		return out
	case []any:
		out := []any{}
		for _, inner := range v {
			out = append(out, without(random, inner))
		}
		return out
	}
	return v
}

// TestMergeTyped: patches of every kind, made of parts of its example, on objects
// that lack some of it.
func TestMergeTyped(t *testing.T) {
	d := NewDecoder(resource.Builtin().Scheme())
	random := rand.New(rand.NewPCG(3, 4))
	texts := []string{"", "a", "100m", "2024-02-03T04:05:06Z", "x-y"}
	accepted, all := 0, 0
	for _, whole := range storedExamples(t, d) {
		for range 60 {
			part, err := json.Marshal(without(random, whole.doc))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.Decode(part, JSON, whole.res.GVK(), Ignore, func(string) {}); err != nil {
				continue
			}
			e := storeExample(t, d, whole.res, part)
			patch, err := json.Marshal(somePatch(random, whole.doc, texts))
			if err != nil {
				t.Fatal(err)
			}
			if all++; e.merged(t, d, patch) {
				accepted++
			}
		}
	}
	if accepted < all/4 {
		t.Errorf("only %d of %d patches were plain", accepted, all)
	}
	t.Logf("%d of %d patches were plain", accepted, all)
}

// FuzzMergeTyped: patches of all kinds, changed at will.
func FuzzMergeTyped(f *testing.F) {
	d := NewDecoder(resource.Builtin().Scheme())
	examples := storedExamples(f, d)
	for i, e := range examples {
		doc, err := json.Marshal(e.doc)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), doc)
		f.Add(uint8(i), []byte(`{"metadata":{"labels":{"a":"b","c":null},"annotations":null,"name":"x"},"spec":null}`))
	}
	f.Fuzz(func(t *testing.T, i uint8, patch []byte) {
		if len(patch) < 16<<10 {
			examples[int(i)%len(examples)].merged(t, d, patch)
		}
	})
}
