package openapi

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/resource"
)

// TestCatalogMatchesTypes compares the catalog with the Go types that this
// program is built with: after an upgrade of k8s.io/api it says that
// `go run ./hack/openapi` has to be run.
func TestCatalogMatchesTypes(t *testing.T) {
	c := testCatalog(t)
	seen := map[reflect.Type]bool{}
	for gvk, typ := range resource.Builtin().Scheme().AllKnownTypes() {
		if gvk.Version != runtime.APIVersionInternal {
			compareType(t, c, typ, seen)
		}
	}
	if len(seen) < 300 {
		t.Errorf("only %d types were compared", len(seen))
	}
}

func compareType(t *testing.T, c *catalog, typ reflect.Type, seen map[reflect.Type]bool) {
	t.Helper()
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || seen[typ] {
		return
	}
	named, ok := reflect.New(typ).Interface().(interface{ OpenAPIModelName() string })
	if !ok {
		return
	}
	d := c.byName[named.OpenAPIModelName()]
	if d == nil {
		return // options and other types that no path refers to
	}
	seen[typ] = true
	var s struct {
		Type       string         `json:"type"`
		Properties map[string]any `json:"properties"`
	}
	if err := json.Unmarshal(d.V2, &s); err != nil {
		t.Fatal(err)
	}
	if s.Type != "object" || len(s.Properties) == 0 {
		return // types with an encoding of their own
	}
	var want, got []string
	for _, f := range jsonFields(typ) {
		want = append(want, f.name)
		compareType(t, c, f.typ, seen)
	}
	for name := range s.Properties {
		got = append(got, name)
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields of the Go type of %s (-) and in the catalog (+); run `go run ./hack/openapi`:\n%s", d.Name, diff)
	}
}

type jsonField struct {
	name string
	typ  reflect.Type
}

func jsonFields(typ reflect.Type) (out []jsonField) {
	for f := range typ.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && (name == "" || strings.Contains(options, "inline")):
			embedded := f.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			out = append(out, jsonFields(embedded)...)
		case name != "" && name != "-":
			out = append(out, jsonField{name, f.Type})
		}
	}
	return out
}
