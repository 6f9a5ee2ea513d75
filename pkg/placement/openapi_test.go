package placement

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// property is what the test reads of a schema.
type property struct {
	Type        string               `json:"type"`
	Format      string               `json:"format"`
	Description string               `json:"description"`
	Items       *property            `json:"items"`
	Properties  map[string]*property `json:"properties"`
	Required    []string             `json:"required"`
}

// TestOpenAPIDescribesTheTypes: every field of the Go types is in the document
// with its type, whether it is always there, and what it means; and nothing else
// is.
func TestOpenAPIDescribesTheTypes(t *testing.T) {
	var doc struct {
		Components struct{ Schemas map[string]*property }
	}
	if err := json.Unmarshal(OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	root := doc.Components.Schemas["dev.coracle.explain.v1.PodPlacement"]
	if root == nil || root.Description == "" {
		t.Fatal("PodPlacement is not described")
	}
	compare(t, "status", reflect.TypeFor[Status](), root.Properties["status"])

	// An answer has nothing that is not described.
	b := NewBook(Budget)
	b.Put("default", "p", "1", waiting())
	p, _ := b.Get("default", "p")
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatal(err)
	}
	for name := range answer {
		if root.Properties[name] == nil {
			t.Errorf("%s of an answer is not described", name)
		}
	}
	for name := range answer["metadata"].(map[string]any) {
		if root.Properties["metadata"].Properties[name] == nil {
			t.Errorf("metadata.%s of an answer is not described", name)
		}
	}
}

func compare(t *testing.T, path string, typ reflect.Type, p *property) {
	t.Helper()
	if p == nil {
		t.Errorf("%s is not described", path)
		return
	}
	kind, format := "", ""
	switch typ.Kind() {
	case reflect.String:
		kind = "string"
	case reflect.Bool:
		kind = "boolean"
	case reflect.Int:
		kind, format = "integer", "int32"
	case reflect.Int64:
		kind, format = "integer", "int64"
	case reflect.Slice:
		kind = "array"
		compare(t, path+"[]", typ.Elem(), p.Items)
	case reflect.Struct:
		kind = "object"
		if typ == reflect.TypeFor[metav1.Time]() || typ == reflect.TypeFor[time.Time]() {
			kind, format = "string", "date-time"
			break
		}
		left := len(p.Properties)
		for f := range typ.Fields() {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if want := options != "omitempty"; slices.Contains(p.Required, name) != want {
				t.Errorf("%s.%s: required %v, want %v", path, name, !want, want)
			}
			child := p.Properties[name]
			if child != nil && child.Description == "" {
				t.Errorf("%s.%s does not say what it means", path, name)
			}
			compare(t, path+"."+name, f.Type, child)
			left--
		}
		if left != 0 {
			t.Errorf("%s describes %d fields that do not exist", path, left)
		}
	}
	if p.Type != kind || p.Format != format {
		t.Errorf("%s is a %s %s in the document, and a %s %s in Go", path, p.Type, p.Format, kind, format)
	}
}
