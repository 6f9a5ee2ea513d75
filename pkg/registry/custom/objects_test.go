package custom

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"coracle/pkg/registry/jsonvalue"
	"coracle/pkg/resource"
)

// thing is a definition with one version for each schema, v1 and on; v1 is
// stored.
func thing(t *testing.T, specs ...string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	names := apiextensionsv1.CustomResourceDefinitionNames{Plural: "things", Singular: "thing", Kind: "Thing", ListKind: "ThingList"}
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "things.example.com", UID: "u", Generation: 1},
		Spec:       apiextensionsv1.CustomResourceDefinitionSpec{Group: "example.com", Names: names, Scope: apiextensionsv1.NamespaceScoped},
		Status:     apiextensionsv1.CustomResourceDefinitionStatus{AcceptedNames: names},
	}
	for i, spec := range specs {
		schema := &apiextensionsv1.JSONSchemaProps{}
		text := fmt.Sprintf(`{"type":"object","properties":{"spec":%s,"status":{"type":"object","properties":{"phase":{"type":"string","maxLength":5}}}}}`, spec)
		if err := json.Unmarshal([]byte(text), schema); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		crd.Spec.Versions = append(crd.Spec.Versions, apiextensionsv1.CustomResourceDefinitionVersion{
			Name: fmt.Sprint("v", i+1), Served: true, Storage: i == 0,
			Schema:       &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: schema},
			Subresources: &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
		})
	}
	return crd
}

// things returns the resources of a definition's versions.
func things(t *testing.T, crd *apiextensionsv1.CustomResourceDefinition, since int64) []*resource.Resource {
	t.Helper()
	d, err := New(crd, Source{Schemas: &Schemas{Limit: 10 << 20}, Since: since, Load: func() (*apiextensionsv1.CustomResourceDefinition, error) {
		return crd.DeepCopy(), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return d.Served()
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	m, ok := jsonvalue.Read([]byte(text))
	if !ok {
		t.Fatalf("%s is not a JSON object", text)
	}
	return m
}

// object is a Thing of version v1 with more fields.
func object(t *testing.T, fields string) *unstructured.Unstructured {
	t.Helper()
	return &unstructured.Unstructured{Object: parse(t, `{"apiVersion":"example.com/v1","kind":"Thing",`+
		`"metadata":{"name":"a","namespace":"default","uid":"1","generation":1},`+fields+`}`)}
}

func texts(errs field.ErrorList) (out []string) {
	for _, e := range errs {
		out = append(out, e.Error())
	}
	slices.Sort(out)
	return out
}

// acceptCase is what happens to a body before it is validated.
type acceptCase struct {
	name, spec string // the schema of spec
	body       string // of spec
	want       string // spec after pruning and defaulting
	unknown    []string
}

var acceptCases = []acceptCase{
	{"unknown fields go", `{"type":"object","properties":{"a":{"type":"object","properties":{"b":{"type":"integer"}}},"l":{"type":"array","items":{"type":"object","properties":{"x":{"type":"string"}}}}}}`,
		`{"a":{"b":1,"c":2},"z":{"y":1},"l":[{"x":"1"},{"w":true,"x":"2"}]}`, `{"a":{"b":1},"l":[{"x":"1"},{"x":"2"}]}`, []string{"spec.a.c", "spec.l[1].w", "spec.z"}},
	{"what is known stays", `{"type":"object","properties":{"a":{"type":"string"}}}`, `{"a":"x"}`, `{"a":"x"}`, nil},
	{"any name of a map", `{"type":"object","additionalProperties":{"type":"object","properties":{"x":{"type":"string"}}}}`,
		`{"one":{"x":"1"},"two":{"y":"2"}}`, `{"one":{"x":"1"},"two":{}}`, []string{"spec.two.y"}},
	{"preserved fields stay, known ones among them are pruned", `{"type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{"a":{"type":"object","properties":{"b":{"type":"string"}}}}}`,
		`{"z":{"y":[1]},"a":{"b":"x","c":"gone"}}`, `{"z":{"y":[1]},"a":{"b":"x"}}`, []string{"spec.a.c"}},
	{"nulls", `{"type":"object","properties":{"gone":{"type":"string"},"stays":{"type":"string","nullable":true},"filled":{"type":"string","default":"d"}}}`,
		`{"gone":null,"stays":null,"filled":null}`, `{"stays":null,"filled":"d"}`, nil},
	{"defaults", `{"type":"object","properties":{"n":{"type":"integer","default":3},"in":{"type":"object","properties":{"s":{"type":"string","default":"x"}}},
		"made":{"type":"object","default":{},"properties":{"s":{"type":"string","default":"y"}}},
		"list":{"type":"array","items":{"type":"object","properties":{"s":{"type":"string","default":"z"}}}},
		"map":{"type":"object","additionalProperties":{"type":"object","properties":{"s":{"type":"string","default":"w"}}}}}}`,
		`{"list":[{},{"s":"own"}],"map":{"a":{}}}`, `{"n":3,"made":{"s":"y"},"list":[{"s":"z"},{"s":"own"}],"map":{"a":{"s":"w"}}}`, nil},
	{"an embedded resource keeps its type and the metadata that there is", `{"type":"object","properties":{"e":{"type":"object","x-kubernetes-embedded-resource":true,"properties":{"data":{"type":"string"}}}}}`,
		`{"e":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","what":"y"},"data":"d","more":1}}`, `{"e":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"data":"d"}}`, []string{"spec.e.more", "spec.e.metadata.what"}},
}

func TestAccept(t *testing.T) {
	for _, c := range acceptCases {
		t.Run(c.name, func(t *testing.T) {
			res := things(t, thing(t, c.spec), 0)[0]
			u := object(t, `"spec":`+c.body)
			unknown, err := res.Custom.Accept(u, true)
			if err != nil {
				t.Fatal(err)
			}
			res.Default(u)
			if diff := cmp.Diff(object(t, `"spec":`+c.want).Object, u.Object); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.unknown, unknown); diff != "" {
				t.Errorf("unknown fields: %s", diff)
			}
			quiet := object(t, `"spec":`+c.body)
			if unknown, err := res.Custom.Accept(quiet, false); err != nil || len(unknown) > 0 {
				t.Errorf("unknown fields that nobody asked for: %v %v", unknown, err)
			}
		})
	}
}

func TestAcceptMetadata(t *testing.T) {
	res := things(t, thing(t, `{"type":"object"}`), 0)[0]
	u := object(t, `"spec":{}`)
	meta := u.Object["metadata"].(map[string]any)
	meta["labels"], meta["what"], meta["annotations"] = map[string]any{"a": "b"}, "x", map[string]any{}
	unknown, err := res.Custom.Accept(u, true)
	if err != nil || !slices.Equal(unknown, []string{"metadata.what"}) {
		t.Errorf("%v %v", unknown, err)
	}
	want := map[string]any{"name": "a", "namespace": "default", "uid": "1", "generation": int64(1), "labels": map[string]any{"a": "b"}}
	if diff := cmp.Diff(want, u.Object["metadata"]); diff != "" {
		t.Error(diff)
	}
	u = object(t, `"spec":{}`)
	u.Object["metadata"].(map[string]any)["labels"] = map[string]any{"a": int64(1)}
	if _, err := res.Custom.Accept(u, true); err == nil || !strings.Contains(err.Error(), "labels") {
		t.Errorf("a label that is a number: %v", err)
	}
}

// checkCase is a write and what is wrong with it.
type checkCase struct {
	name, spec string
	old, new   string // of spec; no old is a create
	want       []string
}

const everyBound = `{"type":"object","required":["n"],"properties":{"n":{"type":"integer","minimum":1,"maximum":9,"multipleOf":2},"s":{"type":"string","maxLength":3,"minLength":2,"pattern":"^[a-z]+$"},
	"e":{"type":"string","enum":["a","b"]},"l":{"type":"array","maxItems":2,"minItems":1,"items":{"type":"boolean"}},"m":{"type":"object","maxProperties":1,"additionalProperties":{"type":"string"}},
	"t":{"type":"string","format":"date-time"},"io":{"x-kubernetes-int-or-string":true},"one":{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}},"oneOf":[{"required":["a"]},{"required":["b"]}]},
	"not":{"type":"string","not":{"enum":["no"]}},"any":{"type":"integer","anyOf":[{"maximum":2},{"minimum":8}]},"null":{"type":"string","nullable":true}}}`

const listTypes = `{"type":"object","properties":{"set":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
	"map":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],"items":{"type":"object","required":["k"],"properties":{"k":{"type":"string"},"v":{"type":"integer"}}}},
	"two":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["p","q"],"items":{"type":"object","required":["p","q"],"properties":{"p":{"type":"integer"},"q":{"type":"string"}}}},"n":{"type":"integer"}}}`

var checkCases = []checkCase{
	{"all is well", everyBound, "", `{"n":4,"s":"ab","e":"a","l":[true],"m":{"x":"y"},"t":"2024-02-03T04:05:06Z","io":"x","one":{"a":"x"},"not":"yes","any":9,"null":null}`, nil},
	{"numbers", everyBound, "", `{"n":11}`, []string{"spec.n: Invalid value: 11: spec.n in body should be a multiple of 2", "spec.n: Invalid value: 11: spec.n in body should be less than or equal to 9"}},
	{"required", everyBound, "", `{}`, []string{"spec.n: Required value"}},
	{"types", everyBound, "", `{"n":"2","l":[1]}`, []string{`spec.l[0]: Invalid value: "integer": spec.l[0] in body must be of type boolean: "integer"`, `spec.n: Invalid value: "string": spec.n in body must be of type integer: "string"`}},
	{"a whole float is an integer", everyBound, "", `{"n":2.0}`, nil},
	{"texts", everyBound, "", `{"n":2,"s":"ABCD","e":"c"}`, []string{"spec.e: Unsupported value: \"c\": supported values: \"a\", \"b\"", "spec.s: Too long: may not be more than 3 bytes"}},
	{"formats", everyBound, "", `{"n":2,"t":"today"}`, []string{`spec.t: Invalid value: "today": spec.t in body must be of type date-time: "today"`}},
	{"sizes", everyBound, "", `{"n":2,"l":[],"m":{"a":"b","c":"d"}}`, []string{"spec.l: Invalid value: 0: spec.l in body should have at least 1 items", "spec.m: Too many: 2: must have at most 1 item"}},
	{"int or string", everyBound, "", `{"n":2,"io":1.5}`, []string{`spec.io: Invalid value: "number": spec.io in body must be of type integer,string: "number"`}},
	{"not", everyBound, "", `{"n":2,"not":"no"}`, []string{`<nil>: Invalid value: "": "spec.not" must not validate the schema (not)`}},
	{"any of", everyBound, "", `{"n":2,"any":5}`, []string{`<nil>: Invalid value: "": "spec.any" must validate at least one schema (anyOf)`, `spec.any: Invalid value: 5: spec.any in body should be less than or equal to 2`}},

	{"lists", listTypes, "", `{"set":["a","b"],"map":[{"k":"a"},{"k":"b"}],"two":[{"p":1,"q":"a"},{"p":1,"q":"b"}]}`, nil},
	{"a set", listTypes, "", `{"set":["a","b","a"]}`, []string{`spec.set[2]: Duplicate value: "a"`}},
	{"a map", listTypes, "", `{"map":[{"k":"a","v":1},{"k":"a","v":2}]}`, []string{`spec.map[1]: Duplicate value: {"k":"a"}`}},
	{"a map of two keys", listTypes, "", `{"two":[{"p":1,"q":"a"},{"p":1,"q":"a"}]}`, []string{`spec.two[1]: Duplicate value: {"p":1,"q":"a"}`}},
	{"a list that was wrong may stay so", listTypes, `{"set":["a","a"]}`, `{"set":["a","a"],"n":1}`, nil},
	{"a list becomes wrong", listTypes, `{"set":["a"]}`, `{"set":["a","a"]}`, []string{`spec.set[1]: Duplicate value: "a"`}},

	{"what was wrong may stay so", everyBound, `{"n":11,"s":"ABCD"}`, `{"n":2,"s":"ABCD"}`, nil},
	{"what was wrong is not changed to something as wrong", everyBound, `{"n":2,"s":"ABCD"}`, `{"n":2,"s":"EFGH"}`, []string{"spec.s: Too long: may not be more than 3 bytes"}},
	{"a required field stays required", everyBound, `{"s":"ab"}`, `{"s":"cd"}`, []string{"spec.n: Required value"}},

	{"an embedded resource", `{"type":"object","properties":{"e":{"type":"object","x-kubernetes-embedded-resource":true,"x-kubernetes-preserve-unknown-fields":true}}}`, "",
		`{"e":{"apiVersion":"a/b/c","metadata":{"name":"a/b"}}}`, []string{
			`spec.e.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c`, `spec.e.kind: Required value`,
			`spec.e.metadata.name: Invalid value: "a/b": may not contain '/'`}},

	{"a rule", `{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}},"x-kubernetes-validations":[{"rule":"self.a <= self.b","message":"a is too large"}]}`, "",
		`{"a":2,"b":1}`, []string{`spec: Invalid value: a is too large`}},
	{"a rule's own words", `{"type":"object","properties":{"a":{"type":"integer"}},"x-kubernetes-validations":[{"rule":"self.a < 3","messageExpression":"'a is ' + string(self.a)","reason":"FieldValueForbidden","fieldPath":".a"}]}`, "",
		`{"a":5}`, []string{`spec.a: Forbidden: a is 5`}},
	{"a rule about the old value", `{"type":"object","properties":{"a":{"type":"integer","x-kubernetes-validations":[{"rule":"self >= oldSelf","message":"may not shrink"}]}}}`, `{"a":5}`,
		`{"a":4}`, []string{`spec.a: Invalid value: 4: may not shrink`}},
	{"a rule about the old value when there is none", `{"type":"object","properties":{"a":{"type":"integer","x-kubernetes-validations":[{"rule":"self >= oldSelf"}]}}}`, "",
		`{"a":4}`, nil},
	{"a rule about an old value that need not be", `{"type":"object","properties":{"a":{"type":"integer","x-kubernetes-validations":[{"rule":"oldSelf.hasValue() || self == 1","optionalOldSelf":true,"message":"begins with 1"}]}}}`, "",
		`{"a":4}`, []string{`spec.a: Invalid value: 4: begins with 1`}},
	{"rules wait for types", `{"type":"object","properties":{"a":{"type":"integer"}},"x-kubernetes-validations":[{"rule":"self.a < 3"}]}`, "",
		`{"a":"x"}`, []string{`<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation`,
			`spec.a: Invalid value: "string": spec.a in body must be of type integer: "string"`}},
	{"a rule that was broken before may stay so", `{"type":"object","properties":{"a":{"type":"integer","x-kubernetes-validations":[{"rule":"self < 3"}]},"b":{"type":"integer"}}}`, `{"a":5}`,
		`{"a":5,"b":1}`, nil},
}

func TestCheck(t *testing.T) {
	for _, c := range checkCases {
		t.Run(c.name, func(t *testing.T) {
			res := things(t, thing(t, c.spec), 0)[0]
			u := object(t, `"spec":`+c.new)
			var errs field.ErrorList
			if c.old == "" {
				errs = res.Check(t.Context(), u, nil, "")
			} else {
				errs = res.Check(t.Context(), u, object(t, `"spec":`+c.old), "")
			}
			want := slices.Sorted(slices.Values(c.want))
			if diff := cmp.Diff(want, texts(errs)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestCostOfRules: a rule that takes too long is stopped.
func TestCostOfRules(t *testing.T) {
	const spec = `{"type":"object","properties":{"l":{"type":"array","items":{"type":"integer"},"x-kubernetes-validations":[{"rule":"self.all(a, self.all(b, self.all(c, a + b + c >= 0)))"}]}}}`
	res := things(t, thing(t, spec), 0)[0]
	list := make([]any, 500)
	for i := range list {
		list[i] = int64(i)
	}
	u := object(t, `"spec":{}`)
	u.Object["spec"] = map[string]any{"l": list}
	errs := res.Check(t.Context(), u, nil, "")
	if len(errs) == 0 || !strings.Contains(errs.ToAggregate().Error(), "cost") {
		t.Errorf("a rule of 125 million steps: %v", errs)
	}
}

// TestStatus: /status is validated by itself.
func TestStatus(t *testing.T) {
	res := things(t, thing(t, everyBound), 0)[0]
	old := object(t, `"spec":{"n":99}`)
	good, bad := object(t, `"spec":{"n":99},"status":{"phase":"good"}`), object(t, `"spec":{"n":99},"status":{"phase":"too long"}`)
	if errs := res.Check(t.Context(), good, old, "status"); len(errs) > 0 {
		t.Error(errs)
	}
	if got := texts(res.Check(t.Context(), bad, old, "status")); !slices.Equal(got, []string{"status.phase: Too long: may not be more than 5 bytes"}) {
		t.Errorf("%q", got)
	}
	written := object(t, `"spec":{"n":1},"status":{"phase":"new"}`)
	res.Prepare(written, old)
	if _, ok := written.Object["status"]; ok || written.GetGeneration() != 2 {
		t.Errorf("a write of spec made %v", written.Object)
	}
	res.PrepareStatus(good, old)
	if n, _, _ := unstructured.NestedInt64(good.Object, "spec", "n"); n != 99 || good.GetGeneration() != 1 {
		t.Errorf("a write of status made %v", good.Object)
	}
}

// TestVersions: objects that were stored by another version or before the
// present schema come out as the present one has them.
func TestVersions(t *testing.T) {
	crd := thing(t, `{"type":"object","properties":{"a":{"type":"integer","default":1},"n":{"type":"integer"}}}`,
		`{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer","default":2}}}`)
	both := things(t, crd, 10)
	stored := object(t, `"spec":{"n":7,"old":true}`)
	stored.SetResourceVersion("5")
	delete(stored.Object["metadata"].(map[string]any), "generation")
	u, err := both[1].Custom.FromStored(stored.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	if u.GetAPIVersion() != "example.com/v2" || u.GetGeneration() != 1 || !cmp.Equal(u.Object["spec"], map[string]any{"a": int64(1)}) {
		t.Errorf("v2 of an old object: %v", u.Object)
	}
	stored.SetResourceVersion("15")
	if u, err = both[0].Custom.FromStored(stored.DeepCopy()); err != nil || !cmp.Equal(u.Object["spec"], stored.Object["spec"]) {
		t.Errorf("what the present schema wrote was changed: %v %v", u, err)
	}
	v2 := object(t, `"spec":{"a":3,"b":4}`)
	v2.SetAPIVersion("example.com/v2")
	if u, err = both[1].Custom.ToStored(v2); err != nil || u.GetAPIVersion() != "example.com/v1" || !cmp.Equal(u.Object["spec"], map[string]any{"a": int64(3)}) {
		t.Errorf("v2 is stored as %v: %v", u, err)
	}
	if _, err := both[0].Custom.FromStored(&unstructured.Unstructured{Object: map[string]any{"apiVersion": "other.com/v1", "kind": "Thing"}}); err == nil {
		t.Error("an object of another group was read")
	}
}

func TestColumns(t *testing.T) {
	crd := thing(t, `{"type":"object","x-kubernetes-preserve-unknown-fields":true}`)
	crd.Spec.Versions[0].AdditionalPrinterColumns = []apiextensionsv1.CustomResourceColumnDefinition{
		{Name: "Text", Type: "string", JSONPath: ".spec.s"}, {Name: "N", Type: "integer", JSONPath: ".spec.n"}, {Name: "F", Type: "number", JSONPath: ".spec.n"},
		{Name: "B", Type: "boolean", JSONPath: ".spec.b"}, {Name: "When", Type: "date", JSONPath: ".spec.t", Priority: 1}, {Name: "Bad", Type: "date", JSONPath: ".spec.s"},
		{Name: "None", Type: "string", JSONPath: ".spec.none"}, {Name: "List", Type: "string", JSONPath: ".spec.l[*].x"}, {Name: "Wrong", Type: "integer", JSONPath: ".spec.s"},
	}
	res := things(t, crd, 0)[0]
	var names []string
	for _, c := range res.Columns {
		names = append(names, c.Name)
	}
	if want := []string{"Name", "Text", "N", "F", "B", "When", "Bad", "None", "List", "Wrong"}; !slices.Equal(names, want) {
		t.Errorf("columns %q", names)
	}
	u := object(t, `"spec":{"s":"x","n":3,"b":true,"t":"2024-02-03T04:05:06Z","l":[{"x":"first"},{"x":"second"}]}`)
	want := []any{"a", "x", int64(3), 3.0, true, "2m", "<invalid>", nil, "first", nil}
	if diff := cmp.Diff(want, res.Row(u, time.Date(2024, 2, 3, 4, 7, 6, 0, time.UTC))); diff != "" {
		t.Error(diff)
	}
}

func TestStructureCondition(t *testing.T) {
	crd := thing(t, `{"properties":{"a":{"type":"integer"}}}`)
	now := time.Unix(1700000000, 0)
	structure(crd, now)
	c := condition(crd, apiextensionsv1.NonStructuralSchema)
	if c == nil || c.Status != apiextensionsv1.ConditionTrue || c.Reason != "Violations" ||
		c.Message != "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields" {
		t.Errorf("%+v", c)
	}
	crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"] = apiextensionsv1.JSONSchemaProps{Type: "object"}
	structure(crd, now)
	if c := condition(crd, apiextensionsv1.NonStructuralSchema); c != nil {
		t.Errorf("%+v", c)
	}
}
