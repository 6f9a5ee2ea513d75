package ctl

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	cliresource "k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/util/jsonpath"
)

// sortObjects sorts by what the path finds; objects without it come first.
func sortObjects(infos []*cliresource.Info, path string) error {
	p, err := relaxedPath("sort", path)
	if err != nil {
		return err
	}
	keys := make(map[*cliresource.Info]any, len(infos))
	found := len(infos) == 0
	for _, info := range infos {
		if u, ok := info.Object.(*unstructured.Unstructured); ok {
			keys[info] = sortKey(p, u.Object)
			found = found || keys[info] != nil
		}
	}
	if !found {
		return fmt.Errorf("--sort-by=%s: none of the objects has this field", trimPath(path))
	}
	slices.SortStableFunc(infos, func(a, b *cliresource.Info) int { return compare(keys[a], keys[b]) })
	return nil
}

// sortRows sorts a table by the rows' objects.
func sortRows(t *metav1.Table, path string) error {
	p, err := relaxedPath("sort", path)
	if err != nil {
		return err
	}
	type keyed struct {
		row metav1.TableRow
		key any
	}
	rows := make([]keyed, len(t.Rows))
	found := len(rows) == 0
	for i, row := range t.Rows {
		rows[i].row = row
		if u, ok := row.Object.Object.(*unstructured.Unstructured); ok {
			rows[i].key = sortKey(p, u.Object)
			found = found || rows[i].key != nil
		}
	}
	if !found {
		return fmt.Errorf("--sort-by=%s: none of the objects has this field", trimPath(path))
	}
	slices.SortStableFunc(rows, func(a, b keyed) int { return compare(a.key, b.key) })
	for i := range rows {
		t.Rows[i] = rows[i].row
	}
	return nil
}

// sortKey is the first value that the path finds, or nil.
func sortKey(p *jsonpath.JSONPath, obj any) any {
	found, err := p.FindResults(obj)
	if err != nil || len(found) == 0 || len(found[0]) == 0 {
		return nil
	}
	v := found[0][0]
	if v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	if !v.IsValid() || !v.CanInterface() {
		return nil
	}
	return v.Interface()
}

// compare orders numbers by value, quantities by amount, and all else as text.
func compare(a, b any) int {
	if a == nil || b == nil {
		return cmp.Compare(btoi(a != nil), btoi(b != nil))
	}
	if x, ok := number(a); ok {
		if y, ok := number(b); ok {
			return cmp.Compare(x, y)
		}
	}
	x, y := fmt.Sprint(a), fmt.Sprint(b)
	if p, err := resource.ParseQuantity(x); err == nil {
		if q, err := resource.ParseQuantity(y); err == nil {
			return p.Cmp(q)
		}
	}
	return strings.Compare(x, y)
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case int64:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
