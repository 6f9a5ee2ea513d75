package custom

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/cel/common"
)

// dice makes random schemas, and values that mostly fit them.
type dice struct{ *rand.Rand }

func (d dice) one(n int) bool { return d.Intn(n) == 0 }

func pick[T any](d dice, list ...T) T { return list[d.Intn(len(list))] }

func ptr[T any](v T) *T { return &v }

var dieNames = []string{"a", "b", "c", "d"}

func (d dice) schema(depth int) *apiextensionsv1.JSONSchemaProps {
	s := &apiextensionsv1.JSONSchemaProps{Nullable: d.one(5)}
	kinds := []string{"string", "integer", "number", "boolean", "intorstring", "any"}
	if depth > 0 {
		kinds = append(kinds, "object", "object", "object", "array", "array")
	}
	switch pick(d, kinds...) {
	case "string":
		s.Type = "string"
		s.Format = pick(d, "", "", "", "date-time", "ipv4", "byte", "unheard-of")
	case "integer":
		s.Type = "integer"
		s.Format = pick(d, "", "int32", "int64")
	case "number":
		s.Type = "number"
		s.Format = pick(d, "", "float", "double")
	case "boolean":
		s.Type = "boolean"
	case "intorstring":
		s.XIntOrString = true
		if d.one(2) {
			s.AnyOf = []apiextensionsv1.JSONSchemaProps{{Type: "integer"}, {Type: "string"}}
		}
	case "any":
		s.XPreserveUnknownFields = ptr(true)
	case "array":
		s.Type = "array"
		d.list(s, depth)
	case "object":
		s.Type = "object"
		d.object(s, depth)
	}
	d.bounds(s)
	if s.XPreserveUnknownFields == nil && s.Type != "" && d.one(4) {
		d.junctors(s)
	}
	if d.one(5) && s.Type != "" {
		s.Default = d.jsonOf(d.value(s, 2))
	}
	return s
}

func (d dice) jsonOf(v any) *apiextensionsv1.JSON {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return &apiextensionsv1.JSON{Raw: raw}
}

func (d dice) list(s *apiextensionsv1.JSONSchemaProps, depth int) {
	item := d.schema(depth - 1)
	switch {
	case d.one(4) && (item.Type == "string" || item.Type == "integer"):
		s.XListType = ptr("set")
		item.Nullable = false
	case d.one(2) && item.Type == "object":
		s.XListType, item.Nullable = ptr("map"), false
		item.AdditionalProperties, item.Default = nil, nil
		if item.Properties == nil {
			item.Properties = map[string]apiextensionsv1.JSONSchemaProps{}
		}
		for _, key := range dieNames[:1+d.Intn(2)] {
			item.Properties[key] = apiextensionsv1.JSONSchemaProps{Type: pick(d, "string", "integer")}
			item.Required = append(item.Required, key)
			s.XListMapKeys = append(s.XListMapKeys, key)
		}
	}
	s.Items = &apiextensionsv1.JSONSchemaPropsOrArray{Schema: item}
}

func (d dice) object(s *apiextensionsv1.JSONSchemaProps, depth int) {
	switch d.Intn(6) {
	case 0:
		s.AdditionalProperties = &apiextensionsv1.JSONSchemaPropsOrBool{Allows: true, Schema: d.schema(depth - 1)}
		return
	case 1:
		s.AdditionalProperties = &apiextensionsv1.JSONSchemaPropsOrBool{Allows: true}
		return
	case 2:
		s.XPreserveUnknownFields = ptr(true)
	}
	s.Properties = map[string]apiextensionsv1.JSONSchemaProps{}
	for _, name := range dieNames[:1+d.Intn(len(dieNames))] {
		s.Properties[name] = *d.schema(depth - 1)
		if d.one(4) {
			s.Required = append(s.Required, name)
		}
	}
}

// bounds adds what values of the type are checked for.
func (d dice) bounds(s *apiextensionsv1.JSONSchemaProps) {
	size := func() *int64 {
		if d.one(3) {
			return ptr(int64(d.Intn(4)))
		}
		return nil
	}
	number := func() *float64 {
		if d.one(3) {
			return ptr(pick(d, 0, 1, 2, 5, -3, 0.5, 2.5, 1e10, 1e300, -1e300))
		}
		return nil
	}
	switch s.Type {
	case "string":
		s.MinLength, s.MaxLength = size(), size()
		s.Pattern = pick(d, "", "", "^[a-z]*$", "x")
		if d.one(4) {
			s.Enum = []apiextensionsv1.JSON{*d.jsonOf("x"), *d.jsonOf("text"), *d.jsonOf("")}
		}
	case "integer", "number":
		s.Minimum, s.Maximum, s.ExclusiveMinimum, s.ExclusiveMaximum = number(), number(), d.one(3), d.one(3)
		if d.one(4) {
			s.MultipleOf = ptr(pick(d, 1.0, 2, 0.5, 3, 0.1))
		}
		if d.one(4) {
			s.Enum = []apiextensionsv1.JSON{*d.jsonOf(1), *d.jsonOf(2.5), *d.jsonOf(-3)}
		}
	case "array":
		s.MinItems, s.MaxItems = size(), size()
	case "object":
		s.MinProperties, s.MaxProperties = size(), size()
	}
}

// junctors adds one, of schemas that only judge.
func (d dice) junctors(s *apiextensionsv1.JSONSchemaProps) {
	branch := func() apiextensionsv1.JSONSchemaProps {
		b := apiextensionsv1.JSONSchemaProps{}
		if s.Type == "object" {
			for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
				p := s.Properties[name]
				if d.one(2) {
					b.Required = append(b.Required, name)
				}
				if d.one(2) {
					inner := apiextensionsv1.JSONSchemaProps{Type: p.Type}
					d.bounds(&inner)
					inner.Type = ""
					b.Properties = map[string]apiextensionsv1.JSONSchemaProps{name: inner}
				}
			}
		}
		inner := apiextensionsv1.JSONSchemaProps{Type: s.Type}
		d.bounds(&inner)
		inner.Type, inner.Required, inner.Properties = "", b.Required, b.Properties
		return inner
	}
	branches := []apiextensionsv1.JSONSchemaProps{branch(), branch()}
	switch d.Intn(4) {
	case 0:
		s.AllOf = branches
	case 1:
		s.AnyOf = branches
	case 2:
		s.OneOf = branches
	default:
		s.Not = &branches[0]
	}
}

// value makes a value that mostly fits a schema.
func (d dice) value(s *apiextensionsv1.JSONSchemaProps, depth int) any {
	if d.one(40) || s == nil {
		return d.anything(2)
	}
	if d.one(25) {
		return nil
	}
	if len(s.Enum) > 0 && !d.one(5) {
		var v any
		if err := json.Unmarshal(pick(d, s.Enum...).Raw, &v); err != nil {
			panic(err)
		}
		if f, ok := v.(float64); ok && f == float64(int64(f)) && d.one(2) {
			return int64(f)
		}
		return v
	}
	switch s.Type {
	case "string":
		return pick(d, "", "x", "xy", "text", "ABC", "äöü", "10.0.0.1", "2024-02-03T04:05:06Z", "eA==")
	case "integer":
		return pick[any](d, int64(0), int64(1), int64(2), int64(-3), int64(6), int64(1<<40), int64(1)<<62, 3.0, 2.5)
	case "number":
		return pick[any](d, int64(1), int64(2), 0.5, 2.5, 1.0, -3.0, 1e300, int64(6))
	case "boolean":
		return d.one(2)
	case "array":
		out := []any{}
		for range d.Intn(4) {
			out = append(out, d.value(s.Items.Schema, depth-1))
		}
		return out
	case "object":
		out := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			p := s.Properties[name]
			if !d.one(4) {
				out[name] = d.value(&p, depth-1)
			}
		}
		if a := s.AdditionalProperties; a != nil {
			for _, name := range dieNames[:d.Intn(3)] {
				out[name] = d.value(a.Schema, depth-1)
			}
		}
		if d.one(12) {
			out[pick(d, "z", "kind", "metadata")] = d.anything(1)
		}
		return out
	}
	if s.XIntOrString {
		return pick[any](d, int64(1), "x", 1.5)
	}
	return d.anything(depth)
}

func (d dice) anything(depth int) any {
	if depth > 0 && d.one(2) {
		if d.one(2) {
			return []any{d.anything(depth - 1)}
		}
		return map[string]any{pick(d, dieNames...): d.anything(depth - 1)}
	}
	return pick[any](d, "x", int64(1), 1.5, true, nil)
}

// altered is a copy of an object with other values here and there.
func (d dice) altered(s *apiextensionsv1.JSONSchemaProps, v map[string]any) map[string]any {
	out := runtime.DeepCopyJSON(v)
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name]
		if d.one(3) {
			out[name] = d.value(&p, 3)
		}
	}
	return out
}

// compileDie makes a definition of a random schema; nil when the library
// refuses it.
func compileDie(d dice) (*apiextensionsv1.JSONSchemaProps, *compiled, *library) {
	s := d.schema(3)
	for s.Type != "object" || s.Properties == nil {
		s = d.schema(3)
	}
	s.Default, s.Nullable = nil, false
	crd := &apiextensionsv1.CustomResourceDefinition{Spec: apiextensionsv1.CustomResourceDefinitionSpec{
		Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: s}}},
	}}
	load := func() (*apiextensionsv1.CustomResourceDefinition, error) { return crd, nil }
	c, err := compile(crd, "v1", load)
	if err != nil {
		return nil, nil, nil
	}
	lib, err := c.library()
	if err != nil {
		return nil, nil, nil
	}
	return s, c, lib
}

// verdicts are how often an object was as the library wants it, and how often
// the shape saw that.
type verdicts struct{ valid, sawValid, tidy, sawTidy int }

// compare lets library and shape judge random objects of a random schema.
func compare(t *testing.T, seed int64, count *verdicts) {
	d := dice{rand.New(rand.NewSource(seed))}
	s, c, lib := compileDie(d)
	if s == nil {
		return
	}
	describe := func(v any) string {
		schema, _ := json.Marshal(s)
		value, _ := json.Marshal(v)
		return fmt.Sprintf("seed %d, schema %s, value %s", seed, schema, value)
	}
	old := map[string]any(nil)
	for range 6 {
		obj, ok := d.value(s, 4).(map[string]any)
		if !ok {
			continue
		}
		if old != nil && d.one(2) {
			obj = d.altered(s, old)
		}
		valid := len(validation.ValidateCustomResource(nil, obj, lib.whole)) == 0 && len(listtype.ValidateListSetsAndMaps(nil, lib.structural, obj)) == 0
		fine := c.shape.valid(obj) && c.shape.unique(obj)
		if fine && !valid {
			t.Fatalf("the library refuses what the shape takes: %s: %v %v", describe(obj), validation.ValidateCustomResource(nil, obj, lib.whole),
				listtype.ValidateListSetsAndMaps(nil, lib.structural, obj))
		}
		if valid {
			count.valid++
		}
		if fine {
			count.sawValid++
		}
		if old != nil && fine && !c.deep {
			unchanged := common.NewCorrelatedObject(obj, old, &model.Structural{Structural: lib.structural})
			if errs := validation.ValidateCustomResourceUpdate(nil, obj, old, lib.whole, validation.WithRatcheting(unchanged)); len(errs) > 0 {
				t.Fatalf("the library refuses the update of %v: %s: %v", old, describe(obj), errs)
			}
		}
		old = obj
		compareTidy(t, c, lib, obj, describe, count)
	}
}

// compareTidy prunes and defaults an object both ways.
func compareTidy(t *testing.T, c *compiled, lib *library, obj map[string]any, describe func(any) string, count *verdicts) {
	t.Helper()
	pruned := runtime.DeepCopyJSON(obj)
	pruning.Prune(pruned, lib.structural, true)
	defaulting.PruneNonNullableNullsWithoutDefaults(pruned, lib.structural)
	same := reflect.DeepEqual(pruned, obj)
	saw := c.shape.tidy(obj)
	if saw && !same {
		t.Fatalf("the library drops something: %s becomes %v", describe(obj), pruned)
	}
	if same {
		count.tidy++
	}
	if saw {
		count.sawTidy++
	}
	mine, theirs := runtime.DeepCopyJSON(obj), runtime.DeepCopyJSON(obj)
	c.shape.fill(mine)
	defaulting.Default(theirs, lib.structural)
	if diff := cmp.Diff(theirs, mine); diff != "" {
		t.Fatalf("defaults differ: %s: %s", describe(obj), diff)
	}
}

func TestShapeAgreesWithLibrary(t *testing.T) {
	var count verdicts
	for seed := range int64(2000) {
		compare(t, seed, &count)
	}
	t.Logf("%+v", count)
	if count.valid < 1000 || count.sawValid*10 < count.valid*9 || count.tidy < 1000 || count.sawTidy*100 < count.tidy*98 {
		t.Errorf("the shape sees too little: %+v", count)
	}
}

func FuzzShape(f *testing.F) {
	f.Add(int64(-1))
	f.Fuzz(func(t *testing.T, seed int64) { compare(t, seed, &verdicts{}) })
}

// TestPlainMeta: what is called plain stays as it is when the library reads and
// writes it.
func TestPlainMeta(t *testing.T) {
	plain := 0
	for seed := range int64(20000) {
		d := dice{rand.New(rand.NewSource(seed))}
		meta := d.metadata()
		if !plainMeta(meta) {
			continue
		}
		plain++
		obj := map[string]any{"metadata": runtime.DeepCopyJSON(meta)}
		got, _, unknown, err := objectmeta.GetObjectMetaWithOptions(obj, objectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: true})
		if err != nil || len(unknown) > 0 {
			t.Fatalf("%v: %v %v", meta, err, unknown)
		}
		if err := objectmeta.SetObjectMeta(obj, got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(meta, obj["metadata"]); diff != "" {
			t.Fatalf("seed %d: %v: %s", seed, meta, diff)
		}
	}
	if plain < 2000 {
		t.Errorf("only %d were plain", plain)
	}
}

// metadata makes metadata with few mistakes.
func (d dice) metadata() map[string]any {
	when := func() any {
		return pick[any](d, "2024-02-03T04:05:06Z", "2024-02-03T04:05:06Z", "2024-02-30T04:05:06Z", "2024-02-03T04:05:06.5Z", "2024-02-03T04:05:06+01:00", "0001-01-01T00:00:00Z", nil)
	}
	texts := func() any {
		return pick[any](d, map[string]any{"a": "b", "c": ""}, map[string]any{"a": "b"}, map[string]any{}, map[string]any{"a": int64(1)}, nil)
	}
	owner := map[string]any{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}
	if d.one(3) {
		delete(owner, pick(d, "uid", "kind", "controller"))
	}
	entry := map[string]any{"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "time": when(),
		"fieldsV1": pick[any](d, map[string]any{"f:a": map[string]any{}}, map[string]any{}, map[string]any{"f:a": 1.0}, map[string]any{"x": []any{nil, int64(1)}}, "x", nil)}
	if d.one(3) {
		delete(entry, pick(d, "manager", "time", "fieldsV1", "operation"))
	}
	all := map[string]any{
		"name": "n", "generateName": pick[any](d, "x", ""), "namespace": "ns", "uid": pick[any](d, "u", int64(1)), "resourceVersion": "7",
		"generation": pick[any](d, int64(1), int64(0), 1.5), "deletionGracePeriodSeconds": pick[any](d, int64(0), int64(5)),
		"creationTimestamp": when(), "deletionTimestamp": when(), "labels": texts(), "annotations": texts(),
		"finalizers": pick[any](d, []any{"a"}, []any{}, []any{int64(1)}), "ownerReferences": []any{owner}, "managedFields": []any{entry}, "what": "x",
	}
	out := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if d.one(5) {
			out[name] = all[name]
		}
	}
	return out
}
