package custom

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/util/jsonpath"
)

// column is a column of `kubectl get` beside the name.
type column struct {
	metav1.TableColumnDefinition
	path string
	// parsers keeps parsed paths, which are not safe for concurrent use.
	parsers *sync.Pool
}

// columnsOf are the columns that a version asks for; without any, the age.
func columnsOf(v *apiextensionsv1.CustomResourceDefinitionVersion) []column {
	specs := v.AdditionalPrinterColumns
	if len(specs) == 0 {
		specs = []apiextensionsv1.CustomResourceColumnDefinition{{
			Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp",
			Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"],
		}}
	}
	var out []column
	for _, c := range specs {
		about := c.Description
		if about == "" {
			about = "Custom resource definition column (in JSONPath format): " + c.JSONPath
		}
		if _, err := parsePath(c.JSONPath); err != nil {
			return nil // as upstream: then there is but the name
		}
		out = append(out, column{
			TableColumnDefinition: metav1.TableColumnDefinition{Name: c.Name, Type: c.Type, Format: c.Format, Description: about, Priority: c.Priority},
			path:                  c.JSONPath, parsers: &sync.Pool{},
		})
	}
	return out
}

func parsePath(path string) (*jsonpath.JSONPath, error) {
	p := jsonpath.New("column").AllowMissingKeys(true)
	return p, p.Parse("{" + path + "}")
}

func (o *objects) header() []metav1.TableColumnDefinition {
	out := []metav1.TableColumnDefinition{nameColumn()}
	for i := range o.columns {
		out = append(out, o.columns[i].TableColumnDefinition)
	}
	return out
}

// row implements resource.Resource.Row.
func (o *objects) row(obj runtime.Object, now time.Time) []any {
	u := obj.(*unstructured.Unstructured)
	cells := []any{u.GetName()}
	for i := range o.columns {
		cells = append(cells, o.columns[i].cell(u.Object, now))
	}
	return cells
}

// cell is the value of the column, nil when there is none.
func (c *column) cell(object map[string]any, now time.Time) any {
	p, ok := c.parsers.Get().(*jsonpath.JSONPath)
	if !ok {
		var err error
		if p, err = parsePath(c.path); err != nil {
			return nil // it parsed when the column was made
		}
	}
	defer c.parsers.Put(p)
	results, err := p.FindResults(object)
	if err != nil || len(results) == 0 || len(results[0]) == 0 {
		return nil
	}
	value := results[0][0].Interface()
	if c.Type == "string" {
		var buf bytes.Buffer
		if p.PrintResults(&buf, []reflect.Value{reflect.ValueOf(value)}) != nil {
			return nil
		}
		return buf.String()
	}
	return cellOf(c.Type, value, now)
}

// cellOf is a value as a column of the type shows it, nil when it is of
// another.
func cellOf(typ string, value any, now time.Time) any {
	switch v := value.(type) {
	case int64:
		switch typ {
		case "integer":
			return v
		case "number":
			return float64(v)
		}
	case float64:
		switch typ {
		case "integer":
			return int64(v)
		case "number":
			return v
		}
	case bool:
		if typ == "boolean" {
			return v
		}
	case string:
		if typ != "date" {
			return nil
		}
		var t metav1.Time
		if text, err := json.Marshal(v); err != nil || t.UnmarshalJSON(text) != nil {
			return "<invalid>"
		}
		if t.IsZero() {
			return "<unknown>"
		}
		return duration.HumanDuration(now.Sub(t.Time))
	}
	return nil
}

// fieldsOf returns what computes the selectable fields of stored objects, of
// all versions together, since the versions share them; nil when none has any.
func fieldsOf(crd *apiextensionsv1.CustomResourceDefinition) func(runtime.Object) map[string]string {
	paths := FieldPaths(crd)
	if len(paths) == 0 {
		return nil
	}
	return func(obj runtime.Object) map[string]string {
		u := obj.(*unstructured.Unstructured)
		out := make(map[string]string, len(paths))
		for _, path := range paths {
			value, _, err := unstructured.NestedFieldNoCopy(u.Object, splitPath(path)...)
			name := strings.TrimPrefix(path, ".")
			if err != nil || value == nil {
				out[name] = ""
				continue
			}
			out[name] = fmt.Sprint(value)
		}
		return out
	}
}
